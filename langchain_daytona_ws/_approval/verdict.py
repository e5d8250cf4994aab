"""Apply the approver's answer to a call: allow, edit, respond or deny."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from langchain_daytona_ws._approval.asking import Outcome
from langchain_daytona_ws._approval.control_flow import control_flow_in
from langchain_daytona_ws.errors import PermissionDenied
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
_DO_NOT_RETRY = "Do not retry it; ask the user or continue without it."

T = TypeVar("T")
_log = logging.getLogger("langchain_daytona_ws")


class Approval(NamedTuple, Generic[T]):
    """An approved call.

    Args:
        arguments: The arguments to run with: the request's arguments (read-only), or a new dict of the edited arguments
            without None values.
        edited: True if the approver edited the arguments; then ``validated`` and ``note`` are set.
        validated: The edited arguments, converted by the caller's ``validate``.
        note: Text for the model that lists the changed arguments.
    """

    arguments: Mapping[str, object]
    edited: bool = False
    validated: T | None = None
    note: str | None = None


class Answered(NamedTuple):
    """The approver's answer for the model, in place of the tool's result: the tool must not run."""

    text: str

    @property
    def content_and_artifact(self) -> tuple[str, dict[str, Any]]:
        return self.text, {"response": self.text}


def apply_outcome(
    request: PermissionRequest,
    outcome: Outcome,
    validate: Callable[[Mapping[str, object]], T] | None,
    *,
    remembered: RememberedApprovals,
    timeout_s: float | None,
) -> Approval[T] | Answered:
    """Return the approved call, or the answer in place of the tool's result.

    Args:
        request: The request that the approver got.
        outcome: Result of the call of the approver.
        validate: Converts edited arguments to the tool's arguments, or raises an error. The text of an `AnswerUnusable`
            is logged; of another error, only the type. None: an edit that changes the arguments denies the call.
        remembered: Stores ``allow_always`` answers.
        timeout_s: The time limit of the answer in seconds, for the error message; None for no limit.

    Raises:
        PermissionDenied: The approver denied the call, raised an error, gave no answer in time, or gave an unusable
            answer.
        BaseException: Control flow that the approver or ``validate`` raised.
    """
    if outcome.timed_out:
        deny(
            request,
            "approval_timeout",
            f"no answer within approval_timeout_s={timeout_s:g}",
            "Nobody answered the request for approval in time. The call did not run.",
        )
    if outcome.error is not None:
        control_flow = control_flow_in(outcome.error)
        if control_flow is not None:
            raise control_flow
        if isinstance(outcome.error, AnswerUnusable):
            deny_malformed(request, str(outcome.error), cause=outcome.error)
        kind = type(outcome.error).__qualname__
        # The text of the error is left out: an error of a chat service may quote a token.
        _log.warning("the approver raised %s%s: denied", kind, _where(outcome.error))
        deny(
            request,
            "approver_error",
            f"the approver raised {kind}{_where(outcome.error)}",
            "The user could not be asked for approval. The call did not run.",
            cause=outcome.error,
        )
    decision = outcome.value
    if not isinstance(decision, PermissionDecision):
        deny_malformed(
            request, f"the approver must return a PermissionDecision, not a {type(decision).__qualname__}"
        )
    if decision.kind == "deny":
        reason = legible.one_line(decision.reason.strip(), MAX_REASON_CHARS, double_backslash=False)
        quoted_reason = f' The reason given: "{reason}".' if reason else ""
        deny(
            request,
            "denied",
            f"denied by the approver.{quoted_reason}",
            f"The user denied this.{quoted_reason}",
        )
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
    assert decision.scope is not None  # noqa: S101 - PermissionDecision guarantees it
    try:
        if not remembered.remember(request, decision.scope, decision.prefix):
            _log.warning("this command has no prefix to remember: allowed once")
    except ValueError as error:
        deny_malformed(request, str(error))


def _edited(
    request: PermissionRequest,
    arguments: Mapping[str, object],
    validate: Callable[[Mapping[str, object]], T] | None,
) -> Approval[T]:
    original = request.arguments
    # Null means "not given": a form may send null for each empty field.
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if arguments == original:
        return Approval(original)
    for_model = "The user changed this call in a way that is not valid, so nothing was done."
    if validate is None:
        deny_malformed(
            request, "this call can't be edited: its caller has no validation for edited arguments", for_model
        )
    if request.tool != "bash" and arguments.get("action", request.action) != request.action:
        deny_malformed(request, "an edit can't change the operation: deny the call instead", for_model)
    try:
        validated = validate(plain_arguments(arguments))
    except Exception as error:  # noqa: BLE001 - control flow is raised, any other error denies
        control_flow = control_flow_in(error)
        if control_flow is not None:
            raise control_flow from control_flow.__cause__
        # The text of another error may quote a secret.
        reason = str(error) if isinstance(error, AnswerUnusable) else type(error).__qualname__
        deny_malformed(request, f"the edited arguments are not valid: {reason}", for_model, cause=error)
    return Approval(arguments, edited=True, validated=validated, note=_changes(original, arguments))


def _changes(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    changes = [
        f"{legible.one_line(str(key), 100)} = {_value(after[key])}"
        for key in after
        if key not in before or before[key] != after[key]
    ]
    changes += [f"{legible.one_line(str(key), 100)} removed" for key in before if key not in after]
    return f"The user changed this call before allowing it. Changed arguments: {'; '.join(changes)}."


def _value(value: object) -> str:
    plain_value = plain_arguments({"value": value})["value"]
    text = json.dumps(plain_value, ensure_ascii=False, default=repr)
    return legible.one_line(text, MAX_CHANGE_CHARS, double_backslash=False)


def _where(error: BaseException) -> str:
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return ""
    return f" at {innermost.tb_frame.f_code.co_filename}:{innermost.tb_lineno}"


def deny(
    request: PermissionRequest,
    code: str,
    message: str,
    for_model: str,
    *,
    cause: BaseException | None = None,
) -> NoReturn:
    """Raise `PermissionDenied` with ``message`` for the engineer. The model gets ``for_model`` and the advice not to
    retry.
    """
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


def deny_malformed(
    request: PermissionRequest,
    message: str,
    for_model: str = "The user could not be asked for approval. The call did not run.",
    *,
    cause: BaseException | None = None,
) -> NoReturn:
    """Log why the approver's answer can't be used (``message``, not for the model), and deny the call."""
    _log.warning("%s: denied", message)
    deny(request, "malformed_answer", message, for_model, cause=cause)
