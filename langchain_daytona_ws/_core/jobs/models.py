"""Background jobs and their logs, read from answers that may be forged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from langchain_daytona_ws._core.answer import Reply
from langchain_daytona_ws._core.commands.pipelines import relevant_exit_codes
from langchain_daytona_ws.errors import JobError
from langchain_daytona_ws.permissions import legible

LineKind = Literal["output", "notice", "end"]
JobState = Literal["running", "finished", "stopped", "timed_out", "lost"]

UNSAVED = "when the job ended, not all of its files could be saved in S3; the next bash call saves them"

_ID = re.compile(r"[a-km-np-z2-9]{8}", re.ASCII)
_COMMAND_MAX = 2000
_EXIT_CODE_MAX = 255
_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Job:
    """A background job. Times are Unix seconds on the sandbox's clock.

    Attributes:
        id: The job's name, unique in the sandbox of the workspace.
        state: ``"running"``; ``"finished"``: the command ended by itself; ``"stopped"``: a call stopped it;
            ``"timed_out"``: it was stopped at its time limit; ``"lost"``: the sandbox was stopped or deleted, the
            process that supervises the job was killed, or the job's record is damaged.
        command: The first 2,000 characters of the command.
        exit_code: Exit code of the job's shell: 124 if the job timed out, 130 if it was stopped, 137 if its supervisor
            did not react to the stop. None until the shell has ended, and if the job is lost.
        started_at: Time at which the command started.
        ends_at: Time at which the job is stopped if it still runs.
        ended_at: Time at which the job ended; None while it runs.
        duration_s: Duration so far, in seconds.
        log_bytes: Size of the output so far.
        reason: Why the job is lost; ``""`` in other states.
        pipeline: Exit codes of the last pipeline, as in `CommandResult`.
        notices: Further facts for the model.
        sandbox_id: The sandbox in which the job runs.
    """

    id: str
    state: JobState
    command: str = ""
    exit_code: int | None = None
    started_at: float = 0.0
    ends_at: float = 0.0
    ended_at: float | None = None
    duration_s: float = 0.0
    log_bytes: int = 0
    reason: str = ""
    pipeline: tuple[int, ...] = ()
    notices: tuple[str, ...] = ()
    sandbox_id: str = ""

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    @property
    def summary(self) -> str:
        """One line about the job, for the model."""
        code = "" if self.exit_code is None else f", exit code {self.exit_code}"
        if self.pipeline:
            code += f" (in the pipeline: {', '.join(map(str, self.pipeline))})"
        for_s = f"{self.duration_s:.0f} s"
        about = {
            "running": f"running for {for_s}" + (", its shell has ended" + code if code else ""),
            "finished": f"finished after {for_s}{code}",
            "stopped": f"stopped after {for_s}{code}",
            "timed_out": f"stopped after {for_s}, when its time was up{code}",
            "lost": f"lost: {self.reason}",
        }[self.state]
        return f"job {self.id} {about}, {self.log_bytes:,} bytes of output"

    @property
    def text(self) -> str:
        """The notices and the summary, for the model."""
        return "\n".join([*(f"[{notice}]" for notice in self.notices), f"[{self.summary}]"])


@dataclass(frozen=True, slots=True)
class JobLog:
    """A piece of a job's output, without a gap.

    Attributes:
        job: The job's state just before the log was read.
        output: The text; bytes that are not UTF-8 are replaced.
        offset: Start of the piece, in bytes from the start of the output. It is later than requested if the requested
            bytes are not kept: the middle of a long log is left out. If the requested offset is past the end of the
            output, it is this end.
        next_offset: Start of the next piece.
        size_bytes: Size of the whole output so far.
        notices: Further facts for the model.
        hint: A working alternative, if the failure is typical of a mounted S3 workspace; otherwise None.
    """

    job: Job
    output: str
    offset: int
    next_offset: int
    size_bytes: int
    notices: tuple[str, ...] = ()
    hint: str | None = None

    @property
    def text(self) -> str:
        """The piece for the model, with its position and the offset of the next piece."""
        where = f"bytes {self.offset:,} to {self.next_offset:,} of {self.size_bytes:,}"
        more = f"; read on with offset={self.next_offset}" if self.is_more_to_come else ""
        output = [self.output.rstrip("\n")] if self.output else []
        notices = (f"[{notice}]" for notice in self.notices)
        hint = [f"[hint: {self.hint}]"] if self.hint else []
        return "\n".join([*notices, *output, *hint, f"[{where}{more}]", f"[{self.job.summary}]"])

    @property
    def is_more_to_come(self) -> bool:
        return self.job.is_running or self.next_offset < self.size_bytes


@dataclass(frozen=True, slots=True)
class JobLine:
    """A line of a job's output, or an event between the lines, see `WorkspaceJobs.follow`.

    Attributes:
        kind: ``"output"``: a line of output; ``"notice"``: an event, such as a restart of the sandbox; ``"end"``: the
            end of the job, after which nothing follows.
        text: The line of output with its line break, if any; or a sentence about the event, without a line break.
        next_offset: Offset after this line, at which `WorkspaceJobs.follow` can continue.
        job: The job's state when the line was read.
    """

    kind: LineKind
    text: str
    next_offset: int
    job: Job


@dataclass(frozen=True, slots=True)
class LogPiece:
    """A piece of a job's output as bytes; the other fields are those of `JobLog`."""

    job: Job
    data: bytes
    offset: int
    size_bytes: int


def is_job_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None


def read_job(row: object, sandbox_id: str) -> Job:
    """Read one job of an answer; raise `UnreadableAnswer` if it is invalid."""
    reply = Reply("job", row)
    state = reply.raw("state")
    if state not in get_args(JobState):
        raise reply.malformed("state")
    exit_code = None if _is_null(row, "exit_code") else _exit_code(reply)
    pipeline = row.get("pipeline") if isinstance(row, Mapping) and state == "finished" else None
    return Job(
        id=read_id(reply),
        state=cast("JobState", state),
        command=reply.text("command", _COMMAND_MAX),
        exit_code=exit_code,
        pipeline=() if exit_code is None else relevant_exit_codes(pipeline, exit_code),
        started_at=reply.number("started_ms") / 1000,
        ends_at=reply.number("ends_ms") / 1000,
        ended_at=None if state == "running" else reply.number("ended_ms") / 1000,
        duration_s=reply.number("duration_ms") / 1000,
        log_bytes=reply.number("log_bytes"),
        reason=legible.one_line(reply.text("reason", _REASON_CHARS), _REASON_CHARS, double_backslash=False),
        notices=(UNSAVED,) if isinstance(row, Mapping) and row.get("unsaved") is True else (),
        sandbox_id=sandbox_id,
    )


def read_started(row: object, command: str, sandbox_id: str) -> Job:
    reply = Reply("job", row)
    return Job(
        id=read_id(reply),
        state="running",
        command=command[:_COMMAND_MAX],
        started_at=reply.number("started_ms") / 1000,
        ends_at=reply.number("ends_ms") / 1000,
        sandbox_id=sandbox_id,
    )


def read_id(reply: Reply) -> str:
    name = reply.raw("id")
    if not is_job_id(name):
        raise reply.malformed("id")
    return name


def _is_null(row: object, name: str) -> bool:
    return isinstance(row, Mapping) and row.get(name) is None


def _exit_code(reply: Reply) -> int:
    code = reply.number("exit_code")
    if code > _EXIT_CODE_MAX:
        raise reply.malformed("exit_code")
    return code


def no_such_job(job_id: str) -> JobError:
    return JobError(
        f"There is no job {job_id[:20]!r} in the workspace's sandbox: it is mistyped, ended more than 7 days or "
        "50 jobs ago, was removed because the logs exceed 256 MiB, or belonged to a sandbox that is gone.",
        code="no_job",
        op="job",
        for_model=f"There is no job {job_id[:20]!r}. See the list of jobs: bash_job, action list.",
    )


def too_many_jobs(detail: str) -> JobError:
    """Return the error for a sandbox with the maximum number of jobs, whose ids ``detail`` contains."""
    names = ", ".join(name for name in detail.split() if is_job_id(name))
    return JobError(
        f"The limit of background jobs in the sandbox is reached. Running: {names}. Stop one, or wait for one to end.",
        code="jobs_full",
        op="job",
        retryable=True,
        for_model=f"10 jobs are running: {names}. Nothing ran. Stop one with bash_job, or wait for one to end.",
    )


def damaged_job(job_id: str) -> JobError:
    return JobError(
        f"The record of job {job_id[:20]!r} on the sandbox's disk is damaged, so that it cannot be stopped. End its "
        "processes with a command, or delete the sandbox.",
        code="job_damaged",
        op="job",
        for_model=f"The record of job {job_id[:20]!r} is damaged. End its processes with bash (ps, kill).",
    )
