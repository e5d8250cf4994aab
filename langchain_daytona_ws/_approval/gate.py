"""The gate before what the model does: asks whoever was appointed, and lets through, changes or denies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from typing import TypeVar

from langchain_daytona_ws._approval.asking import Blocking, OnLoop, Outcome, Question, Side
from langchain_daytona_ws._approval.denial import deny
from langchain_daytona_ws._approval.turns import Ticket, Turns, WouldDeadlock
from langchain_daytona_ws._approval.verdict import Answered, Approval, judged
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws.config import PermissionMode
from langchain_daytona_ws.errors import ConfigError
from langchain_daytona_ws.permissions import (
    Approver,
    PermissionRequest,
    RememberedApprovals,
    needs_approval,
)

APPROVAL_TIMEOUT_S = 3600.0
"""Default time for an answer, in seconds, from the moment the approver is called; the same for one's turn."""

T = TypeVar("T")


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
            deny(
                request,
                "no_approver",
                "nobody to ask: give the session an approver, or set permissionMode to 'edit' (files need no "
                "approval) or 'bypass' (nothing does)",
                "This needs an approval and there is nobody to ask, so it was not done.",
            )
        if any(asking.gate is self for asking in _ASKING.get()):
            deny(
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
                deny(
                    request,
                    "turn_timeout",
                    "other approvals were being waited for during all of "
                    f"approval_timeout_s={self.approval_timeout_s:g}; if no prompt is open, the event loop "
                    "that asked one of them hangs",
                    "Other approvals were being waited for all the time, so this was not done.",
                )
            outcome = await self._ask(side, self.approver, request)
            return judged(
                request,
                outcome,
                validate,
                remembered=self.remembered,
                timeout_s=self.approval_timeout_s,
            )
        except WouldDeadlock:
            deny(
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
