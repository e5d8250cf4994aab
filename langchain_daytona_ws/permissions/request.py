"""The request that an approver gets: one tool call of the model, with a summary that is safe to print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

from langchain_daytona_ws.permissions import legible, prefixes

MAX_SUMMARY_CHARS = 400


def _frozen(value: object) -> object:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, AbstractSet):
        return frozenset(value)
    return bytes(value) if isinstance(value, bytearray) else value


def frozen_arguments(arguments: Mapping[str, object]) -> Mapping[str, object]:
    """Return a deep read-only copy: mappings become read-only, lists become tuples."""
    return cast("Mapping[str, object]", _frozen(arguments))


def plain_arguments(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return a deep copy with plain dicts and lists, for JSON and pydantic."""
    return cast("dict[str, object]", _plain(arguments))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def json_text(value: object) -> str:
    """Return a value as an indented JSON text; used if a call has an object where a text is expected.

    Raises:
        ValueError: The value can't be written as JSON, or is nested too deeply.
    """
    try:
        return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, RecursionError) as error:
        raise ValueError("it can't be written as JSON") from error


def argument_text(value: object) -> str:
    """Return an argument as text; it may have any type, because the call may not be validated yet."""
    if value is None or isinstance(value, str):
        return value or ""
    for text in (json_text if isinstance(value, (Mapping, list, tuple)) else str, repr):
        try:
            return text(value)
        except (ValueError, RecursionError):  # `str` and `repr` refuse integers of more than 4,300 digits
            continue
    return f"<a value of type {type(value).__qualname__} that is too large to show>"


def bash_label(arguments: Mapping[str, object]) -> str:
    """Return how a bash command runs: ``bash``, or ``bash (in the background, for 2 hours)``."""
    if not arguments.get("background"):
        return "bash"
    hours = arguments.get("hours")
    # Also a text is shown: the arguments may not be validated yet, and the tool accepts "24".
    text = f"{hours:g}" if isinstance(hours, float) else argument_text(hours)
    duration = "" if hours is None else f", for {legible.one_line(text, 60)} hours"
    return f"bash (in the background{duration})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledTool:
    """The tool that the model called, if it is a tool of Deep Agents.

    Args:
        name: ``"execute"``, ``"write_file"``, ``"edit_file"`` or ``"delete"``.
        arguments: The call's arguments, with this tool's argument names; a read-only deep copy is stored.
        names: This tool's name of an argument → the request's name. An argument that is missing here has the same name
            in both.
    """

    name: str
    arguments: Mapping[str, object] = field(repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    __hash__ = None  # type: ignore[assignment]  # arguments may be unhashable

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", frozen_arguments(self.arguments))

    def translated(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Return this tool's arguments with the argument names of the request."""
        return {self.names.get(name, name): value for name, value in arguments.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionRequest:
    r"""A tool call that needs approval. Create it with `for_bash`, `for_file`, `for_job` or `for_preview`.

    ``summary`` and ``diff`` are safe to print: a call can't imitate the prompt. Control, bidi and zero-width characters
    are escaped (``\x1b``, ``\u202e``). A path with unusual characters is quoted (``"a (3 lines)"``). ``arguments`` are
    as the model sent them: escape them before printing.

    Args:
        tool: ``"bash"``, ``"workspace_file"``, ``"bash_job"``, ``"preview_url"``, or ``"sandbox_file"`` (Deep Agents: a
            file outside of the workspace).
        action: ``"run"``, ``"write"``, ``"edit"``, ``"delete"``, ``"stop"`` or ``"open"``.
        arguments: The arguments of the tool call; a read-only deep copy is stored.
        summary: One line of at most 400 characters; a longer text is cut in the middle.
        namespace: Name of the workspace.
        diff: Unified diff of a write or an edit. If it has more than about 200 lines, a notice replaces its middle.
            Lines of more than 300 characters are cut in the middle too.
        diff_is_from_arguments: Whether the diff is built from the arguments only. The file is not read, because a
            request for approval creates no sandbox. The write itself checks the content of the file.
        tool_call_id: The model's id of the call, if there is one.
        called: The tool that the model called, if it is a tool of Deep Agents. `InterruptApprover` shows the call under
            this tool's name.
    """

    tool: str
    action: str
    arguments: Mapping[str, object] = field(repr=False)
    summary: str
    namespace: str
    diff: str | None = field(default=None, repr=False)
    diff_is_from_arguments: bool = False
    tool_call_id: str | None = None
    called: CalledTool | None = None

    __hash__ = None  # type: ignore[assignment]  # arguments may be unhashable

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", frozen_arguments(self.arguments))
        # Escape and shorten texts that a caller passes. The texts of the class methods are already safe.
        safe = legible.one_line(self.summary, MAX_SUMMARY_CHARS, double_backslash=False)
        object.__setattr__(self, "summary", safe)
        if self.diff is not None:
            object.__setattr__(self, "diff", legible.safe_diff(self.diff))

    @classmethod
    def for_bash(
        cls,
        command: str,
        *,
        namespace: str,
        tool_call_id: str | None = None,
        arguments: Mapping[str, object] | None = None,
    ) -> PermissionRequest:
        """Build the request to run a command.

        Args:
            command: The command, as passed to bash.
            namespace: Name of the workspace.
            tool_call_id: The model's id of the call. Default: none.
            arguments: Further arguments of the call (``timeout``, ``background`` …). Default: none.
        """
        call = {**(arguments or {}), "command": command}
        label = f"{bash_label(call)}: "
        summary = label + legible.one_line(command, MAX_SUMMARY_CHARS - len(label))
        return cls(
            tool="bash",
            action="run",
            arguments=call,
            summary=summary,
            namespace=namespace,
            tool_call_id=tool_call_id,
        )

    @classmethod
    def for_file(
        cls,
        action: str,
        arguments: Mapping[str, object],
        *,
        namespace: str,
        tool_call_id: str | None = None,
        diff: str | None = None,
        label: str | None = None,
    ) -> PermissionRequest:
        """Build the request for a file operation.

        Args:
            action: ``"write"``, ``"edit"``, ``"delete"``, or any other action.
            arguments: The call's ``path``, ``content``, ``old_string``, ``new_string``, ``replace_all``, ``overwrite``,
                and any other argument.
            namespace: Name of the workspace.
            tool_call_id: The model's id of the call. Default: none.
            diff: A diff against the real file. Default: for a write or an edit, a diff from the arguments, which its
                header states; otherwise none.
            label: The first words of the summary. Default: ``"workspace_file"`` and the action.
        """
        path, content, old, new = (
            argument_text(arguments.get(name)) for name in ("path", "content", "old_string", "new_string")
        )
        every = bool(arguments.get("replace_all"))
        from_arguments = None
        size = ""
        if action == "write":
            overwrites = ", overwrites" if arguments.get("overwrite") else ""
            size = f" ({len(content):,} characters, {_line_count(content)}{overwrites})"
            from_arguments = legible.write_diff(path, content) if diff is None else None
        elif action == "edit":
            times = ", every occurrence" if every else ""
            size = f" ({_line_count(old)} → {_line_count(new)}{times})"
            from_arguments = legible.edit_diff(path, old, new, every=every) if diff is None else None
        label = f"{label or f'workspace_file {legible.one_line(action, 60)}'}: "
        return cls(
            tool="workspace_file",
            action=action,
            arguments=arguments,
            summary=label + legible.name(path, MAX_SUMMARY_CHARS - len(label) - len(size)) + size,
            namespace=namespace,
            diff=diff if from_arguments is None else from_arguments,
            diff_is_from_arguments=from_arguments is not None,
            tool_call_id=tool_call_id,
        )

    @classmethod
    def for_job(
        cls,
        action: str,
        arguments: Mapping[str, object],
        *,
        command: str | None = None,
        namespace: str,
        tool_call_id: str | None = None,
    ) -> PermissionRequest:
        """Build the request for an action on a background job.

        Args:
            action: ``"stop"``, or any other action.
            arguments: The call's ``job_id``, and any other argument.
            command: The job's command, if known. Default: none.
            namespace: Name of the workspace.
            tool_call_id: The model's id of the call. Default: none.
        """
        label = f"bash_job {legible.one_line(action, 60)}: "
        job = legible.name(argument_text(arguments.get("job_id")), 60)
        if command is not None:
            job += f", {legible.one_line(command, MAX_SUMMARY_CHARS - len(label) - len(job) - 2)}"
        return cls(
            tool="bash_job",
            action=action,
            arguments={**arguments, "action": action},
            summary=label + job,
            namespace=namespace,
            tool_call_id=tool_call_id,
        )

    @classmethod
    def for_preview(
        cls, arguments: Mapping[str, object], *, namespace: str, tool_call_id: str | None = None
    ) -> PermissionRequest:
        """Build the request for a link to a port of the sandbox.

        Args:
            arguments: The call's ``port``, ``expires_s``, and any other argument.
            namespace: Name of the workspace.
            tool_call_id: The model's id of the call. Default: none.
        """
        port = legible.one_line(argument_text(arguments.get("port")), 60)
        expires = arguments.get("expires_s")
        for_s = "" if expires is None else f" for {legible.one_line(argument_text(expires), 60)} seconds"
        return cls(
            tool="preview_url",
            action="open",
            arguments=arguments,
            summary=f"preview_url: open port {port} to anyone with the link{for_s}",
            namespace=namespace,
            tool_call_id=tool_call_id,
        )

    @property
    def command(self) -> str | None:
        """The command of a bash call; None for any other tool."""
        command = self.arguments.get("command")
        return command if self.tool == "bash" and isinstance(command, str) else None

    @property
    def suggested_prefixes(self) -> tuple[str, ...]:
        """The prefixes that ``allow_always("prefix")`` would remember; empty if there is no such prefix."""
        return () if self.command is None else prefixes.suggested_prefixes(self.command)

    def to_dict(self) -> dict[str, object]:
        """Return all fields except ``called`` as plain values (dicts, lists …), for JSON or an interrupt's value."""
        return {
            "tool": self.tool,
            "action": self.action,
            "arguments": plain_arguments(self.arguments),
            "summary": self.summary,
            "diff": self.diff,
            "diff_is_from_arguments": self.diff_is_from_arguments,
            "namespace": self.namespace,
            "tool_call_id": self.tool_call_id,
        }


def _line_count(text: str) -> str:
    count = text.count("\n") + (not text.endswith("\n") and bool(text))
    return f"{count:,} line" if count == 1 else f"{count:,} lines"
