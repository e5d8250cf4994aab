"""The local Daytona: a server in a thread of this process, and the handles to look into it and disturb it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import copy
import ipaddress
import os
import secrets
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from . import app, scratch
from .clock import Clock, SystemClock
from .control import Control
from .faults import Faults
from .fleet import Fleet
from .isolation import Bubblewrap, IsolationKind, NoIsolation
from .journal import Journal, Request
from .proxy import DAEMON_KINDS, DaemonKind, Proxy
from .record import SandboxRecord
from .s3 import DEFAULT_REGION, LocalS3, S3Store
from .serving import Serving, bind
from .snapshots import Snapshots


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
        shell: the shell that scripts are fed to, by name: zsh, bash, dash or sh. None takes zsh or bash where the
            sandbox's /etc/shells lists them, or else $SHELL or sh.
        clock: `ManualClock` for tests of auto-stop and its like; the system's time when None.
        allow_remote: see `host`.
        root: the folder for sandbox disks, created if missing; a temporary one, removed at the end, when
            None. It must be one that the unprivileged users of the sandboxes can enter.
        organization_id: what sandboxes say they belong to; a random one when None.
        disk_bytes: how much fits into /tmp, and how much into /mnt, of each sandbox; both then are in memory, and
            empty after a stop. As much as on the machine's own disk when None. Not for isolation="none".
        daemon: which of Daytona's own daemons answers in the sandboxes: "0.190", the last one that is public, as it
            was measured; or "0.226", a newer one as the models of SDK 0.226 describe it, whose errors all have a body
            and a `source`, whose files have a `path`, whose listings a `depth`, and that takes changes of its
            environment.
        s3: also serve S3 and STS (see `s3`), and give the sandboxes a mount-s3. Not for isolation="none".
        mount_s3: with `s3`, path of the original mount-s3, which the sandboxes get in place of the local one.
        s3_store: with `s3`, a store with S3 and STS that stands in for moto, such as a MinIO.

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
        disk_bytes: int | None = None,
        daemon: DaemonKind = "0.190",
        s3: bool = False,
        mount_s3: str | os.PathLike[str] | None = None,
        s3_store: S3Store | None = None,
    ) -> None:
        if not allow_remote and not _is_loopback(host):
            raise ValueError(
                f"{host} is not a loopback address: whoever reaches this server and holds its key runs "
                "commands on this machine. Pass allow_remote=True (--allow-remote) if that is what you want."
            )
        if isolation not in ("bubblewrap", "none"):
            raise ValueError(f"isolation must be 'bubblewrap' or 'none', not {isolation!r}")
        if daemon not in DAEMON_KINDS:
            raise ValueError(f"daemon must be {' or '.join(map(repr, DAEMON_KINDS))}, not {daemon!r}")
        if s3 and isolation == "none":
            raise ValueError(
                "s3=True needs isolation='bubblewrap': without it mounts would be the machine's own"
            )
        if not s3 and (mount_s3 is not None or s3_store is not None):
            raise ValueError("mount_s3 and s3_store need s3=True")
        if mount_s3 is not None and not os.access(mount_s3, os.X_OK):
            raise ValueError(f"mount_s3: {os.fspath(mount_s3)} is not there, or no program that may be run")
        if disk_bytes is not None and isolation == "none":
            raise ValueError(
                "disk_bytes needs isolation='bubblewrap': without it disks are the machine's own"
            )
        self.api_key = api_key or f"dtn_local_{secrets.token_hex(24)}"
        self.organization_id = organization_id or str(uuid.uuid4())
        self.faults = Faults()
        self._host = host
        self._port = port
        self._isolation_kind = isolation
        self._shell = shell
        self._disk_bytes = disk_bytes
        self._daemon = daemon
        self._clock: Clock = clock or SystemClock()
        self._root = None if root is None else Path(root)
        self._s3 = LocalS3(store=s3_store) if s3 else None
        self._mount_s3 = None if mount_s3 is None else Path(mount_s3)
        self._journal = Journal()
        self._running: Serving | None = None

    # --- life ---

    def start(self) -> Self:
        """Start serving; returns once connections are answered."""
        if self._running is not None:
            raise RuntimeError("this server is running already")
        with contextlib.ExitStack() as undo:
            listening = undo.enter_context(bind(self._host, self._port))
            root = undo.enter_context(scratch.folder(self._root))
            if self._s3 is not None:
                undo.enter_context(self._s3)
            isolation = self._isolation(root)
            fleet = Fleet(isolation, root / "sandboxes", self._clock, self.organization_id)
            self._running = Serving(listening, fleet, self._application(fleet), self._clock)
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

    @property
    def open_requests(self) -> int:
        """How many requests have arrived and are not done with; what a client gave up may still be carried out."""
        return self._journal.open

    def run_inside(self, sandbox_id: str, script: str) -> tuple[int, bytes]:
        """Run a script in a sandbox that is started, past all faults and the journal: its exit code and output."""
        return self._alive.run(self._alive.fleet.execute(self._alive.fleet.get(sandbox_id), script))

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

    def fail_sandbox(self, sandbox_id: str) -> None:
        """Leave a sandbox in the state `error`, with nothing running in it."""
        self._alive.run(self._alive.fleet.fail(self._alive.fleet.get(sandbox_id)))

    def hold_sandbox(self, sandbox_id: str, state: str) -> None:
        """Leave a sandbox in the midst of a change, such as `stopping`; only its time-to-live or we end that."""
        self._alive.run(self._alive.fleet.hold(self._alive.fleet.get(sandbox_id), state))

    def reset(self) -> None:
        """Make the server as it was after `start`, for tests that share it. Buckets of `s3` and their objects stay.

        Sandboxes are destroyed, snapshots removed, faults disarmed, open requests ended and all requests forgotten.

        Raises:
            TimeoutError: when a client goes on sending requests.
        """
        self.faults.clear()
        self._alive.run(self._alive.reset(self._journal))
        self._snapshots.clear(self._clock.now())
        self._journal.clear()
        if self._s3 is not None:
            self._s3.reset()

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Refuse connections, and break those that there are, until the block is left."""
        serving = self._alive
        serving.leave()
        try:
            yield
        finally:
            serving.come_back()

    # --- inside ---

    @property
    def _alive(self) -> Serving:
        if self._running is None:
            raise RuntimeError("this server is not running: use it as a context manager, or call start()")
        return self._running

    def _isolation(self, root: Path) -> Bubblewrap | NoIsolation:
        if self._isolation_kind == "none":
            return NoIsolation(root, self._shell)
        return Bubblewrap(
            root,
            self._shell,
            mounts=self._s3 is not None,
            mount_program=self._mount_s3,
            disk_bytes=self._disk_bytes,
        )

    async def _copies(self) -> list[SandboxRecord]:
        return [copy.copy(record) for record in self._alive.fleet.all()]

    def _application(self, fleet: Fleet) -> Any:
        gate = app.Gate(
            api_key=self.api_key, journal=self._journal, faults=self.faults, fleet=fleet, clock=self._clock
        )
        self._snapshots = Snapshots(self._clock.now())
        control = Control(fleet, self._snapshots, self._clock)
        return app.build(gate, control, Proxy(fleet, self._clock, self._daemon))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
