"""The random ids and the clock of a session. Tests replace both."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable
from typing import Protocol

Ids = Callable[[], str]


class Clock(Protocol):
    """The clock of a session: returns the time, and waits.

    Pass your own clock to a `WorkspaceSession` to replay a recording without waiting and with the recorded dates. The
    time-outs of HTTP requests do not use this clock.
    """

    def time(self) -> float:
        """Return the Unix time in seconds. The end times of credentials and jobs are compared with it."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a monotonic clock, which limits the time of retries."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread. Used by the sync methods and by background threads."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Wait without blocking the event loop. Used by the async methods."""
        ...


random_id: Ids = functools.partial(secrets.token_hex, 16)
"""Returns 32 random hexadecimal digits."""


def checked_id(ids: Ids) -> str:
    """Return the next id, or raise `ValueError` if it is not 32 lower-case hexadecimal digits.

    A shorter id could occur in the output of a command.
    """
    name = ids()
    if not isinstance(name, str) or re.fullmatch("[0-9a-f]{32}", name) is None:
        raise ValueError(
            f"ids must return 32 lower-case hexadecimal digits, as f'{{number:032x}}' does, not {name!r}"
        )
    return name
