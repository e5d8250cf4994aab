"""The tools as an agent uses them: approvals, error messages, LangGraph."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

from langchain_daytona_ws import (
    BashTool,
    PermissionDecision,
    PermissionRequest,
    WorkspaceFileTool,
    WorkspaceSession,
)
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import Driven, config_for

Make = Callable[..., Driven]


class Asked:
    """An approver that keeps what it was asked and gives the answers that it was given."""

    def __init__(self, *answers: Any) -> None:
        self.requests: list[PermissionRequest] = []
        self._answers = list(answers)

    def __call__(self, request: PermissionRequest) -> Any:
        self.requests.append(request)
        return self._answers.pop(0) if self._answers else PermissionDecision.allow()


def read_the_log(driven: Driven) -> None:
    """Read, search and try to change the file that the notice about a long output names."""
    content = driven.call(driven.bash, command="seq 100000; echo the-end").content
    assert "all of it is in /tmp/" in content
    path = content.partition("all of it is in ")[2].partition(" ...]")[0]

    def ask(**arguments: object) -> ToolMessage:
        message: ToolMessage = driven.call(driven.file, path=path, **arguments)
        return message

    assert ask(action="read", offset=50_000, limit=1).content.startswith(
        " 50000\t50000\n[Showing lines 50000-50000"
    )
    assert ask(action="grep", pattern="the-e", output_mode="content").content == f"{path}:100001:the-end"
    for change in (
        {"action": "write", "content": "x", "overwrite": True},
        {"action": "edit", "old_string": "the-end", "new_string": "x"},
        {"action": "delete"},
    ):
        message = ask(**change)
        assert message.status == "error"
        assert "can be read and searched only" in message.content
    driven.call(driven.bash, command=f"rm {path}; ln -s /etc/passwd {path}")
    assert "[missing]" in ask(action="read").content


def test_the_log_of_a_command_is_read(server: LocalDaytona, open_session: Make) -> None:
    read_the_log(open_session(server))


def test_a_path_outside_is_refused_before_anybody_is_asked(server: LocalDaytona, open_session: Make) -> None:
    asked = Asked()
    driven = open_session(server, permissionMode="ask", approver=asked)
    for path in ("/tmp/report.txt", "~/.bashrc", "C:\\x.py", "file:///x.py"):
        message = driven.call(driven.file, action="write", path=path, content="x")
        assert message.status == "error"
        assert "[path_outside]" in message.content
    for change, code in (
        ({"action": "write", "path": "x/", "content": "x"}, "path_directory"),
        ({"action": "edit", "path": "x", "old_string": "same", "new_string": "same"}, "identical"),
    ):
        assert f"[{code}]" in driven.call(driven.file, **change).content
    assert asked.requests == []
    assert server.requests == []
    driven.call(driven.file, action="write", path="report.txt", content="x")
    message = driven.call(driven.file, action="write", path="/tmp/report.txt", content="y")
    assert "use report.txt, which exists there" in message.content
    assert len(asked.requests) == 1


class TestApproval:
    def test_nothing_is_provisioned_before_the_answer(self, server: LocalDaytona, open_session: Make) -> None:
        seen: list[int] = []

        def approver(request: PermissionRequest) -> PermissionDecision:
            seen.append(len(server.requests))
            return PermissionDecision.allow()

        driven = open_session(server, permissionMode="ask", approver=approver)
        assert driven.call(driven.bash, command="echo ok").content == "ok\n[exit code 0]"
        assert seen == [0]

    def test_a_denial_makes_no_request_and_is_reported_to_the_model(
        self, server: LocalDaytona, open_session: Make
    ) -> None:
        driven = open_session(
            server, permissionMode="ask", approver=Asked(PermissionDecision.deny("not on a Friday"))
        )
        message = driven.call(driven.bash, command="rm -rf .")
        assert message.status == "error"
        assert "not on a Friday" in message.content
        assert "Do not retry" in message.content
        assert server.requests == []

    def test_an_answer_of_another_type_denies(self, server: LocalDaytona, open_session: Make) -> None:
        driven = open_session(server, permissionMode="ask", approver=lambda request: True)
        assert driven.call(driven.bash, command="true").status == "error"
        assert server.requests == []

    def test_a_mode_that_does_not_ask_builds_no_request(
        self, workspace: Driven, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PermissionRequest, "__post_init__", None)  # to build one fails
        for tool, arguments in (
            (workspace.file, {"action": "write", "path": "f", "content": "one"}),
            (workspace.file, {"action": "edit", "path": "f", "old_string": "one", "new_string": "two"}),
            (workspace.bash, {"command": "cat f"}),
        ):
            assert workspace.call(tool, **arguments).status == "success"

    def test_a_session_without_an_approver_denies(self, server: LocalDaytona, open_session: Make) -> None:
        driven = open_session(server, permissionMode="ask")
        message = driven.call(driven.bash, command="true")
        assert message.status == "error"
        assert "[no_approver]" in message.content
        assert server.requests == []

    def test_no_answer_in_time_denies(self, server: LocalDaytona, open_session: Make) -> None:
        never = threading.Event()
        driven = open_session(
            server, permissionMode="ask", approver=lambda request: never.wait(), approval_timeout_s=0.05
        )
        message = driven.call(driven.bash, command="true")
        never.set()
        assert "[approval_timeout]" in message.content
        assert server.requests == []

    def test_an_async_approver_is_awaited(self, server: LocalDaytona, open_session: Make) -> None:
        async def approver(request: PermissionRequest) -> PermissionDecision:
            await asyncio.sleep(0)
            return PermissionDecision.allow()

        driven = open_session(server, permissionMode="ask", approver=approver)
        assert driven.call(driven.bash, command="echo ok").content.startswith("ok")

    @pytest.mark.parametrize(
        ("mode", "asked"),
        [
            ("ask", ["run", "write", "edit", "delete"]),
            ("edit", ["run"]),
            ("bypass", []),
        ],
    )
    def test_each_mode_asks_about_its_actions(
        self, server: LocalDaytona, open_session: Make, mode: str, asked: list[str]
    ) -> None:
        approver = Asked()
        driven = open_session(server, permissionMode=mode, approver=approver)
        driven.call(driven.bash, command="true")
        for arguments in (
            {"action": "write", "path": "a", "content": "1"},
            {"action": "read", "path": "a"},
            {"action": "edit", "path": "a", "old_string": "1", "new_string": "2"},
            {"action": "list"},
            {"action": "glob", "pattern": "*"},
            {"action": "grep", "pattern": "2"},
            {"action": "delete", "path": "a"},
        ):
            assert driven.call(driven.file, **arguments).status == "success", arguments
        assert [request.action for request in approver.requests] == asked

    def test_the_request_describes_the_call(self, server: LocalDaytona, open_session: Make) -> None:
        approver = Asked()
        driven = open_session(server, permissionMode="ask", approver=approver, namespace="shop")
        driven.call(driven.file, "call_9", action="write", path="a.py", content="x = 1\n")
        driven.call(driven.file, action="edit", path="a.py", old_string="1", new_string="2")
        write, edit = approver.requests
        assert (write.tool, write.action, write.namespace, write.tool_call_id) == (
            "workspace_file", "write", "shop", "call_9",
        )  # fmt: skip
        assert write.diff is not None
        assert "+x = 1" in write.diff
        assert edit.diff is not None
        assert "-1\n+2" in edit.diff
        assert edit.diff_is_from_arguments

    def test_edited_arguments_run_and_are_reported_to_the_model(
        self, server: LocalDaytona, open_session: Make
    ) -> None:
        approver = Asked(PermissionDecision.allow_edited({"command": "echo safe"}))
        driven = open_session(server, permissionMode="ask", approver=approver)
        message = driven.call(driven.bash, command="echo dangerous")
        assert "\nsafe\n" in message.content
        assert "echo safe" in message.content
        assert "user changed" in message.content
        assert message.artifact["output"] == "safe\n"

    def test_edited_arguments_of_a_file_call_are_used(self, server: LocalDaytona, open_session: Make) -> None:
        approver = Asked(PermissionDecision.allow_edited({"action": "write", "path": "b", "content": "2"}))
        driven = open_session(server, permissionMode="ask", approver=approver)
        message = driven.call(driven.file, action="write", path="a", content="1")
        assert "user changed" in message.content
        assert driven.run("cat b; ls").output == "2b\n"

    @pytest.mark.parametrize(
        "edited", [{}, {"command": ""}, {"command": "true", "timeout": 9999}, {"command": "true", "x": 1}]
    )
    def test_invalid_edited_arguments_deny(
        self, server: LocalDaytona, open_session: Make, edited: dict[str, Any]
    ) -> None:
        driven = open_session(
            server, permissionMode="ask", approver=Asked(PermissionDecision.allow_edited(edited))
        )
        assert driven.call(driven.bash, command="true").status == "error"
        assert server.requests == []

    def test_edited_arguments_are_taken_as_validated(self, server: LocalDaytona, open_session: Make) -> None:
        approver = Asked(PermissionDecision.allow_edited({"command": "echo a", "timeout": "5"}))
        driven = open_session(server, permissionMode="ask", approver=approver)
        assert "\na\n" in driven.call(driven.bash, command="true").content

    def test_an_edited_call_has_another_idempotency_key(
        self, server: LocalDaytona, open_session: Make
    ) -> None:
        approver = Asked(
            PermissionDecision.allow_edited({"command": "echo edited"}), PermissionDecision.allow()
        )
        driven = open_session(server, permissionMode="ask", approver=approver)
        driven.call(driven.bash, "same", "thread", command="echo original")
        message = driven.call(driven.bash, "same", "thread", command="echo original")
        assert message.content == "original\n[exit code 0]"

    def test_a_repeated_file_call_changes_nothing_again(self, workspace: Driven) -> None:
        workspace.files("write", "a", "one one\n")
        edit = {"action": "edit", "path": "a", "old_string": "one one", "new_string": "one one one"}
        first = workspace.call(workspace.file, "call_3", "thread", **edit)
        again = workspace.call(workspace.file, "call_3", "thread", **edit)
        assert again.content.endswith(first.content)
        assert "recorded result" in again.content
        assert workspace.run("cat a").output == "one one one\n"
        workspace.call(workspace.file, "call_4", "thread", **edit)
        assert workspace.run("cat a").output == "one one one one\n"

    def test_remembered_prefixes_do_not_cover_more(self, server: LocalDaytona, open_session: Make) -> None:
        approver = Asked(PermissionDecision.allow_always("prefix", "echo a"))
        driven = open_session(server, permissionMode="ask", approver=approver)
        for command in ("echo a", "echo a b; echo a c", "echo a | echo a"):
            driven.call(driven.bash, command=command)
        assert len(approver.requests) == 1
        for command in ("echo b", "echo a; rm x", "echo a > f", "echo a $(rm x)", "X=1 echo a", "echo a &"):
            driven.call(driven.bash, command=command)
        assert len(approver.requests) == 7

    def test_a_call_that_would_be_refused_needs_no_approval(
        self, server: LocalDaytona, open_session: Make
    ) -> None:
        approver = Asked()
        driven = open_session(server, permissionMode="ask", approver=approver)
        assert driven.call(driven.bash, command=" ").status == "error"
        assert driven.call(driven.file, action="write", path="../x", content="").status == "error"
        assert driven.call(driven.file, action="write", path="x").status == "error"
        assert approver.requests == []

    def test_a_write_over_a_file_that_changed_is_refused_after_the_approval(
        self, server: LocalDaytona, open_session: Make
    ) -> None:
        driven = open_session(server, permissionMode="ask", approver=Asked())
        driven.files("write", "a", "1")
        driven.run("echo 2 > a")
        message = driven.call(driven.file, action="write", path="a", content="3")
        assert message.status == "error"
        assert driven.run("cat a").output == "2\n"


class TestTerminal:
    COMMAND = r"printf '\033[32mgreen\033[0m 10%%\r\033[Kdone\n'; test -t 0 && stty size; cat; exit 3"

    def test_the_model_gets_the_text_that_a_person_would_read(self, workspace: Driven) -> None:
        message = workspace.call(workspace.bash, command=self.COMMAND, pty=True)
        assert message.content == "done\n24 80\n[exit code 3]"
        assert (message.artifact["output"], "raw_output" in message.artifact) == ("done\n24 80", False)

    def test_the_control_codes_are_in_the_artifact_on_request(self, workspace: Driven) -> None:
        tool = BashTool(session=workspace.session, raw_output=True)
        artifact = workspace.call(tool, command=self.COMMAND, pty=True).artifact
        assert artifact["raw_output"].startswith("\x1b[32mgreen\x1b[0m 10%\r\x1b[Kdone\r\n")
        assert "raw_output" not in workspace.call(tool, command="true").artifact

    def test_a_result_of_the_session_has_screen_and_output(self, workspace: Driven) -> None:
        result = workspace.run("tput cols; printf '\\033[1mx'", pty=(120, 30))
        assert (result.screen, result.output) == ("120\nx", "120\r\n\x1b[1mx")
        assert workspace.run("echo x").screen is None
        streamed: list[str] = []
        assert workspace.run("sleep 0.6; echo x", pty=True, on_output=streamed.append).screen == "x"
        assert "".join(streamed) == "x\r\n"

    def test_a_repeated_call_gets_its_record(self, workspace: Driven) -> None:
        first, again = (
            workspace.call(workspace.bash, command="echo x >> ran; cat ran", pty=True) for _ in range(2)
        )
        assert first.content == "x\n[exit code 0]"
        assert "recorded result" in again.content
        assert again.artifact["output"] == "x"

    def test_a_job_has_no_terminal(self, workspace: Driven) -> None:
        message = workspace.call(workspace.bash, command="true", pty=True, background=True)
        assert (message.status, "a job has no terminal" in message.content) == ("error", True)


class TestMessages:
    def test_an_exit_code_is_a_result(self, workspace: Driven) -> None:
        message = workspace.call(workspace.bash, command="echo no >&2; exit 4")
        assert (message.status, message.content) == ("success", "no\n[exit code 4]")
        assert message.artifact["exit_code"] == 4
        assert message.artifact["sandbox_id"] == workspace.session.sandbox_id

    def test_lines_that_end_in_crlf_run(self, workspace: Driven) -> None:
        command = "for i in 1 2; do\r\n  echo $i\r\ndone\r\n"
        assert workspace.call(workspace.bash, command=command).content == "1\n2\n[exit code 0]"

    def test_control_characters_are_shown_as_read_shows_them(self, workspace: Driven) -> None:
        message = workspace.call(workspace.bash, command="printf '\\033[31mc\\n' > f; printf a\\\\0b; cat f")
        assert message.content == "a\\x00b\\x1b[31mc\n[exit code 0]"
        assert message.artifact["output"] == "a\\x00b\\x1b[31mc\n"
        read = workspace.call(workspace.file, action="read", path="f").content
        assert read.splitlines()[0].endswith("\t\\x1b[31mc")
        many = workspace.call(workspace.bash, command="head -c 5000 /dev/zero; echo; head -c 8 /dev/zero")
        assert many.content == "\\x00 [5,000 times]\n" + "\\x00" * 8 + "\n[exit code 0]"

    def test_a_time_out_is_a_notice(self, workspace: Driven) -> None:
        message = workspace.call(workspace.bash, command="echo a; sleep 60", timeout=0.5)
        assert message.content.startswith("[timed out after 0.5 s")
        assert message.content.endswith("\na\n[exit code 124]")

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"command": "true", "timeout": 0},
            {"command": "true", "timeout": 601},
            {"command": 1},
            {"x": 1},
        ],
    )
    def test_bad_arguments_are_explained(self, workspace: Driven, arguments: dict[str, Any]) -> None:
        message = workspace.call(workspace.bash, **arguments)
        assert message.status == "error"
        assert message.content.startswith("[bad_arguments] Nothing was done.")

    def test_a_refused_api_key_is_an_error_message(self, server: LocalDaytona, open_session: Make) -> None:
        driven = open_session(server, options={"apiKey": "wrong"})
        message = driven.call(driven.bash, command="true")
        assert message.status == "error"
        assert "[unauthorized]" in message.content
        assert "127.0.0.1" not in message.content

    def test_a_tool_is_invoked_without_a_tool_call(self, workspace: Driven) -> None:
        assert workspace.invoke(workspace.bash, {"command": "echo a"}) == "a\n[exit code 0]"

    def test_copies_share_the_session(self, workspace: Driven) -> None:
        for other in (
            copy.deepcopy(workspace.bash),
            workspace.bash.model_copy(deep=True),
            copy.copy(workspace.bash),
        ):
            assert other.session is workspace.session

    def test_traces_contain_no_session(self, workspace: Driven) -> None:
        seen: list[str] = []

        class Tracer(BaseCallbackHandler):
            def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> None:
                seen.append(f"{serialized}{input_str}{kwargs}")

        workspace.invoke(workspace.bash, {"command": "true"}, {"callbacks": [Tracer()]})
        assert seen
        assert "WorkspaceSession" not in "".join(seen)


class Scripted(BaseChatModel):
    """A chat model with a scripted answer."""

    replies: list[AIMessage]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Scripted:  # type: ignore[override]
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        shown = sum(isinstance(message, AIMessage) for message in messages)
        return ChatResult(generations=[ChatGeneration(message=self.replies[shown])])


def calls(*made: tuple[str, dict[str, Any]]) -> AIMessage:
    return AIMessage(
        content="",
        tool_calls=[{"name": name, "args": args, "id": f"{name}-{i}"} for i, (name, args) in enumerate(made)],
    )


class TestLangGraph:
    def test_an_agent_does_its_work(self, server: LocalDaytona, workspace: Driven) -> None:
        model = Scripted(
            replies=[
                calls(("workspace_file", {"action": "write", "path": "a.py", "content": "print(6 * 7)\n"})),
                calls(("bash", {"command": "python3 a.py"})),
                calls(
                    ("bash", {"command": "cd nowhere"}), ("workspace_file", {"action": "read", "path": "no"})
                ),
                AIMessage(content="done"),
            ]
        )
        agent = create_agent(model, [workspace.bash, workspace.file])
        result = workspace.invoke(agent, {"messages": [("user", "go")]})
        reported = [message for message in result["messages"] if isinstance(message, ToolMessage)]
        assert reported[1].content == "42\n[exit code 0]"
        assert [message.status for message in reported] == ["success", "success", "success", "error"]
        assert result["messages"][-1].content == "done"
        assert server.count("create") == 1

    def test_tool_node_answers_parallel_calls(self, server: LocalDaytona, workspace: Driven) -> None:
        model = Scripted(
            replies=[
                calls(*(("bash", {"command": f"echo {i}"}) for i in range(5))),
                AIMessage(content="done"),
            ]
        )
        agent = create_agent(model, [workspace.bash])
        result = workspace.invoke(agent, {"messages": [("user", "go")]})
        reported = [message for message in result["messages"] if isinstance(message, ToolMessage)]
        assert [message.content.split("\n")[0] for message in reported] == list("01234")
        assert server.count("create") == 1

    @pytest.mark.parametrize("answer", ["yes", "no"])
    def test_an_interrupt_in_the_approver_stops_the_graph_before_anything_is_made(
        self, server: LocalDaytona, open_session: Make, answer: str
    ) -> None:
        def approver(request: PermissionRequest) -> PermissionDecision:
            shown = interrupt(request.to_dict())
            return PermissionDecision.allow() if shown == "yes" else PermissionDecision.deny("no")

        driven = open_session(server, permissionMode="ask", approver=approver)
        model = Scripted(
            replies=[calls(("bash", {"command": "echo x >> log; wc -l < log"})), AIMessage(content="done")]
        )
        agent = create_agent(model, [driven.bash], checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "1"}}
        stopped = driven.invoke(agent, {"messages": [("user", "go")]}, config)
        (asked,) = stopped["__interrupt__"]
        assert asked.value["summary"].startswith("bash: echo x")
        assert server.requests == []
        result = driven.invoke(agent, Command(resume=answer), config)
        (reported,) = [message for message in result["messages"] if isinstance(message, ToolMessage)]
        if answer == "yes":
            assert reported.content == "1\n[exit code 0]"
        else:
            assert reported.status == "error"
            assert server.requests == []

    def test_tool_node_takes_the_tools(self, server: LocalDaytona) -> None:
        session = WorkspaceSession(config_for(server), namespace="demo")
        node = ToolNode([BashTool(session=session), WorkspaceFileTool(session=session)])
        assert set(node.tools_by_name) == {"bash", "workspace_file"}


def test_many_notices_do_not_cut_off_the_error(workspace: Driven) -> None:
    workspace.call(workspace.bash, "c1", command="true")
    for number in range(20):
        workspace.session._state.notices.add(f"conflict: file {number} " + "n" * 300)
    failed = workspace.call(workspace.file, "c2", action="read", path="absent")
    assert failed.status == "error"
    assert "[missing] absent does not exist" in failed.content


def test_a_tool_with_another_name_has_its_own_permissions(server: LocalDaytona) -> None:
    asked: list[str] = []

    def approve(request: PermissionRequest) -> PermissionDecision:
        asked.append(f"{request.tool} {request.action}")
        return PermissionDecision.allow_always("tool")

    with WorkspaceSession(
        config_for(server, permissionMode="ask"), namespace="demo", approver=approve
    ) as session:
        files = WorkspaceFileTool(session=session, name="fs")
        files.invoke({"action": "write", "path": "a", "content": "1"})
        files.invoke({"action": "read", "path": "a"})
        files.invoke({"action": "write", "path": "b", "content": "2"})
        assert asked == ["workspace_file write"]
        bash = BashTool(session=session, name="workspace_file")
        bash.invoke({"command": "echo ran"})
        bash.invoke({"command": "echo again"})
        assert asked == ["workspace_file write", "bash run"]
