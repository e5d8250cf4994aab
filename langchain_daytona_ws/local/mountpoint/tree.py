"""The directory tree: the objects in S3, the files being written, and the folders that exist only locally."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from .bucket import Bucket, StoredObject
from .handles import Reader, Writer

FOLDER_CACHE_S = 1.0
# How long stat still finds a file that is gone: after its upload failed, or after the last stat that found the object
# in S3. Opening such a file fails. Also how long stat shows the time of a listing, which may be more precise than
# that of HEAD, unless the file is opened.
FILE_CACHE_S = 0.1


class Folder:
    """A directory; it has no attributes of its own."""


Entry = Folder | Writer | StoredObject
T = TypeVar("T")


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def parent_of(path: str) -> str:
    return path.rpartition("/")[0]


def check_name(path: str) -> None:
    """Raise EINVAL for a name that is not valid UTF-8, because S3's keys are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise os_error(errno.EINVAL) from None


class Tree:
    """Finds entries by their path below the mount point, without a leading slash; the root is "".

    `lifetime` is how long metadata is cached, in seconds. With None or 0, only folders are cached, for
    `FOLDER_CACHE_S`; for missing files, see `FILE_CACHE_S`.
    """

    def __init__(self, bucket: Bucket, lifetime: float | None = None) -> None:
        self._bucket = bucket
        self._lifetime = lifetime
        self._lock = threading.RLock()
        self._writers: dict[str, Writer] = {}
        self._local_folders: set[str] = set()
        self._folders_until: dict[str, float] = {}
        self._cached: dict[str, tuple[float, StoredObject | None]] = {}
        self._readers: dict[str, set[Reader]] = {}
        self._failed: dict[str, tuple[float, StoredObject]] = {}
        self._found: dict[str, tuple[float, StoredObject]] = {}
        self._listed: dict[str, tuple[float, StoredObject]] = {}

    # --- look-up ---

    def lookup(self, path: str) -> Entry | None:
        """Return the entry for a stat, possibly from the cache: folders are cached for a second or more."""
        check_name(path)
        now = time.monotonic()
        if not path or self._folders_until.get(path, 0.0) > now:
            return Folder()
        cached_until, failed_file = self._failed.get(path, (0.0, None))
        if cached_until > now and path not in self._writers:
            return failed_file
        if self._lifetime and path not in self._writers and path not in self._local_folders:
            cached_until, cached = self._cached.get(path, (0.0, None))
            if cached_until > now:
                return cached
        entry = self.fetch(path)
        if isinstance(entry, StoredObject):
            self._found[path] = (now + FILE_CACHE_S, entry)
            listed_until, listed = self._listed.get(path, (0.0, entry))
            return listed if listed_until > now and listed.etag == entry.etag else entry
        found_until, found = self._found.get(path, (0.0, None))
        return found if entry is None and found_until > now else entry

    def fetch(self, path: str) -> Entry | None:
        """Return the current entry, without a cache. A folder hides a file of the same name."""
        check_name(path)
        if not path:
            return Folder()
        lifetime = self._lifetime or 0.0
        # The original sends both requests at the same time. If S3 refuses the HEAD, it fails even for a folder.
        stored = self._bucket.head(path)
        if self._bucket.is_folder(path):
            self._folders_until[path] = time.monotonic() + max(FOLDER_CACHE_S, lifetime)
            with self._lock:
                self._local_folders.discard(path)
            return Folder()
        self._folders_until.pop(path, None)
        with self._lock:
            if path in self._writers:
                return self._writers[path]
            if path in self._local_folders:
                return Folder()
        if lifetime:
            self._cached[path] = (time.monotonic() + lifetime, stored)
        return stored

    def require(self, path: str) -> Entry:
        """Return the current entry; raise ENOENT if there is none."""
        entry = self.fetch(path)
        if entry is None:
            raise os_error(errno.ENOENT)
        return entry

    def list(self, path: str) -> Iterator[str]:
        """Yield the names in a folder, without keys that are not valid file names."""
        names: set[str] = set()
        now = time.monotonic()
        listed = {inner: entry for inner, entry in list(self._listed.items()) if entry[0] > now}
        for name, stored in self._bucket.entries(path):
            if name in ("", ".", "..") or "\0" in name:
                continue
            names.add(name)
            if stored is not None:
                listed[f"{path}/{name}" if path else name] = (time.monotonic() + FILE_CACHE_S, stored)
        self._listed = listed
        with self._lock:
            local = [
                inner
                for inner in (*self._writers, *self._local_folders)
                if inner and parent_of(inner) == path
            ]
        names.update(inner.rpartition("/")[2] for inner in local)
        yield from sorted(names)

    def is_local(self, path: str) -> bool:
        """Return True if `path` is a folder that exists only locally."""
        return path in self._local_folders

    def writer(self, path: str) -> Writer | None:
        return self._writers.get(path)

    # --- changes ---

    def add_file(self, path: str) -> None:
        self._add(path, lambda: self._writers.__setitem__(path, Writer(self._bucket, path)))

    def add_folder(self, path: str) -> None:
        self._add(path, lambda: self._local_folders.add(path))

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder that exists only locally. S3 has no folders to remove."""
        entry = self.require(path)
        if not isinstance(entry, Folder):
            raise os_error(errno.ENOTDIR)
        with self._lock:
            if path not in self._local_folders:
                raise os_error(errno.EPERM)
            if any(inner.startswith(path + "/") for inner in (*self._writers, *self._local_folders)):
                raise os_error(errno.ENOTEMPTY)
            self._local_folders.discard(path)

    def remove_file(self, path: str) -> None:
        entry = self.require(path)
        if isinstance(entry, Folder):
            raise os_error(errno.EISDIR)
        if isinstance(entry, Writer):
            raise os_error(errno.EPERM)
        self._bucket.delete(path)
        self._cached.pop(path, None)
        self._found.pop(path, None)

    def start_reading(self, path: str, entry: StoredObject | Writer) -> Reader:
        """Open a file for reading. If the file has an idle writer, complete its upload first."""
        with self._lock:
            writer = self._remove_idle_writer(path)
            if writer is None and isinstance(entry, Writer):
                raise os_error(errno.EPERM)
        if writer is not None:
            self._complete(path, writer)
            current = self.require(path)
            if not isinstance(current, StoredObject):
                raise os_error(errno.EPERM)
            entry = current
        assert isinstance(entry, StoredObject)  # noqa: S101 - see above
        reader = Reader(self._bucket, path, entry)
        self._listed.pop(path, None)
        with self._lock:
            self._readers.setdefault(path, set()).add(reader)
        return reader

    def finish_reading(self, path: str, reader: Reader) -> None:
        with self._lock:
            readers = self._readers.get(path, set())
            readers.discard(reader)
            if not readers:
                self._readers.pop(path, None)

    def start_writing(self, path: str, entry: Entry, overwrite: bool, pid: int) -> Writer:
        """Open a new file or, with `overwrite`, an existing file. A file has one writer or readers, not both."""
        with self._lock:
            if any(not reader.is_idle for reader in self._readers.get(path, ())):
                raise os_error(errno.EPERM)
            current = self._writers.get(path)
            if current is not None and not current.was_opened:
                current.open(pid)
                return current
            if not overwrite and (current is not None or isinstance(entry, StoredObject)):
                raise os_error(errno.EPERM)
            previous = self._remove_idle_writer(path)
            self._readers.pop(path, None)
            writer = self._writers[path] = Writer(self._bucket, path)
            writer.open(pid)
        if previous is not None:
            self._complete(path, previous)
        return writer

    def resume(self, path: str, handle: Reader | Writer) -> None:
        """End the idle state of a handle, for a read or write after a close.

        If the handle is idle, raise EBADF if its upload has ended, or if a later opening of the file has replaced it.
        """
        with self._lock:
            if not handle.is_idle:
                return
            if isinstance(handle, Writer):
                is_current = self._writers.get(path) is handle
            else:
                is_current = handle in self._readers.get(path, ())
            if not is_current:
                raise os_error(errno.EBADF)
            handle.is_idle = False

    def _remove_idle_writer(self, path: str) -> Writer | None:
        """Remove and return the file's writer, if it has one; raise EPERM if the writer is not idle."""
        writer = self._writers.get(path)
        if writer is None:
            return None
        if not writer.was_opened or not writer.is_idle:
            raise os_error(errno.EPERM)
        del self._writers[path]
        return writer

    def _complete(self, path: str, writer: Writer) -> None:
        writer.complete()
        with self._lock:
            self._forget_local_state(path)

    def finish_writing(self, path: str, writer: Writer) -> None:
        """If the writer is finished, remove it: S3 then defines the file and its folders."""
        with self._lock:
            if self._writers.get(path) is writer and writer.is_finished:
                del self._writers[path]
                if writer.has_failed:
                    failed_file = StoredObject(writer.size, writer.modified, "")
                    self._failed[path] = (time.monotonic() + FILE_CACHE_S, failed_file)
                self._forget_local_state(path)

    def _forget_local_state(self, path: str) -> None:
        self._cached.pop(path, None)
        while path := parent_of(path):
            self._local_folders.discard(path)

    def _add(self, path: str, add: Callable[[], T]) -> None:
        if self.fetch(path) is not None:
            raise os_error(errno.EEXIST)
        with self._lock:
            if path in self._writers or path in self._local_folders:
                raise os_error(errno.EEXIST)
            add()
