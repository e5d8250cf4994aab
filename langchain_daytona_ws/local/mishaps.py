"""Carries out faults on a request's way in and its answer's way out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .errors import ApiError
from .faults import Fault, FaultKind, first
from .replies import json_reply


async def before(faults: Iterable[Fault], request: Request) -> bool:
    """Do what strikes before the request is looked at; False when its connection was dropped."""
    latency = first(faults, "latency")
    if latency:
        await _sleep(request.scope, latency.delay_s)
    await _act(faults, "act_before")
    if not first(faults, "drop_before"):
        return True
    # Closing over unread bytes would send a reset, which clients take for another error than a quiet close.
    await request.body()
    await _hang_up(request.scope, request.receive)
    return False


def instead(faults: Iterable[Fault]) -> Response | None:
    """Return the answer that a fault gives in place of the real one, None when there is no such fault."""
    fault = first(faults, "status")
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


async def after(
    faults: Iterable[Fault], response: Response, scope: Scope, receive: Receive, send: Send
) -> bool:
    """Send the answer, spoilt as the faults demand; False when nothing of it was sent."""
    if first(faults, "act_after"):
        start, body = await _record(response, scope, receive)
        response = Response(body, response.status_code)
        response.raw_headers = start["headers"]
        await _act(faults, "act_after")
    if first(faults, "drop_after"):
        await _record(response, scope, receive)
        await _hang_up(scope, receive)
        return False
    if first(faults, "malformed"):
        await _record(response, scope, receive)
        await Response(b'{"exitCode": 0, "resu', media_type="application/json")(scope, receive, send)
    elif first(faults, "truncate"):
        start, body = await _record(response, scope, receive)
        await send(start)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await _hang_up(scope, receive)
    else:
        slow = first(faults, "slow_body")
        await response(scope, receive, send if slow is None else _slowly(scope, send, slow.delay_s))
    return True


async def _act(faults: Iterable[Fault], kind: FaultKind) -> None:
    fault = first(faults, kind)
    if fault is not None and fault.act is not None:
        await asyncio.to_thread(fault.act)


async def _record(response: Response, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
    """Let the response run its course, and return what it would have sent: its start and its body."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await response(scope, receive, keep)
    return messages[0], b"".join(message.get("body", b"") for message in messages[1:])


def _slowly(scope: Scope, send: Send, delay_s: float) -> Send:
    async def slow(message: Message) -> None:
        if message["type"] == "http.response.body":
            await _sleep(scope, delay_s)
        await send(message)

    return slow


async def _sleep(scope: Scope, seconds: float) -> None:
    """Sleep, but not past the server's end."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(scope["state"]["closing"].wait(), seconds)


async def _hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection and wait until the HTTP server knows: it then expects no answer, and is silent."""
    transport = scope["state"]["transports"].get(scope["client"])
    if transport is not None:  # else the client was quicker
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
