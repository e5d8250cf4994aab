"""Faults that can be injected, and how they change a request or its answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .errors import ApiError
from .replies import json_reply

FaultKind: TypeAlias = Literal[
    "latency",  # wait `delay_s`, then continue as usual
    "drop_before",  # read the request, do not carry it out, close the connection without a byte
    "drop_after",  # carry out the request, then close the connection without a byte
    "status",  # answer `status` with `headers`, do not carry out the request
    "slow_body",  # carry out the request, send the headers, wait `delay_s` before each part of the body
    "truncate",  # carry out the request, send half of the body, close the connection
    "malformed",  # carry out the request, answer 200 with a body that is not JSON
    "pending",  # answer at once; the state change ends `delay_s` later, by the server's clock
    "stuck",  # the state change never ends: a create stays "creating", a stop "stopping"
    "fail",  # the state change ends in the state "error", the build of a snapshot in "build_failed"
    "lost",  # destroy the sandbox, then process the request
    "act_before",  # call `act` in a thread, then process the request
    "act_after",  # carry out the request, call `act` in a thread, then answer
]


@dataclass(frozen=True)
class Fault:
    """A fault to inject, added with `LocalDaytona.faults.add`.

    Args:
        kind: what happens.
        action: apply the fault only to requests with this action in the journal, such as "execute"; None for all.
        path: apply the fault only if this regular expression matches a part of the request's path; None for all.
        times: the number of requests to which the fault applies; None for no limit.
        skip: the number of matching requests to leave unchanged first.
        probability: the probability that the fault applies to a matching request, from 0 to 1.
        seed: the seed of the random numbers: an equal seed selects the same requests.
        delay_s: the delay of the kinds latency, slow_body and pending, in seconds.
        status: the HTTP status of the kind status. A 502 without `body` has an empty body, as from a proxy.
        headers: the headers of the kind status, for example {"Retry-After": "1"}.
        body: the body of the kind status; None for the usual error body of `status`.
        act: the function that the kinds act_before and act_after call. It may change this server or the client.
    """

    kind: FaultKind
    action: str | None = None
    path: str | None = None
    times: int | None = 1
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    delay_s: float = 0.0
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    act: Callable[[], object] | None = None


class _ActiveFault:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._remaining = fault.times
        self._skip = fault.skip
        self._random = random.Random(fault.seed)  # noqa: S311 - reproducible, not secret
        self._path = None if fault.path is None else re.compile(fault.path)

    @property
    def is_used_up(self) -> bool:
        return self._remaining == 0

    def take(self, action: str, path: str) -> bool:
        """Count the request. Return True if the fault applies to it."""
        if self.is_used_up or self.fault.action not in (None, action):
            return False
        if self._path is not None and self._path.search(path) is None:
            return False
        if self._skip > 0:
            self._skip -= 1
            return False
        if self._random.random() >= self.fault.probability:
            return False
        if self._remaining is not None:
            self._remaining -= 1
        return True


class Faults:
    """The active faults of one server. All methods are thread-safe."""

    def __init__(self) -> None:
        self._active: list[_ActiveFault] = []
        self._lock = threading.Lock()

    def add(self, *faults: Fault) -> None:
        """Inject these faults from now on."""
        with self._lock:
            self._active += [_ActiveFault(fault) for fault in faults]

    def clear(self) -> None:
        """Remove all faults. A sandbox that is already stuck stays stuck."""
        with self._lock:
            self._active = []

    def take(self, action: str, path: str) -> tuple[Fault, ...]:
        """Count the request, and return the faults that apply to it."""
        if not self._active:
            return ()
        with self._lock:
            applied = tuple(active.fault for active in self._active if active.take(action, path))
            self._active = [active for active in self._active if not active.is_used_up]
        return applied


def find_fault(faults: Iterable[Fault], kind: FaultKind) -> Fault | None:
    return next((fault for fault in faults if fault.kind == kind), None)


async def apply_before(faults: Iterable[Fault], request: Request) -> bool:
    """Apply the faults that act before the request. Return False if one has closed the connection."""
    latency = find_fault(faults, "latency")
    if latency:
        await _sleep(request.scope, latency.delay_s)
    await _act(faults, "act_before")
    if not find_fault(faults, "drop_before"):
        return True
    # Closing with unread bytes would send a reset, which clients report differently from a normal close.
    await request.body()
    await _close_connection(request.scope, request.receive)
    return False


def injected_answer(faults: Iterable[Fault]) -> Response | None:
    """Return the answer of the fault `status`; None if there is no such fault."""
    fault = find_fault(faults, "status")
    if fault is None:
        return None
    headers = dict(fault.headers)
    if fault.body is not None:
        return Response(fault.body, fault.status, headers)
    if fault.status == 502:
        return Response(status_code=502, headers=headers)
    response = json_reply(ApiError(fault.status, "fault injected").body("", ""), fault.status)
    response.headers.update(headers)
    return response


async def send_answer(
    faults: Iterable[Fault], response: Response, scope: Scope, receive: Receive, send: Send
) -> bool:
    """Apply the faults to the answer, and send it; return False if nothing was sent."""
    if find_fault(faults, "act_after"):
        start, body = await _record(response, scope, receive)
        response = Response(body, response.status_code)
        response.raw_headers = start["headers"]
        await _act(faults, "act_after")
    if find_fault(faults, "drop_after"):
        await _record(response, scope, receive)
        await _close_connection(scope, receive)
        return False
    if find_fault(faults, "malformed"):
        await _record(response, scope, receive)
        await Response(b'{"exitCode": 0, "resu', media_type="application/json")(scope, receive, send)
    elif find_fault(faults, "truncate"):
        start, body = await _record(response, scope, receive)
        await send(start)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await _close_connection(scope, receive)
    else:
        slow = find_fault(faults, "slow_body")
        await response(scope, receive, send if slow is None else _delayed(scope, send, slow.delay_s))
    return True


async def _act(faults: Iterable[Fault], kind: FaultKind) -> None:
    fault = find_fault(faults, kind)
    if fault is not None and fault.act is not None:
        await asyncio.to_thread(fault.act)


async def _record(response: Response, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
    """Run the response without sending it, and return its start message and its body."""
    messages: list[Message] = []

    async def append(message: Message) -> None:
        messages.append(message)

    await response(scope, receive, append)
    return messages[0], b"".join(message.get("body", b"") for message in messages[1:])


def _delayed(scope: Scope, send: Send, delay_s: float) -> Send:
    async def send_late(message: Message) -> None:
        if message["type"] == "http.response.body":
            await _sleep(scope, delay_s)
        await send(message)

    return send_late


async def _sleep(scope: Scope, seconds: float) -> None:
    """Sleep, at most until the server stops or is reset."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(scope["state"]["closing"].wait(), seconds)


async def _close_connection(scope: Scope, receive: Receive) -> None:
    """Close the connection, and wait until the HTTP server has noticed; else it would log a missing answer."""
    transport = scope["state"]["transports"].get(scope["client"])
    if transport is not None:  # None if the client has closed the connection already
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
