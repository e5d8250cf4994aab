"""Errors of the local server, and their JSON bodies in Daytona's format."""

from __future__ import annotations

import http


class IsolationUnavailable(RuntimeError):
    """Sandboxes cannot be isolated on this machine; the message says what to install or change."""


class S3Unavailable(RuntimeError):
    """S3 cannot be served on this machine; the message says what to install."""


class ApiError(Exception):
    """An error that the server itself reports. `DaemonError` is for the daemon in a sandbox."""

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
    """An error that the daemon inside a sandbox reports. `code` is empty for the usual code of the status.

    If `in_every_version` is False, daemon 0.190 sends the usual code of the status instead of `code`.
    """

    def __init__(self, status: int, message: str, code: str = "", *, in_every_version: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.in_every_version = in_every_version

    def body(self, method: str, path: str, timestamp: str, *, newer: bool) -> dict[str, object]:
        sends_code = self.code and (newer or self.in_every_version)
        code = self.code if sends_code else _CODES.get(self.status, "")
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
    """The sandbox is `started`, but its daemon gives no valid answer. Reported as a 502 without a body."""
