"""Data types and progress of transfers, and the interface of the backends: through the sandbox, and on S3."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from langchain_daytona_ws._core.ports import UploadSource
from langchain_daytona_ws.errors import FileError

logger = logging.getLogger("langchain_daytona_ws")

MAX_FILES = 200_000  # in a transferred directory

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
        reason: ``link``: a symbolic link to a directory, to a file outside the directory, or to no file. ``special``: a
            FIFO, a socket or a device. ``unreadable``: permission was denied. ``name``: the receiver cannot store a
            file under this name. ``name_twin``: the host's file system does not distinguish the name from another name
            in the transfer. ``ignored``: ``syncIgnore`` excludes it from the files on S3. ``gone``: it was removed
            or replaced during the transfer.
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
        name: The workspace path of the current file.
        done_bytes: Number of bytes transferred so far, of all files. If a file is transferred again from its start,
            this number falls.
        total_bytes: The size of all files together.
    """

    name: str
    done_bytes: int
    total_bytes: int


OnProgress = Callable[[TransferProgress], object]
"""Called during a transfer with the current progress."""


class Progress:
    """Reports progress to a callback.

    The lock serialises the calls, because several files may be transferred at the same time. After the callback's first
    error, which is logged, the callback is not called again.
    """

    def __init__(
        self, on_progress: OnProgress | None, total_bytes: int, lock: AbstractContextManager[object]
    ) -> None:
        self._on_progress = on_progress
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._lock = lock

    def add(self, name: str, count: int) -> None:
        """Add transferred bytes of a file. A negative ``count`` subtracts bytes that will be transferred again."""
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
        """Return a meter for files that are transferred in this order. ``files``: name and size of each file."""
        return ProgressMeter(self, files)


class ProgressMeter:
    """Counts the bytes of files that are transferred one after another, and reports them with the file's name."""

    def __init__(self, progress: Progress, files: Sequence[tuple[str, int]]) -> None:
        self._progress = progress
        self._files = files
        self._at = self._before = self._moved = 0

    def restart(self) -> None:
        """Begin again with the first file, and subtract the bytes counted so far."""
        self._progress.add(self._files[self._at][0], -self._moved)
        self._at = self._before = self._moved = 0

    def add(self, count: int) -> None:
        while self._at < len(self._files) - 1 and self._moved >= self._before + self._files[self._at][1]:
            self._before += self._files[self._at][1]
            self._at += 1
        self._moved += count
        self._progress.add(self._files[self._at][0], count)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file to upload.

    Args:
        path: Its path in the workspace.
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
        is_executable: Whether its owner may execute it; None if this is not known before the download.
    """

    name: str
    size_bytes: int
    is_executable: bool | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """The file or directory that was found at a path of the workspace.

    Args:
        path: The requested path with its symbolic links resolved.
        is_directory: True for a directory, False for a file.
        files: The file itself, or all files below the directory.
        empty_directories: Directories without entries; paths relative to ``path``.
        skipped: Entries that cannot be downloaded.
        content: The content of one small file, if the backend has read it already; otherwise None.
    """

    path: str
    is_directory: bool
    files: tuple[FoundFile, ...]
    empty_directories: tuple[str, ...] = ()
    skipped: tuple[SkippedEntry, ...] = ()
    content: bytes | None = None

    def path_of(self, file: FoundFile) -> str:
        return "/".join(part for part in (self.path, file.name) if part not in ("", "."))


class Sink(Protocol):
    """Receives the content of one file. The methods may block, because the disk may be slow."""

    @property
    def size_bytes(self) -> int:
        """The number of bytes received."""
        ...

    @property
    def sha256(self) -> str:
        """The hash of the bytes received."""
        ...

    def restart(self) -> None:
        """Discard the received content, because it will be sent again from its start."""

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
        """Store a file of at most ``max_bytes``, whose content ``fill`` writes to the sink.

        ``fill`` returns whether the file is executable; None to use ``file.is_executable``. Then the file gets its
        final name. If ``fill`` raises, the received part is removed.
        """
        ...

    def skip(self, name: str, reason: SkipReason) -> None:
        """Record a file or directory as skipped."""


class TransferBackend(Protocol):
    """Transfers of the workspace's files. All methods raise the errors of this package."""

    async def survey(self, path: str) -> Survey:
        """Return the file or directory at a path. A small file may be returned with its content."""
        ...

    async def receive(
        self, found: Survey, files: Sequence[FoundFile], into: Incoming, progress: Progress
    ) -> None:
        """Download files of a survey, and pass each to ``into``."""
        ...

    async def send(
        self, files: Sequence[Outgoing], progress: Progress
    ) -> Sequence[TransferredFile | SkippedEntry]:
        """Upload files; return one result for each. An existing file is replaced when the new content is complete."""
        ...

    async def make_directories(self, paths: Sequence[str]) -> None:
        """Create directories. (`send` creates the directories of its files itself.)"""
        ...


def content_of(source: UploadSource) -> bytes:
    with source.open() as file:
        return read_exactly(file, source.size_bytes)


def read_exactly(file: BinaryIO, count: int) -> bytes:
    """Return the next ``count`` bytes of an open `UploadSource`, whose ``read`` raises if there are fewer bytes."""
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
