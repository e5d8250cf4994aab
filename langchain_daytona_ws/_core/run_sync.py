"""Run a coroutine that never suspends, so that sync and async methods share one implementation."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, such as a coroutine over sync ports, and return its result.

    Raises:
        RuntimeError: The coroutine suspended, because a sync call used an async port. The coroutine was closed.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError(
        "a synchronous call awaited something that is not ready; use the a-form of this method"
    )
