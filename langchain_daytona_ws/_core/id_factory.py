"""A session's sources of ids and time; tests inject their own."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Protocol

Ids = Callable[[], str]


class Clock(Protocol):
    """The clock of a session, and its way to wait.

    Pass your own clock to a `WorkspaceSession` to replay a recording without waiting and with the recorded dates.
    Requests still end at the time-outs of the clients that send them.
    """

    def time(self) -> float:
        """Return Unix time in seconds; it decides when credentials and jobs end."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a monotonic clock; it limits the time of retries."""
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
    """Return an id, and check its form: a short nonce could occur in the output of a command.

    Raises:
        ValueError: The id is not 32 hexadecimal digits.
    """
    name = ids()
    if not isinstance(name, str) or re.fullmatch("[0-9a-f]{32}", name) is None:
        raise ValueError(
            f"ids must return 32 lower-case hexadecimal digits, as f'{{number:032x}}' does, not {name!r}"
        )
    return name
