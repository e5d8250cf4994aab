"""The requests that the server got, in the order in which they arrived."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Request:
    """One request. `status` is None while it is open, and for good when its connection was dropped."""

    method: str
    path: str
    status: int | None
    sandbox_id: str | None
    action: str


# A server that runs for weeks must not remember every request.
LONGEST = 100_000


class Journal:
    """Written by the server's thread, read by any. Holds the last 100,000 requests."""

    def __init__(self) -> None:
        self._entries: dict[int, Request] = {}
        self._next = 0
        self._open = 0
        self._lock = threading.Lock()

    def arrived(self, method: str, path: str, action: str, sandbox_id: str | None) -> int:
        """Note a request and return the number under which it is finished."""
        with self._lock:
            number = self._next
            self._next += 1
            self._open += 1
            self._entries[number] = Request(method, path, None, sandbox_id, action)
            if len(self._entries) > LONGEST:
                del self._entries[next(iter(self._entries))]
        return number

    def finished(self, number: int, status: int | None, sandbox_id: str | None) -> None:
        with self._lock:
            self._open -= 1
            if number in self._entries:  # it may have been cleared meanwhile
                self._entries[number] = replace(self._entries[number], status=status, sandbox_id=sandbox_id)

    @property
    def open(self) -> int:
        """How many requests have arrived and are not done with, one way or another."""
        with self._lock:
            return self._open

    def requests(self) -> list[Request]:
        with self._lock:
            return list(self._entries.values())

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
