"""The thread that serves: its event loop, its listening socket, and the coming and going of both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from .clock import Clock, ManualClock
from .fleet import Fleet
from .journal import Journal
from .listener import Listener

SWEEP_S = 0.2
START_S = 30.0
STOP_S = 60.0
RESET_S = 50.0

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Serving:
    """The server's thread, with its event loop."""

    def __init__(self, listening: socket.socket, fleet: Fleet, application: Any, clock: Clock) -> None:
        self.fleet = fleet
        self.port: int = listening.getsockname()[1]
        self.undo = contextlib.ExitStack()
        self._listening = listening
        self._host: str = listening.getsockname()[0]
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
        # First the sandboxes: requests that wait for their commands end with them.
        self.run(self.fleet.close())
        self._loop.call_soon_threadsafe(self._listener.end)
        self._thread.join(STOP_S)
        self._listening.close()

    def leave(self) -> None:
        """Refuse connections from now on, and break those that there are. Blocks."""
        self.run(self._listener.leave())
        self._listening.close()

    def come_back(self) -> None:
        """Take connections again, at the same address. Blocks."""
        self._listening = bind(self._host, self.port)
        self.run(self._listener.startup([self._listening]))

    async def reset(self, journal: Journal) -> None:
        """Destroy all sandboxes and end all open requests, also those that arrive meanwhile."""
        until = self._loop.time() + RESET_S
        while self.fleet.all() or journal.open:
            if self._loop.time() > until:
                raise TimeoutError(f"{journal.open} requests are open still")
            self._listener.end_delays()
            await self.fleet.clear()
            await asyncio.sleep(0.002)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop from another thread and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(STOP_S)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        sweeping = None
        if not isinstance(self._clock, ManualClock):
            sweeping = asyncio.create_task(self._sweep_on())
        await self._listener.serve(sockets=[self._listening])
        if sweeping is not None:
            sweeping.cancel()

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.fleet.sweep()
            except Exception:
                logger.exception("sweeping failed")

    def _sweep_now(self) -> None:
        self.run(self.fleet.sweep())


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop where that is installed: it is a little leaner."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Inherited by connections. Without it an answer written in two pieces waits 40 ms for an acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except OSError:
        listening.close()
        raise
    return listening
