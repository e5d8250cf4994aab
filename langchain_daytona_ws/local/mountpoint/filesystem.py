"""The file system's operations, and which of them are refused how."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import time
from typing import Any, Protocol

from mfusepy import FUSE, Operations, fuse_get_context

from .bucket import Bucket, Stored
from .reading import Reading
from .tree import Folder, Tree, refusal
from .writing import Writing

ATOMIC_O_TRUNC = 1 << 3  # the kernel opens and truncates in one request
BLOCK_BYTES = 4096
# Each file open for writing needs a buffer of its own. The original reckons with 512 MiB of memory at the least, and
# may then have so many open.
WRITERS_MAX = 47
ATTRIBUTES_S = 200.0 * 365 * 24 * 3600


class Options(Protocol):
    """What of the command line matters here."""

    allow_delete: bool
    allow_overwrite: bool
    uid: int
    gid: int
    dir_mode: int
    file_mode: int


class FileSystem(Operations):  # type: ignore[misc]
    """S3 keys as files, with the restrictions that mount-s3 documents.

    There is no `create`: the kernel then makes and opens a file in two steps, as it does for the original.
    """

    use_ns = True

    def __init__(self, bucket: Bucket, tree: Tree, options: Options, ready: Any) -> None:
        self._bucket = bucket
        self._tree = tree
        self._options = options
        self._ready = ready
        self._mounted_at = time.time()
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[str, Reading | Writing]] = {}
        self._listed: dict[int, str] = {}
        self._lock = threading.Lock()
        self._renames: bool | None = None  # whether S3 can, by its first answer that tells

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        """Set up the connection: the kernel keeps attributes, and asks for every name anew.

        With each lookup come new attributes, so only what is looked up by nobody stays as it was: the root, whose
        attributes the kernel answers for ever (200 years in the original), also when the daemon is dead or hangs.
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
        if fh is not None and fh in self._open:
            handle = self._open[fh][1]
            if isinstance(handle, Reading):
                entry = handle.stored
            elif not handle.over:
                entry = handle
        if entry is None:
            entry = self._tree.look(self._named(path, fh))
        if entry is None:
            raise refusal(errno.ENOENT)
        return self._attributes(entry)

    def chmod(self, path: str | None, mode: int) -> int:
        return self._set(path)

    def chown(self, path: str | None, uid: int, gid: int) -> int:
        return self._set(path)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        return self._set(path, fh)

    def utimens(self, path: str | None, times: tuple[int, int] | None = None) -> int:
        self._set(path)
        writing = self._tree.writing(_inner(path))
        if writing is not None and times is not None:
            # The kernel gives the present as a number out of range.
            writing.accessed, writing.modified = (
                time.time() if not 0 <= one < 2**62 else one / 1e9 for one in times
            )
        return 0

    def _named(self, path: str | None, fh: int | None) -> str:
        """Return the path of an operation, which libfuse leaves out when there is a handle."""
        if path is None and fh is not None:
            return self._open[fh][0] if fh in self._open else self._listed[fh]
        return _inner(path)

    def _set(self, path: str | None, fh: int | None = None) -> int:
        """Accept and ignore changes while a file is being written, refuse them afterwards."""
        inner = self._named(path, fh)
        if self._tree.writing(inner) is not None or self._tree.is_local(inner):
            return 0
        self._tree.need(inner)
        raise refusal(errno.EPERM)

    def _attributes(self, entry: Folder | Writing | Stored) -> dict[str, Any]:
        size, accessed, modified = 0, self._mounted_at, self._mounted_at
        if isinstance(entry, Stored):
            size, accessed, modified = entry.size, entry.modified, entry.modified
        elif isinstance(entry, Writing):
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
        many = (2**64 - 1) // 1024
        return {
            "f_bsize": 512, "f_frsize": 512, "f_blocks": many, "f_bfree": many, "f_bavail": many,
            "f_files": many, "f_ffree": many, "f_favail": many, "f_namemax": 255,
        }  # fmt: skip

    # --- names ---

    def opendir(self, path: str) -> int:
        with self._lock:
            number = next(self._numbers)
            self._listed[number] = _inner(path)
        return number

    def readdir(self, path: str | None, fh: int) -> Any:
        return [".", "..", *self._tree.list(self._listed[fh])]

    def releasedir(self, path: str | None, fh: int) -> int:
        with self._lock:
            del self._listed[fh]
        return 0

    def mknod(self, path: str, mode: int, dev: int) -> int:
        if not stat.S_ISREG(mode):
            raise refusal(errno.EINVAL)
        self._tree.add_file(_inner(path))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._tree.add_folder(_inner(path))
        return 0

    def rmdir(self, path: str) -> int:
        self._tree.remove_folder(_inner(path))
        return 0

    def unlink(self, path: str) -> int:
        if not self._options.allow_delete:
            raise refusal(errno.EPERM)
        self._tree.remove_file(_inner(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        """Ask S3 to, until it has said that it cannot. What it says it did is taken to be done."""
        if self._renames is False:
            raise refusal(errno.ENOSYS)
        entry = self._tree.need(_inner(old))
        if isinstance(entry, (Folder, Writing)):
            raise refusal(errno.EPERM)
        target = self._tree.ask(_inner(new))
        if target is not None and not self._options.allow_overwrite:
            raise refusal(errno.EEXIST)
        if isinstance(target, Writing):
            raise refusal(errno.EPERM)
        try:
            self._bucket.rename(_inner(old), _inner(new), overwrite=self._options.allow_overwrite)
        except OSError as error:
            if error.errno == errno.ENOSYS and self._renames is None:
                self._renames = False
            raise
        self._renames = True
        return 0

    def symlink(self, target: str, source: str) -> int:
        raise refusal(errno.EPERM)

    def link(self, target: str, source: str) -> int:
        raise refusal(errno.EPERM)

    # --- contents ---

    def open(self, path: str, flags: int) -> int:
        inner = _inner(path)
        if flags & (os.O_SYNC | os.O_DSYNC):
            raise refusal(errno.EINVAL)
        entry = self._tree.need(inner)
        if isinstance(entry, Folder):
            raise refusal(errno.EISDIR)
        access = flags & os.O_ACCMODE
        overwrite = self._options.allow_overwrite and bool(flags & os.O_TRUNC)
        is_new = isinstance(entry, Writing) and not entry.opened
        handle: Reading | Writing
        if access == os.O_WRONLY or (access == os.O_RDWR and (is_new or overwrite)):
            if sum(isinstance(one, Writing) for _, one in list(self._open.values())) >= WRITERS_MAX:
                raise refusal(errno.ENOMEM)
            handle = self._tree.start_writing(inner, entry, overwrite, fuse_get_context()[2])
        else:
            handle = self._tree.start_reading(inner, entry)
        with self._lock:
            number = next(self._numbers)
            self._open[number] = (inner, handle)
        return number

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        inner, handle = self._open[fh]
        if not isinstance(handle, Reading):
            raise refusal(errno.EBADF)
        self._tree.resume(inner, handle)
        return handle.read(offset, size)

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        inner, handle = self._open[fh]
        if not isinstance(handle, Writing):
            raise refusal(errno.EBADF)
        self._tree.resume(inner, handle)
        try:
            return handle.write(offset, data)
        finally:
            self._tree.settle(inner, handle)

    def flush(self, path: str | None, fh: int) -> int:
        inner, handle = self._open[fh]
        if isinstance(handle, Reading):
            handle.is_idle = True
        else:
            try:
                handle.flush(fuse_get_context()[2])
            finally:
                self._tree.settle(inner, handle)
        return 0

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        inner, handle = self._open[fh]
        if isinstance(handle, Writing):
            try:
                handle.sync()
            finally:
                self._tree.settle(inner, handle)
        return 0

    def release(self, path: str | None, fh: int) -> int:
        with self._lock:
            inner, handle = self._open.pop(fh)
        if isinstance(handle, Reading):
            self._tree.finish_reading(inner, handle)
            return 0
        try:
            handle.release()
        finally:
            self._tree.settle(inner, handle)
        return 0


class Mount(FUSE):  # type: ignore[misc]
    """The binding's loop, which serves until the file system is unmounted."""

    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> int:
        """Pass on the handle too: for ftruncate there is nothing else that names the file."""
        named = None if path is None else path.decode(self.encoding, self.errors)
        return int(self.operations.truncate(named, length, fip.contents.fh if fip else None))


def _inner(path: str | None) -> str:
    """Return a path below the mount point without its slash; EPERM for one that has no name any more."""
    if path is None:
        raise refusal(errno.EPERM)
    return path[1:]
