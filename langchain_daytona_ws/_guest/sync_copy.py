"""A working copy of an S3 prefix: the transfer of single files in both directions, and conflict copies.

A working copy is a directory on the sandbox's disk that is synchronised with an S3 prefix. Each file is one object,
whose key is the prefix and the path. The object's user metadata contain the mode and the time of the file, in the form
of AWS's own file services (`file-permissions`, `file-mtime`). The object of a symbolic link contains the link's target.
An empty directory is an empty object whose key ends in ``/``; other directories need no object.

If a file was changed here and in S3, both versions are kept: the file here is renamed to a conflict copy.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from langchain_daytona_ws._guest.sync_answers import S3Error, unix_time
from langchain_daytona_ws._guest.sync_objects import Objects
from langchain_daytona_ws._guest.sync_s3 import Bucket
from langchain_daytona_ws._guest.sync_trash import Trash, remove, shortened
from langchain_daytona_ws._guest.sync_tree import (
    KEY_BYTES,
    PATH_BYTES,
    RACY_NS,
    Entry,
    Index,
    Tree,
    digest_of,
    digest_of_open,
    is_racy,
    parents,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, TypeVar

    from langchain_daytona_ws._guest.sync_answers import ObjectProperties

    T = TypeVar("T")

    Spec = dict[str, Any]
    Pairs = list[list[str]]

WORKERS = 64  # 2,000 requests of 25 ms then take 0.8 seconds; more threads only wait for each other
PLAIN_MODE = stat.S_IFREG | 0o644  # mode of a file whose object has no mode
NAMES_MAX = 20  # paths of each kind in a report


class FileChanged(Exception):
    """A program has changed, created or deleted a file at a path that was about to be written."""


class Report:
    """The results of all synchronisations since the last report was delivered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts = {"pulled": 0, "pushed": 0, "removed_here": 0, "removed_there": 0}
        self.conflicts: Pairs = []  # path, path of the copy
        self.restored: Pairs = []  # path, reason
        self.skipped: Pairs = []  # path, reason
        self.seconds = 0.0

    def count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def values(self) -> dict[str, object]:
        lists = {"conflicts": self.conflicts, "restored": self.restored, "skipped": self.skipped}
        found: dict[str, object] = {**self.counts, "seconds": float(round(self.seconds, 4))}
        for name, items in lists.items():
            found[name] = sorted(items)[:NAMES_MAX]
            found[name + "_count"] = len(items)
        return found


class WorkingCopy:
    """One working copy: its index, its report, and its connection to S3.

    The ``spec`` contains ``root``, ``state`` (a directory next to the root, for the index, temporary files and the
    trash), ``bucket``, ``prefix``, ``region``, ``endpoint``, ``label`` (part of the names of conflict copies),
    ``ignored``, ``read_only``, and ``limit_bytes`` (for a pull; None for half of the free disk space).
    """

    def __init__(self, spec: Spec, credentials: dict[str, str | None]) -> None:
        self.spec = spec
        self.prefix: str = spec["prefix"]
        self.bucket = Bucket(spec, credentials)
        self.tree = Tree(spec["root"], spec["ignored"])
        self.pool = ThreadPoolExecutor(WORKERS)
        self._objects = Objects(self.bucket)
        self._numbers = itertools.count()
        self._temporary = spec["state"] + "/new"
        self.trash = Trash(spec["state"] + "/trash")
        self._copy_name_lock = threading.Lock()
        self._make_state()
        for name in os.listdir(self._temporary):  # left by a resident that was killed
            remove("%s/%s" % (self._temporary, name))
        self.report = Report()
        self.reported: set[str] = set()  # skipped files with their reasons: each is reported once
        self.is_new_directory = False
        self.index = self._index(self.tree.identity(), starts_empty=False)

    def _make_state(self) -> None:
        os.makedirs(self._temporary, mode=0o700, exist_ok=True)
        self.trash.make()

    def _index(self, identity: list[int] | None, *, starts_empty: bool) -> Index:
        where = [self.spec[name] for name in ("endpoint", "bucket", "prefix")]
        return Index(self.spec["state"] + "/index", [identity, *where], starts_empty=starts_empty)

    @property
    def is_bound(self) -> bool:
        """Whether the index belongs to the directory that exists now."""
        return self.index.binding[0] == self.tree.identity()

    def bind(self) -> None:
        """Begin a new index if the workspace's directory was replaced. If the directory is missing, create it.

        With the old index, a push would delete the objects of all files that are missing in the new directory.
        """
        self._make_state()
        if self.is_bound and self.index.binding[0] is not None:
            return
        os.makedirs(self.tree.root, exist_ok=True)
        self.is_new_directory = True
        if self.index.entries:
            self.report.restored.append(
                ["./", "the workspace's directory was replaced, which deletes nothing in S3"]
            )
        honours = self.index.honours_delete
        self.index = self._index(self.tree.identity(), starts_empty=True)
        self.index.honours_delete = honours

    def forget_report(self) -> None:
        self.report = Report()

    def for_each(self, work: Callable[[str], T | None], paths: list[str]) -> list[T]:
        """Call ``work`` with each path, in parallel. Return the results that are not None.

        The threads take the paths from one iterator: a future for each of 10,000 paths would need 10 MiB.
        """
        remaining = iter(paths)
        cpu = _any_cpu() if len(paths) > WORKERS else None

        def run(_: int) -> list[T]:
            return _on_cpu(cpu, lambda: [result for result in map(work, remaining) if result is not None])

        results = self.pool.map(run, range(min(WORKERS, len(paths))))
        return list(itertools.chain.from_iterable(results))

    # --- single files ---

    def skip(self, path: str, reason: str) -> None:
        """Report, once for each reason, that a file is not synchronised."""
        if path + "\0" + reason not in self.reported:
            self.reported.add(path + "\0" + reason)
            self.report.skipped.append([path, reason])

    def is_same_content(self, path: str, status: os.stat_result, entry: Entry) -> bool:
        """Return whether a file has the kind and the content that are recorded in the index."""
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(entry.mode):
            return False
        if entry.is_unchanged(status):
            return True
        if entry.size != status.st_size:
            return False
        return digest_of(self.tree.path(path), status, like=entry.content) == entry.content

    def rename_to_copy(self, path: str, source: str | None = None) -> str:
        """Make a file a conflict copy of ``path``, by renaming it; return its new path.

        Args:
            path: The file to rename, and to remove from the index, unless ``source`` is given.
            source: A file outside of the working copy, which is moved to the new path instead.
        """
        directory, _, name = path.rpartition("/")
        base = "%s%s.conflict-%s" % (directory and directory + "/", shortened(name), self.spec["label"])
        copy, number = base, 1
        with self._copy_name_lock:
            while self.tree.status(copy) is not None or copy in self.index.entries:
                number += 1
                copy = "%s-%d" % (base, number)
            os.rename(source or self.tree.path(path), self.tree.path(copy))
        if source is None:
            self.index.drop(path)
        return copy

    def discard(self, path: str, status: os.stat_result) -> None:
        """Move a file that was deleted in S3 to the trash, or remove an empty directory. Then remove the directories
        above that have become empty.
        """
        if stat.S_ISDIR(status.st_mode):
            try:
                os.rmdir(self.tree.path(path.rstrip("/")))
            except OSError:
                return  # the directory is not empty
        else:
            self.move_to_trash(path, status)
        for parent in reversed(list(parents(path))):
            if parent + "/" in self.index.entries:
                return
            try:
                os.rmdir(self.tree.path(parent))
            except OSError:
                return

    def move_to_trash(self, path: str, status: os.stat_result) -> None:
        os.rename(self.tree.path(path), self.trash.new_path(path, status))

    def make_directories(self, path: str) -> None:
        """Create the directories above a path, or a directory's path itself. Links are not followed.

        Raises:
            FileChanged: A file or link, which is named, is at the path of one of these directories.
        """
        for directory in parents(path + "/"):
            try:
                os.mkdir(self.tree.path(directory))
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(self.tree.path(directory)).st_mode):
                    raise FileChanged(directory) from None

    def restore_written(self) -> None:
        """Restore each file that a program has written since a pull removed or replaced the file.

        If its path, or that of a directory above it, has another file now, the written file becomes a conflict copy.
        """
        for kept, path in self.trash.written():
            try:
                self._restore_written(kept, path)
            except FileNotFoundError:
                pass  # the trash was emptied
            except OSError as error:
                self.skip(path, error.strerror or str(error))

    def _restore_written(self, kept: str, path: str) -> None:
        at = path
        try:
            if self.tree.status(path) is None:
                self.make_directories(path)
                os.rename(kept, self.tree.path(path))
                self.report.restored.append([path, "a program here still writes it; it was deleted in S3"])
                return
        except FileChanged as error:
            at = error.args[0]  # a link or file in place of a directory above
        self.report.conflicts.append([path, self.rename_to_copy(at, kept)])

    # --- download ---

    def download(
        self,
        path: str,
        size: int,
        etag: str,
        modified: str,
        expected: os.stat_result | None,
        *,
        is_changed: bool = False,
    ) -> bool:
        """Download an object, create or replace its file, and record both in the index.

        Return False if the object no longer exists.

        Args:
            path: The file.
            size: Size of the object, in bytes.
            etag: Last known ETag of the object; the object may have been replaced since.
            modified: Time of the object's last change in the listing; "" if ``etag`` is not from a listing.
            expected: Status of the file that may be replaced; None if there must be no file.
            is_changed: True if the file may have content that S3 lacks. If its content differs from the object's, the
                file is renamed to a conflict copy.

        Raises:
            FileChanged: The file has changed, or there is a file although ``expected`` is None, or a directory above it
                is a file or link now.
            S3Error, LocalError, OSError: The download failed. The file is unchanged, or is a conflict copy now.
        """
        new = "%s/%d" % (self._temporary, next(self._numbers))
        is_installed = False
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            found, content = self._objects.load(self.prefix + path, size, etag, fd)
            if expected is not None and is_changed:
                expected = self._keep_changed(path, found, fd, content, expected)
            if expected is None or not is_changed:
                self._install(path, found, fd, new, content=content, expected=expected)
                is_installed = True
        except S3Error as error:
            if error.code == "missing":
                return False
            raise
        finally:
            os.close(fd)
            if not is_installed:
                remove(new)
        entry = self.index.entries.get(path)
        if found.etag == etag and modified and entry is not None:
            entry.modified = modified
        return True

    def _keep_changed(
        self, path: str, found: ObjectProperties, fd: int, content: str, status: os.stat_result
    ) -> os.stat_result | None:
        """If a file equals its object, record it in the index and return its status. Otherwise rename it to a conflict
        copy, and return None.

        Raises:
            FileChanged: The file has changed since ``status``.
        """
        read_at_ns = time.time_ns()
        if _has_content(self.tree.path(path), status, fd, found.mode, content):
            self.adopt(path, status, found, digest=content, is_racy=is_racy(status, read_at_ns))
            return status
        now = self.tree.status(path)
        if now is None or _stamp(now) != _stamp(status):
            raise FileChanged(path)
        self.report.conflicts.append([path, self.rename_to_copy(path)])
        return None

    def adopt(
        self,
        path: str,
        status: os.stat_result,
        found: ObjectProperties | None,
        *,
        digest: str = "",
        is_racy: bool = True,
    ) -> None:
        """Record in the index that a file has the content of its object.

        If the object has another mode, the next push stores the file's mode.
        """
        entry = Entry(found.etag if found else "", status, digest=digest, is_racy=is_racy)
        if found is not None:
            entry.put_at = unix_time(found.modified)
            entry.mode = found.mode or PLAIN_MODE
        self.index.set(path, entry)

    def _install(
        self,
        path: str,
        found: ObjectProperties,
        fd: int,
        new: str,
        *,
        content: str,
        expected: os.stat_result | None,
    ) -> None:
        """Move a downloaded file to its path, with its mode and time, or create its link or directory. Record it in the
        index.
        """
        mode = found.mode
        if not mode:  # written by a program that does not save modes: keep the mode that the file has here
            mode = expected.st_mode if expected is not None and stat.S_ISREG(expected.st_mode) else PLAIN_MODE
        at = self.tree.path(path.rstrip("/"))
        if path.endswith("/"):
            self.make_directories(path)
            if stat.S_ISDIR(found.mode):
                os.chmod(at, found.mode & 0o777 | 0o700)
            made = Entry(found.etag, os.lstat(at), digest=content, put_at=unix_time(found.modified))
            self.index.set(path, made)
            os.unlink(new)
            return
        target = _target(fd) if stat.S_ISLNK(mode) else b""
        if target:
            os.unlink(new)
            os.symlink(target, os.fsencode(new))
        else:
            mode = PLAIN_MODE if stat.S_ISLNK(mode) else mode
            # Never set the set-user-ID, set-group-ID and sticky bits.
            os.fchmod(fd, mode & 0o777)
            mtime_ns = found.mtime_ns
            if mtime_ns is None:
                mtime_ns = int(unix_time(found.modified) * 1e9) or time.time_ns()
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        if expected is None:
            self.make_directories(path)
            _move_new(new, at)
        else:
            now = self.tree.status(path)
            if now is None or _stamp(now) != _stamp(expected):
                raise FileChanged(path)
            if stat.S_ISREG(now.st_mode):
                try:
                    os.link(at, self.trash.new_path(path, now))
                except OSError:
                    pass  # another user's file, or a disk without hard links: later writes to the old file are lost
            os.rename(new, at)
        status = os.lstat(at)
        entry = Entry(found.etag, status, digest=content)
        entry.put_at = unix_time(found.modified)
        if not found.mode:
            entry.mode = PLAIN_MODE  # the next push stores the mode, so that other copies have it too
        # If the modification time is more than RACY_NS ago, any later write gives the file another modification time.
        entry.is_racy = status.st_mtime_ns > time.time_ns() - RACY_NS
        self.index.set(path, entry)

    # --- upload ---

    def upload(self, path: str, status: os.stat_result, condition: dict[str, str]) -> None:
        """Store a file as an object, and record both in the index.

        Args:
            path: The file, link, or empty directory (with a final ``/``).
            status: The file's status before this call.
            condition: The header ``if-match`` or ``if-none-match`` of the request.

        Raises:
            S3Error: The upload failed; with ``changed`` or ``missing``, because the condition does not hold.
            LocalError, OSError: The file cannot be read.
        """
        key, at = self.prefix + path, self.tree.path(path)
        for _ in range(2):  # a file that changed while it was read is read again
            read_at_ns = time.time_ns()
            etag, put_at, digest = self._objects.store(key, at, status, condition)
            known = self.index.entries.get(path)
            if known is not None and known.etag == etag and put_at and put_at <= known.changed_at:
                # Only the mode or time has changed, in the same second as the last change. A listing shows ETags and
                # whole seconds, so other copies would not notice: store the object again in the next second.
                time.sleep(1.0)
                etag, put_at, digest = self._objects.store(key, at, status, {"if-match": '"%s"' % etag})
            entry = Entry(etag, status, digest=digest, put_at=put_at, is_racy=is_racy(status, read_at_ns))
            self.index.set(path, entry)
            now = self.tree.status(path)
            if now is None or path.endswith("/") or _stamp(now) == _stamp(status):
                return
            condition, status = {"if-match": '"%s"' % etag}, now
            if not (stat.S_ISREG(now.st_mode) or stat.S_ISLNK(now.st_mode)):
                return

    def permanent_problem(self, path: str) -> str:
        """Return why a file can never be saved; "" if it can."""
        if len((self.prefix + path).encode()) > KEY_BYTES:
            return "its key is longer than 1,024 bytes, S3's limit"
        return ""


def _any_cpu() -> int | None:
    try:
        cpus = sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return None
    return cpus[os.getpid() % len(cpus)]


def _on_cpu(cpu: int | None, work: Callable[[], T]) -> T:
    """Run ``work`` in this thread, only on the given CPU; if ``cpu`` is None, on any CPU.

    Threads on different CPUs that wait for the interpreter's lock wake each other at each system call. Measured: 10,000
    downloads take 8.8 s of CPU time on two CPUs, 4.9 s on one.
    """
    if cpu is None:
        return work()
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:  # not allowed here, or this CPU was removed
        return work()
    try:
        return work()
    finally:
        try:
            os.sched_setaffinity(0, before)
        except OSError:
            pass  # some of these CPUs were removed


def _move_new(new: str, at: str) -> None:
    """Move a file to a path at which there must be no file. A file system without hard links cannot check this: there,
    a file at the path is replaced.

    Raises:
        FileChanged: There is a file at the path.
    """
    try:
        os.link(new, at, follow_symlinks=False)
    except FileExistsError:
        raise FileChanged(at) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        os.rename(new, at)  # a file system without hard links
    else:
        os.unlink(new)


def _target(fd: int) -> bytes:
    """Return the content of an open file; ``b""`` if it cannot be the target of a symbolic link."""
    target = os.pread(fd, PATH_BYTES + 1, 0)
    return b"" if len(target) > PATH_BYTES or b"\0" in target else target


def _has_content(path: str, status: os.stat_result, fd: int, mode: int, digest: str) -> bool:
    """Return whether a file has the kind and the content of a downloaded object.

    ``fd``: the downloaded content. ``digest``: its MD5; "" if unknown. ``mode``: the object's mode; 0 if unknown.
    """
    kind = stat.S_IFMT(mode) or stat.S_IFREG
    size = os.fstat(fd).st_size
    if (
        stat.S_IFMT(status.st_mode) != kind
        or kind not in (stat.S_IFREG, stat.S_IFLNK)
        or status.st_size != size
    ):
        return False
    return digest_of(path, status) == (digest or digest_of_open(fd, size))


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
