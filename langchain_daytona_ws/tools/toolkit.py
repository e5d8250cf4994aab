"""All tools of a session at once."""

from __future__ import annotations

from langchain_core.tools import BaseTool, BaseToolkit
from pydantic import ConfigDict

from langchain_daytona_ws.session import WorkspaceSession
from langchain_daytona_ws.tools.bash import BashTool
from langchain_daytona_ws.tools.files import WorkspaceFileTool
from langchain_daytona_ws.tools.jobs import BashJobTool
from langchain_daytona_ws.tools.streaming import OnChunk


class WorkspaceToolkit(BaseToolkit):
    """Make the tools of a `WorkspaceSession`.

    Args:
        session: What they share.
        on_output: Of the `BashTool`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    session: WorkspaceSession
    on_output: OnChunk | None = None

    def get_tools(self) -> list[BaseTool]:
        """Return a `BashTool`, a `WorkspaceFileTool` and a `BashJobTool`."""
        bash = BashTool(session=self.session, on_output=self.on_output)
        return [bash, *(tool(session=self.session) for tool in (WorkspaceFileTool, BashJobTool))]
