"""Transfers of directories: find their files, and join many small files into one for a download.

A request can name this module as its entry. The module ``files`` describes the general form of requests and answers;
these operations have the following fields:

======  ==============================================  ===================================================
op      request (default)                               answer, in addition to ``ok: true``
======  ==============================================  ===================================================
survey  inline_bytes, inline_rows, within_s             path, kind: ``file`` or ``dir``; for a file: bytes,
                                                        executable, content (base64) up to ``inline_bytes``;
                                                        for a directory: found, or found_from, at and bytes
pack    names: [path], relative to ``path``;            files: one row for each name, [bytes, executable],
        inline_bytes, max_bytes, within_s; optional:    or [code] if the file is left out; content (base64),
        drop, names that are removed first              or content_from and at; bytes
drop    names: [name] of ``found_from`` and
        ``content_from``
make                                                    path
======  ==============================================  ===================================================

``found`` is ``{"files": [[path, bytes, executable]], "empty": [directory], "skipped": [[path, reason]], "cut": flag}``
with paths relative to the directory; ``cut`` is true if the listing is incomplete. ``content`` of ``pack`` is the
content of all files, joined. A long ``found`` or ``content`` is written to a file in the state directory: the answer
names the file (``found_from``, ``content_from``) and the directory (``at``). The host downloads the file and removes it
with ``drop``; otherwise it is removed when it is old. The code ``later`` means that a limit of bytes or seconds was
reached: request the file again.
"""

from __future__ import annotations

import binascii
import os
import stat
import time

from langchain_daytona_ws._guest import dirs
from langchain_daytona_ws._guest.operations import run_all
from langchain_daytona_ws._guest.scan import Scan
from langchain_daytona_ws._guest.walk import RefusedError, kind_of, locate, need_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]
    Answer = dict[str, Any]

CHUNK = 1 << 20
ENDING = ".pack.log"  # ends in ".log", so that `record.prune` removes old files


def main(request: Request) -> Answer:
    return run_all({"survey": survey, "pack": pack, "drop": drop, "make": make}, request)


def survey(request: Request) -> Answer:
    with locate(request["root"], request["path"]) as location:
        status = location.status()
        if status is None or not stat.S_ISDIR(status.st_mode):
            status = need_file(status)
            size = status.st_size
            found = {
                "kind": "file",
                "path": location.path,
                "bytes": size,
                "executable": _is_executable(status),
            }
            fd = location.open(os.O_RDONLY)  # an unreadable file is refused here
            try:
                need_file(os.fstat(fd))
                if size <= request["inline_bytes"]:
                    data = _read(fd, request["inline_bytes"] + 1)  # the file may have grown
                    found["bytes"] = len(data)
                    if len(data) <= request["inline_bytes"]:
                        found["content"] = binascii.b2a_base64(data, newline=False).decode("ascii")
            finally:
                os.close(fd)
            return found
        path, fd = location.path, location.open_dir()
    below = "" if path == "." else path + "/"
    tree = _Tree(request["root"], below)
    scan = Scan(time.monotonic() + request["within_s"])
    scan.run(fd, "", tree, "")
    tree.skipped += [[name, "unreadable"] for name in scan.unreadable]
    listing = {
        "files": sorted(tree.files),
        "empty": sorted(tree.empty),
        "skipped": sorted(tree.skipped),
        "cut": scan.cut or scan.left_out,
    }
    answered = {"kind": "dir", "path": path}
    if len(tree.files) + len(tree.empty) + len(tree.skipped) <= request["inline_rows"]:
        return {**answered, "found": listing}
    import json  # takes 3 ms

    data = json.dumps(listing).encode("ascii")
    with _Joined() as joined:
        joined.add(data)
        return {**answered, "found_from": joined.keep(), "at": joined.directory, "bytes": len(data)}


class _Tree:
    """Collects the entries below a directory. `Scan` passes the path of the directory above as ``above``."""

    def __init__(self, root: str, below: str) -> None:
        self.files: list[list[Any]] = []
        self.skipped: list[list[str]] = []
        self.empty: set[str] = set()
        self._root = root
        self._below = below

    def directory(self, above: str, path: str, name: str, fd: int) -> str:
        self.empty.discard(above)
        self.empty.add(path)
        return path

    def file(self, above: str, path: str, name: str, fd: int) -> None:
        self.empty.discard(above)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            self.skipped.append([path, _reason(error)])
            return
        is_link = kind_of(status) == "link"
        if is_link:
            try:
                with locate(self._root, self._below + path) as location:
                    status = need_file(location.status())
            except (RefusedError, OSError):
                self.skipped.append([path, "link"])
                return
        if kind_of(status) == "file":
            self.files.append([path, status.st_size, _is_executable(status)])
        else:
            self.skipped.append([path, "special"])


def pack(request: Request) -> Answer:
    drop({"names": request.get("drop", ())})
    until = time.monotonic() + request["within_s"]
    files: list[list[Any]] = []
    with _Joined() as joined:
        for name in request["names"]:
            if files and time.monotonic() > until:
                files.append(["later"])
                continue
            before = joined.size
            try:
                files.append(_add(request, name, joined))
                continue
            except RefusedError as refusal:
                reason = refusal.error
            except OSError as error:
                if joined.has_failed:  # the pack cannot be written: its disk may be full
                    raise
                reason = _reason(error)
            joined.cut(before)
            files.append([reason])
        if joined.size <= request["inline_bytes"]:
            content = binascii.b2a_base64(joined.data(), newline=False).decode("ascii")
            return {"files": files, "content": content, "bytes": joined.size}
        return {"files": files, "content_from": joined.keep(), "at": joined.directory, "bytes": joined.size}


def _add(request: Request, name: str, joined: _Joined) -> list[Any]:
    """Append a file; return its size and whether it is executable. If this fails, a part may have been appended."""
    path = name if request["path"] == "." else request["path"] + "/" + name
    with locate(request["root"], path) as location:
        status = need_file(location.status())
        left = request["max_bytes"] - joined.size
        if status.st_size > left:
            raise RefusedError("later")
        fd = location.open(os.O_RDONLY)
    size = before = joined.size
    try:
        need_file(os.fstat(fd))
        while True:
            chunk = os.read(fd, CHUNK)
            if not chunk:
                return [size - before, _is_executable(status)]
            size += len(chunk)
            if size - before > left:
                raise RefusedError("later")
            joined.add(chunk)
    finally:
        os.close(fd)


def drop(request: Request) -> Answer:
    for name in request["names"]:
        if "/" not in name and name.endswith(ENDING):
            try:
                os.unlink(dirs.state_directory() + "/" + name)
            except FileNotFoundError:
                continue
    return {}


def make(request: Request) -> Answer:
    """Create a directory, and missing directories above it."""
    with locate(request["root"], request["path"] + "/x", make_parents=True) as location:
        return {"path": os.path.dirname(location.path) or "."}


class _Joined:
    """A temporary file to which contents are appended. It is removed, unless `keep` was called."""

    def __init__(self) -> None:
        self.directory = dirs.state_directory()
        self.size = 0
        self.has_failed = False  # writing failed
        self._name = binascii.hexlify(os.urandom(16)).decode("ascii") + ENDING
        self._path = self.directory + "/" + self._name
        self._fd = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        self._is_kept = False

    def __enter__(self) -> _Joined:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if not self._is_kept:
            os.unlink(self._path)

    def add(self, data: bytes) -> None:
        view = memoryview(data)
        self.has_failed = True
        while view:
            view = view[os.write(self._fd, view) :]
        self.has_failed = False
        self.size += len(data)

    def cut(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        os.lseek(self._fd, size, os.SEEK_SET)
        self.size = size

    def data(self) -> bytes:
        os.lseek(self._fd, 0, os.SEEK_SET)
        return _read(self._fd, self.size)

    def keep(self) -> str:
        self._is_kept = True
        return self._name


def _read(fd: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        chunk = os.read(fd, min(CHUNK, size))
        if not chunk:
            break
        parts.append(chunk)
        size -= len(chunk)
    return b"".join(parts)


def _reason(error: OSError) -> str:
    return "unreadable" if isinstance(error, PermissionError) else "gone"


def _is_executable(status: os.stat_result) -> bool:
    return bool(status.st_mode & stat.S_IXUSR)
