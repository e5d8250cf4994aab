"""All tools of a session at once."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from langchain_core.tools import BaseTool, BaseToolkit
from pydantic import ConfigDict, Field, model_validator

from langchain_daytona_ws._lazy import LazyModule
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.pool import WorkspacePool, source_of
from langchain_daytona_ws.session import WorkspaceSession
from langchain_daytona_ws.tools.bash import BashTool, OnChunk
from langchain_daytona_ws.tools.files import WorkspaceFileTool
from langchain_daytona_ws.tools.jobs import BashJobTool

# Imported on first use: few programs use this tool.
if TYPE_CHECKING:
    from langchain_daytona_ws.tools import preview as preview_tool
else:
    preview_tool = LazyModule("langchain_daytona_ws.tools.preview")


class WorkspaceToolkit(BaseToolkit):
    """Make the tools of a `WorkspaceSession`, or of a `WorkspacePool` that has a session for each run.

    Used as a context manager (sync or async), the toolkit closes the session or the pool at the end of the block.

    Args:
        session: The session that the tools share. Omit it with a pool.
        pool: The pool that has the session of each run. Omit it with a session.
        on_output: Callback for the output of running commands, see `BashTool`.
        previews: If true, `get_tools` includes a `PreviewTool`. Default: False.
        media: The kinds of files that ``workspace_file`` shows to the model; or the chat model itself, which determines
            these kinds. See `WorkspaceFileTool`. Default: False.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    # None with a pool. Its type lacks None, so that programs that pass a session need no check for it.
    session: WorkspaceSession = Field(default=None)  # type: ignore[assignment]
    pool: WorkspacePool | None = None
    on_output: OnChunk | None = None
    previews: bool = False
    media: Any = False

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        source_of(self.session, self.pool)
        return self

    @property
    def _source_argument(self) -> dict[str, Any]:
        return {"session": self.session} if self.pool is None else {"pool": self.pool}

    @classmethod
    def from_config(
        cls,
        config: SandboxConfig | dict[str, Any],
        *,
        namespace: str,
        on_output: OnChunk | None = None,
        previews: bool = False,
        media: Any = False,
        **arguments: Any,
    ) -> Self:
        """Create a session and return its toolkit. Use it in a ``with`` block, which closes the session at its end.

        Args:
            config: A `SandboxConfig`, or its JSON as a dict.
            namespace: Name of the workspace.
            on_output: Callback for the output of running commands, see `BashTool`.
            previews: If true, `get_tools` includes a `PreviewTool`. Default: False.
            media: The kinds of files to show to the model; or the chat model itself, see `WorkspaceFileTool`.
                Default: False.
            arguments: Further arguments of `WorkspaceSession`, such as ``approver``.

        Raises:
            ConfigError, ValueError: As `WorkspaceSession` raises.
        """
        session = WorkspaceSession(config, namespace=namespace, **arguments)
        return cls(session=session, on_output=on_output, previews=previews, media=media)

    @property
    def bash(self) -> BashTool:
        """A new `BashTool` of the session or pool."""
        return BashTool(**self._source_argument, on_output=self.on_output)

    @property
    def files(self) -> WorkspaceFileTool:
        """A new `WorkspaceFileTool` of the session or pool."""
        return WorkspaceFileTool(**self._source_argument, media=self.media)

    @property
    def jobs(self) -> BashJobTool:
        """A new `BashJobTool` of the session or pool."""
        return BashJobTool(**self._source_argument)

    @property
    def preview(self) -> preview_tool.PreviewTool:
        """A new `PreviewTool` of the session or pool."""
        return preview_tool.PreviewTool(**self._source_argument)

    def get_tools(self) -> list[BaseTool]:
        """Return a `BashTool`, a `WorkspaceFileTool`, a `BashJobTool` and, with ``previews``, a `PreviewTool`."""
        return [self.bash, self.files, self.jobs, *([self.preview] if self.previews else [])]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        source_of(self.session, self.pool).__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await source_of(self.session, self.pool).__aexit__(kind, error, trace)
