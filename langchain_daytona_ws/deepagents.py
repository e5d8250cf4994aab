"""The workspace as a backend of Deep Agents. Needs the extra ``deepagents``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# First: it says what to install where Deep Agents is missing.
import langchain_daytona_ws._deepagents  # noqa: F401  # isort: skip

from deepagents.backends.protocol import (
    DeleteResult,
    EditResult,
    ExecuteResponse,
    FileDownloadResponse,
    FileUploadResponse,
    GlobResult,
    GrepResult,
    LsResult,
    ReadResult,
    SandboxBackendProtocol,
    WriteResult,
)

from langchain_daytona_ws._approval.verdict import Answered, Approval
from langchain_daytona_ws._core.commands import CommandResult, run_command
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._deepagents.calls import RunOnce
from langchain_daytona_ws._deepagents.changing import Changing
from langchain_daytona_ws._deepagents.places import aside
from langchain_daytona_ws._deepagents.reading import Files, Reading
from langchain_daytona_ws._session.side import Side
from langchain_daytona_ws.permissions import PermissionRequest
from langchain_daytona_ws.session import WorkspaceSession

OUTPUT_BYTES = 1 << 20
"""Of a command's output, in bytes: Deep Agents itself puts aside what is too long for the model."""

RESULT_BYTES = 1 << 20
SAID_BYTES = 16 << 10  # of what deletes a tree, where it fails

_Validate = Callable[[Mapping[str, object]], Any]


class WorkspaceBackend(SandboxBackendProtocol):
    """Give a Deep Agent the workspace of a `WorkspaceSession`: its files, its commands, its permissions.

    ``create_deep_agent(backend=WorkspaceBackend(session))``. Nothing is provisioned until it is needed. Closing is the
    session's; several agents may share one.

    Paths are real absolute paths of the sandbox; relative ones are taken from the workspace directory, ``root``. Tell
    the model so, with ``guidance()`` in its system prompt. Files of the workspace go the way of ``session.files``, so
    those on S3 need no sandbox, and a change of somebody else's is not lost. All others are on the sandbox's own disk:
    there Deep Agents keeps what it puts aside, in ``/large_tool_results``, ``/conversation_history`` and ``/blobs``,
    which are made when first needed, with sudo if that takes it.

    Before a command, a write, an edit, a deletion or an upload the session's approver is asked, as by the tools;
    nobody is asked for what Deep Agents puts aside. Changes outside of the workspace are asked about as the tool
    ``sandbox_file``, also in mode ``edit``. What was denied or failed is a result for the model; a graph's interrupt
    and cancellation pass through.

    Called by an agent's tools, it does as Deep Agents describes them to the model: ``write`` replaces a file, unless it
    has changed since this session read it, and ``glob`` gives absolute paths of files. Called by your program, outside
    of any graph, it does as LangChain's standard tests for sandboxes want it: ``write`` replaces nothing, and ``glob``
    gives files and directories, by their paths from the directory searched.

    Deep Agents does not tell a backend the id of the model's call. Where a graph may run a tool again because its
    process died, give the agent ``middleware=[backend.run_once]``, too: then nothing runs twice, and an approver gets
    the model's id. Without it, an approver gets the id of LangGraph's task.

    Args:
        session: Whose workspace.
        artifacts_root: Where Deep Agents puts things aside, if that was changed with `CompositeBackend`: the same as is
            given to that.

    Raises:
        ConfigError: ``artifacts_root`` is no absolute path.
    """

    def __init__(self, session: WorkspaceSession, *, artifacts_root: str = "/") -> None:
        self._aside = aside(artifacts_root)
        self.session = session
        self.root = session.root
        self.run_once = RunOnce()
        gate, beyond = session.gate, dict[str, str]()

        async def ask(request: PermissionRequest, validate: _Validate | None) -> Approval[Any] | Answered:
            return gate.check(request, validate)

        self._reading, self._changing = self._face(session._sync, ask, beyond)
        self._areading, self._achanging = self._face(session._async, gate.acheck, beyond)

    def _face(self, side: Side, ask: Any, beyond: dict[str, str]) -> tuple[Reading, Changing]:
        session = self.session
        files = Files(
            session.root,
            side.contents(limit_bytes=RESULT_BYTES),
            side.contents_beyond(limit_bytes=RESULT_BYTES, seen=beyond, made=self._aside),
            aside=self._aside,
        )

        async def run(command: str, *, timeout_s: float | None, once: str | None) -> CommandResult:
            return await session._commands.run(side, command, timeout_s, once, None, limit_bytes=OUTPUT_BYTES)

        async def tidy(command: str, *, once: str | None) -> CommandResult:
            caller, timeout_s = await side.caller(), session.config.timeout_s
            return await run_command(
                caller, self.root, command, timeout_s=timeout_s, limit_bytes=SAID_BYTES, key=once
            )

        names = {"namespace": session.namespace, "session_id": session.id}
        return Reading(files), Changing(files, run, tidy, ask, **names)

    @property
    def id(self) -> str:
        """Id of the session; that of its sandbox, once there is one, is ``session.sandbox_id``."""
        return self.session.id

    def guidance(self) -> str:
        """Return what a Deep Agent's system prompt should say of this workspace."""
        return self.session._guidance(deep_agent_in=self.root)

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a bash command in the workspace directory.

        Args:
            command: Given to bash as it is.
            timeout: Seconds until it is killed, at most 600, which is also what 0 means. Default: the
                configuration's ``timeout``.

        Returns:
            Its output, up to 1 MiB, and exit code: 126 when it was not run, None when nobody knows.
        """
        return drive(self._changing.execute(command, timeout))

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a command as `execute` does. Cancelling this call kills it."""
        return await self._achanging.execute(command, timeout)

    def ls(self, path: str) -> LsResult:
        """List a directory of at most 5000 entries, with their absolute paths."""
        return drive(self._reading.ls(path))

    async def als(self, path: str) -> LsResult:
        """List as `ls` does."""
        return await self._areading.ls(path)

    def read(self, file_path: str, offset: int = 0, limit: int = 2000) -> ReadResult:
        """Read lines of a text file of at most 32 MiB, or a binary file of at most 500 KiB as base64.

        Args:
            file_path: The file.
            offset: The first line, from 0.
            limit: How many lines; fewer when they have over 500 KiB.
        """
        return drive(self._reading.read(file_path, offset, limit))

    async def aread(self, file_path: str, offset: int = 0, limit: int = 2000) -> ReadResult:
        """Read as `read` does."""
        return await self._areading.read(file_path, offset, limit)

    def write(self, file_path: str, content: str) -> WriteResult:
        """Write a whole file, and the directories above it; whether it may exist, see the class."""
        return drive(self._changing.write(file_path, content))

    async def awrite(self, file_path: str, content: str) -> WriteResult:
        """Write as `write` does."""
        return await self._achanging.write(file_path, content)

    def edit(self, file_path: str, old_string: str, new_string: str, replace_all: bool = False) -> EditResult:
        """Replace a string that occurs once, or everywhere with ``replace_all``, in the file's own line ends."""
        return drive(self._changing.edit(file_path, old_string, new_string, replace_all))

    async def aedit(
        self, file_path: str, old_string: str, new_string: str, replace_all: bool = False
    ) -> EditResult:
        """Edit as `edit` does."""
        return await self._achanging.edit(file_path, old_string, new_string, replace_all)

    def delete(self, file_path: str) -> DeleteResult:
        """Delete a file, a symbolic link itself, or a directory with all that is in it."""
        return drive(self._changing.delete(file_path))

    async def adelete(self, file_path: str) -> DeleteResult:
        """Delete as `delete` does."""
        return await self._achanging.delete(file_path)

    def grep(
        self, pattern: str, path: str | None = None, glob: str | None = None, *, max_count: int | None = None
    ) -> GrepResult:
        """Search for a literal text; ``.git``, ``node_modules`` and the like only where they are named.

        Args:
            pattern: The text, in one line.
            path: File or directory to search. Default: the workspace.
            glob: Only these files: without ``/`` by their names, otherwise from the directory searched.
            max_count: Most matches, of 4999 at most. Of a long line 500 characters are given.
        """
        return drive(self._reading.grep(pattern, path, glob, max_count))

    async def agrep(
        self, pattern: str, path: str | None = None, glob: str | None = None, *, max_count: int | None = None
    ) -> GrepResult:
        """Search as `grep` does."""
        return await self._areading.grep(pattern, path, glob, max_count)

    def glob(self, pattern: str, path: str | None = None) -> GlobResult:
        """Find files by name, newest first; the form of their paths, see the class.

        Args:
            pattern: Without ``/`` it matches names at any depth, otherwise paths from the directory searched. Hidden
                names must be spelled out.
            path: Directory to search. Default: the workspace.
        """
        return drive(self._reading.glob(pattern, path))

    async def aglob(self, pattern: str, path: str | None = None) -> GlobResult:
        """Find as `glob` does."""
        return await self._areading.glob(pattern, path)

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files, replacing what is there; each by itself."""
        return drive(self._changing.upload(files))

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files as `upload_files` does."""
        return await self._achanging.upload(files)

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Get whole files of at most 128 MiB; each by itself."""
        return drive(self._reading.download(paths))

    async def adownload_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Get files as `download_files` does."""
        return await self._areading.download(paths)
