"""The gate: its approver, the approver's thread or loop, its time-out, and one question at a time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import threading
from typing import Any, cast

import pytest

from langchain_daytona_ws._approval.gate import ApprovalGate, Ticket
from langchain_daytona_ws._approval.verdict import Approval
from langchain_daytona_ws.errors import ConfigError, PermissionDenied
from langchain_daytona_ws.permissions import PermissionDecision, PermissionRequest
from tests.unit_tests.approval.conftest import (
    ALLOW,
    SOON_S,
    Check,
    aallow,
    acheck,
    allow,
    bash,
    denial,
    from_async,
    from_sync,
    remembered,
    until,
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
    assert remembered(gate).rules() == ()


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
    holder = threading.Thread(target=lambda: asyncio.run(acheck(gate, bash("holder"))))
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

    from_sync(ApprovalGate("ask", approver, approval_timeout_s=None), bash())
    from_sync(ApprovalGate("ask", approver), bash())
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
        asking = asyncio.create_task(acheck(gate, bash()))
        await asyncio.sleep(0.01)
        answered.set()
        await asking

    asyncio.run(main())


def test_an_unanswered_prompt_does_not_delay_the_end_of_the_loop(blocked: threading.Event) -> None:
    async def main() -> None:
        gate = ApprovalGate("ask", cast("Any", lambda _: blocked.wait(SOON_S)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(acheck(gate, bash()), 0.05)
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
        from_sync(gate, bash())
    assert cancelled.wait(SOON_S)
    assert not gate._turns._queue


def test_an_approver_that_uses_a_tool_gets_an_error_instead_of_a_deadlock(check: Check) -> None:
    codes: list[str] = []

    def approver(_: PermissionRequest) -> PermissionDecision:
        try:
            from_sync(gate, bash("inner"))
        except PermissionDenied as error:
            codes.append(error.code)
        return ALLOW

    async def aapprover(_: PermissionRequest) -> PermissionDecision:
        try:
            await acheck(gate, bash("inner"))
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
            return await acheck(gate, bash("later"))

        async def approver(request: PermissionRequest) -> PermissionDecision:
            if request.command == "ls":
                left.append(asyncio.create_task(later()))
            return ALLOW

        gate = ApprovalGate("ask", approver)
        await acheck(gate, bash())
        answered.set()
        assert await left[0]

    asyncio.run(main())


def test_allow_always_also_applies_to_waiting_calls() -> None:
    asked: list[str] = []
    everybody_waits = threading.Event()

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.command or "")
        assert everybody_waits.wait(SOON_S)
        return PermissionDecision.allow_always("tool")

    gate = ApprovalGate("ask", approver)
    threads = [threading.Thread(target=from_sync, args=(gate, bash(f"c{number}"))) for number in range(5)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(gate._turns._queue) == 5)
    everybody_waits.set()
    for thread in threads:
        thread.join(SOON_S)
    assert len(asked) == 1


def test_threads_and_loops_take_turns() -> None:
    inside = 0
    most = 0
    asked: list[str] = []

    def enter(request: PermissionRequest) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        asked.append(request.command or "")

    async def approver(request: PermissionRequest) -> PermissionDecision:
        nonlocal inside
        enter(request)
        await asyncio.sleep(0.001)
        inside -= 1
        return ALLOW

    gate = ApprovalGate("ask", approver)

    def threaded(name: str) -> None:
        for step in range(5):
            from_sync(gate, bash(f"{name} {step}"))

    async def tasks(name: str) -> None:
        await asyncio.gather(*(acheck(gate, bash(f"{name} {step}")) for step in range(5)))

    workers = [threading.Thread(target=threaded, args=(f"t{number}",)) for number in range(4)]
    workers += [threading.Thread(target=lambda n=number: asyncio.run(tasks(f"l{n}"))) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(SOON_S)
    assert most == 1
    assert len(asked) == len(set(asked)) == 40
    assert not gate._turns._queue


def test_first_come_first_served(blocked: threading.Event) -> None:
    asked: list[str] = []

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.command or "")
        blocked.wait(SOON_S)
        return ALLOW

    gate = ApprovalGate("ask", approver)
    workers = []
    for number in range(6):
        request = bash(str(number))
        target = (
            (lambda r=request: asyncio.run(acheck(gate, r)))
            if number % 2
            else (lambda r=request: from_sync(gate, r))
        )
        workers.append(threading.Thread(target=target))
        workers[-1].start()
        wait_for(lambda count=number + 1: len(gate._turns._queue) == count)  # type: ignore[misc]
    blocked.set()
    for worker in workers:
        worker.join(SOON_S)
    assert asked == [str(number) for number in range(6)]


@pytest.mark.parametrize("approver_form", ["sync", "async"])
def test_a_cancelled_call_leaves_the_queue(approver_form: str, blocked: threading.Event) -> None:
    async def main() -> None:
        asked: list[str] = []
        hold = asyncio.Event()

        async def aapprover(request: PermissionRequest) -> PermissionDecision:
            asked.append(request.command or "")
            if request.command == "0":
                await hold.wait()
            return ALLOW

        def approver(request: PermissionRequest) -> PermissionDecision:
            asked.append(request.command or "")
            if request.command == "0":
                blocked.wait(SOON_S)
            return ALLOW

        gate = ApprovalGate("ask", aapprover if approver_form == "async" else approver)
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(acheck(gate, bash(str(number)))))
            await until(lambda count=number + 1: len(gate._turns._queue) == count)  # type: ignore[misc]
        await until(lambda: asked == ["0"])
        tasks[1].cancel()  # waits
        await asyncio.sleep(0)
        tasks[0].cancel()  # has the turn
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), SOON_S)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2 + [Approval] * 2
        assert asked == ["0", "2", "3"]
        assert not gate._turns._queue

    asyncio.run(main())


def test_cancelling_an_async_approver_s_caller_cancels_the_approver() -> None:
    async def main() -> None:
        asked, cancelled = asyncio.Event(), asyncio.Event()

        async def approver(_: PermissionRequest) -> PermissionDecision:
            asked.set()
            try:
                await asyncio.sleep(SOON_S)
            finally:
                cancelled.set()
            return ALLOW

        task = asyncio.create_task(acheck(ApprovalGate("ask", approver), bash()))
        await asyncio.wait_for(asked.wait(), SOON_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(cancelled.wait(), SOON_S)

    asyncio.run(main())


def test_random_cancellations_lose_no_turn() -> None:
    async def main() -> None:
        gate = ApprovalGate("ask", aallow)
        for round_number in range(40):
            tasks = [asyncio.create_task(acheck(gate, bash(str(number)))) for number in range(8)]
            for step in range(round_number % 9):
                await asyncio.sleep(0)
                tasks[(step * 5 + round_number) % 8].cancel()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), SOON_S)
            assert not gate._turns._queue

    asyncio.run(main())


def test_a_coroutine_that_is_dropped_with_the_turn_gives_it_back() -> None:
    """Tasks of a loop that is closed without cancelling them."""

    async def hang(_: PermissionRequest) -> PermissionDecision:
        await asyncio.Event().wait()
        return ALLOW

    async def main() -> None:
        gate = ApprovalGate("ask", hang)
        holder = acheck(gate, bash())
        holder.send(None)
        assert len(gate._turns._queue) == 1
        del holder
        gc.collect()
        assert not gate._turns._queue
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_sync_call_that_would_block_the_loop_it_waits_for_is_told() -> None:
    async def main() -> None:
        asked, answer = asyncio.Event(), asyncio.Event()

        async def approver(_: PermissionRequest) -> PermissionDecision:
            asked.set()
            await answer.wait()
            return ALLOW

        gate = ApprovalGate("ask", approver)
        first = asyncio.create_task(acheck(gate, bash()))
        await asyncio.wait_for(asked.wait(), SOON_S)
        with pytest.raises(PermissionDenied) as raised:
            from_sync(gate, bash("second"))
        assert raised.value.code == "would_deadlock"
        answer.set()
        assert await first

    asyncio.run(main())
