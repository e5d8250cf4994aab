"""The open sessions of a pool, their leases, and the callers that wait for a session. Sends no requests."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import islice, takewhile
from typing import Generic, Literal, NamedTuple, TypeVar

from langchain_daytona_ws.errors import SessionClosed

T = TypeVar("T")


class Slot(Generic[T]):
    """One session of the pool, with the number of its leases.

    Attributes:
        key: The key that the session was opened for.
        value: The session.
        leases: Number of callers that use the session now.
        used_at: When the last lease ended, in seconds on the monotonic clock.
        is_closing: True while the session is being closed, and cannot be leased.
        closed: Done when the closing of the session has ended, even if it failed.
    """

    def __init__(self, key: str, namespace: str, value: T) -> None:
        self.key, self.namespace, self.value = key, namespace, value
        self.leases = 0
        self.used_at = -math.inf
        self.is_closing = False
        self.closed = Future[None]()


class Step(NamedTuple, Generic[T]):
    """The result of one attempt to get a slot.

    Attributes:
        changed: Done when another attempt may succeed.
        slot: The slot; None if the caller must wait.
        opened: True if this attempt has opened the slot.
        reason: Why the caller must wait. ``closing``: the session of its key is being closed, or `hold` reserves it.
            ``in_use``: `reserve` found this session in use. ``full``: no slot is free. ``""``: the caller has the slot.
        to_close: Slots that the caller must close now, and pass to `Slots.record_closed`.
    """

    changed: Future[None]
    slot: Slot[T] | None = None
    opened: bool = False
    reason: Literal["", "closing", "in_use", "full"] = ""
    to_close: tuple[Slot[T], ...] = ()


class Slots(Generic[T]):
    """The slots of a pool, for callers on any thread and event loop.

    Args:
        make: Makes the value of a slot for a key and its namespace.
        max_slots: Maximum number of slots, including slots that are being closed. `reserve` ignores this limit.
        idle_s: Seconds after which an unused slot is closed; None for no limit.
        now: Returns seconds on a monotonic clock.
        is_ended: Returns True if a value can't be used any more.
        is_busy: Returns True if a value must not be closed yet, although no caller uses it.
    """

    def __init__(
        self,
        make: Callable[[str, str], T],
        *,
        max_slots: int,
        idle_s: float | None,
        now: Callable[[], float],
        is_ended: Callable[[T], bool],
        is_busy: Callable[[T], bool],
    ) -> None:
        self._make = make
        self._max_slots = max_slots
        self._idle_s = math.inf if idle_s is None else idle_s
        self._now = now
        self._is_ended = is_ended
        self._is_busy = is_busy
        # Reentrant: the garbage collector may close a waiting coroutine, which then calls `forget`, while this thread
        # holds the lock.
        self._lock = threading.RLock()
        self._slots: dict[str, Slot[T]] = {}  # by namespace, the least recently used first
        self._reserved: Counter[str] = Counter()  # by namespace: calls of `hold` without `unhold`
        self._waiting: list[object] = []  # tickets of callers that wait for a free slot
        self._is_open = True
        self._changed = _uncancellable()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def in_use(self) -> int:
        with self._lock:
            return sum(slot.leases > 0 for slot in self._slots.values())

    def try_lease(self, key: str, namespace: str, ticket: object) -> Step[T]:
        """Try to lease the slot of a namespace; open the slot if necessary. The caller ends the lease with `end_lease`.

        ``ticket`` identifies the caller in all its attempts.

        Raises:
            SessionClosed: The pool is closed.
        """
        with self._lock:
            self._check_open()
            slot = self._slots.get(namespace)
            if slot is not None and not slot.is_closing and not slot.leases and self._is_ended(slot.value):
                self._remove(slot)  # the program has closed the session itself
                slot = None
            idle = self._mark_idle_closing(except_for=namespace)
            if self._reserved[namespace] or (slot is not None and slot.is_closing):
                return Step(self._changed, reason="closing", to_close=idle)
            if slot is not None:
                slot.leases += 1
                return Step(self._changed, slot, to_close=idle)
            callers_before = self._callers_before(ticket)
            if self._max_slots - len(self._slots) <= callers_before:
                if ticket not in self._waiting:
                    self._waiting.append(ticket)
                more = self._mark_oldest_closing(callers_before)
                return Step(self._changed, reason="full", to_close=(*idle, *more))
            slot = self._add(key, namespace)
            slot.leases = 1
            self.forget(ticket)
            return Step(self._changed, slot, opened=True, to_close=idle)

    def end_lease(self, slot: Slot[T]) -> tuple[Slot[T], ...]:
        """End a lease; return the slots that the caller must close now."""
        with self._lock:
            slot.leases -= 1
            if slot.leases == 0:
                slot.used_at = self._now()
                if self._slots.get(slot.namespace) is slot:
                    self._slots[slot.namespace] = self._slots.pop(slot.namespace)
                self._notify()
            return self._mark_idle_closing(except_for=slot.namespace)

    def forget(self, ticket: object) -> None:
        """Remove a caller from the waiting callers."""
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._notify()

    def reserve(self, key: str, namespace: str) -> Step[T]:
        """If no caller uses the slot of a namespace, mark it as closing; open the slot first if necessary.

        Call `hold` before the first attempt, so that no new lease delays the closing, and `unhold` at the end.

        Raises:
            SessionClosed: The pool is closed.
        """
        with self._lock:
            self._check_open()
            slot = self._slots.get(namespace)
            if slot is None:
                slot = self._add(key, namespace)
            elif slot.is_closing or slot.leases:
                reason: Literal["closing", "in_use"] = "closing" if slot.is_closing else "in_use"
                return Step(self._changed, reason=reason)
            slot.is_closing = True
            return Step(self._changed, slot)

    def hold(self, namespace: str) -> None:
        """Refuse leases of a namespace until `unhold`."""
        with self._lock:
            self._reserved[namespace] += 1

    def unhold(self, namespace: str) -> None:
        with self._lock:
            self._reserved[namespace] -= 1
            if not self._reserved[namespace]:
                del self._reserved[namespace]
            self._notify()

    def record_closed(self, slot: Slot[T]) -> None:
        with self._lock:
            self._remove(slot)
            if not slot.closed.done():
                slot.closed.set_result(None)

    def close(self) -> tuple[list[Slot[T]], list[Slot[T]]]:
        """Refuse further leases. Return the slots that the caller must close, and those that others are closing."""
        with self._lock:
            self._is_open = False
            closing = [slot for slot in self._slots.values() if slot.is_closing]
            to_close = [slot for slot in self._slots.values() if not slot.is_closing]
            for slot in to_close:
                slot.is_closing = True
            self._notify()
            return to_close, closing

    def reopen(self) -> None:
        with self._lock:
            self._is_open = True

    def _check_open(self) -> None:
        if not self._is_open:
            raise SessionClosed(
                "This pool was closed. Enter it again (`async with pool`), or make a new WorkspacePool.",
                code="pool_closed",
                for_model="The workspaces of this service are closed; no more commands or files. Tell the user.",
            )

    def _add(self, key: str, namespace: str) -> Slot[T]:
        slot = self._slots[namespace] = Slot(key, namespace, self._make(key, namespace))
        slot.closed.set_running_or_notify_cancel()  # otherwise a cancelled asyncio wrapper would cancel it
        return slot

    def _remove(self, slot: Slot[T]) -> None:
        if self._slots.get(slot.namespace) is slot:
            del self._slots[slot.namespace]
        self._notify()

    def _callers_before(self, ticket: object) -> int:
        return self._waiting.index(ticket) if ticket in self._waiting else len(self._waiting)

    def _mark_idle_closing(self, *, except_for: str) -> tuple[Slot[T], ...]:
        """Mark slots that were unused for ``idle_s`` as closing; skip busy slots and the slot of ``except_for``."""
        limit = self._now() - self._idle_s
        idle = takewhile(lambda slot: slot.used_at <= limit, self._unused())
        return self._mark_closing(
            [slot for slot in idle if slot.namespace != except_for and not self._is_busy(slot.value)]
        )

    def _mark_oldest_closing(self, callers_before: int) -> tuple[Slot[T], ...]:
        """Mark the least recently used slot as closing and return it; skip slots in use and busy slots.

        Return nothing if as many slots are already being closed as this caller and the callers before it need.
        """
        closing = sum(slot.is_closing for slot in self._slots.values())
        if closing > callers_before:
            return ()
        oldest = (slot for slot in self._unused() if not self._is_busy(slot.value))
        return self._mark_closing([*islice(oldest, 1)])

    def _unused(self) -> Iterator[Slot[T]]:
        """Return the slots without a lease, the least recently used first."""
        return (slot for slot in self._slots.values() if not slot.leases and not slot.is_closing)

    def _mark_closing(self, slots: list[Slot[T]]) -> tuple[Slot[T], ...]:
        for slot in slots:
            slot.is_closing = True
        return tuple(slots)

    def _notify(self) -> None:
        """Wake all callers that wait for a change."""
        changed, self._changed = self._changed, _uncancellable()
        changed.set_result(None)


def _uncancellable() -> Future[None]:
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()  # otherwise a cancelled waiter would cancel it for all waiters
    return future
