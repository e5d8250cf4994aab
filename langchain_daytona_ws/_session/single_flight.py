"""Create a value once for callers on any thread and any event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent import futures
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from langchain_daytona_ws._adapters.running_loop import running_loop
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws.errors import SandboxUnavailable

T = TypeVar("T")


class _MakerCancelled(Exception):
    """The caller that was creating the value was cancelled or interrupted; a waiting caller creates it instead."""


class WouldDeadlock(SandboxUnavailable):
    """A sync call would wait for work of its thread's event loop, which the call itself blocks."""

    def __init__(self, making: str, op: str) -> None:
        super().__init__(
            f"A sync call from the thread of an event loop that is just {making} would block both permanently. Use the "
            "a-form of this method, or call it from another thread.",
            code="would_deadlock",
            op=op,
            retryable=True,
            for_model="The machine is being prepared. Nothing ran. Try again.",
        )


def on_a_loop() -> bool:
    """Return True if blocking this thread would block an event loop."""
    return running_loop() is not None


class SingleFlight(Generic[T]):
    """One value that the first caller creates while all other callers wait for it.

    Callers wait for a ``concurrent.futures.Future``, because both threads and event loops can wait for it. No lock
    allows both, so the only lock here is held for a few instructions.

    Args:
        making: The creation, for error messages, such as "provisioning the sandbox".
        op: The ``op`` of errors.
    """

    def __init__(self, making: str = "making it", op: str = "create") -> None:
        self.making, self.op = making, op
        # Reentrant: the garbage collector may close a coroutine of `aget` while this thread holds the lock.
        self._lock = threading.RLock()
        self._future: Future[T] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun_in = 0  # id of the process that creates the value
        self.value: T | None = None
        """The value; None if it does not exist yet."""

    @property
    def pending(self) -> Future[T] | None:
        """The future of a value that is being created; None otherwise."""
        future = self._future
        return None if future is None or future.done() or self._is_abandoned() else future

    async def settled(self, timeout_s: float) -> None:
        """Wait until the creation of the value has ended, at most ``timeout_s`` seconds."""
        pending = self.pending
        if pending is not None:
            await asyncio.wait([_quietly_wrapped(pending)], timeout=timeout_s)

    def forget(self, value: T) -> bool:
        """Drop the value if it is still ``value``; return True if it was dropped."""
        with self._lock:
            if self._future is not None and self._future.done() and self.value is value:
                self._future = self.value = None
                return True
        return False

    def get(self, make: Callable[[], T]) -> T:
        """Return the value. If it does not exist, create it, or wait for the caller that creates it.

        Raises:
            Exception: The error of ``make``, also if another caller ran it; the next call tries again.
            WouldDeadlock: The value is being created on this thread's event loop.
        """
        while True:
            future, is_first = self._join_or_start(None)
            if is_first:
                return self._make(future, make)
            if not future.done() and self._loop is not None and self._loop is running_loop():
                raise WouldDeadlock(self.making, self.op)
            try:
                return future.result()
            except _MakerCancelled:
                continue

    async def aget(self, make: Callable[[], Awaitable[T]]) -> T:
        """Return the value as `get` does, for coroutines. Cancelling a waiting caller does not cancel the creation."""
        while True:
            future, is_first = self._join_or_start(running_loop())
            if is_first:
                return await self._amake(future, make)
            try:
                return future.result() if future.done() else await asyncio.shield(_quietly_wrapped(future))
            except _MakerCancelled:
                continue

    def _join_or_start(self, loop: asyncio.AbstractEventLoop | None) -> tuple[Future[T], bool]:
        with self._lock:
            if self._future is not None and (self._future.done() or not self._is_abandoned()):
                return self._future, False
            self._loop, self._begun_in = loop, os.getpid()
            self._future = Future()
            # Marked as running, so that a cancelled waiter cannot cancel it for all waiters.
            self._future.set_running_or_notify_cancel()
            return self._future, True

    def _is_abandoned(self) -> bool:
        """Return True if an unfinished creation never ends: its loop was closed, or a parent process began it."""
        return self._begun_in != os.getpid() or (self._loop is not None and self._loop.is_closed())

    def _make(self, future: Future[T], make: Callable[[], T]) -> T:
        try:
            value = make()
        except BaseException as error:
            self._fail(future, error)
            raise
        self.value = value
        future.set_result(value)
        return value

    async def _amake(self, future: Future[T], make: Callable[[], Awaitable[T]]) -> T:
        try:
            value = await make()
        except BaseException as error:
            self._fail(future, error)
            raise
        self.value = value
        future.set_result(value)
        return value

    def _fail(self, future: Future[T], error: BaseException) -> None:
        with self._lock:
            if self._future is future:
                self._future = None
        future.set_exception(error if isinstance(error, Exception) else _MakerCancelled())


def _quietly_wrapped(future: Future[T]) -> asyncio.Future[T]:
    """Wrap a future for this loop, without asyncio's warning if a cancelled waiter does not retrieve the error."""
    wrapped = asyncio.wrap_future(future)
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return wrapped


class RunOnce(Protocol):
    """Return the value of a flight; create it if necessary. See `once_blocking` and `once_on_loop`."""

    async def __call__(self, flight: SingleFlight[T], make: Callable[[], Coroutine[Any, Any, T]]) -> T: ...


async def once_blocking(flight: SingleFlight[T], make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Block the thread until the value exists. The coroutine of ``make`` never suspends."""
    return flight.get(lambda: run_sync(make()))


async def once_on_loop(flight: SingleFlight[T], make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await flight.aget(make)


class Wait(Protocol):
    """Wait until a future is done, at most ``timeout_s`` seconds. See `wait_blocking`, `wait_on_loop`."""

    async def __call__(self, future: Future[None], timeout_s: float) -> None: ...


async def wait_blocking(future: Future[None], timeout_s: float) -> None:
    futures.wait([future], timeout=timeout_s)


async def wait_on_loop(future: Future[None], timeout_s: float) -> None:
    await asyncio.wait([_quietly_wrapped(future)], timeout=timeout_s)
