"""Deep Agents over a workspace: the agent's own tools, with a model whose part is written down."""

from __future__ import annotations

import asyncio
import base64
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from deepagents import create_deep_agent
from deepagents.backends import CompositeBackend
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from examples.scripted import ScriptedModel, turn
from langchain_daytona_ws import (
    InterruptApprover,
    MiddlewareApprover,
    PermissionDecision,
    PermissionRequest,
    WorkspaceBackend,
    WorkspacePool,
    WorkspaceSession,
    namespace_of,
)
from langchain_daytona_ws._core.run_sync import run_sync as drive_coroutine
from langchain_daytona_ws.errors import ConfigError, WriteConflict
from langchain_daytona_ws.local import Fault, LocalDaytona
from tests.integration_tests.conftest import Driven, config_for
from tests.integration_tests.s3 import Bucket, bucket

__all__ = ["bucket"]  # fixtures

OpenSession = Callable[..., Driven]


class Agent:
    """A Deep Agent over a session, through the session's face."""

    def __init__(self, driven: Driven, *script: AIMessage, **settings: Any) -> None:
        self.backend = WorkspaceBackend(driven.session)
        middleware = [self.backend.run_once] if settings.pop("run_once", False) else []
        model = ScriptedModel(script=[*script, turn("Done.")])
        self._runner = driven.runner
        settings.setdefault("backend", self.backend)
        self.graph = create_deep_agent(model=model, middleware=middleware, **settings)
        self.config: Any = {"configurable": {"thread_id": uuid.uuid4().hex}}

    def go(self, given: Any = None) -> dict[str, Any]:
        given = given or {"messages": [("user", "Go on.")]}
        if self._runner is None:
            return dict(self.graph.invoke(given, self.config))
        return dict(self._runner.run(self.graph.ainvoke(given, self.config)))

    def results(self, given: Any = None) -> list[ToolMessage]:
        return [message for message in self.go(given)["messages"] if isinstance(message, ToolMessage)]


@tool
def long() -> str:
    """Answer with a long text."""
    return "long " * 50_000


def agent_call(name: str, **args: Any) -> AIMessage:
    return turn("", **{name: args})


def test_an_agent_works_in_the_workspace(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server)
    root = driven.session.root
    results = Agent(
        driven,
        agent_call("write_file", file_path=f"{root}/src/a.py", content="x = 1\r\ny = 2\r\n"),
        agent_call("read_file", file_path=f"{root}/src/a.py"),
        agent_call("edit_file", file_path=f"{root}/src/a.py", old_string="1\ny", new_string="3\ny"),
        agent_call("execute", command="od -c src/a.py | head -1; exit 3"),
        agent_call("ls", path=f"{root}/src"),
        agent_call("glob", pattern="*.py"),
        agent_call("grep", pattern="y = ", path=root),
        agent_call("delete", file_path=f"{root}/src"),
        agent_call("ls", path=root),
    ).results()
    reply = [str(result.content) for result in results]
    assert [result.status for result in results] == ["success"] * 9
    assert "x = 1" in reply[1]
    assert "\\r" in reply[3]
    assert "3  \\r  \\n" in reply[3]
    assert "[Command failed with exit code 3]" in reply[3]
    assert reply[4] == reply[5] == f"['{root}/src/a.py']"
    assert f"{root}/src/a.py" in reply[6]
    assert reply[8] == "No files found"


def test_absolute_patterns_find_files_anywhere(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server)
    root = driven.session.root
    driven.run("mkdir -p src tmp /tmp/x; echo word | tee src/a.py b.py tmp/in.txt /tmp/x/out.txt")
    results = Agent(
        driven,
        agent_call("glob", pattern=f"{root}/src/**/*.py"),
        agent_call("glob", pattern=f"{root}/b.py"),
        agent_call("glob", pattern="/tmp/x/*.txt"),
        agent_call("glob", pattern="/tmp/x/*.txt", path=root),
        # A leading slash means the searched directory first, as Deep Agents describes it.
        agent_call("glob", pattern="/tmp/*.txt"),
        agent_call("glob", pattern="/*.py"),
        agent_call("glob", pattern="/none/*.py"),
        agent_call("grep", pattern="word", path=root, glob=f"{root}/src/*.py"),
    ).results()
    assert [str(result.content) for result in results] == [
        f"['{root}/src/a.py']",
        f"['{root}/b.py']",
        "['/tmp/x/out.txt']",
        "['/tmp/x/out.txt']",
        f"['{root}/tmp/in.txt']",
        f"['{root}/b.py']",
        "No files found",
        f"{root}/src/a.py",
    ]


def test_a_refusal_names_the_path_and_the_tool_to_use(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    driven = open_session(server)
    root = driven.session.root
    driven.run("ln -s /etc/hostname link; mkfifo fifo; head -c 40000000 /dev/zero > big; echo x > f")
    results = Agent(
        driven,
        agent_call("read_file", file_path=f"{root}/none"),
        agent_call("read_file", file_path=root),
        agent_call("read_file", file_path=f"{root}/link"),
        agent_call("write_file", file_path=f"{root}/link", content="x"),
        agent_call("read_file", file_path="/dev/zero"),
        agent_call("read_file", file_path=f"{root}/big"),
        agent_call("edit_file", file_path=f"{root}/f", old_string="", new_string="x"),
        agent_call("edit_file", file_path=f"{root}/f", old_string="none", new_string="x"),
        agent_call("grep", pattern="", path=root),
    ).results()
    linked = (
        f"[outside] '{root}/link': It leads out of the workspace through a symbolic link. Use the path that "
    )
    assert [result.status for result in results] == ["error"] * 9
    for result, text in zip(
        results,
        [
            f"Error: File '{root}/none' not found",
            f"Error: '{root}' is a directory: list it with ls",
            f"Error: {linked}",
            f"Error: {linked}",
            "Error: [not_regular] /dev/zero is a device, not a regular file.",
            f"Error: [too_large] {root}/big has 40,000,000 bytes, over the limit of 33,554,432. Use grep, or execute ",
            f"Error: [empty] '{root}/f': old_string is empty. To replace the whole content, write the file.",
            f"Error: [not_found] old_string was not found in {root}/f. Read the file again and copy the text exactly.",
            f"Path '{root}': [bad_pattern] The text must be one line, and not empty.",
        ],
        strict=True,
    ):
        assert str(result.content).startswith(text)


def test_a_write_replaces_only_an_unchanged_file(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server)
    root = driven.session.root
    driven.run("echo before > seen.txt; echo before > unseen.txt")
    script = [
        agent_call("write_file", file_path=f"{root}/unseen.txt", content="the agent's"),
        agent_call("read_file", file_path=f"{root}/seen.txt"),
        agent_call("execute", command="echo of somebody else > seen.txt"),
        agent_call("write_file", file_path=f"{root}/seen.txt", content="the agent's"),
        agent_call("execute", command="cat unseen.txt seen.txt"),
    ]
    results = Agent(driven, *script).results()
    assert results[3].status == "error"
    assert "changed since" in str(results[3].content)
    assert "the agent'sof somebody else\n" in str(results[4].content)
    direct = WorkspaceBackend(driven.session)
    assert "already exists" in str(direct.write("unseen.txt", "not by an agent").error)
    assert driven.run("cat unseen.txt").output == "the agent's"


@pytest.mark.parametrize("run_once", [False, True])
def test_approval_is_requested_and_a_denial_is_a_result(
    server: LocalDaytona, open_session: OpenSession, run_once: bool
) -> None:
    asked: list[PermissionRequest] = []

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request)
        if "secret" in request.summary:
            return PermissionDecision.deny("not that one")
        if "to be changed" in str(request.arguments.get("content")):
            return PermissionDecision.allow_edited({**request.arguments, "content": "as the user has it"})
        return PermissionDecision.allow()

    driven = open_session(server, permissionMode="ask", approver=approver)
    root = driven.session.root
    results = Agent(
        driven,
        agent_call("write_file", file_path=f"{root}/secret.txt", content="no"),
        agent_call("execute", command="cat secret"),
        agent_call("write_file", file_path=f"{root}/a.txt", content="to be changed"),
        agent_call("read_file", file_path=f"{root}/a.txt"),
        agent_call("edit_file", file_path=f"{root}/a.txt", old_string="user", new_string="human"),
        agent_call("write_file", file_path="/tmp/b.txt", content="beyond"),
        agent_call("delete", file_path=f"{root}/a.txt"),
        run_once=run_once,
    ).results()
    reply = [str(result.content) for result in results]
    assert results[0].status == "error"
    assert "not that one" in reply[0]
    assert "not that one" in reply[1]
    assert "exit code 126" in reply[1]
    assert "as the user has it" in reply[3]
    assert [result.status for result in results[2:]] == ["success"] * 5
    assert [(item.tool, item.action) for item in asked] == [
        ("workspace_file", "write"),
        ("bash", "run"),
        ("workspace_file", "write"),
        ("workspace_file", "edit"),
        ("sandbox_file", "write"),
        ("workspace_file", "delete"),
    ]
    assert "with all below it" in asked[-1].summary
    ids = [item.tool_call_id for item in asked]
    assert len(set(ids)) == 6
    called = [result.tool_call_id for index, result in enumerate(results) if index != 3]
    assert (ids == called) is run_once
    assert driven.run("ls").output == ""


def test_a_denied_call_provisions_nothing(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server, permissionMode="ask")
    script = [agent_call("execute", command="id"), agent_call("write_file", file_path="/tmp/a", content="b")]
    results = Agent(driven, *script).results()
    assert all("nobody to ask" in str(result.content) for result in results)
    assert server.requests == []


def test_edit_mode_asks_only_for_files_outside_the_workspace(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    driven = open_session(server, permissionMode="edit")
    root = driven.session.root
    results = Agent(
        driven,
        agent_call("write_file", file_path=f"{root}/a.txt", content="a"),
        agent_call("write_file", file_path="/home/daytona/.profile", content="b"),
        agent_call("delete", file_path="/home/daytona"),
    ).results()
    assert [result.status for result in results] == ["success", "error", "error"]


def test_a_mode_that_does_not_ask_builds_no_request(
    server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PermissionRequest, "__post_init__", None)  # to build one fails
    with WorkspaceSession(config_for(server), namespace="demo") as session:
        backend, path = WorkspaceBackend(session), f"{session.root}/f"
        assert backend.write(path, "one").error is None
        assert backend.edit(path, "one", "two").error is None
        assert backend.upload_files([(f"{session.root}/g", b"")])[0].error is None
        assert backend.execute("cat f").output == "two"
        assert backend.delete(path).error is None


@pytest.mark.parametrize("answer", ["approve", "reject"])
@pytest.mark.parametrize("run_once", [False, True])
@pytest.mark.one_in(2)
def test_a_graph_is_interrupted_and_goes_on(
    server: LocalDaytona, open_session: OpenSession, run_once: bool, answer: str
) -> None:
    driven = open_session(server, permissionMode="ask", approver=InterruptApprover())
    twice = AIMessage(
        "",
        tool_calls=[
            {"name": "execute", "args": {"command": "echo one >> log; cat log"}, "id": "1"},
            {"name": "execute", "args": {"command": "echo two >> log2; cat log2"}, "id": "2"},
        ],
    )
    agent = Agent(driven, twice, checkpointer=InMemorySaver(), run_once=run_once)
    open_ones = agent.go()["__interrupt__"]
    assert {item.value["action_requests"][0]["name"] for item in open_ones} == {"execute"}
    assert server.requests == []
    answers = {
        item.id: {
            "decisions": [
                {"type": answer if "one" in str(item.value["action_requests"][0]["args"]) else "approve"}
            ]
        }
        for item in open_ones
    }
    assert len(answers) == 2
    reply = [str(message.content) for message in agent.results(Command(resume=answers))]
    assert reply[0].startswith("one\n" if answer == "approve" else "[denied]")
    assert reply[1].startswith("two\n")
    assert driven.run("cat log log2 2>/dev/null; true").output == (
        "one\ntwo\n" if answer == "approve" else "two\n"
    )


def _edited(action: dict[str, Any]) -> dict[str, Any]:
    """Edit a call as it is shown: under the name and the arguments of the tool that was called."""
    changed = {"command": "echo edited; cat other"}
    if action["name"] != "execute":
        changed = {"file_path": f"{action['args']['file_path'].rpartition('/')[0]}/other"}
    args = {**action["args"], **changed}
    return {"type": "edit", "edited_action": {"name": action["name"], "args": args}}


def _edited_as_ours(action: dict[str, Any]) -> dict[str, Any]:
    """Edit a call under the name and the arguments that an approver of this package is given."""
    changed: dict[str, Any] = {
        "execute": {"command": "echo edited; cat other"},
        "write_file": {"action": "write", "path": "other", "content": "w"},
        "edit_file": {"action": "edit", "path": "other", "old_string": "old", "new_string": "new new"},
        "delete": {"action": "delete", "path": "other"},
    }[action["name"]]
    name = "bash" if action["name"] == "execute" else "workspace_file"
    return {"type": "edit", "edited_action": {"name": name, "args": changed}}


DECIDED: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], list[str], str]] = {
    "approve": (
        lambda _: {"type": "approve"},
        ["ran\n", "Updated file", "Successfully replaced 1", "Deleted"],
        "edited:new new\nlog:ran\nother:old\nwritten:w",
    ),
    "reject": (
        lambda _: {"type": "reject", "message": "not so"},
        ["not so"] * 4,
        "deleted:old\nedited:old\nother:old",
    ),
    "respond": (
        lambda _: {"type": "respond", "message": "I did it myself"},
        ["I did it myself"] * 4,
        "deleted:old\nedited:old\nother:old",
    ),
    "edit": (
        _edited,
        ["edited\nold\n", "/other", "[not_found]", "/other"],
        "deleted:old\nedited:old",
    ),
    "edit under our own names": (
        _edited_as_ours,
        ["edited\nold\n", "/other", "[not_found]", "/other"],
        "deleted:old\nedited:old",
    ),
}


@pytest.mark.parametrize("decision", DECIDED)
@pytest.mark.one_in(2)
def test_each_decision_has_its_effect_for_each_tool(
    server: LocalDaytona, open_session: OpenSession, decision: str
) -> None:
    decide, reported, left = DECIDED[decision]
    driven = open_session(server, permissionMode="ask", approver=InterruptApprover())
    root = driven.session.root
    driven.run("echo old | tee edited other > deleted")
    agent = Agent(
        driven,
        agent_call("execute", command="echo ran >> log; cat log"),
        agent_call("write_file", file_path=f"{root}/written", content="w"),
        agent_call("edit_file", file_path=f"{root}/edited", old_string="old", new_string="new new"),
        agent_call("delete", file_path=f"{root}/deleted"),
        checkpointer=InMemorySaver(),
        run_once=True,
    )
    state = agent.go()
    asked = []
    for _ in reported:
        (question,) = state["__interrupt__"]
        (action,) = question.value["action_requests"]
        asked.append(
            (action["name"], question.value["review_configs"][0]["action_name"], sorted(action["args"]))
        )
        state = agent.go(Command(resume={"decisions": [decide(action)]}))
    reply = [str(message.content) for message in state["messages"] if isinstance(message, ToolMessage)]
    assert len(reply) == len(reported)
    assert asked == [
        ("execute", "execute", ["command"]),
        ("write_file", "write_file", ["content", "file_path"]),
        ("edit_file", "edit_file", ["file_path", "new_string", "old_string"]),
        ("delete", "delete", ["file_path"]),
    ]
    for text, part in zip(reply, reported, strict=True):
        assert part in text
    assert driven.run("grep '' *").output.rstrip("\n") == left


def _approve_all(agent: Agent, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Answer every question of the middleware; return the asked tools and the tool messages."""
    asked, state = [], agent.go()
    while "__interrupt__" in state:
        actions = state["__interrupt__"][0].value["action_requests"]
        asked += [action["name"] for action in actions]
        state = agent.go(Command(resume={"decisions": [answer(action) for action in actions]}))
    return asked, [message for message in state["messages"] if isinstance(message, ToolMessage)]


def _by_content(action: dict[str, Any]) -> dict[str, Any]:
    text = str(action["args"])
    if "refused" in text:
        return {"type": "reject", "message": "not so"}
    if "changed" in text:
        args = {"command": "echo as edited"}
        return {"type": "edit", "edited_action": {"name": action["name"], "args": args}}
    return {"type": "approve"}


@pytest.mark.parametrize("mode", ["ask", "edit", "bypass"])
@pytest.mark.one_in(3)
def test_langchains_middleware_asks_once_per_call(
    server: LocalDaytona, open_session: OpenSession, mode: str
) -> None:
    driven = open_session(server, permissionMode=mode, approver=MiddlewareApprover())
    root = driven.session.root
    agent = Agent(
        driven,
        agent_call("execute", command="echo changed"),
        agent_call("write_file", file_path=f"{root}/a", content="a"),
        agent_call("edit_file", file_path=f"{root}/a", old_string="a", new_string="b"),
        agent_call("write_file", file_path="/tmp/refused", content="a"),
        agent_call("write_file", file_path="/large_tool_results/a", content="a"),
        agent_call("write_file", file_path="../a", content="a"),
        agent_call("delete", file_path=f"{root}/a"),
        agent_call("ls", path="/tmp"),
        run_once=True,
        checkpointer=InMemorySaver(),
        interrupt_on=WorkspaceBackend(driven.session).interrupt_on(),
    )
    asked, results = _approve_all(agent, _by_content)
    always = ["execute", "write_file"]
    assert asked == {
        "ask": ["execute", "write_file", "edit_file", "write_file", "delete"],
        "edit": always,
    }.get(mode, [])
    texts = [str(result.content) for result in results]
    expected = ["changed" if mode == "bypass" else "as edited", "Updated", "Successfully replaced 1"]
    expected += ["Updated" if mode == "bypass" else "not so", "Updated file /large", "not allowed", "Deleted"]
    for text, part in zip(texts, expected, strict=False):
        assert part in text
    assert ("/tmp/refused" in texts[-1]) is (mode == "bypass")


def test_the_middlewares_approvals_hold_in_a_subagent(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    driven = open_session(server, permissionMode="ask", approver=MiddlewareApprover())
    backend = WorkspaceBackend(driven.session)
    worker = {
        "name": "worker",
        "description": "works",
        "system_prompt": "Work.",
        "model": ScriptedModel(script=[agent_call("execute", command="echo ran >> log"), turn("Worked.")]),
        "middleware": [backend.run_once],
    }
    agent = Agent(
        driven,
        agent_call("task", description="work", subagent_type="worker"),
        backend=backend,
        run_once=True,
        checkpointer=InMemorySaver(),
        interrupt_on=backend.interrupt_on(),
        subagents=[worker],
    )
    asked, results = _approve_all(agent, lambda _: {"type": "approve"})
    assert asked == ["execute"]
    assert str(results[0].content) == "Worked."
    assert driven.run("cat log").output == "ran\n"


def test_without_the_calls_id_the_middlewares_approval_is_not_found(
    server: LocalDaytona, open_session: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    driven = open_session(server, permissionMode="ask", approver=MiddlewareApprover())
    agent = Agent(
        driven,
        agent_call("execute", command="echo ran"),
        checkpointer=InMemorySaver(),
        interrupt_on=WorkspaceBackend(driven.session).interrupt_on(),
    )
    _, results = _approve_all(agent, lambda _: {"type": "approve"})
    assert "exit code 126" in str(results[0].content)
    assert "interrupt_on=backend.interrupt_on() and middleware=[backend.run_once]" in caplog.text
    assert server.requests == []


def test_the_middleware_needs_its_own_approver(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server, permissionMode="ask", approver=InterruptApprover())
    with pytest.raises(ConfigError, match=r"MiddlewareApprover\(\)"):
        WorkspaceBackend(driven.session).interrupt_on()


@pytest.mark.parametrize("decision", [PermissionDecision.respond("I did it"), PermissionDecision.deny()])
def test_an_upload_that_was_not_allowed_is_not_made(
    server: LocalDaytona, open_session: OpenSession, decision: PermissionDecision
) -> None:
    driven = open_session(server, permissionMode="ask", approver=lambda _: decision)
    backend = WorkspaceBackend(driven.session)
    files = [(f"{backend.root}/a", b"a"), ("/tmp/a", b"a")]
    uploaded = (
        backend.upload_files(files)
        if driven.runner is None
        else driven.runner.run(backend.aupload_files(files))
    )
    assert [item.error for item in uploaded] == ["permission_denied"] * 2
    assert server.requests == []


def test_with_run_once_a_repeated_call_runs_nothing(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server)
    backend = WorkspaceBackend(driven.session)
    root = backend.root
    calls = [
        ("execute", {"command": "echo ran >> log"}, lambda: backend.execute("echo ran >> log")),
        (
            "edit_file",
            {"file_path": f"{root}/a", "old_string": "x", "new_string": "xx"},
            lambda: backend.edit(f"{root}/a", "x", "xx"),
        ),
    ]
    driven.run("echo x > a")
    for name, args, work in calls:
        for _ in range(2):
            request: Any = type(
                "Request", (), {"tool_call": {"name": name, "args": args, "id": f"id {name}"}}
            )
            outcome: Any = backend.run_once.wrap_tool_call(request, lambda _request, work=work: work())
            assert getattr(outcome, "error", None) is None
        # What another tool does, by the same call, is done each time.
        other: Any = type("Request", (), {"tool_call": {"name": "other", "args": args, "id": f"id {name}"}})
        if name == "execute":
            backend.run_once.wrap_tool_call(other, lambda _request, work=work: work())
    assert driven.run("cat log a").output == "ran\nran\nxx\n"


def test_long_results_are_stored_on_the_sandboxs_own_disk(bucket: Bucket, open_session: OpenSession) -> None:
    asked: list[str] = []

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.summary)
        return PermissionDecision.allow()

    driven = bucket.session(open_session, permissionMode="ask", approver=approver)
    agent = Agent(
        driven,
        agent_call("execute", command="seq 1 60000"),
        agent_call("grep", pattern="59999", path="/large_tool_results"),
    )
    results = agent.results()
    assert "/large_tool_results/" in str(results[0].content)
    saved_output = f"/large_tool_results/{results[0].tool_call_id}"
    assert saved_output in str(results[1].content)
    assert driven.run(f"sed -n '60000p' {saved_output}").output == "60000\n"
    assert bucket.paths() == []
    assert asked == ["bash: seq 1 60000"]


def test_both_ends_of_a_long_result_name_its_file(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server)
    command = "seq 1 200000; echo the needle; seq 1 200000"
    (result,) = Agent(driven, agent_call("execute", command=command)).results()
    shown = str(result.content)
    assert "/large_tool_results/" in shown, "Deep Agents has put it aside"
    (log,) = set(re.findall(r"its middle is left out here: search (\S+) for it", shown))
    assert shown.count(log) >= 2, "at the head and at the tail of what is shown"
    found = Agent(driven, agent_call("grep", pattern="the needle", path=log)).results()[0]
    assert log in str(found.content)


def test_artifacts_may_be_in_another_directory(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server, permissionMode="ask")
    root = "/home/daytona/agent"
    backend = WorkspaceBackend(driven.session, artifacts_root=root)
    whole = CompositeBackend(default=backend, routes={}, artifacts_root=root)
    agent = Agent(driven, agent_call("execute", command="x"), agent_call("long"), backend=whole, tools=[long])
    results = agent.results()
    assert f"{root}/large_tool_results/" in str(results[1].content)
    assert driven.run(f"cat {root}/large_tool_results/* | wc -c").output == "250000\n"


def test_the_history_is_stored_and_extended(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server, permissionMode="ask")  # no approval is needed, and so no approver
    backend = WorkspaceBackend(driven.session)
    path, first = "/conversation_history/session.md", "## One\n" + "said\n" * 100_000
    assert backend.write(path, first).error is None
    assert backend.download_files([path])[0].content == first.encode()
    assert backend.edit(path, first, first + "## Two\n").occurrences == 1
    assert backend.upload_files([("/blobs/x", b"\0\1")])[0].error is None
    assert driven.run(f"tail -1 {path}; wc -c < /blobs/x").output == "## Two\n2\n"


def test_two_agents_share_a_workspace_on_s3(bucket: Bucket, open_session: OpenSession) -> None:
    driven = bucket.session(open_session)
    root = driven.session.root
    writer = Agent(
        driven,
        agent_call("write_file", file_path=f"{root}/plan.md", content="1. measure\n"),
        agent_call("edit_file", file_path=f"{root}/plan.md", old_string="1.", new_string="One:"),
    )
    assert [result.status for result in writer.results()] == ["success"] * 2
    assert bucket.server.requests == []  # files need no sandbox
    reader = Agent(
        driven,
        agent_call("execute", command="cat plan.md && echo '2. cut' >> notes.md"),
        agent_call("read_file", file_path=f"{root}/plan.md"),
        agent_call("delete", file_path=f"{root}/plan.md"),
    )
    results = reader.results()
    assert str(results[0].content).startswith("One: measure\n")
    assert "One: measure" in str(results[1].content)
    assert bucket.paths() == ["notes.md"]


def test_a_tree_on_s3_is_deleted_whole(bucket: Bucket, open_session: OpenSession) -> None:
    driven = bucket.session(open_session)
    for name in ("d/a.txt", "d/e/b.txt", "kept.txt"):
        bucket.put(name, b"x")
    backend = WorkspaceBackend(driven.session)
    assert backend.delete(f"{backend.root}/d").error is None
    assert bucket.paths() == ["kept.txt"]
    for path in (backend.root, "/mnt", "/", "."):
        assert "can't be deleted" in str(backend.delete(path).error)
    assert bucket.paths() == ["kept.txt"]


def test_the_workspace_is_not_deleted_through_a_link(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server)
    backend = WorkspaceBackend(driven.session)
    above, name = backend.root.rsplit("/", 1)
    driven.run(
        f"echo x > kept; mkdir /tmp/d; ln -s / /tmp/d/link; mkdir '{above}/{name}2'; touch '{above}/{name}2/x'"
    )
    for path in (f"/tmp/d/link{backend.root}", f"/tmp/d/link{above}"):
        error = (
            backend.delete(path).error
            if driven.runner is None
            else driven.runner.run(backend.adelete(path)).error
        )
        assert "is the workspace directory" in str(error)
    assert driven.run("cat kept").output == "x\n"
    assert backend.delete(f"/tmp/d/link{above}/{name}2").error is None
    assert driven.run("ls ..").output == f"{name}\n"


def test_the_notices_of_a_deletion_come_with_the_next_result(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    driven = open_session(server, persistent=True)
    backend = WorkspaceBackend(driven.session)
    driven.run("mkdir -p d/e; touch d/e/f")
    server.stop_sandbox(server.sandboxes[0].id)
    if driven.is_async:
        assert driven.runner is not None
        deleted = driven.runner.run(backend.adelete(f"{backend.root}/d"))
    else:
        deleted = backend.delete(f"{backend.root}/d")
    assert deleted.error is None
    result = driven.run("ls")
    assert "was started again" in result.text
    assert result.output == ""


@pytest.mark.parametrize("on_s3", [False, True])
def test_a_large_edit_loses_nothing_that_another_call_has_changed(
    bucket: Bucket, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch, on_s3: bool
) -> None:
    driven = (
        bucket.session(open_session) if on_s3 else open_session(bucket.server, namespace=bucket.namespace)
    )
    session, long = driven.session, "x" * 140_000
    ops = session.files._async_ops if driven.is_async else session.files._sync_ops
    real, changed = ops._files.fetch, [("small", "another call's")]

    async def fetched(*given: Any, **limits: Any) -> Any:
        found = await real(*given, **limits)
        for old, new in changed:
            await ops.edit("f", old, new)
        return found

    def edit() -> int:
        edited = ops.replace_text("f", long, "y", replace_all=False)
        return driven.runner.run(edited) if driven.runner else drive_coroutine(edited)

    driven.files("write", "f", f"{long}\nsmall\n")
    monkeypatch.setattr(ops._files, "fetch", fetched)
    with pytest.raises(WriteConflict):
        edit()
    changed.clear()
    assert edit() == 1
    assert driven.files("download", "f") == b"y\nanother call's\n"
    assert driven.files("write", "f", "whole").created is False


@pytest.mark.full
def test_a_history_of_more_than_ten_mebibytes_is_appended_to(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    backend = WorkspaceBackend(open_session(server).session)
    path, history = "/conversation_history/session.md", "a message\n" * 1_200_000
    assert backend.write(path, history).error is None
    assert backend.edit(path, history, f"{history}and more\n").error is None
    assert backend.execute(f"wc -c < {path}; tail -1 {path}").output == "12000009\nand more\n"


def test_a_large_edit_is_no_read_of_the_file(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server)
    ops = driven.session.files._async_ops if driven.is_async else driven.session.files._sync_ops
    long = "x" * 140_000
    driven.files("write", "f", f"{long}\n")
    driven.run("echo of somebody else >> f")
    edited = ops.replace_text("f", long, "y", replace_all=False)
    assert (driven.runner.run(edited) if driven.runner else drive_coroutine(edited)) == 1
    with pytest.raises(WriteConflict):
        driven.files("write", "f", "whole")


@pytest.mark.parametrize("name", ["a b", "$(touch x)", "'\"", "-rf", "\n", "é\u202e", "*"])
@pytest.mark.parametrize("where", ["workspace", "/tmp"])
@pytest.mark.one_in(3)
def test_hostile_names_and_bytes_are_unchanged(
    server: LocalDaytona, open_session: OpenSession, name: str, where: str
) -> None:
    backend = WorkspaceBackend(open_session(server).session)
    directory = f"{backend.root}/d" if where == "workspace" else "/tmp/d"
    path, data = f"{directory}/{name}", bytes(range(256)) + b"\r\n\r\r\n"
    assert backend.upload_files([(path, data)])[0].error is None
    assert backend.download_files([path])[0].content == data
    read = backend.read(path).file_data
    assert read is not None
    assert base64.b64decode(read["content"]) == data
    assert [entry["path"] for entry in backend.ls(directory).entries or []] == [path]
    assert backend.delete(path).error is None
    assert backend.ls(directory).entries == []
    assert backend.execute(f"ls -A {backend.root}").output in {"", "d\n"}


@pytest.mark.full
@pytest.mark.parametrize("on_s3", [False, True])
def test_tens_of_megabytes_are_uploaded_and_downloaded(
    bucket: Bucket, open_session: OpenSession, on_s3: bool
) -> None:
    driven = (
        bucket.session(open_session) if on_s3 else open_session(bucket.server, namespace=bucket.namespace)
    )
    backend = WorkspaceBackend(driven.session)
    data = bytes(range(256)) * (130 << 10)  # 33 MiB

    def both(path: str) -> Any:
        assert backend.upload_files([(path, data)])[0].error is None
        return backend.download_files([path])[0]

    async def aboth(path: str) -> Any:
        assert (await backend.aupload_files([(path, data)]))[0].error is None
        return (await backend.adownload_files([path]))[0]

    for path in ("/tmp/large", f"{backend.root}/large"):
        got = driven.runner.run(aboth(path)) if driven.runner else both(path)
        assert got.error is None
        assert got.content == data


def test_each_file_of_a_batch_has_its_own_outcome(server: LocalDaytona, open_session: OpenSession) -> None:
    backend = WorkspaceBackend(open_session(server).session)
    uploads = [
        ("/tmp/ok", b"1"),
        ("no/root", b"2"),
        ("/tmp", b"3"),
        ("/tmp/ok/below", b"4"),
        ("/tmp/\0", b"5"),
    ]
    errors = [response.error for response in backend.upload_files(uploads)]
    assert errors == [None, "invalid_path", "is_directory", "invalid_path", "invalid_path"]
    found = backend.download_files(["/tmp/ok", "/tmp/none", "/tmp", "no/root"])
    assert [item.error for item in found] == [None, "file_not_found", "is_directory", "invalid_path"]
    assert found[0].content == b"1"


@pytest.mark.parametrize("is_outside", [False, True])
def test_several_files_are_one_request_of_each_kind(
    server: LocalDaytona, open_session: OpenSession, is_outside: bool
) -> None:
    driven = open_session(server)
    backend = WorkspaceBackend(driven.session)
    top = "/tmp/batch" if is_outside else backend.root
    contents = {f"{top}/d/small-{number}": b"%d\0" % number for number in range(40)}
    contents |= {f"{top}/large-{number}": bytes([number]) * 600_000 for number in range(3)}
    backend.execute(":")

    def requests() -> dict[str, int]:
        counts = {name: server.count(name) for name in ("execute", "upload", "download")}
        server.clear_requests()
        return counts

    async def transfer() -> tuple[Any, Any]:
        uploaded = await backend.aupload_files(list(contents.items()))
        sent.append(requests())
        return uploaded, await backend.adownload_files([*contents, f"{top}/none"])

    sent: list[dict[str, int]] = []
    requests()
    if driven.runner:
        uploaded, downloaded = driven.runner.run(transfer())
    else:
        uploaded = backend.upload_files(list(contents.items()))
        sent.append(requests())
        downloaded = backend.download_files([*contents, f"{top}/none"])
    assert sent[0] == {"execute": 1, "upload": 1, "download": 0}
    assert requests() == {"execute": 1, "upload": 0, "download": 3}
    assert [item.error for item in uploaded] == [None] * len(contents)
    assert [(item.path, item.content) for item in downloaded[:-1]] == list(contents.items())
    assert downloaded[-1].error == "file_not_found"
    count = backend.execute(f"ls {top}/d | wc -l; ls -A /tmp/.langchain-daytona-ws-uploads").output
    assert count == "40\n"


def test_a_command_with_an_unreadable_answer_has_no_exit_code(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    backend = WorkspaceBackend(open_session(server).session)
    body = b'{"exitCode":0,"result":"Killed"}'
    headers = {"content-type": "application/json"}
    server.faults.add(Fault("status", action="execute", status=200, headers=headers, body=body, times=None))
    result = backend.execute("true")
    assert result.exit_code is None
    assert "may have run" in result.output


def test_a_repeated_command_that_was_cancelled_has_no_exit_code(server: LocalDaytona) -> None:
    async def scene() -> Any:
        async with WorkspaceSession(config_for(server), namespace="demo") as session:
            backend: Any = WorkspaceBackend(session)
            command = "touch begun; sleep 60"
            call = {"name": "execute", "args": {"command": command}, "id": "one"}
            request: Any = type("Request", (), {"tool_call": call})

            def execute() -> Any:
                return backend.run_once.awrap_tool_call(request, lambda _: backend.aexecute(command))

            running = asyncio.ensure_future(execute())
            await session.arun("until test -e begun; do sleep 0.05; done")
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            return await execute()

    result = asyncio.run(scene())
    assert result.exit_code is None
    assert "What it had done stays" in result.output


def test_impossible_calls_are_reported(server: LocalDaytona, open_session: OpenSession) -> None:
    backend = WorkspaceBackend(open_session(server).session)
    assert backend.execute(" ").exit_code == 126
    assert "at most 600" in backend.execute("true", timeout=601).output
    assert backend.execute("echo ran", timeout=0).output == "ran\n"
    late = backend.execute("echo begun; sleep 30", timeout=1)
    assert late.exit_code == 124
    assert "timed out" in late.output
    assert "begun" in late.output
    long = backend.execute("head -c 3000000 /dev/zero | tr '\\0' x")
    assert long.truncated
    assert "left out" in long.output


def test_every_call_after_the_end_is_refused(server: LocalDaytona, open_session: OpenSession) -> None:
    driven = open_session(server)
    backend = WorkspaceBackend(driven.session)
    driven.close()
    assert "has ended" in backend.execute("true").output
    assert "has ended" in str(backend.read("a").error)
    assert "has ended" in str(backend.write("a", "b").error)
    assert "has ended" in str(backend.ls(".").error)
    assert "has ended" in str(backend.download_files(["/tmp/a"])[0].error)


@pytest.fixture
def no_blocking() -> Iterator[None]:
    with blockbuster_ctx(scanned_modules=["langchain_daytona_ws"]):
        yield


@pytest.mark.full
def test_no_async_method_blocks_the_loop(s3_server: LocalDaytona, bucket: Bucket, no_blocking: None) -> None:
    from langchain_daytona_ws import WorkspaceSession
    from tests.integration_tests.conftest import config_for
    from tests.integration_tests.s3 import KEYS, s3_options

    async def work() -> None:
        config = config_for(s3_server, envVars=KEYS, options=s3_options(s3_server, bucket.name))
        async with WorkspaceSession(config, namespace=bucket.namespace) as session:
            backend = WorkspaceBackend(session)
            for location in ("d", "/tmp/d"):
                assert (await backend.awrite(f"{location}/a", "x" * 2_000_000)).error is None
                assert (await backend.aedit(f"{location}/a", "x" * 2_000_000, "y")).occurrences == 1
                assert (await backend.aread(f"{location}/a")).error is None
                assert (await backend.als(location)).entries
                assert (await backend.aglob("*", location)).matches
                assert (await backend.agrep("y", location)).matches
                path = f"{location}/b" if location.startswith("/") else f"{backend.root}/{location}/b"
                assert (await backend.aupload_files([(path, b"z" * 2_000_000)]))[0].error is None
                assert (await backend.adownload_files([path]))[0].error is None
                assert (await backend.adelete(location)).error is None
            assert (await backend.aexecute("echo done")).output == "done\n"

    asyncio.run(work())


class PooledAgent:
    """A Deep Agent over a pool, called by several threads."""

    def __init__(
        self, pool: WorkspacePool, runner: asyncio.Runner | None, *script: AIMessage, **more: Any
    ) -> None:
        self.backend = WorkspaceBackend(pool)
        self._runner = runner
        self.graph = create_deep_agent(
            model=ScriptedModel(script=[*script, turn("Done.")]),
            backend=self.backend,
            middleware=[self.backend.run_once],
            checkpointer=InMemorySaver(),
            **more,
        )

    def results(self, given: Any, **settings: Any) -> list[str]:
        config: Any = {"configurable": settings}
        if self._runner is None:
            state = self.graph.invoke(given, config)
        else:
            state = self._runner.run(self.graph.ainvoke(given, config))
        return [str(message.content) for message in state["messages"] if isinstance(message, ToolMessage)]


@pytest.fixture(params=["sync", "async"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
    if request.param == "sync":
        yield None
        return
    with asyncio.Runner() as running:
        yield running


GO_ON = {"messages": [("user", "Go on.")]}


def test_a_pool_gives_each_thread_its_own_workspace(
    server: LocalDaytona, runner: asyncio.Runner | None
) -> None:
    script = (agent_call("execute", command="cat f; pwd; echo mine > f"), agent_call("glob", pattern="*"))
    with WorkspacePool(config_for(server)) as pool:
        agent = PooledAgent(pool, runner, *script)
        for thread in ("ann@x.org", "bob"):
            ran, found = agent.results(GO_ON, thread_id=thread)
            assert "No such file" in ran
            assert f"/{namespace_of(thread)}\n" in ran
            assert f"/{namespace_of(thread)}/f" in found
    assert server.sandboxes == []


def test_a_call_without_a_key_gets_an_error(server: LocalDaytona, runner: asyncio.Runner | None) -> None:
    call = (
        agent_call("execute", command="true"),
        agent_call("write_file", file_path="/a", content="a"),
        agent_call("edit_file", file_path="/a", old_string="a", new_string="b"),
        agent_call("read_file", file_path="/a"),
        agent_call("ls", path="/"),
        agent_call("glob", pattern="*"),
        agent_call("grep", pattern="a"),
        agent_call("delete", file_path="/a"),
    )
    with WorkspacePool(config_for(server), key="user") as pool:
        agent = PooledAgent(pool, runner, *call)
        results = agent.results(GO_ON, thread_id="t", langgraph_auth_user={"identity": "ann"})
        assert len(results) == len(call)
        assert all("[no_key]" in result for result in results)
        backend = agent.backend
        assert "[no_key]" in str(backend.upload_files([("/a", b"a")])[0].error)
        assert "[no_key]" in str(backend.download_files(["/a"])[0].error)
        with pytest.raises(ConfigError, match="authenticated no user"):
            _ = backend.root
    assert server.requests == []


def test_the_guidance_is_the_same_for_all_workspaces(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server))
    backend = WorkspaceBackend(pool)
    assert "pwd prints its path" in backend.guidance()
    assert backend.id != WorkspaceBackend(pool).id


def test_the_middleware_asks_for_the_workspace_of_the_run(
    server: LocalDaytona, runner: asyncio.Runner | None
) -> None:
    config = config_for(server, permissionMode="ask")
    with WorkspacePool(config, approver=MiddlewareApprover()) as pool:
        interrupt_on = WorkspaceBackend(pool).interrupt_on()
        agent = PooledAgent(pool, runner, agent_call("execute", command="pwd"), interrupt_on=interrupt_on)
        for thread in ("ann", "bob"):
            assert agent.results(GO_ON, thread_id=thread) == []
            answer = Command(resume={"decisions": [{"type": "approve"}]})
            (result,) = agent.results(answer, thread_id=thread)
            assert f"/{thread}\n" in result
