"""Let go of the call's own output. The daemon answers only when no process holds it any more (Daytona)."""

from __future__ import annotations

import os
import select
import stat
import time

SETTLE_S = 0.05

spared: set[int] = set()  # our own children that live on, and may just be redirecting themselves


def release(nonce: str) -> None:
    """Close the output, and end every other process that holds it; print the names of these behind the nonce.

    What a command starts has another output. A process holds this one because a start-up file of the shell that read
    the script started it, or because it opened it through /proc: the answer would wait for its end.
    """
    try:
        about = os.fstat(1)
        if not stat.S_ISFIFO(about.st_mode):
            return
        reader = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    os.close(1)
    os.close(2)
    if not _is_held(reader):
        return
    pipe = "pipe:[%d]" % about.st_ino
    first = _holders(pipe)
    if not first:
        return  # another user's, perhaps
    time.sleep(SETTLE_S)  # a process may be between its start and its redirection
    held = {pid: name for pid, name in _holders(pipe).items() if pid in first}
    if not held:
        return
    import json

    # While the others hold the pipe the daemon goes on reading.
    writer = os.open("/proc/self/fd/%d" % reader, os.O_WRONLY)
    os.write(writer, ("\n%s+ %s\n" % (nonce, json.dumps(sorted(set(held.values()))))).encode("ascii"))
    os.close(writer)
    for pid in held:
        try:
            os.kill(pid, 9)
        except OSError:
            pass  # it has ended


def _is_held(reader: int) -> bool:
    poll = select.poll()
    poll.register(reader, 0)
    return not any(event & select.POLLHUP for _, event in poll.poll(0))


def _holders(pipe: str) -> dict[int, str]:
    """Find the processes that can write to the pipe: pid → name; none of those that this one descends from."""
    pid, above = os.getpid(), set(spared)
    while pid > 0 and pid not in above:
        above.add(pid)
        pid = _about(pid)[1]
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in above and _writes(entry, pipe):
            found[int(entry)] = _about(int(entry))[0]
    return found


def _about(pid: int) -> tuple[str, int]:
    """Return a process's name and parent; no name and 0 when it is none any more."""
    try:
        with open("/proc/%d/stat" % pid, errors="replace") as file:
            name, _, rest = file.read().partition(" (")[2].rpartition(")")
        return name, int(rest.split()[1])
    except (OSError, ValueError, IndexError):
        return "", 0


def _writes(pid: str, pipe: str) -> bool:
    directory = "/proc/%s/fd" % pid
    try:
        for name in os.listdir(directory):
            # The mode of the entry is that in which the file was opened.
            path = "%s/%s" % (directory, name)
            if os.readlink(path) == pipe and os.lstat(path).st_mode & 0o200:
                return True
    except OSError:
        pass  # another user's, or it has ended
    return False
