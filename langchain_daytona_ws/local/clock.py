"""Clocks of the server: the system's time, or a time that tests advance."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Return seconds since the epoch."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()


class ManualClock:
    """A clock that moves only with `advance`. Several servers may share it.

    Args:
        start: the time at the beginning, in seconds since the epoch.
    """

    def __init__(self, start: float = 1_750_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the time, and wait until all servers with this clock have made the changes that are due.

        These are auto-stop, auto-archive, auto-delete, the time to live, and changes delayed by the fault `pending`.
        Do not call this in the thread of a server: it would wait for itself.

        Args:
            seconds: the time to add, in seconds.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError("a clock cannot run backwards: seconds must be 0 or more")
        with self._lock:
            self._now += seconds
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each advance."""
        with self._lock:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners.remove(listener)
