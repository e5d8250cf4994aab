"""A process that does a step and is killed in its midst."""

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
    "langchain_daytona_ws._adapters.s3_clients", "tests.faults.steps", __name__,
]  # fmt: skip
WITHIN_S = 60.0


def context() -> ForkServerContext:
    """Return what makes processes that have everything loaded."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    return made


def start_server() -> None:
    """Start what processes are forked from, and make its folder, so that no cell is taken for having left them."""
    multiprocessing.util.get_temp_dir()
    context()
    multiprocessing.forkserver.ensure_running()
    multiprocessing.resource_tracker.ensure_running()


def live(  # noqa: PLR0917 - they come through a pipe
    config: dict[str, Any],
    namespace: str,
    step: str,
    is_async: bool,
    token: str,
    command: str,
    told: Connection,
) -> None:
    """Do a step and what comes before; tell what was acknowledged, and wait before the step to be told to go on."""
    from langchain_daytona_ws import WorkspaceSession
    from tests.faults.face import Face
    from tests.faults.steps import STEPS, Work

    session = WorkspaceSession(config, namespace=namespace)

    def tells(path: str, content: bytes) -> None:
        told.send((path, content))

    work = Work(session, Face(is_async), token, command, tells=tells)
    STEPS[step].prepare(work)
    told.send("ready")
    told.recv()
    STEPS[step].do(work)
    told.send("done")
    told.recv()  # a session that was not closed has its sandbox deleted at exit: not here


class Victim:
    """The process, as seen from outside."""

    def __init__(self, *arguments: Any) -> None:
        self._told, telling = multiprocessing.Pipe()
        self.acknowledged: dict[str, bytes] = {}
        self.done = False
        self._process = context().Process(target=live, args=(*arguments, telling))
        self._process.start()
        telling.close()

    def await_ready(self) -> None:
        if not self._heard("ready"):
            raise AssertionError("the process did not come to the step")

    def go(self) -> None:
        self._told.send("go")

    def kill(self) -> None:
        self._process.kill()

    def await_death(self) -> None:
        """Wait until it was killed, and take note of what it had said till then."""
        self.done = self._heard("done")
        if self.done:
            self._process.kill()
        self._process.join(WITHIN_S)
        if self._process.exitcode != -9:
            raise AssertionError(f"the process ended with {self._process.exitcode}")
        self._told.close()
        self._process.close()

    def _heard(self, wanted: str) -> bool:
        until = time.monotonic() + WITHIN_S
        while self._told.poll(max(0.0, until - time.monotonic())):
            try:
                said = self._told.recv()
            except (EOFError, ConnectionResetError):
                return False
            if said == wanted:
                return True
            path, content = said
            self.acknowledged[path] = content
        raise AssertionError("the process hangs")


def watch(seen: Callable[[], bool], act: Callable[[], object]) -> None:
    """Act as soon as something is seen."""
    until = time.monotonic() + WITHIN_S
    while not seen():
        if time.monotonic() > until:
            return
        time.sleep(0.01)
    act()
