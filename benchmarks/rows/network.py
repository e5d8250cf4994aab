"""Row: warm command and first result with a latency on each request, as on a real network."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import clients
from benchmarks.bench import Bench, Row
from benchmarks.measure import interleaved
from benchmarks.result import Result, compared
from benchmarks.rows.first_result import OURS, Starts
from benchmarks.rows.first_result import RAW as RAW_START
from benchmarks.rows.warm_command import COMMAND, PEER, RAW
from benchmarks.served import Served, served

NAME = "with latency"
REACHES = {0.02: 1.45, 0.08: 1.13}  # latency in seconds → limit of session.run ÷ exec


def run(bench: Bench) -> Iterator[Result]:
    with served() as server:
        for latency_s, reach in REACHES.items():
            yield from _at(server, latency_s, reach, bench)


def _at(server: Served, latency_s: float, reach: float, bench: Bench) -> Iterator[Result]:
    row = f"{NAME} {latency_s * 1000:.0f} ms"
    with clients.raw(server) as daytona, clients.session(server) as session:
        sandbox = daytona.create()
        peer = clients.peer(sandbox)
        session.run(COMMAND)
        server.latency(latency_s)
        warm = interleaved(
            {
                "session.run": lambda: session.run(COMMAND),
                RAW: lambda: sandbox.process.exec(COMMAND),
                PEER: lambda: peer.execute(COMMAND),
            },
            bench.times(30, 3),
            warm_up=1,
        )
        server.latency(0)
        with Starts(server) as starts:
            server.latency(latency_s)
            first = interleaved(
                {OURS: starts.ours, RAW_START: starts.raw}, bench.times(12, 2), warm_up=1, tidy=starts.end
            )
            server.latency(0)
        sandbox.delete()
    yield compared(row, warm, "session.run", RAW, reach=reach, quoted=True)
    yield compared(row, warm, "session.run", PEER, quoted=True)
    yield compared(row, first, OURS, RAW_START, quoted=True)


ROW = Row(NAME, "warm command and first result, each request delayed by 20 and by 80 ms", run)
