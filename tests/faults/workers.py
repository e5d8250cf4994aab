"""The processes that run the cells, several at a time."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeAlias

from tests.faults.cell import Verdict, run_cell
from tests.faults.world import world

Name: TypeAlias = tuple[str, str, bool]  # step, fault, is_async
HANGS_S = 240.0


class _Worker:
    """A process that runs cells sequentially, and its current cell."""

    def __init__(self) -> None:
        self.process: BaseProcess
        self.pipe: Connection
        self.at: Name | None = None
        self.since = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # Not a daemon: daemons may not have children, and cells start host processes.
        self.process = context.Process(target=_work, args=(theirs,))
        self.process.start()
        theirs.close()

    def give(self, name: Name) -> None:
        self.at, self.since = name, time.monotonic()
        self.pipe.send(name)

    def hangs(self) -> bool:
        return self.at is not None and time.monotonic() - self.since > HANGS_S

    def restart(self, why: str) -> Verdict:
        """Restart the process; return the verdict of its current cell."""
        assert self.at is not None
        step, fault, is_async = self.at
        self.at = None
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self._start()
        return Verdict(
            step, fault, is_async, outcome="hangs", problems=[why], seconds=time.monotonic() - self.since
        )

    def end(self) -> None:
        with suppress(OSError):  # it has ended
            self.pipe.send(None)
        self.process.join(60)
        if self.process.exitcode is None:
            self.process.kill()


def _work(pipe: Connection) -> None:
    faulthandler.enable()
    # Sync calls are cancelled with SIGINT, which is ignored in processes that are started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("langchain_daytona_ws").setLevel(logging.CRITICAL)  # its warnings are about the faults
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    with world() as here:
        for is_async in (False, True):  # loads modules, which would count as leaks
            run_cell(here, "mount", "slow answer", is_async=is_async)
        while (name := pipe.recv()) is not None:
            step, fault, is_async = name
            pipe.send(run_cell(here, step, fault, is_async=is_async))


def run_cells(names: list[Name], count: int) -> Iterator[Verdict]:
    """Run cells in this many processes; yield each verdict as its cell ends."""
    waiting = list(reversed(names))
    workers = [_Worker() for _ in range(min(count, len(names)))]
    try:
        while waiting or any(worker.at for worker in workers):
            for worker in workers:
                if worker.at is None and waiting:
                    worker.give(waiting.pop())
            ready = wait([worker.pipe for worker in workers if worker.at], timeout=1.0)
            for worker in workers:
                if worker.pipe in ready:
                    try:
                        verdict: Verdict = worker.pipe.recv()
                    except (EOFError, OSError):
                        verdict = worker.restart("its process ended")
                    worker.at = None
                    yield verdict
                elif worker.hangs():
                    yield worker.restart(f"it was still running after {HANGS_S:.0f} s")
    finally:
        for worker in workers:
            worker.end()
