"""A program that runs working copies, each in a process of its own that can be killed.

It reads paths of Unix sockets, a line each, and forks a process that serves the commands of one working copy.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from langchain_daytona_ws._guest import sync_answers, sync_copy, sync_pull, sync_push, sync_s3

CREDENTIALS: dict[str, str | None] = {"key": "AKIACOPY", "secret": "secret", "token": None}
LIMIT_S = 60.0
STEPS = (
    "rename",
    "replace",
    "link",
    "symlink",
    "unlink",
    "mkdir",
    "makedirs",
    "rmdir",
    "write",
    "utime",
    "open",
)


class Runner:
    """One working copy; dies by SIGKILL at a given step of a command."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.copy = sync_copy.WorkingCopy(spec, CREDENTIALS)
        self._pull, self._push = sync_pull.Pull(self.copy), sync_push.Push(self.copy)

    def run(self, action: str, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """Pull or push as the resident does; return the report with the failure, if any."""
        self.copy.bucket.begin(time.monotonic() + limit_s)
        failure = detail = ""
        try:
            if action == "pull":
                sync_push.probe(self.copy)
                self._pull.run()
            else:
                self._push.run()
        except sync_answers.S3Error as error:
            failure, detail = error.code, error.detail
        except sync_pull.TooLarge as error:
            failure, detail = "too_large", f"{error.size} of {error.limit}"
        except (sync_s3.LocalError, OSError) as error:
            failure, detail = "local", str(error)
        report = self.copy.report.values()
        report["failure"], report["detail"] = failure, detail
        report["unpushed"] = sorted(self._push.unpushed) if action == "push" else []
        self.copy.forget_report()
        self.copy.index.save()
        return report


class Countdown:
    """Kills this process at its nth step: a request, before or after its answer, or a change of the disk."""

    def __init__(self) -> None:
        self._left: itertools.count[int] | None = None
        for name in STEPS:
            setattr(os, name, self._counted(getattr(os, name)))
        exchange = sync_s3.Bucket._exchange

        def counted(*arguments: Any) -> Any:
            self.step()
            answer = exchange(*arguments)
            self.step()
            return answer

        sync_s3.Bucket._exchange = counted  # type: ignore[method-assign]

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.step()
            return function(*arguments, **named)

        return counted

    def start(self, steps: int | None) -> None:
        self._left = None if steps is None else itertools.count(-steps)

    def step(self) -> None:
        if self._left is not None and next(self._left) >= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _serve(path: str) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    stream = connection.makefile("rw", encoding="utf-8")
    spec = json.loads(stream.readline())
    countdown = Countdown()
    runner = Runner(spec)
    for line in stream:
        command = json.loads(line)
        countdown.start(command["kill_at"])
        report = runner.run(command["action"])
        countdown.start(None)
        stream.write(json.dumps(report) + "\n")
        stream.flush()


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            try:
                _serve(line.strip())
            finally:
                os._exit(0)


if __name__ == "__main__":
    main()
