"""Render errors in the format of Deep Agents, with the names of its tools."""

from __future__ import annotations

from langchain_daytona_ws._core.files.errors import file_message
from langchain_daytona_ws.errors import FileMissing, PathRefused, PermissionDenied, WorkspaceError

ERROR_LIMIT = 4000

_SHELL_TOOL = "execute"
_PERMISSION_ERRNOS = {"EACCES", "EPERM", "EROFS"}
_PATH_ERRNOS = {"ENAMETOOLONG", "ENOTDIR", "ELOOP", "EINVAL"}


def code_of(error: WorkspaceError) -> str | None:
    """Return Deep Agents' `FileOperationError` literal for an error; None if no literal fits."""
    if isinstance(error, FileMissing):
        return "file_not_found"
    errno = str(error.context.get("errno", ""))
    if isinstance(error, PermissionDenied) or error.code == "answered" or errno in _PERMISSION_ERRNOS:
        return "permission_denied"
    if error.code == "is_directory":
        return "is_directory"
    if isinstance(error, PathRefused) or error.code == "not_a_directory" or errno in _PATH_ERRNOS:
        return "invalid_path"
    return None


def error_text(error: WorkspaceError, path: str = "") -> str:
    """Return the code and message of an error for the model; if the approver answered instead, only the answer."""
    if error.code == "answered":
        return error.message
    if error.code == "outside":
        message = (
            "It leads out of the workspace through a symbolic link. Use the path that the link leads to."
        )
        return f"[outside] {_about(path)}{message}"
    message = file_message(error, shell=_SHELL_TOOL, path=path) or f"{_about(path)}{error.for_model}"
    return f"[{error.code}] {message}"[:ERROR_LIMIT]


def _about(path: str) -> str:
    return f"'{path}': " if path else ""


def transfer_error(error: WorkspaceError) -> str:
    return code_of(error) or error_text(error)


def read_error(path: str, error: WorkspaceError) -> str:
    """Return the error text of a read; Deep Agents adds "Error: " in front of the text."""
    if isinstance(error, FileMissing):
        return f"File '{path}' not found"
    if error.code == "is_directory":
        return f"'{path}' is a directory: list it with ls"
    if "errno" in error.context and code_of(error) == "permission_denied":
        return f"Permission denied for '{path}'. {error_text(error, path)}"
    return error_text(error, path)


def file_error(path: str, error: WorkspaceError) -> str:
    """Return the error text of a write, edit or delete."""
    if error.code == "answered":
        return error_text(error)
    if error.code == "exists_unread":
        return f"Error: File '{path}' already exists. Change it with edit_file, or delete it first"
    if error.code == "not_unique":
        remedy = "Make it longer, or set replace_all."
        return f"Error: old_string occurs multiple times in '{path}'. {remedy} {error_text(error, path)}"
    return f"Error: {read_error(path, error)}"


def directory_error(path: str, error: WorkspaceError) -> str:
    """Return the error text of a listing or a search; Deep Agents recognises an error by the code in the text."""
    if isinstance(error, FileMissing):
        return f"Path '{path}': path_not_found"
    if error.code == "not_a_directory":
        return f"Path '{path}': not_a_directory"
    if "errno" in error.context and code_of(error) == "permission_denied":
        return f"Path '{path}': permission_denied"
    return f"Path '{path}': {error_text(error)}"
