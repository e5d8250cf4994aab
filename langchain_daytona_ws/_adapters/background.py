"""Background tasks: a thread for the sync runtime, an asyncio task for the async one."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from langchain_daytona_ws._core.ports import BackgroundTask
from langchain_daytona_ws._core.run_sync import run_sync

T = TypeVar("T")
Work = Callable[[BackgroundTask], Coroutine[Any, Any, None]]

# Time after which `end` abandons a request. Most of these requests end earlier.
GRACE_S = 1.0


class _StopWork(BaseException):
    """Ends the work of an abandoned thread, as cancellation ends a task."""


class ThreadTask:
    """A thread that runs a coroutine, with a copy of the caller's context. The coroutine must never suspend.

    A thread cannot be interrupted. If a request hangs, `end` waits for one second, and then abandons the request. The
    request ends by its own time-out, and then the thread ends without further work.
    """

    def __init__(self, work: Work) -> None:
        self._stopping = threading.Event()
        # The thread holds this lock, except during an abandonable request. `end` takes it to decide whether the thread
        # may continue after the request.
        self._may_work = threading.Lock()
        self._may_be_abandoned = False
        self._is_abandoned = False
        context = contextvars.copy_context()
        # A daemon thread: neither the interpreter's exit nor a second Ctrl-C waits for it.
        self._thread = threading.Thread(
            target=lambda: context.run(self._run, work), name="langchain-daytona-ws-background", daemon=True
        )
        self._thread.start()

    def _run(self, work: Work) -> None:
        with self._may_work, contextlib.suppress(_StopWork):
            run_sync(work(self))

    async def pause(self, seconds: float) -> bool:
        return not self._stopping.wait(seconds)

    async def abandonable(self, request: Awaitable[T]) -> T:
        self._may_be_abandoned = True
        self._may_work.release()
        try:
            return await request
        finally:
            self._may_work.acquire()
            self._may_be_abandoned = False
            if self._is_abandoned:
                raise _StopWork

    async def end(self) -> None:
        self._stopping.set()
        self._thread.join(GRACE_S)
        with self._may_work:
            self._is_abandoned = self._may_be_abandoned
        if not self._is_abandoned:
            self._thread.join()

    cancel = end


class AsyncioTask:
    """An asyncio task on the caller's event loop."""

    def __init__(self, work: Work) -> None:
        self._stopping = asyncio.Event()
        self._may_be_abandoned = False
        self._task = asyncio.create_task(work(self), name="langchain-daytona-ws-background")

    async def pause(self, seconds: float) -> bool:
        if self._stopping.is_set():  # with a time-out of 0, wait_for does not check this
            return False
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def abandonable(self, request: Awaitable[T]) -> T:
        self._may_be_abandoned = True
        try:
            return await request
        finally:
            self._may_be_abandoned = False

    async def end(self) -> None:
        self._stopping.set()
        await asyncio.wait({self._task}, timeout=GRACE_S)
        if self._may_be_abandoned:
            self._task.cancel()
        await asyncio.wait({self._task})

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
