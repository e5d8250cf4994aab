"""The gate: its approver, the approver's thread or loop, and its time-out."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from typing import Any, cast

import pytest

from langchain_daytona_ws._approval.gate import ApprovalGate
from langchain_daytona_ws._approval.turns import Ticket
from langchain_daytona_ws._approval.verdict import Approval
from langchain_daytona_ws.errors import ConfigError, PermissionDenied
from langchain_daytona_ws.permissions import PermissionDecision, PermissionRequest
from tests.unit_tests.approval.conftest import (
    ALLOW,
    SOON_S,
    Check,
    allow,
    bash,
    denial,
    from_async,
    from_sync,
    wait_for,
)


def test_a_mode_without_approval_calls_no_approver(check: Check) -> None:
    gate = ApprovalGate("bypass", None)
    assert check(gate, bash()).arguments == {"command": "ls"}
    read = PermissionRequest.for_file("read", {"path": "a"}, namespace="demo")
    assert not check(ApprovalGate("ask", None), read).edited


def test_nobody_to_ask_denies_and_names_the_remedies(check: Check) -> None:
    error = denial(check, ApprovalGate("edit", None))
    assert error.code == "no_approver"
    assert "approver" in error.message
    assert "'bypass'" in error.message


@pytest.mark.parametrize("timeout_s", [0, -1, math.inf, math.nan, "1"])
def test_a_time_out_is_a_positive_number(timeout_s: Any) -> None:
    with pytest.raises(ConfigError, match="approval_timeout_s"):
        ApprovalGate("ask", allow, approval_timeout_s=timeout_s)


def test_an_approver_is_callable() -> None:
    with pytest.raises(ConfigError, match="approver"):
        ApprovalGate("ask", cast("Any", "yes"))


def test_an_enormous_time_out_is_no_error(check: Check, as_approver: Any) -> None:
    assert check(ApprovalGate("ask", as_approver(allow), approval_timeout_s=1e300), bash())


def test_no_answer_in_time_denies(check: Check, blocked: threading.Event) -> None:
    def approver(_: PermissionRequest) -> PermissionDecision:
        blocked.wait(SOON_S)
        return PermissionDecision.allow_always("tool")

    gate = ApprovalGate("ask", approver, approval_timeout_s=0.05)
    assert denial(check, gate).code == "approval_timeout"
    blocked.set()  # a late answer counts for nothing
    assert not gate._turns._queue
    assert gate.remembered.rules() == ()


def test_an_async_approver_is_cancelled_at_the_time_out(check: Check) -> None:
    cancelled = threading.Event()

    async def approver(_: PermissionRequest) -> PermissionDecision:
        try:
            await asyncio.sleep(SOON_S)
        except asyncio.CancelledError:
            cancelled.set()
            return ALLOW  # swallowing it opens nothing
        return ALLOW

    def hidden(request: PermissionRequest) -> Any:
        return approver(request)

    for form in (approver, hidden):
        cancelled.clear()
        gate = ApprovalGate("ask", form, approval_timeout_s=0.3)  # long enough to begin
        assert denial(check, gate).code == "approval_timeout"
        assert cancelled.wait(SOON_S)


def test_a_turn_that_is_not_released_denies_the_others(check: Check) -> None:
    asked: list[PermissionRequest] = []
    gate = ApprovalGate("ask", lambda request: asked.append(request) or ALLOW, approval_timeout_s=0.02)
    stalled = Ticket(None)
    gate._turns.join(stalled)
    error = denial(check, gate)
    assert error.code == "turn_timeout"
    assert asked == []
    assert list(gate._turns._queue) == [stalled]  # who gave up has left the queue
    gate._turns.leave(stalled)
    gate.approval_timeout_s = SOON_S
    assert check(gate, bash()) == Approval(bash().arguments)


def test_a_loop_that_hangs_with_the_turn_denies_the_others(blocked: threading.Event) -> None:
    holds = threading.Event()

    async def hang(_: PermissionRequest) -> PermissionDecision:
        holds.set()
        blocked.wait(SOON_S)  # as code that forgets it is on a loop
        return ALLOW

    gate = ApprovalGate("ask", hang, approval_timeout_s=0.02)
    holder = threading.Thread(target=lambda: asyncio.run(gate.acheck(bash("holder"))))
    holder.start()
    assert holds.wait(SOON_S)
    for check in (from_sync, from_async):
        assert denial(check, gate).code == "turn_timeout"
    gate.approval_timeout_s = SOON_S
    blocked.set()
    holder.join(SOON_S)
    assert not gate._turns._queue


@pytest.mark.parametrize("timeout_s", [SOON_S, None])
def test_a_turn_that_comes_in_time_is_taken(check: Check, timeout_s: float | None) -> None:
    gate = ApprovalGate("ask", allow, approval_timeout_s=timeout_s)
    ahead = Ticket(None)
    gate._turns.join(ahead)
    approvals: list[Approval[Any]] = []
    waiting = threading.Thread(target=lambda: approvals.append(check(gate, bash())))
    waiting.start()
    wait_for(lambda: len(gate._turns._queue) == 2)
    gate._turns.leave(ahead)
    waiting.join(SOON_S)
    assert approvals == [Approval(bash().arguments)]


def test_the_approver_sees_the_callers_context_variables(check: Check, as_approver: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    def approver(_: PermissionRequest) -> PermissionDecision:
        seen.append(variable.get())
        return ALLOW

    gate = ApprovalGate("ask", as_approver(approver))
    token = variable.set("set")
    try:
        check(gate, bash())
    finally:
        variable.reset(token)
    assert seen == ["set"]


def test_without_a_time_out_a_sync_approver_runs_in_the_calling_thread() -> None:
    seen: list[threading.Thread] = []

    def approver(_: PermissionRequest) -> PermissionDecision:
        seen.append(threading.current_thread())
        return ALLOW

    ApprovalGate("ask", approver, approval_timeout_s=None).check(bash())
    ApprovalGate("ask", approver).check(bash())
    assert seen[0] is threading.current_thread()
    assert seen[1].daemon


@pytest.mark.parametrize("timeout_s", [SOON_S, None])
def test_a_sync_approver_does_not_block_the_loop(timeout_s: float | None) -> None:
    answered = threading.Event()

    def approver(_: PermissionRequest) -> PermissionDecision:
        assert answered.wait(SOON_S), "the loop was blocked"
        return ALLOW

    async def main() -> None:
        gate = ApprovalGate("ask", approver, approval_timeout_s=timeout_s)
        asking = asyncio.create_task(gate.acheck(bash()))
        await asyncio.sleep(0.01)
        answered.set()
        await asking

    asyncio.run(main())


def test_an_unanswered_prompt_does_not_delay_the_end_of_the_loop(blocked: threading.Event) -> None:
    async def main() -> None:
        gate = ApprovalGate("ask", cast("Any", lambda _: blocked.wait(SOON_S)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gate.acheck(bash()), 0.05)
        assert not gate._turns._queue

    asyncio.run(main())
    assert not blocked.is_set()


def test_an_interrupted_wait_passes_on_and_cancels_the_approver(monkeypatch: pytest.MonkeyPatch) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def approver(_: PermissionRequest) -> PermissionDecision:
        started.set()
        try:
            await asyncio.sleep(SOON_S)
        finally:
            cancelled.set()
        return ALLOW

    from langchain_daytona_ws._approval import asking

    class Interrupted(asking.Future):  # type: ignore[misc,name-defined]
        def result(self, timeout: float | None = None) -> Any:
            assert started.wait(SOON_S)
            raise KeyboardInterrupt

    monkeypatch.setattr(asking, "Future", Interrupted)
    gate = ApprovalGate("ask", approver)
    with pytest.raises(KeyboardInterrupt):
        gate.check(bash())
    assert cancelled.wait(SOON_S)
    assert not gate._turns._queue


def test_an_approver_that_uses_a_tool_gets_an_error_instead_of_a_deadlock(check: Check) -> None:
    codes: list[str] = []

    def approver(_: PermissionRequest) -> PermissionDecision:
        try:
            gate.check(bash("inner"))
        except PermissionDenied as error:
            codes.append(error.code)
        return ALLOW

    async def aapprover(_: PermissionRequest) -> PermissionDecision:
        try:
            await gate.acheck(bash("inner"))
        except PermissionDenied as error:
            codes.append(error.code)
        return ALLOW

    for form in (approver, aapprover):
        gate = ApprovalGate("ask", cast("Any", form))
        assert check(gate, bash())
    assert codes == ["reentrant", "reentrant"]


def test_what_an_approver_leaves_running_may_ask_later() -> None:
    async def main() -> None:
        left: list[asyncio.Task[Approval[Any]]] = []
        answered = asyncio.Event()

        async def later() -> Approval[Any]:
            await answered.wait()
            return await gate.acheck(bash("later"))

        async def approver(request: PermissionRequest) -> PermissionDecision:
            if request.command == "ls":
                left.append(asyncio.create_task(later()))
            return ALLOW

        gate = ApprovalGate("ask", approver)
        await gate.acheck(bash())
        answered.set()
        assert await left[0]

    asyncio.run(main())
