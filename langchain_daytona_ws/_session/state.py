"""The state that both runtimes of a session share, made from the session's configuration."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ParamSpec

from langchain_daytona_ws._core.guest_rpc.payload import KeptPrograms
from langchain_daytona_ws._core.id_factory import Clock, Ids
from langchain_daytona_ws._core.jobs.keep_alive import JobTracker
from langchain_daytona_ws._core.ports import SandboxSpec
from langchain_daytona_ws._core.sandbox.network import caution_of, warn_of_network
from langchain_daytona_ws._core.sandbox.reservation import specification
from langchain_daytona_ws._core.sync.report import LOST
from langchain_daytona_ws._session.conversations import LOST_NOTICES, Conversation, Notices, identity_of
from langchain_daytona_ws._session.sandbox_manager import SandboxManager
from langchain_daytona_ws.config import SandboxConfig

if TYPE_CHECKING:
    from langchain_daytona_ws._core.jobs.models import Job
    from langchain_daytona_ws._core.s3.workspace import S3Workspace
    from langchain_daytona_ws._session.storage import Storage

P = ParamSpec("P")


class SessionState:
    """The state that both runtimes of a session share. It does not refer to the session.

    Args:
        config: The session's configuration; envVars are read with each call.
        namespace: Name of the workspace.
        ids: Returns the names of calls and uploads.
        clock: The session's time.
        on_job_end: Called once for each job that has ended, with whether the call that found it was about jobs.

    Attributes:
        root: The workspace directory.
        identity: The same text for all sessions of the workspace, see `identity_of`.
        notices: The notices of all threads.
        own: The state of the calls without a thread.
        sandboxes: Manages the session's sandbox.
        storage: The S3 workspace; None for a workspace on the sandbox's own disk.
        tracker: The jobs that this session knows.
        programs: The guest programs that the sandbox keeps.

    Raises:
        ConfigError: The configuration contradicts itself, or the namespace is invalid.
    """

    def __init__(
        self,
        config: SandboxConfig,
        namespace: str,
        *,
        ids: Ids,
        clock: Clock,
        on_job_end: Callable[[Job, bool], None],
    ) -> None:
        self.config, self.ids, self.clock = config, ids, clock
        self.root = f"{config.options.workspace_root}/{namespace}"
        workspace = _s3_workspace(config, namespace)
        self.identity = identity_of(config, namespace, workspace)
        self.notices = Notices(LOST_NOTICES[None if workspace is None else workspace.mode])
        self.own = Conversation()
        self.notices.join(self.own)
        self.programs = KeptPrograms()
        warn_of_network(config, workspace)

        def spec() -> SandboxSpec:
            return specification(config, namespace, workspace, unique=ids()[-12:])

        first = spec()  # an invalid specification is an error here, and not at the first command
        add_notice = self.notices.add
        self.sandboxes = SandboxManager(
            config, spec, on_lost=weak_method(self._on_lost), add_notice=add_notice, clock=clock
        )
        self.storage = self._open_storage(workspace)
        self.tracker = JobTracker(first.auto_stop_minutes or 0, first.ttl_minutes, on_job_end, add_notice)

    def _open_storage(self, workspace: S3Workspace | None) -> Storage | None:
        if workspace is None:
            return None
        # Without a workspace on S3, its modules are not imported.
        from langchain_daytona_ws._session.storage import Storage

        return Storage(
            workspace,
            direct=self.config.options.file_access == "s3",
            check_open=self.sandboxes.check_open,
            add_notice=self.notices.add,
            caution=caution_of(self.config, workspace),
            clock=self.clock,
            ids=self.ids,
        )

    def drain_notices(self, conversation: Conversation) -> tuple[str, ...]:
        """Return the notices that a thread has not seen yet, for its next result."""
        return self.notices.drain(conversation, lambda: self.sandboxes.sandbox_id)

    def _on_lost(self) -> None:
        self.notices.add(self.notices.lost)
        if self.storage is not None and not self.storage.is_mounted:
            for report in self.storage.sync_state.take_unsaved():
                self.notices.add(replace(report, failure=LOST).notices[-1])
        self._forget_files()

    def _forget_files(self) -> None:
        """Forget what the threads have read: the files of the next sandbox are not those of this one."""
        for conversation in self.notices.conversations():
            conversation.forget_files(all_of_them=self.storage is None)

    def close(self) -> None:
        """Forget an ephemeral sandbox's files, and close the connections to S3."""
        if not self.config.persistent:
            self._forget_files()
        if self.storage is not None:
            self.storage.close()


def weak_method(method: Callable[P, None]) -> Callable[P, None]:
    """Return a function that calls a bound method, and does nothing once the method's object is gone."""
    reference = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        bound = reference()
        if bound is not None:
            bound(*args, **kwargs)

    return call


def _s3_workspace(config: SandboxConfig, namespace: str) -> S3Workspace | None:
    if not config.options.mount_aws_s3_buckets:
        return None
    # Without a workspace on S3, its modules are not imported.
    from langchain_daytona_ws._core.s3.workspace import s3_workspace

    return s3_workspace(config, namespace)
