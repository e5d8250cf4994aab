"""Recovery of a call whose request got no answer: whether, when and to which sandbox it is sent again."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from langchain_daytona_ws._core.answer import UnreadableAnswer
from langchain_daytona_ws._core.guest_rpc.errors import LOST_WHILE_RUNNING, refused, unknown, unreachable
from langchain_daytona_ws._core.ports import FaultKind, PortFault, SandboxInfo, SandboxPort
from langchain_daytona_ws._core.sandbox import lifecycle

T = TypeVar("T")

RETRY_WITHIN_S = 45.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
UNREADABLE_MAX = 2
SANDBOXES_LOST_MAX = 2
LONG_REQUEST_S = 10.0
# If a call gets only 502 as answers for this time, and a ping then gets 502 too, the sandbox's daemon is assumed to be
# dead. If the sandbox itself had ended, the control plane would report it within about 10 seconds (Daytona API).
DEAD_AFTER_S = 10.0

MAYBE_RAN = {FaultKind.DROPPED, FaultKind.UNREADABLE}
"""Faults after which the request may have run."""
# Faults after which the control plane is asked for the sandbox's state already at the first failure.
_CHECK_STATE = {FaultKind.NOT_STARTED, FaultKind.NOT_FOUND, FaultKind.UNAUTHORIZED}


@dataclass(slots=True)
class Attempts:
    """Counts the attempts of one call, and decides after a failed attempt whether to send the call again.

    Attributes:
        until: Time on the port's clock, in seconds, after which the call is not sent again.
        starts_if_stopped: Whether to start the sandbox again if it is found stopped.
        maybe_ran: Whether the call may have run in an attempt.
    """

    port: SandboxPort
    sandbox: lifecycle.SandboxRecord
    until: float
    starts_if_stopped: bool
    maybe_ran: bool = False
    _failures: int = 0
    _unreadable: int = 0
    _sandboxes_lost: int = 0
    _failing_s: float = 0.0
    _bad_gateway_since: float | None = None

    async def uncharged(self, work: Awaitable[T]) -> T:
        """Run set-up work and return its result. The call's deadline moves by the duration of the work."""
        began = self.port.now()
        done = await work
        self.until += self.port.now() - began
        return done

    def record_duration(self, duration_s: float) -> None:
        """Count the duration of a request that got no answer.

        A long request is not counted: a proxy probably ended it while the command kept running.
        """
        self._failing_s += duration_s if duration_s < LONG_REQUEST_S else 0.0

    def may_resend_after(self, error: UnreadableAnswer) -> bool:
        """Record an unreadable answer; return whether to send the call again."""
        self._unreadable += 1
        self.maybe_ran = True
        return error.retryable and self._unreadable <= UNREADABLE_MAX

    async def recover(self, fault: PortFault, info: SandboxInfo, starts: int, *, repeatable: bool) -> None:
        """Prepare another attempt after a fault: restart the sandbox if necessary, and wait.

        ``starts`` is the number of known starts of the sandbox before the request. A ``repeatable`` call may run twice.

        Raises:
            SandboxError: Daytona refuses the request.
            SandboxUnavailable: The time is used up, too many sandboxes were lost, the server's certificate was not
                accepted, or the control plane did not return the sandbox's state.
            OutcomeUnknown: The call cannot be sent again, may have run, and is not repeatable.
        """
        self._record(fault)
        is_about_sandbox = fault.kind in _CHECK_STATE
        if not fault.passing and not is_about_sandbox:
            raise refused(fault)
        if is_about_sandbox or self._failures > 1:
            # Ask the control plane, because a gateway's answer about the sandbox is not reliable.
            if not await self._is_usable(info, starts):
                self._sandboxes_lost += 1
                if self.maybe_ran and not repeatable:
                    raise unknown(
                        "The machine that it was sent to is gone. The next call gets a new one.",
                        code=LOST_WHILE_RUNNING,
                    )
                if self._sandboxes_lost > SANDBOXES_LOST_MAX:
                    # The replacements were lost too: stop creating sandboxes.
                    raise unreachable(fault, info, self._failures)
                return
            if is_about_sandbox and self._failures > 3:
                raise refused(fault)
        pause_s = self._pause_s(fault.retry_after_s)
        if self._failing_s >= RETRY_WITHIN_S or self.port.now() + pause_s >= self.until:
            if self.maybe_ran and not repeatable:
                raise unknown(f"The connection failed {self._failures} times.", detail=f"{fault.message}.")
            raise unreachable(fault, info, self._failures)
        self._failing_s += pause_s
        await self.port.sleep(pause_s)

    def _record(self, fault: PortFault) -> None:
        self._failures += 1
        self.maybe_ran |= fault.kind in MAYBE_RAN
        if fault.status != lifecycle.BAD_GATEWAY:
            self._bad_gateway_since = None
        elif self._bad_gateway_since is None:
            self._bad_gateway_since = self.port.now()

    async def _is_usable(self, info: SandboxInfo, starts: int) -> bool:
        """Revive the sandbox, and record its restart or its loss; return True if the sandbox is started."""
        revival = await self.uncharged(self._revive(info))
        if revival is lifecycle.Revival.RESTARTED:
            self._bad_gateway_since = None
            self.sandbox.record_restart(starts)
        elif revival is lifecycle.Revival.GONE:
            self.sandbox.record_loss(info)
        elif revival is lifecycle.Revival.UNUSABLE:
            self.sandbox.record_failure(info)
        return revival in (lifecycle.Revival.READY, lifecycle.Revival.RESTARTED)

    async def _revive(self, info: SandboxInfo) -> lifecycle.Revival:
        """Restart the sandbox if it is stopped or its daemon is dead, and if a restart is allowed; return its state."""
        revival = await lifecycle.revive(self.port, info, starts=self.starts_if_stopped)
        if revival is not lifecycle.Revival.READY or not self._daemon_may_be_dead():
            return revival
        if await lifecycle.is_reachable(self.port, info):
            return revival
        if self.sandbox.is_persistent and self.starts_if_stopped:
            return await lifecycle.restart(self.port, info)
        return lifecycle.Revival.UNUSABLE

    def _daemon_may_be_dead(self) -> bool:
        return (
            self._bad_gateway_since is not None and self.port.now() - self._bad_gateway_since >= DEAD_AFTER_S
        )

    def _pause_s(self, requested_s: float | None) -> float:
        backoff = min(FIRST_PAUSE_S * 2.0 ** (self._failures - 1), LONGEST_PAUSE_S)
        return min(max(backoff, requested_s or 0.0), RETRY_WITHIN_S)
