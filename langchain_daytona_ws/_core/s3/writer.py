"""Apply a change of one object only once. If the answer is lost, read the object to see whether the change was applied.

A write leaves a mark in the object's metadata; a deleted object is gone. If an attempt arrives only after the next
attempt was applied, its condition fails, and it changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from langchain_daytona_ws._core.s3.errors import outcome_unknown
from langchain_daytona_ws._core.s3.lookup import Lookup
from langchain_daytona_ws._core.s3.metadata import Mark, mark_of, new_mark, proves_not_applied, with_mark
from langchain_daytona_ws._core.s3.store import (
    ObjectInfo,
    ObjectStorePort,
    StoredObject,
    StoreFault,
    StoreFaultKind,
    SymlinkFound,
)
from langchain_daytona_ws._guest.walk import RefusedError
from langchain_daytona_ws.errors import OutcomeUnknown, WorkspaceError

T = TypeVar("T")

WITHIN_S = 45.0  # seconds after which no further attempt is made
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

# An earlier attempt without an answer may have caused CHANGED or MISSING. The next read of the object shows whether it
# did.
_RETRIED = (StoreFaultKind.PASSING, StoreFaultKind.UNKNOWN, StoreFaultKind.CHANGED, StoreFaultKind.MISSING)


class Put(Protocol):
    """Sends the content of an object. ``if_match`` is the condition, as in `ObjectStorePort.put`."""

    def __call__(self, *, if_match: str | None, metadata: Mapping[str, str]) -> Awaitable[object]: ...


class Conflict(Exception):
    """Another writer changed the object after it was read; nothing was done."""


@dataclass(slots=True)
class _Tries:
    """The attempts to apply a change."""

    until: float  # no further attempt after this time, in seconds on the port's clock
    count: int = 0
    in_doubt: bool = False  # an attempt may have been applied

    def pause_s(self) -> float:
        """Count an attempt, and return the pause before the next."""
        self.count += 1
        longest = min(FIRST_PAUSE_S * 2.0**self.count, LONGEST_PAUSE_S)
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads the retries of colliding writers


class ConditionalWriter:
    """Writes and deletes objects, at most once per call."""

    def __init__(self, port: ObjectStorePort, lookup: Lookup) -> None:
        self._port = port
        self._lookup = lookup

    async def put(
        self, key: str, data: bytes, old: StoredObject | None, *, call_key: str, action: str
    ) -> Mark:
        """Write an object, and return the mark of the change.

        ``old`` is the object that was read before; None if the key was free. The mark consists of ``action`` and a
        hash of ``call_key``, the idempotency key of the call.

        Raises:
            Conflict: Another writer changed the object.
            OutcomeUnknown: The object may have been written.
            StoreFault: The object was not written.
        """
        return await self.put_by(
            partial(self._port.put, key, data), key, old, call_key=call_key, action=action
        )

    async def put_by(
        self, send: Put, key: str, old: StoredObject | None, *, call_key: str, action: str
    ) -> Mark:
        """Write an object as `put` does; ``send`` sends the content."""
        return await self._apply(partial(self._put, send, key, old, call_key=call_key, action=action))

    async def _put(
        self, send: Put, key: str, old: StoredObject | None, tries: _Tries, *, call_key: str, action: str
    ) -> Mark:
        before, etag = ({}, None) if old is None else (old.metadata, old.info.etag)
        mark = new_mark(call_key, action)
        metadata = with_mark(before, mark)
        while True:
            try:
                await send(if_match=etag, metadata=metadata)
            except StoreFault as fault:
                # With an ETag, MISSING means that another writer deleted the object. Without an ETag, it means that S3
                # refuses the key.
                changed = fault.kind is StoreFaultKind.CHANGED or (
                    fault.kind is StoreFaultKind.MISSING and etag
                )
                if changed and not tries.in_doubt:
                    raise Conflict from None
                if fault.kind is StoreFaultKind.MISSING and not etag:
                    raise
                await self._pause(fault, tries)
            else:
                return mark
            if not tries.in_doubt:
                continue
            now = await self._current(key, tries)
            recorded = mark_of(now.metadata, call_key) if now else None
            if recorded is not None:
                return recorded
            if (now and now.info) == (old and old.info):
                continue  # the object was not written: another writer changes at least its time
            if now is not None and proves_not_applied(before, now.metadata, call_key):
                raise Conflict
            raise outcome_unknown("write", "the object has neither the old nor the new content")

    async def delete(self, info: ObjectInfo) -> None:
        """Delete an object.

        Raises:
            OutcomeUnknown: The object may have been deleted.
            StoreFault: The object was not deleted.
        """
        await self._apply(partial(self._delete, info))

    async def _delete(self, info: ObjectInfo, tries: _Tries) -> None:
        while True:
            try:
                await self._port.delete(info.key)
            except StoreFault as fault:
                # The answer "missing" may come from a proxy, so a listing must confirm it.
                if fault.kind is StoreFaultKind.MISSING and await self._listed(info.key, tries) is None:
                    return
                await self._pause(fault, tries)
            else:
                return
            if not tries.in_doubt:
                continue
            now = await self._listed(info.key, tries)
            if now is None:
                return
            if now != info:  # another file, or the same content that another writer wrote since
                raise outcome_unknown("delete", "another file exists there now")

    async def _apply(self, change: Callable[[_Tries], Awaitable[T]]) -> T:
        """Make the attempts of a change. If it fails, but an attempt may have been applied, raise OutcomeUnknown.

        `Conflict` is raised unchanged: it means that no attempt was applied.
        """
        tries = _Tries(self._port.now() + WITHIN_S)
        try:
            return await change(tries)
        except (StoreFault, WorkspaceError) as error:
            if not tries.in_doubt or isinstance(error, OutcomeUnknown):
                raise
            raise outcome_unknown("change", error.message) from error

    async def _pause(self, fault: StoreFault, tries: _Tries) -> None:
        """Record whether the attempt may have been applied. Then wait, or raise the fault if no attempt follows."""
        tries.in_doubt |= fault.kind is StoreFaultKind.UNKNOWN
        if fault.kind not in _RETRIED or self._port.now() >= tries.until:
            raise fault
        await self._port.sleep(tries.pause_s())

    async def _current(self, key: str, tries: _Tries) -> StoredObject | None:
        """Return the current object without its content; None if the path has no object."""
        while True:
            try:
                return await self._lookup.load_unless_free(key, max_bytes=0)
            except RefusedError:  # the path is a directory now, or leads through a file
                return None
            except SymlinkFound:
                raise outcome_unknown("change", "a symlink is there now") from None
            except StoreFault as fault:
                await self._pause(fault, tries)

    async def _listed(self, key: str, tries: _Tries) -> ObjectInfo | None:
        while True:
            try:
                return await self._lookup.file_at(key)
            except StoreFault as fault:
                await self._pause(fault, tries)
