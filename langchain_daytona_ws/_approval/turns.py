"""A first-in, first-out queue for callers on any thread and any event loop; its head has the turn."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future


class WouldDeadlock(Exception):
    """The caller would block the event loop on which an earlier ticket has to finish."""


class Ticket:
    """An entry in the queue.

    Args:
        loop: The event loop on which the holder continues; None if the holder blocks its thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.granted: Future[None] = Future()
        # A running future can't be cancelled; a waiter whose wrapper is cancelled would cancel a pending one.
        self.granted.set_running_or_notify_cancel()


class Turns:
    """A queue whose head has the turn.

    Threads and event loops can both wait for a ``concurrent.futures.Future``. The holder and a waiter that gives up
    both call `leave`.
    """

    def __init__(self) -> None:
        # Held for a few instructions. Reentrant: the garbage collector may close a waiting coroutine, which then
        # calls `leave`, while this thread holds the lock.
        self._lock = threading.RLock()
        self._queue: deque[Ticket] = deque()

    def join(self, ticket: Ticket) -> None:
        """Add a ticket; ``ticket.granted`` is done when its turn comes.

        Raises:
            WouldDeadlock: The holder would block the thread of an event loop on which an earlier ticket has to finish.
        """
        blocked = _running_loop() if ticket.loop is None else None
        with self._lock:
            if blocked is not None and any(earlier.loop is blocked for earlier in self._queue):
                raise WouldDeadlock
            self._queue.append(ticket)
            self._grant()

    def leave(self, ticket: Ticket) -> None:
        """Remove a ticket and grant the next turn. A ticket that is not in the queue is ignored."""
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
