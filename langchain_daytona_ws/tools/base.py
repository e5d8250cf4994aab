"""The base class of all tools: ask for approval, perform the operation, return content and artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from pydantic import ConfigDict, Field, model_validator

from langchain_daytona_ws._approval.asking import ApprovalRuntime, AsyncioRuntime, BlockingRuntime
from langchain_daytona_ws._approval.control_flow import is_control_flow
from langchain_daytona_ws._approval.verdict import Answered, Approval
from langchain_daytona_ws._core.call_key import call_key
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._session.runtime import AsyncRuntime, SyncRuntime
from langchain_daytona_ws.errors import WorkspaceError
from langchain_daytona_ws.permissions import PermissionRequest, needs_approval
from langchain_daytona_ws.pool import SessionLease, WorkspacePool, lease_for, source_of
from langchain_daytona_ws.session import WorkspaceSession
from langchain_daytona_ws.tools.arguments import ERROR_LIMIT, ToolInput, explain
from langchain_daytona_ws.tools.concurrent_calls import ConcurrentCall

RunManager: TypeAlias = CallbackManagerForToolRun | AsyncCallbackManagerForToolRun
Content: TypeAlias = str | list[dict[str, Any]]
"""A text, or LangChain's standard content blocks."""

# Default names of the tools. Results of some of these tools contain the sandbox's id, which `recall_sandbox` reads.
_TOOLS = frozenset({"bash", "workspace_file", "bash_job", "preview_url"})

# The model's id of the call. It is not an argument, because a tool with LangChain's injected argument for this id would
# refuse calls without an id.
_tool_call_id: ContextVar[str | None] = ContextVar("langchain_daytona_ws_tool_call_id", default=None)


class WorkspaceTool(BaseTool):
    """A tool over a `WorkspaceSession`, or over the sessions of a `WorkspacePool`.

    A `WorkspaceError` and invalid arguments are returned to the model as a tool message of status ``error``. Control
    flow is raised: a graph's interrupt, cancellation, Ctrl-C.
    """

    # Build no validator for this class: only its subclasses have instances.
    model_config = ConfigDict(arbitrary_types_allowed=True, defer_build=True)

    # None with a pool. Its type lacks None, so that programs that pass a session need no check for it.
    session: WorkspaceSession = Field(default=None, exclude=True, repr=False)  # type: ignore[assignment]
    pool: WorkspacePool | None = Field(default=None, exclude=True, repr=False)
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: bool | str | Callable[[ToolException], str] | None = True
    handle_validation_error: bool | str | Callable[[Any], str] | None = Field(default_factory=lambda: explain)

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        source_of(self.session, self.pool)
        return self

    def run(self, *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        """Run the tool, as every LangChain tool does; see `BaseTool.run`."""
        with _in_tool_call(tool_call_id):
            return super().run(*args, tool_call_id=tool_call_id, **kwargs)

    async def arun(self, *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        """Run the tool, as every LangChain tool does; see `BaseTool.arun`."""
        call = ConcurrentCall(kwargs.get("config"))
        try:
            with _in_tool_call(tool_call_id):
                return await super().arun(*args, tool_call_id=tool_call_id, **kwargs)
        except Exception as error:
            if is_control_flow(error):
                await call.wait_for_others()
            raise
        finally:
            call.end()

    def _run(
        self, *, config: RunnableConfig, run_manager: RunManager | None = None, **arguments: Any
    ) -> tuple[Content, dict[str, Any]]:
        try:
            with self._lease(config) as session:
                call = CallContext(session, session._sync, BlockingRuntime, config, run_manager)
                return run_sync(self._call(call, arguments))
        except WorkspaceError as error:
            raise tool_exception(error, run_manager) from error

    async def _arun(
        self, *, config: RunnableConfig, run_manager: RunManager | None = None, **arguments: Any
    ) -> tuple[Content, dict[str, Any]]:
        try:
            async with self._lease(config) as session:
                call = CallContext(session, session._async, AsyncioRuntime, config, run_manager)
                call.concurrent = ConcurrentCall.current()
                return await self._call(call, arguments)
        except WorkspaceError as error:
            raise tool_exception(error, run_manager) from error

    def _lease(self, config: RunnableConfig) -> nullcontext[WorkspaceSession] | SessionLease:
        """Return a context manager, sync and async, that leases the session of a run."""
        return nullcontext(self.session) if self.pool is None else lease_for(self.pool, config)

    async def _call(self, call: CallContext, arguments: dict[str, Any]) -> tuple[Content, dict[str, Any]]:
        state, conversation = call.state, call.conversation
        wanted: Any = self._input.model_construct(**arguments)  # LangChain has validated the arguments
        action, shown = self._action_and_arguments(wanted)
        notes: list[str] = []
        asks = needs_approval(state.config.permission_mode, self._tool, action)
        if asks and not conversation.remembered.covers(self._tool, action, shown):
            approval = await self._ask(call, wanted, action, shown)
            if isinstance(approval, Answered):
                return approval.content_and_artifact
            if approval.edited:
                wanted, notes = approval.validated, [approval.note] if approval.note else []
                action, shown = self._action_and_arguments(wanted)
        if call.concurrent is not None:
            call.concurrent.begin()
        if not conversation.has_begun:
            conversation.recall_sandbox(call.config, {self.name} if self.name not in _TOOLS else _TOOLS)
        if call.tool_call_id is not None:
            call.set_idempotency_key(call.tool_call_id, self._identifying_arguments(wanted, shown))
        try:
            result = await self._perform(call, wanted)
        except WorkspaceError as error:
            raise tool_exception(error, call.run_manager, state.drain_notices(conversation)) from error
        if result.facts:
            add_to_run(call.run_manager, result.facts)
        if not result.has_notices:
            notes = [*state.drain_notices(conversation), *notes]
        return _with_notices(result.content, notes), result.artifact

    async def _ask(
        self, call: CallContext, wanted: Any, action: str, shown: dict[str, object]
    ) -> Approval[Any] | Answered:
        await self._refuse_early(call, wanted)
        return await call.gate.check(
            self._request(call, action, shown),
            self._input.from_edit,
            remembered=call.conversation.remembered,
            new_runtime=call.approval_runtime,
        )

    # --- what each tool defines ---

    _tool: ClassVar[str]
    """The tool's name in permissions, also if the program has renamed the tool."""
    _input: ClassVar[type[ToolInput]]

    def _action_and_arguments(self, wanted: Any) -> tuple[str, dict[str, object]]:
        """Return the action, and the arguments as a permission request shows them."""
        raise NotImplementedError

    def _request(self, call: CallContext, action: str, arguments: dict[str, object]) -> PermissionRequest:
        raise NotImplementedError

    async def _refuse_early(self, call: CallContext, wanted: Any) -> None:
        """Raise an error if the call cannot succeed, before the approver is asked."""

    def _identifying_arguments(self, wanted: Any, arguments: dict[str, object]) -> dict[str, object]:
        """Return the arguments that identify the call: they are equal if the call is repeated."""
        return arguments

    async def _perform(self, call: CallContext, wanted: Any) -> ToolResult:
        raise NotImplementedError


class ToolResult(NamedTuple):
    """The result of a tool's operation.

    Attributes:
        content: For the model.
        artifact: For the program.
        facts: For tracers, see `add_to_run`.
        has_notices: True if content and artifact already contain the notices, such as of a replaced sandbox.
    """

    content: Content
    artifact: dict[str, Any]
    facts: dict[str, Any] | None = None
    has_notices: bool = False


class CallContext:
    """One call of a tool.

    Attributes:
        conversation: The state of the call's thread.
        run_manager: LangChain's manager of the run, which has the tracers.
        tool_call_id: The model's id of the call; None if a program calls the tool.
        idempotency_key: Key with which the operation runs once, even if the graph's node runs again. None if
            ``tool_call_id`` is None, or if it is empty and the call is not made by a graph.
        concurrent: Registers this call with the concurrent calls of the graph; None for a sync call.
    """

    def __init__(
        self,
        session: WorkspaceSession,
        runtime: SyncRuntime | AsyncRuntime,
        approval_runtime: Callable[[], ApprovalRuntime],
        config: RunnableConfig,
        run_manager: RunManager | None,
    ) -> None:
        self.session = session
        self.state, self.gate = session._state, session._gate
        self.conversation = self.state.conversation(config)
        self.runtime = runtime
        self.approval_runtime = approval_runtime
        self.config = config
        self.run_manager = run_manager
        self.tool_call_id = _tool_call_id.get()
        self.idempotency_key: str | None = None
        self.concurrent: ConcurrentCall | None = None

    def set_idempotency_key(self, tool_call_id: str, identity: Mapping[str, object]) -> None:
        namespace, session_id = self.session.namespace, self.session.id
        self.idempotency_key = call_key(
            self.config, tool_call_id, identity, namespace=namespace, session_id=session_id
        )


@contextmanager
def _in_tool_call(tool_call_id: str | None) -> Iterator[None]:
    token = _tool_call_id.set(tool_call_id)
    try:
        yield
    finally:
        _tool_call_id.reset(token)


def _with_notices(content: Content, notices: Iterable[str]) -> Content:
    lines = [f"[{notice}]" for notice in notices]
    if isinstance(content, str):
        return "\n".join([*lines, content])
    return [*({"type": "text", "text": line} for line in lines), *content]


def tool_exception(
    error: WorkspaceError, run_manager: RunManager | None, notices: Iterable[str] = ()
) -> ToolException:
    """Add the error's code to the run's trace; return the exception that LangChain turns into a tool message."""
    add_to_run(run_manager, {"error_code": error.code})
    lines = "".join(f"[{notice}]\n" for notice in notices)
    text = f"[{error.code}] {error.for_model}"[:ERROR_LIMIT]
    return ToolException(f"{lines}{text}")


def add_to_run(run_manager: RunManager | None, facts: dict[str, Any]) -> None:
    """Add facts to the run's metadata in every tracer that derives from LangChain's base class, such as LangSmith's.

    LangChain has no function for this. A tracer keeps a run in ``run_map`` until the run ends, and sends it then.
    """
    if run_manager is None or not run_manager.handlers:
        return
    from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

    for handler in run_manager.handlers:
        if not isinstance(handler, (BaseTracer, AsyncBaseTracer)):
            continue
        run = handler.run_map.get(str(run_manager.run_id))
        if run is not None:
            extra = run.extra if run.extra is not None else {}
            # The dict is copied, because concurrent runs may share it.
            run.extra = {**extra, "metadata": {**(extra.get("metadata") or {}), **facts}}
