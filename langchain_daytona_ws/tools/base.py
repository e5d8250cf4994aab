"""The template of all tools: ask for approval, perform the operation, return content and artifact."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, ClassVar, Literal, Self, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from pydantic import ConfigDict, Field, model_validator

from langchain_daytona_ws._approval import graph_messages
from langchain_daytona_ws._approval.asking import ApprovalRuntime, AsyncioRuntime, BlockingRuntime
from langchain_daytona_ws._approval.control_flow import is_control_flow
from langchain_daytona_ws._approval.verdict import Answered
from langchain_daytona_ws._core.call_key import call_key
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._session.conversations import call_of
from langchain_daytona_ws._session.runtime import AsyncRuntime, ConversationRuntime, SyncRuntime
from langchain_daytona_ws.errors import WorkspaceError
from langchain_daytona_ws.permissions import PermissionRequest
from langchain_daytona_ws.pool import WorkspacePool, lease_for, source_of
from langchain_daytona_ws.session import SessionInternals, WorkspaceSession
from langchain_daytona_ws.tools.arguments import ERROR_LIMIT, ToolInput, explain
from langchain_daytona_ws.tools.concurrent_calls import ConcurrentCall

RunManager: TypeAlias = CallbackManagerForToolRun | AsyncCallbackManagerForToolRun
Content: TypeAlias = str | list[dict[str, Any]]
"""A text, or LangChain's standard content blocks."""

# Default names of the tools of a session; the results of most of them contain the id of the sandbox.
_TOOLS = frozenset({"bash", "workspace_file", "bash_job", "preview_url"})

# Not an injected argument: those make a tool refuse every call that is not a full `ToolCall` of LangChain.
_tool_call_id: ContextVar[str | None] = ContextVar("langchain_daytona_ws_tool_call_id", default=None)


class WorkspaceTool(BaseTool):
    """A tool over a `WorkspaceSession`, or over the sessions of a `WorkspacePool`.

    Failures are returned to the model as a tool message of status ``error``. Only control flow is raised: a graph's
    interrupt, cancellation, Ctrl-C.
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
                await call.others()
            raise
        finally:
            call.end()

    def _run(
        self, *, config: RunnableConfig, run_manager: RunManager | None = None, **arguments: Any
    ) -> tuple[Content, dict[str, Any]]:
        with as_tool_message(run_manager), lease_for(source_of(self.session, self.pool), config) as session:
            parts = SessionInternals(session)
            call = CallContext(parts, parts.sync_runtime, BlockingRuntime, config, run_manager)
            return run_sync(self._call(call, arguments))

    async def _arun(
        self, *, config: RunnableConfig, run_manager: RunManager | None = None, **arguments: Any
    ) -> tuple[Content, dict[str, Any]]:
        with as_tool_message(run_manager):
            async with lease_for(source_of(self.session, self.pool), config) as session:
                parts = SessionInternals(session)
                call = CallContext(parts, parts.async_runtime, AsyncioRuntime, config, run_manager)
                call.concurrent = ConcurrentCall.current()
                return await self._call(call, arguments)

    async def _call(self, call: CallContext, arguments: dict[str, Any]) -> tuple[Content, dict[str, Any]]:
        """Carry out one call: ask for approval where the mode requires it, perform the operation, add the notices."""
        wanted: Any = self._input.model_construct(**arguments)  # LangChain has validated them
        action, shown = self._described(wanted)
        note: list[str] = []
        if not call.allows(self.name, action, shown):
            await self._refuse_early(call, wanted)  # a call that cannot succeed needs no approval
            approval = await call.ask(self._request(call, action, shown), self._input.of_edit)
            if isinstance(approval, Answered):
                return approval.content_and_artifact
            if approval.edited:
                wanted, note = approval.validated, [approval.note] if approval.note else []
                action, shown = self._described(wanted)
        if call.concurrent is not None:
            call.concurrent.begin()
        call.recall_sandbox({self.name} if self.name not in _TOOLS else _TOOLS)
        if call.tool_call_id:
            call.set_idempotency_key(call.tool_call_id, self._identity(wanted, shown))
        with as_tool_message(call.run_manager, call.runtime.drain_notices), call_of(call.conversation):
            content, artifact = await self._perform(call, wanted)
        notices = [f"[{notice}]" for notice in (*call.runtime.drain_notices(), *note)]
        if isinstance(content, str):
            return "\n".join([*notices, content]), artifact
        return [*({"type": "text", "text": notice} for notice in notices), *content], artifact

    # --- what each tool defines ---

    _input: ClassVar[type[ToolInput]]
    """The model of the tool's arguments."""

    def _described(self, wanted: Any) -> tuple[str, dict[str, object]]:
        """Return the action, and the arguments as a permission request shows them."""
        raise NotImplementedError

    def _request(self, call: CallContext, action: str, arguments: dict[str, object]) -> PermissionRequest:
        """Return the request for approval."""
        raise NotImplementedError

    async def _refuse_early(self, call: CallContext, wanted: Any) -> None:
        """Raise the error of a call that cannot succeed."""

    def _identity(self, wanted: Any, arguments: dict[str, object]) -> dict[str, object]:
        """Return the arguments that are equal in a call and in its repetition."""
        return arguments

    async def _perform(self, call: CallContext, wanted: Any) -> tuple[Content, dict[str, Any]]:
        """Perform the operation; return the content and the artifact."""
        raise NotImplementedError


class CallContext:
    """One call of a tool.

    Attributes:
        session: Its session.
        conversation: The state of its thread.
        allows: Whether the call needs no approval, see `ApprovalGate.allows`.
        ask: Asks for approval, see `ApprovalGate.check`.
        runtime: Performs operations for this thread, sync or async.
        config: The config of its run.
        tool_call_id: The model's id of the call; None if a program calls the tool.
        idempotency_key: Names the call, so that a graph node that runs again repeats nothing; None without
            ``tool_call_id``.
        concurrent: Registers the call with the other calls that run at the same time in the graph; None for a sync
            call.
        run_manager: LangChain's manager of the run, which has its tracers.
    """

    def __init__(
        self,
        parts: SessionInternals,
        runtime: SyncRuntime | AsyncRuntime,
        approval_runtime: Callable[[], ApprovalRuntime],
        config: RunnableConfig | None,
        run_manager: RunManager | None,
    ) -> None:
        self.session = parts.session
        self.config = config
        self.tool_call_id = _tool_call_id.get()
        self.idempotency_key: str | None = None
        self.concurrent: ConcurrentCall | None = None
        self.run_manager = run_manager
        self.conversation = parts.conversation(config)
        remembered = self.conversation.remembered
        self.allows = partial(parts.gate.allows, remembered=remembered)
        self.ask = partial(parts.gate.check, remembered=remembered, new_runtime=approval_runtime)
        self.runtime = ConversationRuntime(runtime, self.conversation)

    def set_idempotency_key(self, tool_call_id: str, identity: Mapping[str, object]) -> None:
        """Set ``idempotency_key``, from the arguments that are equal in a call and in its repetition."""
        namespace, session_id = self.session.namespace, self.session.id
        self.idempotency_key = call_key(
            self.config, tool_call_id, identity, namespace=namespace, session_id=session_id
        )

    def recall_sandbox(self, tools: Collection[str]) -> None:
        """Find the sandbox of the thread's last result in the graph's messages, after a restart of the process.

        Args:
            tools: Names of the tools that use the session.
        """
        conversation = self.conversation
        if not conversation.has_begun and not conversation.sandbox_id:
            settings = (self.config or {}).get("configurable") or {}
            conversation.sandbox_id = (
                graph_messages.sandbox_of(graph_messages.messages_of(settings), tools) or ""
            )


@contextmanager
def _in_tool_call(tool_call_id: str | None) -> Iterator[None]:
    token = _tool_call_id.set(tool_call_id)
    try:
        yield
    finally:
        _tool_call_id.reset(token)


@contextmanager
def as_tool_message(
    run_manager: RunManager | None, notices: Callable[[], Iterable[str]] = tuple
) -> Iterator[None]:
    """Raise this package's errors as `ToolException`, with the error as its cause; trace the error's code.

    Args:
        run_manager: LangChain's manager of the run, which has its tracers.
        notices: Returns the notices with which the message of an error begins. Default: no notices.
    """
    try:
        yield
    except WorkspaceError as error:
        add_to_run(run_manager, {"error_code": error.code})
        lines = "".join(f"[{notice}]\n" for notice in notices())
        raise ToolException(f"{lines}[{error.code}] {error.for_model}"[:ERROR_LIMIT]) from error


def add_to_run(run_manager: RunManager | None, facts: dict[str, Any]) -> None:
    """Add facts to the run's metadata in every tracer that derives from LangChain's base class, such as LangSmith's.

    LangChain has no function for this. Each tracer keeps the run under its id until the run ends, and then sends it
    with the added metadata.
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
            # A copy: concurrent runs may share the dict.
            run.extra = {**extra, "metadata": {**(extra.get("metadata") or {}), **facts}}
