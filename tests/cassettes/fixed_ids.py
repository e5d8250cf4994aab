"""Ids and a clock for recorded sessions, the same in each run."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime

START_S = 1_750_000_000
START = datetime.fromtimestamp(START_S, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def counted() -> Callable[[], str]:
    """Return an id factory that counts."""
    numbers = itertools.count(1)
    return lambda: f"{next(numbers):032x}"


class StillClock:
    """A clock that only waits move forward, and that skips waits."""

    def __init__(self) -> None:
        self._now = float(START_S)

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    async def asleep(self, seconds: float) -> None:
        self._now += seconds
        await asyncio.sleep(0)  # lets other tasks run
