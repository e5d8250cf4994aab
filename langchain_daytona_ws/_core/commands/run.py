"""Run a command in the sandbox: build the request, and read the result from the answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from langchain_daytona_ws._core.answer import Answer, Reply, decode_base64, process_names
from langchain_daytona_ws._core.commands import screen
from langchain_daytona_ws._core.commands.characters import whole_end, whole_start
from langchain_daytona_ws._core.commands.pipelines import ends_in_pipeline, relevant_exit_codes
from langchain_daytona_ws._core.commands.streaming import LiveOutput, OnOutput
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.limits import LOG_LIMIT_BYTES
from langchain_daytona_ws._core.sync.push import finish_push
from langchain_daytona_ws._core.sync.report import SyncReport, read_report, read_time
from langchain_daytona_ws._guest.terminal import VALUES as TERMINAL_VARIABLES
from langchain_daytona_ws._guest.text import visible
from langchain_daytona_ws.errors import CommandRefused
from langchain_daytona_ws.permissions import legible

COMMAND_LIMIT_BYTES = 1024 * 1024
# Commands with these words may start vim, which waits for a key even without a terminal.
_EDITOR = (
    r"(?<![\w.-])(?:r?vim?|r?view|vimdiff|nvim|ex|editor|mergetool|difftool|\$\{?(?:EDITOR|VISUAL))(?![\w.-])"
)
LOG_PATH_CHARS = 200


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command. A non-zero exit code is a result, not an error.

    Attributes:
        exit_code: Exit code of the command's shell; 124 after a time-out, 128 + N when signal N ended the shell.
        output: Standard output and error in the order printed. Bytes that are not UTF-8 are replaced. If the output is
            longer than the limit, only its beginning and its end are returned, with a notice between them.
        timed_out: Whether the command was still running at its time-out. Then it was killed, or became a job
            (``job_id``).
        truncated: Whether the middle of ``output`` is left out.
        output_bytes: Size of the whole output.
        duration_s: Seconds from the command's start to its end or time-out, measured in the sandbox.
        log_path: File on the sandbox's own disk with the whole output (up to 64 MiB); None if there is no such file.
        background: Whether a process that the command left behind still has the command's output open.
        pipeline: Exit codes of the command's last pipeline, if a part before the last failed; otherwise empty. 141
            (SIGPIPE) is no failure: the next part had stopped reading (``yes | head -1``). It counts only if
            ``pipefail`` makes it the exit code of the command.
        job_id: The background job that the command became at its time-out (``onTimeout``). Then ``exit_code`` is 124,
            and ``output`` was printed before the time-out.
        from_record: True if this is a recorded result, and the command was not run again: the result of an earlier call
            with the same key, or of an earlier attempt of this call whose answer was lost.
        notices: Further facts for the model.
        hint: A working alternative, if the failure is typical of a mounted S3 workspace; otherwise None.
        screen: The output as a terminal shows it, without control codes; None if the command had no pseudo-terminal
            (``pty``). ``output`` has the control codes.
        sync: The report of the synchronisation with S3; None in a workspace without ``s3Mode: sync``.
        sandbox_id: The sandbox in which the command ran.
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
    from_record: bool = False
    notices: tuple[str, ...] = ()
    hint: str | None = None
    sync: SyncReport | None = None
    sandbox_id: str = ""
    screen: str | None = None

    @property
    def text(self) -> str:
        """The result for the model: the notices, the output, the remarks, and the exit code or the job."""
        parts = [f"[{notice}]" for notice in self.notices]
        output = self.output if self.screen is None else self.screen
        if output:
            parts.append(output.rstrip("\n"))
        end = f"exit code {self.exit_code}" if self.job_id is None else f"still running as job {self.job_id}"
        return "\n".join([*parts, *self.remarks, f"[{end}]"])

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines for the model after the output: the hint, and the exit codes of a pipeline."""
        hint = (f"[hint: {self.hint}]",) if self.hint else ()
        codes = ", ".join(map(str, self.pipeline))
        return (*hint, f"[exit codes in the pipeline: {codes}]") if codes else hint


def as_shown(result: CommandResult) -> CommandResult:
    """Return the result as the model sees it: the screen replaces the output, and NUL and ESC are escaped."""
    output = result.output if result.screen is None else result.screen
    return replace(result, output=shown_output(output), screen=None)


def shown_output(output: str) -> str:
    r"""Escape NUL and ESC as in a file's text; nine or more NULs in a row become one ``\x00 [N times]``."""
    return visible(re.sub("\0{9,}", lambda nuls: f"\\x00 [{len(nuls[0]):,} times]", output))


async def run_command(
    client: GuestClient,
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
    pty: bool | tuple[int, int] = False,
) -> CommandResult:
    """Run a command in the workspace directory and return its result.

    Args:
        client: Sends to the sandbox.
        root: The workspace directory.
        command: The text for bash.
        timeout_s: Seconds after which the command is killed, or becomes a job.
        limit_bytes: Maximum number of bytes of output to return.
        key: Idempotency key, 1 to 64 ASCII letters and digits; None for a random key.
        keep: True to keep the record of the call as long as the sandbox; False to keep it for a day.
        defaults: Environment variables to set if the sandbox has no variable of the same name.
        job: The fields of the job that the command becomes at its time-out (`job_request`); None to kill the command.
        on_output: Receives the output while the command runs, see `LiveOutput`.
        pty: True for a pseudo-terminal of 80 columns and 24 rows, (columns, rows) for another size, False for no
            pseudo-terminal.

    Raises:
        CommandRefused: The command cannot run, or an argument is invalid. No request was sent.
        WorkspaceError: As `GuestClient.call` raises.
    """
    check_command(command)
    check_idempotency_key(key)
    terminal = terminal_size(pty)
    key = key or client.new_key()
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
        **optional_fields(client, command),
    }
    if terminal is not None:
        request["pty"] = list(terminal)
    if job is not None:
        request["job"] = job
    if on_output is None:
        answer, sandbox_id = await client.call("command", request, timeout_s=timeout_s, killable=True)
    else:
        live = LiveOutput(client, key, on_output)
        request["live"] = True
        call = client.call(
            "command",
            request,
            timeout_s=timeout_s,
            killable=True,
            on_send=live.start_polling,
            on_progress=live.emit_note,
        )
        answer, sandbox_id = await live.during(call)
    report = None
    if answer.get("sync") is not None:
        first, asked = read_report(answer["sync"]), read_time(answer.get("asked"))
        report = await finish_push(client.only_for(sandbox_id), root, first, asked=asked)
    return _result(answer, sandbox_id, report, timeout_s=timeout_s, limit_bytes=limit_bytes, pty=terminal)


def check_command(command: str) -> None:
    """Raise `CommandRefused` if the command is blank, larger than 1 MiB, or has a NUL byte or a lone surrogate."""
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
            "Write the data to a file with the file tool and use that.",
            code="command_too_large",
        )


def check_idempotency_key(key: str | None) -> None:
    """Raise `CommandRefused` if the key is not 1 to 64 ASCII letters and digits."""
    if key is not None and not (isinstance(key, str) and key.isascii() and key.isalnum() and len(key) <= 64):
        raise CommandRefused(
            "The idempotency key must be 1 to 64 letters and digits.", code="idempotency_key"
        )


def terminal_size(pty: bool | tuple[int, int]) -> tuple[int, int] | None:
    """Return the columns and rows of a command's pseudo-terminal; None if the command gets no pseudo-terminal.

    Raises:
        CommandRefused: The size is out of range.
    """
    if pty is False or pty is True:
        return (screen.COLUMNS, screen.ROWS) if pty else None
    size = tuple(pty) if isinstance(pty, (tuple, list)) else ()
    ranges = (screen.COLUMNS_RANGE, screen.ROWS_RANGE)
    if len(size) != 2 or not all(
        type(value) is int and value in allowed for value, allowed in zip(size, ranges, strict=True)
    ):
        raise CommandRefused(
            f"The terminal's size is a pair of columns ({ranges[0][0]} to {ranges[0][-1]}) and rows ({ranges[1][0]} to "
            f"{ranges[1][-1]}), or true for {screen.COLUMNS} by {screen.ROWS}.",
            code="terminal_size",
        )
    return size[0], size[1]


def optional_fields(client: GuestClient, command: str) -> Answer:
    """Return the fields of a request that only some commands need."""
    fields: Answer = {}
    user_variables = [name for name, _, _ in TERMINAL_VARIABLES if name in client.variables]
    if user_variables:
        fields["own"] = user_variables
    if "|" in command and ends_in_pipeline(command):
        fields["pipeline"] = True
    if re.search(_EDITOR, command):
        fields["editors"] = True
    return fields


def _result(
    answer: Answer,
    sandbox_id: str,
    report: SyncReport | None,
    *,
    timeout_s: float,
    limit_bytes: int,
    pty: tuple[int, int] | None,
) -> CommandResult:
    """Read the result from an answer, which may be forged: its fields may have any type.

    Raises:
        OutcomeUnknown: The answer is not that of a command that has ended.
    """
    reply = Reply("execute", answer)
    head, tail = decode_base64(answer.get("head")), decode_base64(answer.get("tail"))
    if len(head) + len(tail) > limit_bytes:
        raise reply.malformed("output")
    exit_code, size, log_bytes = map(reply.number, ("exit_code", "size_bytes", "log_bytes"))
    duration_s = answer.get("duration_s")
    if not isinstance(duration_s, float) or not 0 <= duration_s < math.inf:
        raise reply.malformed("duration_s")
    log_path = answer.get("log_path")
    log_path = legible.one_line(log_path, LOG_PATH_CHARS) if isinstance(log_path, str) and log_path else None
    truncated = size > len(head) + len(tail)
    where = _rest_location(log_path, size, log_bytes, answer)
    job_id, job_refusal = _job_of(answer)
    notices = _notices(answer, timeout_s=timeout_s, log_path=log_path, job_id=job_id, job_refusal=job_refusal)
    codes = answer.get("pipeline")
    return CommandResult(
        exit_code=exit_code,
        output=_joined(head, tail, size, where) if truncated else _text(head),
        timed_out=answer.get("timed_out") is True,
        truncated=truncated,
        output_bytes=size,
        duration_s=duration_s,
        log_path=log_path,
        background=answer.get("background") is True,
        pipeline=() if codes is None else relevant_exit_codes(codes, exit_code),
        job_id=job_id,
        from_record=answer.get("from_record") is True,
        notices=(*notices, *(report.notices if report else ())),
        sync=report,
        sandbox_id=sandbox_id,
        screen=None if pty is None else _screen(head, tail, size, where, pty=pty, limit_bytes=limit_bytes),
    )


def _notices(
    answer: Answer, *, timeout_s: float, log_path: str | None, job_id: str | None, job_refusal: str
) -> Iterator[str]:
    """Yield the facts of an answer that the model must know in addition to the output and the exit code."""
    timed_out = answer.get("timed_out") is True
    if job_id is not None:
        yield f"not done after {timeout_s:g} s; it goes on as job {job_id}, see it with bash_job"
    elif timed_out:
        rest = (
            "but some of what it had started could not be"
            if answer.get("survivors") is True
            else "with everything that it had started"
        )
        yield f"timed out after {timeout_s:g} s; it was killed, {rest}{job_refusal}"
    if answer.get("silent") is True:
        yield (
            "the workspace's storage did not answer at the time-out: the command may have waited for one of its files"
        )
    if answer.get("background") is True and not timed_out and log_path:
        yield f"a process that it started is running on; its later output goes to {log_path}"
    if ended := process_names(answer.get("ended")):
        yield (
            "killed, since it held the output of this call itself, which could not have been answered: "
            f"{', '.join(ended)}; what ~/.zshenv or $BASH_ENV starts needs a redirect of its own"
        )
    if editors := process_names(answer.get("editors")):
        yield (
            f"{', '.join(editors)} was ended, since no key can be pressed here; change files with the file tool or a "
            "script"
        )
    if answer.get("from_record") is True:
        yield "this call was made before: this is its recorded result, and nothing was run again"


def _job_of(answer: Answer) -> tuple[str | None, str]:
    """Return the id of the job that the command became; or None, and why it became no job if the sandbox reports it."""
    job = answer.get("job")
    if not isinstance(job, dict):
        return None, ""
    from langchain_daytona_ws._core.jobs.models import read_id  # only for commands that became jobs

    if job.get("error") == "jobs_full":
        return None, ", since 10 jobs are running already and it could not go on as another one"
    if "error" in job:
        return None, ", since it could not be recorded as a job"
    return read_id(Reply("job", job)), ""


def _rest_location(log_path: str | None, size: int, log_bytes: int, answer: Answer) -> str:
    if log_path is None or answer.get("log_failed") is True:
        return "it could not be saved, the sandbox's disk may be full"
    if log_bytes < size:
        return f"the first {log_bytes:,} bytes are in {log_path}"
    return f"all of it is in {log_path}"


def _joined(head: bytes, tail: bytes, size: int, where: str) -> str:
    """Return the beginning and the end of an output, with a notice between them."""
    first, last = whole_end(head), whole_start(tail)
    left_out = size - len(first) - len(last)
    notice = f"[... {left_out:,} of {size:,} bytes left out; {where} ...]"
    return f"{_text(first)}\n{notice}\n{_text(last)}"


def _screen(
    head: bytes, tail: bytes, size: int, where: str, *, pty: tuple[int, int], limit_bytes: int
) -> str:
    """Return the screen of a terminal.

    The beginning and the end of a truncated output are rendered separately, so that no control code can change the
    notice between them.
    """
    first, last = whole_end(head), whole_start(tail)
    left_out = size - len(first) - len(last)
    if size <= len(head) + len(tail):
        return screen.render(_text(head + tail), *pty, limit_chars=limit_bytes)
    notice = f"[... {left_out:,} of {size:,} bytes left out; {where} ...]"
    parts = [screen.render(_text(part), *pty, limit_chars=limit_bytes // 2) for part in (first, last)]
    return f"{parts[0]}\n{notice}\n{parts[1]}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
