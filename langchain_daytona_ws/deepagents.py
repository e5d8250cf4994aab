"""`WorkspaceBackend`: the workspace as a backend of Deep Agents. Needs the extra ``deepagents``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

# Imported first: if Deep Agents is not installed, its error names the extra to install.
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

from langchain_daytona_ws._approval.asking import AsyncioRuntime, BlockingRuntime
from langchain_daytona_ws._core.id_factory import random_id
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._deepagents import calls
from langchain_daytona_ws._deepagents.approval import REVIEWED_TOOLS, call_request
from langchain_daytona_ws._deepagents.calls import RunOnce
from langchain_daytona_ws._deepagents.locations import FileLocation, artifact_directories, locate
from langchain_daytona_ws._deepagents.reader import Reader
from langchain_daytona_ws._deepagents.session import CallSession, NoSession
from langchain_daytona_ws._deepagents.writer import Writer
from langchain_daytona_ws.approvers import middleware_approver
from langchain_daytona_ws.errors import PathRefused, WorkspaceError
from langchain_daytona_ws.permissions import PermissionRequest, needs_approval
from langchain_daytona_ws.pool import WorkspacePool, current_namespace, example_of, lease_for, namespace_for
from langchain_daytona_ws.session import WorkspaceSession


class WorkspaceBackend(SandboxBackendProtocol):
    """A Deep Agents backend over the files, commands and permissions of a `WorkspaceSession` or a `WorkspacePool`.

    Use it as ``create_deep_agent(backend=WorkspaceBackend(session))``. Several agents may share a session. The sandbox
    is created when it is first needed. Close the session after use; the backend itself needs no closing.

    Paths are absolute paths in the sandbox; a relative path starts at the workspace directory, ``root``. Add the text
    of ``guidance()`` to the system prompt: it explains the paths to the model. Files in the workspace are accessed as
    through ``session.files``. With ``fileAccess: "s3"``, the default, files on S3 need no sandbox, and concurrent
    changes by other writers are kept. All other files are on the sandbox's own disk. Deep Agents stores long results
    there, in ``/large_tool_results``, ``/conversation_history`` and ``/blobs``. These directories are created when
    first needed, with sudo if necessary.

    The session's approver is asked before a command, write, edit, deletion or upload, as with this package's tools. In
    the three directories above, only a deletion needs approval. A request to change a file outside of the workspace has
    the tool name ``sandbox_file``, and needs approval in mode ``edit`` too. Denials and failures are returned as
    results for the model. A graph's interrupts and cancellation are raised.

    In a graph, ``write`` replaces an existing file, but not a file that has changed since this thread read it, and
    ``glob`` returns absolute paths of files. Deep Agents describes this behaviour to the model. Outside of a graph,
    ``write`` replaces no file, and ``glob`` returns files and directories, relative to the searched directory.
    LangChain's standard tests for sandboxes require this.

    Deep Agents does not pass the id of the model's call to a backend, so an approver gets the id of LangGraph's task.
    With ``middleware=[backend.run_once]`` in the agent, the approver gets the model's id. Then a command or change also
    runs only once if the graph repeats it after a crash of its process.

    Args:
        session: The session of the workspace, or a `WorkspacePool` that has the session of each run. The pool gets a
            run's key from the running graph.
        artifacts_root: Directory in which Deep Agents stores long results. Pass the same value as to
            `CompositeBackend`. Default: ``"/"``.

    Raises:
        ConfigError: ``artifacts_root`` is not an absolute path, or contains ``..``.
    """

    def __init__(self, session: WorkspaceSession | WorkspacePool, *, artifacts_root: str = "/") -> None:
        self._artifacts = artifact_directories(artifacts_root)
        self.session = session
        self._id = random_id()
        self.run_once = RunOnce()

    @property
    def id(self) -> str:
        """Id of the session; with a pool, an id of this backend. The sandbox has another id, ``session.sandbox_id``."""
        return self.session.id if isinstance(self.session, WorkspaceSession) else self._id

    @property
    def root(self) -> str:
        """The workspace directory; with a pool, the workspace directory of the running graph.

        Raises:
            ConfigError: With a pool, outside of a run that has a key.
        """
        return self._root_of(namespace_for(self.session, calls.run_config()))

    def _root_of(self, namespace: str) -> str:
        return f"{example_of(self.session).config.options.workspace_root}/{namespace}"

    def guidance(self) -> str:
        """Return a text about this workspace for the system prompt of a Deep Agent.

        With a pool, the text is the same for all workspaces.
        """
        root = self.root if isinstance(self.session, WorkspaceSession) else ""
        return example_of(self.session)._state.guidance(deep_agent_in=root)

    def interrupt_on(self) -> dict[str, Any]:
        """Return the ``interrupt_on`` mapping of LangChain's ``HumanInTheLoopMiddleware`` for the permission mode.

        Pass the result to ``create_deep_agent(interrupt_on=…)``. Pass ``middleware=[backend.run_once]`` too, because an
        approval applies to the id of a call. The session needs ``approver=MiddlewareApprover()``. In mode ``bypass``
        the result is empty. The middleware also asks about calls for other backends of a `CompositeBackend`.

        Raises:
            ConfigError: The mode is not ``bypass``, and the session's approver is not a `MiddlewareApprover`.
        """
        example = example_of(self.session)
        mode = example.config.permission_mode
        if mode == "bypass":
            return {}

        def request_of(call: Mapping[str, Any]) -> tuple[PermissionRequest, FileLocation | None]:
            namespace = current_namespace(self.session)
            root = self._root_of(namespace)
            return call_request(call, lambda path: locate(path, root, self._artifacts), namespace=namespace)

        def needs(call: Mapping[str, Any]) -> bool:
            try:
                request, location = request_of(call)
            except PathRefused:
                return False  # the tool refuses it
            if location is not None and location.is_artifact and request.action != "delete":
                return False
            return needs_approval(mode, request.tool, request.action)

        approver = middleware_approver(example._gate.approver)
        return approver.reviewing(REVIEWED_TOOLS, needs, lambda call: request_of(call)[0])

    @contextmanager
    def _leased(self) -> Iterator[CallSession]:
        """Lease the session of the running graph for one sync call. If this fails, the call returns the error."""
        run = calls.run_config()
        with ExitStack() as stack:
            try:
                session = stack.enter_context(lease_for(self.session, run))
            except WorkspaceError as error:
                yield NoSession(error)
                return
            yield CallSession(session, session._sync, BlockingRuntime, run, self._artifacts)

    @asynccontextmanager
    async def _aleased(self) -> AsyncIterator[CallSession]:
        run = calls.run_config()
        async with AsyncExitStack() as stack:
            try:
                session = await stack.enter_async_context(lease_for(self.session, run))
            except WorkspaceError as error:
                yield NoSession(error)
                return
            yield CallSession(session, session._async, AsyncioRuntime, run, self._artifacts)

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a bash command in the workspace directory.

        Args:
            command: Passed to bash unchanged.
            timeout: Seconds after which the command is killed or, with ``onTimeout: "background"``, becomes a
                background job; at most 600. 0 means 600. Default: the configuration's ``timeout``.

        Returns:
            The output, up to 1 MiB, and the exit code. 126: the command did not run. None: the command still runs as a
            job, its outcome is unknown, or the approver answered in place of the command.
        """
        with self._leased() as session:
            return run_sync(Writer(session).execute(command, timeout))

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a command as `execute` does. Cancelling this call kills the command."""
        async with self._aleased() as session:
            return await Writer(session).execute(command, timeout)

    def ls(self, path: str) -> LsResult:
        """List a directory with absolute paths; more than 5000 entries, or 1 MiB of names, are an error."""
        with self._leased() as session:
            return run_sync(Reader(session).ls(path))

    async def als(self, path: str) -> LsResult:
        """List as `ls` does."""
        async with self._aleased() as session:
            return await Reader(session).ls(path)

    def read(self, file_path: str, offset: int = 0, limit: int = 2000) -> ReadResult:
        """Read lines of a text file (at most 32 MiB), or a whole binary file (at most 500 KiB) as base64.

        Args:
            file_path: The file.
            offset: Number of lines to skip. Default: 0.
            limit: Maximum number of lines; fewer are returned if they exceed 500 KiB. Default: 2000.
        """
        with self._leased() as session:
            return run_sync(Reader(session).read(file_path, offset, limit))

    async def aread(self, file_path: str, offset: int = 0, limit: int = 2000) -> ReadResult:
        """Read as `read` does."""
        async with self._aleased() as session:
            return await Reader(session).read(file_path, offset, limit)

    def write(self, file_path: str, content: str) -> WriteResult:
        """Write a whole file and create its parent directories. The class describes when a file is replaced."""
        with self._leased() as session:
            return run_sync(Writer(session).write(file_path, content))

    async def awrite(self, file_path: str, content: str) -> WriteResult:
        """Write as `write` does."""
        async with self._aleased() as session:
            return await Writer(session).write(file_path, content)

    def edit(self, file_path: str, old_string: str, new_string: str, replace_all: bool = False) -> EditResult:
        """Replace a string that occurs once, or all occurrences with ``replace_all``; the file's line ends are kept."""
        with self._leased() as session:
            return run_sync(Writer(session).edit(file_path, old_string, new_string, replace_all))

    async def aedit(
        self, file_path: str, old_string: str, new_string: str, replace_all: bool = False
    ) -> EditResult:
        """Edit as `edit` does."""
        async with self._aleased() as session:
            return await Writer(session).edit(file_path, old_string, new_string, replace_all)

    def delete(self, file_path: str) -> DeleteResult:
        """Delete a file, a symbolic link (not its target), or a directory with its contents."""
        with self._leased() as session:
            return run_sync(Writer(session).delete(file_path))

    async def adelete(self, file_path: str) -> DeleteResult:
        """Delete as `delete` does."""
        async with self._aleased() as session:
            return await Writer(session).delete(file_path)

    def grep(
        self, pattern: str, path: str | None = None, glob: str | None = None, *, max_count: int | None = None
    ) -> GrepResult:
        """Search for a literal text. Directories such as ``.git`` are searched only if ``path`` names them.

        Args:
            pattern: The text, in one line.
            path: File or directory to search. Default: the workspace.
            glob: Search only matching files. A glob without ``/`` matches names; a glob with ``/`` matches paths
                relative to the searched directory. Default: all files.
            max_count: Maximum number of matches, at most 4999. Lines are cut to 500 characters. Default: 4999.
        """
        with self._leased() as session:
            return run_sync(Reader(session).grep(pattern, path, glob, max_count))

    async def agrep(
        self, pattern: str, path: str | None = None, glob: str | None = None, *, max_count: int | None = None
    ) -> GrepResult:
        """Search as `grep` does."""
        async with self._aleased() as session:
            return await Reader(session).grep(pattern, path, glob, max_count)

    def glob(self, pattern: str, path: str | None = None) -> GlobResult:
        """Find files by name, newest first. The class describes the paths; outside of a graph, directories come last.

        Args:
            pattern: A glob. Without ``/`` it matches names at any depth; with ``/`` it matches paths relative to the
                searched directory. It matches hidden names only if it contains their dot.
            path: Directory to search. Default: the workspace.
        """
        with self._leased() as session:
            return run_sync(Reader(session).glob(pattern, path))

    async def aglob(self, pattern: str, path: str | None = None) -> GlobResult:
        """Find as `glob` does."""
        async with self._aleased() as session:
            return await Reader(session).glob(pattern, path)

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files, and replace existing files; each file has its own result."""
        with self._leased() as session:
            return run_sync(Writer(session).upload(files))

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files as `upload_files` does."""
        async with self._aleased() as session:
            return await Writer(session).upload(files)

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read whole files of at most 128 MiB; each file has its own result."""
        with self._leased() as session:
            return run_sync(Reader(session).download(paths))

    async def adownload_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files as `download_files` does."""
        async with self._aleased() as session:
            return await Reader(session).download(paths)
