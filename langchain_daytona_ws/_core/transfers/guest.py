"""Transfers through the sandbox.

Downloads: the guest, this package's program in the sandbox, lists the files. Large files are downloaded one by one from
Daytona's daemon. Small files are joined: the guest writes many of them to one file (a pack), which is downloaded.

Uploads: the daemon writes the files of one request to the sandbox's own disk. A second request, to the guest, renames
them to their final names, or copies them to a mount.

Content of at most `INLINE_BYTES` is inside the guest's answer or request instead.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from langchain_daytona_ws._core.answer import MAX_PATH, Answer, Reply
from langchain_daytona_ws._core.files.errors import file_error
from langchain_daytona_ws._core.files.guest import FileReply, GuestFiles, unless_refused, written
from langchain_daytona_ws._core.files.received import Received, TooLongError
from langchain_daytona_ws._core.transfers.models import (
    MAX_FILES,
    FoundFile,
    Incoming,
    Outgoing,
    Progress,
    ProgressMeter,
    Sink,
    SkippedEntry,
    SkipReason,
    Survey,
    TransferredFile,
    content_of,
    too_many_files,
)
from langchain_daytona_ws.errors import SandboxError, WriteConflict

T = TypeVar("T")

INLINE_BYTES = 256 << 10  # maximum content inside a request or an answer
INLINE_ROWS = 2000  # maximum number of files whose listing is inside an answer
LISTING_BYTES = 256 << 20  # maximum size of a listing: 1.3 KB for each of `MAX_FILES` files
PACKED_FILE_BYTES = 256 << 10  # a larger file is downloaded by itself
PACK_BYTES = 8 << 20  # maximum size of a pack of several files; the host keeps a pack in memory
PACK_FILES = 500  # maximum number of files in a pack
GROUP_BYTES = 64 << 20  # maximum size of one upload request with several files
GROUP_FILES = 250  # maximum number of files in one upload request
TRIES = 3  # maximum number of downloads of a large file that changes during the download
CALL_S = 60.0
ANSWER_S = 30.0  # time for the answer, after the guest's own limit of CALL_S
COPIED_BYTES_A_SECOND = 1 << 20  # assumed speed of a slow mount
LONGEST_CALL_S = 3600.0

_SKIPPED: dict[str, SkipReason] = {
    "missing": "gone",
    "gone": "gone",
    "unreadable": "unreadable",
    "outside": "link",
    "loop": "link",
    "is_directory": "gone",
    "not_a_directory": "gone",
    "not_regular": "special",
}
_SURVEYED: tuple[SkipReason, ...] = ("link", "special", "unreadable", "gone")


class GuestTransfers:
    """The `TransferBackend` of a sandbox.

    Args:
        new_key: Returns a random idempotency key.
        offload: Runs work that would block the event loop, such as reading a local file.
    """

    def __init__(
        self,
        files: GuestFiles,
        *,
        new_key: Callable[[], str],
        offload: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._files = files
        self._new_key = new_key
        self._offload = offload

    # --- download ---

    async def survey(self, path: str) -> Survey:
        reply = await self._files.call(
            "transfer",
            "survey",
            path,
            call_s=CALL_S + ANSWER_S,
            within_s=CALL_S,
            inline_bytes=INLINE_BYTES,
            inline_rows=INLINE_ROWS,
        )
        real_path, kind = reply.raw("path"), reply.raw("kind", 8)
        if kind not in ("file", "dir"):
            raise reply.malformed("kind")
        if kind == "file":
            content = reply.content("content", INLINE_BYTES) if "content" in reply else None
            size = reply.number("bytes") if content is None else len(content)
            file = FoundFile("", size, reply.flag("executable"))
            return Survey(real_path, False, (file,), content=content)
        if "found" in reply:
            return _Listing("survey", reply.part("found")).survey(real_path)
        name, data = await self._joined(reply, "found_from", LISTING_BYTES)
        await self._drop(name)
        try:
            listing = await self._offload(lambda: json.loads(data))
        except (ValueError, RecursionError):
            raise reply.malformed("found_from") from None
        return _Listing("survey", listing).survey(real_path)

    async def receive(
        self, found: Survey, files: Sequence[FoundFile], into: Incoming, progress: Progress
    ) -> None:
        if found.content is not None:
            await self._store(files[0], memoryview(found.content), into, files[0].is_executable)
            progress.add(found.path_of(files[0]), len(found.content))
            return
        small = [file for file in files if _is_packed(file)]
        for file in files:
            if not _is_packed(file):
                await self._receive_large(found, file, into, progress)
        await self._receive_packed(found, small, into, progress)

    async def _receive_large(
        self, found: Survey, file: FoundFile, into: Incoming, progress: Progress
    ) -> None:
        path = found.path_of(file)
        absolute = self._files.absolute(path)
        meter = progress.meter([(path, file.size_bytes)])

        async def fill(sink: Sink) -> None:
            sizes = [file.size_bytes]
            for _ in range(TRIES):
                client = await self._files.client()
                try:
                    if await client.download(absolute, sink, meter):
                        return
                except TooLongError:  # the file grows fast
                    continue
                sizes.append(sink.size_bytes)
            if len(sizes) > TRIES and sizes == sorted(sizes) and sizes[-1] > sizes[0]:
                return  # the file grew in each attempt, as a log does: accept the last download
            raise WriteConflict(
                f"{path} changed while it was read. Try again.", code="busy", op="download", retryable=True
            )

        try:
            # The file may have grown since it was listed: allow for that.
            await into.store(file, fill, max_bytes=2 * file.size_bytes + PACK_BYTES)
        except SandboxError as error:
            if error.code != "daytona_not_found":  # this code is about the file: the sandbox exists
                raise
            if not found.is_directory:
                raise file_error(path, "download", "missing", {}) from None
            into.skip(file.name, "gone")

    async def _receive_packed(
        self, found: Survey, files: Sequence[FoundFile], into: Incoming, progress: Progress
    ) -> None:
        kept: list[str] = []
        waiting = list(files)
        while waiting:
            group = _first_group(waiting)
            max_bytes = max(PACK_BYTES, group[0].size_bytes)
            reply = await self._files.call(
                "transfer",
                "pack",
                found.path,
                call_s=CALL_S + ANSWER_S,
                within_s=CALL_S,
                names=[file.name for file in group],
                drop=kept,
                inline_bytes=INLINE_BYTES,
                max_bytes=max_bytes,
            )
            packed = _Packed("pack", {"files": reply.part("files")}).files(len(group))
            if sum(size for size, _ in packed if isinstance(size, int)) != reply.number("bytes"):
                raise reply.malformed("bytes")
            later = [file for file, (size, _) in zip(group, packed, strict=True) if size == "later"]
            meter = progress.meter([(found.path_of(file), file.size_bytes) for file in group])
            if "content" in reply:
                kept, data = [], reply.content("content", INLINE_BYTES)
                if len(data) != reply.number("bytes"):
                    raise reply.malformed("content")
                meter.add(len(data))
            else:
                name, data = await self._joined(reply, "content_from", max_bytes, meter)
                kept = [name]
            await self._split(memoryview(data), group, packed, into)
            waiting = [*later, *waiting[len(group) :]]
            if len(later) == len(group):  # the first file has grown over the limit
                grown = replace(waiting.pop(0), size_bytes=max_bytes)
                if _has_text_name(grown):
                    await self._receive_large(found, grown, into, progress)
                else:
                    into.skip(grown.name, "unreadable")  # only a pack can contain such a file
        if kept:
            await self._drop(*kept)

    async def _split(
        self,
        data: memoryview,
        group: Sequence[FoundFile],
        packed: Sequence[tuple[int | str, bool]],
        into: Incoming,
    ) -> None:
        """Store the files of a pack on the host. Record files that the guest could not read as skipped."""
        start = 0
        for file, (size, is_executable) in zip(group, packed, strict=True):
            if isinstance(size, int):
                await self._store(file, data[start : start + size], into, is_executable)
                start += size
            elif size != "later":
                into.skip(file.name, _SKIPPED.get(size, "unreadable"))

    async def _store(
        self, file: FoundFile, content: memoryview, into: Incoming, is_executable: bool | None
    ) -> None:
        async def fill(sink: Sink) -> bool | None:
            await self._offload(lambda: sink.write(bytes(content)))
            return is_executable

        await into.store(file, fill, max_bytes=len(content))

    async def _joined(
        self, reply: FileReply, field: str, max_bytes: int, meter: ProgressMeter | None = None
    ) -> tuple[str, bytes]:
        """Download a listing or a pack that is too long for the guest's answer; return the file's name and content.

        The answer has the file's name in ``field``, its directory in ``at``, and its size in ``bytes``.
        """
        name, directory, size = reply.raw(field, 64), reply.raw("at", 128), reply.number("bytes")
        if "/" in name or size > max_bytes:
            raise reply.malformed(field)
        received = Received(size)
        client = await self._files.client()
        try:
            await client.download(f"{directory}/{name}", received, meter)
        except TooLongError:
            raise reply.malformed(field) from None
        if received.size != size:
            raise reply.malformed(field)
        return name, received.data

    async def _drop(self, *names: str) -> None:
        await self._files.call("transfer", "drop", ".", names=list(names))

    # --- upload ---

    async def send(self, files: Sequence[Outgoing], progress: Progress) -> Sequence[TransferredFile]:
        sent: list[TransferredFile] = []
        for group in _groups(files):
            sent += await self._send_group(group, progress)
        return sent

    async def _send_group(self, group: Sequence[Outgoing], progress: Progress) -> list[TransferredFile]:
        meter = progress.meter([(file.path, file.source.size_bytes) for file in group])
        total = sum(file.source.size_bytes for file in group)
        if total <= INLINE_BYTES:
            contents = await self._offload(lambda: [content_of(file.source) for file in group])
            fields: list[Answer] = [{"content": content} for content in contents]
            meter.add(total)
        else:
            client = await self._files.client()
            uploads = await client.upload(self._files.staging_dir, [file.source for file in group], meter)
            fields = [
                {"content_from": at, "content_sha256": sha256, "content_bytes": file.source.size_bytes}
                for file, (at, sha256) in zip(group, uploads, strict=True)
            ]
        requests = []
        for file, each in zip(group, fields, strict=True):
            mode = {"executable": True} if file.is_executable else {}
            requests.append(self._files.request("write", file.path, overwrite=True, **mode, **each))
        call_s = min(CALL_S + total / COPIED_BYTES_A_SECOND, LONGEST_CALL_S)
        replies = await self._files.batch("files", requests, key=self._new_key(), call_s=call_s)
        results = [
            written(unless_refused(file.path, reply)) for file, reply in zip(group, replies, strict=True)
        ]
        return [
            TransferredFile(file.path, result.size_bytes, result.sha256)
            for file, result in zip(group, results, strict=True)
        ]

    async def make_directories(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), PACK_FILES):
            part = paths[start : start + PACK_FILES]
            requests = [self._files.request("make", path) for path in part]
            replies = await self._files.batch("transfer", requests, key=self._new_key())
            for path, reply in zip(part, replies, strict=True):
                unless_refused(path, reply)


def _is_packed(file: FoundFile) -> bool:
    """Return True for a small file of a directory, and for any file whose name is not UTF-8."""
    return not _has_text_name(file) or (bool(file.name) and file.size_bytes <= PACKED_FILE_BYTES)


def _has_text_name(file: FoundFile) -> bool:
    try:
        file.name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_group(files: Sequence[FoundFile]) -> Sequence[FoundFile]:
    size = 0
    for count, file in enumerate(files[:PACK_FILES]):
        size += file.size_bytes
        if count and size > PACK_BYTES:
            return files[:count]
    return files[:PACK_FILES]


def _groups(files: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
    start = size = 0
    for count, file in enumerate(files):
        if count > start and (size + file.source.size_bytes > GROUP_BYTES or count - start == GROUP_FILES):
            yield files[start:count]
            start, size = count, 0
        size += file.source.size_bytes
    if start < len(files):
        yield files[start:]


class _Listing(Reply):
    """The guest's listing of a directory. Names may be forged; `LocalTarget` checks them."""

    def survey(self, path: str) -> Survey:
        if self.flag("cut"):
            raise too_many_files("download")
        files = tuple(self._file(row) for row in self._rows("files"))
        empty = tuple(self._raw(name, "empty", MAX_PATH) for name in self._rows("empty"))
        return Survey(path, True, files, empty, tuple(self._skipped(row) for row in self._rows("skipped")))

    def _rows(self, name: str) -> list[Any]:
        value = self._answer.get(name)
        if not isinstance(value, list) or len(value) > MAX_FILES:
            raise self.malformed(name)
        return value

    def _file(self, row: object) -> FoundFile:
        if not isinstance(row, list) or len(row) != 3 or not row[0]:
            raise self.malformed("files")
        name, size = self._raw(row[0], "files", MAX_PATH), self._number(row[1], "files")
        return FoundFile(name, size, self._flag(row[2], "files"))

    def _skipped(self, row: object) -> SkippedEntry:
        if not isinstance(row, list) or len(row) != 2:
            raise self.malformed("skipped")
        reason = next((reason for reason in _SURVEYED if reason == row[1]), None)
        if reason is None:
            raise self.malformed("skipped")
        return SkippedEntry(self._raw(row[0], "skipped", MAX_PATH), reason)


class _Packed(Reply):
    """The guest's results for the files of a pack.

    For each file: its size and whether it is executable, or ``later`` (not in this pack), or the code of a refusal.
    """

    def files(self, count: int) -> list[tuple[int | str, bool]]:
        value = self._answer.get("files")
        if not isinstance(value, list) or len(value) != count:
            raise self.malformed("files")
        return [self._file(row) for row in value]

    def _file(self, row: object) -> tuple[int | str, bool]:
        if isinstance(row, list) and len(row) == 1:
            return self._raw(row[0], "files", 64), False
        if not isinstance(row, list) or len(row) != 2:
            raise self.malformed("files")
        return self._number(row[0], "files"), self._flag(row[1], "files")
