"""Approvals, read files and notices belong to a thread of a workspace, also if each run has its own session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from examples.scripted import ScriptedModel, turn
from langchain_daytona_ws import PermissionDecision, PermissionRequest, WorkspaceSession, WorkspaceToolkit
from langchain_daytona_ws._session import conversations
from langchain_daytona_ws._session.state import LOST_NOTICES
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import Driven, config_for

LOST = f"[{LOST_NOTICES[None]}]\n"


class Asked:
    """An approver that remembers each approval, and lists what it was asked."""

    def __init__(self) -> None:
        self.commands: list[str | None] = []

    def __call__(self, request: PermissionRequest) -> PermissionDecision:
        self.commands.append(request.command)
        return PermissionDecision.allow_always("command")


class Chat:
    """A graph over a tool node, and its threads; each call is a turn of its own."""

    def __init__(
        self, session: WorkspaceSession, saver: InMemorySaver, runner: asyncio.Runner | None
    ) -> None:
        builder = StateGraph(MessagesState)
        builder.add_node("tools", ToolNode(WorkspaceToolkit(session=session).get_tools()))
        builder.add_edge(START, "tools")
        self.session = session
        self.graph: Any = builder.compile(checkpointer=saver)
        self.runner = runner
        self.calls = 0

    def call(self, thread: str, name: str, **args: Any) -> ToolMessage:
        self.calls += 1
        call = {"name": name, "args": args, "id": f"call-{self.calls}", "type": "tool_call"}
        turn = {"messages": [AIMessage("", tool_calls=[call])]}
        config = {"configurable": {"thread_id": thread}}
        if self.runner is None:
            state = self.graph.invoke(turn, config)
        else:
            state = self.runner.run(self.graph.ainvoke(turn, config))
        message: ToolMessage = state["messages"][-1]
        return message

    def bash(self, thread: str, command: str) -> str:
        return str(self.call(thread, "bash", command=command).content)

    def file(self, thread: str, action: str, **args: Any) -> ToolMessage:
        return self.call(thread, "workspace_file", action=action, **args)


Open = Callable[..., Chat]


@pytest.fixture
def chat_over(server: LocalDaytona, open_session: Callable[..., Driven]) -> Open:
    """Make a chat over a new session; `again` is its session and saver in a new run, or in a new process."""
    saver = InMemorySaver()

    def make(**settings: Any) -> Chat:
        driven = open_session(server, **settings)
        return Chat(driven.session, saver, driven.runner)

    return make


def test_a_thread_must_have_read_a_file_itself(chat_over: Open) -> None:
    chat = chat_over()
    assert chat.file("a", "write", path="f", content="1\n").status == "success"
    refused = chat.file("b", "write", path="f", content="2\n")
    assert refused.status == "error"
    assert "was not read" in str(refused.content)
    assert chat.file("a", "write", path="f", content="3\n").status == "success"
    assert chat.file("b", "read", path="f").status == "success"
    assert chat.file("b", "write", path="f", content="4\n").status == "success"
    changed = chat.file("a", "write", path="f", content="5\n")
    assert changed.status == "error"
    assert "changed" in str(changed.content)


def test_the_program_and_a_thread_have_read_different_files(workspace: Driven, server: LocalDaytona) -> None:
    workspace.files("write", "f", "1\n")
    refused = workspace.call(workspace.file, thread="a", action="write", path="f", content="2\n")
    assert refused.status == "error"
    workspace.files("write", "f", "3\n")
    assert workspace.call(workspace.file, action="write", path="f", content="4\n").status == "success"


def test_a_session_for_each_run_knows_what_the_thread_has_read(chat_over: Open) -> None:
    first = chat_over(persistent=True)
    first.file("a", "write", path="f", content="1\n")
    second = chat_over(persistent=True)
    assert second.file("a", "write", path="f", content="2\n").status == "success"
    assert second.file("b", "write", path="f", content="3\n").status == "error"


def test_a_session_for_each_run_knows_what_the_thread_has_approved(chat_over: Open) -> None:
    asked = Asked()
    for _ in range(2):
        chat = chat_over(persistent=True, permissionMode="ask", approver=asked)
        assert chat.bash("a", "echo 1").endswith("1\n[exit code 0]")
    assert asked.commands == ["echo 1"]
    chat.bash("b", "echo 1")
    assert asked.commands == ["echo 1"] * 2


def test_what_was_read_ends_with_an_ephemeral_sandbox(chat_over: Open) -> None:
    first = chat_over()
    first.file("a", "write", path="f", content="1\n")
    first.session.close()
    second = chat_over()
    second.bash("a", "echo 1 > f")  # a new file of the same content
    assert second.file("a", "write", path="f", content="2\n").status == "error"


def test_approvals_end_with_the_conversation(server: LocalDaytona, open_session: Any) -> None:
    """A program that starts again, with the same id for its thread and an empty checkpointer."""
    asked = Asked()
    for _ in range(2):
        driven = open_session(server, permissionMode="ask", approver=asked)
        assert Chat(driven.session, InMemorySaver(), driven.runner).bash("1", "echo 1") == "1\n[exit code 0]"
        driven.close()
    assert asked.commands == ["echo 1"] * 2


def test_approvals_outlive_a_summary_of_the_conversation(server: LocalDaytona, open_session: Any) -> None:
    asked = Asked()
    driven = open_session(server, permissionMode="ask", approver=asked)
    summaries = SummarizationMiddleware(
        ScriptedModel(script=[turn("They talked.")]), trigger=("messages", 5), keep=("messages", 1)
    )
    agent = create_agent(
        ScriptedModel(script=[turn(bash={"command": "echo 1"}), turn("Done.")]),
        [driven.bash],
        middleware=[summaries],
        checkpointer=InMemorySaver(),
    )
    for _ in range(2):
        state = driven.invoke(agent, {"messages": [("user", "go")]}, {"configurable": {"thread_id": "1"}})
    assert "They talked." in state["messages"][0].content
    assert asked.commands == ["echo 1"]


def test_approvals_end_with_the_workspace(server: LocalDaytona, chat_over: Open) -> None:
    asked = Asked()
    settings = {"persistent": True, "permissionMode": "ask", "approver": asked}
    chat_over(**settings).bash("a", "echo 1")
    WorkspaceSession(config_for(server, persistent=True, permissionMode="ask"), namespace="demo").release()
    chat_over(**settings).bash("a", "echo 1")
    assert asked.commands == ["echo 1"] * 2


def test_each_thread_gets_one_notice_of_a_replaced_sandbox(server: LocalDaytona, chat_over: Open) -> None:
    chat = chat_over()
    for thread in "ab":
        chat.bash(thread, "echo 1 > f")
    server.destroy_sandbox(server.sandboxes[0].id)
    for thread in "ab":
        assert chat.bash(thread, "echo 2") == f"{LOST}2\n[exit code 0]"
        assert chat.bash(thread, "echo 3") == "3\n[exit code 0]"
    assert chat.bash("c", "echo 2") == "2\n[exit code 0]"


def test_each_thread_gets_one_notice_of_a_restart(server: LocalDaytona, chat_over: Open) -> None:
    chat = chat_over(persistent=True)
    for thread in "ab":
        chat.bash(thread, "true")
    server.stop_sandbox(server.sandboxes[0].id)
    for thread in "ab":
        assert "started again" in chat.bash(thread, "true")
        assert chat.bash(thread, "true") == "[exit code 0]"
    assert chat.bash("c", "true") == "[exit code 0]"


def test_the_end_of_a_job_is_a_notice_for_the_other_threads(chat_over: Open) -> None:
    chat = chat_over()
    chat.bash("b", "true")
    started = chat.call("a", "bash", command="until test -e end; do sleep 0.05; done", background=True)
    job_id = started.artifact["id"]
    chat.bash("a", "touch end")
    while chat.call("a", "bash_job", action="status", job_id=job_id).artifact["state"] == "running":
        pass
    assert f"{job_id}" in chat.bash("b", "true")
    for thread in "ab":
        assert chat.bash(thread, "true") == "[exit code 0]"


def in_a_new_process() -> None:
    conversations._conversations.clear()


def test_a_new_process_reports_a_replaced_sandbox_to_the_thread(
    server: LocalDaytona, chat_over: Open
) -> None:
    first = chat_over()
    first.bash("a", "echo 1 > f")
    first.file("a", "read", path="f")
    in_a_new_process()
    again = chat_over()
    missing = again.file("a", "read", path="f")
    assert missing.status == "error"
    assert str(missing.content).startswith(f"{LOST}[")
    assert "f" in str(missing.content)
    assert again.bash("a", "true") == "[exit code 0]"
    assert again.bash("b", "true") == "[exit code 0]"


def test_a_new_process_reports_a_replaced_persistent_sandbox(server: LocalDaytona, chat_over: Open) -> None:
    chat_over(persistent=True).bash("a", "echo 1 > f")
    in_a_new_process()
    assert chat_over(persistent=True).bash("a", "cat f") == "1\n[exit code 0]"
    server.destroy_sandbox(server.sandboxes[0].id)
    in_a_new_process()
    assert chat_over(persistent=True).bash("a", "ls") == f"{LOST}[exit code 0]"


def test_a_session_for_each_run_reports_a_new_ephemeral_sandbox(chat_over: Open) -> None:
    chat_over().bash("a", "echo 1 > f")
    assert chat_over().bash("a", "ls") == f"{LOST}[exit code 0]"


def test_results_of_tools_with_other_names_belong_to_another_workspace(
    server: LocalDaytona, open_session: Any
) -> None:
    """An agent with two workspaces: the results of the other's tools say nothing about this machine."""
    first, other = open_session(server), open_session(server, namespace="other")
    tools = WorkspaceToolkit(session=first.session).get_tools()
    bash_b = WorkspaceToolkit(session=other.session).bash
    bash_b.name = "bash_b"
    chat = Chat(first.session, InMemorySaver(), first.runner)
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([*tools, bash_b]))
    builder.add_edge(START, "tools")
    chat.graph = builder.compile(checkpointer=InMemorySaver())
    assert chat.bash("a", "echo 1") == "1\n[exit code 0]"
    assert chat.call("a", "bash_b", command="echo 2").content == "2\n[exit code 0]"
    in_a_new_process()
    assert chat.bash("a", "echo 1") == "1\n[exit code 0]"
    assert chat.call("a", "bash_b", command="echo 2").content == "2\n[exit code 0]"
