"""All tools of a session at once."""

from __future__ import annotations

from langchain_core.tools import BaseTool, BaseToolkit
from pydantic import ConfigDict

from langchain_daytona_ws.session import WorkspaceSession
from langchain_daytona_ws.tools.bash import BashTool
from langchain_daytona_ws.tools.files import WorkspaceFileTool
from langchain_daytona_ws.tools.jobs import BashJobTool


class WorkspaceToolkit(BaseToolkit):
    """Make the tools of a `WorkspaceSession`.

    Args:
        session: What they share.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    session: WorkspaceSession

    def get_tools(self) -> list[BaseTool]:
        """Return a `BashTool`, a `WorkspaceFileTool` and a `BashJobTool`."""
        tools = (BashTool, WorkspaceFileTool, BashJobTool)
        return [tool(session=self.session) for tool in tools]
