"""Call a session's sync or async methods; another thread can cancel a call."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._core.run_sync import run_sync


class Runtime:
    """Calls the sync methods of a session, or the async ones on a permanent event loop."""

    def __init__(self, is_async: bool) -> None:
        self._runner = asyncio.Runner() if is_async else None
        self._task: asyncio.Task[Any] | None = None
        self._thread = threading.get_ident()

    @property
    def is_async(self) -> bool:
        return self._runner is not None

    def call(self, target: Any, name: str, *arguments: Any, **named: Any) -> Any:
        if self._runner is None:
            return getattr(target, name)(*arguments, **named)
        return self._runner.run(self._watched(getattr(target, f"a{name}")(*arguments, **named)))

    def acquire(self, session: WorkspaceSession) -> None:
        """Create the sandbox without running a command, and without checking its S3 workspace."""
        runtime = session._sync if self._runner is None else session._async
        work = session._state.sandboxes.acquire(runtime._run_once, runtime._port)
        if self._runner is None:
            run_sync(work)
        else:
            self._runner.run(self._watched(work))

    async def _watched(self, work: Coroutine[Any, Any, Any]) -> Any:
        self._task = asyncio.ensure_future(work)
        return await self._task

    def cancel(self) -> None:
        """Cancel the running call from another thread: its task, or with SIGINT."""
        if self._runner is None:
            signal.pthread_kill(self._thread, signal.SIGINT)
        elif self._task is not None:
            self._runner.get_loop().call_soon_threadsafe(self._task.cancel)

    def tasks(self) -> list[str]:
        """Return the unfinished tasks of the loop."""
        if self._runner is None:
            return []

        async def others() -> list[str]:
            return [repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}]

        return self._runner.run(others())

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
