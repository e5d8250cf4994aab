"""Change one object for certain, or not at all: answers that are lost are looked for.

The port sends a change once. When the connection breaks, the object itself tells whether the change was made: by the
mark that it leaves in the metadata, or by being gone. A put that was not made yet can't do harm later, since its
condition no longer holds once another one was made.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from langchain_daytona_ws._core.s3.errors import lost
from langchain_daytona_ws._core.s3.idempotency import Mark, excludes, mark_of, with_mark
from langchain_daytona_ws._core.s3.lookup import Lookup
from langchain_daytona_ws._core.s3.store import (
    ObjectInfo,
    ObjectStorePort,
    StoredObject,
    StoreFault,
    StoreFaultKind,
)
from langchain_daytona_ws._guest.walk import RefusedError
from langchain_daytona_ws.errors import OutcomeUnknown, WorkspaceError

WITHIN_S = 45.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

# The last two only when the change is in doubt: a look tells what they mean.
_AGAIN = (StoreFaultKind.PASSING, StoreFaultKind.UNKNOWN, StoreFaultKind.CHANGED, StoreFaultKind.MISSING)


class Conflict(Exception):
    """Somebody else changed the object since it was looked at; nothing was done."""


@dataclass(slots=True)
class _Tries:
    """How long a change has been tried. Times in seconds, on the port's clock."""

    until: float
    count: int = 0
    in_doubt: bool = False  # one of them may have been carried out

    def pause_s(self) -> float:
        self.count += 1
        longest = min(FIRST_PAUSE_S * 2.0**self.count, LONGEST_PAUSE_S)
        return random.uniform(longest / 2, longest)  # noqa: S311 - so that those who collided spread out


@contextmanager
def _told(tries: _Tries) -> Iterator[None]:
    """Say that the outcome is unknown, whatever ended the tries, when one of them may have been carried out."""
    try:
        yield
    except (StoreFault, WorkspaceError) as error:
        if not tries.in_doubt or isinstance(error, OutcomeUnknown):
            raise
        raise lost("change", error.message) from error


class ConditionalWriter:
    """Put and delete objects, each at most once per call.

    Args:
        port: The bucket.
        places: Looks at the same bucket.
    """

    def __init__(self, port: ObjectStorePort, places: Lookup) -> None:
        self._port = port
        self._places = places

    async def put(self, key: str, data: bytes, old: StoredObject | None, *, call: str, what: str) -> Mark:
        """Put an object in the place of ``old``, or of nothing; return the mark of what was done.

        Args:
            key: Where.
            data: The whole content.
            old: What was seen there, with its ETag and metadata; None for nothing.
            call: The short form of the call's key.
            what: What the call does, for its mark.

        Raises:
            Conflict: Somebody else changed it meanwhile.
            OutcomeUnknown: It may or may not have been put.
            StoreFault: It was not put.
        """
        tries = _Tries(self._port.now() + WITHIN_S)
        with _told(tries):
            return await self._put(key, data, old, Mark(call, what), tries)

    async def _put(self, key: str, data: bytes, old: StoredObject | None, mark: Mark, tries: _Tries) -> Mark:
        before = {} if old is None else old.metadata
        etag = None if old is None else old.info.etag
        metadata = with_mark(before, mark)
        while True:
            try:
                await self._port.put(key, data, if_match=etag, metadata=metadata)
            except StoreFault as fault:
                # A put on the condition that nothing is there can't find its object missing: S3 refuses the key.
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
            now = await self._look(key, tries)
            made = mark_of(now.metadata, mark.call) if now else None
            if made is not None:
                return made
            if (now.info.etag if now else None) == etag:
                continue  # as it was
            if now is not None and excludes(before, now.metadata, mark.call):
                raise Conflict
            raise lost("write", "what is there now is neither the old nor the new content")

    async def delete(self, info: ObjectInfo) -> None:
        """Delete an object.

        Raises:
            OutcomeUnknown: It may or may not have been deleted, and another one is there now.
            StoreFault: It was not deleted.
        """
        tries = _Tries(self._port.now() + WITHIN_S)
        with _told(tries):
            await self._delete(info, tries)

    async def _delete(self, info: ObjectInfo, tries: _Tries) -> None:
        while True:
            try:
                await self._port.delete(info.key)
            except StoreFault as fault:
                # A bare "not found" may come from something on the way that is no S3.
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
            if now.etag != info.etag:
                raise lost("delete", "another file is there now")

    async def _pause(self, fault: StoreFault, tries: _Tries) -> None:
        """Wait before another try, or raise when there is to be none."""
        tries.in_doubt |= fault.kind is StoreFaultKind.UNKNOWN
        if fault.kind not in _AGAIN or self._port.now() >= tries.until:
            raise fault
        await self._port.sleep(tries.pause_s())

    async def _look(self, key: str, tries: _Tries) -> StoredObject | None:
        """See what is there now, only its description; None for nothing."""
        while True:
            try:
                return await self._places.find(key, max_bytes=0)
            except RefusedError:  # a directory took its place
                return None
            except StoreFault as fault:
                await self._pause(fault, tries)

    async def _listed(self, key: str, tries: _Tries) -> ObjectInfo | None:
        while True:
            try:
                return await self._places.file_at(key)
            except StoreFault as fault:
                await self._pause(fault, tries)
