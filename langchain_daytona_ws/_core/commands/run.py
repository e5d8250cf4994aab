"""Commands: what is asked of the sandbox, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_daytona_ws._core.answer import Answer, decode_base64
from langchain_daytona_ws._core.commands.characters import whole_end, whole_start
from langchain_daytona_ws._core.commands.pipelines import ends_in_pipeline, parts_to_tell
from langchain_daytona_ws._core.commands.streaming import LiveOutput, OnOutput
from langchain_daytona_ws._core.files.models import Reply
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.jobs.models import read_id
from langchain_daytona_ws._guest import terminal
from langchain_daytona_ws.errors import CommandRefused, SandboxError, WorkspaceError

COMMAND_LIMIT_BYTES = 1024 * 1024
LOG_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What came of a command. A non-zero exit code is a result, not an error.

    Attributes:
        exit_code: Of the command's shell; 124 after a time-out, 128 + N when signal N ended it.
        output: Standard output and error as they came, bytes that are no UTF-8 replaced; when it was longer than
            the limit, its head and its tail with a notice between them.
        timed_out: Whether it was killed because its time was up.
        truncated: Whether ``output`` leaves something out.
        output_bytes: Size of all that the command printed.
        duration_s: Seconds from its start to its end, as measured in the sandbox.
        log_path: File on the sandbox's local disk with the whole output (up to 64 MiB), if there is one.
        background: Whether a process that it started still holds its output.
        pipeline: The exit codes of the parts of the pipeline that the command ended in, where one before the last has
            failed; 141, of a part whose output was read no further (``yes | head -1``), is no failure. Else empty.
        job_id: The background job as which it goes on since its time was up (``onTimeout``); ``exit_code`` and
            ``output`` are those until then.
        replayed: Whether this is the recorded result of the same call made earlier: nothing ran now.
        notices: What the model should know beside the output.
        hint: What works instead, where it failed as commands do in an S3 workspace.
        sandbox_id: Where it ran.
    """

    exit_code: int
    output: str
    timed_out: bool = False
    truncated: bool = False
    output_bytes: int = 0
    duration_s: float = 0.0
    log_path: str | None = None
    background: bool = False
    pipeline: tuple[int, ...] = ()
    job_id: str | None = None
    replayed: bool = False
    notices: tuple[str, ...] = ()
    hint: str | None = None
    sandbox_id: str = ""

    @property
    def text(self) -> str:
        """The result as the model reads it: notices, output, hint, exit code."""
        parts = [f"[{notice}]" for notice in self.notices]
        if self.output:
            parts.append(self.output.rstrip("\n"))
        end = f"exit code {self.exit_code}" if self.job_id is None else f"still running as job {self.job_id}"
        return "\n".join([*parts, *self.remarks, f"[{end}]"])

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines about the output, as the model reads them after it: the hint, the exit codes of a pipeline."""
        hint = (f"[hint: {self.hint}]",) if self.hint else ()
        codes = ", ".join(map(str, self.pipeline))
        return (*hint, f"[exit codes in the pipeline: {codes}]") if codes else hint


def step_of(config: Mapping[str, Any] | None) -> str:
    """Name the step of a LangGraph graph that a call with this config is made in; "" outside of a graph.

    The name is the same when a node runs again. Of the tasks around the call only the outermost has an id that stays:
    within it a graph that runs again from its start has new ones, but goes through the same nodes in the same steps.
    LangGraph's count of the graphs that a task has run, between them, goes on when the task is tried again: the second
    of two agents that a node runs can't be told by it from the first one, tried again. By its name it can (of
    LangChain's `create_agent`). Without names of their own they share what is recorded, where their calls have the same
    ids and arguments in the same step: the second is told so, and may call again. Better than to run anything twice.
    """
    settings = (config or {}).get("configurable") or {}
    outer, *inner = str(settings.get("checkpoint_ns") or "").split("|")
    if not outer:
        return ""
    nodes = [part.partition(":")[0] for part in inner if not part.isdigit()]
    metadata = (config or {}).get("metadata") or {}
    number, agent = metadata.get("langgraph_step", ""), metadata.get("lc_agent_name") or ""
    return "|".join([outer, *nodes, str(number), str(agent)])


def call_key(
    config: Mapping[str, Any] | None,
    tool_call_id: str,
    arguments: Mapping[str, object],
    *,
    namespace: str,
    session_id: str,
) -> str:
    """Name a call so that a graph node that runs again finds what the first run recorded.

    Some servers give the calls of every turn the same ids: so the name holds the graph's step too.

    Args:
        config: Of the graph or chain that it is made in.
        tool_call_id: The model's own id of it.
        arguments: What is done.
        namespace: The workspace's.
        session_id: Where ids are unique, if the graph has no thread.
    """
    thread = ((config or {}).get("configurable") or {}).get("thread_id") or session_id
    where = "/".join(part for part in (namespace, thread, step_of(config)) if part)
    told = json.dumps([where, tool_call_id, arguments], sort_keys=True, default=str)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]


async def run_command(
    caller: GuestClient,
    root: str,
    command: str,
    *,
    timeout_s: float,
    limit_bytes: int,
    key: str | None,
    keep: bool = False,
    defaults: Mapping[str, str] | None = None,
    job: Mapping[str, object] | None = None,
    on_output: OnOutput | None = None,
) -> CommandResult:
    """Run a command in the workspace directory and return what came of it.

    Args:
        caller: The way to the sandbox.
        root: The workspace directory.
        command: Given to bash as it is.
        timeout_s: Seconds until it is killed.
        limit_bytes: Most bytes of its output to return.
        key: Name of this call, under which it is carried out once; None for a random one.
        keep: Whether its record is kept as long as the sandbox, and not for a day.
        defaults: Environment variables, where nobody has set them.
        job: As what it goes on when its time is up, see `_core.jobs.job_request`; None to have it killed.
        on_output: Is given its output while it runs, see `LiveOutput`.

    Raises:
        CommandRefused: Before any request.
        WorkspaceError: As `GuestClient.call` raises, and ``code="cancelled"`` when somebody else cancelled this call.
    """
    check_command(command)
    key = key or caller.new_key()
    request: Answer = {
        "mode": "run",
        "key": key,
        "root": root,
        "command": command,
        "timeout_s": float(timeout_s),
        "limit_bytes": limit_bytes,
        "log_limit_bytes": LOG_LIMIT_BYTES,
        "defaults": dict(defaults or {}),
        "keep": keep,
        **facts_of_request(caller, command),
    }
    if job is not None:
        request["job"] = job
    if on_output is None:
        answer = await caller.call("command", request, timeout_s=timeout_s, killable=True)
    else:
        live = LiveOutput(caller, key, on_output)
        request["live"] = True
        call = caller.call("command", request, timeout_s=timeout_s, killable=True, on_send=live.sent_to)
        answer = await live.beside(call)
    if answer.get("outcome") == "cancelled":
        raise WorkspaceError(
            "The command was cancelled.",
            code="cancelled",
            op="execute",
            for_model="This call was cancelled: the command was killed if it had started. What it had done stays.",
        )
    return _result(answer, timeout_s, limit_bytes)


def check_command(command: str) -> None:
    """Refuse what is not worth a request.

    Raises:
        CommandRefused: Empty or blank, over 1 MiB, holding a NUL byte or half a surrogate pair.
    """
    if not command.strip():
        raise CommandRefused("The command is empty. Send a command to run.", code="command_empty")
    if "\0" in command:
        raise CommandRefused(
            "The command holds a NUL byte, which no shell can carry. Write it as \\0 inside $'...' or printf.",
            code="command_nul",
        )
    try:
        size = len(command.encode())
    except UnicodeEncodeError:
        raise CommandRefused(
            "The command holds half of a surrogate pair, which is no text. Send valid Unicode.",
            code="command_not_text",
        ) from None
    if size > COMMAND_LIMIT_BYTES:
        raise CommandRefused(
            f"The command is {size:,} bytes long; the limit is {COMMAND_LIMIT_BYTES:,}. "
            "Write the data to a file with workspace_file and use that.",
            code="command_too_large",
        )


def facts_of_request(caller: GuestClient, command: str) -> Answer:
    """Return what a request says of its command beside the limits, where there is something to say."""
    facts: Answer = {}
    own = [name for name, _, _ in terminal.VALUES if name in caller.variables()]
    if own:
        facts["own"] = own
    if ends_in_pipeline(command):
        facts["pipeline"] = True
    return facts


def _result(answer: Answer, timeout_s: float, limit_bytes: int) -> CommandResult:
    """Read an answer, trusting nothing about it but that it is a JSON object."""
    head, tail = decode_base64(answer.get("head")), decode_base64(answer.get("tail"))
    if len(head) + len(tail) > limit_bytes:
        raise SandboxError(
            "The sandbox's answer is larger than was asked for.", code="unreadable_answer", op="execute"
        )
    size = _number(answer, "size_bytes")
    log_bytes = _number(answer, "log_bytes")
    log_path = str(answer.get("log_path") or "")[:200] or None
    truncated = size > len(head) + len(tail)
    timed_out, background = answer.get("timed_out") is True, answer.get("background") is True
    notices = []
    survivors = answer.get("survivors") is True
    job_id, job_refusal = _promoted(answer)
    if job_id is not None:
        notices.append(f"not done after {timeout_s:g} s; it goes on as job {job_id}, see it with bash_job")
    elif timed_out:
        rest = (
            "but some of what it had started could not be"
            if survivors
            else "with everything that it had started"
        )
        notices.append(f"timed out after {timeout_s:g} s; it was killed, {rest}{job_refusal}")
    if answer.get("silent") is True:
        notices.append(
            "the workspace's storage did not answer at the time-out: the command may have waited for one of its files"
        )
    if background and not timed_out and log_path:
        notices.append(f"a process that it started is running on; its later output goes to {log_path}")
    ended = answer.get("ended")
    if isinstance(ended, list) and ended:
        notices.append(
            f"killed, since it held the output of this call itself, which could not have been answered: "
            f"{', '.join(map(str, ended))}; what ~/.zshenv or $BASH_ENV starts needs a redirect of its own"
        )
    if answer.get("replayed") is True:
        notices.append("this call was made before: this is its recorded result, and nothing was run again")
    exit_code = _number(answer, "exit_code")
    return CommandResult(
        exit_code=exit_code,
        output=_joined(head, tail, size, _where(log_path, size, log_bytes, answer))
        if truncated
        else _text(head),
        timed_out=timed_out,
        truncated=truncated,
        output_bytes=size,
        duration_s=_seconds(answer),
        log_path=log_path,
        background=background,
        pipeline=parts_to_tell(answer.get("pipeline"), exit_code),
        job_id=job_id,
        replayed=answer.get("replayed") is True,
        notices=tuple(notices),
    )


def _promoted(answer: Answer) -> tuple[str | None, str]:
    """Return the id of the job that a command has become; or why it could not become one, if it was to."""
    job = answer.get("job")
    if not isinstance(job, dict):
        return None, ""
    if job.get("error") == "jobs_full":
        return None, ", since 10 jobs are running already and it could not go on as another one"
    if "error" in job:
        return None, ", since it could not be recorded as a job"
    return read_id(Reply("job", job)), ""


def _number(answer: Answer, name: str) -> int:
    value = answer.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _unreadable(name)
    return value


def _seconds(answer: Answer) -> float:
    value = answer.get("duration_s")
    if not isinstance(value, float):
        raise _unreadable("duration_s")
    return value


def _unreadable(name: str) -> SandboxError:
    return SandboxError(
        f"The field {name} of the sandbox's answer is not what it should be.",
        code="unreadable_answer",
        op="execute",
        for_model="The machine's answer could not be read. The command ran: check what it did.",
    )


def _where(log_path: str | None, size: int, log_bytes: int, answer: Answer) -> str:
    if log_path is None or answer.get("log_failed") is True:
        return "it could not be saved, the sandbox's disk may be full"
    if log_bytes < size:
        return f"the first {log_bytes:,} bytes are in {log_path}"
    return f"all of it is in {log_path}"


def _joined(head: bytes, tail: bytes, size: int, where: str) -> str:
    """Put the ends together at character boundaries, with a notice of what is between them."""
    first, last = whole_end(head), whole_start(tail)
    left_out = size - len(first) - len(last)
    notice = f"[... {left_out:,} of {size:,} bytes left out; {where} ...]"
    return f"{_text(first)}\n{notice}\n{_text(last)}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
