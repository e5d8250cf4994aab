"""Answers the server's requests inside the sandbox."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from . import files, wire
from .children import Children
from .errors import ToolboxError, from_os_error
from .execute import check_env, execute, find_shell
from .sessions import Command, Sessions

if TYPE_CHECKING:
    # For readers and checkers only: older Pythons cannot evaluate them.
    from collections.abc import Callable

    Request = dict[str, Any]


class Daemon:
    """Answers requests. `shell` forces the shell that runs scripts, by name or path."""

    def __init__(self, home: str, shell: str | None) -> None:
        self.children = Children()
        self.home = home
        self._env: dict[str, str] = dict(os.environ)
        self._shell = shell
        self._sessions = Sessions(self.children, os.path.join(home, ".daytona", "sessions"))
        self._operations: dict[str, Callable[[Request, socket.socket], Any]] = {
            "home": lambda *_: self.home,
            "env": self._update_env,
            "session.create": self._session_create,
            "session.list": lambda *_: self._sessions.describe_all(),
            "session.get": lambda request, _: self._sessions.get(request["session"]).describe(),
            "session.delete": lambda request, _: self._sessions.delete(request["session"]),
            "session.execute": self._session_execute,
            "session.command": lambda request, _: self._command(request).describe(),
            "session.logs": lambda request, _: _decoded(self._command(request).logs()),
            "write": self._write,
            "info": lambda request, _: files.info(self._path(request["path"])),
            "list": self._list,
            "folder": lambda request, _: files.folder(self._path(request["path"]), request["mode"]),
            "delete": lambda request, _: files.delete(self._path(request["path"]), request["recursive"]),
            "move": self._move,
            "find": lambda request, _: files.find(self._path(request["path"]), request["pattern"]),
            "search": lambda request, _: files.search(self._path(request["path"]), request["pattern"]),
            "replace": self._replace,
            "permissions": self._permissions,
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
            except (OSError, EOFError, ValueError, RecursionError):
                return  # the server is gone or speaks nonsense: there is nobody to tell

    def _answer(self, request: Request, connection: socket.socket) -> None:
        try:
            operation = request["op"]
            if operation == "execute":
                exit_code, output = self._execute(request, connection)
                connection.sendall(wire.pack({"exitCode": exit_code}) + output)
                return
            if operation == "read":
                self._read(request, connection)
                return
            value = self._operations[operation](request, connection)
            header: dict[str, Any] = {} if value is None else {"value": value}
        except ToolboxError as error:
            header = {"status": error.status, "code": error.code, "message": error.message}
        except OSError as error:
            refusal = from_os_error(error, str(error.filename or request.get("path", "")))
            header = {"status": refusal.status, "code": refusal.code, "message": refusal.message}
        except (ValueError, TypeError, OverflowError) as error:
            # Values of the wrong kind: a NUL in a path, a number where a name belongs.
            header = {"status": 400, "code": "INVALID_REQUEST", "message": str(error)}
        except Exception as error:  # noqa: BLE001 - a bug here must not cost the sandbox its daemon
            header = {"status": 500, "code": "INTERNAL_ERROR", "message": repr(error)}
        connection.sendall(wire.pack(header))

    def _execute(self, request: Request, connection: socket.socket) -> Any:
        extra = request.get("env") or {}
        check_env(extra)
        env = {**self._env, **extra}
        return execute(
            self.children,
            bytes(wire.read_rest(connection)),
            shell=find_shell(self._shell, env),
            cwd=self._path(request.get("cwd") or ""),
            env=env,
            timeout_s=request.get("timeout_s"),
        )

    def _update_env(self, request: Request, _: socket.socket) -> dict[str, str]:
        added = request["set"] or {}
        check_env(added)
        self._env = {**self._env, **added}
        for key in request["unset"] or ():
            self._env.pop(key, None)
        return {}

    def _session_create(self, request: Request, _: socket.socket) -> None:
        shell = find_shell(self._shell, self._env)
        self._sessions.create(request["session"], shell=shell, cwd=self.home, env=self._env)

    def _session_execute(self, request: Request, _: socket.socket) -> dict[str, Any]:
        session = self._sessions.get(request["session"])
        command = session.submit(request["text"])
        if request["run_async"]:
            return {"cmdId": command.id}
        code = session.wait(command)
        return {"cmdId": command.id, "exitCode": code, **_decoded(command.logs())}

    def _command(self, request: Request) -> Command:
        return self._sessions.command(request["session"], request["command"])

    def _list(self, request: Request, _: socket.socket) -> list[dict[str, Any]]:
        return files.listing(self._path(request["path"] or ""), int(request["depth"] or 1))

    def _move(self, request: Request, _: socket.socket) -> None:
        files.move(self._path(request["source"]), self._path(request["destination"]))

    def _replace(self, request: Request, _: socket.socket) -> list[dict[str, Any]]:
        pattern, new = request["pattern"], request["new"]
        if not isinstance(pattern, str) or not isinstance(new, str):
            raise ToolboxError(400, "INVALID_REQUEST", "pattern and newValue are text")
        return files.replace([self._path(path) for path in request["files"]], pattern, new)

    def _permissions(self, request: Request, _: socket.socket) -> None:
        path = self._path(request["path"])
        files.permissions(path, request["mode"], request["owner"], request["group"])

    def _read(self, request: Request, connection: socket.socket) -> None:
        # A FIFO would otherwise wait for its other end, and the request with it.
        with open(self._path(request["path"]), "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ToolboxError(400, "INVALID_FILE_PATH", f"{request['path']}: is not a regular file")
            os.set_blocking(file.fileno(), True)
            connection.sendall(wire.pack({"size": status.st_size}))
            while True:
                chunk = file.read(wire.CHUNK_BYTES)
                if not chunk:
                    return
                connection.sendall(chunk)

    def _write(self, request: Request, connection: socket.socket) -> None:
        """Write in place (truncate, not rename), as the original does: a reader can see half a file."""
        path = self._path(request["path"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb", opener=_open_at_once) as file:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise ToolboxError(400, "INVALID_FILE_PATH", f"{request['path']}: is a FIFO")
            os.set_blocking(file.fileno(), True)
            while True:
                chunk = connection.recv(wire.CHUNK_BYTES)
                if not chunk:
                    return
                file.write(chunk)

    def _path(self, path: str) -> str:
        """Resolve a relative path against the daemon's own directory."""
        if not isinstance(path, str):
            raise ToolboxError(400, "INVALID_REQUEST", f"a path is text, not {path!r}")
        return os.path.normpath(os.path.join(self.home, path)) if path else self.home


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _decoded(logs: dict[str, bytes]) -> dict[str, str]:
    stdout, stderr = (logs[name].decode("utf-8", "replace") for name in ("stdout", "stderr"))
    return {"stdout": stdout, "stderr": stderr, "output": stdout + stderr}
