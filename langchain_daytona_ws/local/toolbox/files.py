"""File operations in the sandbox: symlinks are resolved in the sandbox's file system.

`find` and `search` follow no symlinks. Relative paths are relative to the daemon's working directory; for a relative
path, `find` and `search` return relative paths.
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
MAX_LINE_BYTES = 64 * 1024
_OCTAL = re.compile(r"[0-7]{1,11}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)


def info(path: str, newer: bool) -> dict[str, Any]:
    return _describe(path, _stat(path), newer)


def listing(path: str, depth: int, newer: bool) -> list[dict[str, Any]]:
    """Return the readable entries of `path`; a newer daemon lists `depth` levels."""
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
            continue  # for example a dangling symlink
        if newer and depth > 1 and os.path.isdir(full) and not os.path.islink(full):
            entries += listing(full, depth - 1, newer)
    return entries


def folder(path: str, mode: str | None) -> None:
    """Create a folder and its missing parents with this mode and the umask; existing folders stay unchanged."""
    bits = _octal(mode) if mode else 0o755
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    for parent in reversed(missing):
        try:
            os.mkdir(parent, bits)
        except OSError as error:
            raise bad_request(error, parent) from error


def delete(path: str, recursive: bool) -> None:
    """Delete a file or, with `recursive`, a folder. If `path` is a symlink, the link itself is deleted.

    The checks before the deletion follow the link: a link to a folder needs `recursive`; a dangling link is not found.
    """
    if stat.S_ISDIR(_stat(path).st_mode) and not recursive:
        raise ToolboxError(400, "cannot delete directory without recursive flag", "INVALID_FILE_PATH")
    try:
        if recursive and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)
    except OSError as error:
        raise bad_request(error, path) from error


def move(source: str, destination: str) -> None:
    """Rename, or copy and delete. Moving a folder into itself deletes it, as in the original."""
    source, destination = os.path.abspath(source), os.path.abspath(destination)
    _stat(source)
    _stat(os.path.dirname(destination))
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
    """Return the lines of regular files below `path` that contain the text `pattern`.

    Unreadable files and binary files are skipped. Other files are searched up to their first line over 64 KiB.
    """
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
    """Return `path` and all paths below it, if their base names match the glob `pattern`."""
    matches = _glob(pattern)
    return [entry for entry, _ in _walk(path) if matches(os.path.basename(entry.rstrip("/")) or "/")]


def replace(paths: Sequence[str], pattern: str, new_value: str) -> list[dict[str, Any]]:
    """Replace text in each file, in place; return one result per file."""
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
    _stat(path)
    try:
        if mode:
            os.chmod(path, _octal(mode))
        if owner or group:
            uid = _identifier(owner, lambda name: pwd.getpwnam(name).pw_uid)
            gid = _identifier(group, lambda name: grp.getgrnam(name).gr_gid)
            os.chown(path, uid, gid)
    except OSError as error:
        raise bad_request(error, path) from error


def _stat(path: str) -> os.stat_result:
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
    """Return a mode in Go's format: letters for type and special bits (else a dash), then nine for the permissions."""
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
    return int(mode, 8) & 0o777  # set-user-id, set-group-id and sticky bits are ignored


def _walk(path: str) -> Iterator[tuple[str, int]]:
    """Yield `path` and all readable paths below it, sorted, each with its mode. A link has its own mode."""
    pending = [path]  # no recursion: a tree may be deeper than Python's stack
    while pending:
        entry = pending.pop()
        try:
            mode = os.lstat(entry).st_mode
            names = sorted(os.listdir(entry), reverse=True) if stat.S_ISDIR(mode) else []
        except OSError:
            continue
        yield entry, mode
        pending += [os.path.normpath(os.path.join(entry, name)) for name in names]


def _lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a text file, up to the first line that is longer than 64 KiB; none for a binary file."""
    with open(path, "rb") as file:
        if b"\0" in file.read(BINARY_PROBE_BYTES):
            return
        file.seek(0)
        while True:
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line or len(line) > MAX_LINE_BYTES:
                return
            line = line[:-1] if line.endswith(b"\n") else line
            yield line[:-1] if line.endswith(b"\r") else line


def _glob(pattern: str) -> Callable[[str], bool]:
    """Return a function that checks a name against the glob; an invalid glob matches no name."""
    pieces, index = [""], 0  # regular expressions of the parts between the stars
    while index < len(pattern):
        letter = pattern[index]
        index += 1
        if letter == "*":
            pieces.append("")
        elif letter == "?":
            pieces[-1] += "."
        elif letter == "\\" and index < len(pattern):
            pieces[-1] += re.escape(pattern[index])
            index += 1
        elif letter == "[":
            end = pattern.find("]", index + 1 + pattern.startswith("^", index))
            if end < 0:
                return lambda _: False
            negated = pattern.startswith("^", index)
            members = re.sub(r"([\[&~|])", r"\\\1", pattern[index + negated : end])
            pieces[-1] += f"[{'^' if negated else ''}{members}]"
            index = end + 1
        else:
            pieces[-1] += re.escape(letter)
    first, *middle, last = pieces if len(pieces) > 1 else ["", *pieces]
    # Each part matches at its first position, without backtracking, which could take forever.
    inner = "".join(f"(?=(?P<part{n}>.*?{part}))(?P=part{n})" for n, part in enumerate(middle))
    any_end = ".*" if len(pieces) > 1 else ""
    try:
        compiled = re.compile(first + inner + any_end + last, re.DOTALL)
    except re.error:
        return lambda _: False
    return lambda name: compiled.fullmatch(name) is not None
