"""Push: copy changes in a working copy to its S3 prefix after a command, without overwriting other writers' changes."""

from __future__ import annotations

import os
import stat
import time

from langchain_daytona_ws._guest.sync_answers import S3Error
from langchain_daytona_ws._guest.sync_copy import FileChanged
from langchain_daytona_ws._guest.sync_s3 import LocalError
from langchain_daytona_ws._guest.sync_tree import PROBE, Entry, is_racy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from langchain_daytona_ws._guest.sync_copy import WorkingCopy
    from langchain_daytona_ws._guest.sync_tree import Scan


class Push:
    def __init__(self, copy: WorkingCopy) -> None:
        self._copy = copy
        self._changed: dict[str, os.stat_result] = {}
        self._must_scan_again = False
        self._git_failure = ""  # reason why a file of a Git directory was not stored
        self.total = self.done = 0  # files of the running push, for its progress
        self.unpushed: dict[str, str] = {}  # path → reason

    def run(self) -> None:
        """Store all local changes in S3. Git references are stored after Git objects; deletions come last.

        Raises:
            S3Error: At least one file could not be stored or deleted. ``unpushed`` contains these files if they are
                known.
            OSError: The working copy cannot be accessed.
        """
        copy = self._copy
        copy.bind()
        copy.restore_written()
        found = copy.tree.scan(copy.index.entries)
        for path, reason in found.skipped:
            copy.skip(path, reason)
        self.unpushed = {}
        self.total = self.done = 0
        self._must_scan_again = False
        failure = self._save_all(found)
        if failure is None and (found.missing or self._must_scan_again):
            # A file that was moved during the scan may have been found at neither path: scan again.
            missing = set(found.missing)
            found = copy.tree.scan(copy.index.entries)
            found.missing = [path for path in found.missing if path in missing]
            failure = self._save_all(found)
        # Delete objects only after all uploads have succeeded. If the directory was replaced, delete nothing: no
        # command has deleted the missing files.
        if failure is None and not copy.is_new_directory and copy.is_bound:
            failure = next(iter(copy.for_each(self._delete, found.missing)), None)
        if failure is not None:
            if not copy.is_new_directory:
                for path in found.missing:
                    if path in copy.index.entries:
                        self.unpushed.setdefault(path, failure.detail)
            raise failure

    def _save_all(self, found: Scan) -> S3Error | None:
        self._changed = found.changed
        self.total += len(found.changed)
        self._git_failure = ""
        failures: list[S3Error] = []
        for level in (0, 1, 2):
            paths = [path for path in found.changed if _level(path) == level]
            failures += self._copy.for_each(self._save, paths)
            # After a failure `_upload` refuses the later files of Git: no reference is stored before its objects.
            self._git_failure = next((why for path, why in self.unpushed.items() if ".git/" in path), "")
        if not failures and self.unpushed:
            failures.append(S3Error("local", next(iter(self.unpushed.values()))))
        return failures[0] if failures else None

    def _save(self, path: str) -> S3Error | None:
        try:
            self._upload(path, self._changed[path])
        except FileNotFoundError:
            pass  # deleted since the scan
        except S3Error as error:
            self.unpushed[path] = error.detail
            return error
        except FileChanged:
            pass  # a program wrote the file during a conflict; the next pull compares it
        except PermissionError as error:
            self._copy.skip(path, error.strerror or str(error))
        except (LocalError, OSError) as error:
            self.unpushed[path] = getattr(error, "strerror", None) or str(error)
        finally:
            self.done += 1
        return None

    def _upload(self, path: str, status: os.stat_result) -> None:
        copy = self._copy
        problem = copy.permanent_problem(path)
        if problem:
            copy.skip(path, problem)
            return
        entry = copy.index.entries.get(path)
        if entry is not None and self._is_only_touched(path, status, entry):
            return
        if self._git_failure and ".git/" in path:
            raise S3Error("local", self._git_failure)
        try:
            self._store(path, status, entry)
        except S3Error as error:
            if error.code != "changed":
                raise
            self._resolve(path, status)
            return
        copy.report.count("pushed")

    def _is_only_touched(self, path: str, status: os.stat_result, entry: Entry) -> bool:
        """If only attributes have changed that S3 does not store, such as the inode, record them and return True."""
        if entry.mode != status.st_mode or entry.mtime_ns != status.st_mtime_ns:
            return False
        read_at_ns = time.time_ns()
        if not self._copy.is_same_content(path, status, entry):
            return False
        entry.observe(status, is_racy(status, read_at_ns))
        self._copy.index.is_saved = False
        return True

    def _store(self, path: str, status: os.stat_result, entry: Entry | None) -> None:
        """Upload a file, unless another writer has changed its object. If the object was deleted, create it again."""
        copy = self._copy
        if entry is not None:
            try:
                return copy.upload(path, status, {"if-match": '"%s"' % entry.etag})
            except S3Error as error:
                if error.code != "missing":
                    raise
                copy.index.drop(path)
        return copy.upload(path, status, {"if-none-match": "*"})

    def _resolve(self, path: str, status: os.stat_result) -> None:
        """Keep both versions after another writer has changed the object: unless the file equals the object, it becomes
        a conflict copy. If the object was deleted, store the file again.
        """
        copy = self._copy
        found = copy.bucket.head(copy.prefix + path)
        entry = copy.index.entries.get(path)
        if found is None:
            copy.index.drop(path)
            self._store(path, status, None)
            copy.report.count("pushed")
            return
        if entry is not None and found.etag == entry.etag:
            raise S3Error("unavailable", "S3 refuses to replace an object that nobody has changed")
        if path.endswith("/"):
            copy.adopt(path, status, found)
        else:
            copy.download(path, found.size, found.etag, "", status, is_changed=True)
        # The next scan finds the conflict copy, or a mode of the file that differs from the object's.
        self._must_scan_again = True

    def _delete(self, path: str) -> S3Error | None:
        """Delete the object of a deleted file. If another writer has changed the object, restore the file instead."""
        copy = self._copy
        entry = copy.index.entries.get(path)
        try:
            status = copy.tree.status(path)
        except OSError as error:
            # It is unknown whether the file exists, for example if its directory has the mode 0444.
            copy.skip(path, error.strerror or str(error))
            return None
        if entry is None or (status is not None and stat.S_ISDIR(status.st_mode) == path.endswith("/")):
            return None  # the file exists again
        try:
            self._delete_object(path, entry)
        except S3Error as error:
            if error.code == "changed":
                return self._restore(path)
            if error.code != "missing":
                self.unpushed[path] = error.detail
                return error
        copy.index.drop(path)
        copy.report.count("removed_there")
        return None

    def _delete_object(self, path: str, entry: Entry) -> None:
        copy = self._copy
        key = copy.prefix + path
        if copy.index.honours_delete:
            copy.bucket.delete(key, entry.etag)
            return
        # The store does not check conditions of deletions: a change of another writer between these requests is lost.
        found = copy.bucket.head(key)
        if found is not None and found.etag != entry.etag:
            raise S3Error("changed", "")
        copy.bucket.delete(key, None)

    def _restore(self, path: str) -> S3Error | None:
        copy = self._copy
        copy.index.drop(path)
        try:
            found = copy.bucket.head(copy.prefix + path)
            if found is not None and copy.download(path, found.size, found.etag, "", None):
                copy.report.restored.append([path, "it was deleted here and changed in S3"])
        except S3Error as error:
            return error
        except (LocalError, OSError, FileChanged):
            pass  # the next pull downloads it
        return None


class Unconditional(Exception):
    """The store overwrites objects although the condition of the request does not hold."""


def probe(copy: WorkingCopy) -> None:
    """Test with a temporary object which conditions the store checks, and record the result in the index.

    Raises:
        Unconditional: The store does not check the condition of an upload.
        S3Error: The store does not answer, or refuses.
    """
    index = copy.index
    if index.honours_delete is not None or copy.spec["read_only"]:
        return
    if copy.spec["endpoint"] is None:
        index.honours_delete = True  # AWS checks all conditions (S3 API)
        return
    key = copy.prefix + PROBE + os.urandom(8).hex()
    try:
        copy.bucket.put(key, b"", 0, {"if-none-match": "*"})
        try:
            copy.bucket.put(key, b"", 0, {"if-none-match": "*"})
        except S3Error as error:
            if error.code != "changed":
                raise
        else:
            raise Unconditional
        try:
            copy.bucket.delete(key, "0" * 32)
            honours = False
        except S3Error as error:
            if error.code not in ("changed", "refused"):
                raise
            honours = error.code == "changed"
    finally:
        try:
            copy.bucket.delete(key, None)
        except S3Error:
            pass  # the first error is reported; an empty object of this name is ignored
    index.honours_delete = honours
    index.is_saved = False


def _level(path: str) -> int:
    """Return 0, 1 or 2 for a file that is uploaded first, second or last.

    A reader of the prefix must not see a Git reference before the Git objects to which it refers.
    """
    _, git, inside = path.rpartition(".git/")  # ".git/" of a work tree, or "name.git/" of a bare repository
    inside = "/" + inside
    if (
        not git
        or inside.startswith("/objects/")
        or (inside.startswith("/modules/") and "/objects/" in inside)
    ):
        return 0
    is_last = inside.endswith(("/HEAD", "/index", "/packed-refs")) or "/refs/" in inside
    return 2 if is_last else 1
