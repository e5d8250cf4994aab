"""Background jobs: started, looked at, stopped, listed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import NoReturn

from langchain_daytona_ws._core.answer import Answer, decode_base64
from langchain_daytona_ws._core.commands.characters import whole_end, whole_start
from langchain_daytona_ws._core.commands.run import LOG_LIMIT_BYTES, check_command, facts_of_request
from langchain_daytona_ws._core.files.models import Reply
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.jobs.keep_alive import JOB_MAX_S, JobTracker
from langchain_daytona_ws._core.jobs.models import (
    Job,
    JobLog,
    is_job_id,
    no_such_job,
    read_job,
    read_started,
)
from langchain_daytona_ws.errors import CommandRefused

JOB_DEFAULT_S = 3600.0
TAIL_LINES = 100
TAIL_LINES_MAX = 10_000
LOG_PIECE_MIN_BYTES = 64  # room for a character whatever it is
OFFSET_MAX = 1 << 52
JOBS_MAX = 1000
CALL_S = 30.0
# Longer than a supervisor takes to end a tree, and than being waited for takes to end it in its place.
STOP_S = 40.0
# One request waits so long in the sandbox for a job's end.
WAIT_CALL_S = 20.0
COMMAND_SHOWN = 2000
SAID_MAX = 2000
REPLAYED = "this call was made before: this is the job that it started then"
STOPPED_BEFORE = "this call was made before: this is what came of it then"


class JobOps:
    """Operations on the jobs of one workspace.

    Args:
        client: Returns a client for the sandbox's guest programs.
        watch: What the session knows of its jobs.
        root: The workspace directory.
        limit_bytes: Most bytes of a log to return at once.
        defaults: Environment variables of the commands, where nobody has set them.
        remarks: Says what the model should know of a job that was just started.
        advise: Gives the hint for a command, what it printed and its exit code, or 0 while it runs.
    """

    def __init__(
        self,
        client: Callable[[], Awaitable[GuestClient]],
        watch: JobTracker,
        *,
        root: str,
        limit_bytes: int,
        defaults: Mapping[str, str] | None,
        remarks: Callable[[Job], tuple[str, ...]],
        advise: Callable[[str, str, int], str | None] = lambda command, output, exit_code: None,
    ) -> None:
        self._client = client
        self._watch = watch
        self._root = root
        self._limit_bytes = limit_bytes
        self._defaults = dict(defaults or {})
        self._remarks = remarks
        self._advise = advise

    async def start(self, command: str, *, max_duration_s: float | None, idempotency_key: str | None) -> Job:
        """Start a command as a job.

        Raises:
            CommandRefused: Before any request; or bash finds its syntax wrong, and nothing of it ran.
            JobError: As many are running as may, ``code="jobs_full"``.
            WorkspaceError: As `GuestClient.call` raises.
        """
        max_duration_s = JOB_DEFAULT_S if max_duration_s is None else max_duration_s
        check_command(command)
        check_idempotency_key(idempotency_key)
        if not 0 < max_duration_s <= JOB_MAX_S:
            raise CommandRefused(
                f"A job's time must be above 0 and at most {JOB_MAX_S:.0f} seconds.", code="timeout_range"
            )
        client = await self._client()
        request: Answer = {
            "mode": "run",
            "key": idempotency_key or client.new_key(),
            "root": self._root,
            "command": command,
            "timeout_s": 0.0,
            "limit_bytes": self._limit_bytes,
            "log_limit_bytes": LOG_LIMIT_BYTES,
            "defaults": self._defaults,
            "job": job_request(command, max_duration_s, self._watch, at_once=True),
            **facts_of_request(client, command),
        }
        answer = await client.call("command", request, timeout_s=CALL_S, life_s=max_duration_s, killable=True)
        if answer.get("outcome") != "job":
            _refuse_syntax(answer)
        job = read_started(answer.get("job"), command, client.sandbox_id)
        if answer.get("replayed") is True:
            job = replace(await self.status(job.id), notices=(REPLAYED,))
        return replace(job, notices=(*job.notices, *self._remarks(job)))

    async def status(self, job_id: str, *, wait_s: float = 0.0) -> Job:
        """Tell what a job is doing, after waiting for its end for a while."""
        return (await self._one("status", job_id, CALL_S + wait_s, wait_s=wait_s))[1]

    async def join(self, job_id: str, *, timeout_s: float | None) -> Job:
        """Wait until a job has ended, or for so long; each request keeps the workspace's credentials fresh."""
        client = await self._client()
        until = None if timeout_s is None else client.now() + timeout_s
        while True:
            left_s = WAIT_CALL_S if until is None else min(WAIT_CALL_S, max(0.0, until - client.now()))
            job = await self.status(job_id, wait_s=left_s)
            if not job.is_running or (until is not None and client.now() >= until):
                return job

    async def stop(self, job_id: str, *, idempotency_key: str | None = None) -> tuple[Job, bool]:
        """Stop a job; return it, and whether it was running.

        Args:
            job_id: The job.
            idempotency_key: Called again with the same key, it returns the first result.
        """
        check_idempotency_key(idempotency_key)
        named: dict[str, object] = {} if idempotency_key is None else {"key": idempotency_key}
        answer, job = await self._one("stop", job_id, STOP_S, **named)
        reply = Reply("stop", answer)
        if reply.is_replayed:
            job = replace(job, notices=(*job.notices, STOPPED_BEFORE))
        return job, reply.flag("was_running")

    async def list(self) -> tuple[Job, ...]:
        """Return all jobs that are known, those that started last first."""
        answer, sandbox_id = await self._call({"op": "list"}, CALL_S)
        rows = answer.get("jobs")
        if not isinstance(rows, list) or len(rows) > JOBS_MAX:
            raise Reply("list", answer).garbled("jobs")
        jobs = [self._seen(row, sandbox_id) for row in rows]
        return tuple(sorted(jobs, key=lambda job: job.started_at, reverse=True))

    async def logs(
        self, job_id: str, *, tail_lines: int | None, offset: int | None, limit_bytes: int | None
    ) -> JobLog:
        """Return a piece of what a job has printed.

        Raises:
            CommandRefused: A number is out of range, or both a tail and an offset are asked for.
            JobError: There is no such job.
        """
        limit_bytes = self._limit_bytes if limit_bytes is None else limit_bytes
        _check_range("limit_bytes", limit_bytes, LOG_PIECE_MIN_BYTES, self._limit_bytes)
        if tail_lines is not None:
            _check_range("The tail", tail_lines, 1, TAIL_LINES_MAX)
        if offset is not None:
            _check_range("The offset", offset, 0, OFFSET_MAX)
            if tail_lines is not None:
                raise CommandRefused("Give a tail or an offset, not both.", code="log_range")
        wanted = {"offset": offset, "tail_lines": tail_lines or TAIL_LINES, "limit_bytes": limit_bytes}
        answer, job = await self._one("logs", job_id, CALL_S, **wanted)
        log = _log(answer, job, limit_bytes, asked=offset)
        return replace(log, hint=self._advise(job.command, log.output, job.exit_code or 0))

    def command_of(self, job_id: str) -> str | None:
        """Return the command of a job that this session knows to run."""
        return self._watch.command_of(job_id)

    async def _one(self, op: str, job_id: str, timeout_s: float, **more: object) -> tuple[Answer, Job]:
        check_job_id(job_id)
        answer, sandbox_id = await self._call({"op": op, "id": job_id, **more}, timeout_s)
        if answer.get("error") == "no_job":
            raise no_such_job(job_id)
        job = self._seen(answer.get("job"), sandbox_id)
        if job.id != job_id:
            raise Reply(op, answer).garbled("id")
        return answer, job

    async def _call(self, request: Answer, timeout_s: float) -> tuple[Answer, str]:
        client = await self._client()
        answer = await client.call("jobs", {"root": self._root, **request}, timeout_s=timeout_s)
        return answer, client.sandbox_id

    def _seen(self, row: object, sandbox_id: str) -> Job:
        job = read_job(row, sandbox_id)
        self._watch.record(job)
        return job


def job_request(
    command: str, max_duration_s: float, watch: JobTracker, *, at_once: bool
) -> dict[str, object]:
    """Say in a command's request how it is to be a job: at once, or when its time is up."""
    return {
        "at_once": at_once,
        "max_duration_s": float(max_duration_s),
        "awake_minutes": watch.minutes_for(max_duration_s),
        "command": command[:COMMAND_SHOWN],
    }


def check_idempotency_key(key: str | None) -> None:
    """Refuse an invalid idempotency key."""
    if key is not None and not (key.isascii() and key.isalnum() and len(key) <= 64):
        raise CommandRefused(
            "The idempotency key must be 1 to 64 letters and digits.", code="idempotency_key"
        )


def check_job_id(job_id: str) -> None:
    """Refuse what cannot be a job's id, before any request or question."""
    if not is_job_id(job_id):
        raise no_such_job(job_id)


def _refuse_syntax(answer: Answer) -> NoReturn:
    said = decode_base64(answer.get("head"))[:SAID_MAX].decode("utf-8", "replace").strip()
    raise CommandRefused(
        f"bash does not understand the command, so that nothing of it ran: {said}", code="command_syntax"
    )


def _log(answer: Answer, job: Job, limit_bytes: int, *, asked: int | None) -> JobLog:
    reply = Reply("logs", answer)
    data, offset, size = decode_base64(answer.get("data")), reply.number("offset"), reply.number("size_bytes")
    if len(data) > limit_bytes or offset + len(data) > size:
        raise reply.garbled("data")
    piece = whole_start(data) if offset and asked is None else data
    offset += len(data) - len(piece)
    if job.is_running or offset + len(piece) < size:
        piece = whole_end(piece)  # the rest of a character comes with the next piece
    notices: tuple[str, ...] = ()
    if asked is not None and offset > asked:
        notices = (
            f"{offset - asked:,} bytes before this are not kept: of a long log, the middle is left out",
        )
    return JobLog(
        job=job,
        output=piece.decode("utf-8", "replace"),
        offset=offset,
        next_offset=offset + len(piece),
        size_bytes=size,
        notices=notices,
    )


def _check_range(what: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not least <= value <= most:
        raise CommandRefused(f"{what} must be from {least:,} to {most:,}.", code="log_range")
