"""Say what went wrong in Deep Agents' own vocabulary. Pure."""

from __future__ import annotations

from langchain_daytona_ws.errors import FileMissing, PathRefused, PermissionDenied, WorkspaceError

ERROR_LIMIT = 4000

_REFUSED_BY_THE_SYSTEM = {"EACCES", "EPERM", "EROFS"}
_NO_PATH = {"ENAMETOOLONG", "ENOTDIR", "ELOOP", "EINVAL"}


def code_of(error: WorkspaceError) -> str | None:
    """Return the `FileOperationError` literal for an error; None when there is none for it."""
    if isinstance(error, FileMissing):
        return "file_not_found"
    errno = str(error.context.get("errno", ""))
    if isinstance(error, PermissionDenied) or error.code == "answered" or errno in _REFUSED_BY_THE_SYSTEM:
        return "permission_denied"
    if error.code == "is_directory":
        return "is_directory"
    if isinstance(error, PathRefused) or error.code == "not_a_directory" or errno in _NO_PATH:
        return "invalid_path"
    return None


def said(error: WorkspaceError) -> str:
    """Return an error for the model, which knows Deep Agents' tools and not this package's."""
    if error.code == "answered":
        return error.message
    text = error.for_model.replace("with bash", "with execute").replace("in bash", "in execute")
    return f"[{error.code}] {text}"[:ERROR_LIMIT]


def transfer_error(error: WorkspaceError) -> str:
    """Return the error of an upload or download."""
    return code_of(error) or said(error)


def file_error(path: str, error: WorkspaceError) -> str:
    """Return the error of a read, write, edit or delete."""
    if isinstance(error, FileMissing):
        return f"Error: File '{path}' not found"
    if error.code == "is_directory":
        return f"Error: '{path}' is a directory: list it with ls"
    if error.code == "exists_unread":
        return f"Error: File '{path}' already exists. Change it with edit_file, or delete it first"
    if error.code == "not_unique":
        return f"Error: old_string occurs multiple times in '{path}'. Make it longer, or set replace_all. {said(error)}"
    if "errno" in error.context and code_of(error) == "permission_denied":
        return f"Error: Permission denied for '{path}'. {said(error)}"
    return said(error) if error.code == "answered" else f"Error: '{path}': {said(error)}"


def directory_error(path: str, error: WorkspaceError) -> str:
    """Return the error of a listing or a search; Deep Agents looks for these codes in it."""
    if isinstance(error, FileMissing):
        return f"Path '{path}': path_not_found"
    if error.code == "not_a_directory":
        return f"Path '{path}': not_a_directory"
    if "errno" in error.context and code_of(error) == "permission_denied":
        return f"Path '{path}': permission_denied"
    return f"Path '{path}': {said(error)}"
