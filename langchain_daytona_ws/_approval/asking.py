"""Call an approver, sync or async, from sync or async code, with a time-out and without blocking a loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Protocol

from langchain_daytona_ws.permissions import Approver, PermissionRequest

# How long an approver that is cancelled at its time-out may take to clear its prompt away.
_CLEAN_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call of the approver ended.

    An exception is kept as a value: futures give some a meaning of their own (StopIteration, CancelledError).
    """

    value: object = None
    error: BaseException | None = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """One call of an approver that is to be made.

    Args:
        approver: Who is asked.
        request: About what.
        context: Context variables that the approver sees: a copy of the caller's (an interrupt needs them).
        timeout_s: Seconds for the answer, from the moment the approver is called; None for ever.
    """

    approver: Approver
    request: PermissionRequest
    context: Context
    timeout_s: float | None

    @property
    def is_async(self) -> bool:
        """Whether the approver is known, without calling it, to give a coroutine."""
        call = type(self.approver).__call__
        return inspect.iscoroutinefunction(self.approver) or inspect.iscoroutinefunction(call)

    def put(self) -> object:
        """Call the approver in this thread; an async one gives an awaitable."""
        return self.context.run(self.approver, self.request)


class Side(Protocol):
    """What the gate needs from the world that it is called in."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None: ...
    async def wait(self, granted: Future[None], timeout_s: float | None) -> bool: ...
    async def ask(self, question: Question) -> Outcome: ...


class _Worker:
    """A daemon thread that calls an approver.

    A thread, so that a time-out is kept and a loop is not blocked; a daemon, and none of the default
    executor's, so that a prompt nobody answers holds up neither the interpreter's exit nor `asyncio.run`.
    """

    def __init__(self, question: Question, *, finish_awaitables: bool) -> None:
        self.outcome: Future[Outcome] = Future()
        self.outcome.set_running_or_notify_cancel()  # a cancelled wrapper must not cancel it
        self._question = question
        self._finish_awaitables = finish_awaitables
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None
        self._abandoned = False

    def start(self, awaitable: Awaitable[object] | None = None) -> None:
        """Call the approver, or only await what it gave already."""
        work = threading.Thread(target=self._work, args=(awaitable,), name="approver", daemon=True)
        try:
            work.start()
        except RuntimeError as error:  # no threads left, or the interpreter is going down
            self.outcome.set_result(Outcome(error=error))

    def abandon(self) -> None:
        """Cancel an async approver; a sync one goes on for nothing, and its answer is not looked at."""
        with self._lock:
            self._abandoned = True
            stop = self._stop
        if stop is not None:
            with suppress(RuntimeError):  # its loop is closed: it has just ended
                stop()

    def _work(self, awaitable: Awaitable[object] | None) -> None:
        try:
            value = self._question.put() if awaitable is None else awaitable
            if self._finish_awaitables and inspect.isawaitable(value):
                with asyncio.Runner() as runner:
                    value = runner.run(self._finish(value), context=self._question.context)
            outcome = Outcome(value)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which judges it
            outcome = Outcome(error=error)
        self.outcome.set_result(outcome)

    async def _finish(self, value: Awaitable[object]) -> object:
        task = asyncio.ensure_future(value)
        loop = asyncio.get_running_loop()
        with self._lock:
            self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
            if self._abandoned:
                task.cancel()
        return await task


class Blocking:
    """The sync side: every await is done when it returns."""

    loop = None

    async def wait(self, granted: Future[None], timeout_s: float | None) -> bool:
        with suppress(TimeoutError):
            granted.result(_bounded(timeout_s))
        return granted.done()  # it may have come at the last moment

    async def ask(self, question: Question) -> Outcome:
        worker = _Worker(question, finish_awaitables=True)
        awaitable: Awaitable[object] | None = None
        if question.timeout_s is None and not question.is_async:
            # Nothing to watch over: call it here, as prompts that belong to a thread need it (pdb, GUIs).
            try:
                value = question.put()
            except BaseException as error:  # noqa: BLE001 - the gate judges it
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
                # Its late answer counts for nothing.
                worker.outcome.result(_CLEAN_UP_S if question.is_async else 0)
            return Outcome(timed_out=True)
        except BaseException:  # Ctrl-C in the waiting thread
            worker.abandon()
            raise


class OnLoop:
    """The async side: nothing blocks the running loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def wait(self, granted: Future[None], timeout_s: float | None) -> bool:
        wrapped = asyncio.wrap_future(granted)
        try:
            await asyncio.wait({wrapped}, timeout=timeout_s)
        finally:
            # One that is given up must not report to a loop that may be closed by then.
            wrapped.cancel()
        return granted.done()

    async def ask(self, question: Question) -> Outcome:
        deadline = None if question.timeout_s is None else self.loop.time() + question.timeout_s
        if question.is_async:
            try:
                value = question.put()
            except BaseException as error:  # noqa: BLE001 - the gate judges it
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
                # Of one that is given up, the loop may be closed when it ends: it must not report there.
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
            left = None if deadline is None else max(deadline - self.loop.time(), 0)
            await asyncio.wait({task}, timeout=left)
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


# The loop keeps only weak references to tasks: one that does not heed its cancellation would vanish half-way.
_unfinished: set[asyncio.Task[Outcome]] = set()


async def _awaited(value: Awaitable[object]) -> Outcome:
    try:
        return Outcome(await value)
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise  # asyncio has its own way with these
    except BaseException as error:  # noqa: BLE001 - the gate judges it
        return Outcome(error=error)


def _bounded(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)
