"""Where the records of background jobs are kept: a directory for each, on the machine's own disk.

A job's supervisor holds a lock in the job's directory for as long as it lives, and records the end there before it
lets go: so a job that is neither locked nor ended was lost, to a kill or to a stop of the machine.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from langchain_daytona_ws._guest import place, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence

    Row = dict[str, Any]

RUNNING_MAX = 10
KEEP_JOBS = 50
KEEP_S = 7 * 24 * 3600
KEEP_BYTES = 256 * 1024 * 1024
RECORD_MAX_BYTES = 64 * 1024
GUARD_WAIT_S = 20.0
ID_CHARACTERS = "abcdefghijkmnpqrstuvwxyz23456789"
ENDED = ("finished", "stopped", "timed_out", "lost")


def directory() -> int:
    """Open the directory of all jobs, on the machine's own disk."""
    path = place.state_directory() + "/jobs"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise place.PlaceError("state", "%s: %s" % (path, error.strerror)) from None


def open_job(jobs: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=jobs)


def guard(jobs: int) -> int:
    """Wait for the turn to count and make jobs; it ends when the descriptor is closed."""
    fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=jobs)
    until = time.monotonic() + GUARD_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(fd)
                raise place.PlaceError("state", "the list of jobs is held by another call") from None
            time.sleep(0.005)
        else:
            return fd


def names(jobs: int) -> list[str]:
    return [name for name in os.listdir(jobs) if is_id(name) and exists(jobs, name)]


def running(jobs: int) -> list[str]:
    """Name the jobs that have a supervisor."""
    return [name for name in names(jobs) if is_held(jobs, name)]


def new_id() -> str:
    return "".join(ID_CHARACTERS[byte % 32] for byte in os.urandom(8))


def is_id(name: object) -> bool:
    return isinstance(name, str) and len(name) == 8 and all(sign in ID_CHARACTERS for sign in name)


def exists(jobs: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=jobs, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def is_held(jobs: int, name: str) -> bool:
    """Tell whether a supervisor lives, by its lock; other lookers do not count."""
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
    """Read a record of a job; what is damaged reads as empty."""
    import json  # 3 ms, which a command that ends in time does without

    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=job)
    except OSError:
        return {}
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > RECORD_MAX_BYTES:
            return {}
        found = json.loads(os.pread(fd, RECORD_MAX_BYTES, 0))
    except (OSError, ValueError):
        return {}
    finally:
        os.close(fd)
    return found if isinstance(found, dict) else {}


def save(job: int, name: str, record: Row) -> None:
    """Write a record durably into a file that is there already, or a new one."""
    import json  # 3 ms, which a command that ends in time does without

    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=job)
    try:
        data = json.dumps(record).encode("ascii")
        size = os.fstat(fd).st_size
        os.pwrite(fd, data + b" " * (size - len(data)), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def save_end(
    job: int, state: str, exit_code: int | None, reason: str = "", pipeline: Sequence[int] = ()
) -> None:
    """Record the end of a job, wholly or not at all.

    The file has been there since the job began, with room in it, so that a full disk does not keep an end from being
    recorded.
    """
    end = {
        "state": state,
        "exit_code": exit_code,
        "ended_ms": now_ms(),
        "reason": reason,
        "pipeline": list(pipeline),
    }
    save(job, "ending", end)
    os.rename("ending", "end", src_dir_fd=job, dst_dir_fd=job)
    os.fsync(job)


def now_ms() -> int:
    return int(time.time() * 1000)


def boot() -> str:
    """Name the run of this machine: processes of another run are gone, whatever carries their number now."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            kernel = file.read().strip()
    except OSError:
        kernel = ""
    return "%s %s" % (kernel, processes.birth_of(1))


def text_of(record: Row, name: str, most: int) -> str:
    value = record.get(name)
    return value[:most] if isinstance(value, str) else ""


def number_of(record: Row, name: str) -> int:
    value = record.get(name)
    return value if type(value) is int and 0 <= value < 1 << 53 else 0


def tidy(jobs: int) -> None:
    """Remove ended jobs by age, number and size; never one that is running. For who has the turn."""
    ended = []
    for name in os.listdir(jobs):
        is_half_made = name.startswith("new-") and is_id(name[4:])
        if (is_id(name) or is_half_made) and exists(jobs, name) and not is_held(jobs, name):
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
    """Remove a job's directory; what somebody else has put there stays."""
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


def keep_awake(jobs: int, minutes: int) -> int:
    """Note that the machine is to stay awake so long without a request; return what holds for all jobs."""
    minutes = max(minutes, number_of(load(jobs, "awake"), "minutes"))
    save(jobs, "awake", {"minutes": minutes})
    return minutes
