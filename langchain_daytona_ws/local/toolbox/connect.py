"""Connects the server to a port inside the sandbox, for previews."""

from __future__ import annotations

import socket

from . import wire
from .errors import ToolboxError, reason

CONNECT_TIMEOUT_S = 5.0


def relay(port: int, connection: socket.socket) -> None:
    """Send the request that `connection` contains to the server on a port of localhost; send its answer back.

    Raises:
        ToolboxError: no server accepts the connection.
    """
    request = bytes(wire.read_rest(connection))
    try:
        upstream = socket.create_connection(("localhost", port), timeout=CONNECT_TIMEOUT_S)
    except OSError as error:
        raise ToolboxError(502, reason(error)) from error
    with upstream:
        upstream.settimeout(None)
        connection.sendall(wire.pack({}))
        upstream.sendall(request)
        while True:
            chunk = upstream.recv(wire.CHUNK_BYTES)
            if not chunk:
                return
            connection.sendall(chunk)
