"""What an approver is shown: one call of the model, safe to print."""

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
    """Return a deep read-only copy: mappings stay mappings, lists become tuples."""
    return cast("Mapping[str, object]", _frozen(arguments))


def plain_arguments(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return a deep copy of plain dicts and lists, as JSON and pydantic want them."""
    return cast("dict[str, object]", _plain(arguments))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def json_text(value: object) -> str:
    """Return the text of a JSON file: what is written where a call gives an object in place of text.

    Raises:
        ValueError: It holds what JSON has no word for, or is nested too deeply.
    """
    try:
        return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, RecursionError) as error:
        raise ValueError("it can not be written as JSON") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledTool:
    """The tool that the model called, where that is not one of this package: a Deep Agent's own.

    Args:
        name: ``"execute"``, ``"write_file"``, ``"edit_file"`` or ``"delete"``.
        arguments: The call's arguments under the names that this tool has for them; a read-only deep copy is kept.
        names: Its name of an argument → that of the request.
    """

    name: str
    arguments: Mapping[str, object] = field(repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    __hash__ = None  # type: ignore[assignment]  # the arguments may hold what has no hash

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", frozen_arguments(self.arguments))

    def translated(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Return arguments of this tool under the request's names."""
        return {self.names.get(name, name): value for name, value in arguments.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionRequest:
    r"""What an approver is asked about. Make one with `for_bash`, `for_file` or `for_job`.

    ``summary`` and ``diff`` are safe to print: control characters, terminal escapes, bidi and zero-width
    characters are written out (``\x1b``, ``\u202e``), so that a call can't forge the prompt. ``arguments`` is
    the call as the model made it, unaltered: escape it before printing it. A path that is not plain stands in
    quotes, so that it can't hold a note of its own making (``"a (3 lines)"``).

    Args:
        tool: ``"bash"``, ``"workspace_file"`` or ``"bash_job"``.
        action: ``"run"``, ``"write"``, ``"edit"``, ``"delete"``, ``"stop"``.
        arguments: The tool call's arguments; a read-only deep copy is kept.
        summary: One line of at most 400 characters; of a longer call the head and the tail.
        namespace: The workspace it would happen in.
        diff: Unified diff of a write or an edit, of bounded size, with a notice of what is left out.
        diff_is_from_arguments: The diff shows what the call says, not what the file holds: the question comes
            before anything is provisioned. The file's real content is checked at the write.
        tool_call_id: The model's id of this call, when there is one.
        called: The tool that the model called, where that is a Deep Agent's own. `InterruptApprover` shows the call as
            that tool's.
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

    __hash__ = None  # type: ignore[assignment]  # the arguments may hold what has no hash

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", frozen_arguments(self.arguments))
        # Text from elsewhere gets the same protection; what is made here passes through unchanged.
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
        """Ask about running a command.

        Args:
            command: The command as it will be given to bash.
            namespace: The workspace it would run in.
            tool_call_id: The model's id of this call.
            arguments: Further arguments of the call (``timeout``, ``background`` …). Default: none.
        """
        given = {**(arguments or {}), "command": command}
        hours = given.get("hours")
        how_long = f", for {hours:g} hours" if isinstance(hours, (int, float)) else ""
        label = f"bash (in the background{how_long}): " if given.get("background") else "bash: "
        summary = label + legible.one_line(command, MAX_SUMMARY_CHARS - len(label))
        return cls(
            tool="bash",
            action="run",
            arguments=given,
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
    ) -> PermissionRequest:
        """Ask about a file operation.

        Args:
            action: ``"write"``, ``"edit"`` or ``"delete"`` (others are asked about in the same way).
            arguments: The call's ``path``, ``content``, ``old_string``, ``new_string``, ``replace_all``,
                ``overwrite``; also any other.
            namespace: The workspace it would happen in.
            tool_call_id: The model's id of this call.
            diff: A diff against the real file, when the caller has one. Default: one made from the arguments,
                and labelled so.
        """
        path, content, old, new = (
            _text(arguments.get(name)) for name in ("path", "content", "old_string", "new_string")
        )
        every = bool(arguments.get("replace_all"))
        from_arguments = None
        about = ""
        if action == "write":
            over = ", overwrites" if arguments.get("overwrite") else ""
            about = f" ({len(content):,} characters, {_line_count(content)}{over})"
            from_arguments = legible.write_diff(path, content) if diff is None else None
        elif action == "edit":
            times = ", every occurrence" if every else ""
            about = f" ({_line_count(old)} → {_line_count(new)}{times})"
            from_arguments = legible.edit_diff(path, old, new, every=every) if diff is None else None
        label = f"workspace_file {legible.one_line(action, 60)}: "
        return cls(
            tool="workspace_file",
            action=action,
            arguments=arguments,
            summary=label + legible.name(path, MAX_SUMMARY_CHARS - len(label) - len(about)) + about,
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
        """Ask about a background job.

        Args:
            action: ``"stop"`` (others are asked about in the same way).
            arguments: The call's ``job_id``; also any other.
            command: What the job runs, where that is known.
            namespace: The workspace that it runs in.
            tool_call_id: The model's id of this call.
        """
        label = f"bash_job {legible.one_line(action, 60)}: "
        about = legible.name(str(arguments.get("job_id", "")), 60)
        if command is not None:
            about += f", {legible.one_line(command, MAX_SUMMARY_CHARS - len(label) - len(about) - 2)}"
        return cls(
            tool="bash_job",
            action=action,
            arguments={**arguments, "action": action},
            summary=label + about,
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
        """The prefixes that ``allow_always("prefix")`` would remember; empty when there are none to offer."""
        return () if self.command is None else prefixes.suggested_prefixes(self.command)

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain dicts, lists and strings: for JSON, or an interrupt's payload."""
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


def _text(value: object) -> str:
    """Return an argument, of a call that nobody may have checked yet, as the text that it stands for."""
    if isinstance(value, (Mapping, list, tuple)):
        try:
            return json_text(value)
        except ValueError:
            return repr(value)
    return "" if value is None else str(value)


def _line_count(text: str) -> str:
    count = text.count("\n") + (not text.endswith("\n") and bool(text))
    return f"{count:,} line" if count == 1 else f"{count:,} lines"
