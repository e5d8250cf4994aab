"""The ``bash_job`` tool."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_daytona_ws._approval.verdict import Answered, Approval
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.jobs import OFFSET_MAX, TAIL_LINES_MAX, JobOps, check_job_id
from langchain_daytona_ws.permissions import PermissionRequest
from langchain_daytona_ws.tools.base import WorkspaceTool, current_tool_call_id, told_to_the_model

DESCRIPTION = """\
See and stop background jobs, which bash starts with background: true.
- status: is it running, its exit code. list: all jobs.
- logs: the last lines (tail), or what follows an offset in bytes; the answer says where to read on.
- stop: end it with all that it started."""

LISTED = 30
COMMAND_SHOWN = 80


class JobInput(BaseModel):
    """Arguments of the ``bash_job`` tool."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["status", "logs", "stop", "list"]
    job_id: str | None = None
    tail: int | None = Field(default=None, ge=1, le=TAIL_LINES_MAX, description="logs: lines, default 100.")
    offset: int | None = Field(default=None, ge=0, le=OFFSET_MAX, description="logs: from this byte on.")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.action != "list" and self.job_id is None:
            raise ValueError(f"{self.action} needs job_id")
        if self.tail is not None and self.offset is not None:
            raise ValueError("give tail or offset, not both")
        return self


class BashJobTool(WorkspaceTool):
    """Let a model see and stop the background jobs of a `WorkspaceSession`.

    Only ``stop`` asks. The artifact is the `Job` or `JobLog` as a dict, of a list ``{"jobs": [...]}``.

    Args:
        session: Whose jobs, and whom to ask.
    """

    name: str = "bash_job"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = JobInput

    def _run(self, *, config: RunnableConfig, **given: Any) -> tuple[str, dict[str, Any]]:
        wanted = JobInput.model_validate(given)
        with told_to_the_model():
            approval = self.session.gate.check(self._request(wanted), JobInput.model_validate)
            if isinstance(approval, Answered):
                return approval.content_and_artifact
            once = self._begin(config, dict(approval.arguments))
            return drive(self._perform(self.session.jobs.sync_ops, wanted, approval, once))

    async def _arun(self, *, config: RunnableConfig, **given: Any) -> tuple[str, dict[str, Any]]:
        wanted = JobInput.model_validate(given)
        with told_to_the_model():
            approval = await self.session.gate.acheck(self._request(wanted), JobInput.model_validate)
            if isinstance(approval, Answered):
                return approval.content_and_artifact
            once = self._begin(config, dict(approval.arguments))
            return await self._perform(self.session.jobs.async_ops, wanted, approval, once)

    def _request(self, wanted: JobInput) -> PermissionRequest:
        if wanted.job_id is not None:
            check_job_id(wanted.job_id)  # what is refused anyway is not worth a question
        return PermissionRequest.for_job(
            wanted.action,
            wanted.model_dump(exclude={"action"}, exclude_none=True),
            command=self.session.jobs.command_of(wanted.job_id or ""),
            namespace=self.session.namespace,
            tool_call_id=current_tool_call_id(),
        )

    async def _perform(
        self, ops: JobOps, wanted: JobInput, approval: Approval[JobInput], once: str | None
    ) -> tuple[str, dict[str, Any]]:
        text, result = await _operation(ops, approval.validated or wanted, once)
        notices = [*self.session.take_notices(), *([approval.note] if approval.note else [])]
        return "\n".join([*(f"[{notice}]" for notice in notices), text]), result


async def _operation(ops: JobOps, wanted: JobInput, once: str | None) -> tuple[str, dict[str, Any]]:
    job_id = wanted.job_id or ""
    match wanted.action:
        case "status":
            job = await ops.status(job_id)
            return job.text, asdict(job)
        case "logs":
            log = await ops.logs(job_id, tail_lines=wanted.tail, offset=wanted.offset, limit_bytes=None)
            return log.text, asdict(log)
        case "stop":
            job, was_running = await ops.stop(job_id, once=once)
            return (job.text if was_running else f"[it had ended before]\n{job.text}"), asdict(job)
        case "list":
            jobs = await ops.list()
            lines = [f"{job.summary}: {_short(job.command)}" for job in jobs[:LISTED]]
            if len(jobs) > LISTED:
                lines.append(f"[{len(jobs) - LISTED} older ones are not shown]")
            return "\n".join(lines) or "[there are no jobs]", {"jobs": [asdict(job) for job in jobs]}


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= COMMAND_SHOWN else line[: COMMAND_SHOWN - 1] + "…"
