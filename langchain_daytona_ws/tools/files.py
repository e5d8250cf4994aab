"""The ``workspace_file`` tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_daytona_ws._approval.verdict import Answered, Approval
from langchain_daytona_ws._core import render
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.file_results import OutputMode
from langchain_daytona_ws._core.files import GLOB_LIMIT, GREP_LIMIT, LIST_LIMIT, FileOps
from langchain_daytona_ws._core.paths import workspace_path
from langchain_daytona_ws._guest.text import PAGE_LINES
from langchain_daytona_ws._session.side import named_once
from langchain_daytona_ws.permissions import PermissionRequest, needs_approval
from langchain_daytona_ws.tools.base import WorkspaceTool, current_tool_call_id, told_to_the_model

DESCRIPTION = """\
Work with the files of the workspace. Paths are relative to it.
- read: path, offset, limit. Numbered lines; text only.
- write: path, content. Makes directories. A file that exists must be read first, or overwrite be true.
- edit: path, old_string (copied exactly, without line numbers; must be unique, or replace_all), new_string.
- list: path. glob: pattern such as **/*.py, newest first.
- grep: pattern (regular expression), path, glob, output_mode, context, ignore_case.
- delete: path of a file or an empty directory."""

Action = Literal["read", "write", "edit", "list", "glob", "grep", "delete"]

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "read": ("path",),
    "write": ("path", "content"),
    "edit": ("path", "old_string", "new_string"),
    "glob": ("pattern",),
    "grep": ("pattern",),
    "delete": ("path",),
}


class FileInput(BaseModel):
    """Arguments of the ``workspace_file`` tool."""

    model_config = ConfigDict(extra="forbid")

    command: Action
    path: str | None = Field(default=None, description="File or directory.")
    content: str | None = Field(default=None, description="write: the whole file.")
    overwrite: bool = Field(default=False, description="write: replace a file that was not read.")
    old_string: str | None = None
    new_string: str | None = None
    replace_all: bool = False
    offset: int = Field(default=1, ge=1, description="read: first line, from 1.")
    limit: int | None = Field(default=None, ge=1, description="Most lines, files or matches.")
    pattern: str | None = None
    glob: str | None = Field(default=None, description="grep: only these files, such as *.py.")
    output_mode: OutputMode = "files_with_matches"
    context: int = Field(default=0, ge=0, le=100, description="grep content: lines around each match.")
    ignore_case: bool = False

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        missing = [name for name in _NEEDED.get(self.command, ()) if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.command} needs {' and '.join(missing)}")
        return self


class WorkspaceFileTool(WorkspaceTool):
    """Let a model read, write, edit, list, find, search and delete files of a `WorkspaceSession`.

    The artifact is the operation's result as a dict.

    Args:
        session: Whose files, and whom to ask.
    """

    name: str = "workspace_file"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = FileInput

    def _run(self, *, config: RunnableConfig, **given: Any) -> tuple[str, dict[str, Any]]:
        wanted = FileInput.model_validate(given)
        with told_to_the_model():
            approval = self.session.gate.check(self._request(wanted), FileInput.model_validate)
            if isinstance(approval, Answered):
                return approval.content_and_artifact
            with named_once(self._begin(config, dict(approval.arguments))):
                return drive(self._perform(self.session.files.sync_ops, wanted, approval))

    async def _arun(self, *, config: RunnableConfig, **given: Any) -> tuple[str, dict[str, Any]]:
        wanted = FileInput.model_validate(given)
        with told_to_the_model():
            approval = await self.session.gate.acheck(self._request(wanted), FileInput.model_validate)
            if isinstance(approval, Answered):
                return approval.content_and_artifact
            with named_once(self._begin(config, dict(approval.arguments))):
                return await self._perform(self.session.files.async_ops, wanted, approval)

    def _request(self, wanted: FileInput) -> PermissionRequest:
        if needs_approval("ask", self.name, wanted.command):
            workspace_path(
                wanted.path or "", self.session.root
            )  # what is refused anyway is not worth a question
        arguments = wanted.model_dump(exclude_defaults=True, exclude_none=True)
        return PermissionRequest.for_file(
            wanted.command,
            arguments,
            namespace=self.session.namespace,
            tool_call_id=current_tool_call_id(),
        )

    async def _perform(
        self, ops: FileOps, wanted: FileInput, approval: Approval[FileInput]
    ) -> tuple[str, dict[str, Any]]:
        text, result = await _operation(ops, approval.validated or wanted)
        notices = [*self.session.take_notices(), *([approval.note] if approval.note else [])]
        return "\n".join([*(f"[{notice}]" for notice in notices), text]), result


async def _operation(ops: FileOps, wanted: FileInput) -> tuple[str, dict[str, Any]]:
    """Carry out one operation; what it needs is there, as the model was validated."""
    path, content = wanted.path or "", wanted.content or ""
    old, new, pattern = wanted.old_string or "", wanted.new_string or "", wanted.pattern or ""
    match wanted.command:
        case "read":
            page = await ops.read(path, offset=wanted.offset, limit=wanted.limit or PAGE_LINES)
            return render.file_text(page), asdict(page)
        case "write":
            written = await ops.write(path, content, overwrite=wanted.overwrite)
            return render.written(written), asdict(written)
        case "edit":
            edited = await ops.edit(path, old, new, replace_all=wanted.replace_all)
            return render.edited(edited), asdict(edited)
        case "list":
            listing = await ops.list(path or ".", limit=wanted.limit or LIST_LIMIT)
            return render.listing(listing), asdict(listing)
        case "glob":
            globbed = await ops.glob(pattern, path=path or ".", limit=wanted.limit or GLOB_LIMIT)
            return render.globbed(globbed), asdict(globbed)
        case "grep":
            found = await ops.grep(
                pattern,
                path=path or ".",
                glob=wanted.glob,
                output_mode=wanted.output_mode,
                before=wanted.context,
                after=wanted.context,
                ignore_case=wanted.ignore_case,
                limit=wanted.limit or GREP_LIMIT,
            )
            return render.grepped(found), asdict(found)
        case "delete":
            deleted = await ops.delete(path)
            return render.deleted(deleted), asdict(deleted)
