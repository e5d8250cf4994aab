"""Work beside the caller's, in the two ways of doing so."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.ports import Aside

Work = Callable[[Aside], Coroutine[Any, Any, None]]


class ThreadAside:
    """A thread that runs a coroutine which never suspends, with the variables of the caller's context."""

    def __init__(self, work: Work) -> None:
        self._over = threading.Event()
        context = contextvars.copy_context()
        # A daemon: whoever presses Ctrl-C a second time does not wait for it.
        self._thread = threading.Thread(
            target=lambda: context.run(drive, work(self)), name="langchain-daytona-ws-aside", daemon=True
        )
        self._thread.start()

    async def pause(self, seconds: float) -> bool:
        return not self._over.wait(seconds)

    async def end(self, *, at_once: bool = False) -> None:
        # No request that waits can be cut short from another thread; each has its own time-out.
        self._over.set()
        self._thread.join()


class TaskAside:
    """A task on the caller's loop."""

    def __init__(self, work: Work) -> None:
        self._over = asyncio.Event()
        self._task = asyncio.create_task(work(self), name="langchain-daytona-ws-aside")

    async def pause(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def end(self, *, at_once: bool = False) -> None:
        self._over.set()
        if at_once:
            self._task.cancel()
        await asyncio.wait({self._task})
