"""Read, create and replace whole files.

An upload is a file on the sandbox's own disk, to which the host has sent the content. If possible, the upload is moved
to the path of the file. If not, and for content in the request, the file is overwritten in place: an S3 mount supports
no rename, append or chmod. Overwriting may fail after the old content is gone. So the old content is kept in memory, up
to a limit, and written back after a failure. The answer then reports the state of the file.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from langchain_daytona_ws._guest.walk import SAFE, Location, RefusedError, need_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

CHUNK = 1 << 20
MAX_BYTES = 10 << 20
OWN_HASH_BYTES = 128 << 10  # up to this size, hash without ``hashlib``, see `_sha256`
_BUSY_WAITS_S = (0.02, 0.05, 0.1, 0.2, 0.4)


class Content:
    """A file's hash, size, modification time and bytes. ``data`` is None if the file was larger than a given limit."""

    __slots__ = ("data", "mtime_ns", "sha256", "size")

    def __init__(self, sha256: str, size: int, mtime_ns: int, data: bytes | None) -> None:
        self.sha256 = sha256
        self.size = size
        self.mtime_ns = mtime_ns
        self.data = data


class Source:
    """The bytes to write, from the request or from an upload. `close` removes the upload.

    Reading an upload to hash it takes time. If only this user can have written the upload, only its size is checked,
    and the hash from the host is used.
    """

    def __init__(
        self,
        data: bytes | None,
        path: str | None,
        sha256: str | None = None,
        size: int | None = None,
        executable: bool = False,
    ) -> None:
        self.path = path
        self.is_own = False
        self.executable = executable
        if data is not None:
            self._fd = -1
            self._data = data
        else:
            self._data = b""
            self._fd = self._open_upload()
            status = os.fstat(self._fd)
            if size is not None and status.st_size != size:
                self.close()
                raise RefusedError("staging")
            self.is_own = size is not None and status.st_uid == os.geteuid() and status.st_nlink == 1
        self.size = 0
        if self.is_own and sha256 is not None:
            self.size, self.sha256 = status.st_size, sha256
            return
        self.sha256 = self._hash()
        if sha256 is not None and sha256 != self.sha256:
            self.close()
            raise RefusedError("staging")

    def move(self, location: Location, old: os.stat_result | None) -> bool:
        """Move the upload to the path of the file, atomically. Return False if it must be copied instead.

        Args:
            location: The file.
            old: The status of the file to replace; None to create it.

        Raises:
            FileExistsError: Another process created the file first.
        """
        above = os.fstat(location.parent)
        if not self.is_own or above.st_mode & stat.S_ISGID:  # a new file must get the group of the directory
            return False
        upload = os.fstat(self._fd)
        if old is None:
            mask = os.umask(0)
            os.umask(mask)
            mode = self.new_mode & ~mask
        else:
            # A rename would change the file's owner, or leave the old content under its other names (hard links).
            if old.st_nlink != 1 or (old.st_uid, old.st_gid) != (upload.st_uid, upload.st_gid):
                return False
            mode = stat.S_IMODE(old.st_mode)
            if not mode & stat.S_IWUSR:  # not writable: the caller opens it for writing, which only root can
                return False
            if self.executable:
                mode = _executable_mode(mode)
        try:
            os.fchmod(self._fd, mode)
            if old is None:
                os.link(str(self.path), location.name, dst_dir_fd=location.parent, follow_symlinks=False)
            else:
                os.rename(str(self.path), location.name, dst_dir_fd=location.parent)
        except FileExistsError:
            raise
        except OSError:  # another file system, such as a mount, or no permission to write in the directory
            return False
        return True

    @property
    def new_mode(self) -> int:
        """The mode of a new file, without the umask."""
        return 0o777 if self.executable else 0o666

    def make_executable(self, location: Location) -> None:
        """Make a file executable if the source is executable. Ignore a failure, as on an S3 mount."""
        if not self.executable:
            return
        try:
            fd = location.open(os.O_RDONLY)
            try:
                mode = stat.S_IMODE(os.fstat(fd).st_mode)
                os.fchmod(fd, _executable_mode(mode))
            finally:
                os.close(fd)
        except OSError:
            return

    def chunks(self) -> Iterator[bytes]:
        if self._fd < 0:
            yield self._data
            return
        os.lseek(self._fd, 0, os.SEEK_SET)
        yield from _chunks(self._fd)

    def close(self) -> None:
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        try:
            os.unlink(str(self.path))
        except OSError:  # old uploads are pruned
            return

    def _open_upload(self) -> int:
        try:
            fd = os.open(str(self.path), os.O_RDONLY | SAFE)
        except OSError:
            raise RefusedError("staging") from None
        try:
            need_file(os.fstat(fd))
        except RefusedError:
            os.close(fd)
            raise RefusedError("staging") from None
        return fd

    def _hash(self) -> str:
        digest = _sha256(len(self._data) if self._fd < 0 else os.fstat(self._fd).st_size)
        for chunk in self.chunks():
            digest.update(chunk)
            self.size += len(chunk)
        return str(digest.hexdigest())


def load(location: Location, max_bytes: int) -> Content:
    """Read and hash a regular file. The bytes of a file of more than ``max_bytes`` bytes are not kept."""
    for wait_s in (*_BUSY_WAITS_S, None):
        need_file(location.status())  # checked before the file is opened: opening a device can have effects
        try:
            fd = location.open(os.O_RDONLY)
        except OSError as error:
            _wait_or_raise(error, wait_s)
            continue
        try:
            status = need_file(os.fstat(fd))
            digest = _sha256(status.st_size)
            chunks: list[bytes] | None = []
            size = 0
            for chunk in _chunks(fd):
                digest.update(chunk)
                size += len(chunk)
                if size > max_bytes:
                    chunks = None
                if chunks is not None:
                    chunks.append(chunk)
        except OSError as error:
            _wait_or_raise(error, wait_s)
            continue
        finally:
            os.close(fd)
        data = None if chunks is None else b"".join(chunks)
        return Content(digest.hexdigest(), size, status.st_mtime_ns, data)
    raise RefusedError("busy")


def create(location: Location, source: Source) -> bool:
    """Write a new file; return False if another process created it first."""
    try:
        if source.move(location, None):
            return True
        fd = location.open(os.O_WRONLY | os.O_CREAT | os.O_EXCL, source.new_mode)
    except FileExistsError:
        return False
    error = _fill(fd, source.chunks())
    if error is None:
        return True
    _unlink(location)  # a partial file would look complete
    raise _failure(error, location, None)


def replace(location: Location, chunks: Iterable[bytes], old: Content) -> None:
    """Overwrite a regular file in place. After a failure, write the old content back if possible, then raise."""
    error = _overwrite(location, chunks)
    if error is None:
        return
    if (
        old.data is not None
        and _state(location, old)[0] != "unchanged"
        and _overwrite(location, [old.data]) is None
    ):
        raise _failure(error, location, old, restored=True)
    raise _failure(error, location, old)


def _overwrite(location: Location, chunks: Iterable[bytes]) -> OSError | None:
    for wait_s in (*_BUSY_WAITS_S, None):
        need_file(location.status())
        try:
            fd = location.open(os.O_WRONLY | os.O_TRUNC)
            break
        except OSError as error:
            # An S3 mount refuses to write a file that was just read, until the kernel has released the reader.
            if error.errno != errno.EPERM or wait_s is None:
                return error
            time.sleep(wait_s)
    return _fill(fd, chunks)


def _fill(fd: int, chunks: Iterable[bytes]) -> OSError | None:
    """Write all chunks and close the file; return the first error. An S3 mount uploads, and may fail, only on close."""
    failure: OSError | None = None
    try:
        need_file(os.fstat(fd))
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
    except OSError as error:
        failure = error
    finally:
        try:
            os.close(fd)
        except OSError as error:
            failure = failure or error
    return failure


def _failure(error: OSError, location: Location, old: Content | None, restored: bool = False) -> RefusedError:
    state, size = _state(location, old)
    if restored and state == "unchanged":
        state = "restored"
    name = errno.errorcode.get(error.errno or 0, "EIO")
    return RefusedError("write_failed", errno=name, text=error.strerror or "", state=state, bytes=size)


def _state(location: Location, old: Content | None) -> tuple[str, int]:
    """Read the file after a failed write. Return its state, see ``files``, and its size in bytes."""
    try:
        now = load(location, 0)
    except RefusedError as refusal:
        return ("absent" if refusal.error == "missing" else "unknown"), 0
    except OSError:
        return "unknown", 0
    return ("unchanged" if old is not None and now.sha256 == old.sha256 else "partial"), now.size


def _unlink(location: Location) -> None:
    try:
        os.unlink(location.name, dir_fd=location.parent)
    except OSError:  # the caller reports the file
        return


def _executable_mode(mode: int) -> int:
    """Return the mode in which owner, group and others may execute the file if they may read it."""
    return mode | (mode & 0o444) >> 2


def _sha256(size: int) -> Any:
    """Return a new hash for ``size`` bytes.

    ``hashlib`` hashes 1 MiB in 1 ms, Python's built-in module in 10 ms; but importing ``hashlib`` takes 3 to 10 ms.
    """
    if size <= OWN_HASH_BYTES:
        for name in ("_sha2", "_sha256"):  # the built-in module from Python 3.12 on, and before
            try:
                return __import__(name).sha256()
            except (ImportError, AttributeError):
                continue
    from hashlib import sha256

    return sha256()


def _chunks(fd: int) -> Iterator[bytes]:
    while True:
        chunk = os.read(fd, CHUNK)
        if not chunk:
            return
        yield chunk


def _wait_or_raise(error: OSError, wait_s: float | None) -> None:
    """Wait ``wait_s`` seconds if S3 mounts return this error for a file that is being changed (measured).

    Raise other errors. If ``wait_s`` is None, raise any error.
    """
    if error.errno == errno.ELOOP:  # a symlink replaced the file after the check
        raise RefusedError("busy") from None
    if error.errno not in (errno.ESTALE, errno.EPERM) or wait_s is None:
        raise error
    time.sleep(wait_s)
