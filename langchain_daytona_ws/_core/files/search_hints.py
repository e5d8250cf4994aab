r"""Hints for a search that found nothing, or for a refused regular expression. Pure.

A hint is given only if the pattern or the glob may contain a known mistake.
"""

from __future__ import annotations

import re

from langchain_daytona_ws._core.files.models import GlobReading
from langchain_daytona_ws._core.paths import shown, shown_name

_BASIC_OR = re.compile(r"(?<!\\)((?:\\\\)*)\\\|")
_BASIC_SIGN = re.compile(r"(?<!\\)((?:\\\\)*)\\([|(){}+?])")
_IN_SLASHES = re.compile(r"/((?:[^/\\]|\\.)+)/([dgimsuvy]*)")
_NEWLINE = re.compile(r"(?<!\\)(?:\\\\)*\\n")
_SET = re.compile(r"\[(?:\\.|[^\]\\]){0,200}\]")  # bounded: a hostile pattern has thousands of "["
_LINE_END = re.compile(r"(?<!\\)(?:\\\\)*\$(?=\)*(?:\||$))")
_LOOK_AROUND = re.compile(r"\(\?<?[=!]")
_BACKREFERENCE = re.compile(r"(?<!\\)(?:\\\\)*\\[1-9]")

_ONE_LINE = "A match is within one line: search for a part of it, and use context to see the lines around it"


def glob_hint(pattern: str, reading: GlobReading | None) -> str:
    """Return a hint for a glob without matches; ``""`` for no hint."""
    if reading is not None:
        use = shown_name(reading.pattern)
        return {
            "path": f"The glob is relative to the searched path: use {use}",
            "brackets": f"In a glob, [x] stands for one character. {shown(reading.path)} exists: use {use}",
            "commas": f"In a glob, commas separate patterns only within braces: use {use}",
            "alternatives": f"@(a|b) is not a glob here: use {use}",
        }[reading.kind]
    if "!(" in pattern:
        return "!(...) is not a glob here. In grep, a glob that begins with ! leaves files out: !*.min.js"
    return ""


def grep_hint(pattern: str, glob: str | None, reading: GlobReading | None) -> str:
    """Return a hint for a grep without matches; ``""`` for no hint."""
    about_glob = glob_hint(glob, reading) if glob else ""
    if about_glob:
        return about_glob
    if _BASIC_OR.search(pattern):
        use = _BASIC_SIGN.sub(lambda found: found[1] + found[2], pattern)
        return f"\\| stands for the character |. For alternatives, use {shown_name(use)}"
    return _slashes(pattern) or (_ONE_LINE if _has_newline(pattern) else _line_end(pattern))


def unsupported(pattern: str) -> str:
    """Return the remedy for a refused regular expression with an unsupported feature or slashes; otherwise ``""``."""
    if _LOOK_AROUND.search(pattern) or _BACKREFERENCE.search(pattern):
        return " Look-around and backreferences are not supported. Write it without, or use grep -P in a shell command."
    if _has_newline(pattern):
        return f" {_ONE_LINE}."
    slashes = _slashes(pattern)
    return slashes and f" {slashes}."


def _slashes(pattern: str) -> str:
    quoted = _IN_SLASHES.fullmatch(pattern)
    if quoted is None:
        return ""
    plain = quoted[1].replace("\\/", "/")
    flags = " with ignore_case=true" if "i" in quoted[2] else ""
    return f"The slashes are searched for, too. Without them, use {shown_name(plain)}{flags}"


def _line_end(pattern: str) -> str:
    r"""Return a hint for a pattern in which ``$`` ends an alternative without ``\r?`` before it."""
    bare = _SET.sub("", pattern)
    if not _LINE_END.search(bare) or re.search(r"\\[rs]\W?\$", bare):
        return ""
    return "In files with CRLF line endings, $ does not match before the CR: use \\r?$"


def _has_newline(pattern: str) -> str:
    found = _NEWLINE.search(_SET.sub("", pattern))
    return found[0] if found else ""
