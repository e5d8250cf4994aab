r"""Convert a path from a model to a path relative to the workspace, or refuse it; display and parse file names. Pure.

``..`` is resolved in the text of the path. Symbolic links are checked later, in the sandbox, when the file is opened.

A name that one line cannot display exactly is quoted as in bash, ``$'a\nb'``. In a relative path from the model, quoted
names are unquoted; an absolute path is never unquoted. ``~``, a drive such as ``C:`` and a URL scheme have no
special meaning if the path begins with ``./``. In a name that is not UTF-8, each invalid byte is a lone surrogate
(``surrogateescape``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote

from langchain_daytona_ws._guest.dirs import STATE_PARENT
from langchain_daytona_ws.errors import PathRefused

PATH_BYTES = 4095  # PATH_MAX without its closing NUL
NAME_BYTES = 255
CANDIDATES_MAX = 8

# Paths of logs in the sandbox. A log contains the whole output of a command; see _guest.record and _guest.dirs.
_LOG = rf"{re.escape(STATE_PARENT)}/\.langchain-daytona-ws-[0-9]{{1,10}}/[0-9a-f]{{32}}[a-z]?\.log"

# Beginnings of paths outside the workspace.
_FOREIGN = (
    ("home", r"~([a-z_][a-z0-9_-]*)?(/|$)"),
    ("windows", r"[A-Za-z]:[\\/]|\\\\"),
    ("url", r"[A-Za-z][A-Za-z0-9+.-]+:/"),
)
_QUOTED = r"(?s)(?<![^/])\$'((?:[^'\\]|\\.)*)'(?![^/])"
_ESCAPE = r"(?s)\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|([0-7]{1,3})|(.))"
_CONTROLS = {"\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\f": "FORM FEED", "\0": "NUL"}
_SPECIAL = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_SPECIAL_BACK = dict(zip("ntrabeEfv\\'\"?", "\n\t\r\a\b\x1b\x1b\f\v\\'\"?", strict=True))


def workspace_path(path: str, root: str) -> str:
    """Return a path from the model as a normalised path relative to the workspace directory ``root``.

    The result for the workspace directory itself is ``"."``.

    Raises:
        PathRefused: The path is outside of the workspace, or invalid.
    """
    name = path if path.startswith("/") else unquoted(path)
    _check_text(name)
    parts = _split(name)
    if name.startswith("/"):
        below = _below_root(parts, root)
        if below is None:
            raise outside(path, root)
        parts = below
    elif name == path and looks_foreign(path):
        raise outside(path, root)
    else:
        parts = _without_dotdot(parts)
    names = [part.encode("utf-8", "surrogateescape") for part in parts]
    if any(len(name_bytes) > NAME_BYTES for name_bytes in names):
        raise PathRefused(f"A name in the path is longer than {NAME_BYTES} bytes.", code="path_too_long")
    if len(b"/".join([root.encode(), *names])) > PATH_BYTES:
        raise PathRefused("The path is longer than the system allows.", code="path_too_long")
    # Bytes that were escaped one by one may form valid UTF-8 together: decode them again.
    return "/".join(name_bytes.decode("utf-8", "surrogateescape") for name_bytes in names) or "."


def is_log(path: str) -> bool:
    """Return whether a path has the form of a log's path in the sandbox."""
    return re.fullmatch(_LOG, path) is not None


def with_slashes(path: str, root: str) -> str | None:
    """Return the workspace path for a relative path whose backslashes are read as slashes.

    Return None for a path without backslashes, an absolute path, and a path with a quoted name (see `shown`): there
    backslashes are escapes. Errors are those of `workspace_path`.
    """
    if "\\" not in path or path.startswith("/") or unquoted(path) != path:
        return None
    return workspace_path(path.replace("\\", "/"), root)


def workspace_pattern(pattern: str, root: str) -> tuple[str, bool]:
    """Return a normalised glob pattern, and whether it starts at the workspace directory.

    An absolute pattern starts at the workspace directory, even if it does not contain the path of this directory. A
    relative pattern starts at the searched directory.

    Raises:
        PathRefused: The pattern is empty or invalid, or leads out of the workspace.
    """
    _check_text(pattern)
    if len(pattern.encode("utf-8", "surrogateescape")) > PATH_BYTES:
        raise PathRefused("The pattern is longer than any path.", code="path_too_long")
    absolute = pattern.startswith("/")
    parts = _split(pattern)
    if absolute:
        below = _below_root(parts, root)
        parts = _without_dotdot(parts) if below is None else below
    else:
        parts = _without_dotdot(parts)
    if not parts:
        raise PathRefused("The pattern names nothing. Give one such as '**/*.py'.", code="path_empty")
    return "/".join(parts) + ("/" if pattern.endswith("/") else ""), absolute


def candidates(path: str, root: str) -> tuple[str, ...]:
    """Return workspace paths that the model may have meant: the 8 longest endings of an outside path, longest first."""
    parts = _foreign_parts(path, root)
    return tuple("/".join(parts[start:]) for start in range(len(parts)))[:CANDIDATES_MAX]


def outside(path: str, root: str, found: str | None = None) -> PathRefused:
    """Return the error for a path outside of the workspace. ``found`` is an existing path of the `candidates`."""
    if found is not None:
        use = f"use {shown(found)}, which exists there."
    else:
        parts = _foreign_parts(path, root)
        choices = [f"{shown('/'.join(parts))} for a file there"] if parts else []
        if len(parts) < 2:
            choices.append(". for the workspace itself")
        use = f"use {' or '.join(choices)}. For files elsewhere on the machine use bash."
    return PathRefused(
        f"{shown(path)} is {_kind_of_outside(path)}. Paths are relative to it: {use}", code="path_outside"
    )


def _kind_of_outside(path: str) -> str:
    kind = looks_foreign(path)
    return {
        "home": "in a home directory, outside the workspace",
        "windows": "a Windows path, outside the workspace",
        "url": "a URL, and no path in the workspace",
    }.get(kind, "outside the workspace")


def _check_text(path: str) -> None:
    if not path:
        raise PathRefused("The path is empty. Give a path relative to the workspace.", code="path_empty")
    if "\0" in path:
        raise PathRefused("The path holds a NUL character, which no file name can.", code="path_nul")
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise PathRefused("The path is not valid Unicode text.", code="path_not_unicode") from None


def _below_root(parts: list[str], root: str) -> list[str] | None:
    """Return the parts of an absolute path that follow the workspace directory; None if the path is outside of it."""
    above = _split(root)
    if parts[: len(above)] == above:
        return _without_dotdot(parts[len(above) :])
    parts = _without_dotdot(parts)
    return parts[len(above) :] if parts[: len(above)] == above else None


def _foreign_parts(path: str, root: str) -> list[str]:
    """Return the names in a path outside of the workspace, without a drive, URL scheme, home directory or ``..``."""
    kind = looks_foreign(path)
    if kind == "url":
        path = unquote(path).partition(":/")[2]
    elif kind == "windows":
        path = path.replace("\\", "/").partition(":")[2] or path.replace("\\", "/")
    elif kind == "home":
        path = path.partition("/")[2]
    parts = list[str]()
    for part in _split(path):
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
    above = _split(root)
    return parts[len(above) :] if above and parts[: len(above)] == above else parts


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _without_dotdot(parts: list[str]) -> list[str]:
    """Remove each ``..`` together with the name before it."""
    kept: list[str] = []
    for part in parts:
        if part != "..":
            kept.append(part)
        elif kept:
            kept.pop()
        else:
            raise PathRefused(
                "The path leaves the workspace ('..'). Only files inside the workspace can be used.",
                code="path_outside",
            )
    return kept


def shown(path: str) -> str:
    r"""Return a path as one line of text that `workspace_path` can read again.

    If necessary, the path is quoted as in bash, ``$'a\nb'``, or gets a leading ``./``.
    """
    name = shown_name(path)
    return f"./{path}" if name == path and looks_foreign(f"{path}/") else name


def shown_name(name: str) -> str:
    """Return a file name as one line of text, quoted as in bash if necessary."""
    if not name.isprintable() or "$'" in name or name != name.strip():
        return _quoted(name, str.isprintable)
    return name


def spelled_out(name: str) -> str:
    """Return a name as one line of text that also shows differences of Unicode composition."""
    if unicodedata.normalize("NFC", name) == name:
        return shown(name)
    return _quoted(name, lambda char: char.isprintable() and char.isascii())


def characters(text: str) -> str:
    """Return the Unicode names of a text's first four characters, such as ``NO-BREAK SPACE (U+00A0)``."""
    named = [_named(char) for char in text[:4]] + ["more"] * (len(text) > 4)
    return " + ".join(named) or "nothing"


def _named(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"the byte \\x{code - 0xDC00:02x}"
    return f"{unicodedata.name(char, _CONTROLS.get(char, 'a character'))} (U+{code:04X})"


def looks_foreign(path: str) -> str:
    """Return "home", "windows" or "url" for a path outside the workspace without a leading ``/``; otherwise ""."""
    return next((kind for kind, beginning in _FOREIGN if re.match(beginning, path)), "")


def unquoted(path: str) -> str:
    r"""Return a path in which each quoted name, ``$'a\nb'``, is replaced by the name itself.

    Raises:
        PathRefused: An escape is not a valid character.
    """
    return re.sub(_QUOTED, lambda part: _unescaped(part[1]), path)


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
        data = re.sub(_ESCAPE, _character, text).encode("utf-8", "surrogateescape")
    except (ValueError, OverflowError):  # half a surrogate pair, or a code point that does not exist
        raise PathRefused("The path is not valid Unicode text.", code="path_not_unicode") from None
    # Bytes that were escaped one by one may form valid UTF-8 together.
    return data.decode("utf-8", "surrogateescape")


def _character(escape: re.Match[str]) -> str:
    byte, short, long, octal, single = escape.groups()
    if single is not None:
        return _SPECIAL_BACK.get(single, escape[0])
    if byte is not None or octal is not None:
        code = int(byte, 16) if byte is not None else int(octal, 8) & 0xFF
        return chr(code) if code < 0x80 else chr(0xDC00 + code)
    return chr(int(short or long, 16))
