"""Call a sync or async approver from sync or async code, with a time-out, without blocking an event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import NamedTuple, Protocol

from langchain_daytona_ws.permissions import Approver, PermissionRequest

# Seconds that an approver gets to close its prompt, after it was cancelled at its time-out.
_CLEAN_UP_S = 1.0


class Outcome(NamedTuple):
    """Result of a call of the approver.

    An exception is stored as a value, because futures treat some exceptions specially (StopIteration, CancelledError).
    """

    value: object = None
    error: BaseException | None = None
    timed_out: bool = False


class Question(NamedTuple):
    """A call of the approver that has not been made yet.

    Args:
        context: A copy of the caller's context variables, for the approver. An interrupt needs them.
        timeout_s: Maximum number of seconds from the call of the approver to its answer; None for no limit.
    """

    approver: Approver
    request: PermissionRequest
    context: Context
    timeout_s: float | None

    @property
    def is_async(self) -> bool:
        method = type(self.approver).__call__
        return inspect.iscoroutinefunction(self.approver) or inspect.iscoroutinefunction(method)

    def call(self) -> object:
        """Call the approver in this thread; an async approver returns an awaitable."""
        return self.context.run(self.approver, self.request)


class ApprovalRuntime(Protocol):
    """Wait for a turn and call the approver, from sync or from async code."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None: ...
    async def wait(self, granted: Future[None], timeout_s: float | None) -> bool: ...
    async def ask(self, question: Question) -> Outcome: ...


class _Worker:
    """A daemon thread that calls an approver.

    A thread makes a time-out possible, and does not block the event loop. It is a daemon thread, not a thread of
    asyncio's default executor: an unanswered prompt must not delay the interpreter's exit and the end of `asyncio.run`.
    With ``finish_awaitables``, the thread also awaits an awaitable that the approver returns, on its own event loop.
    """

    def __init__(self, question: Question, *, finish_awaitables: bool) -> None:
        self.outcome: Future[Outcome] = Future()
        self.outcome.set_running_or_notify_cancel()  # otherwise a cancelled asyncio wrapper would cancel it
        self._question = question
        self._finish_awaitables = finish_awaitables
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] | None = None
        self._abandoned = False

    def start(self, awaitable: Awaitable[object] | None = None) -> None:
        """Start the thread: call the approver, or await the awaitable that it has already returned."""
        thread = threading.Thread(target=self._work, args=(awaitable,), name="approver", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter exits
            self.outcome.set_result(Outcome(error=error))

    def abandon(self) -> None:
        """Cancel an async approver. A sync approver keeps running, and its answer is ignored."""
        with self._lock:
            self._abandoned = True
            cancel = self._cancel
        if cancel is not None:
            with suppress(RuntimeError):  # the loop is closed: the approver has just ended
                cancel()

    def _work(self, awaitable: Awaitable[object] | None) -> None:
        try:
            value = self._question.call() if awaitable is None else awaitable
            if self._finish_awaitables and inspect.isawaitable(value):
                with asyncio.Runner() as runner:
                    value = runner.run(self._finish(value), context=self._question.context)
            outcome = Outcome(value)
        except BaseException as error:  # noqa: BLE001 - passed to the caller's thread, where the gate handles it
            outcome = Outcome(error=error)
        self.outcome.set_result(outcome)

    async def _finish(self, value: Awaitable[object]) -> object:
        task = asyncio.ensure_future(value)
        loop = asyncio.get_running_loop()
        with self._lock:
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            if self._abandoned:
                task.cancel()
        return await task


class BlockingRuntime:
    """The sync `ApprovalRuntime`: its coroutines block and never suspend."""

    loop = None

    async def wait(self, granted: Future[None], timeout_s: float | None) -> bool:
        with suppress(TimeoutError):
            granted.result(_bounded(timeout_s))
        return granted.done()  # the turn may come between the time-out and this check

    async def ask(self, question: Question) -> Outcome:
        worker = _Worker(question, finish_awaitables=True)
        awaitable: Awaitable[object] | None = None
        if question.timeout_s is None and not question.is_async:
            # Without a time-out, call the approver in this thread, because some prompts need it (pdb, GUIs).
            try:
                value = question.call()
            except BaseException as error:  # noqa: BLE001 - the gate handles it
                return Outcome(error=error)
            if not inspect.isawaitable(value):
                return Outcome(value)
            awaitable = value
        worker.start(awaitable)
        try:
            return worker.outcome.result(_bounded(question.timeout_s))
        except TimeoutError:
            worker.abandon()
            with suppress(TimeoutError):
                # A late answer is ignored.
                worker.outcome.result(_CLEAN_UP_S if question.is_async else 0)
            return Outcome(timed_out=True)
        except BaseException:  # Ctrl-C in the waiting thread
            worker.abandon()
            raise


class AsyncioRuntime:
    """The async `ApprovalRuntime`: never blocks the running event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def wait(self, granted: Future[None], timeout_s: float | None) -> bool:
        wrapped = asyncio.wrap_future(granted)
        try:
            await asyncio.wait({wrapped}, timeout=timeout_s)
        finally:
            # If the wait was cancelled, a later result must not use the loop, which may be closed by then.
            wrapped.cancel()
        return granted.done()

    async def ask(self, question: Question) -> Outcome:
        deadline = None if question.timeout_s is None else self.loop.time() + question.timeout_s
        if question.is_async:
            try:
                value = question.call()
            except BaseException as error:  # noqa: BLE001 - the gate handles it
                return Outcome(error=error)
        else:
            worker = _Worker(question, finish_awaitables=False)
            worker.start()
            wrapped = asyncio.wrap_future(worker.outcome)
            try:
                await asyncio.wait({wrapped}, timeout=question.timeout_s)
                if not wrapped.done():
                    return Outcome(timed_out=True)
                outcome = wrapped.result()
            finally:
                # After a time-out or cancellation, the worker must not use the loop, which may be closed by then.
                wrapped.cancel()
            value = outcome.value
            if outcome.error is not None:
                return outcome
        if not inspect.isawaitable(value):
            return Outcome(value)
        task = self.loop.create_task(_awaited(value), context=question.context)
        _unfinished.add(task)
        task.add_done_callback(_unfinished.discard)
        try:
            remaining_s = None if deadline is None else max(deadline - self.loop.time(), 0)
            await asyncio.wait({task}, timeout=remaining_s)
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CLEAN_UP_S)
                return Outcome(timed_out=True)
        finally:
            task.cancel()
        try:
            return task.result()
        except asyncio.CancelledError as error:
            return Outcome(error=error)


# An event loop holds only weak references to its tasks. Without this set, a task that ignores its cancellation could be
# garbage-collected.
_unfinished: set[asyncio.Task[Outcome]] = set()


async def _awaited(value: Awaitable[object]) -> Outcome:
    try:
        return Outcome(await value)
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise  # asyncio handles these itself
    except BaseException as error:  # noqa: BLE001 - the gate handles it
        return Outcome(error=error)


def _bounded(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)
