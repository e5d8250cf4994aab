"""The system clock, the default of all sessions."""

from __future__ import annotations

import asyncio
import time as system


class SystemClock:
    """The `Clock` over Python's `time` and `asyncio.sleep`."""

    time = staticmethod(system.time)
    monotonic = staticmethod(system.monotonic)

    def sleep(self, seconds: float) -> None:
        system.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
