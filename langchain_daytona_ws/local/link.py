"""The server's end of a sandbox's daemon: a connection a request, handed over the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from .errors import DaemonError, DaemonGone
from .toolbox.wire import CHUNK_BYTES, HEADER_LENGTH, MAX_HEADER_BYTES, pack

# How long a daemon may take to make room for another connection, and how often that is tried.
HAND_OVER_S = 5.0
AGAIN_S = 0.02


class Link:
    """Calls the daemon of one sandbox. What comes back is a stranger's word, checked before it is used."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def close(self) -> None:
        """Hang up, upon which the daemon ends."""
        self._control.close()

    async def call(self, header: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Send one request and return the answer's header and body.

        Raises DaemonError when the daemon refuses, DaemonGone when there is none.
        """
        async with self._exchange(header, body) as (answer, connection):
            rest = bytearray()
            async for chunk in _chunks(connection):
                rest += chunk
            return answer, bytes(rest)

    async def send(self, header: dict[str, Any], body: AsyncIterable[bytes]) -> dict[str, Any]:
        """Send a request whose body comes in chunks, and return the answer's header."""
        async with self._exchange(header, body) as (answer, _):
            return answer

    @contextlib.asynccontextmanager
    async def receive(
        self, header: dict[str, Any]
    ) -> AsyncIterator[tuple[dict[str, Any], AsyncIterator[bytes]]]:
        """Send one request and yield the answer's header and the chunks of its body."""
        async with self._exchange(header, b"") as (answer, connection):
            yield answer, _chunks(connection)

    @contextlib.asynccontextmanager
    async def _exchange(
        self, header: dict[str, Any], body: bytes | AsyncIterable[bytes]
    ) -> AsyncIterator[tuple[dict[str, Any], socket.socket]]:
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            try:
                with theirs:
                    await self._hand_over(theirs)
                await _send(ours, header, body)
                answer = await _answer(ours)
            except OSError as error:
                raise DaemonGone from error
            if "code" in answer:
                raise DaemonError(int(answer["status"]), str(answer["message"]), str(answer["code"]))
            yield answer, ours

    async def _hand_over(self, theirs: socket.socket) -> None:
        """Hand `theirs` to the daemon; BlockingIOError when it takes none, as when it has been stopped."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HAND_OVER_S
        while True:
            try:
                socket.send_fds(self._control, [b"c"], [theirs.fileno()])
            except BlockingIOError:
                if loop.time() >= deadline:
                    raise
                await asyncio.sleep(AGAIN_S)
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


async def _answer(connection: socket.socket) -> dict[str, Any]:
    (length,) = HEADER_LENGTH.unpack(await _exactly(connection, HEADER_LENGTH.size))
    if length > MAX_HEADER_BYTES:
        raise DaemonGone
    try:
        answer = json.loads(await _exactly(connection, length))
    except ValueError as error:
        raise DaemonGone from error
    if not isinstance(answer, dict):
        raise DaemonGone
    return answer


async def _exactly(connection: socket.socket, size: int) -> bytes:
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
