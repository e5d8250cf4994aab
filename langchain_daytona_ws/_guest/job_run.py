"""Start a command as a job, or let one that runs go on as a job, and supervise it to its end.

A call with a job in it is carried out by a forked process, in a session of its own, whose answer the first process
prints. Only a parent learns an exit code, so whoever is to supervise the command must have started it.
"""

from __future__ import annotations

import fcntl
import os
import time

from langchain_daytona_ws._guest import command, job_log, job_store, place, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, NoReturn

    Request = dict[str, Any]

END_ROOM = 1024  # bytes
ABOUT_ROOM = 64  # bytes, for the times

_left: list[Job] = []  # what this process is to supervise


def apart(work: Callable[[], str], kept: list[int]) -> str:
    """Do the work in a process that may live on, and return its answer.

    Args:
        work: What to do.
        kept: File descriptors that it needs.
    """
    import json  # 3 ms, which a command that ends in time does without

    command.hide()
    reader, writer = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        return json.dumps({"error": "place", "code": "processes", "detail": error.strerror})
    if pid == 0:
        _carry_out(work, writer, kept)
    os.close(writer)
    answer = b""
    # Not its end: what reads on for a process that was left running holds it too.
    while not answer.endswith(b"\n"):
        chunk = os.read(reader, 65536)
        if not chunk:
            # It was killed. Nothing printed is what the host knows as that, and asks about.
            os._exit(1)
        answer += chunk
    os.close(reader)
    return answer.decode("ascii")[:-1]


def _carry_out(work: Callable[[], str], writer: int, kept: list[int]) -> NoReturn:
    try:
        os.setsid()
        _close_all_but(writer, *kept)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        answer = work().encode("ascii") + b"\n"
        try:
            while answer:
                answer = answer[os.write(writer, answer) :]
        except OSError:
            pass  # whoever asked is gone; the record has the answer
        os.close(writer)
        for job in _left:
            job.supervise()
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the descriptor of this listing itself


class Full(Exception):
    """As many jobs are running as may; the message names them."""


class Job:
    """A job that this process supervises, from its making to its end.

    From its making until it is published, no other call counts, makes or tidies jobs.

    Raises:
        Full: There is no room for another one.
        OSError: It cannot be recorded.
    """

    def __init__(self, run: command.Run, request: Request) -> None:
        self._run = run
        self._about = request["job"]
        self._key = request["key"]
        self._jobs = job_store.directory()
        self._turn = job_store.guard(self._jobs)
        self._name = ""
        try:
            self._make()
        except BaseException:
            self.drop()
            raise

    def _make(self) -> None:
        job_store.tidy(self._jobs)
        held = job_store.running(self._jobs)
        if len(held) >= job_store.RUNNING_MAX:
            raise Full(" ".join(sorted(held)))
        name = job_store.new_id()
        while name in job_store.names(self._jobs):
            name = job_store.new_id()
        os.mkdir("new-" + name, 0o700, dir_fd=self._jobs)
        self._name = name
        self._directory = job_store.open_job(self._jobs, "new-" + self._name)
        self._lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.log = job_log.JobLog(self._directory)
        # The room for all that is to be recorded later: a full disk has to be found out before the command runs, and
        # must not keep its end from being recorded.
        job_store.save(self._directory, "about", {**self._record(0, 0), "room": "." * ABOUT_ROOM})
        job_store.save(self._directory, "ending", {"room": "." * END_ROOM})
        self._minutes = job_store.keep_awake(self._jobs, self._about["awake_minutes"])

    def _record(self, started_ms: int, ends_ms: int) -> Request:
        return {
            "key": self._key,
            "command": self._about["command"],
            "started_ms": started_ms,
            "ends_ms": ends_ms,
            "boot": job_store.boot(),
            "pid": os.getpid(),
            "birth": processes.birth_of(os.getpid()),
        }

    def publish(self) -> None:
        """Let it be seen, with all that is to be known of it, once its command runs."""
        import json  # 3 ms, which a command that ends in time does without

        about = self._about
        self._deadline = time.monotonic() + about["max_duration_s"]
        now_ms = job_store.now_ms()
        started_ms = now_ms - int((time.monotonic() - self._run.began) * 1000)
        ends_ms = now_ms + int(about["max_duration_s"] * 1000)
        job_store.save(self._directory, "about", self._record(started_ms, ends_ms))
        os.rename("new-" + self._name, self._name, src_dir_fd=self._jobs, dst_dir_fd=self._jobs)
        self._let_go()
        shown = {
            "id": self._name,
            "started_ms": started_ms,
            "ends_ms": ends_ms,
            "awake_minutes": self._minutes,
        }
        self._run.job = json.dumps(shown)
        _left.append(self)

    def drop(self) -> None:
        """Undo its making: its command did not start, or was ended."""
        if self._name:
            job_store.remove(self._jobs, "new-" + self._name)
        self._let_go()

    def _let_go(self) -> None:
        os.close(self._turn)
        os.close(self._jobs)

    def supervise(self) -> None:
        """Follow the job to its end, or bring the end about; record it."""
        run = self._run
        run.leave_call(self.log)
        # Not in the workspace, whose mount this would hold.
        os.chdir("/")
        state = self._follow()
        run.collect_rest()
        self.log.save()
        job_store.save_end(self._directory, state, run.exit_code, pipeline=run.parts())

    def _follow(self) -> str:
        run, shell_ended = self._run, False
        while not run.ended() or run.reader >= 0:
            if run.cancelled or time.monotonic() >= self._deadline:
                run.timed_out = not run.cancelled
                run.end_it()
                return "timed_out" if run.timed_out else "stopped"
            if run.exit_code is not None and not shell_ended:
                shell_ended = True
                run.pid = -1  # its number may be given to somebody else
                try:
                    job_store.save(self._directory, "shell", {"exit_code": run.exit_code})
                except OSError:
                    pass  # only for show: the end has a place of its own
            run.collect(self._deadline)
        return "finished"


def begin(run: command.Run, request: Request, start: Callable[[], None]) -> str:
    """Start the command as a job and return the answer.

    Raises:
        PlaceError: ``jobs_full``, with the names of those that run; ``state``; or there is no process to be had.
    """
    try:
        job = Job(run, request)
    except Full as error:
        raise place.PlaceError("jobs_full", str(error)) from None
    except OSError as error:
        raise place.PlaceError("state", error.strerror or str(error)) from None
    try:
        start()
    except BaseException:
        job.drop()
        raise
    try:
        job.publish()
    except BaseException:
        # It must not go on with nobody to end it. What it has done is not known: this is no PlaceError.
        run.end_it()
        job.drop()
        raise
    return '{"outcome": "job", "job": %s}' % run.job


def promote(run: command.Run, request: Request) -> bool:
    """Let a running command go on as a job; return False, and say why, when that cannot be."""
    import json  # 3 ms, which a command that ends in time does without

    job = None
    try:
        job = Job(run, request)
        _copy(run, job.log)
        job.publish()
    except Full as error:
        run.job = json.dumps({"error": "jobs_full", "detail": str(error)})
    except (OSError, place.PlaceError) as error:
        run.job = json.dumps({"error": "state", "detail": str(error)})
        if job is not None:
            job.drop()
    return bool(_left)


def _copy(run: command.Run, log: job_log.JobLog) -> None:
    """Begin the log with what was printed so far, as far as it was kept."""
    output = run.output
    head, tail = output.head_and_tail()
    if output.log_bytes > len(head):
        try:
            with open(output.log_path, "rb") as file:
                while True:
                    chunk = file.read(1024 * 1024)
                    if not chunk:
                        break
                    log.feed(chunk)
        except OSError:
            log.failed = True
    elif head:
        log.feed(head)
    missing = output.size_bytes - log.size_bytes
    if missing > len(tail):
        log.skip_to(output.size_bytes - len(tail))
    log.feed(tail[max(0, len(tail) - missing) :])
