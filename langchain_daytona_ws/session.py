"""The session: one workspace, one sandbox, shared by all tools and by the program around them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._approval.gate import APPROVAL_TIMEOUT_S, ApprovalGate
from langchain_daytona_ws._core.commands.run import CommandResult
from langchain_daytona_ws._core.commands.streaming import OnOutput
from langchain_daytona_ws._core.hints.guidance import guidance
from langchain_daytona_ws._core.id_factory import Clock, Ids, first_of, random_id
from langchain_daytona_ws._core.jobs.keep_alive import JobTracker
from langchain_daytona_ws._core.jobs.models import Job
from langchain_daytona_ws._core.ports import SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.workspace import S3Workspace, s3_workspace
from langchain_daytona_ws._core.sandbox.network import caution_of, warn_of_network
from langchain_daytona_ws._core.sandbox.reservation import specification
from langchain_daytona_ws._session.files import WorkspaceFiles
from langchain_daytona_ws._session.jobs import WorkspaceJobs
from langchain_daytona_ws._session.runtime import AsyncRuntime, Notices, SessionState, SyncRuntime
from langchain_daytona_ws._session.sandbox_manager import SandboxManager
from langchain_daytona_ws.approvers import MiddlewareApprover
from langchain_daytona_ws.config import SandboxConfig, validate_namespace
from langchain_daytona_ws.errors import ConfigError, WorkspaceError
from langchain_daytona_ws.permissions import Approver

if TYPE_CHECKING:
    from langchain_daytona_ws._session.storage import Storage

logger = logging.getLogger("langchain_daytona_ws")

_LOST = "The machine was replaced: the earlier one is gone, and with it every "
LOST_NOTICE = (
    f"{_LOST}file, installed package and process on it that was not saved elsewhere. What follows ran on a new, "
    "empty one"
)
LOST_NOTICE_S3 = (
    f"{_LOST}process, installed package and file outside the workspace. The workspace's files are there as before; "
    "what follows ran on a new machine"
)


class WorkspaceSession:
    """Give tools and programs one workspace in a Daytona sandbox.

    Nothing is requested until it is first needed; then one sandbox is created, whoever asks, and deleted again by
    `close`, by leaving a ``with`` block, or when the interpreter exits. With ``persistent: true`` there is one sandbox
    for the workspace, found again from any host, and kept until `release`. Safe to share between threads and
    event loops. What your program calls here is not asked about; what the model calls through the tools is.

    Args:
        config: A `SandboxConfig`, or the JSON dict of one.
        namespace: Name of the workspace: one segment of 1 to 128 characters of ``A-Za-z0-9._-``, not starting with
            ``.`` or ``-``.
        approver: Who is asked before the model's calls, see `Approver`. Without one, whatever needs asking is
            denied.
        approval_timeout_s: How long an answer is waited for, in seconds, and as long again for the turn to ask; None
            for ever. Default an hour.
        on_job_done: Called with each `Job` that this session has seen running and that has ended, once, by whichever
            of its calls learns of it, before that call returns and in its thread: the calls of ``session.jobs``, and
            any other that uses the sandbox. Between calls nobody looks. It must not block an event loop; what it
            raises is logged.
        ids: Makes names for calls, answers and ephemeral sandboxes, none of them twice: 32 hexadecimal digits, of which
            the last 12 must differ too. Default: random ones. With others, which are for tests that replay a
            recording, what runs in the sandbox could forge answers.
        clock: The session's time. Default: this machine's.

    Raises:
        ConfigError: The configuration or the namespace is wrong.
        ValueError: What ``ids`` returns is no id.
    """

    def __init__(
        self,
        config: SandboxConfig | dict[str, Any],
        *,
        namespace: str,
        approver: Approver | None = None,
        approval_timeout_s: float | None = APPROVAL_TIMEOUT_S,
        on_job_done: Callable[[Job], object] | None = None,
        ids: Ids = random_id,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config if isinstance(config, SandboxConfig) else SandboxConfig.model_validate(config)
        self.namespace = validate_namespace(namespace)
        self._ids, self._clock = ids, clock
        self.id = first_of(ids)
        self.root = f"{self.config.options.workspace_root}/{self.namespace}"
        self.gate = ApprovalGate(self.config.permission_mode, approver, approval_timeout_s=approval_timeout_s)
        notices = self._notices = Notices()
        workspace = s3_workspace(self.config, self.namespace)
        warn_of_network(self.config, workspace)
        storage = self._open_storage(workspace)

        def spec() -> SandboxSpec:
            return specification(self.config, self.namespace, workspace, unique=ids()[-12:])

        first = spec()  # an invalid specification is an error here, and not at the first command
        self._on_job_done = on_job_done
        self._state = SessionState(
            config=self.config,
            root=self.root,
            ids=ids,
            clock=clock,
            sandboxes=SandboxManager(
                self.config, spec, on_lost=self._on_lost, add_notice=notices.add, clock=clock
            ),
            storage=storage,
            tracker=JobTracker(
                first.auto_stop_minutes or 0, first.ttl_minutes, self._on_job_end, notices.add
            ),
            notices=notices,
        )
        self._sync, self._async = SyncRuntime(self._state), AsyncRuntime(self._state)
        self.files = WorkspaceFiles(self._sync.files, self._async.files)
        self.jobs = WorkspaceJobs(self._sync.jobs, self._async.jobs)

    @classmethod
    def from_env(cls, *, namespace: str, **arguments: Any) -> Self:
        """Return a session that is configured by environment variables alone.

        Args:
            namespace: Name of the workspace.
            arguments: Further arguments of `WorkspaceSession`, such as ``approver``.

        Raises:
            ConfigError: The value of a variable, or the namespace, is invalid.
        """
        return cls(SandboxConfig.from_env(), namespace=namespace, **arguments)

    def _open_storage(self, workspace: S3Workspace | None) -> Storage | None:
        if workspace is None:
            return None
        # What only a workspace on S3 needs is not imported without one.
        from langchain_daytona_ws._session.storage import Storage

        direct = self.config.options.file_access == "s3"
        caution = caution_of(self.config, workspace)
        return Storage(
            workspace,
            direct=direct,
            add_notice=self._notices.add,
            caution=caution,
            clock=self._clock,
            ids=self._ids,
        )

    def __repr__(self) -> str:
        info = self._state.sandboxes.info
        return f"WorkspaceSession(namespace={self.namespace!r}, sandbox_id={info.id if info else None!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a session over a persistent sandbox: unpickled elsewhere, it finds the same one.

        No secret is in the pickle; the API key is taken from ``DAYTONA_API_KEY`` there. The approver, ``on_job_done``,
        ``ids`` and ``clock`` are pickled as pickle does it, a function by its name. What was approved for the session,
        and which files it has read, is not.
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
                "approver": self.gate.approver,
                "approval_timeout_s": self.gate.approval_timeout_s,
                "on_job_done": self._on_job_done,
                "ids": self._ids,
                "clock": self._clock,
            },
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Stay the same session: copies of a tool share its machine."""
        return self

    @property
    def is_on_s3(self) -> bool:
        """Whether the workspace is a mount of S3, and not on the sandbox's own disk."""
        return self._state.storage is not None

    def guidance(self) -> str:
        """Return what an agent's system prompt should say of this workspace: a short list."""
        return self._guidance()

    def _guidance(self, *, deep_agent_in: str | None = None) -> str:
        options = self.config.options
        skills = options.skills_mount_path if options.skills_bucket_name and self.is_on_s3 else None
        return guidance(
            root_is_s3=self.is_on_s3,
            skills_path=skills,
            file_access=options.file_access,
            deep_agent_in=deep_agent_in,
        )

    def interrupt_on(self) -> dict[str, Any]:
        """Return what LangChain's ``HumanInTheLoopMiddleware`` should ask about, for this session's permission mode.

        Give it to ``HumanInTheLoopMiddleware(interrupt_on=…)`` or ``create_deep_agent(interrupt_on=…)``. It needs a
        session with ``approver=MiddlewareApprover()``: the middleware asks then, and the session lets through what was
        approved, without asking again, and nothing else. In mode ``bypass`` it is empty. What only reads is not asked
        about by a middleware that knows ``when`` (langchain before 1.4 does not, and asks about every call of these
        tools).

        Raises:
            ConfigError: The session has another approver, or none: two would decide.
        """
        approver = self.gate.approver
        if self.config.permission_mode == "bypass":
            return {}
        if not isinstance(approver, MiddlewareApprover):
            other = "none" if approver is None else type(approver).__qualname__
            raise ConfigError(
                "interrupt_on() needs a session with approver=MiddlewareApprover(), which lets through what the "
                f"middleware has asked about; this one has {other}"
            )
        return approver.interrupt_on(self.config.permission_mode, self.namespace)

    @property
    def sandbox_id(self) -> str | None:
        """Id of the sandbox, or None while there is none."""
        info = self._state.sandboxes.info
        return info.id if info else None

    def run(
        self,
        command: str,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        on_output: OnOutput | None = None,
    ) -> CommandResult:
        """Run a bash command in the workspace directory.

        Args:
            command: Given to bash exactly as it is; standard input is empty.
            timeout_s: Seconds until it is killed with all that it started, or goes on as a background job where
                ``onTimeout`` says so; above 0 and at most 600. Default: the configuration's ``timeout``.
            idempotency_key: Name of this call, up to 64 letters and digits. Called again with the same key, it returns
                the recorded result and runs nothing, for a day.
            on_output: Called with pieces of the output while it comes, in a thread of its own, and with the rest at the
                end, in yours; a recorded result comes as a whole. Together they are the output, its first 1,048,576
                bytes and a note where it is longer. Never called twice at once, nor after this has returned, which
                waits for it. What it raises is logged; it is called no more then, and the command goes on.

        Returns:
            The result, whatever the exit code, and whether there is an ``on_output`` or not.

        Raises:
            CommandRefused: Empty, too large, with a NUL byte, or a time-out out of range. Nothing was sent.
            OutcomeUnknown: It may or may not have run.
            ProvisionError, SandboxError: It did not run.
            SessionClosed: The session was closed.
        """
        return run_sync(
            self._sync.run(command, timeout_s=timeout_s, idempotency_key=idempotency_key, on_output=on_output)
        )

    async def arun(
        self,
        command: str,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        on_output: OnOutput | None = None,
    ) -> CommandResult:
        """Run a bash command as `run` does. Cancelling this call kills the command.

        ``on_output`` is called on this loop; it may be a coroutine function, and is awaited then.
        """
        return await self._async.run(
            command, timeout_s=timeout_s, idempotency_key=idempotency_key, on_output=on_output
        )

    def prewarm(self) -> None:
        """Begin to provision now, in a thread, and return at once: the first command then finds the sandbox warm.

        Creates or starts the sandbox, mounts an S3 workspace and runs the hooks. What fails is logged, tried again by
        the first command, and raised there.

        Raises:
            SessionClosed: The session was closed.
        """
        self._state.sandboxes.check_open()
        threading.Thread(target=self._warm, name="langchain-daytona-ws-prewarm").start()

    def _warm(self) -> None:
        try:
            run_sync(self._sync.warm_up())
        except WorkspaceError as error:
            logger.warning("prewarming: %s", error.message)

    def _on_job_end(self, job: Job, about_jobs: bool) -> None:
        if not about_jobs:
            self._notices.add(f"{job.summary}; see its output with bash_job")
        if self._on_job_done is None:
            return
        try:
            self._on_job_done(job)
        except Exception:
            # The call that learned of it has done what it was to do.
            logger.exception("on_job_done failed for job %s", job.id)

    def _on_lost(self) -> None:
        if self._state.storage is not None:
            self._notices.add(LOST_NOTICE_S3)
            return
        self._notices.add(LOST_NOTICE)
        # What was read before is not what is there now.
        self._state.read_hashes.clear()

    def close(self) -> None:
        """End the session. An ephemeral sandbox is deleted; a persistent one stays, for whoever comes next.

        Raises:
            SandboxUnavailable: It could not be deleted; its auto-stop and its TTL will do it.
        """
        self._state.sandboxes.close()
        self._close_storage()

    async def aclose(self) -> None:
        """End the session as `close` does, and close this loop's connections."""
        await self._state.sandboxes.aclose()
        self._close_storage()

    def release(self) -> None:
        """Delete the workspace's sandbox, also a persistent one that this session has not used, and end the session.

        What is on its own disk is lost; an S3 workspace's files are not touched.

        Raises:
            ProvisionError: There is a sandbox of this name that is not this library's.
            SandboxUnavailable: It could not be deleted.
        """
        self._state.sandboxes.release()
        self._close_storage()

    async def arelease(self) -> None:
        """Delete the workspace's sandbox as `release` does, and close this loop's connections."""
        await self._state.sandboxes.arelease()
        self._close_storage()

    def _close_storage(self) -> None:
        if self._state.storage is not None:
            self._state.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _rebuilt(config: SandboxConfig, settings: dict[str, Any]) -> WorkspaceSession:
    return WorkspaceSession(config, **settings)
