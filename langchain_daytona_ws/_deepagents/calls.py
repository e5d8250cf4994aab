"""The id of the tool call in which the backend runs, and an idempotency key for each of its operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import ToolCall, ToolMessage
from langgraph.config import get_config
from langgraph.types import Command

from langchain_daytona_ws._core.call_key import call_key

_tool_call: ContextVar[ToolCall | None] = ContextVar("langchain_daytona_ws_agent_call", default=None)


class RunOnce(AgentMiddleware[Any, Any, Any]):
    """Middleware that passes the id of the running tool call to a `WorkspaceBackend`.

    Deep Agents itself does not pass the id. With the id, approvers can match a request to the model's call. A command
    or change that a graph repeats after a crash of its process does not run again, if its sandbox still exists: its
    recorded result is returned.
    """

    def wrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]],
    ) -> ToolMessage | Command[Any]:
        """Store the call in a context variable while the tool runs."""
        with _current_call(request.tool_call):
            return handler(request)

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """Store the call as `wrap_tool_call` does."""
        with _current_call(request.tool_call):
            return await handler(request)


@contextmanager
def _current_call(call: ToolCall) -> Iterator[None]:
    token = _tool_call.set(call)
    try:
        yield
    finally:
        _tool_call.reset(token)


def is_in_graph() -> bool:
    try:
        get_config()
    except RuntimeError:
        return False
    return True


def tool_call_id() -> str | None:
    """Return the model's id of the call if `RunOnce` is used, else the id of LangGraph's task; None outside a graph.

    Deep Agents runs each tool call as a separate task. If the task runs again, it has the same id.
    """
    call = _tool_call.get()
    if call is not None:
        return call["id"]
    return str(run_config().get("configurable", {}).get("checkpoint_ns") or "") or None


def idempotency_key(
    tool: str,
    requested: Mapping[str, object],
    operation: Mapping[str, object],
    *,
    namespace: str,
    session_id: str,
) -> str | None:
    """Return a key made from the model's id of the call. An operation that is sent with this key runs at most once.

    Return None without `RunOnce`. Also return None if the model's call did not request the operation: another tool
    requested it, or Deep Agents stores a long result. These may repeat an operation on purpose, so it must run again.

    Args:
        tool: Name of Deep Agents' tool for the operation.
        requested: Arguments that the model's call has if it requested this operation.
        operation: The operation to run.
        namespace: Name of the workspace.
        session_id: Id of the session. If the graph has no thread, call ids are unique only within a session.
    """
    call = _tool_call.get()
    if call is None or call["id"] is None or call["name"] != tool:
        return None
    if any(call["args"].get(name) != value for name, value in requested.items()):
        return None
    arguments = {"tool": tool, **operation}
    return call_key(run_config(), call["id"], arguments, namespace=namespace, session_id=session_id)


def run_config() -> Mapping[str, Any]:
    return get_config() if is_in_graph() else {}
