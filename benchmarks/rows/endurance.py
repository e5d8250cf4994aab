"""Row: ten thousand commands in one session."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.bench import Bench, Row
from benchmarks.measure import Spread
from benchmarks.result import Result
from benchmarks.served import Served, served

NAME = "endurance"
# The sandbox keeps the records of the last 2,000 calls, so growth before the first stop is expected.
STOPS = (2500, 5000, 7500, 10_000)
REACH = 1.05
UNITS = {
    "resident_bytes": "resident memory of the client",
    "open_files": "open files of the client",
    "disk_bytes": "sandbox's disk",
}


def run(bench: Bench) -> Iterator[Result]:
    stops = [bench.times(stop, stop // 25) for stop in STOPS]
    with served() as server:
        held = list(_stops(server, stops))
    first, last = f"after {stops[0]:,}", f"after {stops[-1]:,}"
    for name, quantity in UNITS.items():
        before, after = held[0][name], held[-1][name]
        medians = {f"{last} commands, {name}": float(after), f"{first} commands, {name}": float(before)}
        yield Result(
            NAME, quantity, f"{first} commands", Spread.of([after / before]), reach=REACH, medians=medians,
            note=f"{last} commands from 8 threads; " + ", ".join(f"{values[name]:,}" for values in held),
            quoted=True,
        )  # fmt: skip


def _stops(server: Served, stops: list[int]) -> Iterator[dict[str, Any]]:
    argv = [sys.executable, "-m", "benchmarks.children.enduring", server.api_url, *map(str, stops)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None  # noqa: S101 - created with pipes
        assert child.stdout is not None  # noqa: S101
        child.stdin.write(server.api_key + "\n")
        child.stdin.flush()
        for line in child.stdout:
            stop = json.loads(line)
            yield {**stop["held"], "disk_bytes": server.disk_bytes(stop["sandbox"])}
            child.stdin.write("\n")
            child.stdin.flush()
    if child.returncode != 0:
        raise RuntimeError("the commands of the endurance row failed; see its output above")


ROW = Row(NAME, "10,000 commands in one session: memory, open files, the sandbox's disk", run)
