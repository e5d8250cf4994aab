"""What must not be left of a cell: sandboxes, processes, threads, sockets and other descriptors, files."""

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

# What has been given up may take a moment to be gone.
WITHIN_S = 30.0


@dataclass(frozen=True)
class Holdings:
    """What a process has, by name or kind."""

    sandboxes: Counter[str]
    threads: Counter[str]
    descriptors: Counter[str]
    children: Counter[str]
    files: Counter[str]

    def beyond(self, before: Holdings) -> list[str]:
        """Return what is here and was not there."""
        return [
            f"{kind}: {name}" + (f" ×{count}" if count > 1 else "")
            for kind in ("sandboxes", "threads", "descriptors", "children", "files")
            for name, count in (getattr(self, kind) - getattr(before, kind)).items()
        ]


def held(world: World) -> Holdings:
    gc.collect()
    return Holdings(
        sandboxes=Counter(
            f"{one.name} ({one.state})" for server in world.servers for one in server.sandboxes
        ),
        # The local Daytona's own loop keeps threads for its work; that of a session is not a uvloop.
        threads=Counter(one.name for one in threading.enumerate() if not one.name.startswith("uvloop_")),
        descriptors=Counter(_descriptors()),
        children=Counter(_children()),
        files=Counter(str(path.relative_to(world.temp)) for path in _files(world)),
    )


def left(world: World, before: Holdings) -> list[str]:
    """Return what has been left since, once it does not get less."""
    until = time.monotonic() + WITHIN_S
    while True:
        beyond = held(world).beyond(before)
        if not beyond or time.monotonic() > until:
            return beyond
        time.sleep(0.02)


def _descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of the listing itself
        found.append(target if target.startswith("/") else target.partition(":")[0])
    return found


def _children() -> list[str]:
    """List what descends from this process, by the kernel's table."""
    parents: dict[int, int] = {}
    for pid in _pids():
        with contextlib.suppress(OSError):  # it has ended
            stat = Path(f"/proc/{pid}/stat").read_text()
            parents[pid] = int(stat.rpartition(")")[2].split()[1])  # behind the name, which may hold anything
    family = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= found
    return [f"process {pid}" for pid in family - {os.getpid()}]


def running(word: str) -> bool:
    """Tell whether a process has this in its command line."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _files(world: World) -> list[Path]:
    """List temporary files, and of the servers' own folders the sandboxes' disks."""
    tops = list(world.temp.iterdir())
    return [*tops, *(one for top in tops for one in (top / "sandboxes").glob("*"))]
