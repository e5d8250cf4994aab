"""The session of one call of the backend: its files, commands and approvals, for the thread of the call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from langchain_daytona_ws._approval.asking import ApprovalRuntime
from langchain_daytona_ws._approval.verdict import Answered, Approval
from langchain_daytona_ws._core.commands.run import CommandResult
from langchain_daytona_ws._deepagents.locations import FileLocation, locate
from langchain_daytona_ws._session.runtime import AsyncRuntime, SyncRuntime
from langchain_daytona_ws.errors import WorkspaceError
from langchain_daytona_ws.permissions import PermissionRequest, needs_approval
from langchain_daytona_ws.session import WorkspaceSession

if TYPE_CHECKING:
    from langchain_daytona_ws._core.files.operations import FileOperations

OUTPUT_BYTES = 1 << 20
"""Maximum size of the output in a result. Deep Agents stores results that are too long for the model in a file."""

RESULT_BYTES = 1 << 20
ERROR_BYTES = 16 << 10  # output of a failed deletion


class AnsweredInstead(WorkspaceError):
    """The approver answered in place of the tool. Nothing was done; the model gets the approver's answer."""

    default_code = "answered"


class CallSession:
    """The session of one call.

    Args:
        session: The session.
        runtime: The session's runtime, sync or async.
        approval_runtime: Makes the runtime that waits for an approval.
        run: The config of the running graph.
        artifacts: The artifact directories of Deep Agents.
    """

    def __init__(
        self,
        session: WorkspaceSession,
        runtime: SyncRuntime | AsyncRuntime,
        approval_runtime: Callable[[], ApprovalRuntime],
        run: Mapping[str, Any],
        artifacts: Collection[str],
    ) -> None:
        self.root, self.namespace, self.session_id = session.root, session.namespace, session.id
        self._state, self._gate = session._state, session._gate
        self._runtime = runtime
        self._approval_runtime = approval_runtime
        self._conversation = self._state.conversation(run)
        self._artifacts = artifacts

    def location_and_operations(self, path: str) -> tuple[FileLocation, FileOperations]:
        location = locate(path, self.root, self._artifacts)
        return location, self._outside if location.is_outside else self._workspace

    @cached_property
    def _workspace(self) -> FileOperations:
        return self._runtime.file_operations(
            self._conversation, limit_bytes=RESULT_BYTES, suggests_similar=False
        )

    @cached_property
    def _outside(self) -> FileOperations:
        """The operations on files outside the workspace, by absolute path."""
        return self._runtime.file_operations_outside(
            self._conversation, limit_bytes=RESULT_BYTES, made=self._artifacts
        )

    def asks_about(self, tool: str, action: str) -> bool:
        """Return whether the permission mode asks about an action.

        Call this before building a request: building it may take longer than the action.
        """
        return needs_approval(self._state.config.permission_mode, tool, action)

    async def ask(
        self, request: PermissionRequest, validate: Callable[[Mapping[str, object]], Any] | None
    ) -> Approval[Any]:
        """Ask for approval; see `ApprovalGate.check`.

        Raises:
            PermissionDenied: The call was not approved.
            AnsweredInstead: The approver answered in place of the tool.
        """
        answer = await self._gate.check(
            request, validate, remembered=self._conversation.remembered, new_runtime=self._approval_runtime
        )
        if isinstance(answer, Answered):
            raise AnsweredInstead(answer.text)
        return answer

    async def execute(self, command: str, *, timeout_s: float | None, key: str | None) -> CommandResult:
        result = await self._runtime.run(
            command, timeout_s=timeout_s, idempotency_key=key, limit_bytes=OUTPUT_BYTES
        )
        return self._state.with_notices(result, self._conversation)

    async def execute_quietly(self, command: str, *, key: str | None) -> CommandResult:
        """Run a command of this package itself. The session's notices are kept for the next result."""
        return await self._runtime.run_quietly(command, idempotency_key=key, limit_bytes=ERROR_BYTES)


class NoSession(CallSession):
    """Replaces `CallSession` if no session was found for a call. Raises the error for each path and each command."""

    def __init__(self, error: WorkspaceError) -> None:
        self.root, self.namespace, self.session_id = "/", "", ""
        self._error = error

    def location_and_operations(self, path: str) -> NoReturn:
        raise self._error

    def asks_about(self, tool: str, action: str) -> NoReturn:
        raise self._error
