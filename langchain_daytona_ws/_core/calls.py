"""One call into the sandbox: sent until it is answered, carried out at most once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from langchain_daytona_ws._core import lifecycle
from langchain_daytona_ws._core.call_errors import LOST_WHILE_RUNNING, refused, unknown, unreachable
from langchain_daytona_ws._core.job_watch import JobWatch
from langchain_daytona_ws._core.mount import MOUNT_S, Mounting
from langchain_daytona_ws._core.ports import Aside, FaultKind, PortFault, SandboxInfo, SandboxPort
from langchain_daytona_ws._core.sending import KILL_CALL_S, Answer, Sender
from langchain_daytona_ws.errors import HookFailed, OutcomeUnknown, SandboxError, WorkspaceError

T = TypeVar("T")

RETRY_WITHIN_S = 45.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
# The guest's own limits end a call long before these: they only bound a sandbox that has gone silent.
MARGIN_S = 25
UNREADABLE_MAX = 2
MACHINES_LOST_MAX = 2
LONG_REQUEST_S = 10.0
TRANSFER_WITHIN_S = 900.0
# Up to this time, 502 answers are attributed to the gateway. The control plane learns of an ended sandbox within
# about 10 seconds; what it then still calls started has a daemon that is dead.
DEAD_AFTER_S = 10.0

_MAYBE_RAN = {FaultKind.DROPPED, FaultKind.UNREADABLE}
_ASK_FIRST = {FaultKind.NOT_STARTED, FaultKind.NOT_FOUND, FaultKind.UNAUTHORIZED}


class Machine(Protocol):
    """The session's sandbox, provisioned on the first use."""

    @property
    def is_persistent(self) -> bool:
        """Whether its disk outlives a stop."""
        ...

    async def acquire(self) -> SandboxInfo: ...

    def lost(self, info: SandboxInfo) -> None:
        """Take note that the sandbox is gone."""

    def failed(self, info: SandboxInfo) -> None:
        """Take note that the sandbox is of no use any more, though it is still there."""

    def starts(self) -> int:
        """Count the starts that are known, before what may find out about another one."""

    def restarted(self, since: int) -> None:
        """Take note of a start, unless that has been done since they were counted."""


@dataclass(slots=True)
class _Attempts:
    """What is known so far of one call. Times in seconds, on the port's clock."""

    until: float
    failures: int = 0
    unreadable: int = 0
    machines_lost: int = 0
    maybe_ran: bool = False
    fruitless_s: float = 0.0
    bad_gateway_since: float | None = None

    def failed(self, fault: PortFault, now: float) -> None:
        """Record a request that got no answer."""
        self.failures += 1
        self.maybe_ran |= fault.kind in _MAYBE_RAN
        if fault.status != lifecycle.BAD_GATEWAY:
            self.bad_gateway_since = None
        elif self.bad_gateway_since is None:
            self.bad_gateway_since = now

    def found_only_a_gateway(self, now: float) -> bool:
        """Return whether each answer has been 502 for so long that there may be no daemon behind the gateway."""
        return self.bad_gateway_since is not None and now - self.bad_gateway_since >= DEAD_AFTER_S

    def goes_on_after(self, error: SandboxError) -> bool:
        """Take note of an answer that is none; return whether to send again."""
        if not error.retryable:  # there is nothing that could have run it
            return False
        self.unreadable += 1
        self.maybe_ran = True
        return self.unreadable <= UNREADABLE_MAX

    def pause_s(self, asked: float | None) -> float:
        backoff = min(FIRST_PAUSE_S * 2.0 ** (self.failures - 1), LONGEST_PAUSE_S)
        return min(max(backoff, asked or 0.0), RETRY_WITHIN_S)


class Caller:
    """Send requests to guest programs.

    Args:
        port: The API.
        machine: Whose sandbox to use.
        env: Variables of every request, asked anew each time so that a reconnected sandbox sees today's.
        new_key: Makes the random names of calls.
        mounting: The mounts that every call needs; None for a workspace on the sandbox's own disk.
        watch: Follows what the answers tell of jobs.
        set_up: Has the hooks run where they have not been yet, before anything is sent.
    """

    def __init__(
        self,
        port: SandboxPort,
        machine: Machine,
        env: Callable[[], Mapping[str, str]],
        new_key: Callable[[], str],
        mounting: Mounting | None = None,
        *,
        watch: JobWatch | None = None,
        set_up: Callable[[SandboxInfo], Awaitable[None]] | None = None,
    ) -> None:
        self._port = port
        self._mounting = mounting
        self._set_up = set_up
        self._margin_s = MARGIN_S + (MOUNT_S if mounting else 0)
        self._machine = machine
        self._watch = watch
        self._sender = Sender(port, env, new_key, mounting)
        self.look = self._sender.look
        self.variables = env
        self.new_key = new_key
        self.sandbox_id = ""  # that answered last
        self.now = port.now
        self.sleep = port.sleep

    async def call(
        self,
        entry: str,
        request: Answer,
        *,
        timeout_s: float,
        life_s: float | None = None,
        killable: bool = False,
        on_send: Callable[[SandboxInfo], None] | None = None,
    ) -> Answer:
        """Send a request until it is answered.

        Args:
            entry: The guest module.
            request: With a ``key`` it is carried out at most once; without one it must be repeatable.
            timeout_s: Longest time that the guest itself may take.
            life_s: For how many seconds what it starts will use the workspace. Default: as long.
            killable: Whether to end it in the sandbox when this call is cancelled.
            on_send: Is told each time to which sandbox it is about to be sent.

        Raises:
            OutcomeUnknown: It may or may not have been carried out.
            SandboxUnavailable: The sandbox could not be reached; nothing ran.
            SandboxError: The sandbox refused, or answered with what could not be read.
            ProvisionError: There was no sandbox, and none could be had.
            CredentialsRefused: There were no credentials for the S3 workspace; nothing was created.
        """
        life_s = timeout_s if life_s is None else life_s
        if self._mounting:
            await self._mounting.prepare(life_s)
        info = await self._machine.acquire()
        attempts = _Attempts(until=self._port.now() + timeout_s + self._margin_s + RETRY_WITHIN_S)
        try:
            answer: Answer | None = None
            while answer is None:
                info, answer = await self._tried(
                    info, entry, request, attempts, timeout_s=timeout_s, life_s=life_s, on_send=on_send
                )
        except GeneratorExit:
            raise
        except WorkspaceError as error:
            if attempts.maybe_ran and "key" in request:
                _admit_doubt(error)
            raise
        except BaseException:
            if killable:
                await self._port.finish(self._sender.kill(info, request), within_s=KILL_CALL_S)
            raise
        if answer.get("outcome") == "running":
            # Another sender of this call is at it still, beyond its own limit.
            raise unknown("It was still running when its time was up.", code="still_running")
        answer = self._sender.checked(answer)
        self.sandbox_id = info.id
        if self._watch:
            await self._watch.follow(self._port, info.id, request, answer, about_jobs=entry == "jobs")
        return answer

    async def _tried(
        self,
        info: SandboxInfo,
        entry: str,
        request: Answer,
        attempts: _Attempts,
        *,
        timeout_s: float,
        life_s: float,
        on_send: Callable[[SandboxInfo], object] | None,
    ) -> tuple[SandboxInfo, Answer | None]:
        """Send once; return the answer, or None and the sandbox to send to next."""
        if self._set_up is not None:
            await self._beside(attempts, self._ready(self._set_up(info), request, attempts))
        began, starts = self._port.now(), self._machine.starts()
        if on_send is not None:
            on_send(info)
        try:
            within_s = min(timeout_s + self._margin_s, attempts.until - began)
            beside = self._watch.pack(info.id) if self._watch else {}
            return info, await self._sender.send_mounted(info, entry, {**request, **beside}, life_s, within_s)
        except PortFault as fault:
            lasted_s = self._port.now() - began
            # A request that was open for long is one that a proxy gave up while the command ran on.
            attempts.fruitless_s += lasted_s if lasted_s < LONG_REQUEST_S else 0.0
            await self._after_fault(fault, info, attempts, starts, repeatable="key" not in request)
            return await self._beside(attempts, self._machine.acquire()), None
        except SandboxError as error:
            if not attempts.goes_on_after(error):
                raise
            return info, None

    async def _beside(self, attempts: _Attempts, work: Awaitable[T]) -> T:
        """Do what makes the machine ready: it takes nothing off the time that the call itself has."""
        began = self._port.now()
        done = await work
        attempts.until += self._port.now() - began
        return done

    async def _ready(self, set_up: Awaitable[None], request: Answer, attempts: _Attempts) -> None:
        try:
            await set_up
        except HookFailed as error:
            if attempts.maybe_ran and "key" in request:
                # Its words, "was not run", are of a call that was not sent before.
                raise unknown("Then the machine could not be set up again.") from error
            raise

    def aside(self, work: Callable[[Aside], Coroutine[Any, Any, None]]) -> Aside:
        """Begin work that goes on beside a call."""
        return self._port.aside(work)

    async def _after_fault(
        self, fault: PortFault, info: SandboxInfo, attempts: _Attempts, starts: int, *, repeatable: bool
    ) -> None:
        """Return when the call should be sent again; raise when it should not."""
        attempts.failed(fault, self._port.now())
        if not fault.passing and fault.kind not in _ASK_FIRST:
            raise refused(fault)
        if fault.kind in _ASK_FIRST or attempts.failures > 1:
            # A gateway's word about a sandbox is not trusted: the control plane knows.
            revival = await self._beside(attempts, self._revived(info, attempts))
            if revival is lifecycle.Revival.RESTARTED:
                attempts.bad_gateway_since = None
                self._machine.restarted(starts)
            if revival in (lifecycle.Revival.READY, lifecycle.Revival.RESTARTED):
                if fault.kind in _ASK_FIRST and attempts.failures > 3:
                    raise refused(fault)
            else:
                note = self._machine.lost if revival is lifecycle.Revival.GONE else self._machine.failed
                note(info)
                if attempts.maybe_ran and not repeatable:
                    raise unknown(
                        "The machine that it was sent to is gone. The next call gets a new one.",
                        code=LOST_WHILE_RUNNING,
                    )
                attempts.machines_lost += 1
                if attempts.machines_lost > MACHINES_LOST_MAX:
                    # Sandboxes that vanish as soon as they are made: no call is worth making them for ever.
                    raise unreachable(fault, info, attempts.failures)
                return
        if attempts.fruitless_s >= RETRY_WITHIN_S or self._port.now() >= attempts.until:
            if attempts.maybe_ran and not repeatable:
                raise unknown(f"The connection failed {attempts.failures} times.", said=f"{fault.message}.")
            raise unreachable(fault, info, attempts.failures)
        pause_s = attempts.pause_s(fault.retry_after_s)
        attempts.fruitless_s += pause_s
        await self._port.sleep(pause_s)

    async def _revived(self, info: SandboxInfo, attempts: _Attempts) -> lifecycle.Revival:
        """Read the sandbox's state from the control plane, and restart it if it is stopped or its daemon is dead."""
        revival = await lifecycle.revive(self._port, info)
        if revival is not lifecycle.Revival.READY or not attempts.found_only_a_gateway(self._port.now()):
            return revival
        if await lifecycle.answers(self._port, info):
            return revival
        if self._machine.is_persistent:
            return await lifecycle.restart(self._port, info)
        return lifecycle.Revival.BEYOND_USE

    async def upload(self, path: str, data: bytes) -> None:
        """Put bytes on the sandbox's own disk; repeatable, so sent again after a fault."""
        await self._transferred(lambda sandbox_id: self._port.upload(sandbox_id, path, data))

    async def download(self, path: str, *, limit_bytes: int) -> bytes:
        """Get a file from the sandbox, or so much of it that it is seen to be over the limit."""
        return await self._transferred(
            lambda sandbox_id: self._port.download(sandbox_id, path, limit_bytes=limit_bytes)
        )

    async def _transferred(self, transfer: Callable[[str], Awaitable[T]]) -> T:
        attempts = _Attempts(until=self._port.now() + TRANSFER_WITHIN_S)
        while True:
            info, starts = await self._machine.acquire(), self._machine.starts()
            try:
                return await transfer(info.id)
            except PortFault as fault:
                await self._after_fault(fault, info, attempts, starts, repeatable=True)


def _admit_doubt(error: WorkspaceError) -> None:
    """Raise another error in place of one whose words, that nothing ran, are of a call that was not sent before."""
    if not isinstance(error, OutcomeUnknown) and error.code != "unreadable_answer":
        raise unknown("Then the machine could not be reached again.", said=error.message) from error
