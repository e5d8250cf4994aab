"""Run a step in another process, which is killed during the step."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.util
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

PRELOADED = [
    "daytona", "boto3", "langchain_daytona_ws._adapters.daytona_sync", "langchain_daytona_ws._adapters.daytona_async",
    "langchain_daytona_ws._adapters.s3_bucket", "tests.faults.steps", __name__,
]  # fmt: skip
WITHIN_S = 60.0


def context() -> ForkServerContext:
    """Return a multiprocessing context whose processes have all modules loaded."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    return made


def start_server() -> None:
    """Start the fork server and create its folder now, so that no cell is blamed for leaking them."""
    multiprocessing.util.get_temp_dir()
    context()
    multiprocessing.forkserver.ensure_running()
    multiprocessing.resource_tracker.ensure_running()


def run_step(  # noqa: PLR0917 - Process passes them by position
    config: dict[str, Any],
    namespace: str,
    step: str,
    is_async: bool,
    token: str,
    command: str,
    pipe: Connection,
) -> None:
    """Prepare a step, report acknowledged changes and readiness, wait for a message, and run the step."""
    from langchain_daytona_ws import WorkspaceSession
    from tests.faults.runtime import Runtime
    from tests.faults.steps import STEPS, Work

    session = WorkspaceSession(config, namespace=namespace)

    def on_acknowledge(path: str, content: bytes) -> None:
        pipe.send((path, content))

    work = Work(session, Runtime(is_async), token, command, on_acknowledge=on_acknowledge)
    STEPS[step].prepare(work)
    pipe.send("ready")
    pipe.recv()
    STEPS[step].do(work)
    pipe.send("done")
    pipe.recv()  # not reached: at exit, the session would delete its sandbox


class HostProcess:
    """The parent's view of the process."""

    def __init__(self, *arguments: Any) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self.acknowledged: dict[str, bytes] = {}
        self.done = False
        self._process = context().Process(target=run_step, args=(*arguments, theirs))
        self._process.start()
        theirs.close()

    def await_ready(self) -> None:
        if not self._received("ready"):
            raise AssertionError("the process did not reach the step")

    def go(self) -> None:
        self._pipe.send("go")

    def kill(self) -> None:
        self._process.kill()

    def await_end(self) -> None:
        """Wait until the process is killed, and record its messages."""
        self.done = self._received("done")
        if self.done:
            self._process.kill()
        self._process.join(WITHIN_S)
        if self._process.exitcode != -9:
            raise AssertionError(f"the process ended with {self._process.exitcode}")
        self._pipe.close()
        self._process.close()

    def _received(self, wanted: str) -> bool:
        until = time.monotonic() + WITHIN_S
        while self._pipe.poll(max(0.0, until - time.monotonic())):
            try:
                message = self._pipe.recv()
            except (EOFError, ConnectionResetError):
                return False
            if message == wanted:
                return True
            path, content = message
            self.acknowledged[path] = content
        raise AssertionError("the process hangs")


def watch(condition: Callable[[], bool], act: Callable[[], object]) -> None:
    """Call `act` as soon as the condition holds."""
    until = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > until:
            return
        time.sleep(0.01)
    act()
