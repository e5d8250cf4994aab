"""Starts processes and reaps them, its own and the orphans that a process 1 inherits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading


class Child:
    """A started process. `exit_code` is -1 when a signal ended it, as in the daemon this stands in for."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.exit_code = -1  # until it has ended
        self.ended = threading.Event()
        self._process = process

    def finish(self, wait_status: int) -> None:
        self.exit_code = os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else -1
        # Tells subprocess that there is nothing left to wait for, or it would warn and wait for a stranger.
        self._process.returncode = self.exit_code
        self.ended.set()

    def kill_group(self) -> None:
        """Kill the process and every descendant that did not leave its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Children:
    """All processes started here. One reaper waits for every pid: single waits would miss orphans."""

    def __init__(self) -> None:
        self._started: dict[int, Child] = {}
        self._lock = threading.Lock()

    def spawn(
        self, argv: list[str], *, cwd: str | None, env: dict[str, str], stdin: int, stdout: int, stderr: int
    ) -> Child:
        """Start `argv` in its own session. OSError as the operating system raised it."""
        # The lock makes a child known before the reaper can see it end.
        with self._lock:
            process = subprocess.Popen(
                argv, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
            )
            child = Child(process)
            self._started[child.pid] = child
        return child

    def reap(self) -> None:
        """Collect every process that has ended by now."""
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
