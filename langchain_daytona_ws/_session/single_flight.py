"""Make a value once for callers on any thread and any event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws.errors import SandboxUnavailable

T = TypeVar("T")


class _HandedOver(Exception):
    """The maker was cancelled before it had a value; one of the waiting callers takes over."""


class WouldDeadlock(SandboxUnavailable):
    """A blocking caller would block the very event loop that is making the value it waits for."""

    def __init__(self, making: str, op: str) -> None:
        super().__init__(
            f"A sync call from the thread of an event loop that is just {making} would block both for ever. Use the "
            "a-form of this method, or call it from another thread.",
            code="would_deadlock",
            op=op,
            retryable=True,
            for_model="The machine is being prepared. Nothing ran. Try again.",
        )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread; None if none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def on_a_loop() -> bool:
    """Return whether blocking here would block an event loop."""
    return running_loop() is not None


class SingleFlight(Generic[T]):
    """Hold one value, made by the first caller while all other callers wait for it.

    Thread locks and asyncio locks do not exclude each other. So the only lock is held for a few instructions, and
    callers wait for a ``concurrent.futures.Future``, which threads and event loops can both wait for.

    Args:
        making: What makes the value, for errors: "provisioning the sandbox".
        op: The operation that errors name.
    """

    def __init__(self, making: str = "making it", op: str = "create") -> None:
        self.making, self.op = making, op
        self._lock = threading.Lock()
        self._future: Future[T] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def value(self) -> T | None:
        """The value, if it was made."""
        future = self._future
        if future is None or not future.done() or future.exception() is not None:
            return None
        return future.result()

    @property
    def pending(self) -> Future[T] | None:
        """The future of a value that is being made."""
        future = self._future
        return None if future is None or future.done() else future

    async def settled(self, timeout_s: float) -> None:
        """Wait until the value is made, or its making has failed."""
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
        """Return the value; make it if no other caller has or is.

        Raises:
            Exception: The error of ``make``, wherever it ran; the next call tries again.
            WouldDeadlock: The value is being made on the event loop of this very thread.
        """
        while True:
            future, mine = self._claim(None)
            if mine:
                return self._own(future, make)
            if not future.done() and self._loop is not None and self._loop is running_loop():
                raise WouldDeadlock(self.making, self.op)
            try:
                return future.result()
            except _HandedOver:
                continue

    async def aget(self, make: Callable[[], Awaitable[T]]) -> T:
        """Return the value as `get` does, for coroutines. Cancelling a waiting caller does not cancel the making."""
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
            # A running future cannot be cancelled: otherwise a cancelled waiter would cancel it.
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
    """Wrap for this loop, without a warning about an error that a cancelled waiter did not retrieve."""
    wrapped = asyncio.wrap_future(future)
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return wrapped


class Once(Protocol):
    """How a runtime waits for a value that is made once: `once_blocking` or `once_on_loop`."""

    async def __call__(self, flight: SingleFlight[T], make: Callable[[], Coroutine[Any, Any, T]]) -> T: ...


async def once_blocking(flight: SingleFlight[T], make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the value of a flight; block the thread while it is made. The coroutine of ``make`` never suspends."""
    return flight.get(lambda: run_sync(make()))


async def once_on_loop(flight: SingleFlight[T], make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the value of a flight without blocking the event loop."""
    return await flight.aget(make)
