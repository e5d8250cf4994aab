"""The session: one workspace in one sandbox, for the tools and for your program."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._approval.gate import APPROVAL_TIMEOUT_S, ApprovalGate
from langchain_daytona_ws._core.commands.run import CommandResult
from langchain_daytona_ws._core.commands.streaming import OnOutput
from langchain_daytona_ws._core.id_factory import Clock, checked_id, random_id
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sandbox.preview import EXPIRES_S, PreviewUrl
from langchain_daytona_ws._lazy import LazyModule
from langchain_daytona_ws._session.conversations import current_conversation, forget_conversations
from langchain_daytona_ws._session.runtime import AsyncRuntime, SyncRuntime
from langchain_daytona_ws._session.state import SessionState, weak_method
from langchain_daytona_ws.config import SandboxConfig, validate_namespace
from langchain_daytona_ws.errors import WorkspaceError
from langchain_daytona_ws.permissions import Approver

# Imported on first use: the tools are built without them.
if TYPE_CHECKING:
    from langchain_daytona_ws._core.jobs import models as job_models
    from langchain_daytona_ws._session import files as session_files
    from langchain_daytona_ws._session import jobs as session_jobs
else:
    job_models = LazyModule("langchain_daytona_ws._core.jobs.models")
    session_files = LazyModule("langchain_daytona_ws._session.files")
    session_jobs = LazyModule("langchain_daytona_ws._session.jobs")

logger = logging.getLogger("langchain_daytona_ws")


class WorkspaceSession:
    """One workspace in a Daytona sandbox, for the tools and for your program.

    No request is sent before the first call. The first call that needs a sandbox creates one for all callers. A session
    may be shared between threads and event loops. Calls of your program need no approval; the model's calls, through
    the tools, do.

    By default the sandbox is ephemeral. It is deleted by `close`, at the end of a ``with`` block, when nothing refers
    to the session any more, or when the interpreter exits. SIGTERM ends a process without deleting the sandbox, see
    `close_on_sigterm`. With ``persistent: true``, a workspace has one sandbox, which sessions on any host find. This
    sandbox is deleted by `release`, or by Daytona when it has been stopped for ``lifecycle.maxLifetimeSeconds``. If you
    set this key, Daytona also deletes the sandbox, even a running one, at this time after its creation.

    Args:
        config: A `SandboxConfig`, or its JSON as a dict.
        namespace: Name of the workspace: one segment of 1 to 128 characters of ``A-Za-z0-9._-``, not starting with
            ``.`` or ``-``.
        approver: Called before each of the model's calls that needs approval, see `Approver`. None: these calls are
            denied. Default: None.
        approval_timeout_s: Seconds to wait until earlier requests are answered, and again for the approver's answer.
            None: no limit. Default: an hour.
        on_job_done: Called once with each ended `Job` that this session has seen running. There is no background
            thread: the next call that uses the sandbox finds the end of the job, and calls ``on_job_done`` in its
            caller's thread. ``on_job_done`` must not block an event loop; its errors are logged.
        ids: Returns a new unique id, such as for a call, an upload or an ephemeral sandbox: 32 lower-case hexadecimal
            digits. The last 12 digits must be unique too. Default: random ids. Use other ids only in tests that replay
            a recording: programs in the sandbox can forge answers if they can predict the ids.
        clock: The session's time. Default: this machine's clock.

    Raises:
        ConfigError: The configuration, ``namespace``, ``approver`` or ``approval_timeout_s`` is invalid.
        ValueError: ``ids`` returns an invalid id.
    """

    def __init__(
        self,
        config: SandboxConfig | dict[str, Any],
        *,
        namespace: str,
        approver: Approver | None = None,
        approval_timeout_s: float | None = APPROVAL_TIMEOUT_S,
        on_job_done: Callable[[job_models.Job], object] | None = None,
        ids: Callable[[], str] = random_id,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config if isinstance(config, SandboxConfig) else SandboxConfig.model_validate(config)
        self.namespace = validate_namespace(namespace)
        self.id = checked_id(ids)
        self._on_job_done = on_job_done
        # Other modules of the package use `_state`, `_gate`, `_sync` and `_async`; programs must not.
        self._state = SessionState(
            self.config, self.namespace, ids=ids, clock=clock, on_job_end=weak_method(self._on_job_end)
        )
        self.root = self._state.root
        self._gate = ApprovalGate(
            self.config.permission_mode, approver, approval_timeout_s=approval_timeout_s
        )
        self._sync, self._async = SyncRuntime(self._state), AsyncRuntime(self._state)
        sandboxes, storage = self._state.sandboxes, self._state.storage
        if storage is not None and not storage.is_mounted:
            sandboxes.set_last_pushes(self._sync.last_push, self._async.last_push)
        # The manager must not refer to the session, directly or indirectly: that would keep the session alive.
        weakref.finalize(self, sandboxes.abandon).atexit = False

    @classmethod
    def from_env(cls, *, namespace: str, **arguments: Any) -> Self:
        """Return a session that is configured by environment variables alone.

        Args:
            namespace: Name of the workspace.
            arguments: Further arguments of `WorkspaceSession`, such as ``approver``.

        Raises:
            ConfigError: The value of a variable, the namespace or a further argument is invalid.
        """
        return cls(SandboxConfig.from_env(), namespace=namespace, **arguments)

    def __repr__(self) -> str:
        return f"WorkspaceSession(namespace={self.namespace!r}, sandbox_id={self.sandbox_id!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a session with a persistent sandbox. Unpickled elsewhere, it finds the same sandbox.

        The pickle contains no secret; the API key is read from ``DAYTONA_API_KEY`` at unpickling. The approver,
        ``on_job_done``, ``ids`` and ``clock`` are pickled too, functions by their names. Remembered approvals and the
        hashes of read files are not pickled: they belong to the conversations of a process.
        """
        if not self.config.persistent:
            raise TypeError(
                "a WorkspaceSession over an ephemeral sandbox cannot be pickled: the copy would delete it, or outlive "
                "it; set persistent: true in the configuration"
            )
        return _rebuilt, (
            self.config,
            {
                "namespace": self.namespace,
                "approver": self._gate.approver,
                "approval_timeout_s": self._gate.approval_timeout_s,
                "on_job_done": self._on_job_done,
                "ids": self._state.ids,
                "clock": self._state.clock,
            },
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same session: copies of a tool share its sandbox."""
        return self

    @property
    def files(self) -> session_files.WorkspaceFiles:
        """The workspace's files."""
        return session_files.WorkspaceFiles(self._sync, self._async, session=self)

    @property
    def jobs(self) -> session_jobs.WorkspaceJobs:
        """The workspace's background jobs."""
        return session_jobs.WorkspaceJobs(self._sync.jobs, self._async.jobs, session=self)

    @property
    def is_on_s3(self) -> bool:
        """True if the workspace's files are in S3, False if they are only on the sandbox's own disk."""
        return self._state.storage is not None

    def guidance(self) -> str:
        """Return a short list of facts about this workspace, for an agent's system prompt."""
        return self._state.guidance()

    def interrupt_on(self) -> dict[str, Any]:
        """Return the calls about which LangChain's ``HumanInTheLoopMiddleware`` must ask in this permission mode.

        Pass the result to ``HumanInTheLoopMiddleware(interrupt_on=…)`` or ``create_deep_agent(interrupt_on=…)``. The
        session needs ``approver=MiddlewareApprover()``: it runs exactly the calls that the middleware has approved,
        without asking again. In mode ``bypass`` the result is empty. From langchain 1.4 on, the middleware does not ask
        about calls that only read; earlier versions ask about every call of these tools.

        Raises:
            ConfigError: The session has another approver, or none, in mode ``ask`` or ``edit``.
        """
        if self.config.permission_mode == "bypass":
            return {}
        from langchain_daytona_ws.approvers import middleware_approver

        approver = middleware_approver(self._gate.approver)
        namespace = self.namespace  # a reference to the session would keep it alive
        return approver.interrupt_on(self.config.permission_mode, lambda: namespace)

    @property
    def sandbox_id(self) -> str | None:
        """Id of the sandbox; None before this session has created or found it, and after it was lost or deleted."""
        return self._state.sandboxes.sandbox_id

    def run(
        self,
        command: str,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        on_output: OnOutput | None = None,
        pty: bool | tuple[int, int] = False,
    ) -> CommandResult:
        """Run a bash command in the workspace directory.

        Args:
            command: Passed to bash unchanged; standard input is empty.
            timeout_s: Seconds, above 0 and at most 600, until the command and all its processes are killed. With
                ``onTimeout: "background"`` the command becomes a background job instead, unless 10 jobs are running.
                Default: the configuration's ``timeout``.
            idempotency_key: 1 to 64 letters and digits. For a day, a call with the same key in the same sandbox returns
                the recorded result and runs nothing. Default: none.
            on_output: Called with the pieces of the output: by another thread while the command runs, by this thread at
                the end. Calls never overlap, and none comes after this method has returned. After 1,048,576 bytes, a
                note replaces the rest of the output. If copying the workspace takes long (``s3Mode: sync``), lines
                about the copy come first. If ``on_output`` raises an error, the error is logged, ``on_output`` is not
                called again, and the command goes on.
            pty: True, or (columns, rows): run the command in a pseudo-terminal, by default of 80 columns and 24 rows.
                Then the output contains the terminal's control codes, and the result's ``screen`` is the text that the
                terminal shows. Nothing is typed: a program that reads lines from the terminal gets an end of file. When
                the command ends, the terminal is closed, and background processes of the command get SIGHUP. Default:
                False.

        Returns:
            The result; an exit code other than 0 is not an error.

        Raises:
            CommandRefused: The command is empty, too large or not valid text, or another argument is invalid. Nothing
                was sent.
            OutcomeUnknown: The command may or may not have run. With ``code="cancelled"``: another call with the same
                key was cancelled, now or before, and its command was killed, or never started.
            ProvisionError, SandboxError, CredentialsRefused, HookFailed: The command did not run.
            ConfigError: The API key is missing, or the Daytona client cannot be created.
            SessionClosed: The session is closed.
            TypeError: ``on_output`` is a coroutine function.
        """
        call = self._sync.run(
            command, timeout_s=timeout_s, idempotency_key=idempotency_key, on_output=on_output, pty=pty
        )
        return self._state.with_notices(run_sync(call), self._state.threadless)

    async def arun(
        self,
        command: str,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        on_output: OnOutput | None = None,
        pty: bool | tuple[int, int] = False,
    ) -> CommandResult:
        """Run a bash command as `run` does. Cancelling this call kills the command.

        ``on_output`` is called on this event loop. It may be a coroutine function.
        """
        call = self._async.run(
            command, timeout_s=timeout_s, idempotency_key=idempotency_key, on_output=on_output, pty=pty
        )
        return self._state.with_notices(await call, self._state.threadless)

    def preview_url(self, port: int, *, expires_s: float = EXPIRES_S) -> PreviewUrl:
        """Return a link to a server in the sandbox, for a browser: Daytona's signed preview link.

        Anyone with the link can use the server until the link expires. Requests to the server keep the sandbox running.
        A link is returned even if no server listens on the port. At the first visit, Daytona may show a warning in the
        browser.

        Args:
            port: The port in the sandbox, from 3000 to 9999.
            expires_s: Seconds after which the link expires: a whole number from 1 to 86,400. Default: an hour.

        Raises:
            CommandRefused: An argument is invalid, or the session is ephemeral and has no sandbox.
            SandboxError: Daytona refused or could not be reached, or the sandbox is gone or cannot be used.
            ProvisionError: A persistent sandbox could not be found, started or created.
            ConfigError: The API key is missing, or the Daytona client cannot be created.
            SessionClosed: The session is closed.
        """
        return run_sync(self._sync.preview_url(port, expires_s=expires_s))

    async def apreview_url(self, port: int, *, expires_s: float = EXPIRES_S) -> PreviewUrl:
        """Return a link to a server in the sandbox, as `preview_url` does."""
        return await self._async.preview_url(port, expires_s=expires_s)

    def prewarm(self) -> None:
        """Provision the sandbox in a new thread; return at once.

        The thread creates or starts the sandbox, mounts or copies an S3 workspace, and runs the hooks. A failure is
        logged; the first command tries again, and raises the error if it fails too.

        Raises:
            SessionClosed: The session is closed.
        """
        self._state.sandboxes.check_open()
        threading.Thread(target=self._warm, name="langchain-daytona-ws-prewarm").start()

    def _warm(self) -> None:
        try:
            run_sync(self._sync.warm_up())
        except WorkspaceError as error:
            logger.warning("prewarming failed: %s", error.message)

    def _on_job_end(self, job: job_models.Job, is_shown: bool) -> None:
        if job.state != "lost":  # otherwise the model gets the notice about the lost sandbox
            seen_by = (current_conversation.get() or self._state.threadless) if is_shown else None
            self._state.notices.add(f"{job.summary}; see its output with bash_job", except_for=seen_by)
        if self._on_job_done is None:
            return
        try:
            self._on_job_done(job)
        except Exception:
            # The call that found the end has succeeded: it must not fail because of the callback.
            logger.exception("on_job_done failed for job %s", job.id)

    def close(self, *, discard_unpushed: bool = False) -> None:
        """End the session. An ephemeral sandbox is deleted; a persistent sandbox stays for the next session.

        With ``s3Mode: sync``, files that background processes have written since the last call are saved in S3 first.
        If that fails, an ephemeral sandbox is not deleted: it stops when it is idle, and is kept for at most a day.

        Args:
            discard_unpushed: True: end the session without saving these files. Default: False.

        Raises:
            UnpushedFiles: Some files could not be saved in S3; the message names the files, the sandbox and the
                remedies. The session has ended. Call this method again to try again.
            SandboxUnavailable: The sandbox could not be deleted; Daytona deletes it after its auto-stop, or at the end
                of its TTL (time to live).
        """
        try:
            self._state.sandboxes.close(discard_unpushed=discard_unpushed)
        finally:
            self._state.close()

    async def aclose(self, *, discard_unpushed: bool = False) -> None:
        """End the session as `close` does, and close this loop's connections."""
        try:
            await self._state.sandboxes.aclose(discard_unpushed=discard_unpushed)
        finally:
            self._state.close()

    def release(self, *, discard_unpushed: bool = False) -> None:
        """Delete the workspace's sandbox, and end the session.

        A persistent sandbox is deleted even if this session has not used it. The files on the sandbox's own disk are
        lost; the files of an S3 workspace stay. With ``s3Mode: sync``, files that are not in S3 yet are saved first; a
        stopped sandbox is started for this.

        Args:
            discard_unpushed: True: delete the sandbox without saving these files. Default: False.

        Raises:
            ProvisionError: The sandbox with the workspace's name was not created for this workspace, or Daytona refused
                to return it or could not be reached.
            UnpushedFiles: Some files could not be saved in S3, see `close`; the sandbox was not deleted.
            SandboxUnavailable: The sandbox could not be deleted.
            ConfigError: The API key is missing, or the Daytona client cannot be created.
        """
        forget_conversations(self._state.identity)
        try:
            self._state.sandboxes.release(discard_unpushed=discard_unpushed)
        finally:
            self._state.close()

    async def arelease(self, *, discard_unpushed: bool = False) -> None:
        """Delete the workspace's sandbox as `release` does, and close this loop's connections."""
        forget_conversations(self._state.identity)
        try:
            await self._state.sandboxes.arelease(discard_unpushed=discard_unpushed)
        finally:
            self._state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except WorkspaceError as failure:
            self._raise_unless(error, failure)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        except WorkspaceError as failure:
            self._raise_unless(error, failure)

    def _raise_unless(self, error: BaseException | None, failure: WorkspaceError) -> None:
        """Raise ``failure``; if the ``with`` block has raised ``error``, only log ``failure``."""
        if error is None:
            raise failure
        logger.warning("could not close the session: %s", failure.message)


def _rebuilt(config: SandboxConfig, settings: dict[str, Any]) -> WorkspaceSession:
    return WorkspaceSession(config, **settings)
