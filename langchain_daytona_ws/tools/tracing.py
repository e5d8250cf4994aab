"""What tracers record of a tool's run beside its input and output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun

from langchain_daytona_ws._core.commands.run import CommandResult
from langchain_daytona_ws._core.jobs.models import Job
from langchain_daytona_ws.errors import WorkspaceError

RunManager: TypeAlias = CallbackManagerForToolRun | AsyncCallbackManagerForToolRun
Facts: TypeAlias = dict[str, Any]


@contextmanager
def traced(run_manager: RunManager | None) -> Iterator[Callable[[Facts], None]]:
    """Give a function that adds to the run's metadata; of an error that passes, add its code."""

    def add(facts: Facts) -> None:
        if run_manager is not None:
            _add_to_run(run_manager, facts)

    try:
        yield add
    except WorkspaceError as error:
        add({"error_code": error.code})
        raise


def _add_to_run(run_manager: RunManager, facts: Facts) -> None:
    """Add to the run's metadata in every tracer: LangSmith's, and whatever else derives from LangChain's base.

    LangChain has no call for it. Each tracer keeps the run under its id until its end, when it is handed on with what
    was added.
    """
    if not run_manager.handlers:
        return
    from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

    for handler in run_manager.handlers:
        if not isinstance(handler, (BaseTracer, AsyncBaseTracer)):
            continue
        run = handler.run_map.get(str(run_manager.run_id))
        if run is not None:
            extra = run.extra if run.extra is not None else {}
            # A new one: the runs beside this one may share the old one.
            run.extra = {**extra, "metadata": {**(extra.get("metadata") or {}), **facts}}


def facts_of_command(result: CommandResult) -> Facts:
    """Return what is known of a command, without a word of it or of its output."""
    facts: Facts = {
        "exit_code": result.exit_code,
        "duration_s": result.duration_s,
        "sandbox_id": result.sandbox_id,
    }
    if result.job_id is not None:
        facts["job_id"] = result.job_id
    return facts | {name: True for name in ("timed_out", "from_record") if getattr(result, name)}


def facts_of_job(job: Job) -> Facts:
    """Return what is known of a job that was started."""
    return {"job_id": job.id, "sandbox_id": job.sandbox_id}
