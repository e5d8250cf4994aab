"""A refusal with the HTTP status that the caller will see."""

from __future__ import annotations

import errno


class ToolboxError(Exception):
    """A refused request.

    Args:
        status: The HTTP status.
        message: What the body says, where there is one.
        code: The code of a newer daemon, where it has one of its own; otherwise the code follows from the status.
    """

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


_OF_FILES = {404: "FILE_NOT_FOUND", 403: "FILE_ACCESS_DENIED", 400: "INVALID_FILE_PATH"}


def missing_or_denied(error: OSError, path: str) -> ToolboxError:
    """Refuse a path that cannot be looked at: 404, 403, and 400 for anything else, a file in the way included."""
    status = {errno.ENOENT: 404, errno.EACCES: 403, errno.EPERM: 403}.get(error.errno or 0, 400)
    return ToolboxError(status, f"{path}: {reason(error)}", _OF_FILES[status])


def bad_request(error: OSError, path: str) -> ToolboxError:
    """Refuse with 400, whatever the operating system said."""
    return ToolboxError(400, f"{path}: {reason(error)}", _OF_FILES[400])


def reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
