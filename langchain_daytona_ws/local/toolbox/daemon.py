"""Answers the server's requests in the sandbox."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from . import files, wire
from .children import Children
from .errors import ToolboxError, bad_request, reason
from .execute import check_env, execute, find_shell
from .sessions import Command, Sessions

if TYPE_CHECKING:
    # For type checkers only: older Pythons cannot evaluate these types.
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    Request = dict[str, Any]

CONNECT_TIMEOUT_S = 5.0  # to a server in the sandbox, for previews


class Daemon:
    """Answers requests of the server. If `shell` is None, `execute.find_shell` chooses the shell that runs scripts."""

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
            "info": lambda request, _: files.info(request["path"], request["newer"]),
            "list": self._list,
            "folder": lambda request, _: files.folder(request["path"], request["mode"]),
            "delete": lambda request, _: files.delete(request["path"], request["recursive"]),
            "move": lambda request, _: files.move(request["source"], request["destination"]),
            "find": lambda request, _: files.find(request["path"], request["pattern"]),
            "search": lambda request, _: files.search(request["path"], request["pattern"]),
            "replace": lambda request, _: files.replace(request["files"], request["pattern"], request["new"]),
            "permissions": self._permissions,
        }

    def answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = wire.read_header(connection)
                self._answer(request, connection)
                # Closing with unread bytes would reset the connection, and the answer could be lost.
                while connection.recv(wire.CHUNK_BYTES):
                    pass
            except (OSError, EOFError, ValueError, RecursionError):
                return  # the server has ended, or its request is malformed

    def _answer(self, request: Request, connection: socket.socket) -> None:
        content: Iterable[bytes] = ()
        header: dict[str, Any]
        try:
            operation = request["op"]
            if operation == "execute":
                exit_code, output = self._execute(request, connection)
                connection.sendall(wire.pack({"exitCode": exit_code}) + output)
                return
            if operation == "read":
                header, content = self._read(request)
            elif operation == "connect":
                header, content = {}, _relay(int(request["port"]), connection)
            else:
                value = self._operations[operation](request, connection)
                header = {} if value is None else {"value": value}
        except ToolboxError as error:
            header = {"status": error.status, "code": error.code, "message": error.message}
        except OSError as error:
            failed = bad_request(error, str(error.filename or request.get("path", "")))
            header = {"status": failed.status, "code": failed.code, "message": failed.message}
        except (ValueError, TypeError, OverflowError) as error:
            # Invalid values: a NUL in a path, a number instead of a name.
            header = {"status": 400, "code": "", "message": str(error)}
        except Exception as error:  # noqa: BLE001 - a bug must not end the daemon
            header = {"status": 500, "code": "", "message": repr(error)}
        connection.sendall(wire.pack(header))
        for chunk in content:  # an error here ends the connection: the header is sent
            connection.sendall(chunk)

    def _execute(self, request: Request, connection: socket.socket) -> Any:
        script = bytes(wire.read_rest(connection))
        env = {**self._env, **check_env(request.get("env") or {})}
        return execute(
            self.children,
            script,
            shell=find_shell(self.children, self._shell, self._env),
            cwd=request.get("cwd") or None,
            env=env,
            timeout_s=request.get("timeout_s"),
        )

    def _update_env(self, request: Request, _: socket.socket) -> dict[str, str]:
        added = check_env(request["set"] or {})
        for key, value in added.items():
            if "\0" in value:
                raise ToolboxError(400, f"invalid value of the environment variable {key}")
        self._env = {**self._env, **added}
        for key in request["unset"] or ():
            self._env.pop(key, None)
        return {}

    def _session_create(self, request: Request, _: socket.socket) -> None:
        shell = find_shell(self.children, self._shell, self._env)
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
        depth = int(request["depth"] or 1) if request["newer"] else 1
        return files.listing(request["path"] or ".", depth, request["newer"])

    def _permissions(self, request: Request, _: socket.socket) -> None:
        files.permissions(request["path"], request["mode"], request["owner"], request["group"])

    def _read(self, request: Request) -> tuple[dict[str, Any], Iterable[bytes]]:
        path = request["path"]
        try:
            # Non-blocking, because opening a FIFO would wait for a writer.
            file = open(path, "rb", opener=_open_nonblocking)  # noqa: SIM115 - closed below
        except OSError as error:
            raise _read_error(error, path) from error
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            file.close()
            raise ToolboxError(400, f"{path}: is not a regular file", "INVALID_FILE_PATH")
        os.set_blocking(file.fileno(), True)
        return {"size": status.st_size}, _chunks(file)

    def _write(self, request: Request, connection: socket.socket) -> int:
        """Truncate the file and write it in place, as the original does: readers may see a partial file."""
        path, size = request["path"], 0
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        with open(path, "wb", opener=_open_nonblocking) as file:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise ToolboxError(400, f"{path}: is a FIFO", "INVALID_FILE_PATH")
            os.set_blocking(file.fileno(), True)
            while True:
                chunk = connection.recv(wire.CHUNK_BYTES)
                if not chunk:
                    return size
                size += file.write(chunk)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(wire.CHUNK_BYTES):
            yield chunk


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _read_error(error: OSError, path: str) -> ToolboxError:
    """Return the error of a download. Unexpected errors, such as ENOTDIR, are reported as 500, as in the original."""
    message = f"{path}: {reason(error)}"
    if error.errno == errno.ENOENT:
        return ToolboxError(404, message, "FILE_NOT_FOUND")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ToolboxError(403, message, "FILE_ACCESS_DENIED")
    if error.errno in (errno.EINVAL, errno.EISDIR):
        return ToolboxError(400, message, "INVALID_FILE_PATH")
    return ToolboxError(500, message, "FILE_READ_FAILED")


def _decoded(logs: dict[str, bytes]) -> dict[str, str]:
    stdout, stderr = (logs[name].decode("utf-8", "replace") for name in ("stdout", "stderr"))
    return {"stdout": stdout, "stderr": stderr, "output": stdout + stderr}


def _relay(port: int, connection: socket.socket) -> Iterator[bytes]:
    """Send the rest of `connection`'s data to the server on a port of localhost; return the server's answer.

    Raises:
        ToolboxError: no server accepts the connection.
    """
    request = bytes(wire.read_rest(connection))
    try:
        upstream = socket.create_connection(("localhost", port), timeout=CONNECT_TIMEOUT_S)
    except OSError as error:
        raise ToolboxError(502, reason(error)) from error
    upstream.settimeout(None)
    return _relayed(request, upstream)


def _relayed(request: bytes, upstream: socket.socket) -> Iterator[bytes]:
    with upstream:
        upstream.sendall(request)
        while chunk := upstream.recv(wire.CHUNK_BYTES):
            yield chunk
