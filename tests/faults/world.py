"""The environment of the cells: a local Daytona with S3, a clock that skips waits, and a counter of commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from langchain_daytona_ws.local import LocalDaytona, ManualClock
from tests.faults import killed
from tests.integration_tests.s3 import outsider

BUCKET = "agents"
ROLE = "arn:aws:iam::123456789012:role/sandbox-s3mount"
HOST = {
    "AWS_ACCESS_KEY_ID": "AKIAHOST",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-host",
    "NO_PROXY": "127.0.0.1",
}
DISK_BYTES = 4 << 20
PATIENCE_S = 5.0  # real time for each cell to wait for changes of state in the servers
SETTLE_S = 40.0


class SkippingClock:
    """A session's clock. A wait moves it and the local Daytona's clock forward at once."""

    def __init__(self, servers: ManualClock) -> None:
        self._servers = servers
        self._skipped_s = 0.0
        self._ahead_s = 0.0
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._lock = threading.Lock()
        self._patience_s = PATIENCE_S
        self.waited: list[float] = []
        self.is_busy: Callable[[], bool] = lambda: False

    def time(self) -> float:
        return time.time() + self._ahead_s

    def monotonic(self) -> float:
        return time.monotonic() + self._skipped_s

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._skipped_s += seconds
            self.waited.append(seconds)
            now = self.monotonic()
            due = [act for moment, act in self._due if moment <= now]
            self._due = [(moment, act) for moment, act in self._due if moment > now]
        for act in due:
            act()
        self._servers.advance(seconds)
        self._wait_for_servers(time.monotonic() + min(seconds, 1.0))

    def _wait_for_servers(self, until: float) -> None:
        """Wait in real time for changes of state, such as a sandbox's start."""
        while True:
            time.sleep(0.02)
            self._patience_s -= 0.02
            if not self.is_busy() or self._patience_s <= 0 or time.monotonic() >= until:
                return

    async def asleep(self, seconds: float) -> None:
        await asyncio.to_thread(self.sleep, seconds)

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Call `act` in the first wait that ends after these seconds, in which requests take time too."""
        with self._lock:
            self._due.append((self.monotonic() + seconds, act))

    def jump(self, seconds: float) -> None:
        """Move Unix time forward, by which credentials expire."""
        self._ahead_s += seconds

    def renew(self) -> None:
        """Drop scheduled calls, and reset the clock."""
        with self._lock:
            self._due, self._ahead_s, self.waited, self._patience_s = [], 0.0, [], PATIENCE_S


class Tally:
    """Counts runs of commands, outside of all sandboxes: each reports itself, and continues after the reply."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.on_count: Callable[[], object] | None = None
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="tally", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                token = connection.makefile().readline().strip()
                if token == "end":
                    return
                self.counts[token] += 1
                connection.sendall(b"counted\n")
                if self.on_count is not None:
                    self.on_count()

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"end\n")
            self._thread.join(10)
        self._listening.close()


def command(port: int, token: str, then: str = "") -> str:
    """Return a command that is counted and then writes a file."""
    count = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo {token} >&3 && read -r reply <&3 && exec 3>&-"
    return f"{count} && echo {token} > {token}.txt{then}"


class World:
    """The servers, clocks and counters that all cells of a process share."""

    def __init__(self, servers: contextlib.ExitStack) -> None:
        self.temp = Path(tempfile.mkdtemp(prefix="faults-", dir=tempfile.gettempdir()))
        self.temp.chmod(0o755)  # the sandboxes' users need access
        self.clock = ManualClock()
        self.session_clock = SkippingClock(self.clock)
        self._servers = servers
        self._small: LocalDaytona | None = None
        self.tally = Tally()
        self.server = LocalDaytona(clock=self.clock, s3=True)
        self._s3: dict[str, Any] = {}

    def _is_changing(self) -> bool:
        return any(box.changing for server in self.servers for box in server.sandboxes)

    def start(self) -> None:
        self.session_clock.is_busy = self._is_changing
        self._servers.enter_context(self.server)
        self.server.make_bucket(BUCKET)

    def s3(self, server: LocalDaytona) -> Any:
        """Return an independent client for a server's S3."""
        if server.s3_endpoint not in self._s3:
            self._s3[server.s3_endpoint] = outsider(server.s3_endpoint)
        return self._s3[server.s3_endpoint]

    def close(self) -> None:
        for client in self._s3.values():
            client.close()

    @property
    def small(self) -> LocalDaytona:
        """A server whose sandboxes have small disks."""
        if self._small is None:
            self._small = self._servers.enter_context(
                LocalDaytona(clock=self.clock, s3=True, disk_bytes=DISK_BYTES)
            )
            self._small.make_bucket(BUCKET)
        return self._small

    @property
    def servers(self) -> list[LocalDaytona]:
        return [self.server] if self._small is None else [self.server, self._small]

    def settle(self) -> None:
        """Wait until the servers have finished all requests, also abandoned ones."""
        until = time.monotonic() + SETTLE_S
        while any(server.open_requests for server in self.servers):
            if time.monotonic() > until:
                raise TimeoutError("requests are still open")
            time.sleep(0.01)

    def secrets(self) -> list[str]:
        return [
            *(server.api_key for server in self.servers),
            HOST["AWS_SECRET_ACCESS_KEY"],
            self.server.organization_id,
        ]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Yield a world; then remove it, and restore the environment."""
    before, tempdir = (
        {name: os.environ.get(name) for name in (*HOST, "AWS_SESSION_TOKEN", "AWS_PROFILE")},
        tempfile.tempdir,
    )
    for name in before:
        os.environ.pop(name, None)
    os.environ.update(HOST)
    killed.start_server()
    with contextlib.ExitStack() as servers:
        made = World(servers)
        tempfile.tempdir = str(made.temp)
        try:
            made.start()
            yield made
        finally:
            tempfile.tempdir = tempdir
            servers.close()
            made.close()
            made.tally.close()
            shutil.rmtree(made.temp)
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def token() -> str:
    return f"t{secrets.token_hex(8)}"
