"""Where a session's ids and its time come from: the machine's own, unless a test injects others."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Protocol

Ids = Callable[[], str]


class Clock(Protocol):
    """A session's time: what it goes by, and how it waits.

    Give a `WorkspaceSession` one of your own so that the replay of a recording takes no time and sees no date but the
    recorded ones. Requests still end by the time-outs of the clients that send them.
    """

    def time(self) -> float:
        """Return Unix time in seconds: credentials and jobs end by it."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that only goes forward: how long something is tried."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, for the sync methods and for threads."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Wait, for the async methods."""
        ...


def random_id() -> str:
    """Return 32 random hexadecimal digits."""
    return secrets.token_hex(16)


def first_of(ids: Ids) -> str:
    """Take an id, and see that it is one: a short nonce could be taken for what a command printed.

    Raises:
        ValueError: It is not 32 hexadecimal digits.
    """
    name = ids()
    if not isinstance(name, str) or re.fullmatch("[0-9a-f]{32}", name) is None:
        raise ValueError(
            f"ids must return 32 lower-case hexadecimal digits, as f'{{number:032x}}' does, not {name!r}"
        )
    return name
