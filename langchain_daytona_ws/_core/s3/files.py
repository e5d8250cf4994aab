"""File operations directly on S3 objects. The docstring of ``_guest.files`` contains their rules."""

from __future__ import annotations

import hashlib
import math
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from langchain_daytona_ws._core.files import models
from langchain_daytona_ws._core.files.errors import edit_error, file_error
from langchain_daytona_ws._core.ports import Meter
from langchain_daytona_ws._core.s3 import search, tree
from langchain_daytona_ws._core.s3.errors import LARGEST_PUT_BYTES, store_error, too_large
from langchain_daytona_ws._core.s3.listings import Listings
from langchain_daytona_ws._core.s3.lookup import Lookup, below, is_invalid, key_of
from langchain_daytona_ws._core.s3.metadata import (
    CREATED,
    EDITED,
    REPLACED,
    Mark,
    is_executable,
    mark_of,
)
from langchain_daytona_ws._core.s3.store import (
    ObjectSink,
    ObjectStorePort,
    StoredObject,
    StoreFault,
    StoreFaultKind,
)
from langchain_daytona_ws._core.s3.writer import ConditionalWriter, Conflict
from langchain_daytona_ws._core.transfers.models import Outgoing, Survey, TransferredFile
from langchain_daytona_ws._guest import edit as edits
from langchain_daytona_ws._guest import text
from langchain_daytona_ws._guest.content import window
from langchain_daytona_ws._guest.files import COUNTED_ENTRIES
from langchain_daytona_ws._guest.media import media_kind
from langchain_daytona_ws._guest.walk import RefusedError

T = TypeVar("T")
R = TypeVar("R", models.FileWritten, models.FileEdited, models.FileDeleted)
Answers = OrderedDict[str, models.FileWritten | models.FileEdited | models.FileDeleted]

REMEMBERED_CALLS = 500
RECEIVE_TRIES = 3
# After a conflict, an edit starts again with the new object. Each conflict means that another writer succeeded.
EDIT_TRIES = 40
EDIT_WITHIN_S = 45.0
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
WRITE_TRIES = 3
# Larger content is processed outside the event loop.
OFFLOAD_BYTES = 1 << 20
# Largest file whose content is loaded only to compare hashes.
LARGEST_COMPARED_BYTES = 256 << 20
# An empty file reaches S3 up to 60 ms after its close (mount-s3 1.24, measured).
S3_DELAY_S = 0.1


class S3Delay:
    """Waits until S3 has the files that the latest command wrote. The sync and the async runtime share one object."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._complete_at = -math.inf

    def command_ended(self) -> None:
        self._complete_at = self._now() + S3_DELAY_S

    async def wait(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        left_s = self._complete_at - self._now()
        if left_s > 0:
            await sleep(left_s)


class S3Files:
    """The `FileBackend` of a workspace on S3.

    Repeated calls with the same key apply a change once. ``answers`` has the latest results of this process. The
    metadata of an object records the latest 16 calls that wrote or edited it, also for other processes. A deletion
    leaves no record in S3.

    Args:
        port: The bucket, below the workspace's prefix.
        where: Bucket and prefix for errors; never shown to the model.
        answers: Key of a call → its result; several `S3Files` may share it.
        check_open: Called before each operation; may refuse the operation.
        s3_delay: Waits until S3 has the files of the latest command; None: do not wait.
    """

    def __init__(
        self,
        port: ObjectStorePort,
        *,
        where: str = "",
        answers: Answers | None = None,
        check_open: Callable[[], None] = lambda: None,
        s3_delay: S3Delay | None = None,
    ) -> None:
        self._port = port
        self._where = where
        # No lock: single operations of a dictionary are atomic in CPython.
        self._answers = Answers() if answers is None else answers
        self._check_open = check_open
        self._s3_delay = s3_delay or S3Delay(port.now)
        self._lookup = Lookup(port)
        self._writer = ConditionalWriter(port, self._lookup)

    async def read(
        self, path: str, *, offset: int, limit: int, limit_bytes: int, max_bytes: int
    ) -> models.FileText:
        async with self._operation("read", path):
            stored = await self._lookup.load(path, max_bytes=max_bytes)
            if kind := media_kind(stored.head if stored.data is None else stored.data):
                raise RefusedError("binary", bytes=stored.info.size_bytes, what=kind)
            data = _text(stored, max_bytes)
            page = await self._compute(
                len(data), lambda: text.page(data, offset, limit, limit_bytes, stored.newlines)
            )
            if not page.body and offset > 1:
                raise RefusedError("past_end", lines=page.lines)
        return models.FileText(
            path=stored.info.key,
            body=page.body,
            first=page.first,
            last=page.last,
            lines=page.lines,
            cut_lines=page.cut,
            lossy=page.lossy,
            newline=page.newline,
            bom=page.bom,
            size_bytes=len(data),
            mtime_ns=stored.info.modified_ns,
            sha256=stored.sha256,
        )

    async def view(self, path: str, query: models.ViewQuery) -> models.FileView:
        async with self._operation("view", path):
            max_bytes = query.binary_bytes if query.binary else query.max_bytes
            stored = await self._lookup.load(path, max_bytes=max_bytes)
            data = _content(stored, max_bytes)
            return await self._compute(
                len(data), lambda: _viewed(stored.info.key, data, stored.sha256, query)
            )

    async def fetch(self, path: str, *, max_bytes: int) -> models.FileContent:
        async with self._operation("fetch", path):
            stored = await self._lookup.load(path, max_bytes=max_bytes)
            return models.FileContent(stored.info.key, _content(stored, max_bytes), stored.sha256)

    async def survey(self, path: str) -> Survey:
        async with self._operation("download", path, of_directories=True):
            return await tree.survey(self._listing(), key_of(path))

    async def receive(self, path: str, sink: ObjectSink, meter: Meter) -> bool:
        """Pass a file's content to ``sink``; return whether the file is executable."""
        async with self._operation("download", path):
            key = key_of(path)
            for _ in range(RECEIVE_TRIES):
                try:
                    stored = await self._lookup.receive(key, sink, meter.add)
                except StoreFault as fault:
                    if fault.kind is not StoreFaultKind.CHANGED:
                        raise
                else:
                    return is_executable(stored.metadata)
            raise RefusedError("busy")

    async def send(self, file: Outgoing, meter: Meter, *, key: str) -> TransferredFile:
        """Upload a file. Refuse if another writer changes the object meanwhile."""
        async with self._operation("upload", file.path):
            at = key_of(file.path)
            old = await self._lookup.load_unless_free(at, max_bytes=0)
            sha256 = ""

            async def put(*, if_match: str | None, metadata: Mapping[str, str]) -> None:
                nonlocal sha256
                sha256 = await self._port.send(
                    at,
                    file.source,
                    if_match=if_match,
                    metadata=metadata,
                    is_executable=file.is_executable,
                    on_bytes=meter.add,
                )

            action = REPLACED if old else CREATED
            try:
                await self._writer.put_by(put, at, old, call_key=key, action=action)
            except Conflict:
                raise RefusedError("changed") from None
            return TransferredFile(file.path, file.source.size_bytes, sha256)

    async def make_directory(self, path: str) -> None:
        """If the directory does not exist, create the object that marks an empty directory."""
        async with self._operation("upload", path):
            at = key_of(path)
            if not await self._lookup.is_directory(at):
                await self._lookup.require_free(at)
                with suppress(Conflict):
                    await self._writer.put(below(at), b"", None, call_key=at, action=CREATED)

    async def write(self, path: str, query: models.WriteQuery, *, key: str) -> models.FileWritten:
        async with self._operation("write", path):
            at, recorded = key_of(path), self._recorded(key, models.FileWritten)
            if recorded is not None:
                return recorded
            if len(query.content) > LARGEST_PUT_BYTES:
                raise too_large(len(query.content))
            for _ in range(WRITE_TRIES):
                try:
                    return self._record(key, await self._write(at, query, key))
                except Conflict:
                    if query.overwrite:  # a retry would overwrite the change of the other writer
                        raise RefusedError("changed") from None
            raise RefusedError("busy")

    async def edit(self, path: str, query: models.EditQuery, *, key: str) -> models.FileEdited:
        async with self._operation("edit", path):
            recorded = self._recorded(key, models.FileEdited)
            if recorded is not None:
                return recorded
            until = self._port.now() + EDIT_WITHIN_S
            for turn in range(EDIT_TRIES):
                try:
                    return self._record(key, await self._edit(path, query, key))
                except Conflict:
                    if self._port.now() >= until:
                        break
                    longest = min(FIRST_PAUSE_S * 2.0 ** min(turn, 10), LONGEST_PAUSE_S)
                    await self._port.sleep(random.uniform(0, longest))  # noqa: S311 - spreads the retries of colliding writers
            raise RefusedError("changed")

    async def delete(self, path: str, *, key: str) -> models.FileDeleted:
        """Delete a file, or the object that marks an empty directory."""
        async with self._operation("delete", path):
            at, recorded = key_of(path), self._recorded(key, models.FileDeleted)
            if recorded is not None:
                return recorded
            if not at:
                raise RefusedError("is_root")
            prefix = below(at)
            page = await self._port.list_page(prefix, delimiter=True, max_keys=COUNTED_ENTRIES + 1)
            markers = [info for info in page.objects if info.key == prefix]
            within = [
                name[len(prefix) :].rstrip("/") for name in (*page.prefixes, *(o.key for o in page.objects))
            ]
            if count := len(within) - len(markers):
                visible = sum(not is_invalid(name) for name in set(within))
                raise RefusedError("not_empty", count=min(visible or count, COUNTED_ENTRIES))
            info = markers[0] if markers else await self._lookup.file_at(at)
            if info is None:
                raise await self._lookup.not_found(at)
            await self._writer.delete(info)
        return self._record(key, models.FileDeleted(path, "dir" if markers else "file"))

    async def list(self, path: str, *, limit: int, limit_bytes: int) -> models.Listing:
        async with self._operation("list", path, of_directories=True):
            return await tree.list_directory(
                self._listing(), key_of(path), limit=limit, limit_bytes=limit_bytes
            )

    async def glob(
        self, path: str, query: models.GlobQuery
    ) -> tuple[models.GlobResult, models.GlobReading | None]:
        async with self._operation("glob", path, of_directories=True):
            return await tree.glob(self._listing(), key_of(path), query)

    async def grep(
        self, path: str, query: models.GrepQuery
    ) -> tuple[models.GrepResult, models.GlobReading | None]:
        async with self._operation("grep", path, of_directories=True):
            return await search.grep(self._listing(), key_of(path), query)

    async def similar(self, path: str) -> Sequence[str]:
        async with self._operation("similar", path):
            return await self._listing().similar(key_of(path))

    async def exists(self, paths: Sequence[str]) -> Sequence[str]:
        async with self._operation("exists", "."):
            lookup = self._listing()
            return [path for path in paths if await lookup.exists(key_of(path))]

    # --- all operations ---

    @asynccontextmanager
    async def _operation(self, op: str, path: str, *, of_directories: bool = False) -> AsyncIterator[None]:
        """Wait for the latest command's files, run the block, and raise its failures as errors of this package."""
        self._check_open()
        await self._s3_delay.wait(self._port.sleep)
        try:
            yield
        except RefusedError as refusal:
            # If bash creates a directory in a mount, S3 lacks this directory until it contains a file (mount-s3).
            on_s3 = {"on_s3": True} if of_directories else {}
            raise file_error(path, op, refusal.error, {**refusal.facts, **on_s3}) from None
        except edits.EditError as error:
            raise edit_error(path, error) from None
        except StoreFault as fault:
            raise store_error(fault, op, self._where) from fault

    def _listing(self) -> Lookup:
        """Return a lookup that remembers listed pages. Use it for one operation that changes nothing."""
        return Lookup(Listings(self._port))

    def _recorded(self, key: str, kind: type[R]) -> R | None:
        recorded = self._answers.get(key)
        return replace(recorded, from_record=True) if isinstance(recorded, kind) else None

    def _record(self, key: str, result: R) -> R:
        self._answers[key] = result
        if len(self._answers) > REMEMBERED_CALLS:
            with suppress(KeyError):  # another thread has removed the last entry
                self._answers.popitem(last=False)
        return result

    # --- write ---

    async def _write(self, key: str, query: models.WriteQuery, call_key: str) -> models.FileWritten:
        data = query.content
        if not query.overwrite and query.expected_sha256 is None:
            # Usually the file is new, so existing content is read only after a conflict.
            await self._lookup.require_free(key)
            try:
                mark: Mark | None = await self._writer.put(key, data, None, call_key=call_key, action=CREATED)
            except Conflict:
                mark = await self._conflicting_mark(key, data, call_key)
            return await self._written(key, data, mark)
        is_read = query.expected_sha256 is not None or query.as_text
        old = await self._lookup.load_unless_free(
            key, max_bytes=max(len(data), query.max_bytes) if is_read else len(data)
        )
        if old is None:
            mark = await self._writer.put(key, data, None, call_key=call_key, action=CREATED)
            return await self._written(key, data, mark)
        mark = mark_of(old.metadata, call_key)
        if mark is not None:
            return await self._written(key, data, mark)
        before, kept, gone = old.data, list[str](), list[str]()
        if before is not None and query.as_text:
            kept, gone = await self._compute(len(before), partial(_styles, before, data))
        styled = edits.in_style(data, kept)
        if before is not None and before == styled:
            return await self._written(key, styled, None)
        if not query.overwrite:
            await self._require_unchanged(key, old, query.expected_sha256)
        action = REPLACED + "".join(name[0] for name in kept)
        mark = await self._writer.put(key, styled, old, call_key=call_key, action=action)
        return await self._written(key, data, mark, gone)

    async def _written(
        self, key: str, data: bytes, mark: Mark | None, gone: Sequence[str] = ()
    ) -> models.FileWritten:
        """Return the result of writing ``data``; ``mark`` is None if the file already had this content."""
        kept = mark.kept if mark else ()
        data = edits.in_style(data, kept)
        return models.FileWritten(
            path=key,
            created=mark is not None and mark.action == CREATED,
            unchanged=mark is None,
            size_bytes=len(data),
            sha256=await self._compute(len(data), lambda: hashlib.sha256(data).hexdigest()),
            kept=kept,
            gone=tuple(gone),
        )

    async def _require_unchanged(self, key: str, old: StoredObject, expected: str | None) -> None:
        size = old.info.size_bytes
        if old.data is None and size <= LARGEST_COMPARED_BYTES:
            again = await self._lookup.load(key, max_bytes=size)
            old = again if again.info.etag == old.info.etag else old
        if old.data is None or old.sha256 != expected:
            raise RefusedError("changed", bytes=size)

    async def _conflicting_mark(self, key: str, data: bytes, call_key: str) -> Mark | None:
        """Read the file that exists unexpectedly. Return the mark of this call, or None for a file with equal content.

        Raises:
            Conflict: The file was deleted meanwhile.
            RefusedError: The file has another content, or the path cannot be a file.
        """
        current = await self._lookup.load_unless_free(key, max_bytes=len(data))
        if current is None:
            raise Conflict
        mark = mark_of(current.metadata, call_key)
        if mark is None and current.data != data:
            raise RefusedError("exists_unread", bytes=current.info.size_bytes)
        return mark

    # --- edit ---

    async def _edit(self, path: str, query: models.EditQuery, call_key: str) -> models.FileEdited:
        old = await self._lookup.load(path, max_bytes=query.max_bytes)
        mark = mark_of(old.metadata, call_key)
        if mark is not None:
            return _edited_before(old, mark)
        # Even in a small file, the comparison of similar texts may take two seconds.
        data, result = await self._port.offload(partial(_edited, old, query))
        mark = await self._writer.put(
            old.info.key, data, old, call_key=call_key, action=f"{EDITED}{result.count}"
        )
        return replace(result, count=mark.count)

    async def _compute(self, size: int, work: Callable[[], T]) -> T:
        """Run CPU-bound work on ``size`` bytes; if they are many, run it outside the event loop."""
        return await self._port.offload(work) if size > OFFLOAD_BYTES else work()


def _edited(old: StoredObject, query: models.EditQuery) -> tuple[bytes, models.FileEdited]:
    data = _text(old, query.max_bytes)
    edited = edits.apply_edit(
        data, query.old, query.new, query.replace_all, query.max_bytes, exact=query.exact
    )
    return edited.data, models.FileEdited(
        path=old.info.key,
        count=len(edited.ranges),
        lines=tuple(edited.lines[: edits.SHOWN_RANGES]),
        snippet=edits.snippet(edited),
        size_bytes=len(edited.data),
        sha256=hashlib.sha256(edited.data).hexdigest(),
        differences=tuple(models.Difference(*row) for row in edited.differences),
        mixed=edited.mixed,
        verbatim=edited.verbatim,
        before_sha256=old.sha256,
    )


def _edited_before(now: StoredObject, mark: Mark) -> models.FileEdited:
    """Return the result, without positions, of an edit that an earlier attempt of this call made."""
    if now.data is None:  # another program has made the file too large to edit
        raise RefusedError("changed")
    return models.FileEdited(
        now.info.key, mark.count, (), "", now.info.size_bytes, now.sha256, before_sha256=now.sha256
    )


def _viewed(key: str, data: bytes, sha256: str, query: models.ViewQuery) -> models.FileView:
    if query.binary or text.binary_kind(data):
        if len(data) > query.binary_bytes:
            raise RefusedError("too_large", bytes=len(data), max_bytes=query.binary_bytes)
        return models.FileView(key, sha256, content=data)
    found = window(data, query.offset, query.limit, query.limit_bytes)
    return models.FileView(
        key, sha256, found.body, found.first, found.last, found.lines, found.cut, found.more
    )


def _content(stored: StoredObject, max_bytes: int) -> bytes:
    if stored.data is None:
        raise RefusedError("too_large", bytes=stored.info.size_bytes, max_bytes=max_bytes)
    return stored.data


def _text(stored: StoredObject, max_bytes: int) -> bytes:
    data = _content(stored, max_bytes)
    kind = text.binary_kind(data)
    if kind:
        raise RefusedError("binary", bytes=len(data), what=media_kind(data) or kind)
    return data


def _styles(old: bytes, new: bytes) -> tuple[list[str], list[str]]:
    """Return the styles (line ends, byte order mark) of the old text to keep, and the styles that are lost."""
    kept = edits.style_to_keep(old, new)
    return kept, edits.style_gone(old, edits.in_style(new, kept))
