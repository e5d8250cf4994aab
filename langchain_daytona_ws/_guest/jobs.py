"""Background jobs as the sandbox's disk knows them: looked at, stopped, listed and tidied away.

Each job has a directory. Its supervisor holds a lock in it for as long as it lives, and records the end there before
it lets go: so a job that is neither locked nor ended was lost, to a kill or to a stop of the machine.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # ``signal`` itself costs 4 ms of enum classes
import binascii
import fcntl
import json
import os
import stat
import time

from langchain_daytona_ws._guest import job_log, place, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]

RUNNING_MAX = 10
KEEP_JOBS = 50
KEEP_S = 7 * 24 * 3600
KEEP_BYTES = 256 * 1024 * 1024
RECORD_MAX_BYTES = 64 * 1024
COMMAND_MAX = 2000  # characters of it that are kept to be shown
GUARD_WAIT_S = 20.0
STOP_WAIT_S = 10.0  # longer than a supervisor takes to end its tree
CANCEL = signal.SIGUSR2
ID_CHARACTERS = "abcdefghijkmnpqrstuvwxyz23456789"
ENDED = ("finished", "stopped", "timed_out", "lost")


def main(request: Row) -> Row:
    """Carry out one operation on jobs and return its answer."""
    jobs = directory()
    try:
        return _list(jobs) if request["op"] == "list" else _one(jobs, request)
    except FileNotFoundError:
        return {"error": "no_job"}  # another call has tidied it away
    finally:
        os.close(jobs)


def _list(jobs: int) -> Row:
    turn = guard(jobs)
    tidy(jobs)
    os.close(turn)
    return {"jobs": [_row(jobs, name) for name in names(jobs)]}


def _one(jobs: int, request: Row) -> Row:
    op, name = request["op"], request["id"]
    if not _is_id(name) or not _exists(jobs, name):
        return {"error": "no_job"}
    answer: Row = {}
    if op == "stop":
        answer["was_running"] = _stop(jobs, name)
    elif op == "status":
        _wait_for_end(jobs, name, request["wait_s"])
    elif op == "logs":
        answer.update(_logs(jobs, request))
    # After the log: a job that had ended by then writes no more.
    answer["job"] = _row(jobs, name)
    return answer


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
    return [name for name in os.listdir(jobs) if _is_id(name) and _exists(jobs, name)]


def running(jobs: int) -> list[str]:
    """Name the jobs that have a supervisor."""
    return [name for name in names(jobs) if _is_held(jobs, name)]


def new_id() -> str:
    return "".join(ID_CHARACTERS[byte % 32] for byte in os.urandom(8))


def _is_id(name: object) -> bool:
    return isinstance(name, str) and len(name) == 8 and all(sign in ID_CHARACTERS for sign in name)


def _exists(jobs: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=jobs, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _is_held(jobs: int, name: str) -> bool:
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
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=job)
    try:
        data = json.dumps(record).encode("ascii")
        size = os.fstat(fd).st_size
        os.pwrite(fd, data + b" " * (size - len(data)), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def save_end(job: int, state: str, exit_code: int | None, reason: str = "") -> None:
    """Record the end of a job, wholly or not at all.

    The file has been there since the job began, with room in it, so that a full disk does not keep an end from being
    recorded.
    """
    end = {"state": state, "exit_code": exit_code, "ended_ms": now_ms(), "reason": reason}
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


def _row(jobs: int, name: str) -> Row:
    """Describe a job; one that is lost is recorded as such first."""
    is_held = _is_held(jobs, name)  # before the end is read, which is recorded before the lock is let go
    job = open_job(jobs, name)
    try:
        about, end = load(job, "about"), load(job, "end")
        if end.get("state") not in ENDED:
            end = {"state": "running"} if is_held else _lose(jobs, job, name, about)
        exit_code = load(job, "shell").get("exit_code") if end["state"] == "running" else end.get("exit_code")
        return {
            "id": name,
            "state": end["state"],
            "command": _text(about, "command", COMMAND_MAX),
            "started_ms": _number(about, "started_ms"),
            "ends_ms": _number(about, "ends_ms"),
            "ended_ms": _number(end, "ended_ms"),
            "exit_code": exit_code if type(exit_code) is int else None,
            "duration_ms": max(0, (_number(end, "ended_ms") or now_ms()) - _number(about, "started_ms")),
            "reason": _text(end, "reason", 200),
            "log_bytes": job_log.size(job),
        }
    finally:
        os.close(job)


def _lose(jobs: int, job: int, name: str, about: Row) -> Row:
    """Record that a job's supervisor is gone, and end what it has left behind."""
    turn = guard(jobs)
    try:
        end = load(job, "end")
        if end.get("state") in ENDED:
            return end
        if about.get("boot") == boot():
            reason = "its supervisor was killed"
            processes.exterminate(-1, _text(about, "key", 64) or name, time.monotonic() + STOP_WAIT_S)
        elif about:
            reason = "the machine was stopped or restarted"
        else:
            reason = "its record is damaged"
        try:
            save_end(job, "lost", None, reason)
        except OSError:
            pass  # a full disk: the next look says the same again
        return {"state": "lost", "reason": reason}
    finally:
        os.close(turn)


def _text(record: Row, name: str, most: int) -> str:
    value = record.get(name)
    return value[:most] if isinstance(value, str) else ""


def _number(record: Row, name: str) -> int:
    value = record.get(name)
    return value if type(value) is int and 0 <= value < 1 << 53 else 0


def _wait_for_end(jobs: int, name: str, wait_s: float) -> None:
    until, pause = time.monotonic() + wait_s, 0.01
    while time.monotonic() < until and _is_held(jobs, name):
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


def _logs(jobs: int, request: Row) -> Row:
    job = open_job(jobs, request["id"])
    try:
        if request["offset"] is None:
            offset, data, size = job_log.tail(job, request["tail_lines"], request["limit_bytes"])
        else:
            offset, data, size = job_log.read(job, request["offset"], request["limit_bytes"])
    finally:
        os.close(job)
    text = binascii.b2a_base64(data, newline=False).decode("ascii")
    return {"offset": offset, "data": text, "size_bytes": size}


def _stop(jobs: int, name: str) -> bool:
    """Have the supervisor end its tree, or do so in its place; return whether it was running."""
    if not _is_held(jobs, name):
        return False
    job = open_job(jobs, name)
    try:
        about = load(job, "about")
        supervisor = {_number(about, "pid"): _text(about, "birth", 40)}
        if min(supervisor) <= 1:
            raise place.PlaceError("job_damaged", name)
        processes.send(supervisor, CANCEL)
        _wait_for_end(jobs, name, STOP_WAIT_S)
        if _is_held(jobs, name):
            processes.send(supervisor, signal.SIGKILL)
            processes.exterminate(-1, _text(about, "key", 64) or name, time.monotonic() + STOP_WAIT_S)
            _wait_for_end(jobs, name, 1)
            if load(job, "end").get("state") not in ENDED and not _is_held(jobs, name):
                save_end(job, "stopped", 137)
    finally:
        os.close(job)
    return True


def tidy(jobs: int) -> None:
    """Remove ended jobs by age, number and size; never one that is running. For who has the turn."""
    ended = []
    for name in os.listdir(jobs):
        is_half_made = name.startswith("new-") and _is_id(name[4:])
        if (_is_id(name) or is_half_made) and _exists(jobs, name) and not _is_held(jobs, name):
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


def awake(request: Row) -> Row:
    """Tell whether the machine is still kept awake for jobs, and whether it need not be any more.

    Args:
        request: ``restored``: the interval has been put back since; then the note of it goes. ``watched``: jobs
            that were running when the session last heard of them; those that have ended are in the answer.
    """
    try:
        jobs = directory()
    except place.PlaceError:
        return {}  # the call itself has been carried out
    try:
        told = _awake(jobs, request["restored"])
        ended = [name for name in request["watched"] if _exists(jobs, name) and not _is_held(jobs, name)]
        told["ended"] = [_row(jobs, name) for name in ended]
        return told  # noqa: TRY300 - the directory is closed last
    except (OSError, place.PlaceError):
        return {}
    finally:
        os.close(jobs)


def _awake(jobs: int, restored: bool) -> Row:
    turn = guard(jobs)
    try:
        minutes = _number(load(jobs, "awake"), "minutes")
        if not minutes or running(jobs):
            return {"minutes": minutes, "over": False}
        if restored:
            os.unlink("awake", dir_fd=jobs)
            return {"minutes": 0, "over": False}
        return {"minutes": minutes, "over": True}
    finally:
        os.close(turn)


def keep_awake(jobs: int, minutes: int) -> int:
    """Note that the machine is to stay awake so long without a request; return what holds for all jobs."""
    minutes = max(minutes, _number(load(jobs, "awake"), "minutes"))
    save(jobs, "awake", {"minutes": minutes})
    return minutes
