"""Query, list and stop background jobs; report whether the sandbox must be kept alive for them."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # ``signal`` itself costs 4 ms of enum classes
import binascii
import os
import time

from langchain_daytona_ws._guest import dirs, job_log, job_store, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]

COMMAND_MAX = 2000  # maximum length of a command in an answer, in characters
STOP_WAIT_S = 10.0  # longer than a supervisor takes to kill the job's processes
CANCEL = signal.SIGUSR2


def main(request: Row) -> Row:
    jobs = job_store.directory()
    try:
        return _list(jobs) if request["op"] == "list" else _job(jobs, request)
    except FileNotFoundError:
        return {"error": "no_job"}  # another call has removed the job
    finally:
        os.close(jobs)


def _list(jobs: int) -> Row:
    lock = job_store.lock_list(jobs)
    job_store.prune(jobs)
    os.close(lock)
    rows = []
    for name in job_store.names(jobs):
        try:
            rows.append(_row(jobs, name))
        except FileNotFoundError:
            continue  # another call has removed the job
    return {"jobs": rows}


def _job(jobs: int, request: Row) -> Row:
    op, name = request["op"], request["id"]
    if not job_store.is_id(name) or not job_store.exists(jobs, name):
        return {"error": "no_job"}
    answer: Row = {}
    if op == "stop":
        answer["was_running"] = _stop(jobs, name)
    elif op == "status":
        _wait_for_end(jobs, name, request["wait_s"])
    elif op == "logs" and request.get("wait_s"):
        _wait_for_output(jobs, name, request["offset"], request["wait_s"])
    # Read the state before the log: if the state says that the job has ended, the log is complete.
    answer["job"] = _row(jobs, name)
    if op == "logs":
        answer.update(_logs(jobs, request))
    return answer


def _row(jobs: int, name: str) -> Row:
    """Return a job's state. If the job is lost and this is not recorded yet, call `_mark_lost` first."""
    # Check the lock before the end is read: a supervisor records the end before it releases the lock.
    has_supervisor = job_store.has_supervisor(jobs, name)
    job = job_store.open_job(jobs, name)
    try:
        about, end = job_store.load(job, "about"), job_store.load(job, "end")
        if end.get("state") not in job_store.ENDED:
            end = {"state": "running"} if has_supervisor else _mark_lost(jobs, job, name, about)
        latest = job_store.load(job, "shell") if end["state"] == "running" else end
        exit_code = latest.get("exit_code")
        row = {
            "id": name,
            "state": end["state"],
            "command": job_store.text_of(about, "command", COMMAND_MAX),
            "started_ms": job_store.number_of(about, "started_ms"),
            "ends_ms": job_store.number_of(about, "ends_ms"),
            "ended_ms": job_store.number_of(end, "ended_ms"),
            "exit_code": exit_code if type(exit_code) is int else None,
            "duration_ms": max(
                0,
                (job_store.number_of(end, "ended_ms") or job_store.now_ms())
                - job_store.number_of(about, "started_ms"),
            ),
            "reason": job_store.text_of(end, "reason", 200),
            "log_bytes": job_log.size(job),
        }
        if end.get("pipeline"):
            row["pipeline"] = end["pipeline"]
        if end.get("unsaved"):
            row["unsaved"] = True
        return row
    finally:
        os.close(job)


def _mark_lost(jobs: int, job: int, name: str, about: Row) -> Row:
    """Record that a job is lost. If it began in the current boot of the sandbox, first kill its processes.

    If the job's record is damaged, no process is killed. Return the record of the job's end, which another call may
    have written first.
    """
    lock = job_store.lock_list(jobs)
    try:
        end = job_store.load(job, "end")
        if end.get("state") in job_store.ENDED:
            return end
        if about.get("boot") == job_store.boot():
            reason = "its supervisor was killed"
            processes.kill_tree(
                -1, job_store.text_of(about, "key", 64) or name, time.monotonic() + STOP_WAIT_S
            )
        elif about:
            reason = "the machine was stopped or restarted"
        else:
            reason = "its record is damaged"
        try:
            job_store.save_end(job, "lost", None, reason)
        except OSError:
            pass  # a full disk: the next call tries again
        return {"state": "lost", "reason": reason, "ended_ms": job_store.now_ms()}
    finally:
        os.close(lock)


def _wait_for_end(jobs: int, name: str, wait_s: float) -> None:
    until, pause = time.monotonic() + wait_s, 0.01
    while time.monotonic() < until and job_store.has_supervisor(jobs, name):
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


def _wait_for_output(jobs: int, name: str, offset: int, wait_s: float) -> None:
    until, pause = time.monotonic() + wait_s, 0.01
    job = job_store.open_job(jobs, name)
    try:
        while (
            time.monotonic() < until and job_log.size(job) <= offset and job_store.has_supervisor(jobs, name)
        ):
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)
    finally:
        os.close(job)


def _logs(jobs: int, request: Row) -> Row:
    job = job_store.open_job(jobs, request["id"])
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
    """Stop a job, and return whether it was running.

    Ask the supervisor to kill the job's processes, push their files if the workspace is synchronised, and end. If the
    supervisor has not ended in time, kill the supervisor and these processes here.

    Raises:
        SetupError: ``job_damaged``: the job's record does not name the supervisor.
    """
    if not job_store.has_supervisor(jobs, name):
        return False
    job = job_store.open_job(jobs, name)
    try:
        about = job_store.load(job, "about")
        supervisor = {job_store.number_of(about, "pid"): job_store.text_of(about, "birth", 40)}
        if min(supervisor) <= 1:
            raise dirs.SetupError("job_damaged", name)
        is_pushed = about.get("is_pushed") is True
        processes.send(supervisor, CANCEL)
        _wait_for_end(jobs, name, STOP_WAIT_S + (job_store.PUSH_WAIT_S if is_pushed else 0))
        if job_store.has_supervisor(jobs, name):
            processes.send(supervisor, signal.SIGKILL)
            processes.kill_tree(
                -1, job_store.text_of(about, "key", 64) or name, time.monotonic() + STOP_WAIT_S
            )
            _wait_for_end(jobs, name, 1)
            ended = job_store.load(job, "end").get("state") in job_store.ENDED
            if not ended and not job_store.has_supervisor(jobs, name):
                job_store.save_end(job, "stopped", 137, unsaved=is_pushed)
    finally:
        os.close(job)
    return True


def keep_alive(request: Row) -> Row:
    """Return the state of the sandbox's auto-stop interval, which is raised while jobs run.

    Args:
        request: ``restored``: True if the host has restored the interval; then the record of the raised interval is
            removed, if no job runs. ``watched``: ids of the jobs that were running at the session's last call.

    Returns:
        ``minutes``: the raised interval; 0 if it is not raised. ``over``: True if the host should restore the interval,
        because no job runs. ``ended``: the watched jobs that have ended and were not removed. The answer is empty if
        the state cannot be read.
    """
    try:
        jobs = job_store.directory()
    except dirs.SetupError:
        return {}  # the call itself has succeeded
    try:
        state = _keep_alive(jobs, request["restored"])
        ended = [
            name
            for name in request["watched"]
            if job_store.exists(jobs, name) and not job_store.has_supervisor(jobs, name)
        ]
        state["ended"] = [_row(jobs, name) for name in ended]
        return state  # noqa: TRY300 - the directory is closed last
    except (OSError, dirs.SetupError):
        return {}
    finally:
        os.close(jobs)


def _keep_alive(jobs: int, restored: bool) -> Row:
    lock = job_store.lock_list(jobs)
    try:
        minutes = job_store.number_of(job_store.load(jobs, "keep_alive"), "minutes")
        if not minutes or job_store.running(jobs):
            return {"minutes": minutes, "over": False}
        if restored:
            os.unlink("keep_alive", dir_fd=jobs)
            return {"minutes": 0, "over": False}
        return {"minutes": minutes, "over": True}
    finally:
        os.close(lock)
