"""Metadata of a tool's run for tracers, in addition to its input and output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun

from langchain_daytona_ws._core.commands.run import CommandResult

if TYPE_CHECKING:
    from langchain_daytona_ws._core.jobs.models import Job

RunManager: TypeAlias = CallbackManagerForToolRun | AsyncCallbackManagerForToolRun
Facts: TypeAlias = dict[str, Any]


def add_to_run(run_manager: RunManager | None, facts: Facts) -> None:
    """Add to the run's metadata in every tracer that derives from LangChain's base class, such as LangSmith's.

    LangChain has no function for this. Each tracer keeps the run under its id until the run ends, and then sends it
    with the added metadata.
    """
    if run_manager is None or not run_manager.handlers:
        return
    from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

    for handler in run_manager.handlers:
        if not isinstance(handler, (BaseTracer, AsyncBaseTracer)):
            continue
        run = handler.run_map.get(str(run_manager.run_id))
        if run is not None:
            extra = run.extra if run.extra is not None else {}
            # A copy: concurrent runs may share the dict.
            run.extra = {**extra, "metadata": {**(extra.get("metadata") or {}), **facts}}


def facts_of_command(result: CommandResult) -> Facts:
    """Return facts about a command; neither the command nor its output is among them."""
    facts: Facts = {
        "exit_code": result.exit_code,
        "duration_s": result.duration_s,
        "sandbox_id": result.sandbox_id,
    }
    if result.job_id is not None:
        facts["job_id"] = result.job_id
    return facts | {name: True for name in ("timed_out", "from_record") if getattr(result, name)}


def facts_of_job(job: Job) -> Facts:
    """Return facts about a started job."""
    return {"job_id": job.id, "sandbox_id": job.sandbox_id}
