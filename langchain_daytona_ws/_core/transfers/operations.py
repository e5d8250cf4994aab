"""Upload and download files and directories. The code is the same for all backends."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from langchain_daytona_ws._core.files.errors import file_error
from langchain_daytona_ws._core.files.received import TooLongError
from langchain_daytona_ws._core.paths import shown, workspace_path
from langchain_daytona_ws._core.transfers.local import LocalSink, LocalTarget, NameRefused, scan
from langchain_daytona_ws._core.transfers.models import (
    FoundFile,
    NewLock,
    OnProgress,
    Outgoing,
    Progress,
    Sink,
    SkippedEntry,
    SkipReason,
    TransferBackend,
    Transferred,
    TransferredFile,
)
from langchain_daytona_ws.errors import FileError

T = TypeVar("T")


class Offload(Protocol):
    """Run blocking work and return its result: in another thread if there is an event loop."""

    def __call__(self, work: Callable[[], T], /) -> Coroutine[Any, Any, T]: ...


class TransferOperations:
    """The transfers of a session.

    Args:
        root: The workspace directory in the sandbox.
        offload: Runs blocking work on the host's files.
    """

    def __init__(self, backend: TransferBackend, *, root: str, offload: Offload, new_lock: NewLock) -> None:
        self._new_lock = new_lock
        self._backend = backend
        self._root = root
        self._offload = offload

    async def upload(
        self, local: str | os.PathLike[str], path: str, on_progress: OnProgress | None
    ) -> Transferred:
        """Upload a file, or a directory with all files below it, as `WorkspaceFiles.upload` describes."""
        text = _local_text(local)
        tree = await self._offload(lambda: scan(text))
        top = self._location(path or ".")
        if _is_directory_path(path):  # the local name is not checked by _location, which would refuse "~"
            top = "/".join(part for part in (top, tree.name) if part not in ("", ".")) or "."
        if top == "." and not tree.is_directory:
            raise file_error(top, "upload", "is_directory", {})
        below = "" if top == "." else f"{top}/"
        files = [
            Outgoing(below + name if name else top, source, source.is_executable)
            for name, source in tree.files
        ]
        progress = Progress(on_progress, sum(source.size_bytes for _, source in tree.files), self._new_lock())
        if tree.is_directory and not tree.files and not tree.empty_directories and below:
            await self._backend.make_directories([top])
        if tree.empty_directories:
            await self._backend.make_directories([below + name for name in tree.empty_directories])
        sent = await self._backend.send(files, progress)
        skipped = [
            replace(each, path=each.path.removeprefix(below))
            for each in sent
            if isinstance(each, SkippedEntry)
        ]
        if skipped and not tree.is_directory:
            raise file_error(
                top, "upload", "sandbox_only" if skipped[0].reason == "ignored" else "bad_path", {}
            )
        return Transferred(
            tuple(each for each in sent if isinstance(each, TransferredFile)),
            tuple(sorted((*tree.skipped, *skipped), key=lambda entry: entry.path)),
        )

    async def download(
        self,
        path: str,
        local: str | os.PathLike[str],
        on_progress: OnProgress | None,
        *,
        max_bytes: int | None = None,
    ) -> Transferred:
        """Download a file, or a directory with all files below it, as `WorkspaceFiles.download` describes."""
        text = _local_text(local)
        location = self._location(path)
        found = await self._backend.survey(location)
        total = sum(file.size_bytes for file in found.files)
        if max_bytes is not None and total > max_bytes:
            raise FileError(
                f"{shown(location)} has {total:,} bytes, over the limit of {max_bytes:,}. Raise max_bytes, or download "
                "a part of it.",
                code="too_large",
                op="download",
                context={"bytes": total, "max_bytes": max_bytes},
            )
        if _is_directory_path(text):
            text = os.path.join(text, location.rpartition("/")[2] if location != "." else "")
        target = await self._offload(
            lambda: LocalTarget(text, is_directory=found.is_directory, new_lock=self._new_lock)
        )
        into = _Incoming(target, location, self._offload, max_bytes)
        progress = Progress(on_progress, total, self._new_lock())
        for name in found.empty_directories:
            try:
                await self._offload(lambda name=name: target.make_directory(name))  # type: ignore[misc]
            except NameRefused as refused:
                into.skip(name, refused.reason)
        await self._backend.receive(found, found.files, into, progress)
        skipped = sorted((*found.skipped, *into.skipped), key=lambda entry: entry.path)
        return Transferred(tuple(sorted(into.stored, key=lambda file: file.path)), tuple(skipped))

    def _location(self, path: str) -> str:
        return workspace_path(path, self._root)


class _Incoming:
    """Stores downloaded files.

    Args:
        target: The file or directory on the host.
        location: The workspace path that is downloaded.
        left_bytes: Limit of the size of all files together; None for no limit.
    """

    def __init__(self, target: LocalTarget, location: str, offload: Offload, left_bytes: int | None) -> None:
        self._left_bytes = left_bytes
        self._target = target
        self._location = location
        self._offload = offload
        self.stored: list[TransferredFile] = []
        self.skipped: list[SkippedEntry] = []

    async def store(
        self, file: FoundFile, fill: Callable[[Sink], Awaitable[bool | None]], *, max_bytes: int
    ) -> None:
        if self._left_bytes is not None:
            max_bytes = min(max_bytes, self._left_bytes)
        try:
            sink = await self._offload(lambda: self._target.open(file.name, max_bytes))
        except NameRefused as refused:
            self.skip(file.name, refused.reason)
            return
        try:
            is_executable = await fill(sink)
            if is_executable is None:
                is_executable = bool(file.is_executable)
            await self._offload(lambda: sink.commit(is_executable=bool(is_executable)))
        except NameRefused as refused:
            self.skip(file.name, refused.reason)
        except TooLongError:
            raise FileError(
                f"{shown(self._path_of(file.name))} grew during the download, over the limit. Raise max_bytes.",
                code="too_large",
                op="download",
                context={"max_bytes": max_bytes},
            ) from None
        else:
            self.stored.append(self._described(file.name, sink))
            if self._left_bytes is not None:
                self._left_bytes -= sink.size_bytes
        finally:
            await self._offload(sink.abort)

    def skip(self, name: str, reason: SkipReason) -> None:
        self.skipped.append(SkippedEntry(name, reason))

    def _described(self, name: str, sink: LocalSink) -> TransferredFile:
        return TransferredFile(self._path_of(name), sink.size_bytes, sink.sha256)

    def _path_of(self, name: str) -> str:
        return "/".join(part for part in (self._location, name) if part not in ("", "."))


def _local_text(local: str | os.PathLike[str]) -> str:
    text = os.fspath(local)
    if not text:  # probably from an unset variable: it must not mean the current directory
        raise FileError(
            "The local path is empty. Use . for the current directory.", code="local_missing", op="transfer"
        )
    if "\0" in text:
        raise ValueError("the local path contains a NUL character")
    return text


def _is_directory_path(path: str) -> bool:
    """Return True if a path is empty or ends in a slash: then the source is copied into it under its own name."""
    return not path or path.endswith(("/", os.sep))
