"""What is known of a background job, and reading it out of an answer that a hostile sandbox may have made up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from langchain_daytona_ws._core.commands.pipelines import parts_to_tell
from langchain_daytona_ws._core.files.models import Reply
from langchain_daytona_ws.errors import JobError

JobState = Literal["running", "finished", "stopped", "timed_out", "lost"]

_ID = re.compile(r"[a-km-np-z2-9]{8}", re.ASCII)
_COMMAND_MAX = 2000
_EXIT_CODE_MAX = 255


@dataclass(frozen=True, slots=True)
class Job:
    """A background job. Times are Unix seconds on the sandbox's clock.

    Attributes:
        id: Its name in this workspace's sandbox.
        state: ``"running"``; ``"finished"`` by itself; ``"stopped"``; ``"timed_out"``, stopped because its time was up;
            ``"lost"``, ended by a stop of the machine or a kill of its supervisor.
        command: The first 2,000 characters of it.
        exit_code: Of its shell, once that has ended; 130 when stopped, 124 when timed out, None when lost.
        started_at: When its command started.
        ends_at: When it is stopped at the latest.
        ended_at: When it ended; None while it runs.
        duration_s: Seconds for which it has run.
        log_bytes: Size of what it has printed.
        reason: How it was lost.
        pipeline: As in `CommandResult`.
        notices: What the model should know beside.
        sandbox_id: Where it runs.
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
        """One line about it, as the model reads it."""
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
        """All about it, as the model reads it."""
        return "\n".join([*(f"[{notice}]" for notice in self.notices), f"[{self.summary}]"])


@dataclass(frozen=True, slots=True)
class JobLog:
    """A piece of a job's output, without a gap.

    Attributes:
        job: As it was just before the log was read.
        output: Bytes that are no UTF-8 are replaced.
        offset: Where the piece begins, in bytes from the job's start; later than asked for where the log has a gap.
        next_offset: Where to read on.
        size_bytes: Size of all that the job had printed.
        notices: What the model should know beside.
        hint: What works instead, where it failed as commands do in an S3 workspace.
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
        """The piece as the model reads it, with where it lies and how to read on."""
        where = f"bytes {self.offset:,} to {self.next_offset:,} of {self.size_bytes:,}"
        more = f"; read on with offset={self.next_offset}" if self.is_more_to_come else ""
        output = [self.output.rstrip("\n")] if self.output else []
        notices = (f"[{notice}]" for notice in self.notices)
        hint = [f"[hint: {self.hint}]"] if self.hint else []
        return "\n".join([*notices, *output, *hint, f"[{where}{more}]", f"[{self.job.summary}]"])

    @property
    def is_more_to_come(self) -> bool:
        return self.job.is_running or self.next_offset < self.size_bytes


def is_job_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None


def read_job(row: object, sandbox_id: str) -> Job:
    """Read one job of an answer.

    Raises:
        SandboxError: It is none.
    """
    reply = Reply("job", row)
    state = reply.raw("state")
    if state not in get_args(JobState):
        raise reply.garbled("state")
    exit_code = None if _is_null(row, "exit_code") else _exit_code(reply)
    told = row.get("pipeline") if isinstance(row, Mapping) and state == "finished" else None
    return Job(
        id=read_id(reply),
        state=cast("JobState", state),
        command=reply.text("command", _COMMAND_MAX),
        exit_code=exit_code,
        pipeline=() if exit_code is None else parts_to_tell(told, exit_code),
        started_at=reply.number("started_ms") / 1000,
        ends_at=reply.number("ends_ms") / 1000,
        ended_at=None if state == "running" else reply.number("ended_ms") / 1000,
        duration_s=reply.number("duration_ms") / 1000,
        log_bytes=reply.number("log_bytes"),
        reason=reply.text("reason", 200),
        sandbox_id=sandbox_id,
    )


def read_started(row: object, command: str, sandbox_id: str) -> Job:
    """Read what an answer says of a job that was just begun."""
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
        raise reply.garbled("id")
    return name


def _is_null(row: object, name: str) -> bool:
    return isinstance(row, Mapping) and row.get(name) is None


def _exit_code(reply: Reply) -> int:
    code = reply.number("exit_code")
    if code > _EXIT_CODE_MAX:
        raise reply.garbled("exit_code")
    return code


def no_such_job(job_id: str) -> JobError:
    """Say that a job is not there."""
    return JobError(
        f"There is no job {job_id[:20]!r} in the workspace's sandbox: mistyped, ended more than 7 days or 50 jobs ago, "
        "or of a sandbox that is gone.",
        code="no_job",
        op="job",
        for_model=f"There is no job {job_id[:20]!r}. See the list of jobs: bash_job, action list.",
    )


def too_many_jobs(detail: str) -> JobError:
    """Say which jobs run, of the names that a sandbox gave."""
    names = ", ".join(name for name in detail.split() if is_job_id(name))
    return JobError(
        f"As many background jobs as may are running in the sandbox: {names}. Stop one, or wait for one to end.",
        code="jobs_full",
        op="job",
        retryable=True,
        for_model=f"10 jobs are running: {names}. Nothing ran. Stop one with bash_job, or wait for one to end.",
    )


def damaged_job(job_id: str) -> JobError:
    """Say that a job runs and that its record does not tell how to end it."""
    return JobError(
        f"The record of job {job_id[:20]!r} on the sandbox's disk is damaged, so that it cannot be stopped. End its "
        "processes with a command, or delete the sandbox.",
        code="job_damaged",
        op="job",
        for_model=f"The record of job {job_id[:20]!r} is damaged. End its processes with bash (ps, kill).",
    )
