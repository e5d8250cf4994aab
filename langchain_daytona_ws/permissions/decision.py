"""The answer of an approver, and the approver's protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from langchain_daytona_ws.permissions import prefixes
from langchain_daytona_ws.permissions.request import PermissionRequest, frozen_arguments

Scope = Literal["command", "prefix", "tool"]
Kind = Literal["allow", "deny", "allow_edited", "allow_always", "respond"]


class AnswerUnusable(Exception):
    """Raise this in a custom approver that can't answer: the call is denied, and the text is logged for the engineer.

    The model gets a general text. If the approver raises another exception, only its type is logged, because its text
    may quote a secret.

    Example:
        ``raise AnswerUnusable("the approval service returned an unknown user")``
    """


@dataclass(frozen=True, slots=True)
class PermissionDecision:
    """An approver's answer. Create it with `allow`, `deny`, `allow_edited`, `allow_always` or `respond`.

    Any other return value (True, None, a string) denies the call, so that a truthy value returned by accident can't run
    a command.

    Args:
        kind: ``"allow"``, ``"deny"``, ``"allow_edited"``, ``"allow_always"`` or ``"respond"``.
        reason: The reason of a denial.
        arguments: The edited arguments; a read-only deep copy is stored.
        scope: See `allow_always`.
        prefix: See `allow_always`.
        message: The answer in place of the tool's result.

    An approver that raises one of these errors denies the call.

    Raises:
        ValueError: A field is invalid, or the fields contradict each other.
        TypeError: The reason or the message is not a string.
    """

    kind: Kind
    reason: str = ""
    arguments: Mapping[str, object] | None = field(default=None, repr=False)
    scope: Scope | None = None
    prefix: str | None = None
    message: str | None = field(default=None, repr=False)

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {self.kind!r}")
        if not isinstance(self.reason, str):
            raise TypeError("the reason must be a string")
        if (self.kind == "allow_edited") != isinstance(self.arguments, Mapping):
            raise ValueError("arguments (a mapping) belong to allow_edited, and only to it")
        if (self.kind == "allow_always") != (self.scope in ("command", "prefix", "tool")):
            raise ValueError(
                'a scope ("command", "prefix" or "tool") belongs to allow_always, and only to it'
            )
        if self.message is not None and not isinstance(self.message, str):
            raise TypeError("the message must be a string")
        if (self.kind == "respond") != (self.message is not None):
            raise ValueError("a message belongs to respond, and only to it")
        if self.prefix is not None:
            if self.scope != "prefix":
                raise ValueError('a prefix needs the scope "prefix"')
            if not isinstance(self.prefix, str) or prefixes.prefix_words(self.prefix) is None:
                raise ValueError(
                    "a prefix must be the first words of one literal command, such as 'git status': "
                    "no expansion, redirection, assignment or second command"
                )
        if self.arguments is not None:
            object.__setattr__(self, "arguments", frozen_arguments(self.arguments))

    @classmethod
    def allow(cls) -> PermissionDecision:
        """Allow this call once."""
        return cls("allow")

    @classmethod
    def deny(cls, reason: str = "") -> PermissionDecision:
        """Deny the call.

        Args:
            reason: Text for the model and the engineer, shown escaped and cut at 500 characters.
        """
        return cls("deny", reason=reason)

    @classmethod
    def allow_edited(cls, arguments: Mapping[str, object]) -> PermissionDecision:
        """Allow the call with edited arguments.

        The arguments are validated like the model's arguments; if they are invalid, the call is denied. The model
        receives a note with the changes. The tool, and the ``action`` of a tool that has actions, can't be changed.

        Args:
            arguments: All arguments of the call, including the unchanged arguments.
        """
        return cls("allow_edited", arguments=arguments)

    @classmethod
    def allow_always(cls, scope: Scope, prefix: str | None = None) -> PermissionDecision:
        """Allow the call, and allow similar calls without asking from now on.

        The approval is kept for the graph's thread in this workspace, in the memory of the process. For a call without
        a thread id, it is kept for the session.

        Args:
            scope: ``"command"``: this exact command (for another tool: this exact call). ``"prefix"``, for bash only:
                commands in which every part (between ``&&``, ``|`` …) starts with a remembered prefix. A part is not
                allowed if a later word is known to run another program, as in ``make test --eval=…``. For both, a
                command with another ``background`` or other ``hours`` needs a new approval. ``"tool"``: every call of
                this tool.
            prefix: The words to remember, such as ``"git status"``. Default: ``request.suggested_prefixes``; if this is
                empty, the call is allowed once.

        Raises:
            ValueError: The scope is unknown, the prefix is not the beginning of one literal command, or a prefix is
                given although the scope is not ``"prefix"``.
        """
        return cls("allow_always", scope=scope, prefix=prefix)

    @classmethod
    def respond(cls, message: str) -> PermissionDecision:
        """Answer in place of the tool, which then does not run.

        Args:
            message: Given to the model unchanged, as the tool's result.

        Raises:
            TypeError: The message is not a string.
        """
        return cls("respond", message=message)


class Approver(Protocol):
    """A sync or async callable that answers a `PermissionRequest`.

    An exception in the approver denies the call; raise `AnswerUnusable` to log a reason. Control flow is raised again:
    KeyboardInterrupt, SystemExit, cancellation, and LangGraph's interrupts.
    """

    def __call__(
        self, request: PermissionRequest, /
    ) -> PermissionDecision | Awaitable[PermissionDecision]: ...
