"""One question at a time, over all threads and loops."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from langchain_daytona_ws._approval.gate import ApprovalGate
from langchain_daytona_ws._approval.verdict import Approval
from langchain_daytona_ws.errors import PermissionDenied
from langchain_daytona_ws.permissions import PermissionDecision, PermissionRequest
from tests.unit_tests.approval.conftest import ALLOW, SOON_S, aallow, bash, until, wait_for


def test_allow_always_also_applies_to_waiting_calls() -> None:
    asked: list[str] = []
    everybody_waits = threading.Event()

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.command or "")
        assert everybody_waits.wait(SOON_S)
        return PermissionDecision.allow_always("tool")

    gate = ApprovalGate("ask", approver)
    threads = [threading.Thread(target=gate.check, args=(bash(f"c{number}"),)) for number in range(5)]
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
            gate.check(bash(f"{name} {step}"))

    async def tasks(name: str) -> None:
        await asyncio.gather(*(gate.acheck(bash(f"{name} {step}")) for step in range(5)))

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
            (lambda r=request: asyncio.run(gate.acheck(r)))
            if number % 2
            else (lambda r=request: gate.check(r))
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
            tasks.append(asyncio.create_task(gate.acheck(bash(str(number)))))
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

        task = asyncio.create_task(ApprovalGate("ask", approver).acheck(bash()))
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
            tasks = [asyncio.create_task(gate.acheck(bash(str(number)))) for number in range(8)]
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
        holder = gate.acheck(bash())
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
        first = asyncio.create_task(gate.acheck(bash()))
        await asyncio.wait_for(asked.wait(), SOON_S)
        with pytest.raises(PermissionDenied) as raised:
            gate.check(bash("second"))
        assert raised.value.code == "would_deadlock"
        answer.set()
        assert await first

    asyncio.run(main())
