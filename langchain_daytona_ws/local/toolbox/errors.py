"""A refusal with the HTTP status and code that the caller will see."""

from __future__ import annotations

import errno


class ToolboxError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def from_os_error(error: OSError, path: str) -> ToolboxError:
    """Translate what a file operation on `path` met."""
    reason = (error.strerror or str(error)).lower()
    message = f"{path}: {reason}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ToolboxError(404, "FILE_NOT_FOUND", message)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ToolboxError(403, "FILE_ACCESS_DENIED", message)
    if error.errno in (errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP):
        return ToolboxError(400, "INVALID_FILE_PATH", message)
    return ToolboxError(400, "FILE_READ_FAILED", message)
