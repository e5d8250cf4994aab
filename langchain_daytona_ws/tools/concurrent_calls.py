"""The calls that run beside each other in one task of a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

_under_way: dict[tuple[str, str], set[asyncio.Future[None]]] = {}
_current: ContextVar[ConcurrentCall | None] = ContextVar("langchain_daytona_ws_sibling", default=None)


class ConcurrentCall:
    """One async call of a tool; a graph's interrupt in it waits until what was approved beside it is done.

    LangGraph's tool node goes on at the first interrupt, and leaves the other calls behind: with the event loop they
    would be cancelled, and their commands killed, although they were approved. Its sync form waits for them.

    Args:
        config: The call's config.
    """

    def __init__(self, config: Mapping[str, Any] | None) -> None:
        settings = (config or {}).get("configurable") or {}
        self._task = (str(settings.get("thread_id") or ""), str(settings.get("checkpoint_ns") or ""))
        self._done: asyncio.Future[None] | None = None
        self._token = _current.set(self)

    def begin(self) -> None:
        """Count as under way: what it does was approved."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a sync call within an async one: of the latter nothing was approved
        if self._done is None and self._task[1]:
            self._done = loop.create_future()
            _under_way.setdefault(self._task, set()).add(self._done)

    def end(self) -> None:
        """Count no more."""
        _current.reset(self._token)
        if self._done is None:
            return
        beside = _under_way[self._task]
        beside.discard(self._done)
        if not beside:
            del _under_way[self._task]
        if not self._done.done():  # whoever waited may have been cancelled, and it with them
            self._done.set_result(None)

    async def others(self) -> None:
        """Wait until nothing is under way beside this."""
        loop = asyncio.get_running_loop()
        while beside := [
            one for one in _under_way.get(self._task, ()) if one.get_loop() is loop and one is not self._done
        ]:
            await asyncio.wait(beside)


def begin_current() -> None:
    """Count the async call that this runs in, if it is one, as under way."""
    sibling = _current.get()
    if sibling is not None:
        sibling.begin()
