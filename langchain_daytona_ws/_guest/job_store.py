"""Records of background jobs: one directory per job, on the sandbox's own disk.

A supervisor is the process that starts a job's command and waits for its end (``job_run``). As long as it lives, it
locks the job's file ``lock``. It records the job's end before it releases the lock. A job without lock and without
recorded end is lost: its supervisor was killed, or the sandbox was stopped.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from langchain_daytona_ws._guest import dirs, locks, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence

    Row = dict[str, Any]

RUNNING_MAX = 10
KEEP_JOBS = 50
KEEP_S = 7 * 24 * 3600
KEEP_BYTES = 256 * 1024 * 1024
RECORD_MAX_BYTES = 64 * 1024
LOCK_WAIT_S = 20.0
PUSH_WAIT_S = 20.0  # for the last push of a job in a synchronised workspace
ID_CHARACTERS = "abcdefghijkmnpqrstuvwxyz23456789"
ENDED = ("finished", "stopped", "timed_out", "lost")


def directory() -> int:
    """Open the directory of all jobs; create it if it is missing."""
    path = dirs.state_directory() + "/jobs"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise dirs.SetupError("state", "%s: %s" % (path, error.strerror)) from None


def open_job(jobs: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=jobs)


def lock_list(jobs: int) -> int:
    """Lock the list of jobs; closing the returned descriptor releases the lock."""
    fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=jobs)
    if not locks.lock_within(fd, LOCK_WAIT_S):
        os.close(fd)
        raise dirs.SetupError("state", "the list of jobs is locked by another call")
    return fd


def names(jobs: int) -> list[str]:
    return [name for name in os.listdir(jobs) if is_id(name) and exists(jobs, name)]


def running(jobs: int) -> list[str]:
    return [name for name in names(jobs) if has_supervisor(jobs, name)]


def new_id() -> str:
    return "".join(ID_CHARACTERS[byte % 32] for byte in os.urandom(8))


def is_id(name: object) -> bool:
    return isinstance(name, str) and len(name) == 8 and all(char in ID_CHARACTERS for char in name)


def exists(jobs: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=jobs, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def has_supervisor(jobs: int, name: str) -> bool:
    """Return whether a supervisor holds the job's exclusive lock; other processes take only shared locks."""
    try:
        fd = os.open("%s/lock" % name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=jobs)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def load(job: int, name: str) -> Row:
    """Return a record of a job; an empty one if it is missing or damaged."""
    import json  # takes 3 ms; many commands that load this module do not become a job

    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=job)
    except OSError:
        return {}
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > RECORD_MAX_BYTES:
            return {}
        found = json.loads(os.pread(fd, RECORD_MAX_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    finally:
        os.close(fd)
    return found if isinstance(found, dict) else {}


def save(job: int, name: str, record: Row) -> None:
    """Write a record to disk. An existing file is overwritten, and keeps its reserved space."""
    import json  # imported late, as in `load`

    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=job)
    try:
        data = json.dumps(record).encode("ascii")
        size = os.fstat(fd).st_size
        os.pwrite(fd, data + b" " * (size - len(data)), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def save_end(
    job: int,
    state: str,
    exit_code: int | None,
    reason: str = "",
    pipeline: Sequence[int] = (),
    *,
    unsaved: bool = False,
) -> None:
    """Record the end of a job atomically, in the file ``ending``, which is then renamed.

    The file was created with reserved space when the job began, so that a full disk cannot prevent this record. In a
    damaged job the file may be missing; then a full disk can prevent it.
    """
    end = {
        "state": state,
        "exit_code": exit_code,
        "ended_ms": now_ms(),
        "reason": reason,
        "pipeline": list(pipeline),
        "unsaved": unsaved,
    }
    save(job, "ending", end)
    os.rename("ending", "end", src_dir_fd=job, dst_dir_fd=job)
    os.fsync(job)


def now_ms() -> int:
    return int(time.time() * 1000)


def boot() -> str:
    """Return an identifier of the sandbox's current boot. The pids of earlier boots may be reused."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            kernel = file.read().strip()
    except OSError:
        kernel = ""
    return "%s %s" % (kernel, processes.start_time(1))


def text_of(record: Row, name: str, limit: int) -> str:
    value = record.get(name)
    return value[:limit] if isinstance(value, str) else ""


def number_of(record: Row, name: str) -> int:
    value = record.get(name)
    return value if type(value) is int and 0 <= value < 1 << 53 else 0


def prune(jobs: int) -> None:
    """Remove old jobs by age, number and size, and jobs that were never published; keep running jobs.

    The caller holds the lock of the list of jobs.
    """
    ended = []
    for name in os.listdir(jobs):
        is_half_made = name.startswith("new-") and is_id(name[4:])
        if (is_id(name) or is_half_made) and exists(jobs, name) and not has_supervisor(jobs, name):
            ended.append((os.stat(name, dir_fd=jobs).st_mtime, name))
    total, now = 0, time.time()
    for count, (modified, name) in enumerate(sorted(ended, reverse=True), 1):
        job = open_job(jobs, name)
        try:
            total += sum(os.stat(part, dir_fd=job, follow_symlinks=False).st_size for part in os.listdir(job))
        finally:
            os.close(job)
        if count > KEEP_JOBS or total > KEEP_BYTES or now - modified > KEEP_S or name.startswith("new-"):
            remove(jobs, name)


def remove(jobs: int, name: str) -> None:
    """Remove a job's directory; stop at the first file that cannot be removed."""
    try:
        job = open_job(jobs, name)
        try:
            for part in os.listdir(job):
                os.unlink(part, dir_fd=job)
        finally:
            os.close(job)
        os.rmdir(name, dir_fd=jobs)
    except OSError:
        pass


def keep_alive(jobs: int, minutes: int) -> int:
    """Record that a job needs an auto-stop interval of at least ``minutes``; return the longest recorded interval."""
    minutes = max(minutes, number_of(load(jobs, "keep_alive"), "minutes"))
    save(jobs, "keep_alive", {"minutes": minutes})
    return minutes
