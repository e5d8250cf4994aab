"""The state that both runtimes of a session share, and the session's notices. Here a thread is a conversation."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec
from weakref import WeakKeyDictionary

from langchain_daytona_ws._core.call_key import thread_of
from langchain_daytona_ws._core.guest_rpc.payload import KeptPrograms
from langchain_daytona_ws._core.hints.guidance import guidance
from langchain_daytona_ws._core.id_factory import Clock, Ids
from langchain_daytona_ws._core.jobs.keep_alive import JobTracker
from langchain_daytona_ws._core.ports import SandboxSpec
from langchain_daytona_ws._core.sandbox.get_or_create import REPLACED_NOTICE
from langchain_daytona_ws._core.sandbox.network import caution_of, warn_of_network
from langchain_daytona_ws._core.sandbox.specification import specification
from langchain_daytona_ws._core.sync.report import LOST
from langchain_daytona_ws._session.conversations import Conversation, conversation_of, identity_of
from langchain_daytona_ws._session.graph_messages import first_turn
from langchain_daytona_ws._session.sandbox_manager import SandboxManager
from langchain_daytona_ws.config import SandboxConfig

if TYPE_CHECKING:
    from langchain_daytona_ws._core.commands.run import CommandResult
    from langchain_daytona_ws._core.jobs.models import Job
    from langchain_daytona_ws._core.s3.workspace import S3Workspace
    from langchain_daytona_ws._session.storage import Storage

P = ParamSpec("P")

NOTICES_MAX = 200

_LOST = "The machine was replaced: the earlier one is gone, and with it every "
_LOST_BUT_FILES = (
    f"{_LOST}process, installed package and file outside the workspace. The workspace's files are "
)
LOST_NOTICES: Mapping[str | None, str] = {
    None: f"{_LOST}file, installed package and process on it that was not saved elsewhere. What follows ran on a new, "
    "empty one",
    "mount": f"{_LOST_BUT_FILES}unchanged; what follows ran on a new machine",
    "sync": f"{_LOST_BUT_FILES}those that were saved when the last call returned; what follows ran on a new machine",
}
"""Mode of the S3 workspace, or None for a workspace without S3 → the notice for threads whose sandbox was replaced."""


class SessionState:
    """The state that both runtimes of a session share. It does not refer to the session.

    Args:
        ids: Returns a new unique id, for a call, an upload or a sandbox.
        on_job_end: Called once for the end of each job that this session saw running, with two arguments: the job, and
            True if the thread of the present call needs no notice, because its result shows the job's end, or reports
            the loss of the sandbox.

    Attributes:
        root: The workspace directory.
        identity: Identifies the workspace, see `identity_of`.
        notices: The notices of all threads.
        threadless: The state that all calls without a thread share.
        sandboxes: Manages the session's sandbox.
        storage: The S3 workspace; None for a workspace on the sandbox's own disk.
        tracker: The jobs that this session knows.
        programs: The guest programs that the sandbox is known to have on its disk.

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
        self.config, self.namespace, self.ids, self.clock = config, namespace, ids, clock
        self.root = f"{config.options.workspace_root}/{namespace}"
        workspace = _s3_workspace(config, namespace)
        self.identity = identity_of(config, namespace, workspace)
        self.notices = Notices(LOST_NOTICES[None if workspace is None else workspace.mode])
        self.threadless = Conversation()
        self.notices.join(self.threadless)
        self.programs = KeptPrograms()
        warn_of_network(config, workspace)

        def spec() -> SandboxSpec:
            return specification(config, namespace, workspace, unique=ids()[-12:])

        first = spec()  # an invalid specification raises its error now
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
            accesses_s3_directly=self.config.options.file_access == "s3",
            check_open=self.sandboxes.check_open,
            add_notice=self.notices.add,
            caution=caution_of(self.config, workspace),
            clock=self.clock,
            ids=self.ids,
        )

    def conversation(self, run: Mapping[str, Any] | None) -> Conversation:
        """Return the state of a run's thread; without a thread, `threadless`.

        From now on, the thread gets the session's notices.
        """
        thread = thread_of(run)
        if thread is None:
            return self.threadless
        turn = first_turn((run or {}).get("configurable") or {})
        conversation = conversation_of(self.identity, thread, turn)
        self.notices.join(conversation)
        return conversation

    def with_notices(self, result: CommandResult, conversation: Conversation) -> CommandResult:
        """Add the result of `drain_notices` to a command's result."""
        return replace(result, notices=(*self.drain_notices(conversation), *result.notices))

    def drain_notices(self, conversation: Conversation) -> tuple[str, ...]:
        """Return the notices that a thread has not seen yet, and record that it has seen them."""
        return self.notices.drain(conversation, lambda: self.sandboxes.sandbox_id)

    def guidance(self, *, deep_agent_in: str | None = None) -> str:
        """Return the facts about the workspace for a system prompt.

        Args:
            deep_agent_in: For a Deep Agent: the workspace directory, or ``""`` with a pool. None: facts for this
                package's tools.
        """
        options, is_on_s3 = self.config.options, self.storage is not None
        return guidance(
            s3_mode=options.s3_mode if is_on_s3 else None,
            skills_path=options.skills_mount_path if options.skills_bucket_name and is_on_s3 else None,
            file_access=options.file_access,
            deep_agent_in=deep_agent_in,
        )

    def runs_jobs(self) -> bool:
        """Return whether closing the session may end background jobs."""
        return not self.config.persistent and self.tracker.latest_end() > self.clock.time()

    def _on_lost(self) -> None:
        self.notices.add(self.notices.lost)
        if self.storage is not None and not self.storage.is_mounted:
            for report in self.storage.sync_state.take_unsaved():
                self.notices.add(replace(report, failure=LOST).notices[-1])
        self._forget_files()

    def _forget_files(self) -> None:
        """Forget the hashes of files on the sandbox's own disk: the next sandbox has other files."""
        for conversation in self.notices.conversations():
            conversation.forget_files(in_workspace=self.storage is None)

    def close(self) -> None:
        """Forget the hashes of an ephemeral sandbox's files; close the connections to S3."""
        if not self.config.persistent:
            self._forget_files()
        if self.storage is not None:
            self.storage.close()


class Notices:
    """The notices of a session about its sandbox. Each thread gets each notice once, in its next result.

    A thread that begins later gets no earlier notices. Only the latest `NOTICES_MAX` notices are kept.

    Args:
        lost: The notice for a thread whose sandbox was lost or replaced.
    """

    def __init__(self, lost: str) -> None:
        self.lost = lost
        self._lock = threading.Lock()
        # Each notice, with the thread that must not get it.
        self._kept: deque[tuple[str, Conversation | None]] = deque(maxlen=NOTICES_MAX)
        self._added_count = 0
        self._seen_counts: WeakKeyDictionary[Conversation, int] = WeakKeyDictionary()

    def add(self, notice: str, *, except_for: Conversation | None = None) -> None:
        """Add a notice for all threads that use the session, except a thread whose result has the same facts."""
        with self._lock:
            self._kept.append((notice, except_for))
            self._added_count += 1

    def join(self, conversation: Conversation) -> None:
        """Record that a thread uses the session: it gets the notices from now on.

        A thread that used the workspace through an earlier session gets all notices of this session.
        """
        with self._lock:
            self._seen_counts.setdefault(conversation, 0 if conversation.has_begun else self._added_count)

    def conversations(self) -> list[Conversation]:
        with self._lock:
            return list(self._seen_counts)

    def drain(self, conversation: Conversation, sandbox: Callable[[], str | None]) -> tuple[str, ...]:
        """Return the notices that a thread has not seen yet, each text once; record that it has seen them.

        If the thread's last result came from another sandbox, `lost` is among them. ``sandbox`` returns the id of the
        present sandbox.
        """
        with conversation.lock:
            # The thread must get the notice of a loss once. The notice is added before the next sandbox has an id. So
            # the id is read before the notices: if it is the id of the next sandbox, the notice is found. The lock
            # excludes a parallel call of this thread. Without it, the parallel call could return the notice, and then
            # this call could record the id of the lost sandbox; the thread's next call would find another id, and
            # return the notice again.
            sandbox_id = sandbox()
            with self._lock:
                unseen = self._added_count - self._seen_counts.get(conversation, self._added_count)
                self._seen_counts[conversation] = self._added_count
                new = list(self._kept)[-unseen:] if unseen else []
            notices = list(
                dict.fromkeys(notice for notice, except_for in new if except_for is not conversation)
            )
            if self.lost in notices:
                conversation.sandbox_id = ""  # `sandbox_id` may be the id of the lost sandbox
            elif sandbox_id is not None:
                if conversation.sandbox_id not in ("", sandbox_id):
                    notices = [self.lost, *(notice for notice in notices if notice != REPLACED_NOTICE)]
                conversation.sandbox_id = sandbox_id
            conversation.has_begun = True
            return tuple(notices)


def weak_method(method: Callable[P, None]) -> Callable[P, None]:
    """Return a function that calls a bound method. It does nothing after the method's object is gone."""
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
