"""What needs asking, what the approver is shown, what it may answer, and what is remembered of that."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Awaitable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, cast

from langchain_daytona_ws import _legible, _shell
from langchain_daytona_ws.config import PermissionMode

Scope = Literal["command", "prefix", "tool"]

MAX_SUMMARY_CHARS = 400

_READS: frozenset[str] = frozenset()
_CHANGES_FILES = frozenset({"ask"})
_RUNS_COMMANDS = frozenset({"ask", "edit"})

ASKS: Mapping[tuple[str, str], frozenset[str]] = MappingProxyType(
    {
        ("workspace_file", "read"): _READS,
        ("workspace_file", "list"): _READS,
        ("workspace_file", "glob"): _READS,
        ("workspace_file", "grep"): _READS,
        ("workspace_file", "write"): _CHANGES_FILES,
        ("workspace_file", "edit"): _CHANGES_FILES,
        ("workspace_file", "delete"): _CHANGES_FILES,
        ("bash", "run"): _RUNS_COMMANDS,
        ("bash_job", "status"): _READS,
        ("bash_job", "logs"): _READS,
        ("bash_job", "list"): _READS,
        ("bash_job", "stop"): _RUNS_COMMANDS,
    }
)
"""(tool, action) → the modes in which it asks."""


def needs_approval(mode: PermissionMode, tool: str, action: str) -> bool:
    """Say whether an action has to be approved first.

    Args:
        mode: ``"ask"``, ``"edit"`` or ``"bypass"``, which never asks. Any other value acts like ``"ask"``.
        tool: The tool's name, such as ``"bash"``.
        action: What it would do: ``"run"``, ``"write"`` … One that is not in the table asks.
    """
    if mode == "bypass":
        return False
    asks = ASKS.get((tool, action))
    return asks is None or (mode if mode in {"ask", "edit"} else "ask") in asks


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionRequest:
    r"""What an approver is asked about. Make one with `for_bash` or `for_file`.

    ``summary`` and ``diff`` are safe to print: control characters, terminal escapes, bidi and zero-width
    characters are written out (``\x1b``, ``\u202e``), so that a call can't forge the prompt. ``arguments`` is
    the call as the model made it, unaltered: escape it before printing it.

    Args:
        tool: ``"bash"`` or ``"workspace_file"``.
        action: ``"run"``, ``"write"``, ``"edit"``, ``"delete"``.
        arguments: The tool call's arguments; a read-only deep copy is kept.
        summary: One line of at most 400 characters; of a longer call the head and the tail.
        namespace: The workspace it would happen in.
        diff: Unified diff of a write or an edit, of bounded size, with a notice of what is left out.
        diff_is_from_arguments: The diff shows what the call says, not what the file holds: the question comes
            before anything is provisioned. The file's real content is checked at the write.
        tool_call_id: The model's id of this call, when there is one.
    """

    tool: str
    action: str
    arguments: Mapping[str, object] = field(repr=False)
    summary: str
    namespace: str
    diff: str | None = field(default=None, repr=False)
    diff_is_from_arguments: bool = False
    tool_call_id: str | None = None

    __hash__ = None  # type: ignore[assignment]  # the arguments may hold what has no hash

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", frozen_arguments(self.arguments))
        # Text from elsewhere gets the same protection; what is made here passes through unchanged.
        safe = _legible.one_line(self.summary, MAX_SUMMARY_CHARS, double_backslash=False)
        object.__setattr__(self, "summary", safe)
        if self.diff is not None:
            object.__setattr__(self, "diff", _legible.safe_diff(self.diff))

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
        label = "bash (in the background): " if given.get("background") else "bash: "
        summary = label + _legible.one_line(command, MAX_SUMMARY_CHARS - len(label))
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
        path, content = str(arguments.get("path", "")), str(arguments.get("content", ""))
        old, new = str(arguments.get("old_string", "")), str(arguments.get("new_string", ""))
        every = bool(arguments.get("replace_all"))
        from_arguments = None
        about = ""
        if action == "write":
            over = ", overwrites" if arguments.get("overwrite") else ""
            about = f" ({len(content):,} characters, {_line_count(content)}{over})"
            from_arguments = _legible.write_diff(path, content) if diff is None else None
        elif action == "edit":
            times = ", every occurrence" if every else ""
            about = f" ({_line_count(old)} → {_line_count(new)}{times})"
            from_arguments = _legible.edit_diff(path, old, new, every=every) if diff is None else None
        label = f"workspace_file {_legible.one_line(action, 60)}: "
        return cls(
            tool="workspace_file",
            action=action,
            arguments=arguments,
            summary=label + _legible.one_line(path, MAX_SUMMARY_CHARS - len(label) - len(about)) + about,
            namespace=namespace,
            diff=diff if from_arguments is None else from_arguments,
            diff_is_from_arguments=from_arguments is not None,
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
        return () if self.command is None else _shell.suggested_prefixes(self.command)

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


def _line_count(text: str) -> str:
    count = text.count("\n") + (not text.endswith("\n") and bool(text))
    return f"{count:,} line" if count == 1 else f"{count:,} lines"


@dataclass(frozen=True, slots=True)
class PermissionDecision:
    """An approver's answer. Make one with `allow`, `deny`, `allow_edited` or `allow_always`.

    Nothing else is an answer: True, None or a string deny, because a truthy object that somebody returned by
    accident must not run a command.

    Raises:
        ValueError: For parts that contradict each other; raised within the approver, it denies.
        TypeError: For a reason that is not a string; likewise.
    """

    kind: Literal["allow", "deny", "allow_edited", "allow_always"]
    reason: str = ""
    arguments: Mapping[str, object] | None = field(default=None, repr=False)
    scope: Scope | None = None
    prefix: str | None = None

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.kind not in {"allow", "deny", "allow_edited", "allow_always"}:
            raise ValueError(f"kind must be allow, deny, allow_edited or allow_always, not {self.kind!r}")
        if not isinstance(self.reason, str):
            raise TypeError("the reason must be a string")
        if (self.kind == "allow_edited") != isinstance(self.arguments, Mapping):
            raise ValueError("allow_edited, and nothing else, takes a mapping of the edited arguments")
        if (self.kind == "allow_always") != (self.scope in {"command", "prefix", "tool"}):
            raise ValueError('allow_always, and nothing else, takes a scope: "command", "prefix" or "tool"')
        if self.prefix is not None:
            if self.scope != "prefix":
                raise ValueError('a prefix goes with the scope "prefix"')
            if not isinstance(self.prefix, str) or _shell.prefix_words(self.prefix) is None:
                raise ValueError(
                    "a prefix must be the first words of one literal command, such as 'git status': "
                    "no expansion, redirection, assignment or second command"
                )
        if self.arguments is not None:
            object.__setattr__(self, "arguments", frozen_arguments(self.arguments))

    @classmethod
    def allow(cls) -> PermissionDecision:
        """Let this call run, once."""
        return cls("allow")

    @classmethod
    def deny(cls, reason: str = "") -> PermissionDecision:
        """Refuse the call; the reason is passed to the model, escaped and cut at 500 characters."""
        return cls("deny", reason=reason)

    @classmethod
    def allow_edited(cls, arguments: Mapping[str, object]) -> PermissionDecision:
        """Let the call run with these arguments instead (all of them, not only the changed ones).

        They are validated like the model's own; invalid ones deny. The model is told what really ran. The
        tool, and the file tool's ``command``, can't be changed.
        """
        return cls("allow_edited", arguments=arguments)

    @classmethod
    def allow_always(cls, scope: Scope, prefix: str | None = None) -> PermissionDecision:
        """Let the call run and, for this session, what is like it without asking.

        Args:
            scope: ``"command"``: this exact command (of the file tool: exactly this call). ``"prefix"``:
                commands of which every segment begins with the words of a remembered prefix; for bash only.
                ``"tool"``: all that this tool does.
            prefix: The words to remember, such as ``"git status"``. Default: ``request.suggested_prefixes``;
                when there is none, the call runs once and nothing is remembered.

        Raises:
            ValueError: For another scope, or a prefix that is not the beginning of one literal command.
        """
        return cls("allow_always", scope=scope, prefix=prefix)


class Approver(Protocol):
    """A callable that answers a `PermissionRequest`, sync or async.

    What it raises denies, except what steers the program: KeyboardInterrupt, cancellation, a LangGraph
    interrupt.
    """

    def __call__(
        self, request: PermissionRequest, /
    ) -> PermissionDecision | Awaitable[PermissionDecision]: ...


class RememberedApprovals:
    """What an approver allowed for the rest of the session: in memory, safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tools: set[str] = set()
        self._prefixes: dict[_shell.Words, str] = {}
        self._calls: dict[bytes, str] = {}

    def remember(self, request: PermissionRequest, scope: Scope, prefix: str | None = None) -> bool:
        """Cover ``request`` and what is like it from now on.

        Args:
            request: The call that was allowed.
            scope: See `PermissionDecision.allow_always`.
            prefix: See `PermissionDecision.allow_always`.

        Returns:
            False when there is no prefix to remember for this command.

        Raises:
            ValueError: For the scope ``"prefix"`` with another tool than bash, or an unusable prefix.
        """
        prefixes: Sequence[str] = ()
        if scope == "prefix":
            if request.command is None:
                raise ValueError("only a bash command has a prefix to remember")
            prefixes = request.suggested_prefixes if prefix is None else (prefix,)
            if not prefixes:
                return False
        rules: dict[_shell.Words, str] = {}
        for text in prefixes:
            words = _shell.prefix_words(text)
            if words is None:
                raise ValueError("a prefix must be the first words of one literal command")
            rules[words] = text
        with self._lock:
            self._prefixes.update(rules)
            if scope == "tool":
                self._tools.add(request.tool)
            elif scope == "command":
                self._calls[_fingerprint(request)] = request.summary
        return True

    def covers(self, request: PermissionRequest) -> bool:
        """Say whether ``request`` was allowed before: its tool, its exact call, or each segment's prefix."""
        with self._lock:
            if request.tool in self._tools:
                return True
            prefixes = tuple(self._prefixes)
            calls = frozenset(self._calls)
        if calls and _fingerprint(request) in calls:
            return True
        if not prefixes or request.command is None:
            return False
        segments = _shell.simple_commands(request.command)
        return segments is not None and all(
            any(_shell.starts_with(words, prefix) for prefix in prefixes) for words in segments
        )

    def rules(self) -> tuple[str, ...]:
        """Return one line per rule, to show to the user."""
        with self._lock:
            return (
                *(f"all of {tool}" for tool in sorted(self._tools)),
                *(f"bash prefix: {prefix}" for prefix in self._prefixes.values()),
                *(f"exactly {summary}" for summary in self._calls.values()),
            )

    def clear(self) -> None:
        """Forget everything: the next call asks again."""
        with self._lock:
            self._tools.clear()
            self._prefixes.clear()
            self._calls.clear()


def _fingerprint(request: PermissionRequest) -> bytes:
    # A hash, because a command may be a megabyte long. Of bash only the command counts: a new description or
    # time-out is the same command.
    call: object = request.command if request.command is not None else _canonical(request.arguments)
    text = repr((request.tool, request.action, call))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _canonical(value: object) -> object:
    if isinstance(value, Mapping):
        return sorted((repr(key), repr(_canonical(item))) for key, item in value.items())
    if isinstance(value, AbstractSet):
        return sorted(repr(item) for item in value)
    return [_canonical(item) for item in value] if isinstance(value, (list, tuple)) else value
