"""The resident: a process that stays in the sandbox between calls, and synchronises working copies with S3.

The resident keeps connections, the last listing, the index and the credentials in memory. It answers calls over a Unix
socket that only this user can reach. If the resident is killed, no data is lost: the next call starts another resident,
which compares files and objects. New credentials need a new resident: they are not sent over the socket, because
another process of this user could listen there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

from langchain_daytona_ws._guest import dirs, sync
from langchain_daytona_ws._guest.locks import lock_within
from langchain_daytona_ws._guest.sync_answers import S3Error
from langchain_daytona_ws._guest.sync_copy import WorkingCopy
from langchain_daytona_ws._guest.sync_pull import Pull, TooLarge
from langchain_daytona_ws._guest.sync_push import Push, Unconditional, probe
from langchain_daytona_ws._guest.sync_s3 import LocalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Spec = dict[str, Any]
    Request = dict[str, Any]

PULL_LIMIT_S = 3600.0
PUSH_LIMIT_S = 900.0
END_WITHIN_S = 5.0
KILL_WITHIN_S = 2.0
CHECK_EVERY_S = 60.0
CLIENT_S = 30.0  # after connecting, a call must send its question within this time
START_WITHIN_S = 20.0
NAMES_MAX = 10
# After these errors the host sends new credentials, once.
OF_CREDENTIALS = ("expired", "denied", "signature")
PR_SET_DUMPABLE = 4
COMM = "workspace-sync"


def start(path: str, spec: Spec, secret: bytes, options: Request) -> None:
    """Start a resident, unless this call can use the running one, which may belong to another session.

    Args:
        path: The path of the resident's socket.
        spec: ``id`` of the resident, ``key`` (a digest of the access key's id) and ``expires_at`` of the credentials,
            and the specifications of the ``copies``.
        secret: The credentials, as JSON.
        options: The field ``sync`` of the call's request.

    Raises:
        SetupError: No resident can be started.
    """
    try:
        credentials = json.loads(secret)
    except ValueError:
        raise dirs.SetupError("sync_absent", "the credentials did not arrive") from None
    for copy in spec["copies"]:
        dirs.make_directory(copy["root"])
        dirs.make_directory(copy["state"])
        if os.stat(copy["root"]).st_dev != os.stat(os.path.dirname(copy["root"])).st_dev:
            raise dirs.SetupError("sync_mount_point", copy["root"])
    # Only one of several parallel calls starts a resident.
    starting = os.open(path + ".start", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if not lock_within(starting, START_WITHIN_S):
            raise dirs.SetupError("sync_busy", "")
        question = "ping %s %.1f %s" % (options["id"], options["min_life_s"], options["key"])
        running = sync.ask(path, question, sync.ALIVE_S)
        if running is None or running[0] != "ok":
            _start(path, spec, credentials, is_alive=running is not None)
    finally:
        os.close(starting)


def _start(path: str, spec: Spec, credentials: dict[str, str | None], *, is_alive: bool) -> None:
    lock = _replace(path, spec, is_alive=is_alive)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        new = "%s.%d" % (path, os.getpid())
        listener.bind(new)
        os.chmod(new, 0o600)
        listener.listen(64)
        os.rename(new, path)
        pid = os.fork()
    except OSError as error:
        raise dirs.SetupError("processes", error.strerror or str(error)) from None
    if pid == 0:
        _run(spec, credentials, listener, lock, path)
    listener.close()
    os.close(lock)
    os.waitpid(pid, 0)


def _replace(path: str, spec: Spec, *, is_alive: bool) -> int:
    """End the running resident, if there is one. Return the lock that only one resident can hold."""
    lock = os.open(spec["copies"][0]["state"] + "/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if lock_within(lock, 0):
        return lock
    if is_alive and sync.ask(path, "end", END_WITHIN_S) and lock_within(lock, KILL_WITHIN_S):
        return lock
    _kill(os.pread(lock, 20, 0))  # the resident hangs, or another process has taken its socket
    if lock_within(lock, KILL_WITHIN_S):
        return lock
    raise dirs.SetupError("sync_busy", "")


def _kill(pid: bytes) -> None:
    """Kill the process with this pid if it is a resident. Any process of this user may have written the pid."""
    try:
        with open("/proc/%d/comm" % int(pid), encoding="ascii", errors="replace") as file:
            name = file.read()
        if name == COMM + "\n":
            os.kill(int(pid), signal.SIGKILL)
    except (OSError, ValueError):
        pass  # the process has ended, or the pid is no number


def _run(
    spec: Spec, credentials: dict[str, str | None], listener: socket.socket, lock: int, path: str
) -> NoReturn:
    """Become the resident, in a new process for which no call waits."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        keep = (listener.fileno(), lock)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in keep:
                try:
                    os.close(int(name))
                except OSError:
                    pass  # the descriptor of this listing itself
        os.chdir("/")
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d" % os.getpid(), 0)
        with open("/proc/self/comm", "w") as file:
            file.write(COMM)
        _forbid_dumps()
        Resident(spec, credentials).serve(listener, path)
    finally:
        os._exit(0)


def _forbid_dumps() -> None:
    """Prevent other processes of this user from reading the memory of this process, which contains the credentials."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass  # a Python without ctypes: then processes of this user can read the credentials


class Resident:
    """Synchronises the working copies, and answers the calls. `start` documents ``spec``."""

    def __init__(self, spec: Spec, credentials: dict[str, str | None]) -> None:
        self._spec = spec
        self._sync_lock = threading.Lock()  # one pull or push at a time
        self._is_ending = False
        self._copies = [WorkingCopy(copy, credentials) for copy in spec["copies"]]
        self._pulls = [Pull(copy) for copy in self._copies]
        self._workspace = self._copies[0]  # the second copy, if there is one, contains the skills
        self._push = Push(self._workspace)
        self._pool = ThreadPoolExecutor(1)
        self._pull_failure: S3Error | None = None  # until a push has reported it
        # The last pull that has ended: when it began, its answer, and the failure to report with the next push.
        self._last_pull: tuple[float, tuple[str, object], S3Error | None] = (float("-inf"), ("", ""), None)
        self._last_push: tuple[float, S3Error | None] = (float("-inf"), None)  # when it began, its failure
        self._running: Pull | Push | None = None

    def serve(self, listener: socket.socket, path: str) -> None:
        """Answer calls until the socket is removed or replaced. The question ``end`` also ends this process."""
        inode = os.stat(path).st_ino
        listener.settimeout(CHECK_EVERY_S)
        while True:
            try:
                connection = listener.accept()[0]
            except socket.timeout:
                if _inode(path) == inode:
                    continue
                return
            connection.settimeout(CLIENT_S)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        """Answer one question. ``flush`` is a push whose report the next call gets."""
        with connection:
            try:
                request = connection.makefile("r", encoding="ascii").readline().split()
                if request[:1] == ["end"]:
                    self._finish(connection)
                elif request[:1] == ["progress"]:
                    running = self._running
                    _send(connection, "ok", [running.done, running.total] if running else [0, 0])
                elif request[1:2] != [self._spec["id"]] or not self._has_state():
                    _send(connection, "absent", "")
                elif request[0] == "ping":
                    has_key = request[3] in ("any", self._spec["key"])
                    is_usable = self._credentials_last(float(request[2])) and has_key
                    _send(connection, "ok" if is_usable else "credentials", "")
                elif request[0] == "pull":
                    self._answer_pull(connection, request[2] == "fresh", float(request[3]), float(request[4]))
                elif request[0] in ("push", "flush"):
                    self._answer_push(connection, request[0] == "push", float(request[2]))
            except (OSError, ValueError, IndexError):
                pass  # the call has ended, or it comes from another program

    def _finish(self, connection: socket.socket) -> None:
        """Stop a running synchronisation, which the next resident continues, and end this process."""
        self._is_ending = True
        for copy in self._copies:
            copy.bucket.begin(0.0)  # a deadline in the past stops all requests
        with self._sync_lock:
            self._save()
            _send(connection, "ok", "")
            os._exit(0)

    def _credentials_last(self, min_life_s: float) -> bool:
        expires_at = self._spec["expires_at"]
        return expires_at is None or bool(expires_at - time.time() >= min_life_s)

    def _has_state(self) -> bool:
        """Return False if a state directory is missing: the agent may delete it."""
        return all(os.path.isdir(copy.spec["state"] + "/new") for copy in self._copies)

    def _answer_pull(
        self, connection: socket.socket, is_fresh: bool, min_life_s: float, asked: float
    ) -> None:
        """Pull. If a pull has begun since the call ``asked`` first (monotonic clock), answer with its result: a call
        whose requests are shorter than a pull would never get the result of its own pull.

        If ``is_fresh``, this call has brought the credentials: do not ask for new credentials again.
        """
        if not is_fresh and not self._credentials_last(min_life_s):
            _send(connection, "credentials", "")
            return
        with self._sync_lock:
            if self._last_pull[0] < asked:
                began = time.monotonic()
                answer = self._pull(is_fresh=is_fresh)
                self._last_pull = (began, answer, self._pull_failure)
            _, (code, detail), self._pull_failure = self._last_pull
            if self._is_ending:
                code, detail = "absent", ""
            _send(connection, code, detail)
            self._save()

    def _pull(self, *, is_fresh: bool) -> tuple[str, object]:
        began = time.monotonic()
        self._pull_failure = None
        try:
            self._running = self._pulls[0]
            self._pull_all(began + PULL_LIMIT_S)
        except Unconditional:
            return "unconditional", ""
        except TooLarge as error:
            return "too_large", [error.size, error.limit]
        except (S3Error, LocalError, OSError) as error:
            failure = _failure(error)
            if failure.code in OF_CREDENTIALS and not is_fresh:
                return failure.code, failure.detail
            if not all(copy.index.is_complete for copy in self._copies):
                return failure.code, failure.detail
            # An earlier pull has succeeded: the command uses its files, and the result reports the failure.
            self._pull_failure = failure
        finally:
            self._running = None
            self._workspace.report.seconds += time.monotonic() - began
        return "ok", ""

    def _pull_all(self, deadline: float) -> None:
        """Pull the workspace and the skills at the same time. Wait for both, then raise the first error."""

        def pull(copy: WorkingCopy, pull: Pull) -> None:
            copy.bucket.begin(deadline)
            probe(copy)
            pull.run()

        pulls = [self._pool.submit(pull, *pair) for pair in zip(self._copies[1:], self._pulls[1:])]
        try:
            pull(self._copies[0], self._pulls[0])
        finally:
            wait(pulls)
        for other in pulls:
            other.result()

    def _answer_push(self, connection: socket.socket, wants_report: bool, asked: float) -> None:
        """Push, unless a push has begun since the call ``asked`` first: then answer with its result."""
        with self._sync_lock:
            if self._last_push[0] < asked:
                self._last_push = (time.monotonic(), self._run_push())
            failure = self._last_push[1]
            try:
                if self._is_ending:
                    _send(connection, "absent", "")
                elif wants_report:
                    _send(connection, "ok", self._report(failure))
                    self._workspace.forget_report()
                    self._pull_failure = (
                        None  # a later push, such as that of `close`, does not report it again
                    )
                else:
                    # The next call gets the report, and pushes the remaining files.
                    _send(connection, "failed" if failure or self._push.unpushed else "ok", "")
            finally:
                self._save()

    def _report(self, failure: S3Error | None) -> dict[str, object]:
        report = {**self._workspace.report.values(), **self._facts()}
        names = sorted(self._push.unpushed)
        # -1: the push has failed, and the affected files are unknown.
        report["unpushed"], report["unpushed_count"] = names[:NAMES_MAX], len(names) or -bool(failure)
        failure = failure or self._pull_failure
        if failure is not None:
            report["failure"], report["detail"] = failure.code, failure.detail
        return report

    def _run_push(self) -> S3Error | None:
        began = time.monotonic()
        self._workspace.bucket.begin(began + PUSH_LIMIT_S)
        self._running = self._push
        try:
            probe(self._workspace)
            self._push.run()
        except Unconditional:
            return S3Error("unconditional", "")
        except (S3Error, LocalError, OSError) as error:
            return _failure(error)
        finally:
            self._running = None
            self._workspace.report.seconds += time.monotonic() - began
        return None

    def _facts(self) -> dict[str, object]:
        disk = os.statvfs(self._workspace.tree.root)
        return {
            "round_trip_s": float(self._workspace.bucket.round_trip_s),
            "free_bytes": disk.f_bavail * disk.f_frsize,
            "conditional_delete": self._workspace.index.honours_delete is True,
        }

    def _save(self) -> None:
        for copy in self._copies:
            try:
                copy.index.save()
            except OSError:
                pass  # for example a full disk: without the index the next resident only needs more time


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _failure(error: Exception) -> S3Error:
    if isinstance(error, S3Error):
        return error
    import errno

    code = "disk_full" if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) else "local"
    # Leave out the path: it contains the workspace root.
    return S3Error(code, str(getattr(error, "strerror", None) or error.args[-1]))


def _send(connection: socket.socket, code: str, value: object) -> None:
    connection.sendall(("%s %s\n" % (code, json.dumps(value))).encode("ascii"))
