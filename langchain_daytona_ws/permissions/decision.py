"""What an approver may answer."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from langchain_daytona_ws.permissions import prefixes
from langchain_daytona_ws.permissions.request import PermissionRequest, frozen_arguments

Scope = Literal["command", "prefix", "tool"]
Kind = Literal["allow", "deny", "allow_edited", "allow_always", "respond"]


class AnswerUnusable(Exception):
    """An approver has no answer that it could give; raised by it, it denies, and its text is for the engineer.

    Of any other exception only the type is told, since its text may quote a secret.
    """


@dataclass(frozen=True, slots=True)
class PermissionDecision:
    """An approver's answer. Make one with `allow`, `deny`, `allow_edited`, `allow_always` or `respond`.

    Nothing else is an answer: True, None or a string deny, because a truthy object that somebody returned by
    accident must not run a command.

    Raises:
        ValueError: For parts that contradict each other; raised within the approver, it denies.
        TypeError: For a reason or a message that is not a string; likewise.
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
            raise ValueError("allow_edited, and nothing else, takes a mapping of the edited arguments")
        if (self.kind == "allow_always") != (self.scope in {"command", "prefix", "tool"}):
            raise ValueError('allow_always, and nothing else, takes a scope: "command", "prefix" or "tool"')
        if self.message is not None and not isinstance(self.message, str):
            raise TypeError("the message must be a string")
        if (self.kind == "respond") != (self.message is not None):
            raise ValueError("respond, and nothing else, takes a message")
        if self.prefix is not None:
            if self.scope != "prefix":
                raise ValueError('a prefix goes with the scope "prefix"')
            if not isinstance(self.prefix, str) or prefixes.prefix_words(self.prefix) is None:
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
                commands of which every segment begins with the words of a remembered prefix, and goes on
                without words known to make it run something else (``make test --eval=…``); for bash only.
                ``"tool"``: all that this tool does.
            prefix: The words to remember, such as ``"git status"``. Default: ``request.suggested_prefixes``;
                when there is none, the call runs once and nothing is remembered.

        Raises:
            ValueError: For another scope, or a prefix that is not the beginning of one literal command.
        """
        return cls("allow_always", scope=scope, prefix=prefix)

    @classmethod
    def respond(cls, message: str) -> PermissionDecision:
        """Answer in place of the tool: nothing runs, and the model gets the message as the tool's result, as it is.

        Raises:
            TypeError: For a message that is not a string.
        """
        return cls("respond", message=message)


class Approver(Protocol):
    """A callable that answers a `PermissionRequest`, sync or async.

    What it raises denies, except what steers the program: KeyboardInterrupt, cancellation, a LangGraph
    interrupt.
    """

    def __call__(
        self, request: PermissionRequest, /
    ) -> PermissionDecision | Awaitable[PermissionDecision]: ...
