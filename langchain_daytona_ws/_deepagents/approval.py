"""What an approver is asked before the backend changes something, and what may come back edited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from langchain_daytona_ws._approval.verdict import Answered, Approval
from langchain_daytona_ws.errors import WorkspaceError
from langchain_daytona_ws.permissions import CalledTool, PermissionRequest

BEYOND_TOOL = "sandbox_file"
"""The tool that changes of files outside of the workspace are asked about as: in ``edit`` mode, too."""

# Deep Agents' tool for each action, and its arguments beside the path.
_OWN_NAMES = {"write": "write_file", "edit": "edit_file", "delete": "delete"}
_OWN_ARGUMENTS = {"content", "old_string", "new_string", "replace_all"}


class _Call(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CommandCall(_Call):
    """A command as it may come back from an approver; the time-out in seconds."""

    command: str
    timeout: float | None = None


class WriteCall(_Call):
    """A write as it may come back."""

    command: str
    path: str
    content: str


class EditCall(_Call):
    """An edit as it may come back."""

    command: str
    path: str
    old_string: str
    new_string: str
    replace_all: bool = False


class DeleteCall(_Call):
    """A deletion as it may come back."""

    command: str
    path: str
    recursive: bool = True


class Ask(Protocol):
    """Ask the session's gate: blocking, or on a loop."""

    def __call__(
        self, request: PermissionRequest, validate: Callable[[Mapping[str, object]], Any] | None
    ) -> Awaitable[Approval[Any] | Answered]: ...


class AnsweredInstead(WorkspaceError):
    """Somebody answered in place of the tool: the model gets their words, and nothing was done."""

    default_code = "answered"


def allowed(answer: Approval[Any] | Answered) -> Approval[Any]:
    """Return an approval.

    Raises:
        AnsweredInstead: It is none.
    """
    if isinstance(answer, Answered):
        raise AnsweredInstead(answer.text)
    return answer


def about_command(
    command: str, given: Mapping[str, object], *, namespace: str, tool_call_id: str | None
) -> PermissionRequest:
    """Ask about a command."""
    request = PermissionRequest.for_bash(
        command, namespace=namespace, tool_call_id=tool_call_id, arguments=given
    )
    return replace(request, called=CalledTool(name="execute", arguments=request.arguments))


def about_file(
    action: str,
    arguments: Mapping[str, object],
    *,
    path: str,
    beyond: bool,
    namespace: str,
    tool_call_id: str | None,
) -> PermissionRequest:
    """Ask about a change of a file, in the workspace or anywhere else in the sandbox; ``path`` is its absolute one."""
    given = {"command": action, **arguments}
    request = PermissionRequest.for_file(action, given, namespace=namespace, tool_call_id=tool_call_id)
    summary = request.summary
    if arguments.get("recursive"):
        summary = summary.replace(f"{action}: ", f"{action}, with all below it: ", 1)
    if beyond:
        summary = summary.replace("workspace_file", "outside the workspace,", 1)
    tool = BEYOND_TOOL if beyond else request.tool
    own = {name: value for name, value in arguments.items() if name in _OWN_ARGUMENTS}
    called = CalledTool(
        name=_OWN_NAMES[action], arguments={"file_path": path, **own}, names={"file_path": "path"}
    )
    return replace(request, tool=tool, summary=summary, called=called)


def described(data: bytes) -> dict[str, object]:
    """Give what an approver is shown of uploaded bytes."""
    try:
        return {"content": data.decode()}
    except UnicodeDecodeError:
        return {"content": f"<{len(data):,} bytes, which are no text>", "size_bytes": len(data)}
