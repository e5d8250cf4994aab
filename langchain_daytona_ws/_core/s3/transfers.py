"""Transfers straight between the host and S3, without a sandbox: several files at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from langchain_daytona_ws._core.ports import Meter
from langchain_daytona_ws._core.s3.lookup import is_invalid
from langchain_daytona_ws._core.s3.store import ObjectSink, ObjectStorePort
from langchain_daytona_ws._core.transfers.models import (
    FoundFile,
    Incoming,
    Outgoing,
    Progress,
    Sink,
    SkippedEntry,
    Survey,
    TransferredFile,
)
from langchain_daytona_ws.errors import FileMissing, FileUnsuitable, PathRefused

GROUP = 64  # maximum number of transfers in one call of `gather`, which runs only some of them at a time
NO_LIMIT = 1 << 62  # no limit is needed: the adapter stops at the length that S3 announces


class Objects(Protocol):
    """The workspace's files on S3; see `S3Files` and `SyncedFiles`."""

    async def survey(self, path: str) -> Survey: ...

    async def receive(self, path: str, sink: ObjectSink, meter: Meter) -> bool: ...

    async def send(self, file: Outgoing, meter: Meter, *, key: str) -> TransferredFile: ...

    async def make_directory(self, path: str) -> None: ...


class S3Transfers:
    """The `TransferBackend` of a workspace on S3. ``new_key`` returns the idempotency key of a change."""

    def __init__(self, files: Objects, port: ObjectStorePort, *, new_key: Callable[[], str]) -> None:
        self._files = files
        self._port = port
        self._new_key = new_key

    async def survey(self, path: str) -> Survey:
        return await self._files.survey(path)

    async def receive(
        self, found: Survey, files: Sequence[FoundFile], into: Incoming, progress: Progress
    ) -> None:
        for start in range(0, len(files), GROUP):
            part = files[start : start + GROUP]
            await self._port.gather([partial(self._receive, found, file, into, progress) for file in part])

    async def _receive(self, found: Survey, file: FoundFile, into: Incoming, progress: Progress) -> None:
        path = found.path_of(file)
        meter = progress.meter([(path, file.size_bytes)])

        async def fill(sink: Sink) -> bool:
            return await self._files.receive(path, sink, meter)

        try:
            await into.store(file, fill, max_bytes=NO_LIMIT)
        except FileMissing:
            if not file.name:
                raise
            into.skip(file.name, "gone")
        except (FileUnsuitable, PathRefused):  # such as a symlink to a directory
            if not file.name:
                raise
            into.skip(file.name, "link")

    async def send(
        self, files: Sequence[Outgoing], progress: Progress
    ) -> Sequence[TransferredFile | SkippedEntry]:
        sent: list[TransferredFile | SkippedEntry] = []
        for start in range(0, len(files), GROUP):
            part = files[start : start + GROUP]
            sent += await self._port.gather([partial(self._send, file, progress) for file in part])
        return sent

    async def _send(self, file: Outgoing, progress: Progress) -> TransferredFile | SkippedEntry:
        if any(is_invalid(part) for part in file.path.split("/")):
            return SkippedEntry(file.path, "name")
        meter = progress.meter([(file.path, file.source.size_bytes)])
        try:
            return await self._files.send(file, meter, key=self._new_key())
        except FileUnsuitable as error:
            if error.code != "sandbox_only":
                raise
            return SkippedEntry(file.path, "ignored")

    async def make_directories(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), GROUP):
            part = [path for path in paths[start : start + GROUP] if not is_invalid(path.rpartition("/")[2])]
            await self._port.gather([partial(self._make_directory, path) for path in part])

    async def _make_directory(self, path: str) -> None:
        try:
            await self._files.make_directory(path)
        except FileUnsuitable as error:
            if error.code != "sandbox_only":
                raise
