"""One value for callers on any thread and any loop."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._session.single_flight import SingleFlight, WouldDeadlock


def test_threads_share_one_creation() -> None:
    flight: SingleFlight[object] = SingleFlight()
    made: list[object] = []
    release = threading.Event()

    def make() -> object:
        release.wait()
        made.append(object())
        return made[-1]

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(flight.get, make) for _ in range(8)]
        release.set()
        assert {id(item.result()) for item in running} == {id(made[0])}
    assert len(made) == 1


def test_threads_and_loops_share_one_creation() -> None:
    flight: SingleFlight[int] = SingleFlight()
    made: list[int] = []
    release = threading.Event()

    def make() -> int:
        release.wait()
        made.append(1)
        return 1

    async def amake() -> int:
        return await asyncio.to_thread(make)

    with ThreadPoolExecutor(6) as pool:
        running = [
            pool.submit(flight.get, make) if i % 2 else pool.submit(lambda: asyncio.run(flight.aget(amake)))
            for i in range(6)
        ]
        release.set()
        assert [item.result() for item in running] == [1] * 6
    assert made == [1]


def test_a_failure_reaches_all_waiting_callers_and_is_not_kept() -> None:
    flight: SingleFlight[int] = SingleFlight()

    async def work() -> list[object]:
        gate = asyncio.Event()

        async def fail() -> int:
            await gate.wait()
            raise ValueError("no")

        waiting = [asyncio.create_task(flight.aget(fail)) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*waiting, return_exceptions=True)  # type: ignore[return-value]

    assert [str(error) for error in asyncio.run(work())] == ["no"] * 3
    assert flight.value is None
    assert flight.get(lambda: 5) == 5


def test_a_cancelled_owner_hands_over() -> None:
    flight: SingleFlight[str] = SingleFlight()

    async def work() -> str:
        async def for_ever() -> str:
            await asyncio.Event().wait()
            return "never"

        async def quick() -> str:
            return "second"

        owner = asyncio.create_task(flight.aget(for_ever))
        await asyncio.sleep(0)
        second = asyncio.create_task(flight.aget(quick))
        await asyncio.sleep(0)
        owner.cancel()
        return await second

    assert asyncio.run(work()) == "second"


def test_an_interrupted_owner_hands_over_to_a_thread() -> None:
    flight: SingleFlight[str] = SingleFlight()
    inside, release = threading.Event(), threading.Event()

    def interrupted() -> str:
        inside.set()
        release.wait()
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        owner = pool.submit(flight.get, interrupted)
        inside.wait()
        second = pool.submit(flight.get, lambda: "second")
        release.set()
        assert second.result() == "second"
        with pytest.raises(KeyboardInterrupt):
            owner.result()


def test_cancelling_a_waiter_leaves_the_making_alone() -> None:
    flight: SingleFlight[str] = SingleFlight()

    async def work() -> str:
        gate = asyncio.Event()

        async def make() -> str:
            await gate.wait()
            return "made"

        owner = asyncio.create_task(flight.aget(make))
        await asyncio.sleep(0)
        waiter = asyncio.create_task(flight.aget(make))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.sleep(0)
        gate.set()
        return await owner

    assert asyncio.run(work()) == "made"


def test_a_blocking_caller_on_the_owner_s_loop_is_refused_instead_of_hanging() -> None:
    flight: SingleFlight[str] = SingleFlight()

    async def work() -> str:
        gate = asyncio.Event()

        async def make() -> str:
            await gate.wait()
            return "made"

        owner = asyncio.create_task(flight.aget(make))
        await asyncio.sleep(0)
        with pytest.raises(WouldDeadlock):
            flight.get(lambda: "never")
        gate.set()
        return await owner

    assert asyncio.run(work()) == "made"


def test_a_forked_child_does_not_wait_for_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    flight: SingleFlight[str] = SingleFlight()
    here = os.getpid()

    def make_in_parent() -> str:
        monkeypatch.setattr(os, "getpid", lambda: here + 1)
        assert flight.pending is None
        assert flight.get(lambda: "child's") == "child's"
        return "parent's"

    flight.get(make_in_parent)


def test_only_the_value_meant_is_forgotten() -> None:
    flight: SingleFlight[list[int]] = SingleFlight()
    first = flight.get(lambda: [1])
    assert not flight.forget([1])
    assert flight.forget(first)
    assert not flight.forget(first)
    assert flight.get(lambda: [2]) == [2]


class TestDrive:
    def test_returns_what_the_coroutine_returns(self) -> None:
        async def work() -> int:
            return 3

        assert run_sync(work()) == 3

    def test_raises_what_it_raises(self) -> None:
        async def work() -> int:
            raise KeyError("x")

        with pytest.raises(KeyError):
            run_sync(work())

    def test_one_that_suspends_is_closed_and_reported(self) -> None:
        closed = []

        async def work() -> None:
            try:
                await asyncio.sleep(0)
            finally:
                closed.append(True)

        with pytest.raises(RuntimeError, match="a-form"):
            run_sync(work())
        assert closed == [True]
