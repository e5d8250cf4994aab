"""The processes that play the cells, several at a time."""

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

from tests.faults.cell import Verdict, play
from tests.faults.world import world

Name: TypeAlias = tuple[str, str, bool]  # step, fault, is_async
HANGS_S = 240.0


class _Worker:
    """A process that plays cells, one after the other, and the cell that it is at."""

    def __init__(self) -> None:
        self.process: BaseProcess
        self.pipe: Connection
        self.at: Name | None = None
        self.since = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # Not a daemon: those may have no children, and a killed host is one.
        self.process = context.Process(target=_work, args=(theirs,))
        self.process.start()
        theirs.close()

    def give(self, name: Name) -> None:
        self.at, self.since = name, time.monotonic()
        self.pipe.send(name)

    def hangs(self) -> bool:
        return self.at is not None and time.monotonic() - self.since > HANGS_S

    def begin_again(self, why: str) -> Verdict:
        """End the process and start another; return what is to be said of the cell that it was at."""
        assert self.at is not None
        step, mishap, is_async = self.at
        self.at = None
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self._start()
        return Verdict(
            step, mishap, is_async, outcome="hangs", problems=[why], seconds=time.monotonic() - self.since
        )

    def end(self) -> None:
        with suppress(OSError):  # it has ended
            self.pipe.send(None)
        self.process.join(60)
        if self.process.exitcode is None:
            self.process.kill()


def _work(pipe: Connection) -> None:
    faulthandler.enable()
    # Where this was started in the background, Ctrl-C is ignored, with which a sync call is cancelled.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("langchain_daytona_ws").setLevel(logging.CRITICAL)  # its warnings are of the faults
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    with world() as here:
        for is_async in (False, True):  # what is loaded once is not taken for left behind
            play(here, "mount", "slow answer", is_async=is_async)
        while (name := pipe.recv()) is not None:
            step, mishap, is_async = name
            pipe.send(play(here, step, mishap, is_async=is_async))


def played(names: list[Name], count: int) -> Iterator[Verdict]:
    """Play cells in so many processes; yield what came of each as it ends."""
    waiting = list(reversed(names))
    workers = [_Worker() for _ in range(min(count, len(names)))]
    try:
        while waiting or any(one.at for one in workers):
            for worker in workers:
                if worker.at is None and waiting:
                    worker.give(waiting.pop())
            ready = wait([one.pipe for one in workers if one.at], timeout=1.0)
            for worker in workers:
                if worker.pipe in ready:
                    try:
                        verdict: Verdict = worker.pipe.recv()
                    except (EOFError, OSError):
                        verdict = worker.begin_again("the process that played it ended")
                    worker.at = None
                    yield verdict
                elif worker.hangs():
                    yield worker.begin_again(f"it had no end after {HANGS_S:.0f} s")
    finally:
        for worker in workers:
            worker.end()
