"""Control-flow exceptions pass through the gate, from any source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, cast

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langchain_daytona_ws._approval.control_flow import is_control_flow
from langchain_daytona_ws._approval.gate import ApprovalGate
from langchain_daytona_ws.permissions import PermissionDecision, PermissionRequest
from tests.unit_tests.approval.conftest import (
    SOON_S,
    Check,
    acheck,
    bash,
    denial,
    from_async,
    from_sync,
    only_command,
)


def raising(error: BaseException) -> Callable[[PermissionRequest], PermissionDecision]:
    def approver(_: PermissionRequest) -> PermissionDecision:
        raise error

    return approver


@pytest.mark.parametrize("error", [GraphInterrupt(()), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("timeout_s", [SOON_S, None])
def test_control_flow_passes_and_releases_the_turn(
    error: BaseException, timeout_s: float | None, as_approver: Any
) -> None:
    gate = ApprovalGate("ask", as_approver(raising(error)), approval_timeout_s=timeout_s)
    for run in (from_sync, from_async):
        with pytest.raises(type(error)):
            run(gate, bash())
        assert not gate._turns._queue


INTERRUPT = GraphInterrupt(())


ENDS = SystemExit(3)


CTRL_C = KeyboardInterrupt()


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (ExceptionGroup("", [ValueError(), INTERRUPT]), INTERRUPT),
        (ExceptionGroup("", [OSError(), ExceptionGroup("", [ValueError(), INTERRUPT])]), INTERRUPT),
        (ExceptionGroup("", [ExceptionGroup("", [INTERRUPT]), GraphInterrupt(())]), INTERRUPT),
        (BaseExceptionGroup("", [INTERRUPT, ENDS]), ENDS),
        (BaseExceptionGroup("", [INTERRUPT, BaseExceptionGroup("", [ValueError(), CTRL_C]), ENDS]), CTRL_C),
    ],
)
def test_control_flow_is_found_in_a_group(
    check: Check, group: BaseException, expected: BaseException
) -> None:
    gate = ApprovalGate("ask", raising(group))
    with pytest.raises(type(expected)) as raised:
        check(gate, bash())
    assert raised.value is expected
    assert not gate._turns._queue

    def validate(_: Mapping[str, object]) -> None:
        raise group

    if isinstance(group, Exception):
        gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited({"command": "ls -l"}))
        with pytest.raises(type(expected)):
            check(gate, bash(), validate)


def test_an_interrupt_in_a_task_group_of_the_approver_passes(check: Check) -> None:
    async def ask() -> PermissionDecision:
        raise INTERRUPT

    async def approver(_: PermissionRequest) -> PermissionDecision:
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(ask())
        return answer.result()

    with pytest.raises(GraphInterrupt):
        check(ApprovalGate("ask", approver), bash())


def test_a_group_of_failures_denies(check: Check) -> None:
    nested: Exception = ValueError()
    for _ in range(3000):
        nested = ExceptionGroup("", [nested])
    assert denial(check, ApprovalGate("ask", raising(nested))).code == "approver_error"


def test_control_flow_is_known_without_importing_langgraph() -> None:
    assert is_control_flow(GraphInterrupt(()))
    assert is_control_flow(asyncio.CancelledError())
    assert not is_control_flow(ValueError())
    impostor = type("GraphBubbleUp", (Exception,), {"__module__": "langgraph_tools"})
    assert not is_control_flow(impostor())


class State(TypedDict):
    ran: str


def graph_over(gate: ApprovalGate, *, asynchronous: bool) -> Any:
    def node(_: State) -> State:
        return {"ran": str(from_sync(gate, bash(), only_command).arguments["command"])}

    async def anode(_: State) -> State:
        return {"ran": str((await acheck(gate, bash(), only_command)).arguments["command"])}

    builder = StateGraph(State)
    builder.add_node("node", cast("Any", anode if asynchronous else node))
    builder.add_edge(START, "node")
    return builder.compile(checkpointer=InMemorySaver())


def ask_in_graph(request: PermissionRequest) -> PermissionDecision:
    answer = interrupt(request.to_dict())
    return PermissionDecision.allow_edited({"command": answer}) if answer else PermissionDecision.deny()


async def aask_in_graph(request: PermissionRequest) -> PermissionDecision:
    return ask_in_graph(request)


@pytest.mark.parametrize("approver", [ask_in_graph, aask_in_graph])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_langgraph_interrupt_stops_the_graph_and_resumes(approver: Any, asynchronous: bool) -> None:
    graph = graph_over(ApprovalGate("ask", approver), asynchronous=asynchronous)
    config = {"configurable": {"thread_id": "1"}}

    def invoke(given: Any) -> Any:
        if asynchronous:
            return asyncio.run(graph.ainvoke(given, config))
        return graph.invoke(given, config)

    stopped = invoke({"ran": ""})
    assert stopped["__interrupt__"][0].value["summary"] == "bash: ls"
    assert invoke(Command(resume="ls -l"))["ran"] == "ls -l"
