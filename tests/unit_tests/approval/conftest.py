"""Approvers in all their forms, asked from all kinds of code."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

import pytest

from langchain_daytona_ws._approval.asking import AsyncioRuntime, BlockingRuntime
from langchain_daytona_ws._approval.gate import ApprovalGate
from langchain_daytona_ws._approval.verdict import Approval
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws.errors import PermissionDenied
from langchain_daytona_ws.permissions import PermissionDecision, PermissionRequest, RememberedApprovals

SOON_S = 60.0  # how long a test waits for what must happen at once; no test waits for its end


ALLOW = PermissionDecision.allow()


Check = Callable[..., Approval[Any]]


def bash(command: str = "ls") -> PermissionRequest:
    return PermissionRequest.for_bash(command, namespace="demo", tool_call_id="call_1")


def allow(_: PermissionRequest) -> PermissionDecision:
    return ALLOW


async def aallow(_: PermissionRequest) -> PermissionDecision:
    await asyncio.sleep(0)
    return ALLOW


_approvals: WeakKeyDictionary[ApprovalGate, RememberedApprovals] = WeakKeyDictionary()


def remembered(gate: ApprovalGate) -> RememberedApprovals:
    """Return the remembered approvals of the thread to which all calls of the gate belong."""
    return _approvals.setdefault(gate, RememberedApprovals())


async def acheck(gate: ApprovalGate, *arguments: Any) -> Any:
    return await gate.check(*arguments, remembered=remembered(gate), new_runtime=AsyncioRuntime)


def from_sync(gate: ApprovalGate, *arguments: Any) -> Any:
    return run_sync(gate.check(*arguments, remembered=remembered(gate), new_runtime=BlockingRuntime))


def from_async(gate: ApprovalGate, *arguments: Any) -> Any:
    return asyncio.run(acheck(gate, *arguments))


def from_sync_under_a_loop(gate: ApprovalGate, *arguments: Any) -> Any:
    async def run() -> Any:
        return from_sync(gate, *arguments)

    return asyncio.run(run())


@pytest.fixture(params=[from_sync, from_async, from_sync_under_a_loop])
def check(request: pytest.FixtureRequest) -> Check:
    return cast("Check", request.param)


@pytest.fixture(params=["sync", "async", "awaitable", "object"])
def as_approver(request: pytest.FixtureRequest) -> Callable[[Callable[[PermissionRequest], Any]], Any]:
    """Make an approver of a plain function, in each of the forms in which one may come."""

    def make(answer: Callable[[PermissionRequest], Any]) -> Any:
        async def asynchronous(request: PermissionRequest) -> Any:
            await asyncio.sleep(0)
            return answer(request)

        def hidden(request: PermissionRequest) -> Any:
            return asynchronous(request)

        class Callback:
            async def __call__(self, request: PermissionRequest) -> Any:
                return await asynchronous(request)

        return {
            "sync": answer,
            "async": asynchronous,
            "awaitable": hidden,
            "object": Callback(),
        }[cast("str", request.param)]

    return make


@pytest.fixture
def blocked() -> Iterator[threading.Event]:
    """An event for approvers to hang on; set at the end, so that their threads end too."""
    event = threading.Event()
    yield event
    event.set()


def denial(check: Check, gate: ApprovalGate, *arguments: Any) -> PermissionDenied:
    with pytest.raises(PermissionDenied) as raised:
        check(gate, *(arguments or (bash(),)))
    error = raised.value
    assert "Do not retry it; ask the user or continue without it." in error.for_model
    assert error.context["tool_call_id"] == "call_1"
    assert not error.retryable
    return error


def only_command(arguments: Mapping[str, object]) -> str:
    if set(arguments) != {"command"} or not isinstance(arguments["command"], str):
        raise ValueError("bad arguments: tok3n")
    return arguments["command"]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.002)


async def until(condition: Callable[[], bool]) -> None:
    """Run the other tasks until the condition holds."""
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.002)
