"""Permission requests of the backend, and the validation of edited calls."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from langchain_daytona_ws._deepagents.locations import FileLocation
from langchain_daytona_ws.permissions import CalledTool, PermissionRequest, argument_text

OUTSIDE_TOOL = "sandbox_file"
"""Tool name in requests to change files outside of the workspace. These changes need approval in mode ``edit`` too."""

# Deep Agents' tool for each action, and the tools' arguments except the path.
_TOOL_NAMES = {"write": "write_file", "edit": "edit_file", "delete": "delete"}
REVIEWED_TOOLS = ("execute", *_TOOL_NAMES.values())
_TOOL_ARGUMENTS = {"content", "old_string", "new_string", "replace_all"}


class _Call(BaseModel):
    """Arguments of a call; the approver may have edited them."""

    model_config = ConfigDict(extra="forbid", strict=True)


class CommandCall(_Call):
    command: str
    timeout: float | None = None  # seconds


class WriteCall(_Call):
    action: str
    path: str
    content: str


class EditCall(_Call):
    action: str
    path: str
    old_string: str
    new_string: str
    replace_all: bool = False


class DeleteCall(_Call):
    action: str
    path: str
    recursive: bool = True


def command_request(
    command: str, arguments: Mapping[str, object], *, namespace: str, tool_call_id: str | None
) -> PermissionRequest:
    request = PermissionRequest.for_bash(
        command, namespace=namespace, tool_call_id=tool_call_id, arguments=arguments
    )
    return replace(request, called=CalledTool(name="execute", arguments=request.arguments))


def file_request(
    action: str,
    arguments: Mapping[str, object],
    *,
    path: str,
    is_outside: bool,
    namespace: str,
    tool_call_id: str | None,
) -> PermissionRequest:
    """Build the request to change a file. ``path`` is absolute; the path in ``arguments`` may be relative."""
    scope = "outside the workspace," if is_outside else "workspace_file"
    below = ", with all below it" if arguments.get("recursive") else ""
    request = PermissionRequest.for_file(
        action,
        {"action": action, **arguments},
        namespace=namespace,
        tool_call_id=tool_call_id,
        label=f"{scope} {action}{below}",
    )
    shown = {name: value for name, value in arguments.items() if name in _TOOL_ARGUMENTS}
    called = CalledTool(
        name=_TOOL_NAMES[action], arguments={"file_path": path, **shown}, names={"file_path": "path"}
    )
    return replace(request, tool=OUTSIDE_TOOL if is_outside else request.tool, called=called)


def call_request(
    call: Mapping[str, Any], locate: Callable[[str], FileLocation], *, namespace: str
) -> tuple[PermissionRequest, FileLocation | None]:
    """Build the request for a call of one of `REVIEWED_TOOLS`, whose arguments are not validated yet.

    Returns:
        The request, and the location of the file; None for a command.

    Raises:
        PathRefused: The path is not valid.
    """
    arguments = dict(call["args"])
    origin: dict[str, Any] = {"namespace": namespace, "tool_call_id": call.get("id")}
    if call["name"] == "execute":
        more = {name: arguments[name] for name in ("timeout",) if arguments.get(name) is not None}
        return command_request(argument_text(arguments.get("command")), more, **origin), None
    path = argument_text(arguments.pop("file_path", ""))
    # Deep Agents' tools read a relative path as a path below "/".
    location = locate(path if path.startswith("/") else f"/{path}")
    action = next(action for action, name in _TOOL_NAMES.items() if name == call["name"])
    own = {name: value for name, value in arguments.items() if name in _TOOL_ARGUMENTS}
    if action == "delete":
        own = {"recursive": True}
    request = file_request(
        action,
        {"path": location.name, **own},
        path=location.path,
        is_outside=location.is_outside,
        **origin,
    )
    return request, location


def upload_arguments(data: bytes) -> dict[str, object]:
    """Return arguments that describe uploaded bytes to an approver: the text, or size and hash of binary data.

    An approval that is remembered for exactly these arguments must not cover other data of the same size.
    """
    try:
        return {"content": data.decode()}
    except UnicodeDecodeError:
        return {
            "content": f"<{len(data):,} bytes of binary data>",
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
