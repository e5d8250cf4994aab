"""Runs a wrapped command as the daemon does: the script on a shell's standard input, one shared output pipe."""

from __future__ import annotations

import binascii
import hashlib
import os
import secrets
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_daytona_ws._adapters.background import ThreadTask
from langchain_daytona_ws._core.commands.run import CommandResult, run_command
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.guest_rpc.payload import KeptPrograms
from langchain_daytona_ws._core.ports import (
    BackgroundTask,
    ExecReply,
    OnBytes,
    SandboxInfo,
    SandboxSpec,
    UploadSource,
)
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sync.push import OneSandbox

# As a sandbox has it: a version manager's shim in the host's PATH would cost 80 ms a call.
SANDBOX_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INFO = SandboxInfo(id="sb", name="sb", state="started", organization_id="org", labels={})


class ShellPort:
    """The execute endpoint of the daemon, as far as `facts` describe it, over one shell of this host."""

    def __init__(self, shell: str, directory: Path) -> None:
        self.shell = shell
        self.home = directory / "home"
        self.tmp = directory / "tmp"
        self.home.mkdir()
        self.tmp.mkdir()
        # A /tmp of its own, where the guest keeps its records and logs.
        self._isolation = ["bwrap", "--dev-bind", "/", "/", "--bind", self.tmp, "/tmp"]
        self._isolation += ["--bind", directory, directory]
        self.scripts: list[str] = []
        self.prefix: list[str] = []  # a program that starts the shell
        self.programs: list[str] = []  # the text in each request
        self.extra_env: dict[str, str] = {}

    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply:
        self.scripts.append(script)
        self.programs.append(program_in(env))
        process = subprocess.Popen(
            [*self.prefix, *self._isolation, self.shell],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.home,
            start_new_session=True,
            env={"PATH": SANDBOX_PATH, "HOME": str(self.home), **self.extra_env, **env},
        )
        try:
            output, _ = process.communicate(script.encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return ExecReply(process.returncode, output.decode("utf-8", "replace"))

    async def create(self, spec: SandboxSpec, *, timeout_s: float) -> SandboxInfo:
        raise NotImplementedError

    async def get(self, id_or_name: str) -> SandboxInfo | None:
        return INFO

    async def start(self, sandbox_id: str, *, timeout_s: float) -> None:
        raise NotImplementedError

    async def delete(self, id_or_name: str) -> None:
        raise NotImplementedError

    async def upload(
        self, sandbox_id: str, files: Sequence[tuple[str, UploadSource]], on_bytes: OnBytes | None = None
    ) -> list[str]:
        hashes = []
        for path, source in files:
            with source.open() as file:
                data = file.read()
            Path(path).write_bytes(data)
            hashes.append(hashlib.sha256(data).hexdigest())
        return hashes

    async def sleep(self, seconds: float) -> None:
        return None

    def now(self) -> float:
        return time.monotonic()

    async def finish(self, work: Coroutine[Any, Any, None], *, within_s: float) -> bool:
        await work
        return True

    def background(self, work: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> BackgroundTask:
        return ThreadTask(work)


def program_in(env: Mapping[str, str]) -> str:
    """Return the program of a request: the source of its modules, or the text that loads them."""
    source = env.get("LANGCHAIN_DAYTONA_WS_SOURCE0")
    if source is None:
        return env["LANGCHAIN_DAYTONA_WS_PROGRAM0"]
    return zlib.decompress(binascii.a2b_base64(source)).decode()


def guest_client(
    port: Any,
    *,
    variables: Mapping[str, str] | None = None,
    new_key: Callable[[], str] = lambda: secrets.token_hex(16),
    **settings: Any,
) -> GuestClient:
    """Return a client for the sandbox of the tests, as a session has it."""
    sandbox = OneSandbox(INFO, is_persistent=False)
    return GuestClient(port, sandbox, sandbox.acquire, variables or {}, new_key, **settings)


class Workspace:
    """A workspace directory on this host, whose commands go through the real wrapper."""

    def __init__(self, shell: str, directory: Path) -> None:
        self.root = directory / "workspaces" / "ns"
        self.port = ShellPort(shell, directory)
        self.programs = KeptPrograms()
        self.guest_client = guest_client(self.port, programs=self.programs)

    def on_disk(self, path: str | None) -> Path:
        """Where a file that the sandbox calls by this path in /tmp is on the host."""
        assert path is not None
        return self.port.tmp / Path(path).relative_to("/tmp")

    def run(
        self,
        command: str,
        *,
        timeout_s: float = 20,
        limit_bytes: int = 65_536,
        key: str | None = None,
        **more: Any,
    ) -> CommandResult:
        limits = {"timeout_s": timeout_s, "limit_bytes": limit_bytes}
        return run_sync(run_command(self.guest_client, str(self.root), command, **limits, key=key, **more))
