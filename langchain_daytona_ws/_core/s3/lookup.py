"""What stands at a path: a file, a directory, or nothing. Told by listings, never by HEAD.

S3 answers 403 to HEAD and GET of a missing key when listing is allowed for the prefix only. A key beside others
below it (``a`` and ``a/b``) is a directory, as a mount shows it.
"""

from __future__ import annotations

from collections.abc import Collection

from langchain_daytona_ws._core.s3.names import LAST, ancestors, below, is_hidden, parent_of
from langchain_daytona_ws._core.s3.store import (
    KeyPage,
    ObjectInfo,
    ObjectStorePort,
    StoredObject,
    StoreFault,
    StoreFaultKind,
)
from langchain_daytona_ws._guest.alike import same_name
from langchain_daytona_ws._guest.near import MAX_NAMES, MAX_NEAR, spellings
from langchain_daytona_ws._guest.walk import RefusedError


class Lookup:
    """Look at keys through the port."""

    def __init__(self, port: ObjectStorePort) -> None:
        self._port = port

    async def load(self, key: str, *, max_bytes: int) -> StoredObject:
        """Get a file: one request when it is there.

        Raises:
            RefusedError: ``missing``, ``is_directory`` or ``not_a_directory``.
            StoreFault: It is there and cannot be had, or S3 failed.

        """
        found = await self.find(key, max_bytes=max_bytes)
        if found is None:
            raise RefusedError("missing")
        return found

    async def find(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """Get a file as `load` does; None when nothing is there and a file could be put there."""
        if not key:
            raise RefusedError("is_directory")
        try:
            return await self._port.get(key, max_bytes=max_bytes)
        except StoreFault as fault:
            if fault.kind not in (StoreFaultKind.MISSING, StoreFaultKind.DENIED):
                raise
            if fault.kind is StoreFaultKind.DENIED and await self.file_at(key):
                raise
        await self.need_free(key)
        return None

    async def file_at(self, key: str) -> ObjectInfo | None:
        """Return the object of exactly this key: it is listed before all that only begin with it."""
        first = _first(await self._port.list_page(key, max_keys=1))
        return first if first is not None and first.key == key else None

    async def is_directory(self, key: str) -> bool:
        return not key or _first(await self._port.list_page(below(key), max_keys=1)) is not None

    async def exists(self, key: str) -> bool:
        """Tell whether a file or a directory is there; a hidden key is none."""
        return await self.is_directory(key) or await self.file_at(key) is not None

    async def near(self, key: str) -> list[str]:
        """Return the keys that may be taken for one that is missing, as the guest's ``near`` finds them."""
        found: list[str] = []
        for meant in spellings(key):
            above, names = [""], meant.split("/")
            here = below(parent_of(meant))
            if there := await self._names(here):  # most often, only the last name is wrong
                above, names = [here], names[-1:]
            for name in names:
                above = [
                    f"{prefix}{other}/"
                    for prefix in above
                    for other in _like(name, there if prefix == here else await self._names(prefix))
                ][:MAX_NEAR]
            found += [one[:-1] for one in above if one[:-1] not in (key, *found)]
        return found[:MAX_NEAR]

    async def _names(self, above: str) -> set[str]:
        """Return the names in a directory, as far as they are looked at."""
        there, more = set[str](), None
        while len(there) < MAX_NAMES:
            page = await self._port.list_page(above, delimiter=True, more=more)
            there.update(one[len(above) : -1] for one in page.prefixes)
            there.update(info.key[len(above) :] for info in page.objects)
            more = page.more
            if more is None:
                break
        return {name for name in there if not is_hidden(name)}

    async def need_directory(self, key: str) -> None:
        """Refuse all but a directory.

        Raises:
            RefusedError: ``missing`` or ``not_a_directory``.

        """
        if await self.is_directory(key):
            return
        if await self.file_at(key):
            raise RefusedError("not_a_directory")
        raise await self.nothing(key)

    async def nothing(self, key: str) -> RefusedError:
        """Return the refusal of a path where nothing was found: ``missing``, or ``not_a_directory`` on the way."""
        try:
            await self._need_no_file_above(key)
        except RefusedError as refusal:
            return refusal
        return RefusedError("missing")

    async def need_free(self, key: str) -> None:
        """Refuse a path that is a directory, or leads through a file; one request in the usual case.

        Raises:
            RefusedError: ``is_directory`` or ``not_a_directory``.

        """
        if not key:
            raise RefusedError("is_directory")
        here = below(key)
        # The first key of the parent that could lie below this one: it answers for both.
        first = _first(
            await self._port.list_page(below(parent_of(key)), start_after=key + "." + LAST, max_keys=1)
        )
        if first is None:
            await self._need_no_file_above(key)
        elif first.key.startswith(here) or (first.key < here and await self.is_directory(key)):
            raise RefusedError("is_directory")

    async def _need_no_file_above(self, key: str) -> None:
        """Refuse a path that leads through a file.

        Where something begins with a longer path, the shorter ones before it are directories: so only the longest
        one with which anything begins can be a file. It is found by halving.
        """
        paths = ancestors(key)
        low, high, nearest = 0, len(paths), None
        while low < high:
            middle = (low + high) // 2
            first = _first(await self._port.list_page(paths[middle], max_keys=1))
            if first is None:
                high = middle
            else:
                low, nearest = middle + 1, first
        if nearest is not None and nearest.key == paths[low - 1] and not await self.is_directory(nearest.key):
            raise RefusedError("not_a_directory")


def _like(name: str, there: Collection[str]) -> list[str]:
    """Return a name if it is there, otherwise those that may be taken for it."""
    same = same_name(name)
    return [name] if name in there else sorted(other for other in there if same_name(other) == same)


def _first(page: KeyPage) -> ObjectInfo | None:
    return page.objects[0] if page.objects else None
