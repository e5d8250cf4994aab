"""Run one command that prints a given number of bytes, and print this process's peak memory in KiB."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PRINTS = "yes | head -c {bytes}"
TIMEOUT_S = 300


def main(contender: str, count: int, api_url: str, api_key: str) -> None:
    command = PRINTS.format(bytes=count)
    with _contenders()[contender](api_url, api_key) as run:
        run(command)
        sys.stdout.write(str(_peak_kib()))


def _peak_kib() -> int:
    """Return this process's peak memory. getrusage(2) would return the parent's peak if that is larger."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmHWM"].split()[0])


def _contenders() -> dict[str, Any]:
    return {"ours": _ours, "raw": _raw, "langchain-daytona": _peer}


# Each function imports only its own packages, since imports count as memory.
@contextmanager
def _ours(api_url: str, api_key: str) -> Iterator[Callable[[str], object]]:
    from langchain_daytona_ws import WorkspaceSession

    config = {"options": {"apiUrl": api_url, "apiKey": api_key}}
    with WorkspaceSession(config, namespace="bench-memory") as session:
        yield lambda command: session.run(command, timeout_s=TIMEOUT_S)


@contextmanager
def _raw(api_url: str, api_key: str) -> Iterator[Callable[[str], object]]:
    from daytona import Daytona, DaytonaConfig

    sandbox = Daytona(DaytonaConfig(api_url=api_url, api_key=api_key)).create()
    try:
        yield lambda command: sandbox.process.exec(command, timeout=TIMEOUT_S)
    finally:
        sandbox.delete()


@contextmanager
def _peer(api_url: str, api_key: str) -> Iterator[Callable[[str], object]]:
    from daytona import Daytona, DaytonaConfig
    from langchain_daytona import DaytonaSandbox  # type: ignore[import-untyped]

    sandbox = Daytona(DaytonaConfig(api_url=api_url, api_key=api_key)).create()
    try:
        yield DaytonaSandbox(sandbox=sandbox).execute
    finally:
        sandbox.delete()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.stdin.readline().strip())
