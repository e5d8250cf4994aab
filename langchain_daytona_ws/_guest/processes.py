"""Find all processes that a command started, and kill them."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # ``signal`` itself costs 4 ms of enum classes
import posix
import time

from langchain_daytona_ws._guest.dirs import run_quietly

MARKER = b"LANGCHAIN_DAYTONA_WS_CALL"


def tree(leader: int, key: str) -> dict[int, str]:
    """Find ``leader``, its descendants, and the processes with this call's marker in their environment.

    This process is left out. If a process between ``leader`` and a descendant has ended, the descendant can be found
    only by the marker. It is not found if it has cleared its environment, or if this user may not read its environment.

    Returns:
        pid → start time in clock ticks. Another start time shows that the pid was reused.
    """
    marker = b"\0%s=%s\0" % (MARKER, key.encode())
    parents, starts = _table()
    found = {}
    for pid, start in starts.items():
        if _descends(pid, leader, parents) or _has_marker(pid, marker):
            found[pid] = start
    found.pop(posix.getpid(), None)
    return found


def _table() -> tuple[dict[int, int], dict[int, str]]:
    """Return two tables of the running processes: pid → pid of the parent, and pid → start time."""
    parents: dict[int, int] = {}
    starts: dict[int, str] = {}
    for name in posix.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, "rb") as file:
                # The name in parentheses may contain spaces and parentheses.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] in (b"Z", b"X"):
            continue
        parents[int(name)] = int(fields[1])
        starts[int(name)] = fields[19].decode()
    return parents, starts


def _descends(pid: int, leader: int, parents: dict[int, int]) -> bool:
    steps = 0
    while pid and steps < 4096:
        if pid == leader:
            return True
        pid = parents.get(pid, 0)
        steps += 1
    return False


def _has_marker(pid: int, marker: bytes) -> bool:
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            return marker in b"\0" + file.read() + b"\0"
    except OSError:
        return False


def send(processes: dict[int, str], number: int) -> None:
    """Send a signal to each process, unless another process has its pid now."""
    denied = []
    for pid, start in processes.items():
        if start_time(pid) == start:
            try:
                posix.kill(pid, number)
            except PermissionError:
                denied.append(str(pid))
            except (OSError, OverflowError):  # OverflowError: the pid comes from a forged record
                continue
    if denied:
        # A process under sudo belongs to root: a stuck "sudo apt-get install" would keep its locks for ever.
        run_quietly(["sudo", "-n", "kill", "-%d" % number, *denied])


def have_ended(processes: dict[int, str]) -> bool:
    return all(start_time(pid) != start for pid, start in processes.items())


def start_time(pid: int) -> str:
    """Return the start time of a process in clock ticks; "" if the process has ended."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def kill_tree(leader: int, key: str, deadline: float) -> bool:
    """Kill the processes that `tree` finds until it finds no more; return False if some are left at the deadline."""
    while True:
        found = tree(leader, key)
        if not found:
            return True
        # Stop all first, so that no process can fork between two scans.
        send(found, signal.SIGSTOP)
        send(found, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
