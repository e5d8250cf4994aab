"""What the server refuses, and in which words: the texts are those that callers learnt from the original."""

from __future__ import annotations

import http


class IsolationUnavailable(RuntimeError):
    """Sandboxes cannot be isolated on this machine; the message says what to install or change."""


class S3Unavailable(RuntimeError):
    """S3 cannot be offered beside Daytona; the message says what to install."""


class ApiError(Exception):
    """A refusal by the control plane, answered as JSON."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def body(self, path: str, timestamp: str) -> dict[str, object]:
        return {
            "path": path,
            "timestamp": timestamp,
            "statusCode": self.status,
            "error": http.HTTPStatus(self.status).phrase,
            "message": self.message,
        }


class DaemonError(Exception):
    """A refusal by the daemon inside a sandbox.

    Args:
        status: The HTTP status.
        message: What the body says, where there is one.
        code: The code of a newer daemon, or one that both have, where it does not follow from the status.
        everywhere: Whether a daemon of 0.190 has this code, too.
    """

    def __init__(self, status: int, message: str, code: str = "", *, everywhere: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.everywhere = everywhere

    def body(self, method: str, path: str, timestamp: str, *, newer: bool) -> dict[str, object]:
        code = self.code if self.code and (newer or self.everywhere) else _CODES.get(self.status, "")
        body = {
            "statusCode": self.status,
            "message": self.message,
            "code": code,
            "timestamp": timestamp,
            "path": path,
            "method": method,
        }
        return {**body, "source": "DAYTONA_DAEMON"} if newer else body


_CODES = {
    400: "BAD_REQUEST",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
    410: "GONE",
    500: "INTERNAL_SERVER_ERROR",
}


class DaemonGone(Exception):
    """The sandbox counts as started, but nothing answers in it: a bare 502."""
