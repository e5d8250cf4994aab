"""Results and requests of transfers, their progress, and the interface of the two backends: a sandbox, and S3."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from langchain_daytona_ws._core.ports import UploadSource
from langchain_daytona_ws.errors import FileError

logger = logging.getLogger("langchain_daytona_ws")

MAX_FILES = 200_000  # of a directory

NewLock = Callable[[], AbstractContextManager[object]]
SkipReason = Literal["link", "special", "unreadable", "name", "name_twin", "ignored", "gone"]


@dataclass(frozen=True, slots=True)
class TransferredFile:
    """A file that was transferred.

    Args:
        path: Its path in the workspace.
        size_bytes: Its size.
        sha256: The hash of its content, computed while it was transferred.
    """

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """An entry of a directory that was left out of a transfer.

    Args:
        path: Its path relative to the directory.
        reason: ``link``: a symbolic link that leads out of the directory, to a directory, or nowhere. ``special``: a
            FIFO, a socket or a device. ``unreadable``: permission was denied. ``name``: the receiver can't have this
            name. ``name_twin``: the host's file system does not distinguish it from another name. ``ignored``:
            ``syncIgnore`` excludes it from the files on S3. ``gone``: it was removed during the transfer.
    """

    path: str
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Transferred:
    """The result of an upload or a download.

    Args:
        files: The transferred files.
        skipped: The entries of a directory that were left out.
    """

    files: tuple[TransferredFile, ...]
    skipped: tuple[SkippedEntry, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """The progress of a transfer.

    Args:
        name: The path in the workspace of the file that is transferred.
        done_bytes: Bytes transferred so far, of all files. After a lost connection a file is transferred from its
            start again, and this number falls.
        total_bytes: The size of all files together.
    """

    name: str
    done_bytes: int
    total_bytes: int


OnProgress = Callable[[TransferProgress], object]
"""Called during a transfer with its progress so far."""


class Progress:
    """Reports progress to a callback, one call at a time. The callback's first error is logged and ends the calls.

    Args:
        on_progress: The callback; None for none.
        total_bytes: The size of all files.
        lock: Several files may be transferred at the same time.
    """

    def __init__(
        self, on_progress: OnProgress | None, total_bytes: int, lock: AbstractContextManager[object]
    ) -> None:
        self._on_progress = on_progress
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._lock = lock

    def move(self, name: str, count: int) -> None:
        """Count bytes of a file; a negative number if it is transferred again."""
        with self._lock:
            self._done_bytes += count
            if self._on_progress is None or not count:
                return
            try:
                self._on_progress(TransferProgress(name, self._done_bytes, self._total_bytes))
            except Exception:
                self._on_progress = None
                logger.warning("the progress callback failed, and is not called again", exc_info=True)

    def meter(self, files: Sequence[tuple[str, int]]) -> ProgressMeter:
        """Return the meter of files that are transferred in this order.

        Args:
            files: Name and size of each.
        """
        return ProgressMeter(self, files)


class ProgressMeter:
    """Counts the bytes of files that are transferred in this order."""

    def __init__(self, progress: Progress, files: Sequence[tuple[str, int]]) -> None:
        self._progress = progress
        self._files = files
        self._at = self._before = self._moved = 0

    def restart(self) -> None:
        """Begin again with the first file."""
        self._progress.move(self._files[self._at][0], -self._moved)
        self._at = self._before = self._moved = 0

    def add(self, count: int) -> None:
        """Count bytes that were transferred."""
        while self._at < len(self._files) - 1 and self._moved >= self._before + self._files[self._at][1]:
            self._before += self._files[self._at][1]
            self._at += 1
        self._moved += count
        self._progress.move(self._files[self._at][0], count)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file to upload.

    Args:
        path: Its path in the workspace.
        source: Its content.
        is_executable: Whether its owner may execute it.
    """

    path: str
    source: UploadSource
    is_executable: bool


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of the workspace to download.

    Args:
        name: Its path relative to the downloaded directory; ``""`` if this file alone is downloaded.
        size_bytes: Its size when it was found.
        is_executable: Whether its owner may execute it; None if this is known only after the download.
    """

    name: str
    size_bytes: int
    is_executable: bool | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """A file or a directory of the workspace.

    Args:
        path: Its path, with the symbolic links of the requested path resolved.
        is_directory: Whether it is a directory.
        files: The file, or all files below the directory.
        empty_directories: The directories below it without entries, relative to it.
        skipped: Entries that can't be downloaded.
        content: The content of a small file.
    """

    path: str
    is_directory: bool
    files: tuple[FoundFile, ...]
    empty_directories: tuple[str, ...] = ()
    skipped: tuple[SkippedEntry, ...] = ()
    content: bytes | None = None

    def path_of(self, file: FoundFile) -> str:
        """Return the path of one of the files in the workspace."""
        return "/".join(part for part in (self.path, file.name) if part not in ("", "."))


class Sink(Protocol):
    """Receives the content of one file. The methods block; those of a file on the host's disk may be slow."""

    @property
    def size_bytes(self) -> int:
        """The number of bytes received."""
        ...

    @property
    def sha256(self) -> str:
        """The hash of the bytes received."""
        ...

    def restart(self) -> None:
        """Discard what was received."""

    def write(self, piece: bytes) -> object:
        """Receive the next piece.

        Raises:
            TooLongError: More bytes arrived than allowed.
        """


class Incoming(Protocol):
    """Stores the downloaded files on the host."""

    async def store(
        self, file: FoundFile, fill: Callable[[Sink], Awaitable[bool | None]], *, max_bytes: int
    ) -> None:
        """Store a file, under its name only if ``fill`` returns.

        Args:
            file: The file.
            fill: Writes the content; returns whether the file is executable, or None if ``file`` has this fact.
            max_bytes: Limit of the content's size.
        """
        ...

    def skip(self, name: str, reason: SkipReason) -> None:
        """Record a file that can't be downloaded."""


class TransferBackend(Protocol):
    """Transfers of the workspace's files. All methods raise the errors of this package."""

    async def survey(self, path: str) -> Survey:
        """Find out what is at a path; with the content of a small file."""
        ...

    async def receive(
        self, found: Survey, files: Sequence[FoundFile], into: Incoming, progress: Progress
    ) -> None:
        """Download files."""
        ...

    async def send(
        self, files: Sequence[Outgoing], progress: Progress
    ) -> Sequence[TransferredFile | SkippedEntry]:
        """Upload files; each replaces an existing file when it is complete. Return the result for each."""
        ...

    async def make_directories(self, paths: Sequence[str]) -> None:
        """Create directories that have no files."""
        ...


def content_of(source: UploadSource) -> bytes:
    """Return the whole content of a small file."""
    with source.open() as file:
        return read_exactly(file, source.size_bytes)


def read_exactly(file: BinaryIO, count: int) -> bytes:
    """Return the next ``count`` bytes of an open `UploadSource`, which raises an error if it has fewer."""
    pieces = []
    while count:
        pieces.append(file.read(count))
        count -= len(pieces[-1])
    return b"".join(pieces)


def too_many_files(op: str) -> FileError:
    return FileError(
        f"The directory has more than {MAX_FILES:,} files. Transfer its directories one by one, or one archive of it.",
        code="too_many_files",
        op=op,
    )
