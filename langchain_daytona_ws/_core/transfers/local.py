"""Read and write the host's files for transfers. All functions block.

Uploads: a symbolic link below the uploaded directory is followed only if it leads to a file inside this directory.

Downloads: names come from the sandbox and may be hostile, so each name is checked. Below the target, symbolic links are
neither followed nor created. A file is written under a temporary name in its final directory, and renamed when it is
complete.
"""

from __future__ import annotations

import errno
import hashlib
import io
import ntpath
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import BinaryIO

from langchain_daytona_ws._core.files.received import TooLongError
from langchain_daytona_ws._core.transfers.models import (
    MAX_FILES,
    NewLock,
    SkippedEntry,
    SkipReason,
    too_many_files,
)
from langchain_daytona_ws.errors import FileError

MAX_DEPTH = 201  # maximum number of parts of a path; the guest lists no deeper files
TEMPORARY_PREFIX = ".langchain-daytona-ws-"
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WINDOWS = os.name == "nt"


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A file of the host to upload.

    Args:
        size_bytes: Its size when it was found. If it has grown since then, as a log does, only this number of bytes is
            uploaded.
        is_executable: Whether its owner may execute it.
        identity: Its device and inode. They distinguish a file that has grown from a new file of the same name.
    """

    path: str
    size_bytes: int
    is_executable: bool
    identity: tuple[int, int]

    def open(self) -> BinaryIO:
        with _local_errors(self.path):
            fd = os.open(self.path, os.O_RDONLY | _NO_FOLLOW)
            try:
                status = os.fstat(fd)
                has_grown = status.st_size > self.size_bytes and _identity(status) == self.identity
                if not stat.S_ISREG(status.st_mode) or not (status.st_size == self.size_bytes or has_grown):
                    raise _changed(self.path)
            except BaseException:
                os.close(fd)
                raise
        return _Reading(fd, self.path, self.size_bytes)  # type: ignore[return-value]  # uploads need only these methods


class _Reading(io.RawIOBase):
    """Reads the first ``size_bytes`` of an open file; raises a `FileError` if the file is shorter."""

    def __init__(self, fd: int, path: str, size_bytes: int) -> None:
        self._fd = fd
        self._path = path
        self._left = size_bytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        with _local_errors(self._path):
            piece = os.read(self._fd, self._left if size < 0 else min(size, self._left))
        if not piece and size and self._left:
            raise _changed(self._path)
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


@dataclass(frozen=True, slots=True)
class LocalTree:
    """A file or directory of the host to upload.

    Args:
        is_directory: True for a directory, False for a file.
        files: Name and source of each file. The name is the path relative to the directory, with slashes; ``""`` for a
            single file.
        empty_directories: Directories without entries.
        skipped: Entries that cannot be uploaded.
    """

    name: str
    is_directory: bool
    files: tuple[tuple[str, LocalSource], ...]
    empty_directories: tuple[str, ...] = ()
    skipped: tuple[SkippedEntry, ...] = ()


def scan(local: str) -> LocalTree:
    """Return the files to upload. The path, or a directory above it, may be a symbolic link.

    Raises:
        FileError: The path cannot be accessed, is neither a file nor a directory, or has too many entries.
    """
    with _local_errors(local):
        root = os.path.realpath(local)
        status = os.stat(root)
    name = os.path.basename(os.path.abspath(local))
    if stat.S_ISREG(status.st_mode):
        return LocalTree(name, False, (("", _source(root, status)),))
    if not stat.S_ISDIR(status.st_mode):
        raise FileError(
            f"{local} is neither a file nor a directory. Write its content to a file, and upload that.",
            code="local_special",
            op="upload",
        )
    return _Scan(root).tree(name)


class _Scan:
    """Collects the entries below a directory."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: list[tuple[str, LocalSource]] = []
        self._empty: list[str] = []
        self._skipped: list[SkippedEntry] = []

    def tree(self, name: str) -> LocalTree:
        pending = [""]  # not recursive: the tree may be deeper than Python's stack allows
        while pending:
            below = pending.pop()
            path = os.path.join(self._root, *below.split("/"))
            with _local_errors(path):
                pending += self._add_directory(below, path)
        self._files.sort()
        skipped = tuple(sorted(self._skipped, key=lambda entry: entry.path))
        return LocalTree(name, True, tuple(self._files), tuple(sorted(self._empty)), skipped)

    def _add_directory(self, below: str, path: str) -> list[str]:
        """Collect the files of a directory. Return the directories in it."""
        directories: list[str] = []
        count = 0
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    count += 1
                    name = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(name)
                    else:
                        self._add_entry(name, entry)
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            if not below:
                raise
            self._skip(below, _reason_of(error))
            return []
        if not count and below:
            self._empty.append(below)
        if len(self._files) + len(self._empty) + len(directories) > MAX_FILES:
            raise too_many_files("upload")
        return directories

    def _add_entry(self, name: str, entry: os.DirEntry[str]) -> None:
        is_link = entry.is_symlink()
        try:
            path = os.path.realpath(entry.path) if is_link else entry.path
            status = os.lstat(path)
            is_inside = os.path.commonpath([path, self._root]) == self._root
        except (OSError, ValueError) as error:  # removed meanwhile; a loop of links; another drive
            self._skip(name, "link" if is_link else _reason_of(error))
            return
        if is_link and not (is_inside and stat.S_ISREG(status.st_mode)):
            self._skip(name, "link")
        elif stat.S_ISREG(status.st_mode):
            self._files.append((name, _source(path, status)))
        else:
            self._skip(name, "special")

    def _skip(self, name: str, reason: SkipReason) -> None:
        self._skipped.append(SkippedEntry(name, reason))


def _reason_of(error: Exception) -> SkipReason:
    return "unreadable" if isinstance(error, PermissionError) else "gone"


def _source(path: str, status: os.stat_result) -> LocalSource:
    is_executable = not _WINDOWS and bool(status.st_mode & stat.S_IXUSR)
    return LocalSource(path, status.st_size, is_executable, _identity(status))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class NameRefused(Exception):
    """A file cannot be stored safely under this name on the host, so the file is skipped."""

    def __init__(self, reason: SkipReason) -> None:
        super().__init__(reason)
        self.reason: SkipReason = reason


class LocalTarget:
    """The file or directory of the host that a download writes.

    Args:
        local: Its path. The path, or a directory above it, may be a symbolic link.
        is_directory: True to download a directory; if it exists, its other files are kept. False to download one file.
        new_lock: Returns a new lock. Locks are needed because several files may arrive at the same time, and a thread
            may still write when a cancelled transfer ends.

    Raises:
        FileError: One file is downloaded but the path is a directory, or the directories cannot be created.
    """

    def __init__(self, local: str, *, is_directory: bool, new_lock: NewLock) -> None:
        with _local_errors(local):
            self._root = os.path.realpath(local)
            self._is_directory = is_directory
            self.new_lock = new_lock
            self._lock = new_lock()
            self._directories: set[str] = set()
            self._written: set[tuple[int, int]] = set()
            if is_directory:
                os.makedirs(self._root, exist_ok=True)
                return
            if os.path.isdir(self._root):
                raise FileError(
                    f"{local} is a directory. To download into it, end its path with a slash.",
                    code="local_is_directory",
                    op="download",
                )
            os.makedirs(os.path.dirname(self._root), exist_ok=True)

    def open(self, name: str, max_bytes: int) -> LocalSink:
        """Create the directories above a file, and return a sink for its content.

        Args:
            name: Path of the file relative to the downloaded directory; ``""`` if a single file is downloaded.
            max_bytes: Limit of the file's size.

        Raises:
            NameRefused: The host cannot store a file under this name.
            FileError: A directory could not be created.
        """
        path = self._path(name)
        with _local_errors(path), _name_errors():
            self._make_parents(name)
            if os.path.isdir(path) and not os.path.islink(path):
                raise NameRefused("name_twin" if path in self._directories else "name")
            return LocalSink(self, path, max_bytes)

    def make_directory(self, name: str) -> None:
        """Create a directory, and the directories above it.

        Raises:
            NameRefused: The host cannot have a directory of this name.
            FileError: A directory could not be created.
        """
        path = self._path(f"{name}/x")
        with _local_errors(path), _name_errors():
            self._make_parents(f"{name}/x")

    def replace(self, temporary: str, path: str) -> None:
        """Rename a complete file to its final name.

        Raises:
            NameRefused: This download has already written this file, because the host's file system does not
                distinguish two names, for example ``a`` and ``A``.
        """
        with self._lock:
            with suppress(FileNotFoundError):
                found = os.lstat(path)
                if (found.st_dev, found.st_ino) in self._written:
                    raise NameRefused("name_twin")
            os.replace(temporary, path)
            status = os.lstat(path)
            self._written.add((status.st_dev, status.st_ino))

    def _path(self, name: str) -> str:
        """Check a file's name, and return its path on the host."""
        if not self._is_directory:
            return self._root
        parts = name.split("/")
        if len(parts) > MAX_DEPTH or not all(map(is_safe_name, parts)):
            raise NameRefused("name")
        return os.path.join(self._root, *parts)

    def _make_parents(self, name: str) -> None:
        path = self._root
        for part in name.split("/")[:-1] if self._is_directory else []:
            path = os.path.join(path, part)
            if path in self._directories:
                continue
            with suppress(FileExistsError):
                os.mkdir(path)
            # A symbolic link could lead out of the target.
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise NameRefused("name")
            self._directories.add(path)


def is_safe_name(part: str) -> bool:
    """Return whether a name from the sandbox is safe on this host as the name of one file or directory."""
    if part in ("", ".", "..") or "\0" in part or "/" in part:
        return False
    try:
        os.fsencode(part)
    except UnicodeEncodeError:
        return False
    if not _WINDOWS:
        return True
    is_plain = not set(part) & set('\\:*?"<>|') and part.isprintable() and part == part.rstrip(" .")
    return is_plain and not _is_reserved(part)


def _is_reserved(part: str) -> bool:
    """Return whether Windows treats the name as a device, such as ``nul.txt``."""
    if sys.version_info >= (3, 13):
        return ntpath.isreserved(part)
    return PureWindowsPath(part).is_reserved()


class LocalSink:
    """Receives the content of one file under a temporary name, in the directory of the final name.

    `abort` must be called at the end, also after `commit`. Later writes raise an error and create no file.
    """

    def __init__(self, target: LocalTarget, path: str, max_bytes: int) -> None:
        self._target = target
        self._path = path
        self._max_bytes = max_bytes
        self._lock = target.new_lock()
        self._temporary = os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + secrets.token_hex(8))
        self._fd = -1
        self._is_over = False
        self._reset()

    def _reset(self) -> None:
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def restart(self) -> None:
        with self._opened() as fd:
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            self._reset()

    def write(self, piece: bytes) -> None:
        with self._opened() as fd:
            if self.size_bytes + len(piece) > self._max_bytes:
                raise TooLongError
            self._digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
            self.size_bytes += len(piece)

    def commit(self, *, is_executable: bool) -> None:
        """Set the file's mode, and rename the complete file to its final name.

        Raises:
            NameRefused: The host's file system refuses the name, or does not distinguish it from an earlier name.
            FileError: Another error of the host's file system.
        """
        with self._opened() as fd:
            with _name_errors():
                self._set_mode(fd, is_executable)
            try:
                os.close(fd)
                self._fd = -1
                self._target.replace(self._temporary, self._path)
            except BaseException:
                self._remove()
                raise

    def abort(self) -> None:
        """End the download of the file, and remove the temporary file if it still exists."""
        with self._lock:
            self._is_over = True
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                self._remove()

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._temporary)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with self._lock, _local_errors(self._path):
            if self._is_over:
                raise FileError("The transfer has ended.", code="cancelled", op="download")
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
                with _name_errors():
                    self._fd = os.open(self._temporary, flags, 0o666)  # reduced by the process's umask
            yield self._fd

    def _set_mode(self, fd: int, is_executable: bool) -> None:
        """Keep the mode of a replaced file. Everyone who may read an executable file may execute it."""
        if _WINDOWS:
            return
        own = wanted = stat.S_IMODE(os.fstat(fd).st_mode)
        with suppress(FileNotFoundError):
            found = os.lstat(self._path)
            if stat.S_ISREG(found.st_mode):
                wanted = found.st_mode & 0o777
        if is_executable:
            wanted |= (wanted & 0o444) >> 2
        if wanted != own:
            os.fchmod(fd, wanted)


def _changed(path: str) -> FileError:
    return FileError(
        f"{path} changed while it was read. Try again.", code="local_changed", op="upload", retryable=True
    )


_KNOWN = {
    errno.ENOENT: ("local_missing", "Correct the path."),
    errno.ENOTDIR: ("local_not_directory", "Choose a path that does not lead through a file."),
    errno.EEXIST: ("local_not_directory", "Choose a path that does not lead through a file."),
    errno.EISDIR: ("local_is_directory", "Choose the path of a file."),
    errno.EACCES: ("local_failed", "Correct the permissions, or choose another path."),
    errno.ENOSPC: ("local_failed", "Free space on its disk, or choose a path on another disk."),
}
_OTHER = ("local_failed", "Correct the cause, or choose another path.")


@contextmanager
def _name_errors() -> Iterator[None]:
    """Raise `NameRefused` if the host's file system refuses a name that is too long or has invalid characters."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise
        raise NameRefused("name") from None


@contextmanager
def _local_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        code, remedy = _KNOWN.get(error.errno or 0, _OTHER)
        raise FileError(
            f"{path} on this machine can't be used: {reason}. {remedy}",
            code=code,
            op="transfer",
            context={"local": path, "errno": errno.errorcode.get(error.errno or 0, "")},
            for_model="A file of the machine that runs this agent can't be used.",
        ) from error
