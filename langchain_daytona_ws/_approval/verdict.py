"""What becomes of a call that was asked about: what may run, what was answered in its place, or a denial."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from langchain_daytona_ws._approval.asking import Outcome
from langchain_daytona_ws._approval.denial import deny, deny_malformed
from langchain_daytona_ws._approval.steering import what_steers
from langchain_daytona_ws.permissions import (
    AnswerUnusable,
    PermissionDecision,
    PermissionRequest,
    RememberedApprovals,
    legible,
    plain_arguments,
)

MAX_REASON_CHARS = 500
MAX_CHANGE_CHARS = 2000

T = TypeVar("T")
_log = logging.getLogger("langchain_daytona_ws")


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


def judged(
    request: PermissionRequest,
    outcome: Outcome,
    validate: Callable[[Mapping[str, object]], T] | None,
    *,
    remembered: RememberedApprovals,
    timeout_s: float | None,
) -> Approval[T] | Answered:
    """Return what may run, or what was answered in its place.

    Args:
        request: What was asked about.
        outcome: How the call of the approver ended.
        validate: Makes the tool's arguments of those that the approver edited, or raises (of an `AnswerUnusable` the
            text is logged); None to deny an edit.
        remembered: Is given what is always allowed from now on.
        timeout_s: Seconds that there were for the answer; None for ever.

    Raises:
        PermissionDenied: There is no answer, it can't be used, or it is no.
        BaseException: What steers the program, of what the approver or ``validate`` raised.
    """
    if outcome.timed_out:
        deny(
            request,
            "approval_timeout",
            f"no answer within approval_timeout_s={timeout_s:g}",
            "Nobody answered the request for approval in time, so it was not done.",
        )
    if outcome.error is not None:
        steering = what_steers(outcome.error)
        if steering is not None:
            raise steering
        if isinstance(outcome.error, AnswerUnusable):
            deny_malformed(request, str(outcome.error), cause=outcome.error)
        kind = type(outcome.error).__qualname__
        # Not its text: what goes wrong while talking to a chat service may quote a token.
        _log.warning("the approver raised %s%s: denied", kind, _where(outcome.error))
        deny(
            request,
            "approver_error",
            f"the approver raised {kind}{_where(outcome.error)}",
            "The user's approval could not be asked for, so it was not done.",
            cause=outcome.error,
        )
    decision = outcome.value
    if not isinstance(decision, PermissionDecision):
        deny_malformed(
            request, f"the approver must return a PermissionDecision, not a {type(decision).__qualname__}"
        )
    if decision.kind == "deny":
        reason = legible.one_line(decision.reason.strip(), MAX_REASON_CHARS, double_backslash=False)
        because = f' The reason given: "{reason}".' if reason else ""
        deny(request, "denied", f"denied by the approver.{because}", f"The user denied this.{because}")
    if decision.message is not None:
        return Answered(decision.message)
    if decision.kind == "allow_always":
        _remember(request, decision, remembered)
    elif decision.arguments is not None:
        return _edited(request, decision.arguments, validate)
    return Approval(request.arguments)


def _remember(
    request: PermissionRequest, decision: PermissionDecision, remembered: RememberedApprovals
) -> None:
    assert decision.scope is not None  # noqa: S101 - held by PermissionDecision
    try:
        if not remembered.remember(request, decision.scope, decision.prefix):
            _log.warning("no prefix to remember for this command: allowed once")
    except ValueError as error:
        deny_malformed(request, str(error))


def _edited(
    request: PermissionRequest,
    arguments: Mapping[str, object],
    validate: Callable[[Mapping[str, object]], T] | None,
) -> Approval[T]:
    given = request.arguments
    # A null is no argument: a form may send one for each field that nobody has filled in.
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if arguments == given:
        return Approval(given)
    about_edit = "The user changed this call in a way that is not valid, so nothing was done."
    if validate is None:
        deny_malformed(
            request, "this call can't be edited: there is nothing to validate the edit with", about_edit
        )
    if request.tool == "workspace_file" and arguments.get("command", request.action) != request.action:
        deny_malformed(request, "an edit can't make another operation of it: deny instead", about_edit)
    try:
        validated = validate(plain_arguments(arguments))
    except Exception as error:  # noqa: BLE001 - what steers goes on, and the rest denies
        steering = what_steers(error)
        if steering is not None:
            raise steering from steering.__cause__
        # Of another error not its text, which may quote a secret.
        reason = str(error) if isinstance(error, AnswerUnusable) else type(error).__qualname__
        deny_malformed(request, f"the edited arguments are not valid: {reason}", about_edit, cause=error)
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
