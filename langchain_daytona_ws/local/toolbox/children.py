"""Starts processes, and reaps them and the orphans that process 1 inherits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading


class Child:
    """A started process. `exit_code` is -1 while it runs, and after a signal ended it, as in Daytona's daemon."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.exit_code = -1
        self.ended = threading.Event()
        self._process = process

    def finish(self, wait_status: int) -> None:
        self.exit_code = os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else -1
        # Without a returncode, subprocess would warn, and wait for a pid that may belong to another process by now.
        self._process.returncode = self.exit_code
        self.ended.set()

    def kill_group(self) -> None:
        """Kill the process group: the process and its descendants, except those that left the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Children:
    """The processes that the daemon started. One reaper waits for all pids, to collect orphans too."""

    def __init__(self) -> None:
        self._started: dict[int, Child] = {}
        self._lock = threading.Lock()

    def spawn(
        self, argv: list[str], *, cwd: str | None, env: dict[str, str], stdin: int, stdout: int, stderr: int
    ) -> Child:
        """Start `argv` in a new session.

        Raises:
            OSError: the operating system cannot start it.
        """
        # Without the lock, `reap` could look for a child that has ended, before the child is registered.
        with self._lock:
            process = subprocess.Popen(
                argv, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
            )
            child = Child(process)
            self._started[child.pid] = child
        return child

    def reap(self) -> None:
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            with self._lock:
                child = self._started.pop(pid, None)
            if child is not None:
                child.finish(wait_status)
