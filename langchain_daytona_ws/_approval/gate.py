"""The gate before what the model does: asks whoever was appointed, and lets through, changes or denies."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from langchain_daytona_ws._approval.asking import Blocking, OnLoop, Outcome, Question, Side
from langchain_daytona_ws._approval.turns import Ticket, Turns, WouldDeadlock
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws.config import PermissionMode
from langchain_daytona_ws.errors import ConfigError, PermissionDenied
from langchain_daytona_ws.permissions import (
    AnswerUnusable,
    Approver,
    PermissionDecision,
    PermissionRequest,
    RememberedApprovals,
    legible,
    needs_approval,
    plain_arguments,
)

APPROVAL_TIMEOUT_S = 3600.0
"""Default time for an answer, in seconds, from the moment the approver is called; the same for one's turn."""

MAX_REASON_CHARS = 500
MAX_CHANGE_CHARS = 2000

T = TypeVar("T")
_log = logging.getLogger("langchain_daytona_ws")

_DO_NOT_RETRY = "Do not retry it; ask the user or continue without it."


@dataclass(frozen=True, slots=True)
class Approval(Generic[T]):
    """What may run now.

    Args:
        arguments: The arguments to run with, read-only: the request's, or those that the approver edited.
        edited: Whether the approver changed them; then ``validated`` and ``note`` are set.
        validated: What the caller's ``validate`` made of the edited arguments.
        note: For the model: what was changed, and so what really ran.
    """

    arguments: Mapping[str, object]
    edited: bool = False
    validated: T | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What somebody answered in place of the tool: nothing may run.

    Args:
        text: The answer, for the model.
    """

    text: str

    @property
    def content_and_artifact(self) -> tuple[str, dict[str, Any]]:
        """The tool's result."""
        return self.text, {"response": self.text}


class _Asking:
    """Marks the context of a running approver, for as long as it runs."""

    def __init__(self, gate: ApprovalGate) -> None:
        self.gate: ApprovalGate | None = gate


_ASKING: ContextVar[tuple[_Asking, ...]] = ContextVar("langchain_daytona_ws_asking", default=())


class ApprovalGate:
    """Ask before an action that the permission mode does not let through by itself.

    One question is asked at a time, in the order in which they came, over all threads and event loops. No
    approver, an error in it, no answer in time and anything but a `PermissionDecision` deny. What steers the
    program is never swallowed: KeyboardInterrupt, SystemExit, cancellation, and LangGraph's interrupts.

    A sync approver is called on a thread of its own, with the caller's context variables; with
    ``approval_timeout_s=None`` a sync call calls it in the calling thread instead, which prompts tied to a
    thread need (a debugger, a GUI). From a sync call an async approver runs on an event loop of its own. At a
    time-out an async approver is cancelled; a sync one can't be stopped, and its late answer counts for
    nothing.

    Args:
        mode: ``"ask"``, ``"edit"`` or ``"bypass"``.
        approver: Who is asked; None denies whatever needs asking.
        approval_timeout_s: Seconds for each answer, from the moment the approver is called. Before that, as
            many again for one's turn, from joining the queue: whoever has the turn may never give it back (an
            event loop that hangs), and must not hold up all others for ever. A call so takes twice as long
            at most; and where the answers to those before it take longer than this in all, it is denied.
            None waits for ever, for both. Default 3600.
        remembered: What is allowed already. Default: nothing.

    Raises:
        ConfigError: The approver is not callable, or the time-out is not a number above 0.
    """

    def __init__(
        self,
        mode: PermissionMode,
        approver: Approver | None,
        *,
        approval_timeout_s: float | None = APPROVAL_TIMEOUT_S,
        remembered: RememberedApprovals | None = None,
    ) -> None:
        if approver is not None and not callable(approver):
            raise ConfigError(
                "approver must be a callable that takes a PermissionRequest, or None, "
                f"not {type(approver).__name__}"
            )
        number = isinstance(approval_timeout_s, (int, float)) and 0 < approval_timeout_s < math.inf
        if approval_timeout_s is not None and not number:
            raise ConfigError(
                "approval_timeout_s must be a number of seconds above 0, or None to wait for ever, "
                f"not {approval_timeout_s!r}"
            )
        self.mode = mode
        self.approval_timeout_s = approval_timeout_s
        self.remembered = RememberedApprovals() if remembered is None else remembered
        self.approver = approver
        self._turns = Turns()

    def check(
        self, request: PermissionRequest, validate: Callable[[Mapping[str, object]], T] | None = None
    ) -> Approval[T] | Answered:
        """Return what may run, or what was answered in its place, asking first if the mode says so.

        Blocks until there is an answer.

        Args:
            request: What is about to be done.
            validate: Makes the tool's arguments of those that the approver edited (plain dicts and lists), or
                raises. Without it an edited answer denies.

        Raises:
            PermissionDenied: With the ``code`` ``denied``, ``no_approver``, ``approver_error``,
                ``approval_timeout``, ``turn_timeout``, ``malformed_answer``, ``reentrant`` or
                ``would_deadlock``.
        """
        return drive(self._check(request, validate, Blocking))

    async def acheck(
        self, request: PermissionRequest, validate: Callable[[Mapping[str, object]], T] | None = None
    ) -> Approval[T] | Answered:
        """The same without blocking the event loop; cancelling it withdraws the question."""
        return await self._check(request, validate, OnLoop)

    async def _check(
        self,
        request: PermissionRequest,
        validate: Callable[[Mapping[str, object]], T] | None,
        side_of: Callable[[], Side],
    ) -> Approval[T] | Answered:
        if self._is_allowed(request):
            return Approval(request.arguments)
        if self.approver is None:
            _deny(
                request,
                "no_approver",
                "nobody to ask: give the session an approver, or set permissionMode to 'edit' (files need no "
                "approval) or 'bypass' (nothing does)",
                "This needs an approval and there is nobody to ask, so it was not done.",
            )
        if any(asking.gate is self for asking in _ASKING.get()):
            _deny(
                request,
                "reentrant",
                "the approver used a tool that itself needs approval; answer from what the request says, or "
                "use the session's own methods, which do not ask",
                "This came while another approval was being answered, so it was not done.",
            )
        side = side_of()
        ticket = Ticket(side.loop)
        try:
            self._turns.join(ticket)
            has_turn = await side.wait(ticket.granted, self.approval_timeout_s)
            # An "always" that was answered meanwhile may cover this one.
            if self._is_allowed(request):
                return Approval(request.arguments)
            if not has_turn:
                _deny(
                    request,
                    "turn_timeout",
                    "other approvals were being waited for during all of "
                    f"approval_timeout_s={self.approval_timeout_s:g}; if no prompt is open, the event loop "
                    "that asked one of them hangs",
                    "Other approvals were being waited for all the time, so this was not done.",
                )
            outcome = await self._ask(side, self.approver, request)
            return self._judge(request, outcome, validate)
        except WouldDeadlock:
            _deny(
                request,
                "would_deadlock",
                "a sync call from the thread of an event loop on which another approval is being waited for "
                "would block both for ever; use the a-form, or a thread",
                "Another approval is being waited for, so this was not done.",
            )
        finally:
            self._turns.leave(ticket)

    def _is_allowed(self, request: PermissionRequest) -> bool:
        return not needs_approval(self.mode, request.tool, request.action) or self.remembered.covers(request)

    async def _ask(self, side: Side, approver: Approver, request: PermissionRequest) -> Outcome:
        asking = _Asking(self)
        context = copy_context()
        context.run(_ASKING.set, (*_ASKING.get(), asking))
        try:
            return await side.ask(Question(approver, request, context, self.approval_timeout_s))
        finally:
            # What the approver left running keeps the context, and may use the tools from now on.
            asking.gate = None

    def _judge(
        self,
        request: PermissionRequest,
        outcome: Outcome,
        validate: Callable[[Mapping[str, object]], T] | None,
    ) -> Approval[T] | Answered:
        if outcome.timed_out:
            _deny(
                request,
                "approval_timeout",
                f"no answer within approval_timeout_s={self.approval_timeout_s:g}",
                "Nobody answered the request for approval in time, so it was not done.",
            )
        if outcome.error is not None:
            steering = what_steers(outcome.error)
            if steering is not None:
                raise steering
            if isinstance(outcome.error, AnswerUnusable):
                _log.warning("%s: denied", outcome.error)
                _malformed(request, str(outcome.error), cause=outcome.error)
            kind = type(outcome.error).__qualname__
            # Not its text: what goes wrong while talking to a chat service may quote a token.
            _log.warning("the approver raised %s%s: denied", kind, _where(outcome.error))
            _deny(
                request,
                "approver_error",
                f"the approver raised {kind}{_where(outcome.error)}",
                "The user's approval could not be asked for, so it was not done.",
                cause=outcome.error,
            )
        decision = outcome.value
        if not isinstance(decision, PermissionDecision):
            _log.warning("the approver answered with a %s: denied", type(decision).__qualname__)
            _malformed(
                request, f"the approver must return a PermissionDecision, not a {type(decision).__qualname__}"
            )
        if decision.kind == "deny":
            reason = legible.one_line(decision.reason.strip(), MAX_REASON_CHARS, double_backslash=False)
            because = f' The reason given: "{reason}".' if reason else ""
            _deny(request, "denied", f"denied by the approver.{because}", f"The user denied this.{because}")
        if decision.message is not None:
            return Answered(decision.message)
        if decision.kind == "allow_always":
            self._remember(request, decision)
        elif decision.arguments is not None:
            return _edited(request, decision.arguments, validate)
        return Approval(request.arguments)

    def _remember(self, request: PermissionRequest, decision: PermissionDecision) -> None:
        assert decision.scope is not None  # noqa: S101 - held by PermissionDecision
        try:
            if not self.remembered.remember(request, decision.scope, decision.prefix):
                _log.warning("no prefix to remember for this command: allowed once")
        except ValueError as error:
            _malformed(request, str(error))


def what_steers(error: BaseException) -> BaseException | None:
    """Return the control flow in an exception, to be let through; None when it is merely a failure.

    Of a group, such as an `asyncio.TaskGroup` in the approver makes, it is the first such exception within,
    at any depth, and one that ends the program before any other: LangGraph and Python know their own
    exceptions, and not a group of them.
    """
    steering = [leaf for leaf in _leaves(error) if steers_the_program(leaf)]
    ends = (leaf for leaf in steering if isinstance(leaf, (KeyboardInterrupt, SystemExit)))
    return next(ends, steering[0] if steering else None)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    waiting = [error]  # no recursion: groups may be nested deeper than Python's stack
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(reversed(one.exceptions))
        else:
            yield one


def steers_the_program(error: BaseException) -> bool:
    """Say whether an exception, not a group, is control flow.

    Known by name, so that LangGraph need not be installed: its interrupts are ordinary exceptions by type.
    """
    return not isinstance(error, Exception) or any(
        kind.__name__ == "GraphBubbleUp" and kind.__module__.partition(".")[0] == "langgraph"
        for kind in type(error).__mro__
    )


def _edited(
    request: PermissionRequest,
    arguments: Mapping[str, object],
    validate: Callable[[Mapping[str, object]], T] | None,
) -> Approval[T]:
    given = request.arguments
    if arguments == given:
        return Approval(given)
    about_edit = "The user changed this call in a way that is not valid, so nothing was done."
    if validate is None:
        _malformed(
            request, "this call can't be edited: there is nothing to validate the edit with", about_edit
        )
    if request.tool == "workspace_file" and arguments.get("command", request.action) != request.action:
        _malformed(request, "an edit can't make another operation of it: deny instead", about_edit)
    try:
        validated = validate(plain_arguments(arguments))
    except Exception as error:  # noqa: BLE001 - what steers goes on, and the rest denies
        steering = what_steers(error)
        if steering is not None:
            raise steering from steering.__cause__
        kind = type(error).__qualname__
        _malformed(request, f"the edited arguments are not valid ({kind})", about_edit, cause=error)
    return Approval(arguments, edited=True, validated=validated, note=_changes(given, arguments))


def _changes(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    said = [
        f"{legible.one_line(str(key), 100)} = {_value(after[key])}"
        for key in after
        if key not in before or before[key] != after[key]
    ]
    said += [f"{legible.one_line(str(key), 100)} left out" for key in before if key not in after]
    return f"The user changed this call before allowing it. What ran had: {'; '.join(said)}."


def _value(value: object) -> str:
    plain = plain_arguments({"value": value})["value"]
    text = json.dumps(plain, ensure_ascii=False, default=repr)
    return legible.one_line(text, MAX_CHANGE_CHARS, double_backslash=False)


def _where(error: BaseException) -> str:
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return "" if step is None else f" at {step.tb_frame.f_code.co_filename}:{step.tb_lineno}"


def _malformed(
    request: PermissionRequest,
    message: str,
    for_model: str = "The user's approval could not be asked for, so it was not done.",
    *,
    cause: BaseException | None = None,
) -> NoReturn:
    _deny(request, "malformed_answer", message, for_model, cause=cause)


def _deny(
    request: PermissionRequest,
    code: str,
    message: str,
    for_model: str,
    *,
    cause: BaseException | None = None,
) -> NoReturn:
    action = f"{request.tool} {legible.one_line(request.action, 60)}"
    raise PermissionDenied(
        f"{action}: {message}",
        code=code,
        op="approve",
        context={
            "tool": request.tool,
            "action": request.action,
            "namespace": request.namespace,
            "tool_call_id": request.tool_call_id,
        },
        for_model=f"{for_model} {_DO_NOT_RETRY}",
    ) from cause
