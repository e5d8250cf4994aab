"""The client of a sandbox's daemon. Each request has its own socket, which is passed over the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from .errors import DaemonError, DaemonGone
from .toolbox.wire import CHUNK_BYTES, HEADER_LENGTH, MAX_HEADER_BYTES, pack

# How long to wait for a daemon whose socket buffer is full, and how often to try again.
PASS_TIMEOUT_S = 5.0
RETRY_S = 0.02


class Link:
    """Calls the daemon of one sandbox.

    The daemon's answers are not trusted: a header must be a JSON object of limited length.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def close(self) -> None:
        """Close the control socket, which ends the daemon."""
        self._control.close()

    async def call(self, header: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Send one request and return the answer's header and body.

        Raises:
            DaemonError: the daemon answered with an error.
            DaemonGone: the daemon did not answer, or sent no complete JSON object as the header.
        """
        async with self._exchange(header, body) as (answer, connection):
            content = bytearray()
            async for chunk in _chunks(connection):
                content += chunk
            return answer, bytes(content)

    async def send(self, header: dict[str, Any], body: AsyncIterable[bytes]) -> dict[str, Any]:
        """Send a request with a body in chunks, and return the answer's header."""
        async with self._exchange(header, body) as (answer, _):
            return answer

    @contextlib.asynccontextmanager
    async def receive(
        self, header: dict[str, Any], body: bytes = b""
    ) -> AsyncIterator[tuple[dict[str, Any], AsyncIterator[bytes]]]:
        """Send one request and yield the answer's header and the chunks of its body."""
        async with self._exchange(header, body) as (answer, connection):
            yield answer, _chunks(connection)

    @contextlib.asynccontextmanager
    async def _exchange(
        self, header: dict[str, Any], body: bytes | AsyncIterable[bytes]
    ) -> AsyncIterator[tuple[dict[str, Any], socket.socket]]:
        connection, daemon_end = socket.socketpair()
        with connection:
            connection.setblocking(False)
            try:
                with daemon_end:
                    await self._pass_to_daemon(daemon_end)
                await _send(connection, header, body)
                answer = await _receive_header(connection)
            except OSError as error:
                raise DaemonGone from error
            if "code" in answer:
                raise _reported(answer)
            yield answer, connection

    async def _pass_to_daemon(self, daemon_end: socket.socket) -> None:
        """Send the socket to the daemon. If the daemon does not read for 5 s, raise BlockingIOError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PASS_TIMEOUT_S
        while True:
            try:
                socket.send_fds(self._control, [b"c"], [daemon_end.fileno()])
            except BlockingIOError:
                if loop.time() >= deadline:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return


async def _send(
    connection: socket.socket, header: dict[str, Any], body: bytes | AsyncIterable[bytes]
) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(body, bytes):
        await loop.sock_sendall(connection, pack(header) + body)
    else:
        await loop.sock_sendall(connection, pack(header))
        async for chunk in body:
            await loop.sock_sendall(connection, chunk)
    connection.shutdown(socket.SHUT_WR)


async def _receive_header(connection: socket.socket) -> dict[str, Any]:
    (length,) = HEADER_LENGTH.unpack(await _receive_exactly(connection, HEADER_LENGTH.size))
    if length > MAX_HEADER_BYTES:
        raise DaemonGone
    try:
        answer = json.loads(await _receive_exactly(connection, length))
    except (ValueError, RecursionError) as error:
        raise DaemonGone from error
    if not isinstance(answer, dict):
        raise DaemonGone
    return answer


def _reported(answer: dict[str, Any]) -> Exception:
    """Return the error that a daemon reports. The daemon may be a program of the agent: a malformed error ends it."""
    status, message, code = answer.get("status"), answer.get("message"), answer.get("code")
    if type(status) is int and 400 <= status < 600 and isinstance(message, str) and isinstance(code, str):
        return DaemonError(status, message, code)
    return DaemonGone()


async def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = bytearray()
    while len(received) < size:
        chunk = await loop.sock_recv(connection, min(size - len(received), CHUNK_BYTES))
        if not chunk:
            raise DaemonGone
        received += chunk
    return bytes(received)


async def _chunks(connection: socket.socket) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    try:
        while chunk := await loop.sock_recv(connection, CHUNK_BYTES):
            yield chunk
    except OSError as error:
        raise DaemonGone from error
