"""Errors that the daemon reports, with their HTTP status."""

from __future__ import annotations

import errno


class ToolboxError(Exception):
    """An error that the daemon reports, with its HTTP status. `code` is empty for the usual code of the status."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


_FILE_CODES = {404: "FILE_NOT_FOUND", 403: "FILE_ACCESS_DENIED", 400: "INVALID_FILE_PATH"}


def missing_or_denied(error: OSError, path: str) -> ToolboxError:
    """Return the error for a path that cannot be read: 404, 403, or 400 for other causes, such as ENOTDIR."""
    status = {errno.ENOENT: 404, errno.EACCES: 403, errno.EPERM: 403}.get(error.errno or 0, 400)
    return ToolboxError(status, f"{path}: {reason(error)}", _FILE_CODES[status])


def bad_request(error: OSError, path: str) -> ToolboxError:
    """Return a 400 for any error of the operating system."""
    return ToolboxError(400, f"{path}: {reason(error)}", _FILE_CODES[400])


def reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
