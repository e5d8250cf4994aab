"""The system clock, the default of all sessions."""

from __future__ import annotations

import asyncio
from time import monotonic, sleep, time


class SystemClock:
    """The `Clock` over `time` and `asyncio.sleep`."""

    monotonic = staticmethod(monotonic)
    sleep = staticmethod(sleep)
    time = staticmethod(time)
    asleep = staticmethod(asyncio.sleep)


SYSTEM_CLOCK = SystemClock()
