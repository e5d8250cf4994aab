"""What the tools share: the session, the model's call id, and errors as messages to the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from pydantic import ConfigDict, Field

from langchain_daytona_ws._approval.control_flow import is_control_flow
from langchain_daytona_ws._core.commands.run import call_key
from langchain_daytona_ws.errors import WorkspaceError
from langchain_daytona_ws.session import WorkspaceSession
from langchain_daytona_ws.tools.arguments import ERROR_LIMIT, explain
from langchain_daytona_ws.tools.concurrent_calls import ConcurrentCall, begin_current

# Not an injected argument: those make a tool refuse every call that is not a full ToolCall.
_tool_call_id: ContextVar[str | None] = ContextVar("langchain_daytona_ws_tool_call_id", default=None)


class WorkspaceTool(BaseTool):
    """A tool over a `WorkspaceSession`.

    Whatever goes wrong is told to the model as a tool message of status ``error``; only what steers the program
    (a graph's interrupt, cancellation, Ctrl-C) is raised.
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
        sibling = ConcurrentCall(kwargs.get("config"))
        try:
            with _remembered(tool_call_id):
                return await super().arun(*args, tool_call_id=tool_call_id, **kwargs)
        except Exception as error:
            if is_control_flow(error):
                await sibling.others()
            raise
        finally:
            sibling.end()

    def _begin(self, config: RunnableConfig | None, arguments: dict[str, object]) -> str | None:
        """Begin what was approved, and name it: a graph node that runs again runs nothing again."""
        begin_current()
        call_id = _tool_call_id.get()
        if not call_id:
            return None
        session = self.session
        return call_key(config, call_id, arguments, namespace=session.namespace, session_id=session.id)


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
    """Turn this package's errors into tool messages; the error itself is the cause, for whoever traces."""
    try:
        yield
    except WorkspaceError as error:
        raise ToolException(f"[{error.code}] {error.for_model}"[:ERROR_LIMIT]) from error
