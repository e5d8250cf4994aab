"""The local Daytona: a server in a thread of this process, and the handles to look into it and disturb it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import copy
import ipaddress
import logging
import os
import secrets
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from . import app, scratch
from .clock import Clock, ManualClock, SystemClock
from .control import Control
from .faults import Faults
from .fleet import Fleet
from .isolation import Bubblewrap, IsolationKind, NoIsolation
from .journal import Journal, Request
from .listener import Listener
from .proxy import Proxy
from .record import SandboxRecord
from .s3 import DEFAULT_REGION, LocalS3
from .snapshots import Snapshots

SWEEP_S = 0.2
START_S = 30.0
STOP_S = 60.0

T = TypeVar("T")
logger = logging.getLogger(__name__)


class LocalDaytona:
    """A Daytona-compatible server on loopback, for tests, demos and work without an account.

    Use it as a context manager, or call `start` and `stop`. What a command prints is held in memory as a
    whole, as the original does; bound it in the command.

    Args:
        host: the address to listen on. Anything but loopback needs `allow_remote`, since whoever holds the
            key runs commands on this machine.
        port: 0 takes a free one.
        api_key: what clients must send; a random one when None.
        isolation: "bubblewrap", or "none" to run commands on the bare machine, where a path such as /mnt/x
            is the machine's own.
        shell: the shell that scripts are fed to, by name: zsh, bash, dash or sh. None takes the first of zsh,
            bash, $SHELL and sh.
        clock: `ManualClock` for tests of auto-stop and its like; the system's time when None.
        allow_remote: see `host`.
        root: the folder for sandbox disks, created if missing; a temporary one, removed at the end, when
            None. It must be one that the unprivileged users of the sandboxes can enter.
        organization_id: what sandboxes say they belong to; a random one when None.
        s3: also serve S3 and STS (see `s3`), and give the sandboxes a mount-s3. Not for isolation="none".

    Raises:
        IsolationUnavailable: from `start`, when sandboxes cannot be isolated here; it says what to do.
        S3Unavailable: from `start`, when `s3` is set and something for it is not installed.
        ValueError: when `host` is not loopback and `allow_remote` is not set.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        isolation: IsolationKind = "bubblewrap",
        shell: str | None = None,
        clock: Clock | None = None,
        allow_remote: bool = False,
        root: str | os.PathLike[str] | None = None,
        organization_id: str | None = None,
        s3: bool = False,
    ) -> None:
        if not allow_remote and not _is_loopback(host):
            raise ValueError(
                f"{host} is not a loopback address: whoever reaches this server and holds its key runs "
                "commands on this machine. Pass allow_remote=True (--allow-remote) if that is what you want."
            )
        if isolation not in ("bubblewrap", "none"):
            raise ValueError(f"isolation must be 'bubblewrap' or 'none', not {isolation!r}")
        if s3 and isolation == "none":
            raise ValueError(
                "s3=True needs isolation='bubblewrap': without it mounts would be the machine's own"
            )
        self.api_key = api_key or f"dtn_local_{secrets.token_hex(24)}"
        self.organization_id = organization_id or str(uuid.uuid4())
        self.faults = Faults()
        self._host = host
        self._port = port
        self._isolation_kind = isolation
        self._shell = shell
        self._clock: Clock = clock or SystemClock()
        self._root = None if root is None else Path(root)
        self._s3 = LocalS3() if s3 else None
        self._journal = Journal()
        self._running: _Running | None = None

    # --- life ---

    def start(self) -> Self:
        """Start serving; returns once connections are answered."""
        if self._running is not None:
            raise RuntimeError("this server is running already")
        with contextlib.ExitStack() as undo:
            listening = undo.enter_context(_bind(self._host, self._port))
            root = undo.enter_context(scratch.folder(self._root))
            if self._s3 is not None:
                undo.enter_context(self._s3)
            isolation = self._isolation(root)
            fleet = Fleet(isolation, root / "sandboxes", self._clock, self.organization_id)
            self._running = _Running(listening, fleet, self._application(fleet), self._clock)
            self._running.start()
            self._running.undo = undo.pop_all()
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Destroy all sandboxes and stop serving; returns when no process or file of theirs is left."""
        running, self._running = self._running, None
        if running is None:
            return
        atexit.unregister(self.stop)
        with running.undo:
            running.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def serve_forever(self, on_ready: Callable[[LocalDaytona], None] | None = None) -> None:
        """Serve until SIGINT or SIGTERM, then clean up and return. Call it on the main thread.

        `on_ready` is called once connections are answered, for example to print `api_url`.
        """
        ended = threading.Event()

        def end(signum: int, frame: FrameType | None) -> None:
            ended.set()

        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self:
                if on_ready is not None:
                    on_ready(self)
                ended.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- looking in ---

    @property
    def api_url(self) -> str:
        """Where clients find this server."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._alive.port}/api"

    @property
    def clock(self) -> Any:
        """The clock that this server goes by; a ManualClock has `advance(seconds)`."""
        return self._clock

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order of arrival."""
        if self._running is not None:
            # An answer may be read before the server has noted that it was sent: let it finish its step.
            self._running.run(asyncio.sleep(0))
        return self._journal.requests()

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self._journal.clear()

    def count(self, action: str) -> int:
        """Return how many requests of this action arrived, answered or not."""
        return sum(request.action == action for request in self.requests)

    @property
    def sandboxes(self) -> list[SandboxRecord]:
        """The sandboxes that are not destroyed, as they are now: copies, oldest first."""
        return self._alive.run(self._copies())

    @property
    def s3(self) -> LocalS3:
        """The S3 and STS beside this server, when it was made with s3=True."""
        if self._s3 is None:
            raise RuntimeError("this server has no S3: make it with LocalDaytona(s3=True)")
        return self._s3

    @property
    def s3_endpoint(self) -> str:
        """Where S3 and STS are, for the host and for sandboxes alike."""
        return self.s3.endpoint

    def make_bucket(self, name: str, region: str = DEFAULT_REGION) -> str:
        """Make a bucket and return its name."""
        return self.s3.make_bucket(name, region)

    # --- interfering, as an outside party would ---

    def stop_sandbox(self, sandbox_id: str) -> None:
        """Stop a sandbox (by id or name)."""
        self._alive.run(self._alive.fleet.stop(self._alive.fleet.get(sandbox_id)))

    def destroy_sandbox(self, sandbox_id: str) -> None:
        """Destroy a sandbox (by id or name), whatever its state."""
        self._alive.run(self._alive.fleet.destroy(self._alive.fleet.get(sandbox_id), force=True))

    def crash_sandbox(self, sandbox_id: str) -> None:
        """Kill everything in a sandbox, its daemon included, while it goes on counting as started."""
        self._alive.run(self._alive.fleet.crash(self._alive.fleet.get(sandbox_id)))

    # --- inside ---

    @property
    def _alive(self) -> _Running:
        if self._running is None:
            raise RuntimeError("this server is not running: use it as a context manager, or call start()")
        return self._running

    def _isolation(self, root: Path) -> Bubblewrap | NoIsolation:
        if self._isolation_kind == "none":
            return NoIsolation(root, self._shell)
        return Bubblewrap(root, self._shell, mounts=self._s3 is not None)

    async def _copies(self) -> list[SandboxRecord]:
        return [copy.copy(record) for record in self._alive.fleet.all()]

    def _application(self, fleet: Fleet) -> Any:
        gate = app.Gate(
            api_key=self.api_key, journal=self._journal, faults=self.faults, fleet=fleet, clock=self._clock
        )
        control = Control(fleet, Snapshots(self._clock.now()), self._clock)
        return app.build(gate, control, Proxy(fleet, self._clock))


class _Running:
    """The server's thread, with its event loop."""

    def __init__(self, listening: socket.socket, fleet: Fleet, application: Any, clock: Clock) -> None:
        self.fleet = fleet
        self.port: int = listening.getsockname()[1]
        self.undo = contextlib.ExitStack()
        self._listening = listening
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(host: str, port: int) -> socket.socket:
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
