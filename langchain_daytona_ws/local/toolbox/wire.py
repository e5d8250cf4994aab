"""The protocol of server and daemon. A connection has one request and one answer: each is a JSON header and bytes."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

HEADER_LENGTH = struct.Struct("!I")
MAX_HEADER_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 256 * 1024


def pack(header: dict[str, Any]) -> bytes:
    encoded = json.dumps(header).encode()
    return HEADER_LENGTH.pack(len(encoded)) + encoded


def read_header(connection: socket.socket) -> dict[str, Any]:
    """Read the header.

    Raises:
        EOFError: the connection ended before the header did.
        OSError: the connection broke.
        RecursionError: the header is nested too deeply.
        ValueError: the header is malformed or too long.
    """
    (length,) = HEADER_LENGTH.unpack(read_exactly(connection, HEADER_LENGTH.size))
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes is over the limit")
    header = json.loads(read_exactly(connection, length))
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")  # noqa: TRY004 - a malformed header
    return header


def read_exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(min(size - len(received), CHUNK_BYTES))
        if not chunk:
            raise EOFError("the connection ended inside a header")
        received += chunk
    return bytes(received)


def read_rest(connection: socket.socket) -> bytearray:
    received = bytearray()
    while True:
        chunk = connection.recv(CHUNK_BYTES)
        if not chunk:
            return received
        received += chunk
