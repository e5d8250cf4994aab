"""Start, stop and list background jobs, wait for them, and read their logs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NoReturn

from langchain_daytona_ws._core.answer import Answer, Reply, decode_base64
from langchain_daytona_ws._core.commands.characters import whole_end, whole_start
from langchain_daytona_ws._core.commands.run import (
    check_command,
    check_idempotency_key,
    optional_fields,
)
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.jobs.keep_alive import JobTracker
from langchain_daytona_ws._core.jobs.models import (
    Job,
    JobLog,
    LogPiece,
    is_job_id,
    no_such_job,
    read_job,
    read_started,
)
from langchain_daytona_ws._core.limits import (
    JOB_DEFAULT_S,
    JOB_MAX_S,
    LOG_LIMIT_BYTES,
    OFFSET_MAX,
    TAIL_LINES_MAX,
    check_range,
)
from langchain_daytona_ws._core.sync.report import read_report
from langchain_daytona_ws.errors import CommandRefused, JobError, WorkspaceError

TAIL_LINES = 100
LOG_PIECE_MIN_BYTES = 64  # longer than any character
JOBS_MAX = 1000  # in one answer
CALL_S = 30.0
# With `MARGIN_S`, longer than it takes to kill all processes of a job, to push their files, and to kill a supervisor
# that hangs.
STOP_S = 40.0
READ_ON_PAUSE_S = 1.0  # minimum time for a request that waits for output and returns none
WAIT_CALL_S = 20.0  # maximum time for which one request waits for a job's end
COMMAND_SHOWN = 2000
SYNTAX_ERROR_MAX_BYTES = 2000
STARTED_BEFORE = "this call was made before: this is the job that it started then"
STATE_UNKNOWN = "its present state could not be read: it may have ended since"
STOPPED_BEFORE = "this call was made before: this is its recorded result"

_bad_range = partial(CommandRefused, code="log_range")


class JobOps:
    """Operations on the jobs of one workspace.

    Args:
        client: Returns the client for calls to the sandbox.
        tracker: Keeps the sandbox running for the jobs.
        root: The workspace directory.
        limit_bytes: Maximum number of bytes of a log to return at once.
        defaults: Environment variables to set if the sandbox has no variable of the same name.
        remarks: Returns notices for the model about a job that `start` returns.
        starts: Returns the number of known starts of the sandbox.
        advise: Returns a hint, or None, for a command, its output and its exit code (0 if there is no exit code).
    """

    def __init__(
        self,
        client: Callable[[], Awaitable[GuestClient]],
        tracker: JobTracker,
        *,
        root: str,
        limit_bytes: int,
        defaults: Mapping[str, str] | None,
        remarks: Callable[[Job], tuple[str, ...]],
        starts: Callable[[], int] = lambda: 0,
        advise: Callable[[str, str, int], str | None] = lambda command, output, exit_code: None,
    ) -> None:
        self._client = client
        self._tracker = tracker
        self._root = root
        self._limit_bytes = limit_bytes
        self._defaults = dict(defaults or {})
        self._remarks = remarks
        self.starts = starts
        self._advise = advise

    async def start(self, command: str, *, max_duration_s: float | None, idempotency_key: str | None) -> Job:
        """Start a command as a job.

        Raises:
            CommandRefused: An argument is invalid, bash found a syntax error, or the idempotency key belongs to a call
                that started no job. Nothing ran now.
            JobError: 10 jobs are running (``code="jobs_full"``), or the idempotency key belongs to a call whose job is
                not recorded any more (``code="no_job"``). Nothing ran now.
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
            "job": job_request(command, max_duration_s, self._tracker, at_once=True),
            **optional_fields(client, command),
        }
        answer, sandbox_id = await client.call(
            "command", request, timeout_s=CALL_S, life_s=max_duration_s, killable=True
        )
        if answer.get("syntax_error") is True:
            _refuse_syntax(answer)
        if answer.get("outcome") != "job":
            raise CommandRefused(
                "The idempotency key belongs to an earlier call that started no job. Nothing ran now. Use another key.",
                code="idempotency_key",
            )
        job = read_started(answer.get("job"), command, sandbox_id)
        if answer.get("from_record") is True:
            job = await self._started_before(job)
        report = None if answer.get("sync") is None else read_report(answer["sync"])
        synchronised = () if report is None or report.is_pending else report.notices
        return replace(job, notices=(*synchronised, *job.notices, *self._remarks(job)))

    async def _started_before(self, job: Job) -> Job:
        """Return the present state of a job that an earlier call started; its state at the start if that fails."""
        try:
            return replace(await self.status(job.id), notices=(STARTED_BEFORE,))
        except JobError:
            raise
        except WorkspaceError:  # the job was started: an error could cause a second start
            return replace(job, notices=(STARTED_BEFORE, STATE_UNKNOWN))

    async def status(self, job_id: str, *, wait_s: float = 0.0) -> Job:
        """Wait for a job's end, at most ``wait_s`` seconds, and return its state."""
        return (await self._job_call("status", job_id, CALL_S + wait_s, wait_s=wait_s))[1]

    async def join(self, job_id: str, *, timeout_s: float | None) -> Job:
        """Wait for a job's end, at most ``timeout_s`` seconds (None: no limit), and return its state.

        In a mounted S3 workspace, each request while waiting also renews credentials that end soon.
        """
        client = await self._client()
        until = None if timeout_s is None else client.now() + timeout_s
        while True:
            left_s = WAIT_CALL_S if until is None else min(WAIT_CALL_S, max(0.0, until - client.now()))
            job = await self.status(job_id, wait_s=left_s)
            if not job.is_running or (until is not None and client.now() >= until):
                return job

    async def stop(self, job_id: str, *, idempotency_key: str | None = None) -> tuple[Job, bool]:
        """Stop a job; return its state, and True if it was running before."""
        check_idempotency_key(idempotency_key)
        key = idempotency_key or (await self._client()).new_key()
        answer, job = await self._job_call("stop", job_id, STOP_S, key=key)
        reply = Reply("stop", answer)
        if reply.is_from_record:
            job = replace(job, notices=(*job.notices, STOPPED_BEFORE))
        return job, reply.flag("was_running")

    async def list(self) -> tuple[Job, ...]:
        """Return all jobs that the sandbox has recorded, the latest start first."""
        answer, sandbox_id = await self._call({"op": "list"}, CALL_S)
        rows = answer.get("jobs")
        if not isinstance(rows, list) or len(rows) > JOBS_MAX:
            raise Reply("list", answer).malformed("jobs")
        jobs = [self._recorded(row, sandbox_id) for row in rows]
        return tuple(sorted(jobs, key=lambda job: job.started_at, reverse=True))

    async def logs(
        self, job_id: str, *, tail_lines: int | None, offset: int | None, limit_bytes: int | None
    ) -> JobLog:
        """Return a piece of a job's output.

        Raises:
            CommandRefused: A number is out of range, or both a tail and an offset are given.
            JobError: There is no such job.
            WorkspaceError: As `GuestClient.call` raises.
        """
        limit_bytes = self._limit_bytes if limit_bytes is None else limit_bytes
        check_range("limit_bytes", limit_bytes, LOG_PIECE_MIN_BYTES, self._limit_bytes, _bad_range)
        _check_start(offset, tail_lines)
        piece = await self._read(job_id, offset, tail_lines or TAIL_LINES, limit_bytes)
        log = _log(piece, requested_offset=offset)
        return replace(log, hint=self._advise(log.job.command, log.output, log.job.exit_code or 0))

    async def read_on(
        self, job_id: str, *, offset: int | None, tail_lines: int | None, wait_s: float
    ) -> LogPiece:
        """Wait for output or the job's end, at most ``wait_s`` seconds, and return the next piece of the output.

        Raises:
            CommandRefused, JobError, WorkspaceError: As `logs` raises.
        """
        _check_start(offset, tail_lines)
        client = await self._client()
        began = client.now()
        piece = await self._read(job_id, offset, tail_lines or TAIL_LINES, self._limit_bytes, wait_s=wait_s)
        if wait_s and piece.job.is_running and not piece.data:
            # A hostile sandbox may answer at once.
            await client.sleep(max(0.0, READ_ON_PAUSE_S - (client.now() - began)))
        return piece

    async def _read(
        self, job_id: str, offset: int | None, tail_lines: int, limit_bytes: int, *, wait_s: float = 0.0
    ) -> LogPiece:
        wait = {"wait_s": wait_s} if wait_s else {}
        fields = {"offset": offset, "tail_lines": tail_lines, "limit_bytes": limit_bytes, **wait}
        answer, job = await self._job_call("logs", job_id, CALL_S + wait_s, **fields)
        return _piece(answer, job, limit_bytes)

    def command_of(self, job_id: str) -> str | None:
        return self._tracker.command_of(job_id)

    async def _job_call(self, op: str, job_id: str, timeout_s: float, **more: object) -> tuple[Answer, Job]:
        check_job_id(job_id)
        answer, sandbox_id = await self._call({"op": op, "id": job_id, **more}, timeout_s)
        if answer.get("error") == "no_job":
            raise no_such_job(job_id)
        job = self._recorded(answer.get("job"), sandbox_id)
        if job.id != job_id:
            raise Reply(op, answer).malformed("id")
        return answer, job

    async def _call(self, request: Answer, timeout_s: float) -> tuple[Answer, str]:
        client = await self._client()
        return await client.call("jobs", {"root": self._root, **request}, timeout_s=timeout_s)

    def _recorded(self, row: object, sandbox_id: str) -> Job:
        job = read_job(row, sandbox_id)
        self._tracker.record(job)
        return job


def job_request(
    command: str, max_duration_s: float, tracker: JobTracker, *, at_once: bool
) -> dict[str, object]:
    """Return the field ``job`` of a command's request.

    ``at_once`` is True to start the command as a job, False to make it a job at its time-out.
    """
    return {
        "at_once": at_once,
        "max_duration_s": float(max_duration_s),
        "awake_minutes": tracker.minutes_for(max_duration_s),
        "command": command[:COMMAND_SHOWN],
    }


def check_job_id(job_id: str) -> None:
    """Refuse an invalid job id before any request or approval."""
    if not is_job_id(job_id):
        raise no_such_job(job_id)


def _refuse_syntax(answer: Answer) -> NoReturn:
    message = decode_base64(answer.get("head"))[:SYNTAX_ERROR_MAX_BYTES].decode("utf-8", "replace").strip()
    raise CommandRefused(
        f"bash does not understand the command, so that nothing of it ran: {message}", code="command_syntax"
    )


def _piece(answer: Answer, job: Job, limit_bytes: int) -> LogPiece:
    reply = Reply("logs", answer)
    data, offset, size = decode_base64(answer.get("data")), reply.number("offset"), reply.number("size_bytes")
    if len(data) > limit_bytes or offset + len(data) > size:
        raise reply.malformed("data")
    return LogPiece(job, data, offset, size)


def _log(read: LogPiece, *, requested_offset: int | None) -> JobLog:
    data, offset = read.data, read.offset
    piece = whole_start(data) if offset and requested_offset is None else data
    offset += len(data) - len(piece)
    if read.job.is_running or offset + len(piece) < read.size_bytes:
        piece = whole_end(piece)  # an incomplete last character is left for the next piece
    notices: tuple[str, ...] = ()
    if requested_offset is not None and offset > requested_offset:
        notices = (left_out(offset - requested_offset),)
    return JobLog(
        job=read.job,
        output=piece.decode("utf-8", "replace"),
        offset=offset,
        next_offset=offset + len(piece),
        size_bytes=read.size_bytes,
        notices=notices,
    )


def left_out(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes before this are not kept: of a long log, the middle is left out"


def _check_start(offset: int | None, tail_lines: int | None) -> None:
    if tail_lines is not None:
        check_range("The tail", tail_lines, 1, TAIL_LINES_MAX, _bad_range)
    if offset is not None:
        check_range("The offset", offset, 0, OFFSET_MAX, _bad_range)
        if tail_lines is not None:
            raise CommandRefused("Give a tail or an offset, not both.", code="log_range")
