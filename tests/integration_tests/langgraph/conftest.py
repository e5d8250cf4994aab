"""Graphs over a workspace, run sync and async, with checkpointers in memory and in SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Interrupt

from examples.scripted import ScriptedModel
from langchain_daytona_ws import InterruptApprover, WorkspaceSession, WorkspaceToolkit
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for

APPROVE = {"type": "approve"}
REJECT = {"type": "reject", "message": "not this one"}


def answer_with(*decisions: dict[str, Any]) -> dict[str, Any]:
    return {"decisions": list(decisions)}


def bash(call_id: str, command: str, **more: Any) -> dict[str, Any]:
    return {"name": "bash", "args": {"command": command, **more}, "id": call_id, "type": "tool_call"}


def file(call_id: str, action: str, **more: Any) -> dict[str, Any]:
    args = {"action": action, **more}
    return {"name": "workspace_file", "args": args, "id": call_id, "type": "tool_call"}


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [AIMessage("", tool_calls=list(calls))]}


def results(state: dict[str, Any]) -> dict[str, ToolMessage]:
    """Return the tool messages by the ids of their calls."""
    found = [message for message in state["messages"] if isinstance(message, ToolMessage)]
    assert len({message.tool_call_id for message in found}) == len(found)
    return {message.tool_call_id: message for message in found}


class SameIds(ScriptedModel):
    """A model whose server numbers the calls of each turn from one."""

    def _generate(self, messages: list[Any], *args: Any, **kwargs: Any) -> Any:
        result = super()._generate(messages, *args, **kwargs)
        for number, call in enumerate(result.generations[0].message.tool_calls, 1):  # type: ignore[attr-defined]
            call["id"] = f"call_{number}"
        return result


class Stage:
    """Sessions and graphs as one process makes them; `next_process` keeps what is in the database, and nothing else."""

    def __init__(self, server: LocalDaytona, runner: asyncio.Runner | None, database: Path | None) -> None:
        self.server = server
        self.is_async = runner is not None
        self._runner = runner
        self._database = database
        self._sessions: list[WorkspaceSession] = []
        self._open: Any = None
        self._saver: Any = None
        self.thread: dict[str, Any] = {"configurable": {"thread_id": "thread-1"}}

    @property
    def saver(self) -> Any:
        if self._saver is None and self._database is None:
            self._saver = InMemorySaver()
        elif self._saver is None and self._runner:
            self._open = AsyncSqliteSaver.from_conn_string(str(self._database))
            self._saver = self._runner.run(self._open.__aenter__())
        elif self._saver is None:
            self._open = SqliteSaver.from_conn_string(str(self._database))
            self._saver = self._open.__enter__()
        return self._saver

    def session(self, *, approver: Any = None, namespace: str = "demo", **settings: Any) -> WorkspaceSession:
        config = config_for(self.server, **{"permissionMode": "ask", **settings})
        approver = InterruptApprover() if approver is None else approver
        self._sessions.append(WorkspaceSession(config, namespace=namespace, approver=approver))
        return self._sessions[-1]

    def tool_node(self, *sessions: WorkspaceSession, **wraps: Any) -> Any:
        """Return a graph with one node, in which all calls of a message run concurrently."""
        tools = [tool for session in sessions for tool in WorkspaceToolkit(session=session).get_tools()]
        return self.compiled(StateGraph(MessagesState), ToolNode(tools, **wraps))

    def compiled(self, graph: Any, node: Any) -> Any:
        return graph.add_node("tools", node).add_edge(START, "tools").compile(checkpointer=self.saver)

    def wait(self, sync: Callable[..., Any], async_: Callable[..., Any], *given: Any, **named: Any) -> Any:
        return self._runner.run(async_(*given, **named)) if self._runner else sync(*given, **named)

    def do(self, graph: Any, value: Any, config: dict[str, Any] | None = None) -> Any:
        return self.wait(graph.invoke, graph.ainvoke, value, config or self.thread)

    def history(self, graph: Any) -> list[Any]:
        async def reported() -> list[Any]:
            return [state async for state in graph.aget_state_history(self.thread)]

        return self.wait(lambda: list(graph.get_state_history(self.thread)), reported)

    def answer_all(
        self, graph: Any, state: Any, decide: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> tuple[Any, list[dict[str, Any]]]:
        """Answer one question at a time, without its id, until none is open; return all questions."""
        asked = []
        while questions := self.questions(state):
            assert len(questions) == 1
            (action,) = questions[0].value["action_requests"]
            asked.append(action)
            state = self.do(graph, Command(resume=answer_with(decide(action))))
        return state, asked

    @staticmethod
    def questions(state: dict[str, Any]) -> Sequence[Interrupt]:
        return state.get("__interrupt__", ())

    def see(self, session: WorkspaceSession, command: str) -> str:
        """Run a command independently of the agent."""
        output: str = self.wait(session.run, session.arun, command).output
        return output

    def next_process(self) -> None:
        self.close()
        self._saver = self._open = None

    def close(self) -> None:
        for session in self._sessions:
            self.wait(session.close, session.aclose)
        self._sessions.clear()
        if self._open is not None and self._runner:
            self._runner.run(self._open.__aexit__(None, None, None))
        elif self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = None


def _stage(server: LocalDaytona, kind: str, directory: Path) -> Iterator[Stage]:
    runtime, _, where = kind.partition("-")
    runner = asyncio.Runner() if runtime == "async" else None
    stage = Stage(server, runner, directory / "graph.sqlite" if where == "sqlite" else None)
    yield stage
    stage.close()
    if runner:
        runner.close()


@pytest.fixture(params=["sync-memory", "async-memory", "sync-sqlite", "async-sqlite"])
def stage(server: LocalDaytona, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    yield from _stage(server, request.param, tmp_path)


@pytest.fixture(params=["sync-memory", "async-memory"])
def quick(server: LocalDaytona, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """A stage for what the checkpointer has no part in."""
    yield from _stage(server, request.param, tmp_path)


@pytest.fixture(params=["sync-sqlite", "async-sqlite"])
def lasting(server: LocalDaytona, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """A stage for more than one process."""
    yield from _stage(server, request.param, tmp_path)
