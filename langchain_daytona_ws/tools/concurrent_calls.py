"""The tool calls that run at the same time in one task of a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from langchain_daytona_ws._core.call_key import thread_of

_running: dict[tuple[str, str], set[asyncio.Future[None]]] = {}
_current: ContextVar[ConcurrentCall | None] = ContextVar("langchain_daytona_ws_concurrent_call", default=None)


class ConcurrentCall:
    """One async call of a tool. Before it interrupts the graph, it waits until the running concurrent calls are done.

    LangGraph's async tool node abandons the running calls at the first interrupt. Without the wait they would be
    cancelled when the event loop ends, and their approved commands killed. LangGraph's sync tool node waits itself.
    """

    def __init__(self, config: Mapping[str, Any] | None) -> None:
        settings = (config or {}).get("configurable") or {}
        self._task = (thread_of(config) or "", str(settings.get("checkpoint_ns") or ""))
        self._done: asyncio.Future[None] | None = None
        self._token = _current.set(self)

    @staticmethod
    def current() -> ConcurrentCall | None:
        return _current.get()

    def begin(self) -> None:
        """Record that the call runs, because it was approved or needs no approval. Outside a graph, record nothing."""
        if self._done is None and self._task[1]:
            self._done = asyncio.get_running_loop().create_future()
            _running.setdefault(self._task, set()).add(self._done)

    def end(self) -> None:
        _current.reset(self._token)
        if self._done is None:
            return
        concurrent = _running[self._task]
        concurrent.discard(self._done)
        if not concurrent:
            del _running[self._task]
        if not self._done.done():  # it may have been cancelled
            self._done.set_result(None)

    async def wait_for_others(self) -> None:
        """Wait until no other call of the task is running."""
        loop = asyncio.get_running_loop()
        while running := [
            future
            for future in _running.get(self._task, ())
            if future.get_loop() is loop and future is not self._done
        ]:
            await asyncio.wait(running)
