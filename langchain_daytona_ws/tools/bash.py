"""The ``bash`` tool."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self, TypeAlias, TypeGuard

from pydantic import BaseModel, Field, field_validator, model_validator

from langchain_daytona_ws._core.commands.run import CommandResult, as_shown, check_command
from langchain_daytona_ws._core.commands.streaming import OnOutput
from langchain_daytona_ws._core.hints.guidance import S3_BASH_LINES
from langchain_daytona_ws._core.limits import JOB_DEFAULT_S, JOB_MAX_S
from langchain_daytona_ws._session.conversations import as_current
from langchain_daytona_ws._session.runtime import COMMAND_TIMEOUT_MAX_S
from langchain_daytona_ws.permissions import PermissionRequest
from langchain_daytona_ws.pool import example_of, source_of
from langchain_daytona_ws.tools.arguments import Problem, ToolInput, by_foreign_name
from langchain_daytona_ws.tools.base import CallContext, ToolResult, WorkspaceTool

# Longer jobs are requested in hours, because a time-out of 60000 could be a minute (in milliseconds) or 16 hours.
JOB_TIMEOUT_MAX_S = int(JOB_DEFAULT_S)
HOURS_MAX = int(JOB_MAX_S / 3600)

OnChunk: TypeAlias = Callable[[dict[str, Any]], object]
"""Callback for pieces of output: a dict of ``type``, ``tool_call_id``, ``sandbox_id``, ``offset`` and ``text``."""

CHUNK_TYPE = "bash_output"
# Maximum depth of nested graphs: an inner graph wraps the stream writer of the outer graph.
WRAPPERS_MAX = 50

_KILLED = "A command that exceeds its timeout is killed with all that it started; its output until then is returned."
_BECOMES_JOB = (
    "A command that exceeds its timeout goes on as a job; its output until then is returned, and a job id."
)


def _description(at_timeout: str) -> str:
    return f"""\
Run a bash command in the workspace directory.
- Each call is a new shell in the workspace: cd and variables do not carry over, files do. Use relative paths.
- Nothing can be typed, and there are no editors: pass -y, -m.
- Use python3. TypeScript (.ts) is not transpiled.
- {at_timeout}
- With background: true it returns a job id at once: for servers and work of up to an hour, longer with hours.
  See it with bash_job.
- Do not cut output with head or tail: a long one is cut in the middle, and a notice names a file with all of it.
- To read, search and change files, prefer workspace_file."""


class BashInput(ToolInput):
    """Arguments of the ``bash`` tool."""

    command: str = Field(description="Given to bash as it is.")
    timeout: float | None = Field(
        default=None,
        description=f"Seconds until it is killed, at most {COMMAND_TIMEOUT_MAX_S}; "
        f"in the background {JOB_TIMEOUT_MAX_S}.",
    )
    background: bool = Field(default=False, description="Run as a job.")
    hours: float | None = Field(
        default=None,
        description=f"background: instead of timeout, at most {HOURS_MAX}.",
    )
    pty: bool = Field(default=False, description="In a terminal.")
    description: str | None = Field(default=None, description="In 5 to 10 words.")

    foreign_names: ClassVar[Mapping[str, str]] = by_foreign_name(
        {
            "command": "cmd script code bash shell input CommandLine",
            "background": "run_in_background is_background in_background async detach detached",
            "timeout": "timeout_s timeout_sec timeout_secs timeout_seconds max_duration_s",
            "use timeout, in seconds": "timeout_ms timeout_millis yield_time_ms block_until_ms hard_timeout",
            "pty": "tty use_pty pseudo_terminal terminal interactive",
            "description": "explanation reason justification summary toolSummary toolAction thought",
            "put cd in the command": "cwd workdir working_directory working_dir directory dir path",
            "put NAME=value before the command": "env environment envs",
            "each call is a new shell": "restart session_id session shell_id reset",
            "standard input is empty; use a here-document in the command": "stdin is_input keys",
            "use background for what is not to be waited for": "blocking wait wait_for_completion",
            "leave it out": (
                "dangerouslyDisableSandbox sandbox_permissions with_escalated_permissions elevated "
                "requires_approval require_user_approval SafeToAutoRun security_risk prefix_rule login"
            ),
            "the middle of a long output is left out anyway": (
                "max_output_tokens max_output_length output_limit head tail"
            ),
        }
    )

    @field_validator("command", mode="after")
    @classmethod
    def _ends_lines_as_bash_does(cls, command: str) -> str:
        """Replace CRLF by LF if all line breaks are CRLF: bash would read CR as part of a line's last word."""
        if "\r\n" not in command or "\n" in command.replace("\r\n", ""):
            return command
        return command.replace("\r\n", "\n").removesuffix("\r")

    @classmethod
    def problems(cls, operation: str, values: Mapping[str, Any]) -> Iterable[Problem]:
        background = values.get("background") in (True, "true")  # a text if the arguments are invalid
        timeout, hours = values.get("timeout"), values.get("hours")
        if _is_number(hours):
            if not 0 < hours <= HOURS_MAX:
                yield "hours", f"above 0 and at most {HOURS_MAX}"
            if not background:
                yield "hours", "only with background: true"
            if timeout is not None:
                yield "timeout", "give timeout or hours, not both"
        if background and values.get("pty") in (True, "true"):
            yield "pty", "a job has no terminal; leave it out, or leave background out"
        limit = JOB_TIMEOUT_MAX_S if background else COMMAND_TIMEOUT_MAX_S
        if _is_number(timeout) and not 0 < timeout <= limit:
            yield "timeout", _range_of_timeout(timeout, limit, background=background)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _range_of_timeout(timeout: float, limit: int, *, background: bool) -> str:
    """Return the text of the problem: the limits, and the probably intended value."""
    parts = [f"in seconds, above 0 and at most {limit}"]
    if background:
        parts.append(f"for a longer job, of up to {HOURS_MAX} hours, give hours in its place")
    else:
        parts.append(f"with background: true at most {JOB_TIMEOUT_MAX_S}")
    hours = timeout / 3_600_000
    if background and timeout % 500 == 0 and limit / 3600 < hours <= HOURS_MAX:
        parts.append(f"{timeout:.0f} looks like milliseconds, which are {hours:g} hours")
    elif timeout > limit and timeout % 500 == 0 and timeout / 1000 <= limit:
        parts.append(f"{timeout:.0f} looks like milliseconds, which are {timeout / 1000:g} seconds")
    return "; ".join(parts)


class BashTool(WorkspaceTool, defer_build=False):
    """The tool ``bash``: a model runs commands in a `WorkspaceSession`.

    A non-zero exit code is a result, not an error. The artifact is the `CommandResult` as a dict, or the `Job` of a
    background command.

    Args:
        session: The session that runs the commands and asks for approval. Omit it with a pool.
        pool: The `WorkspacePool` that has the session of each run. Omit it with a session.
        on_output: Called with each piece of a command's output, like the callback of `WorkspaceSession.run`, but with a
            dict: ``type`` (``"bash_output"``), ``tool_call_id``, ``sandbox_id``, ``offset`` (number of characters in
            the earlier pieces of this call) and ``text``. LangGraph's custom stream gets the same dicts if it has a
            listener.
        raw_output: If true, the artifact of a command with ``pty`` also has ``raw_output``, the output with all control
            codes. The artifact's ``output`` is always the text that the terminal shows. Default: False.
    """

    name: str = "bash"
    description: str = _description(_KILLED)
    args_schema: type[BaseModel] = BashInput
    _tool: ClassVar[str] = "bash"
    _input: ClassVar[type[ToolInput]] = BashInput
    on_output: OnChunk | None = Field(default=None, exclude=True, repr=False)
    raw_output: bool = False

    @model_validator(mode="after")
    def _complete_description(self) -> Self:
        if "description" not in self.model_fields_set:
            example = example_of(source_of(self.session, self.pool))
            becomes_job = example.config.on_timeout == "background"
            text = _description(_BECOMES_JOB if becomes_job else _KILLED)
            is_mounted = example.is_on_s3 and example.config.options.s3_mode == "mount"
            self.description = f"{text}\n{S3_BASH_LINES}" if is_mounted else text
        return self

    def _action_and_arguments(self, wanted: BashInput) -> tuple[str, dict[str, object]]:
        return "run", wanted.model_dump(exclude_none=True, exclude_defaults=True)

    def _request(self, call: CallContext, action: str, arguments: dict[str, object]) -> PermissionRequest:
        return PermissionRequest.for_bash(
            str(arguments["command"]),
            namespace=call.session.namespace,
            tool_call_id=call.tool_call_id,
            arguments=arguments,
        )

    async def _refuse_early(self, call: CallContext, wanted: BashInput) -> None:
        check_command(wanted.command)

    def _identifying_arguments(self, wanted: BashInput, arguments: dict[str, object]) -> dict[str, object]:
        # Not the description: a model may word it differently when it repeats the call.
        others = {name: value for name, value in arguments.items() if name not in ("hours", "description")}
        return {**others, "timeout": _timeout_s(wanted)}

    async def _perform(self, call: CallContext, wanted: BashInput) -> ToolResult:
        if wanted.background:
            return await self._start_job(call, wanted)
        result = await call.runtime.run(
            wanted.command,
            timeout_s=_timeout_s(wanted),
            idempotency_key=call.idempotency_key,
            on_output=_output_to(self.on_output, call.tool_call_id, lambda: call.session.sandbox_id),
            pty=wanted.pty,
        )
        shown = call.state.with_notices(as_shown(result), call.conversation)
        raw = {"raw_output": result.output} if self.raw_output and result.screen is not None else {}
        return ToolResult(shown.text, {**asdict(shown), **raw}, _facts(result), has_notices=True)

    async def _start_job(self, call: CallContext, wanted: BashInput) -> ToolResult:
        with as_current(call.conversation):
            job = await call.runtime.jobs.start(
                wanted.command, max_duration_s=_timeout_s(wanted), idempotency_key=call.idempotency_key
            )
        end = f"[it is stopped after {job.ends_at - job.started_at:.0f} s; see it with bash_job]\n"
        content = f"{end if job.is_running else ''}{job.text}"
        return ToolResult(content, asdict(job), {"job_id": job.id, "sandbox_id": job.sandbox_id})


def _timeout_s(wanted: BashInput) -> float | None:
    return wanted.timeout if wanted.hours is None else wanted.hours * 3600


def _facts(result: CommandResult) -> dict[str, Any]:
    """Return facts about a command for tracers, without the command and its output."""
    facts: dict[str, Any] = {
        "exit_code": result.exit_code,
        "duration_s": result.duration_s,
        "sandbox_id": result.sandbox_id,
    }
    if result.job_id is not None:
        facts["job_id"] = result.job_id
    return facts | {name: True for name in ("timed_out", "from_record") if getattr(result, name)}


def _output_to(
    on_chunk: OnChunk | None, tool_call_id: str | None, sandbox_id: Callable[[], str | None]
) -> OnOutput | None:
    """Return the function that sends the output of one call to LangGraph's stream and to ``on_chunk``.

    Return None if there is no listener. Call this in the context of the tool's run, which holds LangGraph's stream.
    """
    targets = [target for target in (_custom_stream(), on_chunk) if target is not None]
    if not targets:
        return None
    offset = 0

    def emit(text: str) -> object:
        nonlocal offset
        chunk = {
            "type": CHUNK_TYPE,
            "tool_call_id": tool_call_id,
            "sandbox_id": sandbox_id(),
            "offset": offset,
            "text": text,
        }
        offset += len(text)
        # Only the last target may be a coroutine function: LangGraph's writer is a plain function.
        result: object = None
        for target in targets:
            result = target(dict(chunk))
        return result

    return emit


def _custom_stream() -> OnChunk | None:
    """Return the writer of LangGraph's custom stream; None outside of a graph, and without a listener."""
    config = sys.modules.get("langgraph.config")  # no graph runs before it is imported
    if config is None:
        return None
    try:
        writer: OnChunk = config.get_stream_writer()
    except (RuntimeError, KeyError):
        return None  # not in a graph
    return None if _has_no_listener(writer) else writer


def _has_no_listener(writer: object) -> bool:
    """Return whether a writer discards its input.

    Without ``stream_mode="custom"``, a graph's writer is an empty function, possibly wrapped (langgraph 1.0 to 1.2);
    LangGraph offers no other sign. A function without global names and free variables cannot forward its input. A
    function of unknown form is treated as a listener, which costs a few requests.
    """
    for _ in range(WRAPPERS_MAX):
        code = getattr(writer, "__code__", None)
        if code is None:
            return False
        if "stream_writer" not in code.co_freevars:
            return not code.co_freevars and not code.co_names
        writer = writer.__closure__[code.co_freevars.index("stream_writer")].cell_contents  # type: ignore[attr-defined]
    return False
