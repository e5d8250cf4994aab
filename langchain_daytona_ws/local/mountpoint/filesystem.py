"""The operations of the file system, and the errors of unsupported operations."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import time
from typing import Any, Protocol

from mfusepy import FUSE, Operations, fuse_get_context

from .bucket import Bucket, StoredObject
from .handles import Reader, Writer
from .tree import Folder, Tree, os_error

ATOMIC_O_TRUNC = 1 << 3  # the kernel opens and truncates in one request
BLOCK_BYTES = 4096
# Each file open for writing needs a buffer. The original's minimum memory, 512 MiB, suffices for this many files.
MAX_WRITERS = 47
ATTRIBUTES_S = 200.0 * 365 * 24 * 3600


class Options(Protocol):
    """The command-line options that the file system uses."""

    allow_delete: bool
    allow_overwrite: bool
    uid: int
    gid: int
    dir_mode: int
    file_mode: int


class FileSystem(Operations):  # type: ignore[misc]
    """S3 keys as files, with the restrictions that mount-s3 documents.

    It does not implement `create`: the kernel creates and opens a file in two steps, as with the original.
    """

    use_ns = True

    def __init__(self, bucket: Bucket, tree: Tree, options: Options, ready: Any) -> None:
        self._bucket = bucket
        self._tree = tree
        self._options = options
        self._ready = ready
        self._mounted_at = time.time()
        self._numbers = itertools.count(1)
        self._open_files: dict[int, tuple[str, Reader | Writer]] = {}
        self._open_folders: dict[int, str] = {}
        self._lock = threading.Lock()
        self._can_rename: bool | None = None  # None until S3 has renamed a file or returned 501

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        """Set up the connection. The kernel caches attributes, but not names: it looks up each name every time.

        Each lookup returns new attributes. The root is never looked up: its attributes are cached for 200 years, as in
        the original. So a stat of the root succeeds even if this process is dead or hangs.
        """
        if conn_info is not None:
            conn_info.want |= ATOMIC_O_TRUNC
        config_3.hard_remove = 1
        config_3.nullpath_ok = 1
        config_3.entry_timeout = config_3.negative_timeout = 0.0
        config_3.attr_timeout = ATTRIBUTES_S
        self._ready()

    # --- attributes ---

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        entry: Any = None
        if fh is not None and fh in self._open_files:
            handle = self._open_files[fh][1]
            if isinstance(handle, Reader):
                entry = handle.stored
            elif not handle.is_finished:
                entry = handle
        if entry is None:
            entry = self._tree.lookup(self._path_of(path, fh))
        if entry is None:
            raise os_error(errno.ENOENT)
        return self._attributes(entry)

    def chmod(self, path: str | None, mode: int) -> int:
        return self._ignore_or_refuse(path)

    def chown(self, path: str | None, uid: int, gid: int) -> int:
        return self._ignore_or_refuse(path)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        return self._ignore_or_refuse(path, fh)

    def utimens(self, path: str | None, times: tuple[int, int] | None = None) -> int:
        self._ignore_or_refuse(path)
        writer = self._tree.writer(_relative(path))
        if writer is not None and times is not None:
            # The kernel sends an out-of-range number for the current time.
            writer.accessed, writer.modified = (
                time.time() if not 0 <= nanoseconds < 2**62 else nanoseconds / 1e9 for nanoseconds in times
            )
        return 0

    def _path_of(self, path: str | None, fh: int | None) -> str:
        """Return the path of an operation. If libfuse sends a handle, it does not send the path."""
        if path is None and fh is not None:
            return self._open_files[fh][0] if fh in self._open_files else self._open_folders[fh]
        return _relative(path)

    def _ignore_or_refuse(self, path: str | None, fh: int | None = None) -> int:
        """Ignore attribute changes of files being written and of local folders; refuse other attribute changes."""
        inner = self._path_of(path, fh)
        if self._tree.writer(inner) is not None or self._tree.is_local(inner):
            return 0
        self._tree.require(inner)
        raise os_error(errno.EPERM)

    def _attributes(self, entry: Folder | Writer | StoredObject) -> dict[str, Any]:
        size, accessed, modified = 0, self._mounted_at, self._mounted_at
        if isinstance(entry, StoredObject):
            size, accessed, modified = entry.size, entry.modified, entry.modified
        elif isinstance(entry, Writer):
            size, accessed, modified = entry.size, entry.accessed, entry.modified
        folder = isinstance(entry, Folder)
        mode = stat.S_IFDIR | self._options.dir_mode if folder else stat.S_IFREG | self._options.file_mode
        return {
            "st_mode": mode,
            "st_nlink": 2 if folder else 1,
            "st_uid": self._options.uid,
            "st_gid": self._options.gid,
            "st_size": size,
            "st_blocks": -(-size // 512),
            "st_blksize": BLOCK_BYTES,
            "st_atime": int(accessed * 1e9),
            "st_mtime": int(modified * 1e9),
            "st_ctime": int(modified * 1e9),
        }

    def statfs(self, path: str) -> dict[str, int]:
        unlimited = (2**64 - 1) // 1024
        return {
            "f_bsize": 512, "f_frsize": 512, "f_blocks": unlimited, "f_bfree": unlimited, "f_bavail": unlimited,
            "f_files": unlimited, "f_ffree": unlimited, "f_favail": unlimited, "f_namemax": 255,
        }  # fmt: skip

    # --- names ---

    def opendir(self, path: str) -> int:
        with self._lock:
            number = next(self._numbers)
            self._open_folders[number] = _relative(path)
        return number

    def readdir(self, path: str | None, fh: int) -> Any:
        return [".", "..", *self._tree.list(self._open_folders[fh])]

    def releasedir(self, path: str | None, fh: int) -> int:
        with self._lock:
            del self._open_folders[fh]
        return 0

    def mknod(self, path: str, mode: int, dev: int) -> int:
        if not stat.S_ISREG(mode):
            raise os_error(errno.EINVAL)
        self._tree.add_file(_relative(path))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._tree.add_folder(_relative(path))
        return 0

    def rmdir(self, path: str) -> int:
        self._tree.remove_folder(_relative(path))
        return 0

    def unlink(self, path: str) -> int:
        if not self._options.allow_delete:
            raise os_error(errno.EPERM)
        self._tree.remove_file(_relative(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        """Rename in S3. If S3 has returned 501 before any success, raise ENOSYS without a request."""
        if self._can_rename is False:
            raise os_error(errno.ENOSYS)
        entry = self._tree.require(_relative(old))
        if isinstance(entry, (Folder, Writer)):
            raise os_error(errno.EPERM)
        target = self._tree.fetch(_relative(new))
        if target is not None and not self._options.allow_overwrite:
            raise os_error(errno.EEXIST)
        if isinstance(target, Writer):
            raise os_error(errno.EPERM)
        try:
            self._bucket.rename(_relative(old), _relative(new), overwrite=self._options.allow_overwrite)
        except OSError as error:
            if error.errno == errno.ENOSYS and self._can_rename is None:
                self._can_rename = False
            raise
        self._can_rename = True
        return 0

    def symlink(self, target: str, source: str) -> int:
        raise os_error(errno.EPERM)

    def link(self, target: str, source: str) -> int:
        raise os_error(errno.EPERM)

    # --- contents ---

    def open(self, path: str, flags: int) -> int:
        inner = _relative(path)
        if flags & (os.O_SYNC | os.O_DSYNC):
            raise os_error(errno.EINVAL)
        entry = self._tree.require(inner)
        if isinstance(entry, Folder):
            raise os_error(errno.EISDIR)
        access = flags & os.O_ACCMODE
        overwrite = self._options.allow_overwrite and bool(flags & os.O_TRUNC)
        is_new = isinstance(entry, Writer) and not entry.was_opened
        handle: Reader | Writer
        if access == os.O_WRONLY or (access == os.O_RDWR and (is_new or overwrite)):
            if (
                sum(isinstance(opened, Writer) for _, opened in list(self._open_files.values()))
                >= MAX_WRITERS
            ):
                raise os_error(errno.ENOMEM)
            handle = self._tree.start_writing(inner, entry, overwrite, fuse_get_context()[2])
        else:
            handle = self._tree.start_reading(inner, entry)
        with self._lock:
            number = next(self._numbers)
            self._open_files[number] = (inner, handle)
        return number

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        inner, handle = self._open_files[fh]
        if not isinstance(handle, Reader):
            raise os_error(errno.EBADF)
        self._tree.resume(inner, handle)
        return handle.read(offset, size)

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        inner, handle = self._open_files[fh]
        if not isinstance(handle, Writer):
            raise os_error(errno.EBADF)
        self._tree.resume(inner, handle)
        try:
            return handle.write(offset, data)
        finally:
            self._tree.finish_writing(inner, handle)

    def flush(self, path: str | None, fh: int) -> int:
        inner, handle = self._open_files[fh]
        if isinstance(handle, Reader):
            handle.is_idle = True
        else:
            try:
                handle.flush(fuse_get_context()[2])
            finally:
                self._tree.finish_writing(inner, handle)
        return 0

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        inner, handle = self._open_files[fh]
        if isinstance(handle, Writer):
            try:
                handle.sync()
            finally:
                self._tree.finish_writing(inner, handle)
        return 0

    def release(self, path: str | None, fh: int) -> int:
        with self._lock:
            inner, handle = self._open_files.pop(fh)
        if isinstance(handle, Reader):
            self._tree.finish_reading(inner, handle)
            return 0
        try:
            handle.release()
        finally:
            self._tree.finish_writing(inner, handle)
        return 0


class Mount(FUSE):  # type: ignore[misc]
    """The main loop of the FUSE binding; it runs until the file system is unmounted."""

    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> int:
        """Pass the handle too: for an ftruncate, only the handle identifies the file."""
        decoded = None if path is None else path.decode(self.encoding, self.errors)
        return int(self.operations.truncate(decoded, length, fip.contents.fh if fip else None))


def _relative(path: str | None) -> str:
    """Return a path without its leading slash; raise EPERM for a deleted file, which has no path."""
    if path is None:
        raise os_error(errno.EPERM)
    return path[1:]
