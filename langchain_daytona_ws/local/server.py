"""`LocalDaytona`: runs the local server in a thread, and lets tests inspect and disturb it."""

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
from .previews import Previews
from .proxy import DAEMON_KINDS, DaemonKind, Proxy
from .record import SandboxRecord
from .s3 import DEFAULT_REGION, LocalS3, S3Store
from .serving import ServerThread, bind
from .snapshots import Snapshots


class LocalDaytona:
    """A Daytona-compatible server on loopback, for tests, demos and work without an account.

    Use it as a context manager, or call `start` and `stop`. The whole output of a command is held in memory, as in
    Daytona; limit large output in the command.

    Args:
        host: the address to listen on. An address that is not loopback needs `allow_remote`, because anyone with the
            key can run commands on this machine.
        port: the port; 0 chooses a free port.
        api_key: the key that clients must send; None generates a random key.
        isolation: "bubblewrap", or "none" to run commands directly on this machine. With "none", /mnt/x is a path on
            this machine.
        shell: the shell that runs scripts, by name: zsh, bash, dash or sh. None uses zsh or bash if the sandbox's
            /etc/shells lists them, else $SHELL or sh.
        clock: a `ManualClock` for tests of auto-stop and other intervals; None uses the system's time.
        allow_remote: see `host`.
        root: the folder for the server's own folder, which holds the sandbox disks and is removed at the end. `root`
            is created if missing; None uses the system's temporary folder. The unprivileged users of the sandboxes
            must be able to enter `root`.
        organization_id: the organization of all sandboxes; None generates a random id.
        disk_bytes: the size of /tmp and the size of /mnt in each sandbox, in bytes. With a size, both folders are in
            memory, and empty after a stop. None sets no limit. Not for isolation="none".
        daemon: the version of Daytona's daemon to imitate in the sandboxes. "0.190" is the last public version, as
            measured. "0.226" is a newer version, as the models of SDK 0.226 describe it: errors of file operations
            have a body too, most error bodies have a `source`, files have a `path`, listings accept a `depth`, and
            the environment can be changed.
        s3: also serve S3 and STS (see the property `s3`), and install mount-s3 in the sandboxes. Not for
            isolation="none".
        mount_s3: with `s3`, the path of the original mount-s3 to install instead of the local program.
        s3_store: with `s3`, a store with S3 and STS to use instead of moto, such as MinIO.

    Raises:
        IsolationUnavailable: from `start`, if sandboxes cannot be isolated here; the message says what to do.
        S3Unavailable: from `start`, if `s3` is set and a dependency is not installed.
        OSError: from `start`, if the server cannot listen at `host` and `port`.
        ValueError: if arguments are invalid, or `host` is not loopback and `allow_remote` is not set.
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
                f"{host} is not a loopback address: anyone who reaches this server and has its key can run "
                "commands on this machine. To allow that, pass allow_remote=True (--allow-remote)."
            )
        if isolation not in ("bubblewrap", "none"):
            raise ValueError(f"isolation must be 'bubblewrap' or 'none', not {isolation!r}")
        if daemon not in DAEMON_KINDS:
            raise ValueError(f"daemon must be {' or '.join(map(repr, DAEMON_KINDS))}, not {daemon!r}")
        if s3 and isolation == "none":
            raise ValueError(
                "s3=True needs isolation='bubblewrap': without isolation, mounts would be on the machine itself"
            )
        if not s3 and (mount_s3 is not None or s3_store is not None):
            raise ValueError("mount_s3 and s3_store need s3=True")
        if mount_s3 is not None and not os.access(mount_s3, os.X_OK):
            raise ValueError(f"mount_s3: {os.fspath(mount_s3)} does not exist or is not executable")
        if disk_bytes is not None and isolation == "none":
            raise ValueError(
                "disk_bytes needs isolation='bubblewrap': without isolation, sandboxes use the machine's disk"
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
        self._running: ServerThread | None = None

    # --- start and stop ---

    def start(self) -> Self:
        """Start the server, and return when it accepts connections."""
        if self._running is not None:
            raise RuntimeError("this server is already running")
        with contextlib.ExitStack() as cleanup:
            server_socket = cleanup.enter_context(bind(self._host, self._port))
            root = cleanup.enter_context(scratch.folder(self._root))
            if self._s3 is not None:
                cleanup.enter_context(self._s3)
            isolation = self._isolation(root)
            fleet = Fleet(isolation, root / "sandboxes", self._clock, self.organization_id)
            self._running = ServerThread(server_socket, fleet, self._application(fleet), self._clock)
            self._running.start()
            self._running.cleanup = cleanup.pop_all()
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Destroy all sandboxes and stop the server; returns when all their processes and files are gone."""
        running, self._running = self._running, None
        if running is None:
            return
        atexit.unregister(self.stop)
        with running.cleanup:
            running.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def serve_forever(self, on_ready: Callable[[LocalDaytona], None] | None = None) -> None:
        """Serve until SIGINT or SIGTERM, then clean up and return. Call it on the main thread.

        Args:
            on_ready: called when the server accepts connections, for example to print `api_url`.
        """
        stop_requested = threading.Event()

        def request_stop(signum: int, frame: FrameType | None) -> None:
            stop_requested.set()

        previous = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self:
                if on_ready is not None:
                    on_ready(self)
                stop_requested.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    # --- inspection ---

    @property
    def api_url(self) -> str:
        """The URL of the API, for clients."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._active.port}/api"

    @property
    def clock(self) -> Any:
        """The clock of this server; a ManualClock has `advance(seconds)`."""
        return self._clock

    @property
    def requests(self) -> list[Request]:
        """The requests since the last `clear_requests` or `reset`, in order of arrival; at most the last 100,000."""
        if self._running is not None:
            # The client may get an answer before the server has recorded it: wait for the record.
            self._running.run(asyncio.sleep(0))
        return self._journal.requests()

    def clear_requests(self) -> None:
        """Delete the recorded requests."""
        self._journal.clear()

    def count(self, action: str) -> int:
        """Return the number of requests with this action, answered or not."""
        return sum(request.action == action for request in self.requests)

    @property
    def sandboxes(self) -> list[SandboxRecord]:
        """Copies of the records of all sandboxes that are not destroyed, oldest first."""
        return self._active.run(self._copy_records())

    @property
    def s3(self) -> LocalS3:
        """The S3 and STS of a server created with s3=True.

        Raises:
            RuntimeError: the server was created without S3.
        """
        if self._s3 is None:
            raise RuntimeError("this server has no S3: create it with LocalDaytona(s3=True)")
        return self._s3

    @property
    def s3_endpoint(self) -> str:
        """The URL of S3 and STS, valid on the host and in sandboxes that have a network."""
        return self.s3.endpoint

    def make_bucket(self, name: str, region: str = DEFAULT_REGION) -> str:
        """Create a bucket and return its name."""
        return self.s3.make_bucket(name, region)

    @property
    def open_requests(self) -> int:
        """The number of requests still being processed, including requests that the client has given up."""
        return self._journal.open_count

    def run_inside(self, sandbox_id: str, script: str) -> tuple[int, bytes]:
        """Run a script in a started sandbox, without faults or a journal entry; return its exit code and output."""
        return self._active.run(self._active.fleet.execute(self._active.fleet.get(sandbox_id), script))

    # --- outside interference ---

    def stop_sandbox(self, sandbox_id: str) -> None:
        """Stop a sandbox (by id or name)."""
        self._active.run(self._active.fleet.stop(self._active.fleet.get(sandbox_id)))

    def destroy_sandbox(self, sandbox_id: str) -> None:
        """Destroy a sandbox (by id or name) in any state."""
        self._active.run(self._active.fleet.destroy(self._active.fleet.get(sandbox_id), force=True))

    def crash_sandbox(self, sandbox_id: str) -> None:
        """Kill all processes in a sandbox, including its daemon, and leave it in the state `started`."""
        self._active.run(self._active.fleet.crash(self._active.fleet.get(sandbox_id)))

    def fail_sandbox(self, sandbox_id: str) -> None:
        """Stop all processes in a sandbox and put it in the state `error`; its disk stays."""
        self._active.run(self._active.fleet.fail(self._active.fleet.get(sandbox_id)))

    def hold_sandbox(self, sandbox_id: str, state: str) -> None:
        """Stop all processes in a sandbox and hold it in a transitional state, such as `stopping`.

        Only these end the state: the sandbox's time-to-live, the fault `lost`, `destroy_sandbox`, `fail_sandbox`,
        `reset` and `stop`.
        """
        self._active.run(self._active.fleet.hold(self._active.fleet.get(sandbox_id), state))

    def reset(self) -> None:
        """Destroy the sandboxes, end open requests, and delete faults, recorded requests and snapshots.

        The general snapshots stay.

        For tests that share a server. `s3` is reset too; its buckets, objects and credentials stay.

        Raises:
            TimeoutError: requests are still open after 50 seconds, for example because a client keeps sending them.
        """
        self.faults.clear()
        self._active.run(self._active.reset(self._journal))
        self._snapshots.clear(self._clock.now())
        self._journal.clear()
        if self._s3 is not None:
            self._s3.reset()

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Close all connections, and refuse new ones until the block ends."""
        running = self._active
        running.close_connections()
        try:
            yield
        finally:
            running.accept_connections()

    # --- internals ---

    @property
    def _active(self) -> ServerThread:
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

    async def _copy_records(self) -> list[SandboxRecord]:
        return [copy.copy(record) for record in self._active.fleet.all()]

    def _application(self, fleet: Fleet) -> Any:
        middleware = app.Middleware(
            api_key=self.api_key, journal=self._journal, faults=self.faults, fleet=fleet, clock=self._clock
        )
        self._snapshots = Snapshots(self._clock.now())
        control = Control(fleet, self._snapshots, self._clock)
        proxy = Proxy(fleet, self._clock, self._daemon)
        return app.build(middleware, control, proxy, Previews(fleet, self._clock, proxy.keep_alive))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
