"""The ``bash_job`` tool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from langchain_daytona_ws._core.commands.run import shown_output
from langchain_daytona_ws._core.limits import OFFSET_MAX, TAIL_LINES_MAX
from langchain_daytona_ws._session.conversations import as_current
from langchain_daytona_ws.permissions import PermissionRequest
from langchain_daytona_ws.tools.arguments import Problem, ToolInput, by_foreign_name
from langchain_daytona_ws.tools.base import CallContext, ToolResult, WorkspaceTool

if TYPE_CHECKING:
    from langchain_daytona_ws._core.jobs.models import Job

DESCRIPTION = """\
See and stop background jobs, which bash starts with background: true.
- status: is it running, its exit code. list: all jobs.
- logs: the last lines (tail), or what follows an offset in bytes; the answer says where to read on.
- stop: end it with all that it started."""

LISTED = 30
COMMAND_SHOWN = 80


class JobInput(ToolInput):
    """Arguments of the ``bash_job`` tool."""

    action: Literal["status", "logs", "stop", "list"]
    job_id: str | None = None
    tail: int | None = Field(default=None, ge=1, le=TAIL_LINES_MAX, description="logs: lines, default 100.")
    offset: int | None = Field(default=None, ge=0, le=OFFSET_MAX, description="logs: from this byte on.")

    operation_argument: ClassVar[str] = "action"
    foreign_values: ClassVar[Mapping[str, str]] = by_foreign_name(
        {
            "logs": "output log read tail get get_output read_output",
            "stop": "kill cancel terminate end",
            "status": "poll check info wait",
            "list": "ls jobs",
        }
    )
    foreign_names: ClassVar[Mapping[str, str]] = by_foreign_name(
        {
            "action": "command operation op",
            "job_id": "id bash_id shell_id task_id process_id session_id job pid",
            "tail": "lines n limit tail_lines last num_lines max_lines",
            "offset": "since from start position",
            "leave it out, or search the log with bash": "filter regex pattern",
            "leave it out: the answer comes at once": (
                "block wait timeout timeout_ms wait_s wait_for_completion yield_time_ms"
            ),
            "leave it out": "signal force description explanation reason",
        }
    )

    @classmethod
    def problems(cls, operation: str, values: Mapping[str, Any]) -> Iterable[Problem]:
        if operation not in ("", "list") and values.get("job_id") is None:
            yield "job_id", f"{operation} needs it"
        if values.get("tail") is not None and values.get("offset") is not None:
            yield "tail", "give tail or offset, not both"


class BashJobTool(WorkspaceTool, defer_build=False):
    """The tool ``bash_job``: a model inspects and stops the background jobs of a `WorkspaceSession`.

    Only ``stop`` needs approval, in the modes ``ask`` and ``edit``. The artifact is the `Job` or `JobLog` as a dict;
    for ``list``, ``{"jobs": [...]}``.

    Args:
        session: The session that has the jobs and asks for approval. Omit it with a pool.
        pool: The `WorkspacePool` that has the session of each run. Omit it with a session.
    """

    name: str = "bash_job"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = JobInput
    _tool: ClassVar[str] = "bash_job"
    _input: ClassVar[type[ToolInput]] = JobInput

    def _action_and_arguments(self, wanted: JobInput) -> tuple[str, dict[str, object]]:
        return wanted.action, wanted.model_dump(exclude_none=True)

    def _request(self, call: CallContext, action: str, arguments: dict[str, object]) -> PermissionRequest:
        return PermissionRequest.for_job(
            action,
            arguments,
            command=call.runtime.jobs.command_of(str(arguments.get("job_id", ""))),
            namespace=call.session.namespace,
            tool_call_id=call.tool_call_id,
        )

    async def _refuse_early(self, call: CallContext, wanted: JobInput) -> None:
        if wanted.job_id is not None:
            # Imported on first use: building the tools does not need it.
            from langchain_daytona_ws._core.jobs.operations import check_job_id

            check_job_id(wanted.job_id)

    async def _perform(self, call: CallContext, wanted: JobInput) -> ToolResult:
        jobs, job_id = call.runtime.jobs, wanted.job_id or ""
        with as_current(call.conversation):
            match wanted.action:
                case "status":
                    job = await jobs.status(job_id)
                    return ToolResult(job.text, asdict(job))
                case "logs":
                    log = await jobs.logs(
                        job_id, tail_lines=wanted.tail, offset=wanted.offset, limit_bytes=None
                    )
                    log = replace(log, output=shown_output(log.output))
                    return ToolResult(log.text, asdict(log))
                case "stop":
                    job, was_running = await jobs.stop(job_id, idempotency_key=call.idempotency_key)
                    ended = "" if was_running else "[it had ended before]\n"
                    return ToolResult(f"{ended}{job.text}", asdict(job))
                case "list":
                    known = await jobs.list()
                    return ToolResult(_listed(known), {"jobs": [asdict(job) for job in known]})


def _listed(jobs: Sequence[Job]) -> str:
    lines = [f"{job.summary}: {_short(job.command)}" for job in jobs[:LISTED]]
    if len(jobs) > LISTED:
        lines.append(f"[{len(jobs) - LISTED} older ones are not shown]")
    return "\n".join(lines) or "[there are no jobs]"


def _short(command: str) -> str:
    line = shown_output(" ".join(command.split()))
    return line if len(line) <= COMMAND_SHOWN else line[: COMMAND_SHOWN - 1] + "…"
