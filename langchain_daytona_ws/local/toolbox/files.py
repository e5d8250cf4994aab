"""File operations, in the sandbox's own view: symlinks are followed there, and lead nowhere else.

Relative paths are relative to the daemon's own directory, and come back in results as they were given.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .errors import ToolboxError, bad_request, missing_or_denied, reason

BINARY_PROBE_BYTES = 512
LONGEST_LINE_BYTES = 64 * 1024
_OCTAL = re.compile(r"[0-7]{1,11}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)


def info(path: str, newer: bool) -> dict[str, Any]:
    return _describe(path, _looked_at(path), newer)


def listing(path: str, depth: int, newer: bool) -> list[dict[str, Any]]:
    """Return what is in `path`, but for what cannot be looked at; a newer daemon goes down to `depth` levels."""
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise missing_or_denied(error, path) from error
    entries = []
    for name in names:
        full = os.path.normpath(os.path.join(path, name))
        try:
            entries.append(_describe(full, os.stat(full), newer))
        except OSError:
            continue  # a dangling symlink, for one
        if newer and depth > 1 and os.path.isdir(full) and not os.path.islink(full):
            entries += listing(full, depth - 1, newer)
    return entries


def folder(path: str, mode: str | None) -> None:
    """Make a folder and those above it, with the same mode, which obeys the umask; one that is there stays as it is."""
    bits = _octal(mode) if mode else 0o755
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    for one in reversed(missing):
        try:
            os.mkdir(one, bits)
        except OSError as error:
            raise bad_request(error, one) from error


def delete(path: str, recursive: bool) -> None:
    """Delete a file, or a folder when `recursive`. A symlink is deleted itself, not what it points to.

    But it is looked at through the link: one to a folder needs `recursive`, and one that dangles is not found.
    """
    if stat.S_ISDIR(_looked_at(path).st_mode) and not recursive:
        raise ToolboxError(400, "cannot delete directory without recursive flag", "INVALID_FILE_PATH")
    try:
        if recursive and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)
    except OSError as error:
        raise bad_request(error, path) from error


def move(source: str, destination: str) -> None:
    """Rename, or copy and delete; a folder that is moved into itself is gone afterwards."""
    source, destination = os.path.abspath(source), os.path.abspath(destination)
    _looked_at(source)
    _looked_at(os.path.dirname(destination))
    if os.path.exists(destination):
        raise ToolboxError(409, f"destination already exists: {destination}")
    try:
        os.rename(source, destination)
    except OSError:
        try:
            if destination.startswith(f"{source}/"):
                shutil.rmtree(source)
            else:
                shutil.move(source, destination)
        except OSError as error:
            raise bad_request(error, source) from error


def find(path: str, pattern: str) -> list[dict[str, Any]]:
    """Return each line below `path` that holds the literal text `pattern`; binary files are passed over."""
    needle = pattern.encode("utf-8", "surrogateescape")
    matches: list[dict[str, Any]] = []
    for entry, mode in _walk(path):
        if not stat.S_ISREG(mode):
            continue
        try:
            lines = list(_lines(entry))
        except OSError:
            continue
        for number, line in enumerate(lines, start=1):
            if needle in line:
                matches.append({"file": entry, "line": number, "content": line.decode("utf-8", "replace")})
    return matches


def search(path: str, pattern: str) -> list[str]:
    """Return `path` and all below it whose base name matches the glob `pattern`."""
    matches = _glob(pattern)
    return [entry for entry, _ in _walk(path) if matches(os.path.basename(entry.rstrip("/")) or "/")]


def replace(paths: Sequence[str], pattern: str, new_value: str) -> list[dict[str, Any]]:
    """Replace literal text in each file, in place; each file reports for itself."""
    results: list[dict[str, Any]] = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                content = file.read()
            with open(path, "wb") as file:
                file.write(content.replace(pattern.encode(), new_value.encode()))
        except OSError as error:
            results.append({"file": path, "success": False, "error": f"open {path}: {reason(error)}"})
        else:
            results.append({"file": path, "success": True})
    return results


def permissions(path: str, mode: str | None, owner: str | None, group: str | None) -> None:
    _looked_at(path)
    try:
        if mode:
            os.chmod(path, _octal(mode))
        if owner or group:
            uid = _identifier(owner, lambda name: pwd.getpwnam(name).pw_uid)
            gid = _identifier(group, lambda name: grp.getgrnam(name).gr_gid)
            os.chown(path, uid, gid)
    except OSError as error:
        raise bad_request(error, path) from error


def _looked_at(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise missing_or_denied(error, path) from error


def _identifier(name: str | None, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    if _NUMBER.fullmatch(name):
        return int(name)
    try:
        return look_up(name)
    except KeyError as error:
        raise ToolboxError(400, f"unknown owner or group: {name}") from error


def _describe(path: str, status: os.stat_result, newer: bool) -> dict[str, Any]:
    fraction = f".{status.st_mtime_ns % 1_000_000_000:09d}".rstrip("0").rstrip(".")
    local, utc = time.localtime(status.st_mtime), time.gmtime(status.st_mtime)
    described = {
        "name": os.path.basename(path.rstrip("/")) or path[:1],
        "isDir": stat.S_ISDIR(status.st_mode),
        "size": status.st_size,
        "modTime": time.strftime("%Y-%m-%d %H:%M:%S", local) + fraction + time.strftime(" %z %Z", local),
        "modifiedAt": time.strftime("%Y-%m-%dT%H:%M:%S", utc) + fraction + "Z",
        "mode": mode_text(status.st_mode),
        "permissions": f"{status.st_mode & 0o777:04o}",
        "owner": str(status.st_uid),
        "group": str(status.st_gid),
    }
    return {**described, "path": os.path.abspath(path)} if newer else described


def mode_text(mode: int) -> str:
    """Write a mode as Go does: letters for what it is, or a dash, then nine for the permissions."""
    letters = ""
    if stat.S_ISDIR(mode):
        letters += "d"
    elif stat.S_ISLNK(mode):
        letters += "L"
    elif stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        letters += "D"
    elif stat.S_ISFIFO(mode):
        letters += "p"
    elif stat.S_ISSOCK(mode):
        letters += "S"
    letters += "u" if mode & stat.S_ISUID else ""
    letters += "g" if mode & stat.S_ISGID else ""
    letters += "c" if stat.S_ISCHR(mode) else ""
    letters += "t" if mode & stat.S_ISVTX else ""
    return (letters or "-") + stat.filemode(stat.S_IFREG | (mode & 0o777))[1:]


def _octal(mode: str) -> int:
    if not _OCTAL.fullmatch(mode) or int(mode, 8) >= 1 << 32:
        raise ToolboxError(400, f"invalid mode: {mode!r}")
    return int(mode, 8) & 0o777  # set-user-id and its like are no part of it


def _walk(path: str) -> Iterator[tuple[str, int]]:
    """Yield `path` and all below it with their modes, links as themselves, by name; nothing where it is missing."""
    waiting = [path]  # not recursion: a tree may be deeper than Python's stack
    while waiting:
        entry = waiting.pop()
        try:
            mode = os.lstat(entry).st_mode
            names = sorted(os.listdir(entry), reverse=True) if stat.S_ISDIR(mode) else []
        except OSError:
            continue
        yield entry, mode
        waiting += [os.path.normpath(os.path.join(entry, name)) for name in names]


def _lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a text file up to the first that is too long; of a binary file none."""
    with open(path, "rb") as file:
        if b"\0" in file.read(BINARY_PROBE_BYTES):
            return
        file.seek(0)
        while True:
            line = file.readline(LONGEST_LINE_BYTES + 1)
            if not line or len(line) > LONGEST_LINE_BYTES:
                return
            line = line[:-1] if line.endswith(b"\n") else line
            yield line[:-1] if line.endswith(b"\r") else line


def _glob(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a name matches; nothing matches a pattern that is none."""
    expression, at = "", 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            expression += ".*"
        elif letter == "?":
            expression += "."
        elif letter == "\\" and at < len(pattern):
            expression += re.escape(pattern[at])
            at += 1
        elif letter == "[":
            end = pattern.find("]", at + 1 + pattern.startswith("^", at))
            if end < 0:
                return lambda _: False
            negated = pattern.startswith("^", at)
            members = re.sub(r"([\[&~|])", r"\\\1", pattern[at + negated : end])
            expression += f"[{'^' if negated else ''}{members}]"
            at = end + 1
        else:
            expression += re.escape(letter)
    try:
        compiled = re.compile(expression, re.DOTALL)
    except re.error:
        return lambda _: False
    return lambda name: compiled.fullmatch(name) is not None
