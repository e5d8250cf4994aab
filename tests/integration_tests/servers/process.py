"""A server in a process group of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
# No request leaves the machine.
OFFLINE = {
    "LANGSMITH_TRACING": "false",
    "LANGGRAPH_NO_VERSION_CHECK": "true",
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
}


class ServerProcess:
    """A running server.

    Args:
        module: Started by ``python -m``, with its arguments.
        folder: The working directory.
        log: The file that gets its output.
        env: Additional environment variables.
    """

    def __init__(self, *module: str, folder: Path, log: Path, env: dict[str, str]) -> None:
        self._log = log
        # A file: a server that is not read would fill a pipe.
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **OFFLINE, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text("utf-8")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the output contains a text."""
        until = time.monotonic() + 120
        while self.output.count(text) < times:
            assert self._process.poll() is None, self.output
            assert time.monotonic() < until, self.output
            time.sleep(0.05)

    def end(self, number: int) -> int:
        """Send a signal (SIGINT to all processes, as a terminal does), and return the exit code."""
        if number == signal.SIGINT:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        return self._process.wait(timeout=120)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
