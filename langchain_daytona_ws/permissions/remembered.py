"""Approvals that are remembered for a thread of a workspace, or for a session."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from langchain_daytona_ws.permissions import shell
from langchain_daytona_ws.permissions.decision import Scope
from langchain_daytona_ws.permissions.prefixes import covers, prefix_words
from langchain_daytona_ws.permissions.request import PermissionRequest, bash_label

# Arguments that an approval of a bash command ignores. All others count: a job runs for up to 24 hours.
_IGNORED = {"command", "timeout", "pty", "description"}


class RememberedApprovals:
    """Approvals in memory, safe for use by several threads of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tools: set[str] = set()
        self._prefixes: dict[tuple[shell.Words, str], str] = {}  # words and `_manner` → rule to display
        self._calls: dict[bytes, str] = {}

    def remember(self, request: PermissionRequest, scope: Scope, prefix: str | None = None) -> bool:
        """Remember the approval of ``request`` and of similar calls, as `PermissionDecision.allow_always` describes.

        Returns:
            False if the command has no prefix to remember; else True.

        Raises:
            ValueError: The scope is ``"prefix"`` and the tool is not bash, or the prefix is unusable.
        """
        prefixes: Sequence[str] = ()
        if scope == "prefix":
            if request.command is None:
                raise ValueError("only a bash command has a prefix to remember")
            prefixes = request.suggested_prefixes if prefix is None else (prefix,)
            if not prefixes:
                return False
        rules: dict[tuple[shell.Words, str], str] = {}
        for text in prefixes:
            words = prefix_words(text)
            if words is None:
                raise ValueError("a prefix must be the first words of one literal command")
            rules[words, _manner(request.arguments)] = f"{bash_label(request.arguments)} prefix: {text}"
        with self._lock:
            self._prefixes.update(rules)
            if scope == "tool":
                self._tools.add(request.tool)
            elif scope == "command":
                self._calls[_fingerprint(request.tool, request.action, request.arguments)] = request.summary
        return True

    def covers(self, tool: str, action: str, arguments: Mapping[str, object]) -> bool:
        """Return whether the tool, the exact call, or a prefix for each part of a bash command is remembered.

        A part is a simple command (between ``&&``, ``|`` …). `prefixes.covers` compares it with a prefix. An
        approval with another ``background`` or other ``hours`` does not cover the call.
        """
        with self._lock:
            if tool in self._tools:
                return True
            manner = _manner(arguments)
            prefixes = tuple(words for words, approved in self._prefixes if approved == manner)
            calls = frozenset(self._calls)
        if calls and _fingerprint(tool, action, arguments) in calls:
            return True
        command = _command(tool, arguments)
        if not prefixes or command is None:
            return False
        segments = shell.simple_commands(command)
        return segments is not None and all(
            any(covers(prefix, words) for prefix in prefixes) for words in segments
        )

    def rules(self) -> tuple[str, ...]:
        """Return one line per rule, for display to the user."""
        with self._lock:
            return (
                *(f"all of {tool}" for tool in sorted(self._tools)),
                *self._prefixes.values(),
                *(f"exactly {summary}" for summary in self._calls.values()),
            )

    def clear(self) -> None:
        with self._lock:
            self._tools.clear()
            self._prefixes.clear()
            self._calls.clear()


def _command(tool: str, arguments: Mapping[str, object]) -> str | None:
    command = arguments.get("command")
    return command if tool == "bash" and isinstance(command, str) else None


def _fingerprint(tool: str, action: str, arguments: Mapping[str, object]) -> bytes:
    # A hash, because a command may be a megabyte long.
    command = _command(tool, arguments)
    call = _canonical(arguments) if command is None else (command, _manner(arguments))
    text = repr((tool, action, call))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _manner(arguments: Mapping[str, object]) -> str:
    """Return how a bash command runs, such as in the background for 2 hours; for comparison only."""
    return repr(_canonical({name: value for name, value in arguments.items() if name not in _IGNORED}))


def _canonical(value: object) -> object:
    if isinstance(value, Mapping):
        return sorted((repr(key), repr(_canonical(item))) for key, item in value.items())
    if isinstance(value, AbstractSet):
        return sorted(repr(item) for item in value)
    return [_canonical(item) for item in value] if isinstance(value, (list, tuple)) else value
