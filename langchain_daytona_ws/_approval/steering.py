"""Control flow among exceptions: what steers the program must go on, whoever raised it."""

from __future__ import annotations

from collections.abc import Iterator


def what_steers(error: BaseException) -> BaseException | None:
    """Return the control flow in an exception, to be let through; None when it is merely a failure.

    Of a group, such as an `asyncio.TaskGroup` in the approver makes, it is the first such exception within,
    at any depth, and one that ends the program before any other: LangGraph and Python know their own
    exceptions, and not a group of them.
    """
    steering = [leaf for leaf in _leaves(error) if steers_the_program(leaf)]
    ends = (leaf for leaf in steering if isinstance(leaf, (KeyboardInterrupt, SystemExit)))
    return next(ends, steering[0] if steering else None)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    waiting = [error]  # no recursion: groups may be nested deeper than Python's stack
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(reversed(one.exceptions))
        else:
            yield one


def steers_the_program(error: BaseException) -> bool:
    """Say whether an exception, not a group, is control flow.

    Known by name, so that LangGraph need not be installed: its interrupts are ordinary exceptions by type.
    """
    return not isinstance(error, Exception) or any(
        kind.__name__ == "GraphBubbleUp" and kind.__module__.partition(".")[0] == "langgraph"
        for kind in type(error).__mro__
    )
