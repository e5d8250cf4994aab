"""The server's thread with its event loop, and the HTTP server in it: uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .clock import Clock, ManualClock
from .fleet import Fleet
from .journal import Journal

SWEEP_S = 0.2
START_S = 30.0
STOP_S = 60.0
RESET_S = 50.0
# Longer than clients keep idle connections: if the server closed a connection just when a client uses it, the client
# would send its request twice.
KEEP_ALIVE_S = 600

T = TypeVar("T")
logger = logging.getLogger(__name__)
# Errors only: socket.io clients always cause uvicorn's warning "Unsupported upgrade request".
logger.setLevel(logging.ERROR)


class ServerThread:
    """Runs the server in a thread with its own event loop.

    Call its methods from other threads. `reset` is a coroutine: pass it to `run`.
    """

    def __init__(self, server_socket: socket.socket, fleet: Fleet, application: Any, clock: Clock) -> None:
        self.fleet = fleet
        self.port: int = server_socket.getsockname()[1]
        self.cleanup = contextlib.ExitStack()
        self._server_socket = server_socket
        self._host: str = server_socket.getsockname()[0]
        self._clock = clock
        self._listener = Listener(application)
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._main, name=f"local-daytona-{self.port}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._listener.accepting.wait(START_S):
            raise RuntimeError("the server did not start")
        if isinstance(self._clock, ManualClock):
            self._clock.subscribe(self._sweep_now)

    def stop(self) -> None:
        if isinstance(self._clock, ManualClock):
            self._clock.unsubscribe(self._sweep_now)
        # Sandboxes first: this ends the requests that wait for their commands.
        self.run(self.fleet.close())
        self._loop.call_soon_threadsafe(self._listener.request_exit)
        self._thread.join(STOP_S)
        self._server_socket.close()

    def close_connections(self) -> None:
        self.run(self._listener.close_connections())
        self._server_socket.close()

    def accept_connections(self) -> None:
        self._server_socket = bind(self._host, self.port)
        self.run(self._listener.startup([self._server_socket]))

    async def reset(self, journal: Journal) -> None:
        """Destroy all sandboxes and end all open requests, including requests that arrive in the meantime.

        Raises:
            TimeoutError: requests are still open after RESET_S.
        """
        deadline = self._loop.time() + RESET_S
        while self.fleet.all() or journal.open_count:
            if self._loop.time() > deadline:
                raise TimeoutError(f"{journal.open_count} requests are still open")
            self._listener.end_delays()
            await self.fleet.clear()
            await asyncio.sleep(0.002)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(STOP_S)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        sweeping = None
        if not isinstance(self._clock, ManualClock):
            sweeping = asyncio.create_task(self._sweep_periodically())
        await self._listener.serve(sockets=[self._server_socket])
        if sweeping is not None:
            sweeping.cancel()

    async def _sweep_periodically(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.fleet.sweep()
            except Exception:
                logger.exception("sweeping failed")

    def _sweep_now(self) -> None:
        self.run(self.fleet.sweep())


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop of uvloop if uvloop is installed, because uvloop uses less CPU."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server_socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Connections inherit TCP_NODELAY. Without it, an answer in two writes waits 40 ms for an acknowledgement.
        server_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server_socket.bind((host, port))
        server_socket.listen(1024)
    except OSError:
        server_socket.close()
        raise
    return server_socket


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Registers the transport of each open connection, so that a fault can close its request's connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = logger

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peername")[:2]
        self.app_state["transports"][self._peer] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.app_state["transports"].pop(self._peer, None)
        super().connection_lost(exc)


class Listener(uvicorn.Server):
    """Serves an application on bound sockets. `accepting` is set at the first start, and stays set."""

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
        """Stop serving when the open requests are answered, or after 5 seconds. Call it on the server's loop."""
        self._closing.set()
        self.should_exit = True

    async def close_connections(self) -> None:
        """Close the listening sockets and all connections at once; `startup` listens again, on new sockets."""
        servers, self.servers = self.servers, []
        for server in servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for server in servers:
            await server.wait_closed()  # newer Pythons also wait here until the connections are closed

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state["transports"] = {}
        self.lifespan.state["closing"] = self._closing
        await super().startup(sockets)
        self.accepting.set()
