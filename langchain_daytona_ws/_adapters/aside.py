"""Work beside the caller's, in the two ways of doing so."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.ports import Aside

T = TypeVar("T")
Work = Callable[[Aside], Coroutine[Any, Any, None]]

GRACE_S = 1.0  # for a request that is abandonable, and mostly about to be answered


class _Abandoned(BaseException):
    """Ends the work of a thread, as a task's cancellation does."""


class ThreadAside:
    """A thread that runs a coroutine which never suspends, with the variables of the caller's context.

    No other thread can cut short a request that hangs. One that is left behind ends by its own time-out, and then its
    thread ends without doing anything more.
    """

    def __init__(self, work: Work) -> None:
        self._over = threading.Event()
        # The thread holds it, but for while it may be left behind: whoever has it decides who does the rest.
        self._turn = threading.Lock()
        self._may_be_abandoned = False
        self._is_abandoned = False
        context = contextvars.copy_context()
        # A daemon: neither the end of the interpreter nor a second Ctrl-C waits for it.
        self._thread = threading.Thread(
            target=lambda: context.run(self._run, work), name="langchain-daytona-ws-aside", daemon=True
        )
        self._thread.start()

    def _run(self, work: Work) -> None:
        with self._turn, contextlib.suppress(_Abandoned):
            drive(work(self))

    async def pause(self, seconds: float) -> bool:
        return not self._over.wait(seconds)

    async def abandonable(self, request: Awaitable[T]) -> T:
        self._may_be_abandoned = True
        self._turn.release()
        try:
            return await request
        finally:
            self._turn.acquire()
            self._may_be_abandoned = False
            if self._is_abandoned:
                raise _Abandoned

    async def end(self) -> None:
        self._over.set()
        self._thread.join(GRACE_S)
        with self._turn:
            self._is_abandoned = self._may_be_abandoned
        if not self._is_abandoned:
            self._thread.join()

    cancel = end


class TaskAside:
    """A task on the caller's loop."""

    def __init__(self, work: Work) -> None:
        self._over = asyncio.Event()
        self._may_be_abandoned = False
        self._task = asyncio.create_task(work(self), name="langchain-daytona-ws-aside")

    async def pause(self, seconds: float) -> bool:
        if self._over.is_set():  # which wait_for does not look at when there is no time to wait
            return False
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
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
        self._over.set()
        await asyncio.wait({self._task}, timeout=GRACE_S)
        if self._may_be_abandoned:
            self._task.cancel()
        await asyncio.wait({self._task})

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
