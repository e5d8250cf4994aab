"""Run the local Daytona in its own process, so that it does not slow the measured clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from langchain_daytona_ws.local import LocalDaytona
from langchain_daytona_ws.local.faults import Fault
from langchain_daytona_ws.local.isolation import IsolationKind

STOP_S = 120.0


class Served:
    """Controls the server process, by lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        hello = self._read()
        self.api_url: str = hello["api_url"]
        self.api_key: str = hello["api_key"]
        self.s3_endpoint: str = hello["s3_endpoint"]

    def latency(self, seconds: float) -> None:
        """Delay every request by these seconds; 0 for no delay."""
        self._ask("latency", seconds)

    def requests(self) -> dict[str, int]:
        """Return the number of requests of each action since the last call."""
        counts: dict[str, int] = self._ask("requests")
        return counts

    def make_bucket(self, name: str) -> str:
        made: str = self._ask("bucket", name)
        return made

    def disk_bytes(self, sandbox_id: str) -> int:
        """Return the disk space of a sandbox's files, in bytes."""
        size: int = self._ask("disk", sandbox_id)
        return size

    def _ask(self, *request: Any) -> Any:
        assert self._process.stdin is not None  # noqa: S101 - created with a pipe
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the local server ended; see its output above")
        return json.loads(line)


@contextmanager
def served(*, s3: bool = False, isolation: IsolationKind = "bubblewrap") -> Iterator[Served]:
    """Start a server, and stop it at the end."""
    argv = [sys.executable, "-m", "benchmarks.served", json.dumps({"s3": s3, "isolation": isolation})]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Served(process)
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=STOP_S)
        process.kill()
        process.wait()


def main(settings: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    # Other output goes to standard error, so that standard output has only lines of JSON.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with LocalDaytona(**settings) as server:
        hello = {
            "api_url": server.api_url,
            "api_key": server.api_key,
            "s3_endpoint": server.s3_endpoint if settings["s3"] else "",
        }
        print(json.dumps(hello), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(_answer(server, *json.loads(line))), file=answers, flush=True)


def _answer(server: LocalDaytona, name: str, *arguments: Any) -> Any:
    match name:
        case "latency":
            server.faults.clear()
            if arguments[0]:
                server.faults.add(Fault("latency", times=None, delay_s=arguments[0]))
            return None
        case "requests":
            counts: dict[str, int] = {}
            for request in server.requests:
                counts[request.action] = counts.get(request.action, 0) + 1
            server.clear_requests()
            return counts
        case "bucket":
            return server.make_bucket(arguments[0])
        case "disk":
            folder = next(box.folder for box in server.sandboxes if box.id == arguments[0])
            return sum(
                os.lstat(os.path.join(above, name)).st_blocks * 512
                for above, _, names in os.walk(folder)
                for name in names
            )
    raise ValueError(f"unknown request {name!r}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
