"""Close a call's output and kill the processes that keep it open, because Daytona's daemon waits for all of them."""

from __future__ import annotations

import posix
import stat
import time

from langchain_daytona_ws._guest import encode

SETTLE_S = 0.05

# Children of this process that read on after the call. They are not killed, because they redirect their output at once.
own_children: set[int] = set()


def release(nonce: str) -> None:
    """If the output is a pipe, close it, and kill the other processes that keep it open; print their names after the
    nonce.

    Ancestors of this process and ``own_children`` are not killed. Processes of other users are killed only by root.

    The output of commands is another pipe. So a killed process was started by a start-up file of the calling shell, or
    opened this pipe through /proc.
    """
    try:
        status = posix.fstat(1)
        if not stat.S_ISFIFO(status.st_mode):
            return
        reader = posix.open("/proc/self/fd/1", posix.O_RDONLY | posix.O_NONBLOCK)
    except OSError:
        return
    posix.close(1)
    posix.close(2)
    if not _has_other_writers(reader):
        return
    pipe = "pipe:[%d]" % status.st_ino
    holders = _holders(pipe)
    if not holders:
        return  # the holder may belong to another user
    time.sleep(SETTLE_S)  # a process may be about to redirect its output
    killed = {pid: name for pid, name in _holders(pipe).items() if pid in holders}
    if not killed:
        return
    # The daemon reads until no process has the pipe open: print the names before the last one is killed.
    writer = posix.open("/proc/self/fd/%d" % reader, posix.O_WRONLY)
    posix.write(writer, ("\n%s+ %s\n" % (nonce, encode.encode(sorted(set(killed.values()))))).encode("ascii"))
    posix.close(writer)
    for pid in killed:
        try:
            posix.kill(pid, 9)
        except OSError:
            pass  # the process has ended


def _has_other_writers(reader: int) -> bool:
    import select  # imported late: a command imports it while bash starts

    poll = select.poll()
    poll.register(reader, 0)
    return not any(event & select.POLLHUP for _, event in poll.poll(0))


def _holders(pipe: str) -> dict[int, str]:
    """Return pid → name of processes that can write to the pipe: not this one, its ancestors and ``own_children``."""
    pid, excluded = posix.getpid(), set(own_children)
    while pid > 0 and pid not in excluded:
        excluded.add(pid)
        pid = _name_and_parent(pid)[1]
    found = {}
    for entry in posix.listdir("/proc"):
        if entry.isdigit() and int(entry) not in excluded and _can_write(entry, pipe):
            found[int(entry)] = _name_and_parent(int(entry))[0]
    return found


def _name_and_parent(pid: int) -> tuple[str, int]:
    """Return a process's name and parent; ``""`` and 0 if the process has ended."""
    try:
        with open("/proc/%d/stat" % pid, errors="replace") as file:
            name, _, rest = file.read().partition(" (")[2].rpartition(")")
        return name, int(rest.split()[1])
    except (OSError, ValueError, IndexError):
        return "", 0


def _can_write(pid: str, pipe: str) -> bool:
    directory = "/proc/%s/fd" % pid
    try:
        for name in posix.listdir(directory):
            # The entry's permissions are the mode in which the file was opened.
            path = "%s/%s" % (directory, name)
            if posix.readlink(path) == pipe and posix.lstat(path).st_mode & 0o200:
                return True
    except OSError:
        pass  # the process belongs to another user, or has ended
    return False
