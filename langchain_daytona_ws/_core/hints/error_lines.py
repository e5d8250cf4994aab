"""What programs complained of at the end of an output. Pure, and linear in what is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LOOKED_AT_CHARS = 16 * 1024
LINE_CHARS = 600  # of a line; what a program says comes first
FRAME_LINES = 100
COMPLAINTS_LIMIT = 40


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a traceback of Python; ``source`` is ``""`` where it was not printed."""

    path: str
    line: int
    function: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One line in which a program says what went wrong.

    Attributes:
        speaker: The program's name without its directory; a shell is "shell", an exception "python" or "node", what
            git, pip, SQLite and others say without their name goes by their name.
        said: The rest of the line.
        frames: The traceback above it, of Python, the innermost frame last.
        is_last: Whether nothing was printed after it.
    """

    speaker: str
    said: str
    frames: tuple[Frame, ...] = ()
    is_last: bool = False


_TELLING = re.compile(
    r"function not implemented|operation not permitted|permission denied|invalid argument|bad file descriptor"
    r"|input/output error|i/o error|not connected|read-only file system|stale file handle|no such file or directory"
    r"|disk I/O error|readonly database|unable to open database|file truncated|\(23\)|cannot set \w+"
    r"|cannot allocate memory|not enough memory|new_index|couldn't set|E(?:PERM|NOSYS|IO|INVAL|BADF|NOMEM|NOTCONN)\b",
    re.IGNORECASE,
)

# Lines that do not begin with their program's name. No alternative can begin in two ways, and every repetition is
# bounded: the lines are whatever a sandbox cares to print.
_SHAPES = (
    ("npm", re.compile(r"npm (?:error|ERR!) (?P<said>.*)")),
    (
        "node",
        re.compile(
            r"(?:error | ?ERR_PNPM_[A-Z]{1,30} {1,4})?(?:\w{0,40}Error: )?"
            r"(?P<said>E(?:PERM|NOSYS|IO|INVAL|BADF|NOMEM|NOTCONN|ROFS|STALE): .*)"
        ),
    ),
    (
        "sqlite3",
        re.compile(
            r"(?:\S{0,100}(?:OperationalError|SqliteError)|(?:Runtime |Parse )?[Ee]rror)\b"
            r"(?P<said>.{0,300}(?:disk I/O error|readonly database|unable to open database).*)"
        ),
    ),
    ("zip", re.compile(r"zip (?:I/O )?error: (?P<said>.*)")),
    (
        "perl",
        re.compile(r"(?P<said>(?:Cannot complete in-place edit of|Can't rename|Can't do inplace edit) .*)"),
    ),
    ("wget", re.compile(r"(?P<said>Cannot write to .*)")),
    ("unzip", re.compile(r".{0,300}(?:\(warning\)|warning:) {1,4}(?P<said>cannot set .*)")),
    ("uv", re.compile(r" {0,4}(?:cause|Caused by): (?P<said>.*)")),
    ("dbm", re.compile(r"BDB\d{4} (?P<said>.*)")),
    ("git", re.compile(r"(?:fatal|error): (?P<said>.*)")),
    ("pip", re.compile(r"ERROR: (?P<said>Could not install packages.*)")),
    ("python", re.compile(r"(?:E {1,8})?(?:[\w.]{0,100}(?:Error|Exception)): (?P<said>.*)")),
)
_NAMED = re.compile(r"(?P<name>[A-Za-z_./][\w./+-]{0,80}): (?P<said>.*)")
_OF_A_SCRIPT = re.compile(r"(?:line )?\d{1,7}: (?P<said>.*)")
_SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ksh", "ash"})
_TRACEBACK = "Traceback (most recent call last):"


def complaints(output: str) -> Iterator[Complaint]:
    """Yield what programs complained of in the last 16 KiB of an output, in the order printed, the last 40."""
    lines = output[-LOOKED_AT_CHARS:].rstrip().split("\n")
    if len(output) > LOOKED_AT_CHARS:
        lines = lines[1:]  # its beginning was cut off
    telling = [i for i, line in enumerate(lines) if _TELLING.search(line[:LINE_CHARS])]
    for i in telling[-COMPLAINTS_LIMIT:]:
        spoken = _spoken(lines[i][:LINE_CHARS].rstrip("\r"))
        if spoken is None:
            continue
        speaker, said = spoken
        frames = _frames(lines, i) if speaker in {"python", "sqlite3"} else ()
        yield Complaint(speaker, said, frames, is_last=i == len(lines) - 1)


def _spoken(line: str) -> tuple[str, str] | None:
    for speaker, shape in _SHAPES:
        found = shape.match(line)
        if found:
            return speaker, found["said"]
    found = _NAMED.match(line)
    if found is None:
        return None
    name, said = found["name"].rpartition("/")[2], found["said"]
    script = _OF_A_SCRIPT.match(said)
    if script:
        return "shell", script["said"]
    return ("shell" if name in _SHELLS else name), said


_FRAME = re.compile(
    r' {2}File "(?P<path>[^"]{1,500})", line (?P<line>\d{1,7})(?:, in (?P<function>.{1,100}))?'
)
# pytest shows the line that failed so, and its place below the error.
_PYTEST_SOURCE = re.compile(r">  {1,40}(?P<source>\S.*)")


def _frames(lines: list[str], end: int) -> tuple[Frame, ...]:
    start = end
    while start > 0 and lines[start] != _TRACEBACK and end - start < FRAME_LINES:
        start -= 1
    if lines[start] != _TRACEBACK:
        return _of_pytest(lines, end)
    frames = []
    for i in range(start, end):
        found = _FRAME.match(lines[i][:LINE_CHARS])
        if found:
            source = lines[i + 1][:LINE_CHARS] if i + 1 < end else ""
            is_source = source.startswith("    ")
            frames.append(
                Frame(
                    found["path"],
                    int(found["line"]),
                    found["function"] or "",
                    source.strip() if is_source else "",
                )
            )
    return tuple(frames)


def _of_pytest(lines: list[str], end: int) -> tuple[Frame, ...]:
    if not lines[end].startswith("E "):
        return ()
    for i in range(end - 1, max(end - 10, -1), -1):
        found = _PYTEST_SOURCE.match(lines[i][:LINE_CHARS])
        if found:
            return (Frame("", 0, "", found["source"]),)
    return ()
