"""The backend's commands and file changes. If a call needs approval, the approver is asked first."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any, TypeVar

from deepagents.backends.protocol import (
    DeleteResult,
    EditResult,
    ExecuteResponse,
    FileUploadResponse,
    WriteResult,
)

from langchain_daytona_ws._core.commands.run import CommandResult, check_command, shown_output
from langchain_daytona_ws._core.files.operations import FileOperations
from langchain_daytona_ws._deepagents import calls
from langchain_daytona_ws._deepagents.approval import (
    OUTSIDE_TOOL,
    CommandCall,
    DeleteCall,
    EditCall,
    WriteCall,
    command_request,
    file_request,
    upload_arguments,
)
from langchain_daytona_ws._deepagents.locations import FileLocation
from langchain_daytona_ws._deepagents.messages import error_text, file_error, transfer_error
from langchain_daytona_ws._deepagents.session import AnsweredInstead, CallSession
from langchain_daytona_ws._session.runtime import COMMAND_TIMEOUT_MAX_S
from langchain_daytona_ws.errors import (
    FileError,
    FileUnsuitable,
    OutcomeUnknown,
    PathRefused,
    WorkspaceError,
    WriteConflict,
)
from langchain_daytona_ws.permissions import PermissionRequest

T = TypeVar("T", WriteCall, EditCall, DeleteCall)

NOT_RUN = 126
"""Exit code of a command that did not run (POSIX shells: command not executable)."""

# Only the sandbox can resolve symbolic links. This script therefore compares the inode of "$target" with the inodes of
# the working directory and its parents.
_REMOVE_TREE = """\
directory=$(pwd -P)
while ! [ "$target" -ef "$directory/" ]; do
    if [ -z "$directory" ]; then
        exec rm -rf -- "$target"
    fi
    directory=${directory%/*}
done
echo "it is the workspace directory or one of its parents"
exit 1
"""


def remove_tree_command(path: str) -> str:
    """Return a shell command that deletes a directory tree, but never its own working directory or a parent of it."""
    return f"target={shlex.quote(path)}\n{_REMOVE_TREE}"


class Writer:
    """Execute, write, edit, delete and upload, as coroutines."""

    def __init__(self, session: CallSession) -> None:
        self._session = session

    async def execute(self, command: str, timeout_s: float | None) -> ExecuteResponse:
        arguments: dict[str, object] = {} if timeout_s is None else {"timeout": timeout_s}
        try:
            final, note = CommandCall(command=command, timeout=timeout_s), None
            if self._session.asks_about("bash", "run"):
                check_command(command)  # a command that cannot run needs no approval
                request = command_request(
                    command, arguments, namespace=self._session.namespace, tool_call_id=calls.tool_call_id()
                )
                approval = await self._session.ask(request, CommandCall.model_validate)
                final, note = approval.validated or final, approval.note
            # In Deep Agents 0 means "no limit".
            limit_s = COMMAND_TIMEOUT_MAX_S if final.timeout == 0 else final.timeout
            key = self._key("execute", {"command": command}, final.model_dump())
            result = await self._session.execute(final.command, timeout_s=limit_s, key=key)
        except WorkspaceError as error:
            unknown = isinstance(error, (OutcomeUnknown, AnsweredInstead))
            exit_code = None if unknown else NOT_RUN
            return ExecuteResponse(output=error_text(error), exit_code=exit_code)
        notes = [*([note] if note else []), *result.notices]
        omission = _omission_notes(result)
        output = "".join(f"[{note}]\n" for note in [*notes, *omission]) + shown_output(result.output)
        for remark in [*(f"[{note}]" for note in omission), *result.remarks]:
            output = f"{output.rstrip()}\n{remark}"
        exit_code = None if result.job_id else result.exit_code
        return ExecuteResponse(output=output, exit_code=exit_code, truncated=result.truncated)

    async def write(self, path: str, content: str) -> WriteResult:
        try:
            location, ops = self._session.location_and_operations(path)
            final = WriteCall(action="write", path=location.name, content=content)
            if not location.is_artifact:
                arguments = {"path": location.name, "content": content}
                final = await self._approved("write", arguments, location, final)
                location, ops = self._session.location_and_operations(final.path)
            key = self._key("write_file", {"content": content}, final.model_dump())
            await self._write(location, ops, final.content, key)
        except WorkspaceError as error:
            return WriteResult(error=file_error(path, error))
        return WriteResult(path=location.path)

    async def _write(
        self, location: FileLocation, ops: FileOperations, content: str, key: str | None
    ) -> None:
        if not (location.is_artifact or calls.is_in_graph()):
            await ops.create(location.path, content)
            return
        try:
            await ops.write(location.path, content, key=key)
        except WriteConflict as error:
            # With Deep Agents, a model may write a file that it has not read. A write is still refused if the file has
            # changed since it was read.
            if error.code != "exists_unread":
                raise
            await ops.write(location.path, content, overwrite=True, key=_subkey(key, "o"))

    async def edit(self, path: str, old: str, new: str, replace_all: bool) -> EditResult:
        try:
            location, ops = self._session.location_and_operations(path)
            arguments: dict[str, Any] = {"path": location.name, "old_string": old, "new_string": new}
            if replace_all:
                arguments["replace_all"] = True
            final = EditCall(action="edit", **arguments)
            if not location.is_artifact:
                final = await self._approved("edit", arguments, location, final)
                location, ops = self._session.location_and_operations(final.path)
            key = self._key("edit_file", {"old_string": old, "new_string": new}, final.model_dump())
            count = await ops.replace_text(
                location.path, final.old_string, final.new_string, replace_all=final.replace_all, key=key
            )
        except WorkspaceError as error:
            return EditResult(error=file_error(path, error))
        return EditResult(path=location.path, occurrences=count)

    async def delete(self, path: str) -> DeleteResult:
        try:
            location, ops = self._session.location_and_operations(path)
            self._check_deletable(location)
            arguments: dict[str, Any] = {"path": location.name, "recursive": True}
            final = await self._approved(
                "delete", arguments, location, DeleteCall(action="delete", **arguments)
            )
            location, ops = self._session.location_and_operations(final.path)
            self._check_deletable(location)
            key = self._key("delete", {}, final.model_dump())
            try:
                await ops.delete(location.path, key=key)
            except FileUnsuitable as error:
                if error.code != "not_empty" or not final.recursive:
                    raise
                await self._remove_tree(location, key)
        except WorkspaceError as error:
            return DeleteResult(error=file_error(path, error))
        return DeleteResult(path=location.path)

    def _check_deletable(self, location: FileLocation) -> None:
        if location.path == "/" or f"{self._session.root}/".startswith(f"{location.path}/"):
            raise PathRefused(
                "The workspace directory and its parents can't be deleted.",
                code="is_root",
                op="delete",
            )

    async def _remove_tree(self, location: FileLocation, key: str | None) -> None:
        # The command runs in the workspace directory: if the mount is lost, it fails instead of finding no files.
        command = remove_tree_command(location.path)
        result = await self._session.execute_quietly(command, key=_subkey(key, "r"))
        if result.exit_code != 0:
            reason = "it timed out." if result.timed_out else result.output.strip()[:1000]
            raise FileError(
                f"The deletion failed, and may have deleted a part: {reason}",
                code="delete_failed",
                op="delete",
                context={"exit_code": result.exit_code, "timed_out": result.timed_out},
            )

    async def upload(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        answers = [FileUploadResponse(path=path) for path, _ in files]
        allowed: dict[FileOperations, list[tuple[FileUploadResponse, str, bytes]]] = {}
        for answer, (path, data) in zip(answers, files, strict=True):
            if not path.startswith("/"):
                answer.error = "invalid_path"
                continue
            try:
                location, ops = await self._approved_upload(path, data)
            except WorkspaceError as error:
                answer.error = transfer_error(error)
            else:
                allowed.setdefault(ops, []).append((answer, location.path, data))
        for ops, uploads in allowed.items():
            errors = await ops.overwrite_many([(path, data) for _, path, data in uploads])
            for (answer, _, _), failure in zip(uploads, errors, strict=True):
                answer.error = transfer_error(failure) if failure else None
        return answers

    async def _approved_upload(self, path: str, data: bytes) -> tuple[FileLocation, FileOperations]:
        """Ask for approval of an upload; return its location, and the operations for it."""
        location, ops = self._session.location_and_operations(path)
        if not location.is_artifact and self._session.asks_about(_tool_for(location), "write"):
            arguments = {"path": location.name, "overwrite": True, **upload_arguments(data)}
            # No tool of Deep Agents uploads. With None, edited arguments are refused: an approver can't edit bytes.
            request = replace(self._request("write", arguments, location), called=None)
            await self._session.ask(request, None)
        return location, ops

    async def _approved(self, action: str, arguments: dict[str, Any], location: FileLocation, call: T) -> T:
        if not self._session.asks_about(_tool_for(location), action):
            return call
        request = self._request(action, arguments, location)
        validated: T | None = (await self._session.ask(request, type(call).model_validate)).validated
        return call if validated is None else validated

    def _request(self, action: str, arguments: dict[str, Any], location: FileLocation) -> PermissionRequest:
        return file_request(
            action,
            arguments,
            path=location.path,
            is_outside=location.is_outside,
            namespace=self._session.namespace,
            tool_call_id=calls.tool_call_id(),
        )

    def _key(self, tool: str, requested: dict[str, object], operation: dict[str, object]) -> str | None:
        return calls.idempotency_key(
            tool, requested, operation, namespace=self._session.namespace, session_id=self._session.session_id
        )


def _tool_for(location: FileLocation) -> str:
    return OUTSIDE_TOOL if location.is_outside else "workspace_file"


def _omission_notes(result: CommandResult) -> list[str]:
    """Return a note on omitted output, for the start and the end of the result.

    Deep Agents stores a long result in a file, and shows only its start and end. Without the note, the model would
    search that file for the omitted middle.
    """
    if not result.truncated:
        return []
    hint = f": search {result.log_path} for it" if result.log_path else ""
    return [f"The output has {result.output_bytes:,} bytes, and its middle is left out here{hint}"]


def _subkey(key: str | None, suffix: str) -> str | None:
    """Return an idempotency key for a second operation of a call."""
    return f"{key}{suffix}" if key else None
