"""Process trees: find everything that a command started, and end it."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # ``signal`` itself costs 4 ms of enum classes
import os
import time

from langchain_daytona_ws._guest.place import run_quietly

MARKER = "LANGCHAIN_DAYTONA_WS_CALL"


def tree(leader: int, key: str) -> dict[int, str]:
    """Find the processes descending from ``leader`` or carrying this call's marker in their environment.

    Returns pid → start time in clock ticks: a pid alone may have been given to somebody else meanwhile.
    A process that both left its parent (so that init adopted it) and cleared its environment is not found.
    """
    marker = ("\0%s=%s\0" % (MARKER, key)).encode()
    parents, births = _table()
    found = {}
    for pid, birth in births.items():
        if _descends(pid, leader, parents) or _carries(pid, marker):
            found[pid] = birth
    found.pop(os.getpid(), None)
    return found


def _table() -> tuple[dict[int, int], dict[int, str]]:
    parents: dict[int, int] = {}
    births: dict[int, str] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, "rb") as file:
                # The name in parentheses may itself hold blanks and parentheses.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] in (b"Z", b"X"):
            continue
        parents[int(name)] = int(fields[1])
        births[int(name)] = fields[19].decode()
    return parents, births


def _descends(pid: int, leader: int, parents: dict[int, int]) -> bool:
    seen = 0
    while pid and seen < 4096:
        if pid == leader:
            return True
        pid = parents.get(pid, 0)
        seen += 1
    return False


def _carries(pid: int, marker: bytes) -> bool:
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            return marker in b"\0" + file.read() + b"\0"
    except OSError:
        return False


def send(processes: dict[int, str], number: int) -> None:
    """Signal each process that is still the one that was found."""
    others = []
    for pid, birth in processes.items():
        if birth_of(pid) == birth:
            try:
                os.kill(pid, number)
            except PermissionError:
                others.append(str(pid))
            except OSError:
                continue
    if others:
        # What runs under sudo is root's: a stuck "sudo apt-get install" would keep its locks for ever.
        run_quietly(["sudo", "-n", "kill", "-%d" % number, *others])


def birth_of(pid: int) -> str:
    """Return the start time of a process in clock ticks, "" when it is none any more."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def exterminate(leader: int, key: str, deadline: float) -> bool:
    """Kill the tree until nothing of it is found; return whether that was reached before the deadline."""
    while True:
        left = tree(leader, key)
        if not left:
            return True
        # Stopped first, so that what is not killed yet cannot fork its way out between two scans.
        send(left, signal.SIGSTOP)
        send(left, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
