"""Ask the approver before a tool call, then allow, edit or deny it."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from typing import TypeVar

from langchain_daytona_ws._adapters.running_loop import running_loop
from langchain_daytona_ws._approval.asking import ApprovalRuntime, Outcome, Question
from langchain_daytona_ws._approval.verdict import Answered, Approval, apply_outcome, deny
from langchain_daytona_ws.config import PermissionMode
from langchain_daytona_ws.errors import ConfigError
from langchain_daytona_ws.permissions import (
    Approver,
    PermissionRequest,
    RememberedApprovals,
    needs_approval,
)

APPROVAL_TIMEOUT_S = 3600.0
"""Default time-out in seconds: once for the wait in the queue, and once for the approver's answer."""

T = TypeVar("T")


class _RunningApprover:
    """Marks the context in which an approver runs. ``gate`` is None when the approver has ended or timed out."""

    def __init__(self, gate: ApprovalGate) -> None:
        self.gate: ApprovalGate | None = gate


_RUNNING: ContextVar[tuple[_RunningApprover, ...]] = ContextVar("langchain_daytona_ws_asking", default=())


class ApprovalGate:
    """Ask for approval before each action that the permission mode does not allow.

    The approver is called for one request at a time, in order of arrival, across all threads and event loops. A call is
    denied without an approver, and if the approver raises an error, does not answer in time, or does not return a
    `PermissionDecision`. Control flow is always raised again: KeyboardInterrupt, SystemExit, cancellation, and
    LangGraph's interrupts.

    A sync approver runs on its own thread, with the caller's context variables. With ``approval_timeout_s=None`` a sync
    call runs it in the calling thread, which debuggers and GUIs need. In a sync call an async approver runs on its own
    event loop. At a time-out an async approver is cancelled. A sync approver can't be stopped: its late answer is
    ignored, and the next request does not wait for its end.

    Args:
        mode: ``"ask"``, ``"edit"`` or ``"bypass"``.
        approver: The approver; None denies every action that needs approval.
        approval_timeout_s: Seconds to wait in the queue, and again for the approver's answer: at most twice this time
            in all. In the queue, a call is denied if the answers to earlier requests take longer in total. Without this
            limit, a hanging event loop would block all later calls for ever. None: no limits. Default: 3600.

    Raises:
        ConfigError: The approver is not callable, or the time-out is not a finite number above 0.
    """

    def __init__(
        self,
        mode: PermissionMode,
        approver: Approver | None,
        *,
        approval_timeout_s: float | None = APPROVAL_TIMEOUT_S,
    ) -> None:
        if approver is not None and not callable(approver):
            raise ConfigError(
                "approver must be a callable that takes a PermissionRequest, or None, "
                f"not {type(approver).__name__}"
            )
        is_positive = isinstance(approval_timeout_s, (int, float)) and 0 < approval_timeout_s < math.inf
        if approval_timeout_s is not None and not is_positive:
            raise ConfigError(
                "approval_timeout_s must be a number of seconds above 0, or None to wait for ever, "
                f"not {approval_timeout_s!r}"
            )
        self.mode = mode
        self.approval_timeout_s = approval_timeout_s
        self.approver = approver
        self._turns = Turns()

    def _allows(
        self,
        tool: str,
        action: str,
        arguments: Mapping[str, object],
        remembered: RememberedApprovals,
    ) -> bool:
        return not needs_approval(self.mode, tool, action) or remembered.covers(tool, action, arguments)

    async def check(
        self,
        request: PermissionRequest,
        validate: Callable[[Mapping[str, object]], T] | None = None,
        *,
        remembered: RememberedApprovals,
        new_runtime: Callable[[], ApprovalRuntime],
    ) -> Approval[T] | Answered:
        """Ask for approval if the mode requires it, and wait for the answer.

        If the call is cancelled, its request is removed from the queue. If the approver was called already, its answer
        is ignored.

        Args:
            request: The call to approve.
            validate: Converts edited arguments (plain dicts and lists) to the tool's arguments, or raises an error.
                None: an edit denies the call. Default: None.
            remembered: The approvals of the call's thread.
            new_runtime: Makes the `ApprovalRuntime`. With a `BlockingRuntime`, which blocks the thread, this coroutine
                never suspends. An `AsyncioRuntime` does not block the event loop.

        Returns:
            `Approval`: the arguments to run with. `Answered`: a text of the approver to return instead of the tool's
            result; the tool must not run.

        Raises:
            PermissionDenied: With the ``code`` ``denied``, ``no_approver``, ``approver_error``, ``approval_timeout``,
                ``turn_timeout``, ``malformed_answer``, ``reentrant`` or ``would_deadlock``.
        """
        if self._allows(request.tool, request.action, request.arguments, remembered):
            return Approval(request.arguments)
        if self.approver is None:
            deny(
                request,
                "no_approver",
                "nobody to ask: give the session an approver, or set permissionMode to 'edit' (files need no "
                "approval) or 'bypass' (nothing needs approval)",
                "This call needs an approval, and there is nobody to ask. The call did not run.",
            )
        if any(running.gate is self for running in _RUNNING.get()):
            deny(
                request,
                "reentrant",
                "the approver called a tool that needs approval; answer from the request alone, or call the session's "
                "own methods, which need no approval",
                "This call was made while another approval was being answered. The call did not run.",
            )
        runtime = new_runtime()
        ticket = Ticket(runtime.loop)
        try:
            self._turns.join(ticket)
            has_turn = await runtime.wait(ticket.granted, self.approval_timeout_s)
            # An "always" answer to an earlier request may cover this request.
            if self._allows(request.tool, request.action, request.arguments, remembered):
                return Approval(request.arguments)
            if not has_turn:
                deny(
                    request,
                    "turn_timeout",
                    "earlier requests waited for their approval during all of "
                    f"approval_timeout_s={self.approval_timeout_s:g}; if no prompt is open, the event loop "
                    "of an earlier request hangs",
                    "Earlier requests were still waiting for approval. The call did not run.",
                )
            outcome = await self._ask(runtime, self.approver, request)
            return apply_outcome(
                request,
                outcome,
                validate,
                remembered=remembered,
                timeout_s=self.approval_timeout_s,
            )
        except _LoopWouldBlock:
            deny(
                request,
                "would_deadlock",
                "this sync call blocks the thread of an event loop on which an earlier request waits for its approval, "
                "so neither could ever finish; use the async method, or another thread",
                "An earlier request waits for approval. The call did not run.",
            )
        finally:
            self._turns.leave(ticket)

    async def _ask(self, runtime: ApprovalRuntime, approver: Approver, request: PermissionRequest) -> Outcome:
        running = _RunningApprover(self)
        context = copy_context()
        context.run(_RUNNING.set, (*_RUNNING.get(), running))
        try:
            return await runtime.ask(Question(approver, request, context, self.approval_timeout_s))
        finally:
            # Tasks that the approver started keep the context, and may use the tools from now on.
            running.gate = None


class _LoopWouldBlock(Exception):
    """The caller would block the event loop that must run before an earlier ticket can finish."""


class Ticket:
    """An entry in the queue.

    Args:
        loop: The event loop of the waiting caller; None if the caller blocks its thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        # Threads and event loops can both wait for a concurrent future.
        self.granted: Future[None] = Future()
        # If a waiter's `asyncio.wrap_future` is cancelled, a pending future is cancelled too; a running future is not.
        self.granted.set_running_or_notify_cancel()


class Turns:
    """A first-in, first-out queue for callers on any thread and any event loop. The first ticket has the turn.

    Each caller must call `leave`: after its turn, or when it stops waiting.
    """

    def __init__(self) -> None:
        # Held for a few instructions. Reentrant: meanwhile the garbage collector may close a waiting coroutine in this
        # thread, which calls `leave`.
        self._lock = threading.RLock()
        self._queue: deque[Ticket] = deque()

    def join(self, ticket: Ticket) -> None:
        """Add a ticket, or raise `_LoopWouldBlock`. At the ticket's turn, ``ticket.granted`` gets a result."""
        blocked = running_loop() if ticket.loop is None else None
        with self._lock:
            if blocked is not None and any(earlier.loop is blocked for earlier in self._queue):
                raise _LoopWouldBlock
            self._queue.append(ticket)
            self._grant()

    def leave(self, ticket: Ticket) -> None:
        """Remove a ticket and grant the next turn. A ticket that is not in the queue is ignored."""
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
            self._grant()

    def _grant(self) -> None:
        if self._queue and not self._queue[0].granted.done():
            self._queue[0].granted.set_result(None)
