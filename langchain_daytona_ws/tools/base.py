"""The template of all tools: ask for approval, perform the operation, return content and artifact."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from pydantic import ConfigDict, Field

from langchain_daytona_ws._approval.control_flow import is_control_flow
from langchain_daytona_ws._approval.verdict import Answered, Approval
from langchain_daytona_ws._core.commands.run import call_key
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._session.runtime import AsyncRuntime, SyncRuntime
from langchain_daytona_ws.errors import WorkspaceError
from langchain_daytona_ws.permissions import PermissionRequest
from langchain_daytona_ws.session import WorkspaceSession
from langchain_daytona_ws.tools.arguments import ERROR_LIMIT, ToolInput, explain
from langchain_daytona_ws.tools.concurrent_calls import ConcurrentCall, begin_current
from langchain_daytona_ws.tools.tracing import Facts, RunManager, traced

Runtime: TypeAlias = SyncRuntime | AsyncRuntime
Validate: TypeAlias = Callable[[Mapping[str, object]], Any]
Ask: TypeAlias = Callable[[PermissionRequest, Validate], Awaitable[Approval[Any] | Answered]]

# Not an injected argument: those make a tool refuse every call that is not a full ToolCall.
_tool_call_id: ContextVar[str | None] = ContextVar("langchain_daytona_ws_tool_call_id", default=None)


class WorkspaceTool(BaseTool):
    """A tool over a `WorkspaceSession`.

    Failures are returned to the model as a tool message of status ``error``. Only control flow is raised: a graph's
    interrupt, cancellation, Ctrl-C.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    session: WorkspaceSession = Field(exclude=True, repr=False)
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: bool | str | Callable[[ToolException], str] | None = True
    handle_validation_error: bool | str | Callable[[Any], str] | None = Field(default_factory=lambda: explain)

    def run(self, *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        """Run the tool, as every LangChain tool does; see `BaseTool.run`."""
        with _remembered(tool_call_id):
            return super().run(*args, tool_call_id=tool_call_id, **kwargs)

    async def arun(self, *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        """Run the tool, as every LangChain tool does; see `BaseTool.arun`."""
        call = ConcurrentCall(kwargs.get("config"))
        try:
            with _remembered(tool_call_id):
                return await super().arun(*args, tool_call_id=tool_call_id, **kwargs)
        except Exception as error:
            if is_control_flow(error):
                await call.others()
            raise
        finally:
            call.end()

    def _run(
        self, *, config: RunnableConfig, run_manager: RunManager | None = None, **arguments: Any
    ) -> tuple[str, dict[str, Any]]:
        gate = self.session._gate

        async def ask(request: PermissionRequest, validate: Validate) -> Approval[Any] | Answered:
            return gate.check(request, validate)

        with as_tool_message(), traced(run_manager) as trace:
            return run_sync(self._call(self.session._sync, ask, arguments, config, trace))

    async def _arun(
        self, *, config: RunnableConfig, run_manager: RunManager | None = None, **arguments: Any
    ) -> tuple[str, dict[str, Any]]:
        with as_tool_message(), traced(run_manager) as trace:
            return await self._call(self.session._async, self.session._gate.acheck, arguments, config, trace)

    async def _call(
        self,
        runtime: Runtime,
        ask: Ask,
        arguments: dict[str, Any],
        config: RunnableConfig | None,
        trace: Callable[[Facts], None],
    ) -> tuple[str, dict[str, Any]]:
        """Carry out one call: ask for approval where the mode requires it, perform the operation, add the notices."""
        wanted: Any = self._input.model_construct(**arguments)  # LangChain has validated them
        action, shown = self._described(wanted)
        note: list[str] = []
        if not self.session._gate.allows(self.name, action, shown):
            await self._refuse_early(runtime, wanted)  # a call that cannot succeed needs no approval
            approval = await ask(self._request(action, shown), self._input.of_edit)
            if isinstance(approval, Answered):
                return approval.content_and_artifact
            if approval.edited:
                wanted, note = approval.validated, [approval.note] if approval.note else []
                action, shown = self._described(wanted)
        begin_current()
        key = self._idempotency_key(config, self._identity(wanted, shown))
        text, artifact = await self._perform(runtime, wanted, key, trace)
        notices = [*self.session._state.notices.drain(), *note]
        return "\n".join([*(f"[{notice}]" for notice in notices), text]), artifact

    # --- what each tool defines ---

    @property
    def _input(self) -> type[ToolInput]:
        """The model of the tool's arguments."""
        raise NotImplementedError

    def _described(self, wanted: Any) -> tuple[str, dict[str, object]]:
        """Return the action, and the arguments as a permission request shows them."""
        raise NotImplementedError

    def _request(self, action: str, arguments: dict[str, object]) -> PermissionRequest:
        """Return the request for approval."""
        raise NotImplementedError

    async def _refuse_early(self, runtime: Runtime, wanted: Any) -> None:
        """Raise the error of a call that cannot succeed."""

    def _identity(self, wanted: Any, arguments: dict[str, object]) -> dict[str, object]:
        """Return what a repeated call has in common with the first one."""
        return arguments

    async def _perform(
        self, runtime: Runtime, wanted: Any, key: str | None, trace: Callable[[Facts], None]
    ) -> tuple[str, dict[str, Any]]:
        """Perform the operation; return the content and the artifact."""
        raise NotImplementedError

    def _idempotency_key(self, config: RunnableConfig | None, identity: dict[str, object]) -> str | None:
        """Name the call, so that a graph node that runs again repeats nothing; None without a tool call id."""
        call_id = _tool_call_id.get()
        if not call_id:
            return None
        session = self.session
        return call_key(config, call_id, identity, namespace=session.namespace, session_id=session.id)


def current_tool_call_id() -> str | None:
    return _tool_call_id.get()


@contextmanager
def _remembered(tool_call_id: str | None) -> Iterator[None]:
    token = _tool_call_id.set(tool_call_id)
    try:
        yield
    finally:
        _tool_call_id.reset(token)


@contextmanager
def as_tool_message() -> Iterator[None]:
    """Turn this package's errors into tool messages; tracers find the error itself as the cause."""
    try:
        yield
    except WorkspaceError as error:
        raise ToolException(f"[{error.code}] {error.for_model}"[:ERROR_LIMIT]) from error
