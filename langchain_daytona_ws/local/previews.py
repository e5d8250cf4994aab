"""Preview links: URLs with a token, for the servers in sandboxes (assumed, from Daytona's documentation).

Daytona serves each preview under its own host name, ``{port}-{token}.{domain}``, or ``{port}-{sandbox id}.{domain}`` if
the token is sent in a header. This server has one address, so the first part of the name is in the path instead:
``/preview/{port}-{token}/``. Links to absolute paths, such as ``/style.css``, do not work. WebSockets are not served.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import h11
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .clock import Clock
from .errors import ApiError, DaemonError
from .fleet import Fleet
from .link import Link
from .record import SandboxRecord
from .replies import json_reply

DEFAULT_S = 60
MAX_S = 24 * 3600  # assumed
NOT_RUNNING = "Sandbox is not running. Is the Sandbox started?"
TOKEN_HEADER = "x-daytona-preview-token"  # noqa: S105 - the name of a header

_NAME = re.compile(r"(\d{1,5})-([A-Za-z0-9_-]{1,100})")
# Headers that are not forwarded: they concern one connection only (RFC 9110), or are written again.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade content-length".split()
)
KeepAlive = Callable[[SandboxRecord], AbstractContextManager[None]]


@dataclass(frozen=True)
class _Signed:
    sandbox_id: str
    port: int
    expires_at: float


class Previews:
    """Makes preview links, and forwards requests to servers in the sandboxes.

    `keep_alive` prevents a sandbox's auto-stop while a request is open.
    """

    def __init__(self, fleet: Fleet, clock: Clock, keep_alive: KeepAlive) -> None:
        self._fleet = fleet
        self._clock = clock
        self._keep_alive = keep_alive
        self._signed: dict[str, _Signed] = {}
        self._tokens: dict[str, str] = {}  # sandbox → token of its standard links

    # --- the control plane ---

    async def signed_url(self, request: Request) -> Response:
        """Make a link that contains its token."""
        record, port = self._target(request)
        seconds = _number(request.query_params.get("expiresInSeconds", str(DEFAULT_S)), "expiresInSeconds")
        if not 1 <= seconds <= MAX_S:
            raise ApiError(400, "expiresInSeconds must be between 1 second and 24 hours")
        now = self._clock.now()
        self._signed = {token: known for token, known in self._signed.items() if known.expires_at > now}
        token = secrets.token_urlsafe(16).replace("-", "0").replace("_", "1").lower()
        self._signed[token] = _Signed(record.id, port, now + seconds)
        url = f"{_base_url(request)}/preview/{port}-{token}"
        return json_reply({"sandboxId": record.id, "port": port, "token": token, "url": url})

    async def expire(self, request: Request) -> Response:
        """End a signed link before it expires."""
        record, port = self._target(request)
        known = self._signed.get(request.path_params["token"])
        if known is not None and (known.sandbox_id, known.port) == (record.id, port):
            del self._signed[request.path_params["token"]]
        return Response(status_code=200)

    async def standard_url(self, request: Request) -> Response:
        """Make a link whose token is sent in a header."""
        record, port = self._target(request)
        token = self._tokens.setdefault(record.id, secrets.token_hex(16))
        url = f"{_base_url(request)}/preview/{port}-{record.id}"
        return json_reply({"sandboxId": record.id, "url": url, "token": token})

    def _target(self, request: Request) -> tuple[SandboxRecord, int]:
        record = self._fleet.get(request.path_params["sandbox"])
        request.scope["sandbox_id"] = record.id
        port = _number(request.path_params["port"], "port")
        if not 1 <= port <= 65_535:
            raise ApiError(400, "Invalid port")
        return record, port

    # --- the pages ---

    async def page(self, request: Request) -> Response:
        """Forward a request to the server in the sandbox."""
        record, port = self._authorized(request)
        request.scope["sandbox_id"] = record.id
        if record.state != "started" or record.processes is None:
            raise ApiError(400, NOT_RUNNING)
        cleanup = request.scope["cleanup"]
        cleanup.enter_context(self._keep_alive(record))  # ends when the last byte is sent
        return await _forward(record.processes.link, port, request)

    def _authorized(self, request: Request) -> tuple[SandboxRecord, int]:
        name = _NAME.fullmatch(request.path_params["name"])
        if name is None:
            raise ApiError(404, "Not Found")
        port, rest = int(name[1]), name[2]
        known = self._signed.get(rest)
        if known is not None and known.port == port and known.expires_at > self._clock.now():
            try:
                return self._fleet.get(known.sandbox_id), port
            except ApiError:
                raise ApiError(404, "Not Found") from None
        expected = self._tokens.get(rest, "")
        given = request.headers.get(TOKEN_HEADER, "")
        if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
            raise ApiError(401, "Unauthorized")
        return self._fleet.get(rest), port


async def _forward(link: Link, port: int, request: Request) -> Response:
    connection = h11.Connection(h11.CLIENT)
    body = await request.body()
    # raw_path is /preview/{name}/{rest}; {rest} keeps its escapes.
    target = b"/" + b"".join(request.scope["raw_path"].split(b"/", 3)[3:])
    if request.scope["query_string"]:
        target += b"?" + request.scope["query_string"]
    headers = [
        (name, value)
        for name, value in request.scope["headers"]
        if name not in _HOP_BY_HOP and name != TOKEN_HEADER.encode()
    ]
    headers += [(b"connection", b"close"), (b"content-length", str(len(body)).encode())]
    sent = connection.send(h11.Request(method=request.method, target=target, headers=headers)) or b""
    if body:
        sent += connection.send(h11.Data(data=body)) or b""
    sent += connection.send(h11.EndOfMessage()) or b""
    receiving = link.receive({"op": "connect", "port": port}, sent)
    try:
        _, chunks = await request.scope["cleanup"].enter_async_context(receiving)
    except DaemonError as error:
        raise ApiError(502, f"no server answers on port {port}: {error.message}") from None
    events = _events(connection, chunks)
    try:
        head = await anext(events)
        while isinstance(head, h11.InformationalResponse):
            head = await anext(events)
        if not isinstance(head, h11.Response):
            raise h11.RemoteProtocolError("no response")
    except (h11.RemoteProtocolError, StopAsyncIteration) as error:
        raise ApiError(502, f"the server on port {port} sent no HTTP response: {error}") from None
    response = StreamingResponse(_data(events), status_code=head.status_code)
    response.raw_headers = [(name, value) for name, value in head.headers if name.lower() not in _HOP_BY_HOP]
    return response


async def _events(connection: h11.Connection, chunks: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await anext(chunks, b""))
            continue
        if event is h11.PAUSED or isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            return
        yield event


async def _data(events: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, h11.Data):
            yield bytes(event.data)
            await asyncio.sleep(0)


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ApiError(400, f"{name} must be an integer number") from None


def _base_url(request: Request) -> str:
    host = request.headers.get("host", "127.0.0.1")
    return f"{request.scope['scheme']}://{host}"
