"""Fixtures for sessions, used through the sync or the async methods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from langchain_daytona_ws import BashTool, CommandResult, WorkspaceFileTool, WorkspaceSession
from langchain_daytona_ws.local import LocalDaytona


def config_for(server: LocalDaytona, **settings: Any) -> dict[str, Any]:
    """Return a configuration for the local server; default mode: bypass."""
    options = {"apiKey": server.api_key, "apiUrl": server.api_url, **settings.pop("options", {})}
    return {"permissionMode": "bypass", **settings, "options": options}


class Driven:
    """A session, used through its sync or its async methods."""

    def __init__(self, session: WorkspaceSession, runner: asyncio.Runner | None) -> None:
        self.session = session
        self.bash = BashTool(session=session)
        self.file = WorkspaceFileTool(session=session)
        self.runner = runner

    @property
    def is_async(self) -> bool:
        return self.runner is not None

    def run(self, command: str, **arguments: Any) -> CommandResult:
        if self.runner:
            return self.runner.run(self.session.arun(command, **arguments))
        return self.session.run(command, **arguments)

    def files(self, name: str, *arguments: Any, **named: Any) -> Any:
        if self.runner:
            return self.runner.run(getattr(self.session.files, f"a{name}")(*arguments, **named))
        return getattr(self.session.files, name)(*arguments, **named)

    def invoke(self, tool: Any, *arguments: Any, **named: Any) -> Any:
        if self.runner:
            return self.runner.run(tool.ainvoke(*arguments, **named))
        return tool.invoke(*arguments, **named)

    def call(self, tool: Any, tool_call_id: str = "call_1", thread: str | None = None, **args: Any) -> Any:
        """Call a tool as an agent does, and return the tool message."""
        config = {"configurable": {"thread_id": thread}} if thread else {}
        request = {"type": "tool_call", "id": tool_call_id, "name": tool.name, "args": args}
        return self.invoke(tool, request, config)

    def close(self, **arguments: Any) -> None:
        if self.runner:
            self.runner.run(self.session.aclose(**arguments))
        else:
            self.session.close(**arguments)


@pytest.fixture(params=["sync", "async"])
def open_session(request: pytest.FixtureRequest) -> Iterator[Callable[..., Driven]]:
    """Create sessions of one runtime; close them at the end."""
    made: list[Driven] = []
    runner = asyncio.Runner() if request.param == "async" else None

    def make(
        server: LocalDaytona, *, namespace: str = "demo", approver: Any = None, **settings: Any
    ) -> Driven:
        extra = (
            {"approval_timeout_s": settings.pop("approval_timeout_s")}
            if "approval_timeout_s" in settings
            else {}
        )
        session = WorkspaceSession(
            config_for(server, **settings), namespace=namespace, approver=approver, **extra
        )
        made.append(Driven(session, runner))
        return made[-1]

    yield make
    for driven in made:
        driven.close()
    if runner:
        runner.close()


@pytest.fixture
def workspace(server: LocalDaytona, open_session: Callable[..., Driven]) -> Driven:
    return open_session(server)
