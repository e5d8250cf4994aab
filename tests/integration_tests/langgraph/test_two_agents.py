"""Two agents that one node runs sequentially, with a model whose server reuses the ids of calls in each turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

from examples.scripted import turn
from langchain_daytona_ws import WorkspaceSession, WorkspaceToolkit
from tests.integration_tests.langgraph.conftest import APPROVE, SameIds, Stage, bash, file

GO: dict[str, Any] = {"messages": [("user", "go")]}
AGAIN = "[this call was made before: this is its recorded result, and nothing was run again]"


def agent_of(session: WorkspaceSession, name: str | None) -> Any:
    return create_agent(
        SameIds(script=[turn(bash={"command": "echo x >> log; wc -l < log"}), turn("Done.")]),
        WorkspaceToolkit(session=session).get_tools(),
        name=name,
    )


def graph_of(
    stage: Stage, *agents: Any, fail: Callable[[], None] = lambda: None, keeps_checkpoints: bool = True
) -> Any:
    """Return a graph whose only node, a plain function, runs the agents and returns their tools' results."""

    def reported(states: list[dict[str, Any]]) -> dict[str, Any]:
        fail()
        output = [item for state in states for item in state["messages"] if isinstance(item, ToolMessage)]
        return {"messages": [AIMessage(message.text) for message in output]}

    async def awork(state: MessagesState) -> dict[str, Any]:
        return reported([await agent.ainvoke(GO) for agent in agents])

    def work(state: MessagesState) -> dict[str, Any]:
        return reported([agent.invoke(GO) for agent in agents])

    graph = StateGraph(MessagesState).add_edge(START, "work")
    graph.add_node(
        "work", awork if stage.is_async else work, retry_policy=RetryPolicy(initial_interval=0, jitter=False)
    )
    return graph.compile(checkpointer=stage.saver if keeps_checkpoints else None)


def failing_once() -> Callable[[], None]:
    failures = [ConnectionError("the first time")]

    def fail() -> None:
        if failures:
            raise failures.pop()

    return fail


def output(state: dict[str, Any]) -> list[str]:
    return [message.text for message in state["messages"][1:]]


@pytest.mark.parametrize("keeps_checkpoints", [False, True])
def test_agents_with_names_of_their_own_each_run_what_they_call(
    quick: Stage, keeps_checkpoints: bool
) -> None:
    session = quick.session(permissionMode="bypass")
    agents = agent_of(session, "first"), agent_of(session, "second"), agent_of(session, None)
    state = quick.do(graph_of(quick, *agents, keeps_checkpoints=keeps_checkpoints), GO)
    assert output(state) == ["1\n[exit code 0]", "2\n[exit code 0]", "3\n[exit code 0]"]


@pytest.mark.parametrize("keeps_checkpoints", [False, True])
def test_they_run_nothing_again_where_the_node_is_tried_again(quick: Stage, keeps_checkpoints: bool) -> None:
    session = quick.session(permissionMode="bypass")
    agents = agent_of(session, "first"), agent_of(session, "second")
    graph = graph_of(quick, *agents, fail=failing_once(), keeps_checkpoints=keeps_checkpoints)
    assert output(quick.do(graph, GO)) == [f"{AGAIN}\n1\n[exit code 0]", f"{AGAIN}\n2\n[exit code 0]"]
    assert quick.see(session, "wc -l < log") == "2\n"


def test_they_are_each_asked_about_and_run_nothing_again_when_the_node_goes_on(stage: Stage) -> None:
    session = stage.session()
    graph = graph_of(stage, agent_of(session, "first"), agent_of(session, "second"))
    state, asked = stage.answer_all(graph, stage.do(graph, GO), lambda action: APPROVE)
    assert len(asked) == 2
    assert output(state) == ["1\n[exit code 0]", "2\n[exit code 0]"]
    assert stage.see(session, "wc -l < log") == "2\n"


@pytest.mark.parametrize("name", [None, "worker"])
def test_agents_without_names_of_their_own_are_told_that_a_result_was_recorded(
    quick: Stage, name: str | None
) -> None:
    """Two agents look the same as one agent that is retried, whose calls must not run twice."""
    session = quick.session(permissionMode="bypass")
    graph = graph_of(quick, agent_of(session, name), agent_of(session, name), fail=failing_once())
    assert output(quick.do(graph, GO)) == [f"{AGAIN}\n1\n[exit code 0]"] * 2
    assert quick.see(session, "wc -l < log") == "1\n"
    state = quick.do(
        graph_of(quick, agent_of(session, name), agent_of(session, name)),
        GO,
        {"configurable": {"thread_id": "2"}},
    )
    assert output(state) == ["2\n[exit code 0]", f"{AGAIN}\n2\n[exit code 0]"]


def test_recorded_results_are_marked(quick: Stage) -> None:
    session = quick.session(permissionMode="bypass")
    quick.see(session, "echo a > edited; touch deleted")
    job = quick.wait(session.jobs.start, session.jobs.astart, "sleep 600")
    calls = AIMessage(
        "",
        tool_calls=[
            file("", "write", path="written", content="new\n"),
            file("", "edit", path="edited", old_string="a", new_string="aa"),
            file("", "delete", path="deleted"),
            {"name": "bash_job", "args": {"action": "stop", "job_id": job.id}, "id": "", "type": "tool_call"},
            bash("", "echo started >> jobs; sleep 600", background=True),
        ],
    )
    tools = WorkspaceToolkit(session=session).get_tools()
    agents = [create_agent(SameIds(script=[calls, turn("Done.")]), tools) for _ in range(2)]
    reported = output(quick.do(graph_of(quick, *agents), GO))
    assert ["[this call was made before: " in text for text in reported] == [False] * 5 + [True] * 5
    assert "Created written" in reported[5]
    assert quick.see(session, "cat edited written jobs") == "aa\nnew\nstarted\n"
