"""Pull: copy the changes in an S3 prefix to its working copy, before a command runs."""

from __future__ import annotations

import bisect
import errno
import os
import stat
import time

from langchain_daytona_ws._guest.sync_answers import S3Error
from langchain_daytona_ws._guest.sync_copy import PLAIN_MODE, FileChanged
from langchain_daytona_ws._guest.sync_s3 import LocalError
from langchain_daytona_ws._guest.sync_tree import digest_of, is_racy, parents, problem_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from langchain_daytona_ws._guest.sync_copy import WorkingCopy
    from langchain_daytona_ws._guest.sync_tree import Entry

    Object = tuple[str, str, int, str]  # path, ETag, size, last change

# A large prefix is listed in parallel segments, each of 900 keys of the last listing. So a segment still fits into a
# page of 1,000 keys after some keys were added.
KEYS_APART = 900
HIDDEN = "S3 also has objects below this name, so it is a directory here and cannot be a file"
TRIES = 3  # attempts for a file that a program is writing, or an object that another writer replaces


class TooLarge(Exception):
    """The objects to download are larger than the limit; the values are in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit


class Listing:
    """The objects of the prefix by path, in the order of their keys."""

    def __init__(self, copy: WorkingCopy) -> None:
        self._copy = copy
        self._starts = [""]  # each segment begins after one of these keys
        self._pages: dict[str, list[tuple[bytes, list[Object]]]] = {}
        self.objects: dict[str, Object] = {}

    def refresh(self) -> bool:
        """List the prefix. Return False if no page has changed since the last listing in the same segments.

        Unchanged pages are not parsed again.
        """
        ends: list[str | None] = [*self._starts[1:], None]
        results = list(self._copy.pool.map(self._segment, self._starts, ends))
        if not any(changed for _, changed in results):
            return False
        self._pages = {start: pages for start, (pages, _) in zip(self._starts, results)}
        self.objects = {}
        for end, (pages, _) in zip(ends, results):
            for _, items in pages:
                for item in items:
                    if end is None or item[0] <= end:
                        self.objects[item[0]] = item
        if any(len(pages) > 1 for pages, _ in results):
            keys = list(self.objects)
            self._starts = ["", *keys[KEYS_APART - 1 :: KEYS_APART]]
            self._pages = {}
        return True

    def _segment(self, start: str, end: str | None) -> tuple[list[tuple[bytes, list[Object]]], bool]:
        """List the keys after the key ``start``, at least up to ``end``; return the pages, and whether they changed."""
        copy, known = self._copy, self._pages.get(start, [])
        pages: list[tuple[bytes, list[Object]]] = []
        changed, after = start not in self._pages, start
        while True:
            page = copy.bucket.page(copy.prefix, copy.prefix + after if after else "")
            same = known[len(pages)] if len(pages) < len(known) else None
            if same is None or same[0] != page.digest:
                changed = True
                same = (page.digest, page.objects())
            pages.append(same)
            items = same[1]
            if not page.has_more or (items and end is not None and items[-1][0] >= end):
                return pages, changed or len(pages) != len(known)
            if not items or items[-1][0] <= after:
                raise S3Error("unavailable", "a page of the listing has no further objects")
            after = items[-1][0]


class Pull:
    def __init__(self, copy: WorkingCopy) -> None:
        self._copy = copy
        self._listing = Listing(copy)
        self._failures: list[Exception] = []
        self.total = self.done = 0  # objects of the running pull, for its progress

    def run(self) -> None:
        """Copy all changes in S3 to the working copy.

        Raises:
            S3Error, LocalError, OSError: Some files could not be pulled. The index contains the pulled files.
            TooLarge: The objects to download are larger than the limit. Nothing was downloaded.
        """
        copy = self._copy
        copy.bind()
        if not self._listing.refresh() and copy.index.is_compared:
            return
        copy.index.is_compared = False
        wanted = self._compare()
        self._check_size(wanted)
        self.total, self.done = len(wanted), 0
        self._failures = []
        self._remove_deleted()
        ready = [path for path in wanted if self._make_room(path)]
        failures = self._failures
        failures += copy.for_each(self._update_path, ready)
        if failures:
            raise failures[0]
        copy.is_new_directory = False
        copy.index.is_complete = copy.index.is_compared = True
        copy.index.is_saved = copy.index.is_saved and not wanted
        copy.trash.empty()

    def _compare(self) -> list[str]:
        """Return the paths whose objects differ from the index and can be files here."""
        copy, objects = self._copy, self._listing.objects
        entries, wanted = copy.index.entries, []
        for path, etag, _, modified in objects.values():
            entry = entries.get(path)
            if entry is None or not entry.is_listed_as(etag, modified):
                wanted.append(path)
        if not wanted:
            return wanted
        keys = list(objects)
        return [path for path in wanted if self._can_have_file(path, keys)]

    def _can_have_file(self, path: str, keys: list[str]) -> bool:
        copy = self._copy
        if copy.tree.ignores(path):
            return False
        problem = problem_of(path)
        if not problem and not path.endswith("/"):
            after = bisect.bisect_left(keys, path + "/")
            if after < len(keys) and keys[after].startswith(path + "/"):
                problem = HIDDEN
        if problem:
            copy.skip(path, problem)
        return not problem

    def _check_size(self, wanted: list[str]) -> None:
        copy, objects = self._copy, self._listing.objects
        limit = copy.spec["limit_bytes"]
        if limit is None:
            disk = os.statvfs(copy.tree.root)
            limit = disk.f_bavail * disk.f_frsize // 2
        size = sum(objects[path][2] for path in wanted)
        if size > limit:
            # If the index was lost, files of the same size as their objects are probably equal, and need no download.
            statuses = ((objects[path][2], copy.tree.status(path)) for path in wanted)
            size -= sum(size for size, status in statuses if status is not None and status.st_size == size)
        if size > limit:
            raise TooLarge(size, limit)

    def _remove_deleted(self) -> None:
        """Remove the files whose objects were deleted. Keep files that were changed here, as new files."""
        copy, objects = self._copy, self._listing.objects
        entries = copy.index.entries
        unchanged: list[tuple[str, os.stat_result, Entry]] = []
        for path in [path for path in entries if path not in objects]:
            entry = entries[path]
            try:
                status = copy.tree.status(path)
                if (
                    status is not None
                    and copy.is_same_content(path, status, entry)
                    and not copy.tree.ignores(path)
                ):
                    unchanged.append((path, status, entry))
            except OSError as error:  # without its entry, the next push would store the file again
                self._failures.append(error)
                continue
            copy.index.drop(path)
        if not unchanged:
            return
        # Save the index before the files are removed, because this process may be killed in between. With the old
        # index, the next resident would treat the removed files as deleted by a command, and delete their objects in
        # S3. These objects may exist, because a listing may be wrong.
        try:
            copy.index.save()
        except OSError:  # all files are still here, see above
            for path, _, entry in unchanged:
                copy.index.set(path, entry)
            raise
        for path, status, entry in sorted(unchanged, key=lambda item: item[0], reverse=True):
            try:
                copy.discard(path, status)
                copy.report.count("removed_here")
            except OSError as error:
                copy.index.set(path, entry)  # the file is still here, see above
                self._failures.append(error)

    def _make_room(self, path: str) -> bool:
        """Create the directories above a path. Return False if this is impossible.

        A file at the path of such a directory is removed; if the file was changed, it becomes a conflict copy.
        """
        copy = self._copy
        try:
            for parent in parents(path.rstrip("/")):
                status = copy.tree.status(parent)
                if status is None:
                    os.mkdir(copy.tree.path(parent))
                elif not stat.S_ISDIR(status.st_mode):
                    self._clear(parent, status)
                    os.mkdir(copy.tree.path(parent))
            if path.endswith("/"):
                status = copy.tree.status(path)
                if status is not None and not stat.S_ISDIR(status.st_mode):
                    self._clear(path.rstrip("/"), status)
        except OSError as error:
            self._failures.append(error)
            return False
        return True

    def _clear(self, path: str, status: os.stat_result) -> None:
        copy = self._copy
        entry = copy.index.entries.get(path)
        if entry is not None and copy.is_same_content(path, status, entry):
            copy.index.drop(path)
            copy.index.save()  # if this process is killed now, the next resident must not delete the object
            copy.move_to_trash(path, status)
            if path in self._listing.objects:
                copy.skip(path, HIDDEN)
        else:
            copy.report.conflicts.append([path, copy.rename_to_copy(path)])

    def _update_path(self, path: str) -> Exception | None:
        """Make one file equal to its object. Return the error if this fails; an archived object is only reported."""
        try:
            for _ in range(TRIES):
                try:
                    self._update(path)
                except FileChanged:
                    continue
                return None
        except (S3Error, LocalError, OSError) as error:
            if isinstance(error, S3Error) and error.code == "archived":
                self._copy.skip(path, "its object is archived and must be restored before it can be read")
                return None
            return error
        finally:
            self.done += 1
        return OSError(errno.EBUSY, "%s is being written here" % path)

    def _update(self, path: str) -> None:
        copy = self._copy
        _, etag, size, modified = self._listing.objects[path]
        entry, status = copy.index.entries.get(path), copy.tree.status(path)
        is_changed = False
        if status is not None and stat.S_ISDIR(status.st_mode):
            if not path.endswith("/"):
                return self._replace_directory(path)
        elif status is not None:
            if self._adopt(path, status, entry):
                return None
            is_changed = entry is None or not copy.is_same_content(path, status, entry)
        for _ in range(TRIES):
            try:
                is_there = copy.download(path, size, etag, modified, status, is_changed=is_changed)
            except S3Error as error:
                found = copy.bucket.head(copy.prefix + path) if error.code == "changed" else None
                if found is None:
                    raise
                etag, size = found.etag, found.size  # the object was replaced during the download
                continue
            if is_there:
                copy.report.count("pulled")
                if status is None and entry is not None:
                    copy.report.restored.append([path, "it was deleted here and changed in S3"])
            return None
        raise S3Error("changed", "%s is replaced again and again" % path)

    def _replace_directory(self, path: str) -> None:
        """Write a file in place of an empty directory. A directory that is not empty stays."""
        copy = self._copy
        try:
            os.rmdir(copy.tree.path(path))
        except OSError:
            copy.skip(path, "a directory here has this name and is not empty")
            return
        self._update(path)

    def _adopt(self, path: str, status: os.stat_result, entry: Entry | None) -> bool:
        """If a file equals its object, or if only the file has changed, record the object in the index.

        Return False if the object must be downloaded.
        """
        copy = self._copy
        _, etag, size, modified = self._listing.objects[path]
        if entry is not None and entry.etag == etag:
            if status.st_mode != entry.mode or not copy.is_same_content(path, status, entry):
                entry.modified = modified  # the file or its mode was changed here: the next push stores it
                return True
            # Another writer has stored the same content, or changed the mode.
            found = copy.bucket.head(copy.prefix + path)
            if (
                found is None
                or found.etag != etag
                or stat.S_IFMT(found.mode or PLAIN_MODE) != stat.S_IFMT(status.st_mode)
            ):
                return False
            if stat.S_ISREG(found.mode):
                os.chmod(copy.tree.path(path), found.mode & 0o777)
                status = os.lstat(copy.tree.path(path))
            entry.modified = modified
            entry.observe(status, entry.is_racy)
            entry.mode = found.mode or PLAIN_MODE
            copy.index.is_saved = False
            return True
        if size != status.st_size or not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return False
        read_at_ns = time.time_ns()
        if digest_of(copy.tree.path(path), status, like=etag) != etag:
            return False
        found = copy.bucket.head(copy.prefix + path)
        if (
            found is None
            or found.etag != etag
            or stat.S_IFMT(found.mode or PLAIN_MODE) != stat.S_IFMT(status.st_mode)
        ):
            return False
        copy.adopt(path, status, found, is_racy=is_racy(status, read_at_ns))
        copy.index.entries[path].modified = modified
        return True
