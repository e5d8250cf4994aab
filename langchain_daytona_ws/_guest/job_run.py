"""Start a command as a background job, or turn a running command into a job, and supervise it until it ends.

A call that may create a job runs in a forked process with its own session. The first process prints the answer and
ends. Only a parent can read an exit code, so the forked process starts the command and supervises the job.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

from langchain_daytona_ws._guest import command, dirs, encode, job_log, job_store, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, NoReturn

    Request = dict[str, Any]
    Answer = dict[str, Any]

END_ROOM = 1024  # bytes reserved for the record of the job's end
ABOUT_ROOM = 64  # bytes reserved for the job's times, which are recorded when it is published
SYNC = "langchain_daytona_ws._guest.sync"  # sent only for a synchronised workspace
PUSH_EVERY_S = 30.0

_supervised: list[Job] = []  # jobs that this process supervises


def fork(work: Callable[[], str], fds: list[int]) -> str:
    """Run ``work`` in a forked process, which may outlive the call, and return its answer (ASCII, one line).

    The descriptors ``fds`` stay open in the forked process.
    """
    command.protect()
    reader, writer = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        return encode.encode({"error": "setup", "code": "processes", "detail": error.strerror})
    if pid == 0:
        _run_forked(work, writer, fds)
    os.close(writer)
    answer = b""
    # Do not wait for end of file: a process that reads the output of background processes keeps the pipe open too.
    while not answer.endswith(b"\n"):
        chunk = os.read(reader, 65536)
        if not chunk:
            # The forked process was killed. Print no answer: the host then asks for the call's outcome.
            os._exit(1)
        answer += chunk
    os.close(reader)
    return answer.decode("ascii")[:-1]


def _run_forked(work: Callable[[], str], writer: int, fds: list[int]) -> NoReturn:
    try:
        os.setsid()
        _close_all_but(writer, *fds)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        answer = work().encode("ascii") + b"\n"
        try:
            while answer:
                answer = answer[os.write(writer, answer) :]
        except OSError:
            pass  # the first process has ended; the record has the answer
        os.close(writer)
        for job in _supervised:  # at most one job
            job.supervise()
    finally:
        os._exit(0)


def _close_all_but(*fds: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in fds:
            try:
                os.close(int(name))
            except OSError:
                pass  # the descriptor of this listing itself


class JobLimit(Exception):
    """The limit of running jobs is reached; the message lists their ids."""


class Job:
    """A job that this process creates and supervises.

    The list of jobs is locked until `publish` or `discard`, so that no other call counts, creates or removes jobs.

    Raises:
        JobLimit: The limit of running jobs is reached.
        SetupError: The directory of jobs cannot be used, or another call locks the list of jobs for too long.
        OSError: The record cannot be written.
    """

    def __init__(self, run: command.Run, request: Request) -> None:
        self._run = run
        self._spec = request["job"]
        self._key = request["key"]
        self._request = request
        self._sync = sys.modules[SYNC] if "sync" in request else None
        self._jobs = job_store.directory()
        self._list_lock = job_store.lock_list(self._jobs)
        self._name = ""
        try:
            self._make()
        except BaseException:
            self.discard()
            raise

    def _make(self) -> None:
        job_store.prune(self._jobs)
        running = job_store.running(self._jobs)
        if len(running) >= job_store.RUNNING_MAX:
            raise JobLimit(" ".join(sorted(running)))
        name = job_store.new_id()
        while name in job_store.names(self._jobs):
            name = job_store.new_id()
        os.mkdir("new-" + name, 0o700, dir_fd=self._jobs)
        self._name = name
        self._directory = job_store.open_job(self._jobs, "new-" + self._name)
        self._lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.log = job_log.JobLog(self._directory)
        # Reserve disk space for later records. A full disk is then detected here, and cannot prevent the record of the
        # command's end.
        job_store.save(self._directory, "about", {**self._record(0, 0), "room": "." * ABOUT_ROOM})
        job_store.save(self._directory, "ending", {"room": "." * END_ROOM})
        self._minutes = job_store.keep_alive(self._jobs, self._spec["awake_minutes"])

    def _record(self, started_ms: int, ends_ms: int) -> Request:
        return {
            "key": self._key,
            "command": self._spec["command"],
            "started_ms": started_ms,
            "ends_ms": ends_ms,
            "boot": job_store.boot(),
            "pid": os.getpid(),
            "birth": processes.start_time(os.getpid()),
            "is_pushed": self._sync is not None,
        }

    def publish(self) -> None:
        """Make the job visible to other calls, after its command was started."""
        spec = self._spec
        self._deadline = time.monotonic() + spec["max_duration_s"]
        now_ms = job_store.now_ms()
        started_ms = now_ms - int((time.monotonic() - self._run.began) * 1000)
        ends_ms = now_ms + int(spec["max_duration_s"] * 1000)
        job_store.save(self._directory, "about", self._record(started_ms, ends_ms))
        os.rename("new-" + self._name, self._name, src_dir_fd=self._jobs, dst_dir_fd=self._jobs)
        self._release()
        self._run.job = {
            "id": self._name,
            "started_ms": started_ms,
            "ends_ms": ends_ms,
            "awake_minutes": self._minutes,
        }
        _supervised.append(self)

    def discard(self) -> None:
        """Remove a job that was not published: its command did not start, or the caller kills it."""
        if self._name:
            job_store.remove(self._jobs, "new-" + self._name)
        self._release()

    def _release(self) -> None:
        os.close(self._list_lock)
        os.close(self._jobs)

    def supervise(self) -> None:
        """Wait for the job's end, and record it; at the job's deadline, or on request, kill the job."""
        run = self._run
        run.detach(self.log)
        # Leave the workspace's directory: this process would keep the mount busy.
        os.chdir("/")
        state = self._follow()
        run.drain()
        is_saved = True
        if self._sync is not None:
            is_saved = self._sync.push(self._request, job_store.PUSH_WAIT_S)
        self.log.save()
        job_store.save_end(
            self._directory, state, run.exit_code, pipeline=run.pipeline_codes(), unsaved=not is_saved
        )

    def _follow(self) -> str:
        run, shell_ended = self._run, False
        push_at = time.monotonic() + PUSH_EVERY_S
        while not run.ended() or run.reader >= 0:
            if self._sync is not None and time.monotonic() >= push_at:
                self._sync.push(self._request, 0.0)
                push_at = time.monotonic() + PUSH_EVERY_S
            if run.cancelled or time.monotonic() >= self._deadline:
                run.timed_out = not run.cancelled
                run.kill()
                return "timed_out" if run.timed_out else "stopped"
            if run.exit_code is not None and not shell_ended:
                shell_ended = True
                run.pid = -1  # the command's shell has ended, and its pid may be reused
                try:
                    job_store.save(self._directory, "shell", {"exit_code": run.exit_code})
                except OSError:
                    pass  # informational; the end has its own record
            run.collect(self._deadline if self._sync is None else min(self._deadline, push_at))
        return "finished"


def begin(run: command.Run, request: Request, start: Callable[[], None]) -> Answer:
    """Start the command as a job and return the answer.

    Raises:
        SetupError: ``jobs_full`` (``detail`` has the ids of the running jobs), ``state`` (the job's record cannot be
            written, or another call locks the list of jobs), ``processes`` (no process can be started) or ``pty`` (no
            terminal can be opened).
        OSError: The job's record cannot be written after the command was started. The command was killed.
    """
    try:
        job = Job(run, request)
    except JobLimit as error:
        raise dirs.SetupError("jobs_full", str(error)) from None
    except OSError as error:
        raise dirs.SetupError("state", error.strerror or str(error)) from None
    try:
        start()
    except BaseException:
        job.discard()
        raise
    try:
        job.publish()
    except BaseException:
        # Kill the command: nothing would supervise it. It may have had effects, so raise no SetupError.
        run.kill()
        job.discard()
        raise
    return {"outcome": "job", "job": run.job}


def promote(run: command.Run, request: Request) -> bool:
    """Turn a running command into a job; return whether this succeeded. Set ``run.job``: the job, or the error."""
    job = None
    try:
        job = Job(run, request)
        _copy(run, job.log)
        job.publish()
    except JobLimit as error:
        run.job = {"error": "jobs_full", "detail": str(error)}
    except (OSError, dirs.SetupError) as error:
        run.job = {"error": "state", "detail": str(error)}
        if job is not None:
            job.discard()
    return bool(_supervised)


def _copy(run: command.Run, log: job_log.JobLog) -> None:
    """Copy the output that the call has kept so far to the job's log."""
    output = run.output
    head, tail = output.head_and_tail()
    if output.log_bytes > len(head):
        try:
            # Another process may have replaced the log, by a FIFO, a link or a file without end.
            how = os.O_NONBLOCK | os.O_NOFOLLOW
            with open(output.log_path, "rb", opener=lambda path, flags: os.open(path, flags | how)) as file:
                left = output.log_bytes
                while left > 0:
                    chunk = file.read(min(left, 1024 * 1024))
                    if not chunk:
                        break
                    log.feed(chunk)
                    left -= len(chunk)
        except OSError:
            log.failed = True
    elif head:
        log.feed(head)
    missing = output.size_bytes - log.size_bytes
    if missing > len(tail):
        log.skip_to(output.size_bytes - len(tail))
    log.feed(tail[max(0, len(tail) - missing) :])
