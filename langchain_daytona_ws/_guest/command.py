"""Run one command at most once, within a time limit; bound its output, and kill all its processes at the time-out."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # ``signal`` itself costs 4 ms of enum classes
import fcntl
import posix
import time

from langchain_daytona_ws._guest import dirs, processes, record, release, terminal
from langchain_daytona_ws._guest.output import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping

    Request = dict[str, Any]
    Answer = dict[str, Any]

TERM_GRACE_S = 1.0
KILL_WITHIN_S = 5.0
# The largest pipe that an unprivileged user can make; an ended command has left at most this much output in it.
PIPE_MAX_BYTES = 1024 * 1024
# execve refuses a single argument of 128 KiB; longer commands go through a file descriptor.
ARGUMENT_MAX_BYTES = 100 * 1024
CANCEL = signal.SIGUSR2
# Signals that the command gets with their default action. This program ignores or handles some of them, and Daytona's
# daemon may have been started with others ignored.
DEFAULT_SIGNALS = (
    signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ, CANCEL,
)  # fmt: skip
# bash sources a file with this text before the command. When bash exits, the trap overwrites the file with the exit
# codes of bash and of its last pipeline. Settings of the command (set -e, -u, -x, -C, IFS) must not make the trap fail
# or print.
EXIT_TRAP = b'trap \'{ builtin printf "%%s " "$?" "${PIPESTATUS[@]}" >|%s; } 2>/dev/null || :\' EXIT; unset BASH_ENV\n'
PIPELINE_MAX = 32  # exit codes of longer pipelines are not returned
DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main(request: Request, storage: Any, job_run: Any) -> Answer:
    """Run the command of a call and return the answer; in mode ``kill`` cancel the call with the same key.

    Args:
        request: The command and its options. With a field ``job``, the command can become a background job.
        storage: The module that enters and leaves the workspace: ``dirs``, ``mount`` or ``sync``.
        job_run: The module ``job_run`` if the request has a field ``job``, otherwise None.
    """
    call = record.Record(dirs.state_directory(), request["key"], request.get("keep", False))
    if request["mode"] == "kill":
        return _cancel(call, request["key"])

    def work() -> Answer:
        entered = storage.enter(request)
        run = Run(call, request)
        answer = _supervise(run, request, _bash(), job_run)
        return {**answer, **entered, **storage.leave(request, run.timed_out)}

    def clear() -> None:
        processes.kill_tree(-1, request["key"], time.monotonic() + KILL_WITHIN_S)

    return record.run_once(call, request["timeout_s"] + TERM_GRACE_S + KILL_WITHIN_S + 5, work, clear)


def _cancel(call: record.Record, key: str) -> Answer:
    until = time.monotonic() + TERM_GRACE_S + KILL_WITHIN_S
    if not call.lock(0):
        try:
            pid = int(call.read()[1])
            if pid > 1:  # any process of this user can write to the record
                posix.kill(pid, CANCEL)
        except (OSError, ValueError, OverflowError):
            pass  # the command has not started yet, or is ending
        if not call.lock(until):
            processes.kill_tree(-1, key, time.monotonic() + KILL_WITHIN_S)
            return {"outcome": "killed"}
    state = call.read()[0]
    if state == record.NEW:
        # The request that starts the command may still arrive. This record prevents it from running the command.
        call.write(record.CANCELLED)
    elif state == record.STARTED:
        processes.kill_tree(-1, key, time.monotonic() + KILL_WITHIN_S)
    return {"outcome": "finished" if state == record.DONE else "cancelled"}


def _supervise(run: Run, request: Request, bash: bytes, job_run: Any) -> Answer:
    command = request["command"].encode()
    protect()
    problem = _syntax_error(bash, command)
    if problem is not None:
        run.output.feed(problem)
        run.exit_code = 2
        return {**run.result(), "syntax_error": True}
    if job_run is not None and request["job"]["at_once"]:
        return dict(job_run.begin(run, request, lambda: run.start(bash, command)))
    run.start(bash, command)
    run.watch(None if job_run is None else lambda: job_run.promote(run, request))
    return run.result()


def _bash() -> bytes:
    for directory in posix.environ.get(b"PATH", DEFAULT_PATH).split(b":"):
        path = directory + b"/bash"
        if posix.access(path, posix.X_OK) and not posix.access(path + b"/", posix.F_OK):  # not a directory
            return path
    raise dirs.SetupError("bash", "no bash in PATH")


def protect() -> None:
    """Protect this process from ``pkill python3``, which the agent may run to kill its own programs."""
    try:
        with open("/proc/self/comm", "w") as file:
            file.write("workspace-call")
    except OSError:
        pass
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _syntax_error(bash: bytes, command: bytes) -> bytes | None:
    """Return bash's syntax error for a command of several lines; None if there is no error.

    bash parses and runs a command line by line, so the lines before a syntax error would run. A command of one line
    needs no check, because bash parses a whole line before it runs any of it. The check accepts the patterns of
    ``extglob``, because the command itself may enable them.
    """
    if b"\n" not in command.strip(b"\n"):
        return None
    reader, writer = posix.pipe()
    try:
        pid = spawn(bash, command, writer, posix.environ, [b"-O", b"extglob", b"-n"])
    except OSError as error:
        raise dirs.SetupError("processes", error.strerror or str(error)) from None
    posix.close(writer)
    message = b""
    while True:
        chunk = posix.read(reader, 65536)
        if not chunk:
            break
        message = (message + chunk)[:65536]
    posix.close(reader)
    return message if posix.waitpid(pid, 0)[1] else None


def spawn(
    bash: bytes,
    command: bytes,
    writer: int,
    env: Mapping[bytes, bytes],
    options: list[bytes],
    *,
    path: str = "/dev/null",
) -> int:
    """Start bash in a new session and return its pid. It reads ``path`` and writes to ``writer``.

    If ``path`` is a terminal, it becomes bash's controlling terminal: it is the first terminal that the session opens.
    """
    script, tail = -1, [b"-c", b"--", command]  # a command may begin with a hyphen
    if len(command) > ARGUMENT_MAX_BYTES:
        script = _memory_file(command)
        tail = [b"/dev/fd/%d" % script]
    try:
        how: dict[str, Any] = {
            "file_actions": [
                (posix.POSIX_SPAWN_OPEN, 0, path, posix.O_RDWR, 0),
                (posix.POSIX_SPAWN_DUP2, writer, 1),
                (posix.POSIX_SPAWN_DUP2, writer, 2),
            ],
            "setsigdef": DEFAULT_SIGNALS,
        }
        argv = [b"bash", *options, *tail]
        # Unlike fork, this copies no memory of the process.
        try:
            return posix.posix_spawn(bash, argv, env, setsid=True, **how)
        except NotImplementedError:  # a Python that was built for an old C library: only a new process group
            return posix.posix_spawn(bash, argv, env, setpgroup=0, **how)
    finally:
        if script >= 0:
            posix.close(script)


def _memory_file(data: bytes) -> int:
    """Write the data to a file in memory; return its descriptor, which child processes inherit."""
    try:
        fd = posix.memfd_create("command", 0)
    except AttributeError:
        raise dirs.SetupError("python", "posix.memfd_create") from None
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]
    posix.lseek(fd, 0, 0)
    return fd


class Run:
    """One running command. The modules ``editors`` and ``pty_run``, sent if needed, replace it by a subclass."""

    _spawn = staticmethod(spawn)

    def __init__(self, call: record.Record, request: Request) -> None:
        self.key = request["key"]
        self.timeout_s = request["timeout_s"]
        self.defaults = request["defaults"]  # variables to set where the sandbox has none of that name
        self.user_vars = request.get("own", [])  # names of variables that the user has set
        self.output = Output(request["limit_bytes"], call.log_path, request["log_limit_bytes"])
        self.is_live = "live" in request  # the host polls the command's log during the call
        self.exit_code: int | None = None
        self.timed_out = False
        self.cancelled = False
        self.background = False
        self.survivors = False
        self.job: Answer | None = None  # the job that the command became, or why it could not become a job
        self._wants_pipeline = "pipeline" in request
        self._pipeline_file = -1
        self.reader = -1
        self.began = time.monotonic()
        self._wake = -1  # a pipe that becomes readable at a signal
        self._call = call

    def start(self, bash: bytes, command: bytes) -> None:
        try:
            self._start(bash, command)
        except OSError as error:
            raise dirs.SetupError("processes", error.strerror or str(error)) from None

    def _start(self, bash: bytes, command: bytes) -> None:
        self._wake, wakeup = posix.pipe()
        posix.set_blocking(wakeup, False)
        posix.set_blocking(self._wake, False)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(CANCEL, self._on_cancel)
        self.reader, writer = posix.pipe()
        try:
            fcntl.fcntl(writer, 1031, PIPE_MAX_BYTES)  # F_SETPIPE_SZ: fewer context switches on large output
        except OSError:
            pass
        env = dict(posix.environ)
        env[processes.MARKER] = self.key.encode()
        # Otherwise git could prompt for a password, and wait for it until the time-out.
        env.setdefault(b"GIT_TERMINAL_PROMPT", b"0")
        terminal.prepare(env, self.user_vars)
        for name, value in self.defaults.items():
            env.setdefault(name.encode(), value.encode())
        if self._wants_pipeline:
            self._watch_pipeline(env)
        self.began = time.monotonic()
        self.pid = self._spawn(bash, command, writer, env, [])
        posix.close(writer)
        posix.set_blocking(self.reader, False)
        if self.is_live:
            self.output.open_log()

    def _watch_pipeline(self, env: dict[bytes, bytes]) -> None:
        """Make bash report the exit codes of the command's last pipeline."""
        # With one of these variables bash sources another file, or no file.
        if any(name in env for name in (b"BASH_ENV", b"POSIXLY_CORRECT", b"SHELLOPTS")):
            return
        try:
            self._pipeline_file = posix.memfd_create("pipeline")
            # Give bash the file's path, and not a descriptor: all processes of the command would inherit it from bash.
            path = b"/proc/%d/fd/%d" % (posix.getpid(), self._pipeline_file)
            posix.write(self._pipeline_file, EXIT_TRAP % path)
        except (OSError, AttributeError):  # a Python that was built for an old C library has no memfd_create
            return
        env[b"BASH_ENV"] = path

    def pipeline_codes(self) -> list[int]:
        """Return the exit codes of bash and of its last pipeline; empty if they are unknown or too many."""
        if self._pipeline_file < 0 or self.timed_out or self.cancelled:
            return []
        codes = posix.pread(self._pipeline_file, 1024, 0).split()
        if len(codes) > PIPELINE_MAX + 1 or not all(len(code) <= 3 and code.isdigit() for code in codes):
            return []  # too many codes, bash was killed or replaced (exec), or the command wrote to the file
        return [int(code) for code in codes]

    def _on_cancel(self, *_: object) -> None:
        self.cancelled = True

    def watch(self, promote: Callable[[], bool] | None) -> None:
        """Read the command's output until its end. Kill the command if the call is cancelled.

        At the time-out call ``promote``, which turns the command into a job. If ``promote`` is None or returns False,
        kill the command.
        """
        import binascii  # noqa: F401 - `_base64` needs it; loaded here, while bash starts

        deadline = self.began + self.timeout_s
        while not self.ended():
            if self.cancelled or time.monotonic() >= deadline:
                self.timed_out = not self.cancelled
                if self.timed_out and promote is not None and promote():
                    self.exit_code = 124
                    return
                self.kill()
                break
            self.collect(deadline)
        self.drain()
        if self.reader >= 0:
            self.background = True
            self._fork_reader()

    def ended(self) -> bool:
        if self.exit_code is None:
            pid, status = posix.waitpid(self.pid, posix.WNOHANG)
            if pid:
                self.exit_code = (
                    posix.WEXITSTATUS(status) if posix.WIFEXITED(status) else 128 + posix.WTERMSIG(status)
                )
        return self.exit_code is not None

    def collect(self, until: float) -> None:
        """Wait for output or the command's end, at most until the time ``until`` (monotonic clock); read the output."""
        import select  # loaded while bash starts

        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self.reader >= 0:
            poll.register(self.reader, select.POLLIN)
        wait_ms = max(0.0, until - time.monotonic()) * 1000
        for fd, _event in poll.poll(min(wait_ms + 1, 3_600_000)):
            if fd == self._wake:
                posix.read(self._wake, 4096)
            else:
                self._read(65536)

    def _read(self, size: int) -> int:
        """Read once. Return the number of bytes, 0 if there is no output yet, -1 if all writers closed the pipe."""
        try:
            chunk = posix.read(self.reader, size)
        except BlockingIOError:
            return 0
        if not chunk:
            posix.close(self.reader)
            self.reader = -1
            return -1
        self.output.feed(chunk)
        return len(chunk)

    def kill(self) -> None:
        """Send SIGTERM to all processes of the command, and wait at most TERM_GRACE_S. Then send SIGKILL until none is
        left, for at most KILL_WITHIN_S.
        """
        found = processes.tree(self.pid, self.key)
        processes.send(found, signal.SIGTERM)
        grace = time.monotonic() + TERM_GRACE_S
        while time.monotonic() < grace and not (self.ended() and not processes.tree(self.pid, self.key)):
            self.collect(min(grace, time.monotonic() + 0.05))
        # First kill the processes that were found above: a process that has ignored SIGTERM, cleared its environment
        # and lost its parent is not found again.
        processes.send(found, signal.SIGKILL)
        limit = time.monotonic() + KILL_WITHIN_S
        self.survivors = not processes.kill_tree(self.pid, self.key, limit)
        while not (self.ended() and processes.have_ended(found)) and time.monotonic() < limit:
            self.collect(min(limit, time.monotonic() + 0.02))
        self.exit_code = 124 if self.timed_out else 130

    def drain(self) -> None:
        """Read the output that the ended command left in the pipe."""
        total = 0
        # After a full pipe, read once more: this reaches the end of file.
        while self.reader >= 0 and total <= PIPE_MAX_BYTES:
            count = self._read(65536)
            if count == 0:
                break
            total += count

    def detach(self, log: Any) -> None:
        """Continue as a job: close the call's record and log, and write output to the job's ``log``."""
        self._call.close()
        self.output.close()
        self.output, self.exit_code, self.timed_out = log, None, False

    def _fork_reader(self) -> None:
        """Fork a process that continues to read: a background process dies if it writes to a pipe without a reader."""
        if not self.output.has_log:
            self.output.open_log()
        try:
            child = posix.fork()
        except OSError:
            child = -1  # no process is available; background processes may die
        if child:
            release.own_children.add(child)
            posix.close(self.reader)
            return
        try:
            self._call.close()  # otherwise this process would keep the record locked
            posix.setsid()
            null = posix.open("/dev/null", posix.O_RDWR)
            for fd in (0, 1, 2):
                posix.dup2(null, fd)
            posix.set_blocking(self.reader, True)
            self.output.drain(self.reader)
        finally:
            posix._exit(0)

    def result(self) -> Answer:
        head, tail = self.output.head_and_tail()
        if self.is_live and not self.background:
            self.output.drop_log()
        if self.cancelled:
            return {"outcome": "cancelled"}
        answer: Answer = {
            "outcome": "finished",
            "exit_code": 126 if self.exit_code is None else self.exit_code,
            "timed_out": self.timed_out,
            "background": self.background,
            "survivors": self.survivors,
            "duration_s": round(time.monotonic() - self.began, 4),
            "size_bytes": self.output.size_bytes,
            "head": _base64(head),
            "tail": _base64(tail),
            "log_path": self.output.log_path if self.output.has_log else "",
            "log_bytes": self.output.log_bytes,
            "log_failed": bool(self.output.log_error),
            "job": self.job,
        }
        codes = self.pipeline_codes()
        if codes:
            answer["pipeline"] = codes
        return answer


def _base64(data: bytes) -> str:
    if not data:
        return ""
    import binascii

    return binascii.b2a_base64(data, newline=False).decode("ascii")
