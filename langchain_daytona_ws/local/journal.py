"""The journal: a record of the latest requests, in order of arrival."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Request:
    """A recorded request. `action` names its endpoint, such as "execute".

    `status` is None while the request is open, if a fault closed the connection without an answer, or if sending the
    answer failed. It is 400 if the client closed the connection while an endpoint read the body.
    """

    method: str
    path: str
    status: int | None
    sandbox_id: str | None
    action: str


# Limits the memory of a server that runs for weeks.
MAX_ENTRIES = 100_000


class Journal:
    """Holds the last 100,000 requests. Thread-safe."""

    def __init__(self) -> None:
        self._entries: dict[int, Request] = {}
        self._next = 0
        self._open = 0
        self._lock = threading.Lock()

    def add(self, method: str, path: str, action: str, sandbox_id: str | None) -> int:
        """Record a request and return its number, for `finish`."""
        with self._lock:
            number = self._next
            self._next += 1
            self._open += 1
            self._entries[number] = Request(method, path, None, sandbox_id, action)
            if len(self._entries) > MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
        return number

    def finish(self, number: int, status: int | None, sandbox_id: str | None) -> None:
        with self._lock:
            self._open -= 1
            if number in self._entries:  # False if `clear` or the limit has removed the entry
                self._entries[number] = replace(self._entries[number], status=status, sandbox_id=sandbox_id)

    @property
    def open_count(self) -> int:
        """The number of requests that are not finished."""
        with self._lock:
            return self._open

    def requests(self) -> list[Request]:
        with self._lock:
            return list(self._entries.values())

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
