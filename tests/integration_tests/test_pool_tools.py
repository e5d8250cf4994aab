"""One graph for many users: each run works in the workspace of its own key, whatever a client sends."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from pydantic import ValidationError
from starlette.testclient import TestClient

from examples.scripted import ScriptedModel, turn
from langchain_daytona_ws import (
    BashTool,
    ConfigError,
    MiddlewareApprover,
    PermissionDecision,
    PermissionRequest,
    WorkspacePool,
    WorkspaceSession,
    WorkspaceToolkit,
    namespace_of,
)
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for


def graph_over(pool: WorkspacePool) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode(WorkspaceToolkit(pool=pool).get_tools()))
    builder.add_edge(START, "tools")
    return builder.compile(checkpointer=InMemorySaver())


def calling(*commands: str) -> dict[str, Any]:
    calls = [
        {"name": "bash", "args": {"command": command}, "id": f"call-{number}", "type": "tool_call"}
        for number, command in enumerate(commands)
    ]
    return {"messages": [AIMessage("", tool_calls=calls)]}


def run(**settings: Any) -> Any:
    return {"configurable": settings}


def last(state: dict[str, Any]) -> str:
    return str(state["messages"][-1].content)


class Client:
    """Sends runs to a graph, sync or async."""

    def __init__(self, runner: asyncio.Runner | None) -> None:
        self.runner = runner

    def send(self, graph: Any, turn: Any, config: Any) -> dict[str, Any]:
        if self.runner is None:
            return dict(graph.invoke(turn, config))
        return dict(self.runner.run(graph.ainvoke(turn, config)))


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    if request.param == "sync":
        yield Client(None)
        return
    with asyncio.Runner() as runner:
        yield Client(runner)


def test_each_thread_has_its_own_workspace(server: LocalDaytona, client: Client) -> None:
    with WorkspacePool(config_for(server)) as pool:
        graph = graph_over(pool)
        for thread in ("a@b.com", "a-b.com", "../a"):
            state = client.send(graph, calling("cat f; echo mine > f"), run(thread_id=thread))
            assert "No such file" in last(state)
        namespaces = {sandbox.labels["namespace"] for sandbox in server.sandboxes}
        assert namespaces == {namespace_of(thread) for thread in ("a@b.com", "a-b.com", "../a")}
        assert last(client.send(graph, calling("cat f"), run(thread_id="../a"))) == "mine\n[exit code 0]"
    assert server.sandboxes == []


def test_a_thread_id_may_be_of_another_type(server: LocalDaytona, client: Client) -> None:
    with WorkspacePool(config_for(server)) as pool:
        graph = graph_over(pool)
        for thread in (0, UUID(int=7)):
            client.send(graph, calling("echo mine > f"), run(thread_id=thread))
            assert last(client.send(graph, calling("cat f"), run(thread_id=str(thread)))).startswith("mine")


def test_a_client_cannot_reach_the_workspace_of_another(server: LocalDaytona, client: Client) -> None:
    """The server authenticates; the rest of `configurable` is the client's word, also the thread of another user."""
    with WorkspacePool(config_for(server), key="user") as pool:
        graph = graph_over(pool)
        ann = {"langgraph_auth_user": SimpleNamespace(identity="ann", is_authenticated=True)}
        bob = {"langgraph_auth_user": SimpleNamespace(identity="bob", is_authenticated=True)}
        client.send(graph, calling("echo secret > f"), run(thread_id="thread-of-ann", **ann))
        for claims in (
            {"thread_id": "thread-of-ann"},
            {"thread_id": "2", "user_id": "ann", "langgraph_auth_user_id": "ann", "namespace": "ann"},
            {"thread_id": namespace_of("ann"), "key": "ann"},
        ):
            stolen = client.send(graph, calling("cat f"), run(**claims, **bob))
            assert "secret" not in last(stolen)
        for word in ("ann", {"identity": "ann", "is_authenticated": True}):
            refused = client.send(graph, calling("cat f"), run(thread_id="3", langgraph_auth_user=word))
            assert last(refused).startswith("[no_key]")
        assert (
            last(client.send(graph, calling("cat f"), run(thread_id="4", **ann))) == "secret\n[exit code 0]"
        )


def test_approvals_of_another_user_do_not_count(server: LocalDaytona, client: Client) -> None:
    asked: list[str] = []

    def approve(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.namespace)
        return PermissionDecision.allow_always("tool")

    config = config_for(server, permissionMode="ask")
    with WorkspacePool(config, key=lambda run: run["configurable"]["user"], approver=approve) as pool:
        graph = graph_over(pool)
        for user in ("ann", "bob@x.org", "ann"):
            client.send(graph, calling("true"), run(thread_id="same", user=user))
    assert asked == ["ann", namespace_of("bob@x.org")]


def test_a_run_without_a_key_is_refused(
    server: LocalDaytona, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with WorkspacePool(config_for(server)) as pool, caplog.at_level(logging.WARNING):
        (tool, *_) = WorkspaceToolkit(pool=pool).get_tools()
        call = {"type": "tool_call", "id": "1", "name": "bash", "args": {"command": "true"}}
        message = client.runner.run(tool.ainvoke(call)) if client.runner else tool.invoke(call)
    assert message.status == "error"
    assert message.content == "[no_key] This run belongs to no workspace, so nothing ran. Tell the user."
    assert "the run has no thread id" in caplog.text
    assert server.requests == []


def test_a_full_pool_is_an_error_for_the_model(server: LocalDaytona, client: Client) -> None:
    with WorkspacePool(config_for(server), max_sessions=1, wait_s=1.0) as pool:
        graph = graph_over(pool)
        with pool.session("a"):
            state = client.send(graph, calling("true"), run(thread_id="b"))
        assert last(state).startswith("[pool_full] All machines are in use. Nothing ran.")
        assert last(client.send(graph, calling("true"), run(thread_id="b"))) == "[exit code 0]"


def test_many_users_at_once_on_one_loop(server: LocalDaytona) -> None:
    async def main() -> list[str]:
        async with WorkspacePool(config_for(server), max_sessions=3) as pool:
            graph = graph_over(pool)
            turns = [
                graph.ainvoke(
                    calling(f"echo {n} > f; sleep 0.1; cat f", "sleep 0.05; cat f"), run(thread_id=f"u{n}")
                )
                for n in range(6)
            ]
            states = await asyncio.gather(*turns)
            return [str(state["messages"][-2].content) for state in states]

    assert asyncio.run(main()) == [f"{n}\n[exit code 0]" for n in range(6)]
    assert server.sandboxes == []


def test_many_users_at_once_on_threads(server: LocalDaytona) -> None:
    with WorkspacePool(config_for(server), max_sessions=3) as pool, ThreadPoolExecutor(6) as workers:
        graph = graph_over(pool)
        running = [
            workers.submit(graph.invoke, calling(f"echo {n} > f; sleep 0.1; cat f"), run(thread_id=f"u{n}"))
            for n in range(6)
        ]
        assert [last(item.result(200)) for item in running] == [f"{n}\n[exit code 0]" for n in range(6)]
    assert server.sandboxes == []


def test_the_machine_of_an_idle_thread_is_new(server: LocalDaytona, client: Client) -> None:
    with WorkspacePool(config_for(server), max_sessions=1) as pool:
        graph = graph_over(pool)
        client.send(graph, calling("echo 1 > f"), run(thread_id="a"))
        client.send(graph, calling("true"), run(thread_id="b"))
        assert last(client.send(graph, calling("true"), run(thread_id="a"))).startswith(
            "[The machine was replaced: "
        )
        assert last(client.send(graph, calling("true"), run(thread_id="a"))) == "[exit code 0]"


def test_the_middleware_asks_for_each_workspace(server: LocalDaytona, client: Client) -> None:
    config = config_for(server, permissionMode="ask")
    pool = WorkspacePool(config, approver=MiddlewareApprover())
    model = ScriptedModel(script=[turn(bash={"command": "pwd"}), turn("done")])
    with pool:
        agent = create_agent(
            model,
            WorkspaceToolkit(pool=pool).get_tools(),
            middleware=[HumanInTheLoopMiddleware(interrupt_on=pool.interrupt_on())],
            checkpointer=InMemorySaver(),
        )
        for thread in ("ann", "bob"):
            asked = client.send(agent, {"messages": [("user", "where?")]}, run(thread_id=thread))
            assert "__interrupt__" in asked
            answer = Command(resume={"decisions": [{"type": "approve"}]})
            done = client.send(agent, answer, run(thread_id=thread))
            (result,) = [message for message in done["messages"] if isinstance(message, ToolMessage)]
            assert str(result.content).endswith(f"/{thread}\n[exit code 0]")
    assert WorkspacePool(config_for(server)).interrupt_on() == {}
    with pytest.raises(ConfigError, match="MiddlewareApprover"):
        WorkspacePool(config).interrupt_on()


def test_a_tool_has_a_session_or_a_pool(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server))
    session = WorkspaceSession(config_for(server), namespace="demo")
    for arguments in ({}, {"session": session, "pool": pool}):
        for kind in (BashTool, WorkspaceToolkit):
            with pytest.raises(ValidationError, match="either session"):
                kind(**arguments)
    with WorkspaceToolkit(pool=pool) as toolkit:
        assert toolkit.bash.pool is toolkit.files.pool is toolkit.jobs.pool is pool
    with pytest.raises(Exception, match="pool was closed"), pool.session("a"):
        pass


def test_its_facts_are_those_of_its_sessions(server: LocalDaytona) -> None:
    config = config_for(server, onTimeout="background")
    pool, session = WorkspacePool(config), WorkspaceSession(config, namespace="demo")
    assert WorkspaceToolkit(pool=pool).bash.description == WorkspaceToolkit(session=session).bash.description
    assert pool.guidance() == session.guidance()


def as_langgraph_loads(path: Path, **names: Any) -> Any:
    """Load a file as LangGraph's server does: as a module that nothing else can import."""
    spec = importlib.util.spec_from_file_location("user_module", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module).update(names)
    spec.loader.exec_module(module)
    return module


def test_the_example_for_a_langgraph_server(
    server: LocalDaytona, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAYTONA_API_URL", server.api_url)
    monkeypatch.setenv("DAYTONA_API_KEY", server.api_key)
    page = (Path(__file__).parents[2] / "docs" / "pool.md").read_text("utf-8")
    (code,) = re.findall(r"^```py\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "workspace_agent.py").write_text(code)
    model = ScriptedModel(script=[turn(bash={"command": "pwd"}), turn("done")])
    module = as_langgraph_loads(tmp_path / "workspace_agent.py", model=model)
    graph, app, pool = module.graph, module.app, module.pool
    user = SimpleNamespace(identity="ann@example.com", is_authenticated=True)
    with TestClient(app):
        state = graph.invoke({"messages": [("user", "where?")]}, run(langgraph_auth_user=user))
        assert state["messages"][-2].content.endswith(f"/{namespace_of('ann@example.com')}\n[exit code 0]")
        assert repr(pool) == "WorkspacePool(sessions=1, in_use=0)"
    assert repr(pool) == "WorkspacePool(sessions=0, in_use=0)"
    with pool:
        pool.release("ann@example.com")
    assert server.sandboxes == []
