r"""Display of file names for a model, and parsing of displayed names. Pure.

A name that cannot be displayed exactly on one line is quoted as in bash, ``$'a\nb'``. A name that is not UTF-8
contains a lone surrogate for each byte (``surrogateescape``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from langchain_daytona_ws.errors import PathRefused

# Beginnings of paths outside the workspace. With "./" in front, the path is an ordinary one, as in bash.
_FOREIGN = (
    ("home", re.compile(r"~([a-z_][a-z0-9_-]*)?(/|$)", re.ASCII)),
    ("windows", re.compile(r"[A-Za-z]:[\\/]|\\\\")),
    ("url", re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/", re.ASCII)),
)
_QUOTED = re.compile(r"(?<![^/])\$'((?:[^'\\]|\\.)*)'(?![^/])", re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|([0-7]{1,3})|(.))", re.DOTALL
)
_CONTROLS = {"\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\f": "FORM FEED", "\0": "NUL"}
_SPECIAL = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_SPECIAL_BACK = dict(zip("ntrabeEfv\\'\"?", "\n\t\r\a\b\x1b\x1b\f\v\\'\"?", strict=True))


def shown(path: str) -> str:
    r"""Display a path on one line; control and invisible characters are quoted as in bash, ``$'a\nb'``."""
    name = shown_name(path)
    return f"./{path}" if name == path and looks_foreign(f"{path}/") else name


def shown_name(name: str) -> str:
    """Display a name in a directory, like `shown` a path."""
    if not name.isprintable() or "$'" in name or name != name.strip():
        return _quoted(name, str.isprintable)
    return name


def spelled_out(name: str) -> str:
    """Display a name so that it differs visibly from names that look the same."""
    if unicodedata.normalize("NFC", name) == name:
        return shown(name)
    return _quoted(name, lambda char: char.isprintable() and char.isascii())


def characters(text: str) -> str:
    """Name the characters of a short text: ``NO-BREAK SPACE (U+00A0)``."""
    named = [_named(char) for char in text[:4]] + ["more"] * (len(text) > 4)
    return " + ".join(named) or "nothing"


def _named(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"the byte \\x{code - 0xDC00:02x}"
    return f"{unicodedata.name(char, _CONTROLS.get(char, 'a character'))} (U+{code:04X})"


def looks_foreign(path: str) -> str:
    """Return the kind of location outside the workspace that a relative path refers to: home, windows, url, or ""."""
    return next((kind for kind, beginning in _FOREIGN if beginning.match(path)), "")


def unquoted(path: str) -> str:
    """Return a path with each part unquoted that `shown` has quoted.

    Raises:
        PathRefused: An escape has no character.
    """
    return _QUOTED.sub(lambda part: _unescaped(part[1]), path)


def _quoted(name: str, is_plain: Callable[[str], bool]) -> str:
    return "$'" + "".join(_escaped(char, is_plain) for char in name) + "'"


def _escaped(char: str, is_plain: Callable[[str], bool]) -> str:
    if char in "\\'":
        return "\\" + char
    if is_plain(char):
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if char in _SPECIAL:
        return _SPECIAL[char]
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unescaped(text: str) -> str:
    try:
        data = _ESCAPE.sub(_character, text).encode("utf-8", "surrogateescape")
    except (ValueError, OverflowError):  # half a surrogate pair, or a code point that does not exist
        raise PathRefused("The path is not valid Unicode text.", code="path_not_unicode") from None
    # Bytes that are escaped separately may form UTF-8.
    return data.decode("utf-8", "surrogateescape")


def _character(escape: re.Match[str]) -> str:
    byte, short, long, octal, single = escape.groups()
    if single is not None:
        return _SPECIAL_BACK.get(single, escape[0])
    if byte is not None or octal is not None:
        code = int(byte, 16) if byte is not None else int(octal, 8) & 0xFF
        return chr(code) if code < 0x80 else chr(0xDC00 + code)
    return chr(int(short or long, 16))
