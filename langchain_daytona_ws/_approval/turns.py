"""One at a time, first come first served, for callers on any thread and any event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future


class WouldDeadlock(Exception):
    """The caller would block the event loop that the turn before it needs in order to end."""


class Ticket:
    """A place in the queue.

    Args:
        loop: The event loop on which the holder will go on; None for one that blocks its thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.granted: Future[None] = Future()
        # A future that runs can't be cancelled, which a waiter's cancelled wrapper would do to it otherwise.
        self.granted.set_running_or_notify_cancel()


class Turns:
    """A queue whose head has the turn.

    Threads and event loops can both wait on a ``concurrent.futures.Future``. Whoever gives up, holder or
    waiter, leaves in the same way.
    """

    def __init__(self) -> None:
        # Held for a few instructions. Reentrant, because a coroutine that the garbage collector closes leaves
        # the queue from wherever this thread happens to be.
        self._lock = threading.RLock()
        self._queue: deque[Ticket] = deque()

    def join(self, ticket: Ticket) -> None:
        """Queue up; ``ticket.granted`` is done when the turn has come.

        Raises:
            WouldDeadlock: The ticket is for blocking the thread of an event loop on which somebody before it
                has to go on first.
        """
        blocked = _running_loop() if ticket.loop is None else None
        with self._lock:
            if blocked is not None and any(other.loop is blocked for other in self._queue):
                raise WouldDeadlock
            self._queue.append(ticket)
            self._grant()

    def leave(self, ticket: Ticket) -> None:
        """Give up the turn, or the wait for it. Does nothing for a ticket that never joined."""
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
            self._grant()

    def _grant(self) -> None:
        if self._queue and not self._queue[0].granted.done():
            self._queue[0].granted.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
