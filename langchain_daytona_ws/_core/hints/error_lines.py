"""Find the error lines that programs printed at the end of an output. Pure; linear in the text that is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

READ_CHARS = 16 * 1024
LINE_CHARS = 600  # only this part of a line is read, because the message is at its beginning
FRAME_LINES = 100
ERROR_LINES_MAX = 40


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a Python traceback; ``source`` is ``""`` if it was not printed."""

    path: str
    line: int
    function: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """One line in which a program reports an error.

    Attributes:
        program: The program's name without its directory; "shell" for any shell, "python" or "node" for an exception.
            Programs that do not print their name, such as git and pip, are recognised by known messages.
        message: The rest of the line.
        frames: The Python traceback above the line, innermost frame last; from pytest, only a frame with the failed
            source line.
        is_last: True for the last line of the output.
    """

    program: str
    message: str
    frames: tuple[Frame, ...] = ()
    is_last: bool = False


_ERRORS = re.compile(
    r"function not implemented|operation not permitted|permission denied|invalid argument|bad file descriptor"
    r"|input/output error|i/o error|not connected|read-only file system|stale file handle|no such file or directory"
    r"|disk I/O error|readonly database|unable to open database|file truncated|\(23\)|cannot set \w+"
    r"|cannot allocate memory|not enough memory|file changed as we read it"
    r"|new_index|couldn't set|E(?:PERM|NOSYS|IO|INVAL|BADF|NOMEM|NOTCONN)\b",
    re.IGNORECASE,
)

# Program → its error lines that do not begin with its name and a colon. A sandbox may print any text, so matching must
# be linear: every repetition is bounded, except for ``.*`` at the end.
_SHAPES = (
    ("npm", re.compile(r"npm (?:error|ERR!) (?P<message>.*)")),
    (
        "node",
        re.compile(
            r"(?:error | ?ERR_PNPM_[A-Z]{1,30} {1,4})?(?:\w{0,40}Error: )?"
            r"(?P<message>E(?:PERM|NOSYS|IO|INVAL|BADF|NOMEM|NOTCONN|ROFS|STALE): .*)"
        ),
    ),
    (
        "sqlite3",
        re.compile(
            r"(?:\S{0,100}(?:OperationalError|SqliteError)|(?:Runtime |Parse )?[Ee]rror)\b"
            r"(?P<message>.{0,300}(?:disk I/O error|readonly database|unable to open database).*)"
        ),
    ),
    ("zip", re.compile(r"zip (?:I/O )?error: (?P<message>.*)")),
    (
        "perl",
        re.compile(
            r"(?P<message>(?:Cannot complete in-place edit of|Can't rename|Can't do inplace edit) .*)"
        ),
    ),
    ("wget", re.compile(r"(?P<message>Cannot write to .*)")),
    ("unzip", re.compile(r".{0,300}(?:\(warning\)|warning:) {1,4}(?P<message>cannot set .*)")),
    ("uv", re.compile(r" {0,4}(?:cause|Caused by): (?P<message>.*)")),
    ("dbm", re.compile(r"BDB\d{4} (?P<message>.*)")),
    ("git", re.compile(r"(?:fatal|error): (?P<message>.*)")),
    ("pip", re.compile(r"ERROR: (?P<message>Could not install packages.*)")),
    ("python", re.compile(r"(?:E {1,8})?(?:[\w.]{0,100}(?:Error|Exception)): (?P<message>.*)")),
)
_NAMED = re.compile(r"(?P<name>[A-Za-z_./][\w./+-]{0,80}): (?P<message>.*)")
_SCRIPT_LINE = re.compile(r"(?:line )?\d{1,7}: (?P<message>.*)")
_SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ksh", "ash"})
_TRACEBACK = "Traceback (most recent call last):"


def error_lines(output: str) -> Iterator[ErrorLine]:
    """Yield up to 40 error lines from the last 16,384 characters of an output, in the order printed."""
    lines = output[-READ_CHARS:].rstrip().split("\n")
    if len(output) > READ_CHARS:
        lines = lines[1:]  # the beginning of this line is cut off
    matches = [i for i, line in enumerate(lines) if _ERRORS.search(line[:LINE_CHARS])]
    for i in matches[-ERROR_LINES_MAX:]:
        parsed = _program_and_message(lines[i][:LINE_CHARS].rstrip("\r"))
        if parsed is None:
            continue
        program, message = parsed
        frames = _frames(lines, i) if program in {"python", "sqlite3"} else ()
        yield ErrorLine(program, message, frames, is_last=i == len(lines) - 1)


def _program_and_message(line: str) -> tuple[str, str] | None:
    for program, shape in _SHAPES:
        found = shape.match(line)
        if found:
            return program, found["message"]
    found = _NAMED.match(line)
    if found is None:
        return None
    name, message = found["name"].rpartition("/")[2], found["message"]
    script = _SCRIPT_LINE.match(message)
    if script:
        return "shell", script["message"]
    return ("shell" if name in _SHELLS else name), message


_FRAME = re.compile(
    r' {2}File "(?P<path>[^"]{1,500})", line (?P<line>\d{1,7})(?:, in (?P<function>.{1,100}))?'
)
# The failed source line in pytest's output. Its file and number follow below the error.
_PYTEST_SOURCE = re.compile(r">  {1,40}(?P<source>\S.*)")


def _frames(lines: list[str], end: int) -> tuple[Frame, ...]:
    start = end
    while start > 0 and lines[start] != _TRACEBACK and end - start < FRAME_LINES:
        start -= 1
    if lines[start] != _TRACEBACK:
        return _pytest_frame(lines, end)
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


def _pytest_frame(lines: list[str], end: int) -> tuple[Frame, ...]:
    if not lines[end].startswith("E "):
        return ()
    for i in range(end - 1, max(end - 10, -1), -1):
        found = _PYTEST_SOURCE.match(lines[i][:LINE_CHARS])
        if found:
            return (Frame("", 0, "", found["source"]),)
    return ()
