"""The sessions of a pool: no session is forgotten if its closing is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from langchain_daytona_ws._pool.sessions import Lease, PoolSessions
from langchain_daytona_ws._pool.slots import Slots
from langchain_daytona_ws.errors import SandboxUnavailable


class Session:
    """A session whose next closing fails with `error`."""

    sandbox_id = None

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.is_closed = False

    def close(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.is_closed = True

    async def aclose(self) -> None:
        self.close()

    def release(self, *, discard_unpushed: bool) -> None:
        self.close()

    async def arelease(self, *, discard_unpushed: bool) -> None:
        self.close()


def _release(sessions: PoolSessions[Session]) -> None:
    sessions.release("a", discard_unpushed=False)


def _arelease(sessions: PoolSessions[Session]) -> None:
    asyncio.run(sessions.arelease("a", discard_unpushed=False))


@pytest.mark.parametrize("release", [_release, _arelease])
def test_ctrl_c_in_a_release_loses_no_session(release: Callable[[PoolSessions[Session]], None]) -> None:
    made: list[Session] = []

    def make(key: str, namespace: str) -> Session:
        made.append(Session())
        return made[-1]

    slots = Slots(
        make, max_slots=2, idle_s=None, now=lambda: 0.0, is_ended=lambda _: False, is_busy=lambda _: False
    )
    sessions = PoolSessions(slots, wait_s=1.0, on_event=None)
    with Lease(sessions, "a") as unclosed:
        unclosed.error = SandboxUnavailable("refused")
    with pytest.raises(SandboxUnavailable):
        sessions.close()
    sessions.reopen()
    with Lease(sessions, "a") as interrupted:
        interrupted.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        release(sessions)
    sessions.close()
    assert [session.is_closed for session in made] == [True, True]
