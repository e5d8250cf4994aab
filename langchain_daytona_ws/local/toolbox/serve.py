"""The daemon's loop: takes connections handed in by the server, answers each in a thread, reaps what ends."""

from __future__ import annotations

import array
import ctypes
import os
import select
import signal
import socket
import stat
import sys
import threading
from typing import Any, Callable, Dict, NoReturn, Optional

from . import files, wire
from .children import Children
from .errors import ToolboxError, from_os_error
from .execute import check_env_keys, execute, find_shell
from .sessions import Sessions, describe, kill_members

Header = Dict[str, Any]


class Daemon:
    """Answers requests. `shell` forces the shell that runs scripts, by name or path."""

    def __init__(self, home: str, shell: Optional[str]) -> None:
        self.children = Children()
        self.home = home
        self._env: Dict[str, str] = dict(os.environ)
        self._shell = shell
        self._sessions = Sessions(self.children, os.path.join(home, ".daytona", "sessions"))
        self._operations: Dict[str, Callable[[Header, socket.socket], Header]] = {
            "home": lambda *_: {"value": self.home},
            "env": self._update_env,
            "session.create": self._session_create,
            "session.list": lambda request, _: {"value": self._sessions.describe_all()},
            "session.get": lambda request, _: {
                "value": self._sessions.describe(self._sessions.get(request["session"]))
            },
            "session.delete": self._session_delete,
            "session.execute": self._session_execute,
            "session.command": lambda request, _: {
                "value": describe(self._sessions.command(request["session"], request["command"]))
            },
            "session.logs": self._session_logs,
            "write": self._write,
            "info": lambda request, _: {"value": files.info(self._path(request["path"]))},
            "list": lambda request, _: {
                "value": files.listing(self._path(request["path"] or ""), int(request["depth"] or 1))
            },
            "folder": lambda request, _: self._done(files.folder(self._path(request["path"]), request["mode"])),
            "delete": lambda request, _: self._done(files.delete(self._path(request["path"]), request["recursive"])),
            "move": lambda request, _: self._done(
                files.move(self._path(request["source"]), self._path(request["destination"]))
            ),
            "find": lambda request, _: {"value": files.find(self._path(request["path"]), request["pattern"])},
            "search": lambda request, _: {"value": files.search(self._path(request["path"]), request["pattern"])},
            "replace": lambda request, _: {
                "value": files.replace([self._path(p) for p in request["files"]], request["pattern"], request["new"])
            },
            "permissions": lambda request, _: self._done(
                files.permissions(
                    self._path(request["path"]), request.get("mode"), request.get("owner"), request.get("group")
                )
            ),
        }

    def answer(self, connection: socket.socket) -> None:
        """Serve one connection from its header to its end."""
        with connection:
            try:
                request = wire.read_header(connection)
                self._answer(request, connection)
                # Closing over unread bytes would reset the connection and could lose the answer just sent.
                while connection.recv(wire.CHUNK_BYTES):
                    pass
            except (OSError, EOFError, ValueError):
                return  # the server is gone or speaks nonsense: there is nobody to tell

    def _answer(self, request: Header, connection: socket.socket) -> None:
        try:
            operation = request["op"]
            if operation == "execute":
                exit_code, output = self._execute(request, connection)
                connection.sendall(wire.pack({"exitCode": exit_code}) + output)
                return
            if operation == "read":
                self._read(request, connection)
                return
            header = self._operations[operation](request, connection)
        except ToolboxError as error:
            header = {"status": error.status, "code": error.code, "message": error.message}
        except OSError as error:
            refusal = from_os_error(error, str(error.filename or request.get("path", "")))
            header = {"status": refusal.status, "code": refusal.code, "message": refusal.message}
        except Exception as error:  # a bug here must not cost the sandbox its daemon
            header = {"status": 500, "code": "INTERNAL_ERROR", "message": repr(error)}
        connection.sendall(wire.pack(header))

    def _execute(self, request: Header, connection: socket.socket) -> Any:
        extra = request.get("env") or {}
        check_env_keys(extra)
        env = {**self._env, **extra}
        return execute(
            self.children,
            bytes(wire.read_rest(connection)),
            shell=find_shell(self._shell, env),
            cwd=self._path(request.get("cwd") or ""),
            env=env,
            timeout_s=request.get("timeout_s"),
        )

    def _update_env(self, request: Header, _: socket.socket) -> Header:
        added = request["set"] or {}
        check_env_keys(added)
        self._env = {**self._env, **added}
        for key in request["unset"] or ():
            self._env.pop(key, None)
        return {}

    def _session_create(self, request: Header, _: socket.socket) -> Header:
        shell = find_shell(self._shell, self._env)
        self._sessions.create(request["session"], shell=shell, cwd=self.home, env=self._env)
        return {}

    def _session_delete(self, request: Header, _: socket.socket) -> Header:
        self._sessions.delete(request["session"])
        return {}

    def _session_execute(self, request: Header, _: socket.socket) -> Header:
        session = self._sessions.get(request["session"])
        command = session.submit(request["text"])
        if request["run_async"]:
            return {"value": {"cmdId": command.id}}
        code = session.wait(command)
        return {"value": {"cmdId": command.id, "exitCode": code, **_decoded(command.logs())}}

    def _session_logs(self, request: Header, _: socket.socket) -> Header:
        return {"value": _decoded(self._sessions.command(request["session"], request["command"]).logs())}

    def _read(self, request: Header, connection: socket.socket) -> None:
        with open(self._path(request["path"]), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise ToolboxError(400, "INVALID_FILE_PATH", f"{request['path']}: is a directory")
            connection.sendall(wire.pack({"size": status.st_size}))
            while True:
                chunk = file.read(wire.CHUNK_BYTES)
                if not chunk:
                    return
                connection.sendall(chunk)

    def _write(self, request: Header, connection: socket.socket) -> Header:
        """Write in place (truncate, not rename), as the original does: a reader can see half a file."""
        path = self._path(request["path"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            while True:
                chunk = connection.recv(wire.CHUNK_BYTES)
                if not chunk:
                    return {}
                file.write(chunk)

    def _path(self, path: str) -> str:
        """Resolve a relative path against the daemon's own directory."""
        return os.path.normpath(os.path.join(self.home, path)) if path else self.home

    @staticmethod
    def _done(_: None) -> Header:
        return {}


def _decoded(logs: Dict[str, bytes]) -> Dict[str, str]:
    stdout, stderr = (logs[name].decode("utf-8", "replace") for name in ("stdout", "stderr"))
    return {"stdout": stdout, "stderr": stderr, "output": stdout + stderr}


def main() -> None:
    """Serve until the control socket (descriptor given as the first argument) closes, then end and so end the sandbox.

    Nothing else needs to be told that the server died: the kernel closes the socket, and with process 1 gone it kills
    every other process of the sandbox.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    home, shell = sys.argv[2], sys.argv[3] or None
    os.chdir(home)
    if os.getpid() != 1:
        _adopt_orphans()
    daemon = Daemon(home, shell)
    threading.stack_size(512 * 1024)

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    # The handler itself does nothing; what it writes to the pipe wakes the loop, which then reaps.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    control.send(b"ready")
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == wake_read:
                os.read(wake_read, 4096)
                daemon.children.reap()
                continue
            connection = _receive_connection(control)
            if connection is None:
                _end()
            threading.Thread(target=daemon.answer, args=(connection,), daemon=True).start()


def _end() -> NoReturn:
    """End, taking everything along. As process 1 that is the kernel's work; elsewhere the descendants are hunted."""
    if os.getpid() != 1:
        kill_members(os.getpid(), spare=os.getpid())
    os._exit(0)


def _adopt_orphans() -> None:
    """Make orphans below this process its children, as process 1 has them anyway."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _receive_connection(control: socket.socket) -> Optional[socket.socket]:
    """Take the next connection off the control socket; None when the server has closed it."""
    descriptors = array.array("i")
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_LEN(descriptors.itemsize), socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    for _, _, payload in ancillary:
        descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return socket.socket(fileno=descriptors[0])
