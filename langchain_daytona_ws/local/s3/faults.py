"""Faults of S3 and STS that can be injected, and how they change an answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

# The types of WSGI.
Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
Application: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

S3FaultKind: TypeAlias = Literal[
    "drop_before",  # read the request, do not carry it out, close the connection without a byte
    "drop_after",  # carry out the request, then close the connection without a byte
    "status",  # answer `status` with an empty body, do not carry out the request
    "truncate",  # carry out the request, send half of the body (if it is empty, of the head), close the connection
    "malformed",  # carry out the request, answer 200 with a body that is not XML
    "late",  # carry out the request, wait `delay_s`, then answer
]
SERVICES = ("s3", "sts")


@dataclass(frozen=True)
class S3Fault:
    """A fault to inject, added with `LocalS3.add_fault`.

    Args:
        kind: what happens.
        service: "s3" or "sts".
        method: apply the fault only to requests with this method, such as "PUT"; None for all.
        times: the number of requests to which the fault applies; None for no limit.
        delay_s: the delay of the kind late, in seconds.
        status: the HTTP status of the kind status.
        retry_after_s: the Retry-After header of the kind status, in seconds; None for no header.
    """

    kind: S3FaultKind
    service: str = "s3"
    method: str | None = None
    times: int | None = 1
    delay_s: float = 0.0
    status: int = 503
    retry_after_s: int | None = None


class S3Faults:
    """The active faults. Thread-safe."""

    def __init__(self) -> None:
        self._active: list[list[Any]] = []  # fault, remaining times
        self._lock = threading.Lock()

    def add(self, fault: S3Fault) -> None:
        with self._lock:
            self._active.append([fault, fault.times])

    def clear(self) -> None:
        with self._lock:
            self._active = []

    def take(self, service: str, method: str) -> S3Fault | None:
        """Count the request, and return the fault that applies to it; None if no fault applies."""
        with self._lock:
            for active in self._active:
                fault, remaining = active
                if remaining == 0 or fault.service != service or fault.method not in (None, method):
                    continue
                if remaining is not None:
                    active[1] = remaining - 1
                return fault  # type: ignore[no-any-return]
        return None


def answer_with_fault(
    fault: S3Fault,
    application: Application,
    environ: Environ,
    start: StartResponse,
    drain: Callable[[Environ], None],
) -> Iterable[bytes]:
    if fault.kind == "status":
        drain(environ)
        headers = [("Content-Length", "0")]
        if fault.retry_after_s is not None:
            headers.append(("Retry-After", str(fault.retry_after_s)))
        start(f"{fault.status} On Demand", headers)
        return []
    if fault.kind == "drop_before":
        drain(environ)
        return _close_connection(environ)
    head: list[Any] = []
    body = b"".join(application(environ, lambda *arguments: head.extend(arguments)))
    if fault.kind == "drop_after":
        return _close_connection(environ)
    if fault.kind == "malformed":
        text = b"<Answer><Unfinish"
        start("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
        return [text]
    if fault.kind == "truncate":
        lines = f"HTTP/1.1 {head[0]}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in head[1])
        content = f"{lines}\r\n".encode() + body if body else lines.encode()[: len(lines) // 2]
        environ["werkzeug.socket"].sendall(content[: len(content) - (len(body) + 1) // 2])
        return _close_connection(environ)
    time.sleep(fault.delay_s)
    start(*head)
    return [body]


def _close_connection(environ: Environ) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError  # the server treats it as a client that closed the connection
