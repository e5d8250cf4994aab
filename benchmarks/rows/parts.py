"""Row: the parts of a command's time: client, network, shell, Python, guest and the command itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks import clients
from benchmarks.bench import Bench, Row
from benchmarks.measure import Spread, interleaved
from benchmarks.picture import PARTS
from benchmarks.picture import ROW as NAME
from benchmarks.result import Result, figure
from benchmarks.rows.warm_command import COMMAND, RAW
from benchmarks.served import Served, served

OURS = "session.run"
LATENCIES_S = (0.0, 0.02)
PYTHON = "exec python3 -I -S -c 'import os; os._exit(0)'"
NOTES = {
    "client": "CPU time of the calling thread",
    "network": "a request for a file's size, which starts no process; with the local server's own time",
    "shell": "a plain exec, beyond that request",
    "Python": "an exec that starts Python and ends at once, beyond a plain exec",
    "guest": "the rest: the program in the sandbox",
    "command": "bash and the command, as the result reports it",
}


@dataclass
class _Calls:
    """The calls of one contender. For each call: CPU time of this thread, waiting time, time of the command."""

    call: Callable[[], float]  # returns the seconds that the command reports
    cpu_s: list[float] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    command_s: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        began, cpu = time.perf_counter(), time.thread_time()
        command_s = self.call()
        cpu_s = time.thread_time() - cpu
        self.cpu_s.append(cpu_s)
        self.waited_s.append(time.perf_counter() - began - cpu_s)
        self.command_s.append(command_s)


def run(bench: Bench) -> Iterator[Result]:
    with served() as server:
        for latency_s in LATENCIES_S:
            yield from _at(server, latency_s, bench.times(100 if not latency_s else 40, 4))


def _at(server: Served, latency_s: float, rounds: int) -> Iterator[Result]:
    with clients.raw(server) as daytona, clients.session(server) as session:
        sandbox = daytona.create()
        session.run(COMMAND)

        def exec_(command: str) -> float:
            sandbox.process.exec(command)
            return 0.0

        def size() -> float:
            sandbox.fs.get_file_info("/")
            return 0.0

        server.latency(latency_s)
        network, shell = _Calls(size), _Calls(lambda: exec_(COMMAND))
        python, ours = _Calls(lambda: exec_(PYTHON)), _Calls(lambda: session.run(COMMAND).duration_s)
        calls = {"size": network, RAW: shell, "python": python, OURS: ours}
        interleaved(calls, rounds, warm_up=0)
        server.latency(0)
        sandbox.delete()
    setup = f", {latency_s * 1000:.0f} ms a request" if latency_s else ""
    times = zip(network.waited_s, shell.waited_s, python.waited_s, ours.waited_s, ours.command_s, strict=True)
    waits = [
        (sent, started - sent, ready - started, all_s - ready - command, command)
        for sent, started, ready, all_s, command in times
    ]
    parts = [list(seconds) for seconds in zip(*waits, strict=True)]
    yield from _results(f"{RAW}{setup}", [shell.cpu_s, *parts[:2]])
    yield from _results(f"{OURS}{setup}", [ours.cpu_s, *parts], quoted=not latency_s)


def _results(bar: str, parts: list[list[float]], *, quoted: bool = False) -> Iterator[Result]:
    for part, seconds in zip(PARTS, parts, strict=False):
        spread = Spread.of([value * 1000 for value in seconds])
        yield figure(NAME, f"{bar}: {part}", spread, "ms", note=NOTES[part], quoted=quoted)


ROW = Row(NAME, "the time in client, network, shell, Python, guest and command", run)
