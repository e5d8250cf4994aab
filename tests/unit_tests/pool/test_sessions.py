"""The sessions of a pool: no session is forgotten if its closing is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import pytest

from langchain_daytona_ws._pool.sessions import CLOSE_WORKERS, Lease, PoolSessions
from langchain_daytona_ws._pool.slots import Slots
from langchain_daytona_ws.errors import SandboxUnavailable


class Session:
    """A session whose next closing fails with `error`, or whose next async closing `hangs`."""

    sandbox_id = None

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.is_closed = self.hangs = False

    def close(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.is_closed = True

    async def aclose(self) -> None:
        hangs, self.hangs = self.hangs, False
        if hangs:
            await asyncio.Event().wait()
        self.close()

    def release(self, *, discard_unpushed: bool) -> None:
        self.close()

    async def arelease(self, *, discard_unpushed: bool) -> None:
        await self.aclose()


@dataclass
class Bench:
    """The sessions of a pool, and all sessions that it has made."""

    max_slots: int = 2
    made: list[Session] = field(default_factory=list)

    def __post_init__(self) -> None:
        slots = Slots(
            self._make,
            max_slots=self.max_slots,
            idle_s=None,
            now=lambda: 0.0,
            is_ended=lambda _: False,
            is_busy=lambda _: False,
        )
        self.sessions = PoolSessions(slots, wait_s=60.0, on_event=None)

    def _make(self, key: str, namespace: str) -> Session:
        self.made.append(Session())
        return self.made[-1]

    def release(self) -> None:
        self.sessions.release("a", discard_unpushed=False)

    async def arelease(self) -> None:
        await self.sessions.arelease("a", discard_unpushed=False)

    async def aclose(self) -> None:
        await self.sessions.aclose()


def _release(bench: Bench) -> None:
    bench.release()


def _arelease(bench: Bench) -> None:
    asyncio.run(bench.arelease())


@pytest.mark.parametrize("release", [_release, _arelease])
def test_ctrl_c_in_a_release_loses_no_session(release: Callable[[Bench], None]) -> None:
    bench = Bench()
    with Lease(bench.sessions, "a") as unclosed:
        unclosed.error = SandboxUnavailable("refused")
    with pytest.raises(SandboxUnavailable):
        bench.sessions.close()
    bench.sessions.reopen()
    with Lease(bench.sessions, "a") as interrupted:
        interrupted.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        release(bench)
    bench.sessions.close()
    assert [session.is_closed for session in bench.made] == [True, True]


def test_ctrl_c_in_a_close_loses_no_session() -> None:
    bench = Bench(max_slots=CLOSE_WORKERS + 1)
    for number in range(bench.max_slots):
        with Lease(bench.sessions, str(number)):
            pass
    bench.made[0].error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.sessions.close()
    assert [session.is_closed for session in bench.made] == [False] + [True] * CLOSE_WORKERS
    bench.sessions.close()
    assert bench.made[0].is_closed


def test_ctrl_c_before_a_close_begins_loses_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    with Lease(bench.sessions, "a"):
        pass

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(futures.ThreadPoolExecutor, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench.sessions.close()
    bench.sessions.close()
    assert bench.made[0].is_closed


@pytest.mark.parametrize("end", [Bench.arelease, Bench.aclose])
def test_a_loop_that_ends_before_the_closing_begins_loses_no_session(
    end: Callable[[Bench], Coroutine[Any, Any, None]],
) -> None:
    bench = Bench()
    with Lease(bench.sessions, "a"):
        pass

    async def main() -> None:
        ending = asyncio.create_task(end(bench))
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 3  # the closing is a task that has not begun
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait([ending])

    asyncio.run(main())
    assert len(bench.sessions) == 0
    bench.sessions.close()
    assert [session.is_closed for session in bench.made] == [True]


@pytest.mark.parametrize("end", [Bench.arelease, Bench.aclose])
def test_a_loop_that_is_closed_during_a_closing_loses_no_session(
    end: Callable[[Bench], Coroutine[Any, Any, None]],
) -> None:
    bench = Bench()
    with Lease(bench.sessions, "a") as session:
        session.hangs = True
    loop = asyncio.new_event_loop()
    ending = loop.create_task(end(bench))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not ending.done()
    bench.sessions.reopen()
    with Lease(bench.sessions, "a"):
        pass
    bench.sessions.close()
    assert [session.is_closed for session in bench.made] == [True, True]


def test_a_sync_lease_is_refused_while_a_release_of_the_same_loop_waits() -> None:
    bench = Bench()

    async def main() -> None:
        async with Lease(bench.sessions, "a"):
            releasing = asyncio.create_task(bench.arelease())
            await asyncio.sleep(0)
            with pytest.raises(SandboxUnavailable) as caught, Lease(bench.sessions, "a"):
                pass
            assert caught.value.code == "would_deadlock"
        await releasing

    asyncio.run(main())


def test_a_sync_close_does_not_wait_for_the_closings_of_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    with Lease(bench.sessions, "a"):
        pass

    async def main() -> None:
        closing = asyncio.create_task(bench.aclose())
        await asyncio.sleep(0)
        with monkeypatch.context() as patch:
            patch.setattr(futures, "wait", lambda *_, **__: pytest.fail("it blocks the loop"))
            bench.sessions.close()
        await closing

    asyncio.run(main())
    assert [session.is_closed for session in bench.made] == [True]
