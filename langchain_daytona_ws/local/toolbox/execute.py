"""Runs a script to its end. The shell reads it from stdin; stdout and stderr share one buffer."""

from __future__ import annotations

import itertools
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from .children import Child, Children
from .errors import ToolboxError, reason

ENV_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)
PIPE_BYTES = 65536
# The first of SHELLS that occurs anywhere in the text of /etc/shells is used.
LISTED_SHELLS = "grep '^[^#]' /etc/shells"
SHELLS = ("/usr/bin/zsh", "/bin/zsh", "/usr/bin/bash", "/bin/bash")
# How long a call with `drains` reads output after the script's end.
DRAIN_S = 30.0
# How often to check whether the script has ended while its output is open.
POLL_S = 0.2
MAX_WAIT_S = 3600.0


def find_shell(children: Children, forced: str | None, env: Mapping[str, str]) -> str:
    """Return the shell for a script: `forced`, else a shell chosen by /etc/shells and $SHELL.

    Each call reads /etc/shells by a process, even with `forced`, so that it takes as long as in the original.
    """
    listed = _listed_shells(children, env)
    if forced:
        return shutil.which(forced, path=env.get("PATH")) or forced
    found = next((shell for shell in SHELLS if shell in listed), None)
    return found or (env.get("SHELL", "sh") if listed else "sh")


def _listed_shells(children: Children, env: Mapping[str, str]) -> str:
    """Return the lines of /etc/shells that are not comments; an empty text if there are none, or `grep` fails."""
    output_read, output_write = os.pipe()
    try:
        devnull = subprocess.DEVNULL
        argv = ["sh", "-c", LISTED_SHELLS]
        child = children.spawn(
            argv, cwd=None, env=dict(env), stdin=devnull, stdout=output_write, stderr=devnull
        )
    except OSError:
        os.close(output_read)
        return ""
    finally:
        os.close(output_write)
    with os.fdopen(output_read, "rb") as output:
        listed = output.read()
    child.ended.wait()
    return listed.decode("utf-8", "replace") if child.exit_code == 0 else ""


def check_env(env: Any) -> dict[str, str]:
    """Return the environment variables of a request; null becomes an empty value."""
    if not isinstance(env, Mapping):
        raise ToolboxError(400, "invalid request body: environment variables must be an object of strings")
    for key, value in env.items():
        if value is not None and not isinstance(value, str):
            raise ToolboxError(400, f"invalid request body: the environment variable {key} is not a string")
    for key in env:
        if not ENV_KEY.fullmatch(key):
            raise ToolboxError(400, f"invalid environment variable key {key!r}: must match ^[A-Za-z_]\\w*$")
    return {key: value or "" for key, value in env.items()}


_calls = itertools.count()


def execute(
    children: Children,
    script: bytes,
    *,
    shell: str,
    cwd: str | None,
    env: dict[str, str],
    timeout_s: float | None,
    drains: bool | None = None,
) -> tuple[int, bytes]:
    """Run `script`, and return its exit code and its whole output, which is held in memory.

    Returns when the script has ended *and* all processes have closed its output; `drains` can end the second wait.
    After `timeout_s` the process group is killed and the output is discarded. Processes that called setsid survive:
    the call waits for their output in the same way before it raises the error. If the shell cannot be started, the
    exit code is -1 and the output is a message.

    With `drains`, reading stops 30 seconds after the script's end. None alternates between True and False: the original
    stops if its reaper is faster than its wait, which is about half of its calls (measured).

    Raises:
        ToolboxError: status 408, the command ran into its time-out.
    """
    if any("\0" in value for value in (*env.values(), cwd or "")):  # cwd becomes $PWD
        return -1, b"exec: environment variable contains NUL"
    try:
        child, script_pipe, output_pipe = _start(children, [shell], cwd, env)
    except OSError as error:
        return -1, _go_message(error, shell)
    limit = _TimeLimit(child, timeout_s)
    drain_s = DRAIN_S if (next(_calls) % 2 if drains is None else drains) else None
    with script_pipe, output_pipe:
        output = _feed_and_collect(script, script_pipe, output_pipe, limit, drain_s)
    while not child.ended.wait(limit.wait_s()):
        limit.enforce()
    if limit.is_exceeded:
        raise ToolboxError(408, "command execution timeout", "PROCESS_EXECUTION_TIMEOUT")
    return child.exit_code, bytes(output)


class _TimeLimit:
    """Kills the process group after the time-out. Afterwards `execute` still waits for the end of the output."""

    def __init__(self, child: Child, timeout_s: float | None) -> None:
        self.child = child
        self.is_exceeded = False
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def wait_s(self) -> float:
        if self._deadline is None or self.is_exceeded:
            return MAX_WAIT_S
        return min(max(0.0, self._deadline - time.monotonic()), MAX_WAIT_S)

    def enforce(self) -> None:
        if self._deadline is not None and not self.is_exceeded and time.monotonic() >= self._deadline:
            self.is_exceeded = True
            self.child.kill_group()


def _start(
    children: Children, argv: list[str], cwd: str | None, env: dict[str, str]
) -> tuple[Child, Any, Any]:
    script_read, script_write = os.pipe()
    try:
        output_read, output_write = os.pipe()
    except OSError:
        os.close(script_read)
        os.close(script_write)
        raise
    try:
        child = children.spawn(
            argv, cwd=cwd, env=env, stdin=script_read, stdout=output_write, stderr=output_write
        )
    except BaseException:
        os.close(script_write)
        os.close(output_read)
        raise
    finally:
        os.close(script_read)
        os.close(output_write)
    return child, os.fdopen(script_write, "wb", buffering=0), os.fdopen(output_read, "rb", buffering=0)


def _feed_and_collect(
    script: bytes, script_pipe: Any, output_pipe: Any, limit: _TimeLimit, drain_s: float | None
) -> bytearray:
    """Write the script, and read the output until its end, or until `drain_s` after the script's end."""
    os.set_blocking(script_pipe.fileno(), False)
    unwritten = memoryview(script)
    output, is_open = bytearray(), True
    ended_at: float | None = None
    poller = select.poll()
    poller.register(output_pipe.fileno(), select.POLLIN)
    poller.register(script_pipe.fileno(), select.POLLOUT)
    while True:
        wait_s = limit.wait_s() if drain_s is None else min(limit.wait_s(), POLL_S)
        for descriptor, _ in poller.poll(wait_s * 1000):
            if descriptor == output_pipe.fileno():
                chunk = os.read(descriptor, PIPE_BYTES)
                output += chunk
                if not chunk:
                    # The script may have redirected its own output: the shell still reads the rest of the script.
                    poller.unregister(descriptor)
                    is_open = False
                continue
            unwritten = _feed(descriptor, unwritten)
            if not unwritten:
                poller.unregister(descriptor)
                script_pipe.close()
        if not is_open and not unwritten:
            return output
        limit.enforce()
        if drain_s is not None and limit.child.ended.is_set():
            ended_at = ended_at or time.monotonic()
            if time.monotonic() - ended_at >= drain_s:
                return output


def _feed(descriptor: int, unwritten: memoryview) -> memoryview:
    """Write as much as the pipe accepts, and return the rest; an empty rest if the shell has closed its stdin."""
    try:
        return unwritten[os.write(descriptor, unwritten[:PIPE_BYTES]) :]
    except BlockingIOError:
        return unwritten
    except BrokenPipeError:
        return unwritten[:0]


def _go_message(error: OSError, shell: str) -> bytes:
    """Return the original's message for a failed start: it names the shell, even if `cwd` is the cause."""
    if "/" not in shell:
        return f'exec: "{shell}": executable file not found in $PATH'.encode()
    return f"fork/exec {shell}: {reason(error)}".encode("utf-8", "surrogateescape")
