"""What is known of the call that the backend is carrying out: who makes it, and under which id."""

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

from langchain_daytona_ws._core.commands import call_key

_tool_call: ContextVar[ToolCall | None] = ContextVar("langchain_daytona_ws_agent_call", default=None)


class RunOnce(AgentMiddleware[Any, Any, Any]):
    """Let a `WorkspaceBackend` know which tool call it is carrying out.

    Deep Agents does not tell a backend the id of the model's call. With this among the agent's middleware, an
    approver gets it, and a call that a graph makes again, because its process died in the midst of it, finds what
    was recorded and runs nothing again.
    """

    def wrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]],
    ) -> ToolMessage | Command[Any]:
        """Note the call while the tool runs."""
        with _noted(request.tool_call):
            return handler(request)

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """Note the call as `wrap_tool_call` does."""
        with _noted(request.tool_call):
            return await handler(request)


@contextmanager
def _noted(call: ToolCall) -> Iterator[None]:
    token = _tool_call.set(call)
    try:
        yield
    finally:
        _tool_call.reset(token)


def is_made_by_an_agent() -> bool:
    """Say whether a graph is running around this call."""
    try:
        get_config()
    except RuntimeError:
        return False
    return True


def tool_call_id() -> str | None:
    """Return the model's id of the call where `RunOnce` tells it, or else that of LangGraph's task.

    Deep Agents runs each tool call as a task of its own, and one that runs again has its id again.
    """
    call = _tool_call.get()
    if call is not None:
        return call["id"]
    return str(_config().get("configurable", {}).get("checkpoint_ns") or "") or None


def once(
    tool: str, given: Mapping[str, object], done: Mapping[str, object], *, namespace: str, session_id: str
) -> str | None:
    """Name what is about to be done after the model's own id, so that it is done once.

    Only what that call itself asks for has its name: a tool of another's making, or Deep Agents putting a long result
    aside, may well do the same thing twice.

    Args:
        tool: The name of Deep Agents' tool that does this.
        given: Arguments that the call must have, as the backend got them.
        done: What is done.
        namespace: The workspace's.
        session_id: Where ids are unique, if the graph has no thread.
    """
    call = _tool_call.get()
    if call is None or not call["id"] or call["name"] != tool:
        return None
    if any(call["args"].get(name) != value for name, value in given.items()):
        return None
    arguments = {"tool": tool, **done}
    return call_key(_config(), call["id"], arguments, namespace=namespace, session_id=session_id)


def _config() -> Mapping[str, Any]:
    return get_config() if is_made_by_an_agent() else {}
