"""Faults on demand of S3 and STS: what goes wrong with which requests, and how often."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
Answer: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

S3FaultKind: TypeAlias = Literal[
    "drop_before",  # take the request, do nothing, close the connection without a byte
    "drop_after",  # do all of it, then close the connection without a byte
    "status",  # answer `status` with an empty body, do nothing
    "truncate",  # do it, send half of the body, close the connection; of an empty one, half of the head
    "malformed",  # do it, answer 200 with a body that is no XML
    "late",  # do it, then wait `delay_s` before the answer
]
SERVICES = ("s3", "sts")


@dataclass(frozen=True)
class S3Fault:
    """One fault, armed with `LocalS3.add_fault`.

    Args:
        kind: what happens.
        service: "s3" or "sts".
        method: the requests it concerns, such as "PUT"; None for all.
        times: how often it happens before it is spent; None for always.
        delay_s: for late, in seconds.
        status: for status.
        retry_after_s: for status: what the answer asks for, if anything.
    """

    kind: S3FaultKind
    service: str = "s3"
    method: str | None = None
    times: int | None = 1
    delay_s: float = 0.0
    status: int = 503
    retry_after_s: int | None = None

    def written(self) -> dict[str, Any]:
        return asdict(self)


class S3Faults:
    """The armed faults; any of the server's threads may take one."""

    def __init__(self) -> None:
        self._armed: list[list[Any]] = []  # fault, times left
        self._lock = threading.Lock()

    def add(self, fault: S3Fault) -> None:
        with self._lock:
            self._armed.append([fault, fault.times])

    def clear(self) -> None:
        with self._lock:
            self._armed = []

    def take(self, service: str, method: str) -> S3Fault | None:
        """Return what strikes this request, and count it as done."""
        with self._lock:
            for one in self._armed:
                fault, left = one
                if left == 0 or fault.service != service or fault.method not in (None, method):
                    continue
                if left is not None:
                    one[1] = left - 1
                return fault  # type: ignore[no-any-return]
        return None


def strike(
    fault: S3Fault, answer: Answer, environ: Environ, start: StartResponse, drain: Callable[[Environ], None]
) -> Iterable[bytes]:
    """Answer a request as the fault demands."""
    if fault.kind == "status":
        drain(environ)
        headers = [("Content-Length", "0")]
        if fault.retry_after_s is not None:
            headers.append(("Retry-After", str(fault.retry_after_s)))
        start(f"{fault.status} On Demand", headers)
        return []
    if fault.kind == "drop_before":
        drain(environ)
        return _hung_up(environ)
    held: list[Any] = []
    body = b"".join(answer(environ, lambda *arguments: held.extend(arguments)))
    if fault.kind == "drop_after":
        return _hung_up(environ)
    if fault.kind == "malformed":
        text = b"<Answer><Unfinish"
        start("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
        return [text]
    if fault.kind == "truncate":
        head = f"HTTP/1.1 {held[0]}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in held[1])
        whole = f"{head}\r\n".encode() + body if body else head.encode()[: len(head) // 2]
        environ["werkzeug.socket"].sendall(whole[: len(whole) - (len(body) + 1) // 2])
        return _hung_up(environ)
    time.sleep(fault.delay_s)
    start(*held)
    return [body]


def _hung_up(environ: Environ) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError  # which the server takes for a client that has gone
