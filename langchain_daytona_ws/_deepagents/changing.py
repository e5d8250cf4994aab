"""What the backend changes: commands and files. The session's approver is asked before."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from deepagents.backends.protocol import (
    DeleteResult,
    EditResult,
    ExecuteResponse,
    FileUploadResponse,
    WriteResult,
)

from langchain_daytona_ws._core import render
from langchain_daytona_ws._core.commands import CommandResult
from langchain_daytona_ws._core.contents import ContentOps
from langchain_daytona_ws._core.script import check_command
from langchain_daytona_ws._deepagents import calls
from langchain_daytona_ws._deepagents.approval import (
    AnsweredInstead,
    Ask,
    CommandCall,
    DeleteCall,
    EditCall,
    WriteCall,
    about_command,
    about_file,
    allowed,
    described,
)
from langchain_daytona_ws._deepagents.places import Place
from langchain_daytona_ws._deepagents.reading import Files
from langchain_daytona_ws._deepagents.words import file_error, said, transfer_error
from langchain_daytona_ws._session.commands import COMMAND_TIMEOUT_MAX_S
from langchain_daytona_ws._session.side import named_once
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
"""Exit code of a command that was not run, as shells have it."""


class Run(Protocol):
    """Run a command in the session."""

    def __call__(
        self, command: str, *, timeout_s: float | None, once: str | None
    ) -> Awaitable[CommandResult]: ...


class Tidy(Protocol):
    """Run a command that is this package's own, and killed when its time is up.

    What the next result should tell the model is left to that.
    """

    def __call__(self, command: str, *, once: str | None) -> Awaitable[CommandResult]: ...


class Changing:
    """Execute, write, edit, delete and upload, as coroutines.

    Args:
        files: Of one face.
        run: Runs a command.
        tidy: Runs what deletes a tree.
        ask: Asks before.
        namespace: The workspace's.
        session_id: Where the ids of calls are unique, if the graph has no thread.
    """

    def __init__(
        self, files: Files, run: Run, tidy: Tidy, ask: Ask, *, namespace: str, session_id: str
    ) -> None:
        self._files = files
        self._run = run
        self._tidy = tidy
        self._ask = ask
        self._namespace = namespace
        self._session_id = session_id

    async def execute(self, command: str, timeout_s: float | None) -> ExecuteResponse:
        given: dict[str, object] = {} if timeout_s is None else {"timeout": timeout_s}
        try:
            check_command(command)  # what can't run is not worth a question
            request = about_command(
                command, given, namespace=self._namespace, tool_call_id=calls.tool_call_id()
            )
            approval = allowed(await self._ask(request, CommandCall.model_validate))
            final = approval.validated or CommandCall(command=command, timeout=timeout_s)
            # Deep Agents has 0 for "no limit".
            limit_s = COMMAND_TIMEOUT_MAX_S if final.timeout == 0 else final.timeout
            once = self._once("execute", {"command": command}, final.model_dump())
            result = await self._run(final.command, timeout_s=limit_s, once=once)
        except WorkspaceError as error:
            unknown = isinstance(error, (OutcomeUnknown, AnsweredInstead))
            exit_code = None if unknown else NOT_RUN
            return ExecuteResponse(output=said(error), exit_code=exit_code)
        notes = [*([approval.note] if approval.note else []), *result.notices]
        left_out = _left_out(result)
        output = "".join(f"[{note}]\n" for note in [*notes, *left_out]) + render.output(result.output)
        for remark in [*(f"[{note}]" for note in left_out), *result.remarks]:
            output = f"{output.rstrip()}\n{remark}"
        exit_code = None if result.job_id else result.exit_code
        return ExecuteResponse(output=output, exit_code=exit_code, truncated=result.truncated)

    async def write(self, path: str, content: str) -> WriteResult:
        try:
            place, ops = self._files.at(path)
            final = WriteCall(command="write", path=place.name, content=content)
            if not place.is_aside:
                shown = {"path": place.name, "content": content}
                final = await self._approved("write", shown, place, final)
                place, ops = self._files.at(final.path)
            name = self._once("write_file", {"content": content}, final.model_dump())
            await self._written(place, ops, final.content, name)
        except WorkspaceError as error:
            return WriteResult(error=file_error(path, error))
        return WriteResult(path=place.path)

    async def _written(self, place: Place, ops: ContentOps, content: str, name: str | None) -> None:
        if not (place.is_aside or calls.is_made_by_an_agent()):
            await ops.create(place.path, content)
            return
        try:
            with named_once(name):
                await ops.write(place.path, content)
        except WriteConflict as error:
            # Deep Agents tells the model that it need not read before. What it has read must still be so.
            if error.code != "exists_unread":
                raise
            with _second(name):
                await ops.write(place.path, content, overwrite=True)

    async def edit(self, path: str, old: str, new: str, replace_all: bool) -> EditResult:
        try:
            place, ops = self._files.at(path)
            arguments: dict[str, Any] = {"path": place.name, "old_string": old, "new_string": new}
            if replace_all:
                arguments["replace_all"] = True
            final = EditCall(command="edit", **arguments)
            if not place.is_aside:
                final = await self._approved("edit", arguments, place, final)
                place, ops = self._files.at(final.path)
            name = self._once("edit_file", {"old_string": old, "new_string": new}, final.model_dump())
            with named_once(name):
                count = await ops.replace_text(
                    place.path, final.old_string, final.new_string, replace_all=final.replace_all
                )
        except WorkspaceError as error:
            return EditResult(error=file_error(path, error))
        return EditResult(path=place.path, occurrences=count)

    async def delete(self, path: str) -> DeleteResult:
        try:
            place, ops = self._files.at(path)
            self._check_deletable(place)
            arguments: dict[str, Any] = {"path": place.name, "recursive": True}
            final = await self._approved(
                "delete", arguments, place, DeleteCall(command="delete", **arguments)
            )
            place, ops = self._files.at(final.path)
            self._check_deletable(place)
            name = self._once("delete", {}, final.model_dump())
            try:
                with named_once(name):
                    await ops.delete(place.path)
            except FileUnsuitable as error:
                if error.code != "not_empty" or not final.recursive:
                    raise
                await self._remove_tree(place, name)
        except WorkspaceError as error:
            return DeleteResult(error=file_error(path, error))
        return DeleteResult(path=place.path)

    def _check_deletable(self, place: Place) -> None:
        if place.path == "/" or f"{self._files.root}/".startswith(f"{place.path}/"):
            raise PathRefused(
                "The workspace directory itself can't be deleted, nor what it is in.",
                code="is_root",
                op="delete",
            )

    async def _remove_tree(self, place: Place, name: str | None) -> None:
        # From the workspace directory: a mount that is gone fails the command, and is not taken for an empty tree.
        target = shlex.quote(place.path)
        # Where links lead is known there only.
        command = (
            f'at=$(pwd -P); while ! [ {target} -ef "$at/" ]; do [ "$at" ] || exec rm -rf -- {target}; at=${{at%/*}}; '
            "done; echo it is the workspace itself, or what that is in; exit 1"
        )
        result = await self._tidy(command, once=f"{name}r" if name else None)
        if result.exit_code != 0:
            why = "its time was up." if result.timed_out else result.output.strip()[:1000]
            raise FileError(
                f"The deletion failed in the midst of it: {why}",
                code="delete_failed",
                op="delete",
            )

    async def upload(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return [await self._uploaded(path, data) for path, data in files]

    async def _uploaded(self, path: str, data: bytes) -> FileUploadResponse:
        if not path.startswith("/"):
            return FileUploadResponse(path=path, error="invalid_path")
        try:
            place, ops = self._files.at(path)
            if not place.is_aside:
                shown = {"path": place.name, "overwrite": True, **described(data)}
                # Bytes can't be edited in an answer.
                request = replace(self._request("write", shown, place), called=None)  # no tool does this
                allowed(await self._ask(request, None))
            await ops.write(place.path, data, overwrite=True)
        except WorkspaceError as error:
            return FileUploadResponse(path=path, error=transfer_error(error))
        return FileUploadResponse(path=path)

    async def _approved(self, action: str, shown: dict[str, Any], place: Place, call: T) -> T:
        answer = await self._ask(self._request(action, shown, place), type(call).model_validate)
        validated: T | None = allowed(answer).validated
        return call if validated is None else validated

    def _request(self, action: str, arguments: dict[str, Any], place: Place) -> PermissionRequest:
        return about_file(
            action,
            arguments,
            path=place.path,
            beyond=place.within is None,
            namespace=self._namespace,
            tool_call_id=calls.tool_call_id(),
        )

    def _once(self, tool: str, given: dict[str, object], done: dict[str, object]) -> str | None:
        return calls.once(tool, given, done, namespace=self._namespace, session_id=self._session_id)


def _left_out(result: CommandResult) -> list[str]:
    """Say at both ends where all of a very long output is: of what Deep Agents puts aside it shows only these.

    And it searches what was put aside, where the middle is missing.
    """
    if not result.truncated:
        return []
    where = f": search {result.log_path} for it" if result.log_path else ""
    return [f"The output has {result.output_bytes:,} bytes, and its middle is left out here{where}"]


def _second(name: str | None) -> AbstractContextManager[None]:
    """Name the second change that one call takes."""
    return named_once(f"{name}o" if name else None)
