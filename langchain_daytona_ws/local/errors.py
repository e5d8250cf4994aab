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
    """A refusal by the daemon inside a sandbox, answered as JSON that names it as the source."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self, method: str, path: str, timestamp: str) -> dict[str, object]:
        return {
            "statusCode": self.status,
            "source": "DAYTONA_DAEMON",
            "code": self.code,
            "message": self.message,
            "timestamp": timestamp,
            "path": path,
            "method": method,
        }


class DaemonGone(Exception):
    """The sandbox counts as started, but nothing answers in it: a bare 502."""
