"""Row: the client's peak memory for a command with much output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.measure import Samples, Spread, interleaved_values, ratio
from benchmarks.result import Result
from benchmarks.served import Served, served

NAME = "memory"
MIB = 1 << 20
SURVIVED = 16 * MIB  # the local server limits the log of a session's command to 64 MiB of JSON
NAMES = {
    "ours": "session.run",
    "raw": "sandbox.process.exec",
    "langchain-daytona": "langchain-daytona execute",
}


def run(bench: Bench) -> Iterator[Result]:
    much = {"ours": bench.times(1024, 128) * MIB, "raw": SURVIVED, "langchain-daytona": SURVIVED}
    with served() as server:
        contenders = {
            f"{name} {count}": partial(_peak_mib, server, name, count)
            for name, most in much.items()
            for count in (0, most)
        }
        samples = interleaved_values(contenders, bench.times(2, 1), warm_up=0)
    for name, most in much.items():
        yield _result(samples, name, most)


def _result(samples: Samples, contender: str, most: int) -> Result:
    printed = f"{most // MIB:,} MiB"
    nothing, much = f"{contender} 0", f"{contender} {most}"
    return Result(
        NAME,
        f"{NAMES[contender]}, {printed} printed",
        "nothing printed",
        ratio(samples, much, nothing),
        reach=1.10 if contender == "ours" else None,
        medians={
            f"{printed}, MiB": Spread.of(samples[much]).median,
            "nothing, MiB": Spread.of(samples[nothing]).median,
        },
        note="peak of the client's process"
        if contender == "ours"
        else "it keeps the whole output in memory, so a size that it survives",
        quoted=True,
    )


def _peak_mib(server: Served, contender: str, count: int) -> float:
    argv = [sys.executable, "-m", "benchmarks.children.printing", contender, str(count), server.api_url]
    done = subprocess.run(argv, input=server.api_key + "\n", check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout) / 1024


ROW = Row(NAME, "peak memory of the client for a command that prints 1 GiB", run)
