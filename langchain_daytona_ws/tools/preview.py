"""The ``preview_url`` tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import ClassVar

from pydantic import BaseModel, Field

from langchain_daytona_ws._core.sandbox.preview import EXPIRES_MAX_S, EXPIRES_S, PORTS, check_preview
from langchain_daytona_ws.permissions import PermissionRequest
from langchain_daytona_ws.tools.arguments import ToolInput, by_foreign_name
from langchain_daytona_ws.tools.base import CallContext, ToolResult, WorkspaceTool

DESCRIPTION = """\
Get a link that the user can open in a browser, to a web server that you run here.
- First start the server with bash, background: true, on a port from 3000 to 9999.
- Anyone with the link can use the server until it expires."""


class PreviewInput(ToolInput):
    """Arguments of the ``preview_url`` tool."""

    port: int = Field(ge=PORTS[0], le=PORTS[-1])
    expires_s: int | None = Field(
        default=None, ge=1, le=EXPIRES_MAX_S, description=f"Seconds; default {EXPIRES_S}."
    )

    foreign_names: ClassVar[Mapping[str, str]] = by_foreign_name(
        {
            "port": "server_port number port_number",
            "expires_s": "expires expires_in expires_in_seconds ttl duration timeout",
            "leave it out: the link is always to http on this machine": "url host path protocol",
            "leave it out": "description explanation reason",
        }
    )


class PreviewTool(WorkspaceTool, defer_build=False):
    """The tool ``preview_url``: a model makes a link to a web server in the sandbox of a `WorkspaceSession`.

    `WorkspaceToolkit` includes this tool only if ``previews`` is true. The tool needs approval in the modes ``ask`` and
    ``edit``, because it opens a port to anyone with the link. The artifact is the `PreviewUrl` as a dict. The link is
    in content and artifact, and so in the graph's state and traces; it works until it expires.

    Args:
        session: The session whose sandbox runs the server, and which asks for approval. Omit it with a pool.
        pool: The `WorkspacePool` that has the session of each run. Omit it with a session.
    """

    name: str = "preview_url"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = PreviewInput
    _tool: ClassVar[str] = "preview_url"
    _input: ClassVar[type[ToolInput]] = PreviewInput

    def _action_and_arguments(self, wanted: PreviewInput) -> tuple[str, dict[str, object]]:
        return "open", wanted.model_dump(exclude_none=True)

    def _request(self, call: CallContext, action: str, arguments: dict[str, object]) -> PermissionRequest:
        return PermissionRequest.for_preview(
            arguments, namespace=call.session.namespace, tool_call_id=call.tool_call_id
        )

    async def _refuse_early(self, call: CallContext, wanted: PreviewInput) -> None:
        check_preview(wanted.port, wanted.expires_s or EXPIRES_S)

    async def _perform(self, call: CallContext, wanted: PreviewInput) -> ToolResult:
        expires_s = wanted.expires_s or EXPIRES_S
        link = await call.runtime.preview_url(wanted.port, expires_s=expires_s)
        return ToolResult(f"{link.url}\n[port {link.port}, for {expires_s:,} seconds]", asdict(link))
