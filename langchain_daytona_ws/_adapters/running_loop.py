"""The event loop of the calling thread."""

from __future__ import annotations

import asyncio


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread; None if no loop runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
