"""Send calls to the guest until they are answered, and run each call at most once."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from langchain_daytona_ws._core.answer import Answer, read_frame, unreadable
from langchain_daytona_ws._core.guest_rpc.attachments import (
    Attachment,
    GuestRequest,
    OnProgress,
    Payload,
    Resend,
)
from langchain_daytona_ws._core.guest_rpc.errors import LOST_WHILE_RUNNING, setup_error, unknown
from langchain_daytona_ws._core.guest_rpc.payload import KeptPrograms, guest_call, program_of
from langchain_daytona_ws._core.guest_rpc.recovery import MAYBE_RAN, RETRY_WITHIN_S, Attempts, SandboxSource
from langchain_daytona_ws._core.ports import (
    BackgroundTask,
    PortFault,
    SandboxInfo,
    SandboxPort,
    UploadSource,
)
from langchain_daytona_ws.errors import HookFailed, OutcomeUnknown, SandboxError, WorkspaceError

logger = logging.getLogger("langchain_daytona_ws")

T = TypeVar("T")

# The guest's own limits end a call long before this margin, which only bounds the wait for a silent sandbox.
MARGIN_S = 25
TRANSFER_WITHIN_S = 900.0
KILL_CALL_S = 20
SENDS_MAX = 3  # of one attempt: without credentials, with credentials, with new credentials
SHORTEST_REQUEST_S = 5
DETAIL_CHARS = 1000

MISSING = "program"  # the error of a guest that has the digest, but not the program


class DownloadTarget(Protocol):
    """Receives the content of a download."""

    def restart(self) -> None:
        """Discard what was received."""

    def write(self, piece: bytes) -> object:
        """Receive the next piece."""


class Meter(Protocol):
    """Counts the bytes of a transfer."""

    def restart(self) -> None:
        """Begin again, after a fault."""

    def add(self, count: int) -> None:
        """Count bytes that were transferred."""


class _Variables(dict[str, str]):
    """The environment of a request, with a repr that hides envVars: tracebacks may show local variables."""

    def __repr__(self) -> str:
        return f"<{len(self)} variables>"


class GuestClient:
    """Send requests to guest programs.

    Args:
        port: The Daytona API.
        sandboxes: The session's sandbox.
        variables: The environment variables that each request sets. Sandboxes do not store them, so a changed
            configuration applies at the next call.
        new_key: Returns random names for calls and answers.
        attachments: Parts that every request carries.
        programs: The programs that sandboxes keep; shared by the clients of a session.
        set_up: Runs the hooks that have not run yet, before a request is sent.
        only_sandbox_id: The only sandbox to send to; "" for the session's current sandbox.
        revives: Whether to start the sandbox if it is stopped.
    """

    def __init__(
        self,
        port: SandboxPort,
        sandboxes: SandboxSource,
        variables: Mapping[str, str],
        new_key: Callable[[], str],
        attachments: Sequence[Attachment[Any]] = (),
        *,
        programs: KeptPrograms | None = None,
        set_up: Callable[[], Awaitable[None]] | None = None,
        only_sandbox_id: str = "",
        revives: bool = True,
    ) -> None:
        self._port = port
        self._sandboxes = sandboxes
        self._attachments = attachments
        self._programs = KeptPrograms() if programs is None else programs
        self._set_up = set_up
        self._only_sandbox_id = only_sandbox_id
        self._revives = revives
        self._margin_s = MARGIN_S + sum(attachment.margin_s for attachment in attachments)
        self.variables = _Variables(variables)
        self.new_key = new_key
        self.sandbox_id = ""  # the sandbox that answered last
        self.now = port.now
        self.sleep = port.sleep

    async def call(
        self,
        entry: str,
        request: Answer,
        *,
        timeout_s: float,
        life_s: float | None = None,
        within_s: float = math.inf,
        killable: bool = False,
        on_send: Callable[[SandboxInfo], None] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Answer:
        """Send a request until it is answered.

        Args:
            entry: The guest module.
            request: With a ``key`` it runs at most once; without a ``key`` it must be repeatable.
            timeout_s: Longest time that the guest may take.
            life_s: Seconds for which processes of the request will use the workspace. Default: ``timeout_s``.
            within_s: Seconds after which no further request is sent. Default: enough for the guest's time and retries.
            killable: Whether to end the command in the sandbox when this call is cancelled.
            on_send: Called with the sandbox, each time before the request is sent.
            on_progress: Receives lines about long preparations in the sandbox.

        Raises:
            OutcomeUnknown: The request may or may not have run.
            SandboxUnavailable: The sandbox could not be reached; nothing ran.
            SandboxError: The sandbox refused the request, or its answer was unreadable.
            ProvisionError: There was no sandbox, and none could be created.
            CredentialsRefused: There were no credentials for the S3 workspace; nothing was created.
        """
        life_s = timeout_s if life_s is None else life_s
        for attachment in self._attachments:
            await attachment.prepare(life_s)
        info = await self._acquire()
        own_s = timeout_s + self._margin_s + RETRY_WITHIN_S
        attempts = Attempts(self._port, self._sandboxes, min(own_s, within_s), revives=self._revives)
        try:
            answer: Answer | None = None
            while answer is None:
                info, answer = await self._try(
                    info,
                    entry,
                    request,
                    attempts,
                    timeout_s=timeout_s,
                    life_s=life_s,
                    on_send=on_send,
                    on_progress=on_progress,
                )
        except GeneratorExit:
            raise
        except WorkspaceError as error:
            if attempts.maybe_ran and "key" in request:
                _raise_if_unknown(error)
            raise
        except BaseException:
            if killable:
                await self._port.finish(self._kill(info, request), within_s=KILL_CALL_S)
            raise
        if answer.get("outcome") == "running":
            # Another process sent this call earlier; it runs longer than its own limit.
            raise unknown("It was still running when its time was up.", code="still_running")
        self.sandbox_id = info.id
        return self._checked(answer)

    def for_same_sandbox(self) -> GuestClient:
        """Return a client that sends only to the sandbox that has answered last, and runs no hooks there."""
        same = copy.copy(self)
        same._only_sandbox_id, same._set_up = self.sandbox_id, None
        return same

    async def poll(self, info: SandboxInfo, entry: str, request: Answer, *, within_s: float) -> Answer:
        """Send a request that only reads, once, without attachments.

        Raises:
            PortFault, SandboxError: The request got no answer.
        """
        return self._checked(await self._send(info, entry, request, within_s))

    def background(self, work: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> BackgroundTask:
        """Start work that runs during a call."""
        return self._port.background(work)

    async def upload(
        self, directory: str, contents: Sequence[UploadSource], meter: Meter | None = None
    ) -> list[tuple[str, str]]:
        """Upload contents to new files on the sandbox's own disk; to other new files after a fault.

        A request that is still under way after a fault can so change no file that is used.

        Returns:
            The path of each file, and the SHA-256 of its content.
        """

        async def upload(sandbox_id: str) -> list[tuple[str, str]]:
            paths = [f"{directory}/upload-{self.new_key()}" for _ in contents]
            files = list(zip(paths, contents, strict=True))
            if meter is not None:
                meter.restart()
            hashes = await self._port.upload(sandbox_id, files, meter.add if meter else None)
            return list(zip(paths, hashes, strict=True))

        return await self._transfer(upload)

    async def download(self, path: str, target: DownloadTarget, meter: Meter | None = None) -> bool:
        """Download a file from the sandbox; again from its start after a fault.

        Returns:
            Whether the file stayed unchanged meanwhile.
        """

        async def download(sandbox_id: str) -> bool:
            target.restart()
            if meter is not None:
                meter.restart()
            before = await self._port.version(sandbox_id, path)
            await self._port.download(sandbox_id, path, target.write, meter.add if meter else None)
            return before == await self._port.version(sandbox_id, path)

        return await self._transfer(download)

    async def _transfer(self, transfer: Callable[[str], Awaitable[T]]) -> T:
        attempts = Attempts(self._port, self._sandboxes, TRANSFER_WITHIN_S, revives=self._revives)
        while True:
            info, starts = await self._acquire(), self._sandboxes.starts()
            try:
                return await transfer(info.id)
            except PortFault as fault:
                await attempts.recover(fault, info, starts, repeatable=True)

    async def _acquire(self) -> SandboxInfo:
        info = await self._sandboxes.acquire()
        if self._only_sandbox_id not in ("", info.id):
            raise unknown("The machine that it was for is gone.", code=LOST_WHILE_RUNNING)
        return info

    # --- one attempt ---

    async def _try(
        self,
        info: SandboxInfo,
        entry: str,
        request: Answer,
        attempts: Attempts,
        *,
        timeout_s: float,
        life_s: float,
        on_send: Callable[[SandboxInfo], object] | None,
        on_progress: OnProgress | None,
    ) -> tuple[SandboxInfo, Answer | None]:
        """Send once; return the answer, or None and the sandbox to send to next."""
        if self._set_up is not None:
            await attempts.uncharged(self._run_set_up(self._set_up, request, attempts))
        began, starts = self._port.now(), self._sandboxes.starts()
        if on_send is not None:
            on_send(info)
        try:
            within_s = min(timeout_s + self._margin_s, attempts.until - began)
            sent = GuestRequest(
                self._port, info.id, entry, request, life_s, since=began, on_progress=on_progress
            )
            return info, await self._send_attached(info, sent, within_s)
        except PortFault as fault:
            attempts.record_duration(self._port.now() - began)
            await attempts.recover(fault, info, starts, repeatable="key" not in request)
            return await attempts.uncharged(self._acquire()), None
        except SandboxError as error:
            if not attempts.may_resend_after(error):
                raise
            return info, None

    async def _run_set_up(
        self, set_up: Callable[[], Awaitable[None]], request: Answer, attempts: Attempts
    ) -> None:
        try:
            await set_up()
        except HookFailed as error:
            if attempts.maybe_ran and "key" in request:
                # The error says "was not run", which holds only for a call that was never sent.
                raise unknown("Then the machine could not be set up again.") from error
            raise

    async def _send_attached(self, info: SandboxInfo, sent: GuestRequest, within_s: float) -> Answer:
        """Send with all attachments; send again if an attachment had to deliver or renew data first."""
        answer: Answer = {}
        sends = 0
        while sends < SENDS_MAX:
            payloads: list[Payload] = [await attachment.attach(sent) for attachment in self._attachments]
            fields = {name: value for payload in payloads for name, value in payload.fields.items()}
            # The payload, not its secret: a traceback may be shown with local variables, and its repr hides the secret.
            with_secret = next((payload for payload in payloads if payload.secret is not None), None)
            answer = await self._send(info, sent.entry, {**sent.fields, **fields}, within_s, with_secret)
            resends = [
                await attachment.on_answer(sent, payload, answer)
                for attachment, payload in zip(self._attachments, payloads, strict=True)
            ]
            if not any(resend is not Resend.NO for resend in resends):
                break
            sends += Resend.NOW in resends
        return answer

    async def _send(
        self,
        info: SandboxInfo,
        entry: str,
        request: Answer,
        within_s: float,
        with_secret: Payload | None = None,
    ) -> Answer:
        """Send a request, with the secret of a payload if any, and return its answer unchecked.

        It carries the digest of a program that the sandbox keeps. If the sandbox does not have the program, nothing has
        run, and the request is sent again with the source.

        Raises:
            PortFault, SandboxError: There was no answer, or it was unreadable.
        """
        program, until = program_of(entry, request), self._port.now() + within_s
        digest = self._programs.digest(info.id, program)
        answer: Answer = {}
        if digest:
            try:
                answer = await self._send_once(info, entry, request, within_s, with_secret, digest=digest)
            except (PortFault, SandboxError) as error:
                if not isinstance(error, PortFault) or error.kind in MAYBE_RAN:
                    self._programs.forget(info.id, program)  # in case the file is the cause
                raise
            if answer.get("error") != MISSING:
                self._programs.found(info.id)
                return answer
            self._programs.missing(info.id, program)
        answer = await self._send_once(info, entry, request, until - self._port.now(), with_secret)
        if answer.get("error") == MISSING:
            raise unreadable("it asks for a program that it has received")
        self._programs.learn(info.id, program, answer.pop("program", None))
        return answer

    async def _send_once(
        self,
        info: SandboxInfo,
        entry: str,
        request: Answer,
        within_s: float,
        with_secret: Payload | None,
        *,
        digest: str = "",
    ) -> Answer:
        call = guest_call(
            entry,
            request,
            self.new_key(),
            digest=digest,
            secret=with_secret.secret if with_secret else None,
        )
        try:
            reply = await self._port.execute(
                info.id,
                call.script,
                env=_Variables({**self.variables, **call.env}),
                timeout_s=max(SHORTEST_REQUEST_S, math.ceil(within_s)),
            )
        except PortFault as fault:
            if with_secret is None:
                raise
            # The traceback's frames hold the secret, and tracebacks may show local variables.
            fault.__cause__ = fault.__context__ = None
            raise fault.with_traceback(None) from None
        return read_frame(reply.output, call.nonce)

    async def _kill(self, info: SandboxInfo, request: Answer) -> None:
        """Kill a cancelled command, or prevent its start if the request has not arrived yet."""
        try:
            await self._send(
                info,
                "command",
                {"mode": "kill", "key": request["key"], "keep": request.get("keep", False)},
                KILL_CALL_S,
            )
        except (PortFault, WorkspaceError) as error:
            logger.warning("could not end a cancelled command in sandbox %s: %s", info.id, error)

    # --- answers ---

    def _checked(self, answer: Answer) -> Answer:
        """Return an answer that reports no failure.

        Raises:
            WorkspaceError: The answer reports a failure.
        """
        if answer.get("outcome") == "unknown":
            raise unknown("The process that ran it died without reporting.", code="runner_died")
        error = answer.get("error")
        if error == "setup":
            raise self._setup_error(str(answer.get("code")), str(answer.get("detail"))[:DETAIL_CHARS])
        if error == "guest":
            raise SandboxError(
                f"The program in the sandbox failed: {answer.get('code')} at {answer.get('detail')}. See whether its "
                "disk is full or its user's limits are reached; otherwise use a new sandbox.",
                code="guest_failed",
                op="execute",
                context={"detail": answer.get("detail")},
                for_model="The machine failed to carry this out. It may have taken effect in part: check.",
            )
        return answer

    def _setup_error(self, code: str, detail: str) -> WorkspaceError:
        for attachment in self._attachments:
            error = attachment.error(code, detail)
            if error is not None:
                return error
        return setup_error(code, detail)


def _raise_if_unknown(error: WorkspaceError) -> None:
    """Replace a "nothing ran" error by OutcomeUnknown, because an earlier attempt may have run."""
    if not isinstance(error, OutcomeUnknown) and error.code != "unreadable_answer":
        raise unknown("Then the machine could not be reached again.", detail=error.message) from error
