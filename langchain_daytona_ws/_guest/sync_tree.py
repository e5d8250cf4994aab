"""The files of a working copy, and the index: the state of each file when it last equalled its object.

The index is a file next to the workspace, never in the bucket. If the index is lost or damaged, the content of files
and objects is compared. An index of another directory or prefix is not used, so that it cannot cause deletions.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import struct
import time

from langchain_daytona_ws._guest.ignore import Ignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

VERSION = 2
# A file that is read less than this time after a change is racy: it may change again without a new time stamp.
RACY_NS = 20_000_000
BLOCK_BYTES = 1024 * 1024
PART_BYTES = 16 * 1024 * 1024
PARTS_MAX = 9000  # S3 allows 10,000
COMPONENT_BYTES = 255
PATH_BYTES = 3500
KEY_BYTES = 1024  # S3 API
PROBE = ".langchain-daytona-ws-probe-"
# statx(2)
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, _BTIME_OFFSET = -100, 0x100, 0x800, 80
EMPTY_MD5 = hashlib.md5(b"").hexdigest()  # noqa: S324 - S3's ETag is an MD5


# The fields of an entry in the index file.
SAVED = {
    "etag": str, "modified": str, "put_at": float, "mode": int, "size": int, "mtime_ns": int, "ctime_ns": int,
    "inode": int, "is_racy": bool, "digest": str,
}  # fmt: skip


class Entry:
    """The state of a file, symbolic link or empty directory, and of its object, when both were equal.

    ``modified`` is the time of the object in the listing; after an upload it is "" until the next listing. ``put_at``
    is the time of the object in S3's answer to an upload or read, in Unix seconds; 0 if unknown. ``digest`` is the MD5
    of the content; it is "" if it equals the ETag, or if it is unknown after a transfer in parts. For ``is_racy`` see
    RACY_NS.
    """

    __slots__ = (*SAVED, "seen_in_scan")

    def __init__(
        self,
        etag: str,
        status: os.stat_result,
        *,
        digest: str = "",
        modified: str = "",
        put_at: float = 0.0,
        is_racy: bool = False,
    ) -> None:
        self.etag = etag
        self.modified = modified
        self.put_at = put_at
        self.digest = "" if digest == etag else digest
        self.seen_in_scan = 0
        self.observe(status, is_racy)

    def observe(self, status: os.stat_result, is_racy: bool) -> None:
        """Record that the file with this status has the content of the entry."""
        self.mode, self.size, self.inode = status.st_mode, status.st_size, status.st_ino
        self.mtime_ns, self.ctime_ns = status.st_mtime_ns, status.st_ctime_ns
        self.is_racy = is_racy

    @property
    def content(self) -> str:
        return self.digest or self.etag

    def is_unchanged(self, status: os.stat_result) -> bool:
        """Return True if it is certain that the file has not changed. The file is not read."""
        if self.mode != status.st_mode:
            return False
        return stat.S_ISDIR(self.mode) or (
            not self.is_racy
            and self.size == status.st_size
            and self.mtime_ns == status.st_mtime_ns
            and self.ctime_ns == status.st_ctime_ns
            and self.inode == status.st_ino
        )

    def is_listed_as(self, etag: str, modified: str) -> bool:
        """Return whether an object in the listing is the object of this entry. If it is, record its listed time."""
        if self.etag != etag:
            return False
        self.etag = etag  # keep one string in memory, not two equal strings
        if self.modified == modified:
            self.modified = modified
            return True
        if self.modified:
            return False
        # S3 may list an upload with a time up to two seconds before the time in its answer. An object with another
        # time is from another writer.
        if not self.put_at or 0 <= self.put_at - unix_of_listing(modified) <= 2:
            self.modified = modified
            return True
        return False

    @property
    def changed_at(self) -> float:
        """The time when the object was stored, in Unix seconds; 0 if unknown."""
        return max(self.put_at, unix_of_listing(self.modified))

    def values(self) -> list[object]:
        return [getattr(self, name) for name in SAVED]

    @classmethod
    def of_values(cls, values: list[Any]) -> Entry:
        """Return an entry of the index file.

        Raises:
            TypeError, ValueError: The values are invalid.
        """
        entry = cls.__new__(cls)
        if len(values) != len(SAVED):
            raise ValueError("fields")
        for (name, kind), value in zip(SAVED.items(), values):
            if type(value) is not kind or (isinstance(value, int) and abs(value) >= 1 << 68):
                raise TypeError(name)
            setattr(entry, name, value)
        if not 0 <= entry.mode < 1 << 16 or not re.fullmatch("[ !#-~]*", entry.etag):
            raise ValueError("mode or ETag")
        entry.seen_in_scan = 0
        return entry


def unix_of_listing(listed: str) -> float:
    """Return the time of a listing, such as ``2026-11-29T10:00:00.000Z``, in Unix seconds; 0 if it is malformed."""
    import calendar

    try:
        return float(calendar.timegm(time.strptime(listed[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return 0.0


def _birth(path: str) -> tuple[int, int]:
    """Return when a directory was created; zeros if the system does not know.

    The inode alone does not identify the directory: a new directory may get the inode of a deleted one.
    """
    try:
        import ctypes

        found = ctypes.create_string_buffer(256)
        flags = _AT_SYMLINK_NOFOLLOW
        if ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(path), flags, _STATX_BTIME, found) == 0:
            seconds, nanoseconds = struct.unpack_from("=qI", found, _BTIME_OFFSET)
            return int(seconds), int(nanoseconds)
    except (ImportError, OSError, AttributeError):
        pass  # a Python without ctypes, or an old C library
    return 0, 0


class Index:
    """The entries of a working copy by path; an empty directory's path ends in ``/``.

    ``binding`` contains the directory's identity, the store, the bucket and the prefix: the index is valid only for
    these. With ``starts_empty``, the index file is not read.
    """

    def __init__(self, path: str, binding: list[object], *, starts_empty: bool = False) -> None:
        self._path = path
        self.binding = binding
        self.entries: dict[str, Entry] = {}
        self.is_complete = False  # True after the first pull of all objects
        # True if the index was compared with the whole listing, and has not changed since.
        self.is_compared = False
        self.is_saved = True
        self.honours_delete: bool | None = None  # True if the store checks the condition of a deletion
        if not starts_empty:
            self._load()

    def _load(self) -> None:
        """Read the index file. An agent may have written it: if one value is wrong, use nothing of the file."""
        try:
            # Without O_NONBLOCK, a pipe at this path would block.
            with open(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8") as file:
                saved = json.loads(file.readline())
                if saved["version"] != VERSION or saved["binding"] != self.binding:
                    return
                lines = (json.loads(line) for line in file)
                entries = {path: Entry.of_values(values) for path, values in lines}
            honours = saved["honours_delete"]
            if len(entries) != saved["count"] or honours not in (True, False, None):
                return
            if any(map(problem_of, entries)):
                return
            self.entries, self.honours_delete = entries, honours
            self.is_complete = saved["complete"] is True
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass

    def save(self) -> None:
        """If the index has changed, write its file: one line about the index, and one line for each entry."""
        if self.is_saved:
            return
        about = {
            "version": VERSION,
            "binding": self.binding,
            "complete": self.is_complete,
            "honours_delete": self.honours_delete,
            "count": len(self.entries),
        }
        encode = json.JSONEncoder().encode
        with open(self._path + ".new", "w", encoding="utf-8", opener=_open_at_once) as file:
            file.write(encode(about) + "\n")
            for path, entry in self.entries.items():
                file.write(encode([path, entry.values()]) + "\n")
        os.replace(self._path + ".new", self._path)
        self.is_saved = True

    def set(self, path: str, entry: Entry) -> None:
        self.entries[path] = entry
        self.is_saved = self.is_compared = False

    def drop(self, path: str) -> None:
        if self.entries.pop(path, None) is not None:
            self.is_saved = self.is_compared = False


class Tree:
    """The directory of a working copy. Files that match ``ignored`` are never synchronised."""

    def __init__(self, root: str, ignored: list[str]) -> None:
        self.root = root
        self._ignore = Ignore(ignored) if ignored else None
        self._generation = 0

    def path(self, relative: str) -> str:
        return self.root + "/" + relative

    def identity(self) -> list[int] | None:
        """Return the directory's device, inode and birth; None if there is no directory."""
        try:
            found = os.lstat(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return [found.st_dev, found.st_ino, *_birth(self.root)] if stat.S_ISDIR(found.st_mode) else None

    def status(self, relative: str) -> os.stat_result | None:
        """Return the status of a file, link or directory; None if it is missing or a directory above it is a link."""
        relative = relative.rstrip("/")
        try:
            found = os.lstat(self.path(relative))
            for parent in parents(relative):
                if stat.S_ISLNK(os.lstat(self.path(parent)).st_mode):
                    return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return None
        return found

    def ignores(self, relative: str) -> bool:
        """Return whether a path or a directory above it is ignored."""
        if relative.startswith(PROBE):
            return True
        if self._ignore is None:
            return False
        at = relative.find("/")
        while at >= 0:
            if self._ignore.matches(relative[:at], True):
                return True
            at = relative.find("/", at + 1)
        return not relative.endswith("/") and self._ignore.matches(relative, False)

    def scan(self, entries: dict[str, Entry]) -> Scan:
        """Compare all files with the index, and return the differences."""
        self._generation += 1
        found = Scan()
        self._walk(entries, found)
        generation = self._generation
        found.missing = [
            path
            for path, entry in entries.items()
            if entry.seen_in_scan != generation
            and not path.startswith(found.unreadable)
            and not self.ignores(path)
        ]
        return found

    def _walk(self, entries: dict[str, Entry], found: Scan) -> None:
        pending = [("", self.root)]
        while pending:
            base, directory = pending.pop()
            try:
                listed = list(os.scandir(directory))
                if base:
                    self._see_directory(base, not listed, entries, found)
            except (FileNotFoundError, NotADirectoryError):
                found.unreadable += (base,)  # deleted, or moved to a directory that was already read
                continue
            except OSError as error:
                found.skip_unread(base, error)
                continue
            for item in listed:
                path = base + item.name
                try:
                    if not path.isprintable() and not _is_utf8(path):
                        found.skipped.append((path, "its name is not UTF-8"))
                    elif item.is_dir(follow_symlinks=False):
                        if not self._is_ignored(path, True):
                            pending.append((path + "/", item.path))
                    elif not self._is_ignored(path, False):
                        self._see_file(path, item.stat(follow_symlinks=False), entries, found)
                except FileNotFoundError:
                    found.unreadable += (path,)
                except OSError as error:
                    found.skip_unread(path, error)

    def _see_file(self, path: str, status: os.stat_result, entries: dict[str, Entry], found: Scan) -> None:
        entry = entries.get(path)
        if entry is not None:
            entry.seen_in_scan = self._generation
            if entry.is_unchanged(status):
                return
        if stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFLNK):
            found.changed[path] = status
        else:
            found.skipped.append((path, "a pipe, socket or device"))

    def _see_directory(self, path: str, is_empty: bool, entries: dict[str, Entry], found: Scan) -> None:
        entry = entries.get(path)
        if entry is not None:
            entry.seen_in_scan = self._generation
        if is_empty:
            status = os.lstat(self.path(path))
            if entry is None or entry.mode != status.st_mode:
                found.changed[path] = status

    def _is_ignored(self, path: str, is_directory: bool) -> bool:
        return path.startswith(PROBE) or (
            self._ignore is not None and self._ignore.matches(path, is_directory)
        )


class Scan:
    """The differences between the files and the index."""

    def __init__(self) -> None:
        self.changed: dict[str, os.stat_result] = {}
        self.missing: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        # Paths that were not read. No path that begins with one of them counts as missing.
        self.unreadable: tuple[str, ...] = ()

    def skip_unread(self, path: str, error: OSError) -> None:
        self.skipped.append((path, error.strerror or str(error)))
        self.unreadable += (path,)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file. A FIFO or link in its place must not block the resident."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def problem_of(path: str) -> str:
    """Return why a key cannot be the path of a file; "" if it can."""
    parts = path[:-1].split("/") if path.endswith("/") else path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "a part of its path is empty, . or .."
    if "\0" in path or not _is_utf8(path):
        return "its name is no file name"
    if any(len(part.encode()) > COMPONENT_BYTES for part in parts) or len(path.encode()) > PATH_BYTES:
        return "its name is too long"
    return ""


def is_racy(status: os.stat_result, read_at_ns: int) -> bool:
    """Return whether a file may have changed since it was read, although its time stamps are the same."""
    return status.st_ctime_ns > read_at_ns - RACY_NS


def part_bytes(size: int) -> int:
    """Return the size in bytes of the parts in which a file of ``size`` bytes is uploaded."""
    return max(PART_BYTES, -(-size // PARTS_MAX))


def digest_of(path: str, status: os.stat_result, *, like: str = "") -> str:
    """Return the MD5 of a file's content, or of a link's target; for a directory the MD5 of no content.

    The caller compares the result with ``like``. If ``like`` is the ETag of an upload in parts, return the ETag of such
    an upload of this file. If the numbers of parts differ, return "", because the ETags cannot be compared.
    """
    if stat.S_ISDIR(status.st_mode):
        return EMPTY_MD5
    if stat.S_ISLNK(status.st_mode):
        return hashlib.md5(os.fsencode(os.readlink(path))).hexdigest()  # noqa: S324
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if "-" not in like:
            return str(_digest(fd, 0, status.st_size).hexdigest())
        step = part_bytes(status.st_size)
        starts = range(0, status.st_size, step)
        if not like.endswith("-%d" % len(starts)):
            return ""
        parts = b"".join(_digest(fd, start, step).digest() for start in starts)
        return "%s-%d" % (hashlib.md5(parts).hexdigest(), len(starts))  # noqa: S324
    finally:
        os.close(fd)


def digest_of_open(fd: int, size: int) -> str:
    return str(_digest(fd, 0, size).hexdigest())


def _digest(fd: int, start: int, size: int) -> Any:
    digest = hashlib.md5()  # noqa: S324
    while size > 0:
        block = os.pread(fd, min(size, BLOCK_BYTES), start)
        if not block:
            break
        digest.update(block)
        start, size = start + len(block), size - len(block)
    return digest


def parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, from the top."""
    at = path.find("/")
    while 0 <= at < len(path) - 1:
        yield path[:at]
        at = path.find("/", at + 1)
