"""The HTTP server: uvicorn without logs, controlled by its owner, and able to close a client's connection."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

# Longer than clients keep idle connections: a request on a closing connection would be sent twice.
KEEP_ALIVE_S = 600

# Errors only: socket.io clients always cause the warning "Unsupported upgrade request".
_logger = logging.getLogger(__name__)
_logger.setLevel(logging.ERROR)


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Registers the transport of each open connection, so that a request can close its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _logger

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peername")[:2]
        self.app_state["transports"][self._peer] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.app_state["transports"].pop(self._peer, None)
        super().connection_lost(exc)


class Listener(uvicorn.Server):
    """Serves an application on bound sockets. `accepting` is set when connections are accepted."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=5,
            )
        )
        self.accepting = threading.Event()
        self._closing = asyncio.Event()

    def end_delays(self) -> None:
        """Answer delayed requests at once. Call it on the server's loop."""
        self._closing.set()
        self._closing = asyncio.Event()
        self.lifespan.state["closing"] = self._closing

    def request_exit(self) -> None:
        """Stop serving when the open requests are answered. Call it on the server's loop."""
        self._closing.set()
        self.should_exit = True

    async def close_connections(self) -> None:
        """Close the listening sockets and all connections at once; `startup` opens the sockets again."""
        servers, self.servers = self.servers, []
        for server in servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for server in servers:
            await server.wait_closed()  # newer Pythons wait for the connections too

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state["transports"] = {}
        self.lifespan.state["closing"] = self._closing
        await super().startup(sockets)
        self.accepting.set()
