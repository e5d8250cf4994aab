"""Runs one script to its end: the shell reads it on stdin, its output and errors share one buffer."""

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
# The list of shells decides, as text: the first of these that it holds anywhere.
LISTED_SHELLS = "grep '^[^#]' /etc/shells"
SHELLS = ("/usr/bin/zsh", "/bin/zsh", "/usr/bin/bash", "/bin/bash")
# For so long an ended script's output is waited for, in those calls that have the limit.
DRAIN_S = 30.0
# How soon it is seen that the script has ended while its output is held open.
LOOK_S = 0.2
LONGEST_WAIT_S = 3600.0


def find_shell(children: Children, forced: str | None, env: Mapping[str, str]) -> str:
    """Return the shell for a script: the forced one, or else what /etc/shells and $SHELL offer.

    A process is started for this each time, as the original does: it is part of what an exec costs.
    """
    listed = _listed_shells(children, env)
    if forced:
        return shutil.which(forced, path=env.get("PATH")) or forced
    found = next((shell for shell in SHELLS if shell in listed), None)
    return found or (env.get("SHELL", "sh") if listed else "sh")


def _listed_shells(children: Children, env: Mapping[str, str]) -> str:
    """Return what /etc/shells lists; nothing when there is no such file, or no program to read it."""
    output_read, output_write = os.pipe()
    try:
        nothing = subprocess.DEVNULL
        argv = ["sh", "-c", LISTED_SHELLS]
        child = children.spawn(
            argv, cwd=None, env=dict(env), stdin=nothing, stdout=output_write, stderr=nothing
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
    """Return the variables of a request; a null value counts as an empty one."""
    if not isinstance(env, Mapping):
        raise ToolboxError(400, "invalid request body: environment variables are an object of strings")
    for key, value in env.items():
        if value is not None and not isinstance(value, str):
            raise ToolboxError(400, f"invalid request body: the environment variable {key} is no string")
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
    """Run `script` and return its exit code and all of its output, which is held in memory whatever its size.

    Ends when the script has ended *and* nobody holds its output open any more. After `timeout_s` the process
    group is killed, and the output thrown away; what called setsid lives on, and if it holds the output, the
    ToolboxError 408 comes only when it lets go of it.

    `drains` says whether output that is held open is given up 30 seconds after the script's end. The original has
    this limit only when its reaper is quicker than its wait, in about half of the calls; None has it in every other.
    """
    if any("\0" in value for value in (*env.values(), cwd or "")):  # which is $PWD, too
        return -1, b"exec: environment variable contains NUL"
    try:
        child, script_end, output_end = _start(children, [shell], cwd, env)
    except OSError as error:
        return -1, _go_wording(error, shell)
    limit = _TimeLimit(child, timeout_s)
    drain_s = DRAIN_S if (next(_calls) % 2 if drains is None else drains) else None
    with script_end, output_end:
        output = _feed_and_collect(script, script_end, output_end, limit, drain_s)
    while not child.ended.wait(limit.wait_s()):
        limit.enforce()
    if limit.is_over:
        raise ToolboxError(408, "command execution timeout", "PROCESS_EXECUTION_TIMEOUT")
    return child.exit_code, bytes(output)


class _TimeLimit:
    """Kills the process group when its time is over. That does not end the waiting for the output."""

    def __init__(self, child: Child, timeout_s: float | None) -> None:
        self.child = child
        self.is_over = False
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def wait_s(self) -> float:
        if self._deadline is None or self.is_over:
            return LONGEST_WAIT_S
        return min(max(0.0, self._deadline - time.monotonic()), LONGEST_WAIT_S)

    def enforce(self) -> None:
        if self._deadline is not None and not self.is_over and time.monotonic() >= self._deadline:
            self.is_over = True
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
    script: bytes, script_end: Any, output_end: Any, limit: _TimeLimit, drain_s: float | None
) -> bytearray:
    """Write the script and read the output until end-of-file, or `drain_s` after the script's end."""
    os.set_blocking(script_end.fileno(), False)
    unwritten = memoryview(script)
    output = bytearray()
    ended_at: float | None = None
    poller = select.poll()
    poller.register(output_end.fileno(), select.POLLIN)
    poller.register(script_end.fileno(), select.POLLOUT)
    while True:
        wait_s = limit.wait_s() if drain_s is None else min(limit.wait_s(), LOOK_S)
        for descriptor, _ in poller.poll(wait_s * 1000):
            if descriptor == output_end.fileno():
                chunk = os.read(descriptor, PIPE_BYTES)
                if not chunk:
                    return output
                output += chunk
                continue
            unwritten = _feed(descriptor, unwritten)
            if not unwritten:
                poller.unregister(descriptor)
                script_end.close()
        limit.enforce()
        if drain_s is not None and limit.child.ended.is_set():
            ended_at = ended_at or time.monotonic()
            if time.monotonic() - ended_at >= drain_s:
                return output


def _feed(descriptor: int, unwritten: memoryview) -> memoryview:
    """Write what the pipe takes; a shell that closed its stdin needs no more."""
    try:
        return unwritten[os.write(descriptor, unwritten[:PIPE_BYTES]) :]
    except BlockingIOError:
        return unwritten
    except BrokenPipeError:
        return unwritten[:0]


def _go_wording(error: OSError, shell: str) -> bytes:
    """Word a failed start as the original does: it blames the shell, also for a directory that cannot be entered."""
    if "/" not in shell:
        return f'exec: "{shell}": executable file not found in $PATH'.encode()
    return f"fork/exec {shell}: {reason(error)}".encode("utf-8", "surrogateescape")
