"""End editors that wait for a key, which no user can press. Sent only if the command may start an editor."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # ``signal`` itself costs 4 ms of enum classes
import os
import time

from langchain_daytona_ws._guest import command, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

INTERVAL_S = 2.5
# Names of the processes of vi and vim. Other editors end by themselves if there is no terminal.
NAMES = (b"vi", b"vim", b"view", b"ex", b"vimdiff", b"rvim", b"rview", b"nvim", b"editor")


class Run(command.Run):
    """A running command, whose editors are ended if they wait for a key."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._check_at = time.monotonic() + INTERVAL_S
        self._seen: dict[int, tuple[str, int]] = {}  # editors that the last check found
        self._ended: set[str] = set()  # names of the editors that were ended

    def collect(self, until: float) -> None:
        if time.monotonic() >= self._check_at:
            self._end_editors()
            self._check_at = time.monotonic() + INTERVAL_S
        super().collect(min(until, self._check_at))

    def _end_editors(self) -> None:
        # End only editors that used no CPU time since the last check: a working editor uses CPU time.
        before, self._seen = self._seen, self._waiting_editors()
        idle = {pid: editor[0] for pid, editor in self._seen.items() if before.get(pid) == editor}
        own = processes.tree(self.pid, self.key) if idle else {}
        ours = {pid: own[pid] for pid in idle if pid in own}
        processes.send(ours, signal.SIGTERM)
        self._ended.update(idle[pid] for pid in ours)

    def _waiting_editors(self) -> dict[int, tuple[str, int]]:
        return waiting_editors(NAMES, _has_no_input)

    def result(self) -> dict[str, Any]:
        answer = super().result()
        if self._ended:
            answer["editors"] = sorted(self._ended)
        return answer


command.Run = Run  # type: ignore[misc,assignment]  # this module is sent only for commands that need it


def waiting_editors(names: tuple[bytes, ...], waits: Callable[[str], bool]) -> dict[int, tuple[str, int]]:
    """Return the editors that may wait for a key and have no child process: pid → (name, CPU time in clock ticks).

    ``waits`` returns whether the process with a pid may wait for a key.
    """
    found, parents = {}, set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid, "rb") as file:
                # The name in parentheses may contain spaces and parentheses.
                name, _, rest = file.read().partition(b" (")[2].rpartition(b") ")
            fields = rest.split()
            parents.add(int(fields[1]))
            if name in names and waits(pid):
                found[int(pid)] = (name.decode(), int(fields[11]) + int(fields[12]))
        except (OSError, IndexError):  # the process has ended, or belongs to another user
            continue
    return {pid: editor for pid, editor in found.items() if pid not in parents}


def _has_no_input(pid: str) -> bool:
    """Return whether a process can write to its standard input, but not read it.

    At the end of its standard input, vim replaces its standard input by a copy of its standard error. If standard error
    is the pipe for the command's output, vim cannot read it, and waits for ever.
    """
    with open("/proc/%s/fdinfo/0" % pid, "rb") as file:
        flags = file.read().partition(b"flags:")[2].split()[0]
    return int(flags, 8) & os.O_ACCMODE == os.O_WRONLY
