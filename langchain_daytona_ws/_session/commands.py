"""Commands of a session: over either side, with what the session knows beside their output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from langchain_daytona_ws._core.commands import CommandResult, run_command
from langchain_daytona_ws._core.guidance import LOCAL_CACHES
from langchain_daytona_ws._core.job_watch import JobWatch
from langchain_daytona_ws._core.jobs import JOB_DEFAULT_S, check_once, job_request
from langchain_daytona_ws._core.live import OnOutput
from langchain_daytona_ws._session.side import Side
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import CommandRefused

COMMAND_TIMEOUT_MAX_S = 600
PREWARM_TIMEOUT_S = 30.0


class Commands:
    """Run commands in one workspace.

    Args:
        config: For the limits, and what becomes of a command whose time is up.
        root: The workspace directory.
        watch: What the session knows of its jobs.
        on_s3: Whether the workspace is a mount of S3.
        take_notices: Gives what the next result should tell.
        sandbox_id: Gives the id of the sandbox.
    """

    def __init__(
        self,
        config: SandboxConfig,
        root: str,
        watch: JobWatch,
        *,
        on_s3: bool,
        take_notices: Callable[[], tuple[str, ...]],
        sandbox_id: Callable[[], str | None],
    ) -> None:
        self._config = config
        self._root = root
        self._watch = watch
        self._on_s3 = on_s3
        self._take_notices = take_notices
        self._sandbox_id = sandbox_id

    async def run(
        self,
        side: Side,
        command: str,
        timeout_s: float | None,
        once: str | None,
        on_output: OnOutput | None,
        *,
        limit_bytes: int | None = None,
    ) -> CommandResult:
        timeout_s = self._config.timeout_s if timeout_s is None else timeout_s
        if not 0 < timeout_s <= COMMAND_TIMEOUT_MAX_S:
            raise CommandRefused(
                f"The time-out must be above 0 and at most {COMMAND_TIMEOUT_MAX_S} seconds.",
                code="timeout_range",
            )
        check_once(once)
        goes_on = self._config.on_timeout == "background"
        result = await run_command(
            await side.caller(),
            self._root,
            command,
            timeout_s=timeout_s,
            limit_bytes=limit_bytes or self._config.output_limit_bytes,
            key=once,
            defaults=LOCAL_CACHES if self._on_s3 else None,
            job=job_request(command, JOB_DEFAULT_S, self._watch, at_once=False) if goes_on else None,
            on_output=on_output,
        )
        side.command_ended()
        remarks: tuple[str, ...] = ()
        if result.job_id:
            remarks = side.job_remarks(command, JOB_DEFAULT_S)
        elif result.background:
            remarks = side.end_of_writing()
        notices = (*self._take_notices(), *result.notices, *remarks)
        advice = side.advice(command, result.output, result.exit_code)
        return replace(result, notices=notices, hint=advice, sandbox_id=self._sandbox_id() or "")

    async def warm(self, side: Side) -> None:
        """Have everything ready that a command needs."""
        caller = await side.caller()
        await run_command(caller, self._root, ":", timeout_s=PREWARM_TIMEOUT_S, limit_bytes=1024, key=None)
