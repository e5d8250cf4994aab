"""Turn what a model calls a path into a path relative to the workspace, or refuse it. Pure.

``..`` is removed by the text of the path alone: what a symlink makes of it is checked again in the sandbox, where
the file is opened. A relative path is read as `file_names.shown` prints names, and ``./`` in front keeps ``~`` and the
like ordinary. An absolute path below the workspace directory is taken as it is.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from langchain_daytona_ws._core.files.names import looks_foreign, shown, unquoted
from langchain_daytona_ws._guest.place import STATE_PARENT
from langchain_daytona_ws.errors import PathRefused

PATH_BYTES = 4095  # PATH_MAX without its closing NUL
NAME_BYTES = 255
MOST_CANDIDATES = 8

# The file with the whole output of a command; see _guest.record and _guest.place.
_LOG = re.compile(
    rf"{re.escape(STATE_PARENT)}/\.langchain-daytona-ws-[0-9]{{1,10}}/[0-9a-f]{{32}}[a-z]?\.log", re.ASCII
)


def workspace_path(path: str, root: str) -> str:
    """Return ``path`` relative to the workspace directory ``root``, normalised, ``"."`` for the root itself.

    Raises:
        PathRefused: The path is outside of the workspace, or is none.

    """
    return "/".join(_named_parts(path, root)) or "."


def is_log(path: str) -> bool:
    """Tell whether a path can be that of a command's log in the sandbox."""
    return _LOG.fullmatch(path) is not None


def with_slashes(path: str, root: str) -> str | None:
    """Return the path that a relative path written with backslashes means; None where it has none.

    Backslashes that are quoted as `file_names.shown` quotes them are meant, and so are those of an absolute path.
    """
    if "\\" not in path or path.startswith("/") or unquoted(path) != path:
        return None
    return workspace_path(path.replace("\\", "/"), root)


def workspace_pattern(pattern: str, root: str) -> tuple[str, bool]:
    """Return a glob pattern in the same form, and whether it starts at the workspace root, not at a base."""
    _check_text(pattern)
    if len(pattern.encode("utf-8", "surrogateescape")) > PATH_BYTES:
        raise PathRefused("The pattern is longer than any path.", code="path_too_long")
    absolute = pattern.startswith("/")
    parts = _split(pattern)
    if absolute:
        below = _below_root(parts, root)
        parts = _climbed(parts) if below is None else below
    else:
        parts = _climbed(parts)
    if not parts:
        raise PathRefused("The pattern names nothing. Give one such as '**/*.py'.", code="path_empty")
    return "/".join(parts) + ("/" if pattern.endswith("/") else ""), absolute


def candidates(path: str, root: str) -> tuple[str, ...]:
    """Return what a path outside of the workspace may mean in it: the path without its first parts, longest first."""
    parts = _foreign_parts(path, root)
    return tuple("/".join(parts[start:]) for start in range(len(parts)))[:MOST_CANDIDATES]


def outside(path: str, root: str, found: str | None = None) -> PathRefused:
    """Return the refusal of a path that is outside of the workspace.

    Args:
        path: As the model gave it.
        root: The workspace directory.
        found: The one of its `candidates` that exists in the workspace, if one does.
    """
    if found is not None:
        use = f"use {shown(found)}, which exists there."
    else:
        parts = _foreign_parts(path, root)
        choices = [f"{shown('/'.join(parts))} for a file there"] if parts else []
        if len(parts) < 2:
            choices.append(". for the workspace itself")
        use = f"use {' or '.join(choices)}. For files elsewhere on the machine use bash."
    return PathRefused(
        f"{shown(path)} is {_what(path)}. Paths are relative to it: {use}", code="path_outside"
    )


def _what(path: str) -> str:
    kind = looks_foreign(path)
    return {
        "home": "in a home directory, outside the workspace",
        "windows": "a Windows path, outside the workspace",
        "url": "a URL, and no path in the workspace",
    }.get(kind, "outside the workspace")


def _named_parts(path: str, root: str) -> list[str]:
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
        parts = _climbed(parts)
    names = [part.encode("utf-8", "surrogateescape") for part in parts]
    if any(len(one) > NAME_BYTES for one in names):
        raise PathRefused(f"A name in the path is longer than {NAME_BYTES} bytes.", code="path_too_long")
    if len(b"/".join([root.encode(), *names])) > PATH_BYTES:
        raise PathRefused("The path is longer than the system allows.", code="path_too_long")
    # Bytes that are escaped one by one may be UTF-8 together.
    return [one.decode("utf-8", "surrogateescape") for one in names]


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
    """Return an absolute path's parts below the workspace directory; None when it is outside."""
    above = _split(root)
    if parts[: len(above)] == above:
        return _climbed(parts[len(above) :])
    parts = _climbed(parts)
    return parts[len(above) :] if parts[: len(above)] == above else None


def _foreign_parts(path: str, root: str) -> list[str]:
    """Return the names in a path outside of the workspace, without what makes it so."""
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


def _climbed(parts: list[str]) -> list[str]:
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
