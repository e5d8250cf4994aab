"""Find leaks of a cell: sandboxes, processes, threads, sockets and other descriptors, files."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.world import World

# Abandoned requests and processes take a while to end.
WITHIN_S = 30.0


@dataclass(frozen=True)
class Holdings:
    """A process's resources, by name or kind."""

    sandboxes: Counter[str]
    threads: Counter[str]
    descriptors: Counter[str]
    children: Counter[str]
    files: Counter[str]

    def added_since(self, before: Holdings) -> list[str]:
        """Return the resources that `before` does not have."""
        return [
            f"{kind}: {name}" + (f" ×{count}" if count > 1 else "")
            for kind in ("sandboxes", "threads", "descriptors", "children", "files")
            for name, count in (getattr(self, kind) - getattr(before, kind)).items()
        ]


def holdings(world: World) -> Holdings:
    gc.collect()
    return Holdings(
        sandboxes=Counter(
            f"{box.name} ({box.state})" for server in world.servers for box in server.sandboxes
        ),
        # Only the local Daytona uses uvloop, whose worker threads stay.
        threads=Counter(
            thread.name for thread in threading.enumerate() if not thread.name.startswith("uvloop_")
        ),
        descriptors=Counter(_descriptors()),
        children=Counter(_children()),
        files=Counter(str(path.relative_to(world.temp)) for path in _files(world)),
    )


def leaked_since(world: World, before: Holdings) -> list[str]:
    """Return the resources added since `before`, after waiting for them to be released."""
    until = time.monotonic() + WITHIN_S
    while True:
        added = holdings(world).added_since(before)
        if not added or time.monotonic() > until:
            return added
        time.sleep(0.02)


def _descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of the listing itself
        found.append(target if target.startswith("/") else target.partition(":")[0])
    return found


def _children() -> list[str]:
    """Return this process's descendants, from /proc."""
    parents: dict[int, int] = {}
    for pid in _pids():
        with contextlib.suppress(OSError):  # it has ended
            stat = Path(f"/proc/{pid}/stat").read_text()
            parents[pid] = int(stat.rpartition(")")[2].split()[1])  # after the name, which may contain spaces
    family = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= found
    return [f"process {pid}" for pid in family - {os.getpid()}]


def running(word: str) -> bool:
    """Return whether a process has this in its command line."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _files(world: World) -> list[Path]:
    """Return temporary files, and the sandboxes' disks in the servers' folders."""
    tops = list(world.temp.iterdir())
    return [*tops, *(disk for top in tops for disk in (top / "sandboxes").glob("*"))]
