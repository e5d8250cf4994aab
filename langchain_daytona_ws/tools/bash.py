"""The ``bash`` tool."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Self

from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_daytona_ws._approval.verdict import Answered, Approval
from langchain_daytona_ws._core.commands import CommandResult
from langchain_daytona_ws._core.guidance import S3_BASH_LINES
from langchain_daytona_ws._core.job_results import Job
from langchain_daytona_ws._core.job_watch import JOB_MAX_S
from langchain_daytona_ws._core.live import OnOutput
from langchain_daytona_ws._core.script import check_command
from langchain_daytona_ws._session.commands import COMMAND_TIMEOUT_MAX_S
from langchain_daytona_ws.permissions import PermissionRequest
from langchain_daytona_ws.tools.base import WorkspaceTool, current_tool_call_id, told_to_the_model
from langchain_daytona_ws.tools.streaming import OnChunk, output_to
from langchain_daytona_ws.tools.tracing import RunManager, facts_of_command, facts_of_job, traced

_KILLED = "A command that exceeds its timeout is killed with all that it started; its output until then is returned."
_GOES_ON = (
    "A command that exceeds its timeout goes on as a job; its output until then is returned, and a job id."
)
DESCRIPTION = f"""\
Run a bash command in the workspace directory and get its output and exit code.
- Each call is a new shell in the workspace: cd and variables do not carry over, files do. Use relative paths.
- Standard input is empty: nothing can be typed into a prompt; pass -y and the like.
- Use python3. TypeScript (.ts) is not transpiled: run compiled JavaScript.
- {_KILLED}
- With background: true it returns a job id at once: for servers and long work. See it with bash_job.
- Of a long output the middle is left out; the notice names a file with all of it.
- To read, search and change files, prefer workspace_file."""


class BashInput(BaseModel):
    """Arguments of the ``bash`` tool."""

    model_config = ConfigDict(extra="forbid")

    command: str = Field(description="The command, given to bash exactly as it is.")
    timeout: Annotated[float, Field(gt=0, le=JOB_MAX_S)] | None = Field(
        default=None, description="Seconds until it is killed, at most 600; in the background 86400."
    )
    background: bool = Field(default=False, description="Run as a job.")
    description: str | None = Field(default=None, description="What it does, in 5 to 10 words.")

    @model_validator(mode="after")
    def _is_in_range(self) -> Self:
        if not self.background and self.timeout is not None and self.timeout > COMMAND_TIMEOUT_MAX_S:
            raise ValueError(f"timeout is at most {COMMAND_TIMEOUT_MAX_S} without background: true")
        return self


class BashTool(WorkspaceTool):
    """Let a model run bash commands in a `WorkspaceSession`.

    A non-zero exit code is a result, not an error. The artifact is the `CommandResult` as a dict, in the background
    the `Job`.

    Args:
        session: Where to run them, and whom to ask.
        on_output: Called with each piece of a command's output while it runs, as `WorkspaceSession.run` does, but with
            a dict: ``type`` (``"bash_output"``), ``tool_call_id``, ``sandbox_id``, ``offset`` (how many characters of
            this call came before) and ``text``. LangGraph's custom stream gets the same dicts, where somebody listens.
    """

    name: str = "bash"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = BashInput
    on_output: OnChunk | None = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="after")
    def _say_what_is_so_here(self) -> Self:
        if "description" not in self.model_fields_set:
            goes_on = self.session.config.on_timeout == "background"
            said = DESCRIPTION.replace(_KILLED, _GOES_ON) if goes_on else DESCRIPTION
            self.description = f"{said}\n{S3_BASH_LINES}" if self.session.is_on_s3 else said
        return self

    def _run(
        self, *, config: RunnableConfig, run_manager: RunManager | None = None, **given: Any
    ) -> tuple[str, dict[str, Any]]:
        wanted = BashInput.model_validate(given)
        with told_to_the_model(), traced(run_manager) as trace:
            approval = self.session.gate.check(self._request(wanted), BashInput.model_validate)
            if isinstance(approval, Answered):
                return approval.content_and_artifact
            call = _Call(wanted, approval)
            once = self._begin(config, call.identity)
            if call.background:
                job = self.session.jobs.start(call.command, max_duration_s=call.timeout, once=once)
                trace(facts_of_job(job))
                return call.answer_of_job(job, self.session.take_notices())
            result = self.session.run(
                call.command, timeout_s=call.timeout, once=once, on_output=self._asked_for()
            )
            trace(facts_of_command(result))
            return call.answer(result)

    async def _arun(
        self, *, config: RunnableConfig, run_manager: RunManager | None = None, **given: Any
    ) -> tuple[str, dict[str, Any]]:
        wanted = BashInput.model_validate(given)
        with told_to_the_model(), traced(run_manager) as trace:
            approval = await self.session.gate.acheck(self._request(wanted), BashInput.model_validate)
            if isinstance(approval, Answered):
                return approval.content_and_artifact
            call = _Call(wanted, approval)
            once = self._begin(config, call.identity)
            if call.background:
                job = await self.session.jobs.astart(call.command, max_duration_s=call.timeout, once=once)
                trace(facts_of_job(job))
                return call.answer_of_job(job, self.session.take_notices())
            result = await self.session.arun(
                call.command, timeout_s=call.timeout, once=once, on_output=self._asked_for()
            )
            trace(facts_of_command(result))
            return call.answer(result)

    def _asked_for(self) -> OnOutput | None:
        return output_to(self.on_output, current_tool_call_id(), lambda: self.session.sandbox_id)

    def _request(self, wanted: BashInput) -> PermissionRequest:
        check_command(wanted.command)  # what can't run is not worth a question
        return PermissionRequest.for_bash(
            wanted.command,
            namespace=self.session.namespace,
            tool_call_id=current_tool_call_id(),
            arguments=wanted.model_dump(exclude={"command"}, exclude_none=True, exclude_defaults=True),
        )


class _Call:
    """What was approved, and so what runs."""

    def __init__(self, wanted: BashInput, approval: Approval[BashInput]) -> None:
        final = approval.validated or wanted
        self.command = final.command
        self.timeout = final.timeout
        self.background = final.background
        self.identity: dict[str, object] = {"command": final.command, "timeout": final.timeout}
        if final.background:
            self.identity["background"] = True
        self._note = approval.note

    def answer(self, result: CommandResult) -> tuple[str, dict[str, Any]]:
        text = f"[{self._note}]\n{result.text}" if self._note else result.text
        return text, asdict(result)

    def answer_of_job(self, job: Job, notices: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        notes = [*([self._note] if self._note else []), *notices]
        if job.is_running:
            notes.append(f"it is stopped after {job.ends_at - job.started_at:.0f} s; see it with bash_job")
        return "\n".join([*(f"[{note}]" for note in notes), job.text]), asdict(job)
