"""Distinguish failures from control flow (Ctrl-C, cancellation, graph interrupts), which must be raised again."""

from __future__ import annotations

from collections.abc import Iterator


def control_flow_in(error: BaseException) -> BaseException | None:
    """Return the control-flow exception to raise; None if the exception is a failure.

    An exception group, for example from an `asyncio.TaskGroup`, is searched at any depth: LangGraph and Python do not
    recognise their own exceptions inside a group. KeyboardInterrupt and SystemExit precede other control flow.
    """
    found = [leaf for leaf in _leaves(error) if is_control_flow(leaf)]
    exits = (leaf for leaf in found if isinstance(leaf, (KeyboardInterrupt, SystemExit)))
    return next(exits, found[0] if found else None)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    pending = [error]  # no recursion: groups may be nested deeper than Python's stack
    while pending:
        current = pending.pop()
        if isinstance(current, BaseExceptionGroup):
            pending.extend(reversed(current.exceptions))
        else:
            yield current


def is_control_flow(error: BaseException) -> bool:
    """Return whether an exception is control flow. The exception must not be a group.

    LangGraph's interrupts are subclasses of Exception, recognised by class name because LangGraph is optional.
    """
    return not isinstance(error, Exception) or any(
        kind.__name__ == "GraphBubbleUp" and kind.__module__.partition(".")[0] == "langgraph"
        for kind in type(error).__mro__
    )
