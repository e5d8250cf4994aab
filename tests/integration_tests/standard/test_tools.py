"""LangChain's own standard suites for tools, over the local server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from langchain_daytona_ws import BashJobTool, BashTool, WorkspaceFileTool, WorkspaceSession
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for


class _OverTheLocalServer:
    @pytest.fixture(autouse=True)
    def _session(self, server: LocalDaytona) -> Iterator[None]:
        with WorkspaceSession(config_for(server), namespace="standard") as session:
            self.session = session
            yield

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"session": self.session}


class _Bash(_OverTheLocalServer):
    @property
    def tool_constructor(self) -> type[BashTool]:
        return BashTool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"command": "echo ok", "timeout": 10}


class _Files(_OverTheLocalServer):
    @property
    def tool_constructor(self) -> type[WorkspaceFileTool]:
        return WorkspaceFileTool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"action": "write", "path": "a/b.txt", "content": "ok\n"}


class _Jobs(_OverTheLocalServer):
    @property
    def tool_constructor(self) -> type[BashJobTool]:
        return BashJobTool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"action": "list"}


class TestBashUnit(_Bash, ToolsUnitTests):
    """Schema and construction."""


class TestBashIntegration(_Bash, ToolsIntegrationTests):
    """Invocation, sync and async."""


class TestWorkspaceFileUnit(_Files, ToolsUnitTests):
    """Schema and construction."""


class TestWorkspaceFileIntegration(_Files, ToolsIntegrationTests):
    """Invocation, sync and async."""


class TestBashJobUnit(_Jobs, ToolsUnitTests):
    """Schema and construction."""


class TestBashJobIntegration(_Jobs, ToolsIntegrationTests):
    """Invocation, sync and async."""
