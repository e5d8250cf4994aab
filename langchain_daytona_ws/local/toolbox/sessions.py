"""Sessions: a persistent shell that runs one command after another, each with its own log files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from typing import Any

from .children import Child, Children
from .errors import ToolboxError

POLL_S = 0.01
KILL_S = 5


class Command:
    """A command of a session, with its log folder."""

    def __init__(self, text: str, folder: str) -> None:
        self.id = str(uuid.uuid4())
        self.text = text
        self.folder = os.path.join(folder, self.id)

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the command runs, and always if it ends the session's shell (`exit 3`)."""
        content = _read(os.path.join(self.folder, "exit_code")).strip()
        return int(content) if content else None

    def describe(self) -> dict[str, Any]:
        code = self.exit_code
        ended = {} if code is None else {"exitCode": code}
        return {"id": self.id, "command": self.text, **ended}

    def logs(self) -> dict[str, bytes]:
        return {name: _read(os.path.join(self.folder, name)) for name in ("stdout", "stderr")}


class Session:
    """A shell that reads commands from a pipe."""

    def __init__(self, identifier: str, shell: Child, stdin: int, folder: str) -> None:
        self.id = identifier
        self.shell = shell
        self.folder = folder
        self.commands: dict[str, Command] = {}
        self.deleted = threading.Event()
        self._stdin = stdin
        self._write_lock = threading.Lock()

    def describe(self) -> dict[str, Any]:
        return {
            "sessionId": self.id,
            "commands": [command.describe() for command in list(self.commands.values())],
        }

    def submit(self, text: str) -> Command:
        """Write the command to the shell's pipe, and return without waiting for its end. If the pipe is full, wait."""
        command = Command(text, self.folder)
        os.makedirs(command.folder)
        self.commands[command.id] = command
        folder = command.folder
        # Braces, not parentheses: `cd` and variables must persist in the session. The log folder is not quoted: it has
        # spaces only if the server's own folder has. After `exit` in the command, the last line is not reached.
        script = (
            f"{{\n{text}\n}} </dev/null >{folder}/stdout 2>{folder}/stderr\n"
            f"echo $? >{folder}/.exit_code && mv {folder}/.exit_code {folder}/exit_code\n"
        )
        with self._write_lock:
            try:
                _write_all(self._stdin, script.encode("utf-8", "surrogateescape"))
            except OSError as error:
                raise ToolboxError(410, f"session {self.id} has ended", "SESSION_ENDED") from error
        return command

    def wait(self, command: Command) -> int:
        """Wait for the exit code, and return it.

        If the command has ended the shell, there is no exit code: wait until the session is deleted, then raise
        ToolboxError 410, as the original does.
        """
        while True:
            code = command.exit_code
            if code is not None:
                return code
            if self.deleted.wait(POLL_S):
                raise ToolboxError(410, f"session {self.id} was deleted", "SESSION_ENDED")

    def delete(self) -> None:
        """Kill all processes of the session, including those started with nohup, and delete its logs."""
        self.deleted.set()
        kill_members(self.shell.pid)
        os.close(self._stdin)
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The sessions of this sandbox, by the client's identifiers."""

    def __init__(self, children: Children, folder: str) -> None:
        self._children = children
        self._folder = folder
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def create(self, identifier: str, *, shell: str, cwd: str, env: dict[str, str]) -> Session:
        with self._lock:
            if not identifier:
                raise ToolboxError(400, "session ID is required")
            if identifier in self._sessions:
                raise ToolboxError(409, "session already exists")
            stdin_read, stdin_write = os.pipe()
            try:
                child = self._children.spawn(
                    [shell],
                    cwd=cwd,
                    env=env,
                    stdin=stdin_read,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except BaseException:
                os.close(stdin_write)
                raise
            finally:
                os.close(stdin_read)
            session = Session(identifier, child, stdin_write, os.path.join(self._folder, str(uuid.uuid4())))
            self._sessions[identifier] = session
            return session

    def get(self, identifier: str) -> Session:
        session = self._sessions.get(identifier)
        if session is None:
            raise ToolboxError(404, "session not found", "PROCESS_NOT_FOUND")
        return session

    def command(self, identifier: str, command_id: str) -> Command:
        command = self.get(identifier).commands.get(command_id)
        if command is None:
            raise ToolboxError(404, "command not found", "PROCESS_NOT_FOUND")
        return command

    def delete(self, identifier: str) -> None:
        with self._lock:
            session = self.get(identifier)
            del self._sessions[identifier]
        session.delete()

    def describe_all(self) -> list[dict[str, Any]]:
        return [session.describe() for session in list(self._sessions.values())]


def kill_members(leader: int, *, exclude: int | None = None) -> None:
    """Kill all processes in the process session (setsid) of `leader`, and their descendants whose parents live.

    Repeat this while forks create new processes. Stop after KILL_S seconds. The pid `exclude` is spared.
    """
    deadline = time.monotonic() + KILL_S
    while time.monotonic() < deadline:
        alive = _members(leader) - {exclude}
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _members(leader: int) -> set[int]:
    """Return the pids of the processes of `kill_members` that are alive."""
    parents: dict[int, int] = {}
    members: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        # "pid (name) state ppid pgrp session …"; the name may contain spaces and brackets.
        fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
        if len(fields) < 4 or fields[0] == b"Z":
            continue
        parents[int(name)] = int(fields[1])
        if int(fields[3]) == leader or int(name) == leader:
            members.add(int(name))
    grown = True
    while grown:
        found = {pid for pid, parent in parents.items() if parent in members} - members
        members |= found
        grown = bool(found)
    return members


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    unwritten = memoryview(data)
    while unwritten:
        unwritten = unwritten[os.write(descriptor, unwritten) :]
