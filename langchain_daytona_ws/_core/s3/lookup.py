"""Convert paths to keys, and find out by listings whether a path is a file, a directory or missing.

If credentials allow a listing of the prefix only, S3 answers 403, not 404, to HEAD and GET of a missing key. So
listings are used.

If the keys ``a`` and ``a/b`` exist, the path ``a`` is a directory, as in a mount. `load` and `receive` do not check
this: they read the object ``a``.

Python sorts strings by code point, and S3 lists keys by their UTF-8 bytes. Both orders are the same.
"""

from __future__ import annotations

from collections.abc import Collection

from langchain_daytona_ws._core.paths import NAME_BYTES
from langchain_daytona_ws._core.ports import OnBytes
from langchain_daytona_ws._core.s3.store import (
    KeyPage,
    ObjectInfo,
    ObjectSink,
    ObjectStorePort,
    StoredObject,
    StoreFault,
    StoreFaultKind,
)
from langchain_daytona_ws._guest.alike import name_key
from langchain_daytona_ws._guest.similar_paths import MAX_NAMES, MAX_SIMILAR, spellings
from langchain_daytona_ws._guest.walk import RefusedError

# Sorts after nearly every name: "~" is the last printable ASCII character, and a store might refuse other characters. A
# name that sorts later costs one more request.
LAST = "~~~"


class Lookup:
    """Finds the files and directories of a bucket."""

    def __init__(self, port: ObjectStorePort) -> None:
        self.port = port

    async def load(self, path: str, *, max_bytes: int) -> StoredObject:
        """Read a file, in one request if the file exists.

        Raises:
            RefusedError: ``missing``, ``is_directory``, ``not_a_directory``, or a code of `key_of`.
            StoreFault: The file exists but cannot be read, or S3 failed.
        """
        found = await self.load_unless_free(key_of(path), max_bytes=max_bytes)
        if found is None:
            raise RefusedError("missing")
        return found

    async def load_unless_free(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """Read a file as `load` does, but by its key; return None if the path is free for a new file."""
        _require_name(key)
        try:
            return await self.port.get(key, max_bytes=max_bytes)
        except StoreFault as fault:
            await self._require_missing(key, fault)
            return None

    async def receive(self, key: str, sink: ObjectSink, on_bytes: OnBytes) -> StoredObject:
        """Pass a file's content to ``sink``. Raise the errors of ``sink``, and those of `load` for a valid path."""
        _require_name(key)
        try:
            return await self.port.receive(key, sink, check=lambda stored: None, on_bytes=on_bytes)
        except StoreFault as fault:
            await self._require_missing(key, fault)
            raise RefusedError("missing") from None

    async def _require_missing(self, key: str, fault: StoreFault) -> None:
        """After a failed read: return if ``key`` is free for a new file; otherwise raise the reason of the failure."""
        if fault.kind not in (StoreFaultKind.MISSING, StoreFaultKind.DENIED):
            raise fault
        if fault.kind is StoreFaultKind.DENIED and await self.file_at(key):
            raise fault
        await self.require_free(key)

    async def file_at(self, key: str) -> ObjectInfo | None:
        """Return the object with exactly this key. S3 lists it before all longer keys that begin with it."""
        first = _first(await self.port.list_page(key, max_keys=1))
        return first if first is not None and first.key == key else None

    async def is_directory(self, key: str) -> bool:
        return not key or _first(await self.port.list_page(below(key), max_keys=1)) is not None

    async def exists(self, key: str) -> bool:
        return await self.is_directory(key) or await self.file_at(key) is not None

    async def similar(self, key: str) -> list[str]:
        """Return existing paths that are similar to a missing path, as ``_guest.similar_paths`` does."""
        found: list[str] = []
        for spelling in spellings(key):
            above, names = [""], spelling.split("/")
            here = below(parent_of(spelling))
            if names_here := await self._names(here):  # usually only the last name is wrong
                above, names = [here], names[-1:]
            for name in names:
                above = [
                    f"{prefix}{other}/"
                    for prefix in above
                    for other in _similar(name, names_here if prefix == here else await self._names(prefix))
                ][:MAX_SIMILAR]
            found += [path[:-1] for path in above if path[:-1] not in (key, *found)]
        return found[:MAX_SIMILAR]

    async def _names(self, above: str) -> set[str]:
        """Return the valid names in a directory; list about `MAX_NAMES` names at most."""
        names_here, more = set[str](), None
        while len(names_here) < MAX_NAMES:
            page = await self.port.list_page(above, delimiter=True, more=more)
            names_here.update(path[len(above) : -1] for path in page.prefixes)
            names_here.update(info.key[len(above) :] for info in page.objects)
            more = page.more
            if more is None:
                break
        return {name for name in names_here if not is_invalid(name)}

    async def require_directory(self, key: str) -> None:
        """Refuse a path that is missing or not a directory."""
        if await self.is_directory(key):
            return
        if await self.file_at(key):
            raise RefusedError("not_a_directory")
        raise await self.not_found(key)

    async def not_found(self, key: str) -> RefusedError:
        """Return the refusal of a missing path: ``missing``, or ``not_a_directory`` if it leads through a file."""
        try:
            await self._require_no_file_above(key)
        except RefusedError as refusal:
            return refusal
        return RefusedError("missing")

    async def require_free(self, key: str) -> None:
        """Refuse a path that is a directory or leads through a file. This usually takes one request."""
        _require_name(key)
        here = below(key)
        # List the first key of the parent directory from ``key/`` on ("." sorts directly before "/"). If a key is
        # listed, the parent exists. If the listed key begins with ``key/``, the path is a directory.
        first = _first(
            await self.port.list_page(below(parent_of(key)), start_after=key + "." + LAST, max_keys=1)
        )
        if first is None:
            await self._require_no_file_above(key)
        elif first.key.startswith(here) or (first.key < here and await self.is_directory(key)):
            raise RefusedError("is_directory")

    async def _require_no_file_above(self, key: str) -> None:
        if await self.file_above(key) is not None:
            raise RefusedError("not_a_directory")

    async def file_above(self, key: str) -> ObjectInfo | None:
        """Return the file among the ancestors of a key; None if all ancestors are directories or missing.

        Of the ancestors with which a stored key begins, all but the longest are directories. The longest, which may be
        a file, is found by binary search.
        """
        paths = ancestors(key)
        low, high, nearest = 0, len(paths), None
        while low < high:
            middle = (low + high) // 2
            first = _first(await self.port.list_page(paths[middle], max_keys=1))
            if first is None:
                high = middle
            else:
                low, nearest = middle + 1, first
        is_file = nearest is not None and nearest.key == paths[low - 1]
        return nearest if is_file and nearest and not await self.is_directory(nearest.key) else None


def _require_name(key: str) -> None:
    if not key:  # the workspace directory
        raise RefusedError("is_directory")


def _similar(name: str, names_here: Collection[str]) -> list[str]:
    """Return only ``name`` if it exists, otherwise the similar names."""
    same = name_key(name)
    return [name] if name in names_here else sorted(other for other in names_here if name_key(other) == same)


def _first(page: KeyPage) -> ObjectInfo | None:
    return page.objects[0] if page.objects else None


def key_of(path: str) -> str:
    """Check a requested path and return its key, ``""`` for the root.

    Raises:
        RefusedError: ``bad_path`` or ``outside``.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/"):
        raise RefusedError("bad_path")
    if ".." in parts:
        raise RefusedError("outside")
    if any(is_invalid(part) for part in parts):
        raise RefusedError("bad_path")
    return "/".join(parts)


def below(key: str) -> str:
    """Return the prefix of the keys in the directory ``key``."""
    return key + "/" if key else ""


def parent_of(key: str) -> str:
    return key.rpartition("/")[0]


def ancestors(key: str) -> list[str]:
    """Return the directories above a key, outermost first, without the root."""
    parts = key.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def is_invalid(part: str) -> bool:
    """Return True if a part of a key cannot be a file name. Mounts and this package hide keys with such parts."""
    if part in ("", ".", "..") or "\0" in part:
        return True
    try:
        return len(part.encode()) > NAME_BYTES
    except UnicodeEncodeError:
        return True
