"""Send calls to the guest until they are answered, and run each call that has a key at most once."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from langchain_daytona_ws._core.answer import Answer, UnreadableAnswer, read_frame, unreadable
from langchain_daytona_ws._core.guest_rpc.attachments import Attachment, GuestRequest, OnProgress, Send
from langchain_daytona_ws._core.guest_rpc.errors import LOST_WHILE_RUNNING, cancelled, setup_error, unknown
from langchain_daytona_ws._core.guest_rpc.payload import GuestCall, KeptPrograms
from langchain_daytona_ws._core.guest_rpc.recovery import MAYBE_RAN, RETRY_WITHIN_S, Attempts
from langchain_daytona_ws._core.ports import (
    BackgroundTask,
    Meter,
    PortFault,
    SandboxInfo,
    SandboxPort,
    UploadSource,
)
from langchain_daytona_ws._core.sandbox.lifecycle import SandboxRecord
from langchain_daytona_ws.errors import HookFailed, OutcomeUnknown, SandboxError, WorkspaceError
from langchain_daytona_ws.permissions import legible

logger = logging.getLogger("langchain_daytona_ws")

T = TypeVar("T")

# Seconds added to the guest's own time limit. They matter only if the sandbox never answers.
MARGIN_S = 25
TRANSFER_WITHIN_S = 900.0
KILL_CALL_S = 20
SHORTEST_REQUEST_S = 5
DETAIL_CHARS = 1000


class DownloadTarget(Protocol):
    """Receives the content of a download."""

    def restart(self) -> None:
        """Discard the content that was received: the download begins again."""

    def write(self, piece: bytes) -> object: ...


class _Variables(dict[str, str]):
    """The environment of a request. Its repr hides the values, because tracebacks may show local variables."""

    def __repr__(self) -> str:
        return f"<{len(self)} variables>"


class GuestClient:
    """Sends requests to guest programs.

    Args:
        port: The Daytona API.
        sandbox: The state of the session's sandbox.
        acquire: Returns the sandbox; creates or starts it first if necessary.
        variables: The environment variables of each request. They override the variables that the sandbox was created
            with, because each session in a sandbox may use other values.
        new_key: Returns a random id, for example for the key of a call or the nonce of an answer.
        attachments: Add fields to each call.
        programs: Digests of the programs that sandboxes keep; the clients of a session share them.
        set_up: Called before each attempt to send a call; runs the hooks that have not run yet.
        starts_if_stopped: Whether to start the sandbox again if it is found stopped.
    """

    def __init__(
        self,
        port: SandboxPort,
        sandbox: SandboxRecord,
        acquire: Callable[[], Awaitable[SandboxInfo]],
        variables: Mapping[str, str],
        new_key: Callable[[], str],
        *,
        attachments: Sequence[Attachment] = (),
        programs: KeptPrograms | None = None,
        set_up: Callable[[], Awaitable[None]] | None = None,
        starts_if_stopped: bool = True,
    ) -> None:
        self._port = port
        self._sandbox = sandbox
        self._acquire_current = acquire
        self._attachments = attachments
        self._programs = KeptPrograms() if programs is None else programs
        self._set_up = set_up
        self._only_sandbox_id = ""  # the only sandbox to send to (`only_for`); "" for any
        self._starts_if_stopped = starts_if_stopped
        self._margin_s = MARGIN_S + sum(attachment.margin_s for attachment in attachments)
        self.variables = _Variables(variables)
        self.new_key = new_key
        self.now = port.now
        self.sleep = port.sleep

    async def call(
        self,
        entry: str,
        fields: Answer,
        *,
        timeout_s: float,
        life_s: float | None = None,
        within_s: float = math.inf,
        killable: bool = False,
        on_send: Callable[[SandboxInfo], object] | None = None,
        on_progress: OnProgress | None = None,
    ) -> tuple[Answer, str]:
        """Send a call until it is answered; return the answer, and the id of the sandbox that answered.

        Args:
            entry: The guest module whose ``main`` is called.
            fields: The fields of the call. With a ``key`` the call runs at most once; without a ``key`` it may run
                several times.
            timeout_s: Maximum time for the guest, in seconds.
            life_s: Seconds for which processes of the call use the workspace. Credentials must stay valid as long.
                Default: ``timeout_s``.
            within_s: Maximum time for all attempts together, in seconds, without set-up work. Default: enough for the
                guest's time and retries.
            killable: Whether to kill the command in the sandbox when this call is cancelled.
            on_send: Called with the sandbox before each attempt.
            on_progress: Receives lines about long preparations in the sandbox.

        Raises:
            OutcomeUnknown: The call may have run, wholly or in part, or its answer was unreadable. Or a kill request
                with the same ``key`` arrived (``code="cancelled"``).
            SandboxUnavailable: The sandbox could not be reached; a call with a ``key`` did not run.
            SandboxError: The sandbox refused the call.
            ProvisionError: There was no sandbox, and none could be created.
            CredentialsRefused: No credentials for the S3 workspace could be obtained; a call with a ``key`` did not
                run.
            HookFailed: A command of onCreate or onResume failed; a call with a ``key`` did not run.
            JobError: Too many jobs run to start another job, or the record of the job is damaged.
        """
        info = await self._acquire()
        attempts = self._new_attempts(min(timeout_s + self._margin_s + RETRY_WITHIN_S, within_s))
        try:
            answer: Answer | None = None
            while answer is None:
                request = GuestRequest(
                    self._port, info.id, entry, fields, timeout_s if life_s is None else life_s, on_progress
                )
                info, answer = await self._try(info, request, attempts, timeout_s=timeout_s, on_send=on_send)
        except GeneratorExit:
            raise
        except WorkspaceError as error:
            if attempts.maybe_ran and "key" in fields:
                _raise_if_unknown(error)
            raise
        except BaseException:
            if killable:
                await self._port.finish(self._kill(info, fields), within_s=KILL_CALL_S)
            raise
        if answer.get("outcome") == "running":
            # An earlier attempt with this key still runs after its own time limit.
            raise unknown("It was still running when its time was up.", code="still_running")
        if answer.get("outcome") == "cancelled":
            raise cancelled()
        try:
            return self._checked(answer), info.id
        except WorkspaceError as error:
            # The guest may raise these set-up errors before it reads the record of an earlier attempt.
            if (
                attempts.maybe_ran
                and "key" in fields
                and answer.get("code") in ("processes", "python", "state")
            ):
                _raise_if_unknown(error)
            raise

    def only_for(self, sandbox_id: str) -> GuestClient:
        """Return a client that runs no hooks and sends to this sandbox only.

        If the session has replaced the sandbox, a call raises `OutcomeUnknown`.
        """
        only = copy.copy(self)
        only._only_sandbox_id, only._set_up = sandbox_id, None
        return only

    async def poll(self, info: SandboxInfo, entry: str, request: Answer, *, within_s: float) -> Answer:
        """Send a request that changes nothing, without retries and attachments, and return its answer.

        Failures are raised as `PortFault` or `WorkspaceError`.
        """
        return self._checked(
            await self._send(GuestRequest(self._port, info.id, entry, request, within_s), within_s)
        )

    def background(self, work: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> BackgroundTask:
        return self._port.background(work)

    async def upload(
        self, directory: str, contents: Sequence[UploadSource], meter: Meter | None = None
    ) -> list[tuple[str, str]]:
        """Upload contents to new files on the sandbox's own disk, with retries.

        Each attempt uses new names, because a late request of an earlier attempt could still change its files.

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
        """Download a file from the sandbox. After a fault, download it again from its start.

        Returns:
            True if the file's size and time of modification did not change during the download.
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
        attempts = self._new_attempts(TRANSFER_WITHIN_S)
        while True:
            info, starts = await self._acquire(), self._sandbox.starts
            try:
                return await transfer(info.id)
            except PortFault as fault:
                await attempts.recover(fault, info, starts, repeatable=True)

    def _new_attempts(self, within_s: float) -> Attempts:
        return Attempts(self._port, self._sandbox, self._port.now() + within_s, self._starts_if_stopped)

    async def _acquire(self) -> SandboxInfo:
        info = await self._acquire_current()
        if self._only_sandbox_id not in ("", info.id):
            raise unknown("The machine that it was for is gone.", code=LOST_WHILE_RUNNING)
        return info

    # --- one attempt ---

    async def _try(
        self,
        info: SandboxInfo,
        request: GuestRequest,
        attempts: Attempts,
        *,
        timeout_s: float,
        on_send: Callable[[SandboxInfo], object] | None,
    ) -> tuple[SandboxInfo, Answer | None]:
        """Make one attempt, and return the sandbox and its answer.

        If the answer is None, the caller must try again with the returned sandbox.
        """
        is_repeatable = "key" not in request.fields
        if self._set_up is not None:
            await attempts.uncharged(self._run_set_up(self._set_up, attempts, is_repeatable=is_repeatable))
        began, starts = self._port.now(), self._sandbox.starts
        if on_send is not None:
            on_send(info)
        try:
            within_s = min(timeout_s + self._margin_s, attempts.until - began)
            return info, await self._send_attached(request, within_s)
        except PortFault as fault:
            attempts.record_duration(self._port.now() - began)
            await attempts.recover(fault, info, starts, repeatable=is_repeatable)
        except UnreadableAnswer as error:
            if not attempts.may_resend_after(error):
                raise
        following = await attempts.uncharged(self._acquire())
        if following.id != info.id and attempts.maybe_ran and not is_repeatable:
            # Another call has replaced the sandbox, and the new sandbox has no record of this request.
            raise unknown("The machine that it was sent to is gone.", code=LOST_WHILE_RUNNING)
        return following, None

    async def _run_set_up(
        self, set_up: Callable[[], Awaitable[None]], attempts: Attempts, *, is_repeatable: bool
    ) -> None:
        try:
            await set_up()
        except HookFailed as error:
            if attempts.maybe_ran and not is_repeatable:
                # HookFailed states that the command was not run, but an earlier attempt may have run it.
                raise unknown("Then the machine could not be set up again.") from error
            raise

    async def _send_attached(self, request: GuestRequest, within_s: float) -> Answer:
        """Send a request through all attachments. Each adds its fields, and may send the request several times."""
        send: Send = partial(self._send, within_s=within_s)
        # The last attachment is the outermost: it gets only the final answer of the attachments before it.
        for attachment in self._attachments:
            send = partial(attachment.send, send)
        return await send(request)

    async def _send(self, request: GuestRequest, within_s: float) -> Answer:
        """Send a request, and return its answer unchecked.

        Only the digest of the program is sent if the sandbox should have the program. If the sandbox lacks the program,
        nothing has run, and the request is sent again with the source.
        """
        until, with_source = self._port.now() + within_s, False
        while True:
            call = self._programs.call(
                request.sandbox_id,
                request.entry,
                request.fields,
                self.new_key(),
                secret=request.secret,
                with_source=with_source,
            )
            try:
                answer = await self._execute(request, call, until - self._port.now())
            except (PortFault, SandboxError) as error:
                if call.digest and (not isinstance(error, PortFault) or error.kind in MAYBE_RAN):
                    # The program's file may have caused the failure.
                    self._programs.forget(request.sandbox_id, call.program)
                raise
            if not self._programs.lacks(request.sandbox_id, call, answer):
                return answer
            if not call.digest:
                raise unreadable("it asks for a program that it has received")
            with_source = True

    async def _execute(self, request: GuestRequest, call: GuestCall, within_s: float) -> Answer:
        try:
            reply = await self._port.execute(
                request.sandbox_id,
                call.script,
                env=_Variables({**self.variables, **call.env}),
                timeout_s=max(SHORTEST_REQUEST_S, math.ceil(within_s)),
            )
        except PortFault as fault:
            if request.secret is None:
                raise
            # Drop the traceback: its frames contain the secret, and tracebacks may show local variables.
            fault.__cause__ = fault.__context__ = None
            raise fault.with_traceback(None) from None
        return read_frame(reply.output, call.nonce, reply.exit_code)

    async def _kill(self, info: SandboxInfo, fields: Answer) -> None:
        """Kill a cancelled command. If its request has not arrived yet, the guest will refuse to start it."""
        kill: Answer = {"mode": "kill", "key": fields["key"], "keep": fields.get("keep", False)}
        try:
            await self._send(GuestRequest(self._port, info.id, "command", kill, KILL_CALL_S), KILL_CALL_S)
        except (PortFault, WorkspaceError) as error:
            logger.warning("could not end a cancelled command in sandbox %s: %s", info.id, error)

    # --- answers ---

    def _checked(self, answer: Answer) -> Answer:
        """Return the answer, or raise the failure that it reports."""
        if answer.get("outcome") == "unknown":
            raise unknown("The process that ran it died without reporting.", code="runner_died")
        error = answer.get("error")
        if error not in ("setup", "guest"):
            return answer
        code, detail = (
            legible.one_line(" ".join(str(answer.get(name)).split()), DETAIL_CHARS, double_backslash=False)
            for name in ("code", "detail")
        )
        if error == "setup":
            raise self._setup_error(code, detail)
        raise OutcomeUnknown(
            f"The program in the sandbox failed: {code} at {detail}. See whether its disk is full or its user's "
            "limits are reached; otherwise use a new sandbox.",
            code="guest_failed",
            op="execute",
            context={"detail": detail},
            for_model="The machine failed to carry this out. It may have taken effect in part: check.",
        )

    def _setup_error(self, code: str, detail: str) -> WorkspaceError:
        for attachment in self._attachments:
            error = attachment.error(code, detail)
            if error is not None:
                return error
        return setup_error(code, detail)


def _raise_if_unknown(error: WorkspaceError) -> None:
    """Raise OutcomeUnknown in place of an error that states "nothing ran", because an earlier attempt may have run."""
    if isinstance(error, UnreadableAnswer):
        raise unknown("Its answer could not be read.", code=error.code, detail=error.message) from error
    if isinstance(error, OutcomeUnknown):
        return
    raise unknown("Then the machine could not be reached again.", detail=error.message) from error
