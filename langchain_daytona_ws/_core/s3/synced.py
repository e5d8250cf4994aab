"""File operations on the objects of a synchronised workspace: file attributes, symlinks and ignored paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from langchain_daytona_ws._core.files import models
from langchain_daytona_ws._core.files.errors import REFUSALS, file_error
from langchain_daytona_ws._core.ports import Meter, OnBytes, UploadSource
from langchain_daytona_ws._core.s3.errors import store_error
from langchain_daytona_ws._core.s3.files import S3Files
from langchain_daytona_ws._core.s3.lookup import Lookup, ancestors, below, key_of, parent_of
from langchain_daytona_ws._core.s3.metadata import (
    NEW_DIRECTORY,
    PERMISSIONS,
    executable,
    is_symlink,
    stamped,
)
from langchain_daytona_ws._core.s3.store import (
    KeyPage,
    ObjectInfo,
    ObjectSink,
    ObjectStorePort,
    PageRequest,
    StoredObject,
    StoreFault,
    StoreFaultKind,
    SymlinkFound,
)
from langchain_daytona_ws._core.transfers.models import Outgoing, Survey, TransferredFile
from langchain_daytona_ws._guest.ignore import Ignore
from langchain_daytona_ws._guest.walk import MAX_LINKS, RefusedError
from langchain_daytona_ws.errors import WorkspaceError

T = TypeVar("T")

PATH_BYTES = 4095  # Linux: PATH_MAX without its NUL byte
_DIRECTORY_OPS = ("list", "glob", "grep", "make")


class SyncedObjects:
    """The bucket of a synchronised workspace: writes set file attributes, and reading a symlink raises `SymlinkFound`.

    ``ignore`` matches the paths that are not synchronised. Listings and searches omit the objects at these paths.
    """

    def __init__(self, port: ObjectStorePort, ignore: Ignore, now_s: Callable[[], float]) -> None:
        self._port = port
        self._ignore = ignore
        self._now_s = now_s

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: bool = False,
        max_keys: int = 1000,
        start_after: str = "",
        more: str | None = None,
    ) -> KeyPage:
        page = await self._port.list_page(
            prefix, delimiter=delimiter, max_keys=max_keys, start_after=start_after, more=more
        )
        if max_keys == 1:  # the caller asks whether any key, ignored or not, has this prefix
            return page
        return self._without_ignored(page)

    async def list_pages(self, requests: Sequence[PageRequest]) -> Sequence[KeyPage | StoreFault]:
        pages = await self._port.list_pages(requests)
        return [self._without_ignored(page) if isinstance(page, KeyPage) else page for page in pages]

    def _without_ignored(self, page: KeyPage) -> KeyPage:
        objects = tuple(info for info in page.objects if not self._is_ignored(info.key))
        prefixes = tuple(name for name in page.prefixes if not self._is_ignored(name))
        is_filtered = (objects, prefixes) != (page.objects, page.prefixes)
        return KeyPage(objects, prefixes, page.more, is_filtered)

    async def get(self, key: str, *, max_bytes: int) -> StoredObject:
        stored = await self._port.get(key, max_bytes=max_bytes)
        if not is_symlink(stored.metadata):
            return stored
        if stored.data is None and stored.info.size_bytes <= PATH_BYTES:
            stored = await self._port.get(key, max_bytes=PATH_BYTES)
        raise SymlinkFound(key, _target(stored))

    async def get_many(
        self, keys: Sequence[str], *, max_bytes: int, within_s: float
    ) -> Sequence[StoredObject | StoreFault | None]:
        """Read several objects; symlinks are reported as missing, since a search does not follow them."""
        got = await self._port.get_many(keys, max_bytes=max_bytes, within_s=within_s)
        return [
            StoreFault(StoreFaultKind.MISSING, "a symlink")
            if isinstance(item, StoredObject) and is_symlink(item.metadata)
            else item
            for item in got
        ]

    async def put(
        self, key: str, data: bytes, *, if_match: str | None, metadata: Mapping[str, str]
    ) -> ObjectInfo:
        if key.endswith("/"):  # the marker of an empty directory
            metadata = {**metadata, PERMISSIONS: NEW_DIRECTORY}
        return await self._port.put(key, data, if_match=if_match, metadata=stamped(metadata, self._now_s()))

    async def receive(
        self,
        key: str,
        sink: ObjectSink,
        *,
        check: Callable[[StoredObject], None],
        on_bytes: OnBytes | None = None,
    ) -> StoredObject:
        """Receive a file. If the object is a symlink, raise `SymlinkFound` before any content is received."""

        def check_kind(stored: StoredObject) -> None:
            if is_symlink(stored.metadata):
                raise SymlinkFound(key, "")
            check(stored)

        try:
            return await self._port.receive(key, sink, check=check_kind, on_bytes=on_bytes)
        except SymlinkFound:
            await self.get(key, max_bytes=PATH_BYTES)  # raises SymlinkFound with the target
            raise StoreFault(StoreFaultKind.CHANGED, "the object was a symlink, and has changed") from None

    async def send(
        self,
        key: str,
        source: UploadSource,
        *,
        if_match: str | None,
        metadata: Mapping[str, str],
        is_executable: bool = False,
        on_bytes: OnBytes | None = None,
    ) -> str:
        stamped_now = stamped(metadata, self._now_s())
        return await self._port.send(
            key,
            source,
            if_match=if_match,
            metadata=executable(stamped_now) if is_executable else stamped_now,
            on_bytes=on_bytes,
        )

    async def gather(self, works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        return await self._port.gather(works)

    async def delete(self, key: str) -> None:
        await self._port.delete(key)

    async def offload(self, work: Callable[[], T]) -> T:
        return await self._port.offload(work)

    async def sleep(self, seconds: float) -> None:
        await self._port.sleep(seconds)

    def now(self) -> float:
        return self._port.now()

    def _is_ignored(self, key: str) -> bool:
        return self._ignore.covers(key.rstrip("/"), is_dir=key.endswith("/"))


class SyncedFiles:
    """The `FileBackend` of a synchronised workspace.

    Except `similar` and `exists`, its methods follow symlinks in the workspace, and refuse ignored paths.

    Args:
        files: Operations on the same objects; they raise `SymlinkFound` for a symlink.
        port: The objects.
        ignore: Matches the paths that are not synchronised.
        root: The workspace directory in the sandbox. An absolute target of a symlink must begin with it.
        where: Bucket and prefix for errors; never shown to the model.
    """

    def __init__(self, files: S3Files, port: SyncedObjects, ignore: Ignore, *, root: str, where: str) -> None:
        self._files = files
        self._port = port
        self._lookup = Lookup(port)
        self._ignore = ignore
        self._root = root
        self._where = where

    async def read(
        self, path: str, *, offset: int, limit: int, limit_bytes: int, max_bytes: int
    ) -> models.FileText:
        def read(at: str) -> Awaitable[models.FileText]:
            return self._files.read(
                at, offset=offset, limit=limit, limit_bytes=limit_bytes, max_bytes=max_bytes
            )

        return await self._follow("read", path, read)

    async def view(self, path: str, query: models.ViewQuery) -> models.FileView:
        return await self._follow("view", path, lambda at: self._files.view(at, query))

    async def fetch(self, path: str, *, max_bytes: int) -> models.FileContent:
        return await self._follow("fetch", path, lambda at: self._files.fetch(at, max_bytes=max_bytes))

    async def survey(self, path: str) -> Survey:
        return await self._follow("survey", path, self._files.survey)

    async def receive(self, path: str, sink: ObjectSink, meter: Meter) -> bool:
        return await self._follow("download", path, lambda at: self._files.receive(at, sink, meter))

    async def send(self, file: Outgoing, meter: Meter, *, key: str) -> TransferredFile:
        def send(at: str) -> Awaitable[TransferredFile]:
            return self._files.send(replace(file, path=at), meter, key=key)

        return replace(await self._follow("upload", file.path, send), path=file.path)

    async def make_directory(self, path: str) -> None:
        await self._follow("make", path, self._files.make_directory)

    async def write(self, path: str, query: models.WriteQuery, *, key: str) -> models.FileWritten:
        return await self._follow("write", path, lambda at: self._files.write(at, query, key=key))

    async def edit(self, path: str, query: models.EditQuery, *, key: str) -> models.FileEdited:
        return await self._follow("edit", path, lambda at: self._files.edit(at, query, key=key))

    async def delete(self, path: str, *, key: str) -> models.FileDeleted:
        """Delete a file, a symlink (not its target), or the object that marks an empty directory."""
        deleted = await self._follow("delete", path, lambda at: self._files.delete(at, key=key))
        return replace(deleted, path=path)

    async def list(self, path: str, *, limit: int, limit_bytes: int) -> models.Listing:
        """List a directory; a symlink is listed as a file, since listings of S3 have no metadata."""
        return await self._follow(
            "list", path, lambda at: self._files.list(at, limit=limit, limit_bytes=limit_bytes)
        )

    async def glob(
        self, path: str, query: models.GlobQuery
    ) -> tuple[models.GlobResult, models.GlobReading | None]:
        return await self._follow("glob", path, lambda at: self._files.glob(at, query))

    async def grep(
        self, path: str, query: models.GrepQuery
    ) -> tuple[models.GrepResult, models.GlobReading | None]:
        async def grep(at: str) -> tuple[models.GrepResult, models.GlobReading | None]:
            found = await self._files.grep(at, query)
            # A search omits symlinks: if ``at`` itself is a symlink, follow it.
            link = None if found[0].rows or at == "." else await self._link_at(at)
            if link is not None:
                raise link
            return found

        return await self._follow("grep", path, grep)

    async def similar(self, path: str) -> Sequence[str]:
        return await self._files.similar(path)

    async def exists(self, paths: Sequence[str]) -> Sequence[str]:
        return await self._files.exists(paths)

    async def _follow(self, op: str, path: str, work: Callable[[str], Awaitable[T]]) -> T:
        """Run an operation at the path that the symlinks of ``path`` lead to."""
        links = Links(self._port, self._lookup, self._root, follows_last=op != "delete")
        with self._errors(op, path):
            at = key_of(path)
            while True:
                self._require_synced(at, is_dir=op in _DIRECTORY_OPS)
                try:
                    return await work(at or ".")
                except SymlinkFound as found:
                    link = found
                except WorkspaceError as error:
                    explained = await self._causing_link(op, at, error)
                    if explained is None:
                        raise
                    link = explained
                at = await links.follow(at, link)

    @contextmanager
    def _errors(self, op: str, path: str) -> Iterator[None]:
        """Raise refusals and failures of S3 as errors of this package, about the requested path."""
        try:
            yield
        except RefusedError as refusal:
            raise file_error(path, op, refusal.error, refusal.facts) from None
        except StoreFault as fault:
            raise store_error(fault, op, self._where) from fault
        except WorkspaceError as error:
            if error.code not in REFUSALS or "path" not in error.context:
                raise
            # The fact ``on_s3`` concerns mounts only: a synchronised workspace stores empty directories too.
            facts = {name: value for name, value in error.context.items() if name != "on_s3"}
            raise file_error(path, op, error.code, facts) from None

    async def _causing_link(self, op: str, path: str, error: WorkspaceError) -> SymlinkFound | None:
        """Return the symlink that caused an error, or None. If a missing path is an ignored directory, refuse it."""
        if error.code == "missing":
            self._require_synced(path, is_dir=True)
        if error.code != "not_a_directory":
            return None
        nearest = await self._lookup.file_above(below(path) if op in _DIRECTORY_OPS else path)
        return None if nearest is None else await self._link_at(nearest.key)

    async def _link_at(self, key: str) -> SymlinkFound | None:
        try:
            await self._port.get(key, max_bytes=0)
        except SymlinkFound as link:
            return link
        except StoreFault as fault:
            if fault.kind not in (StoreFaultKind.MISSING, StoreFaultKind.DENIED):
                raise
        return None

    def _require_synced(self, path: str, *, is_dir: bool) -> None:
        if path and self._ignore.covers(path, is_dir):
            raise RefusedError("sandbox_only")


class Links:
    """Follows symlinks for one operation, at most as many as Linux follows.

    With ``follows_last``, a symlink at the end of the path is followed, too.
    """

    def __init__(self, port: SyncedObjects, lookup: Lookup, root: str, *, follows_last: bool) -> None:
        self._port = port
        self._lookup = lookup
        self._root = _parts(root)
        self._follows_last = follows_last
        self._count = 0
        # Remembered, so that a loop of symlinks causes no further requests.
        self._known: dict[str, SymlinkFound] = {}
        self._directories: set[str] = set()

    async def follow(self, path: str, link: SymlinkFound) -> str:
        """Replace a symlink in ``path`` (the last part or a directory) by its target; return the new path.

        Raises:
            RefusedError: ``outside``, ``loop``, ``missing``, ``not_a_directory`` or ``not_regular``.
            StoreFault: S3 failed.
        """
        self._count += 1
        if self._count > MAX_LINKS:
            raise RefusedError("loop")
        self._known[link.key] = link
        start, target = _parts(parent_of(link.key)), _parts(link.target)
        if link.target.startswith("/"):
            if target[: len(self._root)] != self._root:
                raise RefusedError("outside")
            start, target = [], target[len(self._root) :]
        path = await self._resolved(start, [*target, *_parts(path[len(link.key) :])])
        keys = [*ancestors(path), path] if self._follows_last else ancestors(path)
        known = next((self._known[key] for key in keys if key in self._known), None)
        return path if known is None else await self.follow(path, known)

    async def _resolved(self, real: list[str], parts: list[str]) -> str:
        """Join ``parts`` to ``real``. As in the kernel, ``link/..`` is the parent of the link's target."""
        known = len(real)  # number of parts of ``real`` that are directories
        for at, part in enumerate(parts):
            if part != "..":
                real.append(part)
                continue
            if not real:
                raise RefusedError("outside")
            if len(real) > known:
                try:
                    await self._require_directory("/".join(real))
                except SymlinkFound as link:
                    return await self.follow("/".join([*real, *parts[at:]]), link)
            real.pop()
            known = min(known, len(real))
        return "/".join(real)

    async def _require_directory(self, key: str) -> None:
        if key in self._directories:
            return
        if not await self._lookup.is_directory(key):
            file = await self._lookup.file_above(below(key))
            if file is not None:
                await self._port.get(file.key, max_bytes=0)
                raise RefusedError("not_a_directory")
            raise RefusedError("missing")
        self._directories.add(key)


def _target(stored: StoredObject) -> str:
    try:
        target = (stored.data or b"").decode() if stored.info.size_bytes <= PATH_BYTES else ""
    except UnicodeDecodeError:
        target = ""
    if not target or "\0" in target:
        raise RefusedError("not_regular", kind="a symlink without a usable target")
    return target


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
