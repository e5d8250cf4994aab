"""Turn what a model calls a path into a path relative to the workspace, or refuse it. Pure.

``..`` is taken away by the text of the path alone: what a symlink makes of it is checked again in the
sandbox, where the file is opened. Backslashes, ``~``, quotes and newlines are ordinary characters.
"""

from __future__ import annotations

from langchain_daytona_ws.errors import PathRefused

PATH_BYTES = 4095  # PATH_MAX without its closing NUL
NAME_BYTES = 255


def workspace_path(path: str, root: str) -> str:
    """Return ``path`` relative to the workspace directory ``root``, normalised, ``"."`` for the root itself.

    An absolute path below ``root`` is that file; any other absolute path is taken from the workspace root.

    Raises:
        PathRefused: The path leaves the workspace, or is none.

    """
    _check_text(path, root)
    parts = _relative_parts(path, root)
    if any(len(part.encode()) > NAME_BYTES for part in parts):
        raise PathRefused(f"A name in the path is longer than {NAME_BYTES} bytes.", code="path_too_long")
    return "/".join(parts) or "."


def workspace_pattern(pattern: str, root: str) -> tuple[str, bool]:
    """Return a glob pattern in the same form, and whether it starts at the workspace root, not at a base."""
    _check_text(pattern, root)
    absolute = pattern.startswith("/")
    parts = _relative_parts(pattern, root)
    if not parts:
        raise PathRefused("The pattern names nothing. Give one such as '**/*.py'.", code="path_empty")
    return "/".join(parts) + ("/" if pattern.endswith("/") else ""), absolute


def _check_text(path: str, root: str) -> None:
    if not path:
        raise PathRefused("The path is empty. Give a path relative to the workspace.", code="path_empty")
    if "\0" in path:
        raise PathRefused("The path holds a NUL character, which no file name can.", code="path_nul")
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise PathRefused("The path is not valid Unicode text.", code="path_not_unicode") from None
    if length + len(root.encode()) + 1 > PATH_BYTES:
        raise PathRefused("The path is longer than the system allows.", code="path_too_long")


def _relative_parts(path: str, root: str) -> list[str]:
    parts = _split(path)
    if not path.startswith("/"):
        return _climbed(parts)
    above = _split(root)
    if parts[: len(above)] == above:
        return _climbed(parts[len(above) :])
    parts = _climbed(parts)
    return parts[len(above) :] if parts[: len(above)] == above else parts


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _climbed(parts: list[str]) -> list[str]:
    """Take ``..`` away together with the name before it."""
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
