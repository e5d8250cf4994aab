"""File operations, in the sandbox's own view: symlinks are followed there, and lead nowhere else."""

from __future__ import annotations

import fnmatch
import grp
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .errors import ToolboxError

BINARY_PROBE_BYTES = 8192


def info(path: str) -> dict[str, Any]:
    return _describe(path, os.stat(path))


def listing(path: str, depth: int) -> list[dict[str, Any]]:
    """Return what is in `path`, and in its folders down to `depth` levels."""
    entries = []
    for name in sorted(os.listdir(path)):
        full = os.path.join(path, name)
        try:
            entries.append(_describe(full, os.stat(full)))
        except OSError:
            entries.append(_describe(full, os.lstat(full)))  # a dangling symlink is listed as itself
        if depth > 1 and os.path.isdir(full) and not os.path.islink(full):
            entries += listing(full, depth - 1)
    return entries


def folder(path: str, mode: str) -> None:
    bits = _octal(mode)
    os.makedirs(path, exist_ok=True)
    os.chmod(path, bits)


def delete(path: str, recursive: bool) -> None:
    """Delete a file, or a folder when `recursive`. A symlink is deleted itself, not what it points to."""
    if os.path.islink(path) or not os.path.isdir(path):
        os.remove(path)
    elif recursive:
        shutil.rmtree(path)
    else:
        raise ToolboxError(400, "INVALID_FILE_PATH", "cannot delete directory without recursive flag")


def move(source: str, destination: str) -> None:
    os.stat(source)
    if os.path.lexists(destination):
        raise ToolboxError(409, "CONFLICT", f"destination already exists: {destination}")
    os.makedirs(os.path.dirname(destination), exist_ok=True)
    shutil.move(source, destination)


def find(path: str, pattern: str) -> list[dict[str, Any]]:
    """Return each line below `path` that holds the literal text `pattern`; binary files are passed over."""
    os.stat(path)
    needle = pattern.encode("utf-8", "surrogateescape")
    matches: list[dict[str, Any]] = []
    for file in _files(path):
        try:
            content = _text(file)
        except OSError:
            continue
        if content is None or needle not in content:
            continue
        for number, line in enumerate(content.split(b"\n"), start=1):
            if needle in line:
                matches.append({"file": file, "line": number, "content": line.decode("utf-8", "replace")})
    return matches


def search(path: str, pattern: str) -> list[str]:
    """Return everything below `path` whose base name matches the glob `pattern`."""
    os.stat(path)
    found = []
    for parent, folders, files in os.walk(path):
        folders.sort()
        found += [
            os.path.join(parent, name)
            for name in sorted(folders + files)
            if fnmatch.fnmatchcase(name, pattern)
        ]
    return found


def replace(paths: Sequence[str], pattern: str, new_value: str) -> list[dict[str, Any]]:
    """Replace literal text in each file, in place; each file reports for itself."""
    results = []
    for path in paths:
        try:
            with open(path, "r+b") as file:
                content = file.read()
                file.seek(0)
                file.write(content.replace(pattern.encode(), new_value.encode()))
                file.truncate()
        except OSError as error:
            results.append(
                {"file": path, "success": False, "error": f"{path}: {(error.strerror or '').lower()}"}
            )
        else:
            results.append({"file": path, "success": True})
    return results


def permissions(path: str, mode: str | None, owner: str | None, group: str | None) -> None:
    os.stat(path)
    if mode:
        os.chmod(path, _octal(mode))
    if owner or group:
        try:
            uid = pwd.getpwnam(owner).pw_uid if owner else -1
            gid = grp.getgrnam(group).gr_gid if group else -1
        except KeyError as error:
            raise ToolboxError(400, "INVALID_REQUEST", f"unknown owner or group: {error.args[0]}") from error
        os.chown(path, uid, gid)


def _describe(path: str, status: os.stat_result) -> dict[str, Any]:
    local = time.localtime(status.st_mtime)
    nanoseconds = status.st_mtime_ns % 1_000_000_000
    return {
        "name": os.path.basename(path.rstrip("/")) or "/",
        "path": path,
        "isDir": stat.S_ISDIR(status.st_mode),
        "size": status.st_size,
        "modTime": time.strftime("%Y-%m-%d %H:%M:%S", local)
        + f".{nanoseconds:09d} "
        + time.strftime("%z %Z", local),
        "modifiedAt": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(status.st_mtime))
        + f".{nanoseconds:09d}Z",
        "mode": stat.filemode(status.st_mode),
        "permissions": f"{stat.S_IMODE(status.st_mode):04o}",
        "owner": _name(pwd.getpwuid, status.st_uid),
        "group": _name(grp.getgrgid, status.st_gid),
    }


def _name(look_up: Any, identifier: int) -> str:
    try:
        return str(look_up(identifier)[0])
    except KeyError:
        return str(identifier)


def _octal(mode: str) -> int:
    try:
        return int(mode, 8)
    except ValueError as error:
        raise ToolboxError(400, "INVALID_REQUEST", f"invalid mode: {mode!r}") from error


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for parent, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            full = os.path.join(parent, name)
            if os.path.isfile(full):  # opening a FIFO would wait for its other end
                yield full


def _text(path: str) -> bytes | None:
    with open(path, "rb") as file:
        start = file.read(BINARY_PROBE_BYTES)
        return None if b"\0" in start else start + file.read()
