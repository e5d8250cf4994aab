"""The sync and the async runtime of a session: both run the same coroutines over their own Daytona client."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_daytona_ws._core.commands.hooks import Hooks
from langchain_daytona_ws._core.commands.run import CommandResult, run_command
from langchain_daytona_ws._core.commands.streaming import OnOutput, sync_callback
from langchain_daytona_ws._core.guest_rpc.attachments import Attachment
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.guest_rpc.errors import LOST_WHILE_RUNNING
from langchain_daytona_ws._core.hints.guidance import LOCAL_CACHES, git_settings
from langchain_daytona_ws._core.limits import JOB_DEFAULT_S
from langchain_daytona_ws._core.ports import SandboxInfo, SandboxPort
from langchain_daytona_ws._core.sandbox.lifecycle import SandboxRecord
from langchain_daytona_ws._core.sandbox.preview import PreviewUrl, preview_url
from langchain_daytona_ws._core.sync.push import OneSandbox, push
from langchain_daytona_ws._core.sync.report import LOST, NO_ANSWER, SyncReport
from langchain_daytona_ws._session.conversations import Conversation
from langchain_daytona_ws._session.single_flight import RunOnce, once_blocking, once_on_loop
from langchain_daytona_ws._session.state import SessionState
from langchain_daytona_ws.errors import CommandRefused, OutcomeUnknown

# Imported on first use: the tools can be made without these modules.
if TYPE_CHECKING:
    from langchain_daytona_ws._core.files.guest import GuestFiles
    from langchain_daytona_ws._core.files.operations import FileOperations
    from langchain_daytona_ws._core.jobs.operations import JobOps
    from langchain_daytona_ws._core.transfers.operations import TransferOperations
    from langchain_daytona_ws._session.storage import S3Access

T = TypeVar("T")

logger = logging.getLogger("langchain_daytona_ws")

COMMAND_TIMEOUT_MAX_S = 600
PREWARM_TIMEOUT_S = 30.0
SHOWN_NAME_CHARS = 100


class _Runtime:
    """Commands, jobs and file operations of a session over one Daytona client.

    Args:
        run_once: Creates a value once for all callers, see `RunOnce`.
        port: Returns the Daytona API. It is called only when a sandbox is needed, because importing the SDK takes a
            second.
        s3: The S3 workspace; None for a workspace on the sandbox's own disk.
    """

    def __init__(
        self,
        state: SessionState,
        run_once: RunOnce,
        port: Callable[[], Awaitable[SandboxPort]],
        s3: S3Access | None,
    ) -> None:
        self._state = state
        self._run_once = run_once
        self._port = port
        self._s3 = s3
        self._is_mounted = s3 is not None and s3.is_mounted
        config, sandboxes = state.config, state.sandboxes
        self._defaults: Mapping[str, str] = LOCAL_CACHES if self._is_mounted else {}
        if s3 is not None and not self._is_mounted:
            self._defaults = git_settings(config.plain_env_vars())
        hooks = Hooks(state.root, config.on_create or (), config.on_resume or (), self._defaults)
        self._hooks = hooks if hooks else None
        self._storage_attachments: list[Attachment] = [] if s3 is None else [s3.attachment]
        self._acquire = partial(sandboxes.acquire, run_once, partial(_port_for_creation, port, s3))
        self._client: GuestClient | None = None

    @cached_property
    def files(self) -> FileOperations:
        """The file operations for calls that belong to no conversation."""
        return self.file_operations(self._state.threadless)

    @cached_property
    def jobs(self) -> JobOps:
        from langchain_daytona_ws._core.jobs.operations import JobOps

        return JobOps(
            self.client,
            self._state.tracker,
            root=self._state.root,
            limit_bytes=self._state.config.output_limit_bytes,
            defaults=self._defaults,
            starts=lambda: self._state.sandboxes.starts,
            remarks=lambda job: self._job_remarks(job.command, job.ends_at - job.started_at),
            advise=self._hint,
        )

    # --- the sandbox ---

    async def preview_url(self, port: int, *, expires_s: float) -> PreviewUrl:
        sandboxes = self._state.sandboxes
        sandboxes.check_open()
        return await preview_url(
            await self._port(),
            sandboxes,
            partial(sandboxes.acquire, self._run_once, self._port),  # without credentials for S3
            port,
            expires_s=expires_s,
            may_exist=sandboxes.may_exist(),
            now=self._state.clock.time,
        )

    async def client(self) -> GuestClient:
        """Return the client for calls to the sandbox, without creating the sandbox."""
        if self._client is None:
            self._client = self._new_client(
                await self._port(),
                self._state.sandboxes,
                self._acquire,
                [*self._storage_attachments, self._state.tracker],
                set_up=None if self._hooks is None else partial(self._set_up, self._hooks),
            )
        return self._client

    def _new_client(
        self,
        port: SandboxPort,
        sandbox: SandboxRecord,
        acquire: Callable[[], Awaitable[SandboxInfo]],
        attachments: Sequence[Attachment],
        **settings: Any,
    ) -> GuestClient:
        state = self._state
        variables = state.config.plain_env_vars()
        return GuestClient(
            port,
            sandbox,
            acquire,
            variables,
            state.ids,
            attachments=attachments,
            programs=state.programs,
            **settings,
        )

    async def _set_up(self, hooks: Hooks) -> None:
        await self._state.sandboxes.set_up(self._run_once, partial(self._run_hooks, hooks))

    async def _run_hooks(self, hooks: Hooks) -> None:
        client, info = await self.client(), await self._acquire()
        try:
            await hooks.run(client.only_for(info.id), info.id)
        except OutcomeUnknown as error:
            if error.code != LOST_WHILE_RUNNING or (await self._acquire()).id == info.id:
                raise
            # The sandbox was replaced while the hooks ran. `SandboxManager.set_up` runs them again in the new sandbox.

    async def last_push(
        self, info: SandboxInfo, *, limit_s: float, starts_if_stopped: bool
    ) -> SyncReport | None:
        """Push (save to S3) the files of a sandbox before the session ends, and return the report.

        Return None if there is nothing to push, or the sandbox is gone. Also return None if the sandbox does not answer
        and must not be started, and no unsaved files are known: then the next session pushes.

        Args:
            info: The sandbox.
            limit_s: Maximum number of seconds to wait.
            starts_if_stopped: True: start the sandbox if it is stopped.
        """
        storage = self._state.storage
        if storage is None:
            return None
        known = storage.sync_state.reports.get(info.id)
        if known is None and info is self._state.sandboxes.info:
            return None  # no call has copied the workspace to this sandbox
        sandbox = OneSandbox(info, is_persistent=self._state.config.persistent)
        client = self._new_client(
            await self._port(),
            sandbox,
            sandbox.acquire,
            self._storage_attachments,
            starts_if_stopped=starts_if_stopped,
        )
        report = await push(client, self._state.root, limit_s=limit_s)
        if report.failure == LOST:
            if known is not None and not known.is_saved:
                logger.warning("sandbox %s has ended: %s", info.name, "; ".join(known.notices))
            return None
        if not starts_if_stopped and report.failure == NO_ANSWER and (known is None or known.is_saved):
            return None  # the persistent sandbox is stopped; its next session pushes
        return report

    # --- commands ---

    async def run(
        self,
        command: str,
        *,
        timeout_s: float | None,
        idempotency_key: str | None,
        on_output: OnOutput | None = None,
        limit_bytes: int | None = None,
        pty: bool | tuple[int, int] = False,
    ) -> CommandResult:
        """Run a command; add a hint, and notices about its processes. The caller adds the session's notices."""
        state, config = self._state, self._state.config
        if on_output is not None:
            on_output = self._callback(on_output)
        timeout_s = config.timeout_s if timeout_s is None else timeout_s
        if not 0 < timeout_s <= COMMAND_TIMEOUT_MAX_S:
            raise CommandRefused(
                f"The time-out must be above 0 and at most {COMMAND_TIMEOUT_MAX_S} seconds.",
                code="timeout_range",
            )
        job = None
        if config.on_timeout == "background":
            from langchain_daytona_ws._core.jobs.operations import job_request

            job = job_request(command, JOB_DEFAULT_S, state.tracker, at_once=False)
        client = await self.client()
        result = await run_command(
            client,
            state.root,
            command,
            timeout_s=timeout_s,
            limit_bytes=limit_bytes or config.output_limit_bytes,
            key=idempotency_key,
            defaults=self._defaults,
            job=job,
            on_output=on_output,
            pty=pty,
        )
        hint, remarks = None, tuple[str, ...]()
        if self._s3 is not None and self._is_mounted:
            self._s3.s3_delay.command_ended()
            hint = self._hint(command, result.screen or result.output, result.exit_code)
        if result.job_id:
            remarks = self._job_remarks(command, JOB_DEFAULT_S)
        elif result.background:
            remarks = self._expiry_notice()
        return replace(result, notices=(*result.notices, *remarks), hint=hint)

    def _callback(self, on_output: OnOutput) -> OnOutput:
        """Return ``on_output``; in the sync runtime, wrapped by `sync_callback`."""
        return on_output

    async def run_quietly(
        self, command: str, *, idempotency_key: str | None, limit_bytes: int
    ) -> CommandResult:
        """Run a command for this package itself, without a hint and without default variables for S3 workspaces."""
        return await run_command(
            await self.client(),
            self._state.root,
            command,
            timeout_s=self._state.config.timeout_s,
            limit_bytes=limit_bytes,
            key=idempotency_key,
        )

    async def warm_up(self) -> None:
        """Provision and set up everything that a command needs, by running an empty command."""
        client = await self.client()
        await run_command(
            client, self._state.root, ":", timeout_s=PREWARM_TIMEOUT_S, limit_bytes=1024, key=None
        )

    def _hint(self, command: str, output: str, exit_code: int) -> str | None:
        """Return a hint if a failure is typical of a mounted S3 workspace; otherwise None."""
        if not self._is_mounted:
            return None
        # Sessions without a mount do not import the hints.
        from langchain_daytona_ws._core.hints.hint import hint

        return hint(command, output, exit_code, root=self._state.root)

    def _job_remarks(self, command: str, within_s: float) -> tuple[str, ...]:
        """Return notices about a job that may run for ``within_s`` seconds from now."""
        lifetime = () if self._state.config.persistent else ("it ends with this session",)
        return (*lifetime, *self._output_file_notice(command), *self._expiry_notice(within_s))

    def _output_file_notice(self, command: str) -> tuple[str, ...]:
        """Return a notice if a job writes its output to a file of a mounted workspace."""
        if not self._is_mounted:
            return ()
        from langchain_daytona_ws._core.hints.hint import written_here

        name = written_here(command, self._state.root)
        if name is None:
            return ()
        shown = name if name.isprintable() and len(name) <= SHOWN_NAME_CHARS else "a file of the workspace"
        return (
            f"its output goes to {shown}: if anything opens that file before the job has closed it, the rest is lost. "
            "Leave the output to the job's log, or write it under /tmp and cp it at the end",
        )

    def _expiry_notice(self, within_s: float = math.inf) -> tuple[str, ...]:
        """Return a notice if the credentials for S3 end within ``within_s`` seconds: only calls renew them."""
        storage = self._s3.attachment if self._s3 else None
        until = self._state.clock.time() + within_s
        if storage is None or storage.expires_at is None or storage.expires_at >= until:
            return ()
        return (
            f"its writes to the workspace begin to fail at {storage.ends_at}, unless another call comes before"
            if self._is_mounted
            else f"what it writes after {storage.ends_at} is saved only when another call comes",
        )

    # --- files ---

    def file_operations(
        self, conversation: Conversation, *, limit_bytes: int | None = None, suggests_similar: bool = True
    ) -> FileOperations:
        """Return the operations on the workspace's files.

        Args:
            conversation: Records the hashes of the files that it has read, so that it may overwrite them.
            limit_bytes: Maximum number of bytes of text in a result. Default: the configuration's ``outputLimitBytes``.
            suggests_similar: True: the error for a missing file names similar paths. Default: True.
        """
        from langchain_daytona_ws._core.files.operations import FileOperations

        conversation.limit_hashes()
        sandbox, on_s3 = self._files_in_sandbox, self._s3.files if self._s3 else None
        return FileOperations(
            on_s3 or sandbox,
            sandbox,
            root=self._state.root,
            limit_bytes=limit_bytes or self._state.config.output_limit_bytes,
            read_hashes=conversation.read_hashes,
            new_key=self._state.ids,
            suggests_similar=suggests_similar,
            batches=None if on_s3 else sandbox,
        )

    def file_operations_outside(
        self, conversation: Conversation, *, limit_bytes: int, made: Collection[str]
    ) -> FileOperations:
        """Return the operations on all of the sandbox's files, by their absolute paths.

        Args:
            conversation: Records the hashes of the files that it has read, so that it may overwrite them.
            limit_bytes: Maximum number of bytes of text in a result.
            made: Directories to create, with sudo if necessary, before a file is written in them.
        """
        from langchain_daytona_ws._core.files.operations import FileOperations

        conversation.limit_hashes()
        sandbox = self._guest_files(base="/", made=made)
        return FileOperations(
            sandbox,
            root="/",
            limit_bytes=limit_bytes,
            read_hashes=conversation.outside_hashes,
            new_key=self._state.ids,
            suggests_similar=False,
            batches=sandbox,
        )

    def transfers(self) -> TransferOperations:
        """Return the transfers between the host's files and the workspace's."""
        # Sessions without transfers do not import them.
        from langchain_daytona_ws._core.transfers.guest import GuestTransfers
        from langchain_daytona_ws._core.transfers.operations import TransferOperations

        through_sandbox = GuestTransfers(
            self._files_in_sandbox, new_key=self._state.ids, offload=self.offload
        )
        on_s3 = self._s3.transfers if self._s3 else None
        return TransferOperations(
            on_s3 or through_sandbox, root=self._state.root, offload=self.offload, new_lock=threading.Lock
        )

    async def offload(self, work: Callable[[], T]) -> T:
        """Run work that reads or writes the host's files, without blocking an event loop."""
        raise NotImplementedError

    @cached_property
    def _files_in_sandbox(self) -> GuestFiles:
        return self._guest_files()

    def _guest_files(self, *, base: str | None = None, made: Collection[str] = ()) -> GuestFiles:
        from langchain_daytona_ws._core.files.guest import GuestFiles

        return GuestFiles(
            self.client,
            root=self._state.root,
            base=base,
            made=made,
            is_provisioned=lambda: self._state.sandboxes.info is not None,
            may_exist=self._state.sandboxes.may_exist,
            on_report=self._add_notices,
        )

    def _add_notices(self, report: SyncReport) -> None:
        """Keep the notices of a file operation for the next result."""
        for notice in report.notices:
            self._state.notices.add(notice)


async def _port_for_creation(port: Callable[[], Awaitable[SandboxPort]], s3: S3Access | None) -> SandboxPort:
    """Return the Daytona API, after fetching credentials and, for a mount, checking the S3 store.

    If these fail, no sandbox is created.
    """
    if s3 is not None:
        await s3.attachment.prepare()
    return await port()


class SyncRuntime(_Runtime):
    """The runtime of sync methods. Its coroutines never suspend, so that `run_sync` can run them."""

    def __init__(self, state: SessionState) -> None:
        s3 = state.storage.sync_access if state.storage else None
        clients = state.sandboxes.clients

        async def port() -> SandboxPort:
            return clients.sync_port()

        super().__init__(state, once_blocking, port, s3)

    def _callback(self, on_output: OnOutput) -> OnOutput:
        return sync_callback(on_output)

    async def offload(self, work: Callable[[], T]) -> T:
        return work()


class AsyncRuntime(_Runtime):
    """The runtime of async methods, for every event loop."""

    def __init__(self, state: SessionState) -> None:
        s3 = state.storage.async_access if state.storage else None
        super().__init__(state, once_on_loop, state.sandboxes.clients.async_port, s3)

    async def offload(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)
