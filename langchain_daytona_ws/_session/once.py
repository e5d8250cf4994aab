"""Do something once for callers on any thread and any event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class _HandedOver(Exception):
    """The owner was cancelled before it had a result; one of those who wait takes over."""


class WouldDeadlock(Exception):
    """A blocking caller would hold up the very loop that is making what it wants."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def on_a_loop() -> bool:
    """Say whether blocking here would block an event loop."""
    return running_loop() is not None


class SingleFlight(Generic[T]):
    """Hold one value, made by whoever asks first, while everybody else waits for it.

    Thread locks and asyncio locks do not exclude each other, so the only lock is held for a few instructions
    and what is waited for is a ``concurrent.futures.Future``, which both kinds of caller can wait on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._future: Future[T] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def value(self) -> T | None:
        """The value, if it has been made."""
        future = self._future
        if future is None or not future.done() or future.exception() is not None:
            return None
        return future.result()

    @property
    def pending(self) -> Future[T] | None:
        """The future of a value that is being made now."""
        future = self._future
        return None if future is None or future.done() else future

    async def settled(self, timeout_s: float) -> None:
        """Wait until nobody is making the value."""
        pending = self.pending
        if pending is not None:
            await asyncio.wait([_quietly_wrapped(pending)], timeout=timeout_s)

    def forget(self, value: T) -> bool:
        """Drop the value if it is still this one; return whether it was."""
        with self._lock:
            if self._future is not None and self._future.done() and self.value is value:
                self._future = None
                return True
        return False

    def get(self, make: Callable[[], T]) -> T:
        """Return the value, making it unless somebody has or is about to.

        Raises:
            Exception: What ``make`` raised, here or where it ran; the next call tries anew.
            WouldDeadlock: It is being made on the event loop of this very thread.
        """
        while True:
            future, mine = self._claim(None)
            if mine:
                return self._own(future, make)
            if not future.done() and self._loop is not None and self._loop is running_loop():
                raise WouldDeadlock
            try:
                return future.result()
            except _HandedOver:
                continue

    async def aget(self, make: Callable[[], Awaitable[T]]) -> T:
        """The same for coroutines. Cancelling a caller that waits leaves the making alone."""
        while True:
            future, mine = self._claim(running_loop())
            if mine:
                return await self._aown(future, make)
            try:
                return await asyncio.shield(_quietly_wrapped(future))
            except _HandedOver:
                continue

    def _claim(self, loop: asyncio.AbstractEventLoop | None) -> tuple[Future[T], bool]:
        with self._lock:
            if self._future is not None:
                return self._future, False
            self._loop = loop
            self._future = Future()
            # A future that runs cannot be cancelled, which a cancelled waiter would do to it otherwise.
            self._future.set_running_or_notify_cancel()
            return self._future, True

    def _own(self, future: Future[T], make: Callable[[], T]) -> T:
        try:
            value = make()
        except BaseException as error:
            self._fail(future, error)
            raise
        future.set_result(value)
        return value

    async def _aown(self, future: Future[T], make: Callable[[], Awaitable[T]]) -> T:
        try:
            value = await make()
        except BaseException as error:
            self._fail(future, error)
            raise
        future.set_result(value)
        return value

    def _fail(self, future: Future[T], error: BaseException) -> None:
        with self._lock:
            if self._future is future:
                self._future = None
        future.set_exception(error if isinstance(error, Exception) else _HandedOver())


def _quietly_wrapped(future: Future[T]) -> asyncio.Future[T]:
    """Wrap for this loop, without a complaint about an error that a waiter who left did not look at."""
    wrapped = asyncio.wrap_future(future)
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return wrapped
