"""The ``workspace_file`` tool."""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from langchain_daytona_ws._core.files import rendering
from langchain_daytona_ws._core.limits import GLOB_LIMIT, GREP_LIMIT, LIST_LIMIT
from langchain_daytona_ws._core.paths import shown, shown_name
from langchain_daytona_ws._guest.media import MIME_TYPES, PDF
from langchain_daytona_ws._guest.text import PAGE_LINES
from langchain_daytona_ws.errors import FileUnsuitable
from langchain_daytona_ws.permissions import PermissionRequest, json_text
from langchain_daytona_ws.tools.arguments import Problem, ToolInput, by_foreign_name
from langchain_daytona_ws.tools.base import CallContext, ToolResult, WorkspaceTool

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from langchain_daytona_ws._core.files.media import Media
    from langchain_daytona_ws._core.files.models import FileContent
    from langchain_daytona_ws._core.files.operations import FileOperations

DESCRIPTION = """\
Work with the files of the workspace. Paths are relative to it.
- read: path, offset, limit. Numbered lines; text only.
- write: path, content. Makes directories. A file that exists must be read first, or overwrite be true.
- edit: path, old_string (copied exactly, without line numbers; must be unique, or replace_all), new_string.
- list: path. glob: pattern such as **/*.py, newest first.
- grep: pattern (regular expression), path, glob, output_mode, context, ignore_case.
- delete: path of a file or an empty directory."""

MediaKind: TypeAlias = Literal["image", "pdf"]
MEDIA_KINDS: frozenset[MediaKind] = frozenset({"image", "pdf"})
# Keys of a model's profile in langchain-core.
_PROFILE_KEYS: dict[MediaKind, str] = {"image": "image_tool_message", "pdf": "pdf_tool_message"}
_MEDIA_NAMES: Mapping[MediaKind, str] = {"image": "images", "pdf": "PDFs"}

Action = Literal["read", "write", "edit", "list", "glob", "grep", "delete"]

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "read": ("path",),
    "write": ("path", "content"),
    "edit": ("path", "old_string", "new_string"),
    "glob": ("pattern",),
    "grep": ("pattern",),
    "delete": ("path",),
}


class FileInput(ToolInput):
    """Arguments of the ``workspace_file`` tool."""

    action: Action
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
    output_mode: Literal["files_with_matches", "content", "count"] = "files_with_matches"
    context: int = Field(default=0, ge=0, le=100, description="grep content: lines around each match.")
    ignore_case: bool = False

    operation_argument: ClassVar[str] = "action"
    may_be_empty: ClassVar[frozenset[str]] = frozenset({"content", "old_string", "new_string"})
    ignored_if_true: ClassVar[frozenset[str]] = frozenset(
        {"n", "linenumbers", "showlinenumbers", "createdirs", "parents"}
    )
    foreign_values: ClassVar[Mapping[str, str]] = by_foreign_name(
        {
            "read": "view open cat show read_file view_file get",
            "write": "create save put new write_file create_file",
            "edit": "str_replace replace update modify patch insert edit_file multi_edit search_replace",
            "list": "ls dir tree list_directory list_dir list_files",
            "glob": "find find_files file_search glob_file_search",
            "grep": "search rg ripgrep search_files grep_search search_file_content",
            "delete": "remove rm unlink delete_file",
        }
    )
    foreign_names: ClassVar[Mapping[str, str]] = by_foreign_name(
        {
            "action": "command operation op",
            "path": (
                "file_path filename file file_name target_file absolute_path notebook_path directory dir_path "
                "folder relative_workspace_path search_path target_directory SearchDirectory DirectoryPath uri "
                "cwd"
            ),
            "content": "file_text contents text data body code_content new_content file_content",
            "old_string": "old_str old old_text old_content oldText search find target_content original",
            "new_string": "new_str new new_text newText replace replacement replacement_content",
            "overwrite": "force allow_overwrite",
            "replace_all": "expected_replacements expected_occurrences allow_multiple count replace_all_occurrences",
            "offset and limit": "view_range line_range range lines",
            "offset": "start_line start_line_one_indexed line_start StartLine line from_line",
            "limit": (
                "end_line end_line_one_indexed_inclusive end_line_one_indexed line_end EndLine max_results "
                "head_limit max_count head max_lines num_lines MaxResults"
            ),
            "pattern": "query regex expression search_term glob_pattern file_pattern",
            "glob": "include include_pattern includes file_glob type file_type file_extension extensions",
            "context": "A B C after before context_lines before_context after_context",
            "ignore_case": "i case_insensitive insensitive",
            "use ignore_case, for the contrary": "case_sensitive",
            "output_mode": "mode",
            "use edit, with the line before as old_string": "insert_line insert_text insert_after",
            "use edit, one call for each replacement": "edits code_edit diff patch",
            "use glob to name the files to search": "exclude exclude_pattern ignore ignore_patterns",
            "lines are numbered anyway": "n line_numbers show_line_numbers",
            "use glob with **/*": "recursive depth max_depth",
            "a pattern matches within one line": "multiline dotall",
            "write makes directories itself": "create_dirs create_directories make_dirs parents",
            "a whole file is read without it": "should_read_entire_file read_entire_file full",
            "use edit to add to a file": "append mode_append",
            "leave it out": (
                "pages encoding description explanation instructions instruction reason thought toolSummary "
                "toolAction security_risk requires_approval no_ignore respect_git_ignore"
            ),
        }
    )

    @field_validator("content", mode="before")
    @classmethod
    def _is_text(cls, content: object, info: ValidationInfo) -> object:
        """Convert an object to JSON text for a .json file: some model servers parse a string that contains JSON."""
        if not isinstance(content, (dict, list)):
            return content
        if str(info.data.get("path") or "").lower().endswith(".json"):
            return json_text(content)
        raise PydanticCustomError(
            "argument",
            "the text of the file, as one string; only for a path that ends in .json also an object",
        )

    @classmethod
    def problems(cls, operation: str, values: Mapping[str, Any]) -> Iterable[Problem]:
        for name in _NEEDED.get(operation, ()):
            if values.get(name) is None:
                yield name, f"{operation} needs it"


class WorkspaceFileTool(WorkspaceTool, defer_build=False):
    """The tool ``workspace_file``: a model reads, writes, edits, lists, finds, searches and deletes workspace files.

    The artifact is the operation's result as a dict. With ``media``, ``read`` returns an image (PNG, JPEG, GIF, WebP)
    or a PDF document as a line of text and LangChain's standard content block. The artifact then describes the file
    without its content. The file may have at most 3,750,000 bytes and 8,000 pixels a side. Its kind is detected from
    the content, not from the name. If an image or PDF document is not shown, the error for the model states its kind.
    If the model's provider does not accept the content block, the run ends with an error.

    Args:
        session: The session that has the files and asks for approval. Omit it with a pool.
        pool: The `WorkspacePool` that has the session of each run. Omit it with a session.
        media: The kinds of files to show to the model: True for all kinds (``"image"`` and ``"pdf"``), a list of kinds,
            or the chat model itself. The profile of a chat model lists the kinds that it accepts in tool messages.
            Default: False.
    """

    name: str = "workspace_file"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = FileInput
    _tool: ClassVar[str] = "workspace_file"
    _input: ClassVar[type[ToolInput]] = FileInput
    media: Any = Field(default=False, exclude=True)

    @field_validator("media")
    @classmethod
    def _read_media(cls, media: Any) -> frozenset[MediaKind]:
        return accepted_kinds(media)

    @model_validator(mode="after")
    def _describe_media(self) -> Self:
        if self.media and self.description == DESCRIPTION:
            names = " and ".join(_MEDIA_NAMES[kind] for kind in sorted(self.media))
            self.description = DESCRIPTION.replace("text only.", f"text; {names} are shown.")
        return self

    def _action_and_arguments(self, wanted: FileInput) -> tuple[str, dict[str, object]]:
        return wanted.action, wanted.model_dump(exclude_defaults=True, exclude_none=True)

    def _request(self, call: CallContext, action: str, arguments: dict[str, object]) -> PermissionRequest:
        return PermissionRequest.for_file(
            action, arguments, namespace=call.session.namespace, tool_call_id=call.tool_call_id
        )

    async def _refuse_early(self, call: CallContext, wanted: FileInput) -> None:
        edit = (wanted.old_string or "", wanted.new_string or "") if wanted.action == "edit" else None
        files = call.runtime.file_operations(call.conversation)
        await files.check_change(wanted.path or "", is_file=wanted.action == "write", edit=edit)

    async def _perform(self, call: CallContext, wanted: FileInput) -> ToolResult:
        files, key = call.runtime.file_operations(call.conversation), call.idempotency_key
        # `FileInput` has checked that the arguments of the action are present.
        path, content = wanted.path or "", wanted.content or ""
        old, new, pattern = wanted.old_string or "", wanted.new_string or "", wanted.pattern or ""
        match wanted.action:
            case "read":
                return await self._read(files, path, wanted)
            case "write":
                written = await files.write(path, content, overwrite=wanted.overwrite, key=key)
                return _result(rendering.written(written), written)
            case "edit":
                edited = await files.edit(path, old, new, replace_all=wanted.replace_all, key=key)
                return _result(rendering.edited(edited), edited)
            case "list":
                listing = await files.list(path or ".", limit=wanted.limit or LIST_LIMIT)
                return _result(rendering.listing(listing), listing)
            case "glob":
                globbed = await files.glob(pattern, path=path or ".", limit=wanted.limit or GLOB_LIMIT)
                return _result(rendering.globbed(globbed), globbed)
            case "grep":
                found = await files.grep(
                    pattern,
                    path=path or ".",
                    glob=wanted.glob,
                    output_mode=wanted.output_mode,
                    before=wanted.context,
                    after=wanted.context,
                    ignore_case=wanted.ignore_case,
                    limit=wanted.limit or GREP_LIMIT,
                )
                return _result(rendering.grepped(found), found)
            case "delete":
                deleted = await files.delete(path, key=key)
                return _result(rendering.deleted(deleted), deleted)

    async def _read(self, files: FileOperations, path: str, wanted: FileInput) -> ToolResult:
        """Read a text file, or show an image or PDF document, which `FileOperations.read` refuses."""
        try:
            page = await files.read(path, offset=wanted.offset, limit=wanted.limit or PAGE_LINES)
        except FileUnsuitable as refusal:
            if not _is_accepted(refusal.context.get("what"), self.media):
                raise
            media, content = await files.media(path, refusal)
            if not _is_accepted(media.kind, self.media):  # the file has changed meanwhile
                raise
            return ToolResult(content_blocks(media, content), _sendable(_media_artifact(media, content)))
        return _result(rendering.file_text(page), page)


def _result(content: str, record: DataclassInstance) -> ToolResult:
    return ToolResult(content, _sendable(asdict(record)))


def _sendable(value: Any) -> Any:
    """Replace each string that is not UTF-8, which JSON cannot contain, by its form for the model."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        if isinstance(value, dict):
            return {name: _sendable(part) for name, part in value.items()}
        return tuple(map(_sendable, value)) if isinstance(value, tuple) else shown(value)
    return value


def accepted_kinds(media: Any) -> frozenset[MediaKind]:
    """Return the kinds of files that a model accepts in a tool message.

    Args:
        media: True for all kinds, False for no kind, a list of kinds, or the chat model, whose profile lists the kinds.

    Raises:
        ValueError: ``media`` has another type, or a kind is unknown.
    """
    if isinstance(media, bool):
        return MEDIA_KINDS if media else frozenset()
    if isinstance(media, Collection) and not isinstance(media, str):
        if unknown := [kind for kind in media if kind not in MEDIA_KINDS]:
            raise ValueError(f"media has {unknown[0]!r}; the kinds are 'image' and 'pdf'")
        return frozenset(media)
    while hasattr(media, "bound"):  # a model with bound arguments
        media = media.bound
    if isinstance(media, str) or not hasattr(media, "invoke"):
        raise ValueError("media must be True, False, a list of 'image' and 'pdf', or the chat model itself")
    profile = getattr(media, "profile", None) or {}  # early releases of langchain-core have no profiles
    return frozenset(kind for kind, key in _PROFILE_KEYS.items() if profile.get(key))


def _is_accepted(kind: object, kinds: Collection[MediaKind]) -> bool:
    """Return whether a model accepts a kind of file such as a ``PNG image``."""
    return kind in MIME_TYPES and ("pdf" if kind == PDF else "image") in kinds


def content_blocks(media: Media, content: FileContent) -> list[dict[str, Any]]:
    """Return LangChain's standard content blocks: a description, and the file."""
    pixels = f", {media.width}x{media.height} pixels" if media.width is not None else ""
    description = f"{shown(content.path)}: {media.kind}{pixels}, {len(content.data):,} bytes."
    block: dict[str, Any] = {
        "type": "image" if media.is_image else "file",
        "base64": base64.b64encode(content.data).decode("ascii"),
        "mime_type": media.mime_type,
    }
    if not media.is_image:
        block["extras"] = {"filename": shown_name(posixpath.basename(content.path))}  # OpenAI needs a name
    return [{"type": "text", "text": description}, block]


def _media_artifact(media: Media, content: FileContent) -> dict[str, Any]:
    return {
        "path": content.path,
        "kind": media.kind,
        "mime_type": media.mime_type,
        "width": media.width,
        "height": media.height,
        "size_bytes": len(content.data),
        "sha256": content.sha256,
    }
