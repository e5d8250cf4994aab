"""Where the cells are played: a local Daytona with S3, a clock whose waits take no time, and a count from outside."""

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
PATIENCE_S = 5.0  # of real time, in a cell, for what is under way in the servers
SETTLE_S = 40.0


class Pace:
    """A session's clock. What it would wait is added to the time at once, and to the local Daytona's."""

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
            due = [one for moment, one in self._due if moment <= self._skipped_s]
            self._due = [(moment, one) for moment, one in self._due if moment > self._skipped_s]
        for one in due:
            one()
        self._servers.advance(seconds)
        self._let_others(time.monotonic() + min(seconds, 1.0))

    def _let_others(self, until: float) -> None:
        """Give what the wait was for, such as a sandbox that starts, some of its real time."""
        while True:
            time.sleep(0.02)
            self._patience_s -= 0.02
            if not self.is_busy() or self._patience_s <= 0 or time.monotonic() >= until:
                return

    async def asleep(self, seconds: float) -> None:
        await asyncio.to_thread(self.sleep, seconds)

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Call `act` when so much has been waited."""
        with self._lock:
            self._due.append((self._skipped_s + seconds, act))

    def jump(self, seconds: float) -> None:
        """Let Unix time, by which credentials end, be later."""
        self._ahead_s += seconds

    def renew(self) -> None:
        """Forget what was due, and be on time again."""
        with self._lock:
            self._due, self._ahead_s, self.waited, self._patience_s = [], 0.0, [], PATIENCE_S


class Tally:
    """Counts, outside of every sandbox, how often a command has run: it says so, and goes on when it is heard."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.when_heard: Callable[[], object] | None = None
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
                connection.sendall(b"heard\n")
                if self.when_heard is not None:
                    self.when_heard()

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"end\n")
            self._thread.join(10)
        self._listening.close()


def command(port: int, token: str, then: str = "") -> str:
    """Return a command that is counted, then leaves a file behind."""
    said = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo {token} >&3 && read -r heard <&3 && exec 3>&-"
    return f"{said} && echo {token} > {token}.txt{then}"


class World:
    """What all cells of one process share."""

    def __init__(self, servers: contextlib.ExitStack) -> None:
        self.temp = Path(tempfile.mkdtemp(prefix="faults-", dir=tempfile.gettempdir()))
        self.temp.chmod(0o755)  # the sandboxes' users pass through it
        self.clock = ManualClock()
        self.pace = Pace(self.clock)
        self._servers = servers
        self._small: LocalDaytona | None = None
        self.tally = Tally()
        self.server = LocalDaytona(clock=self.clock, s3=True)
        self._s3: dict[str, Any] = {}

    def _is_changing(self) -> bool:
        return any(one.changing for server in self.servers for one in server.sandboxes)

    def start(self) -> None:
        self.pace.is_busy = self._is_changing
        self._servers.enter_context(self.server)
        self.server.make_bucket(BUCKET)

    def s3(self, server: LocalDaytona) -> Any:
        """Return a client for a server's S3, as an outsider has it."""
        if server.s3_endpoint not in self._s3:
            self._s3[server.s3_endpoint] = outsider(server.s3_endpoint)
        return self._s3[server.s3_endpoint]

    def close(self) -> None:
        for client in self._s3.values():
            client.close()

    @property
    def small(self) -> LocalDaytona:
        """A server whose sandboxes have little room on their disks."""
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
        """Wait until the servers have done with all that was asked of them, also what nobody waits for any more."""
        until = time.monotonic() + SETTLE_S
        while any(server.open_requests for server in self.servers):
            if time.monotonic() > until:
                raise TimeoutError("requests are open still")
            time.sleep(0.01)

    def secrets(self) -> list[str]:
        return [
            *(server.api_key for server in self.servers),
            HOST["AWS_SECRET_ACCESS_KEY"],
            self.server.organization_id,
        ]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Yield a world; afterwards nothing of it is left, and the environment is as it was."""
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
