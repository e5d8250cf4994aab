"""Runs one script to its end: the shell reads it on stdin, its output and errors share one buffer."""

from __future__ import annotations

import os
import re
import select
import shutil
import time
from collections.abc import Mapping
from typing import Any

from .children import Child, Children
from .errors import ToolboxError

ENV_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)
PIPE_BYTES = 65536


def find_shell(forced: str | None, env: Mapping[str, str]) -> str:
    """Return the path of the shell for scripts: the forced one, or the first of zsh, bash, $SHELL and sh."""
    path = env.get("PATH")
    for name in [forced] if forced else ["zsh", "bash", env.get("SHELL", ""), "sh"]:
        found = shutil.which(name, path=path) if name else None
        if found:
            return found
    raise ToolboxError(500, "INTERNAL_ERROR", f"no shell found: {forced or 'zsh, bash, sh'}")


def check_env(env: Mapping[str, Any]) -> None:
    if not isinstance(env, Mapping):
        raise ToolboxError(400, "INVALID_REQUEST", "environment variables are an object of strings")
    for key, value in env.items():
        if not ENV_KEY.fullmatch(key):
            raise ToolboxError(
                400,
                "INVALID_REQUEST",
                f"invalid environment variable key {key!r}: must match ^[A-Za-z_]\\w*$",
            )
        if not _is_value(value):
            raise ToolboxError(400, "INVALID_REQUEST", f"invalid value of the environment variable {key}")


def _is_value(value: Any) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def execute(
    children: Children, script: bytes, *, shell: str, cwd: str, env: dict[str, str], timeout_s: float | None
) -> tuple[int, bytes]:
    """Run `script` and return its exit code and all of its output, which is held in memory whatever its size.

    Ends when the script has ended *and* nobody holds its output open any more. After `timeout_s` the process
    group is killed, the output is thrown away and ToolboxError 408 raised; what called setsid lives on.
    """
    try:
        child, script_end, output_end = _start(children, [shell], cwd, env)
    except OSError as error:
        return -1, _go_wording(error, shell, cwd).encode("utf-8", "surrogateescape")
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with script_end, output_end:
        output = _feed_and_collect(script, script_end, output_end, deadline)
    if output is None or not child.ended.wait(_remaining(deadline)):
        child.kill_group()
        raise ToolboxError(408, "PROCESS_EXECUTION_TIMEOUT", "command execution timeout")
    return child.exit_code, bytes(output)


def _start(children: Children, argv: list[str], cwd: str, env: dict[str, str]) -> tuple[Child, Any, Any]:
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
    script: bytes, script_end: Any, output_end: Any, deadline: float | None
) -> bytearray | None:
    """Write the script and read the output until end-of-file; None when the deadline came first."""
    os.set_blocking(script_end.fileno(), False)
    unwritten = memoryview(script)
    output = bytearray()
    poller = select.poll()
    poller.register(output_end.fileno(), select.POLLIN)
    poller.register(script_end.fileno(), select.POLLOUT)
    while True:
        remaining = _remaining(deadline)
        events = poller.poll(None if remaining is None else remaining * 1000)
        if not events:
            return None
        for descriptor, _ in events:
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


def _feed(descriptor: int, unwritten: memoryview) -> memoryview:
    """Write what the pipe takes; a shell that closed its stdin needs no more."""
    try:
        return unwritten[os.write(descriptor, unwritten[:PIPE_BYTES]) :]
    except BlockingIOError:
        return unwritten
    except BrokenPipeError:
        return unwritten[:0]


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _go_wording(error: OSError, shell: str, cwd: str) -> str:
    """Word a failed start as the original does, whose result text callers may have learnt to recognise."""
    reason = (error.strerror or str(error)).lower()
    if not os.path.isdir(cwd) or error.filename == cwd:
        return f"chdir {cwd}: {reason}"
    return f"fork/exec {shell}: {reason}"
