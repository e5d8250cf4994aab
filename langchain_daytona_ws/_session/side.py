"""One of the two faces, sync or async: the same coroutines over its own ports, which are made when first used."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_daytona_ws._core.call_errors import LOST_WHILE_RUNNING, unknown
from langchain_daytona_ws._core.calls import Caller
from langchain_daytona_ws._core.contents import ContentOps
from langchain_daytona_ws._core.guidance import LOCAL_CACHES
from langchain_daytona_ws._core.hooks import Hooks
from langchain_daytona_ws._core.job_watch import JobWatch
from langchain_daytona_ws._core.jobs import JobOps
from langchain_daytona_ws._core.ports import SandboxInfo, SandboxPort
from langchain_daytona_ws._core.sending import Answer
from langchain_daytona_ws._core.sources import Clock, Ids
from langchain_daytona_ws._guest.place import UPLOADS
from langchain_daytona_ws._session.machine import Handle
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import OutcomeUnknown

if TYPE_CHECKING:
    from langchain_daytona_ws._session.storage import Access

FILE_CALL_TIMEOUT_S = 30.0
SHOWN_NAME_CHARS = 100
_CHANGES = {"write", "edit", "delete"}

_once: ContextVar[str | None] = ContextVar("langchain_daytona_ws_once", default=None)


@contextmanager
def named_once(name: str | None) -> Iterator[None]:
    """Name the one change of a file inside, as ``once`` names a command: sent again, it is not made again."""
    token = _once.set(name)
    try:
        yield
    finally:
        _once.reset(token)


class Side:
    """Commands and file operations over one kind of port.

    Args:
        port: Gives the API; importing what it needs takes a second, so it is asked only when a sandbox is needed.
        machine: Whose sandbox to use.
        config: For envVars, asked with each call, and the output limit.
        root: The workspace directory.
        seen: What the session has read of its files, shared by both sides.
        s3: The way to a workspace on S3; None for one on the sandbox's own disk.
        hooks: What is run before the first call to a sandbox.
        watch: What the session knows of its jobs, shared by both sides.
        ids: Names the calls and what they upload.
        clock: The session's time.
    """

    def __init__(
        self,
        port: Callable[[], Awaitable[SandboxPort]],
        machine: Handle,
        config: SandboxConfig,
        *,
        root: str,
        seen: dict[str, str],
        s3: Access | None,
        hooks: Hooks,
        watch: JobWatch,
        ids: Ids,
        clock: Clock,
    ) -> None:
        self._port = port
        self._machine = machine
        self._config = config
        self._hooks = hooks
        self._watch = watch
        self._ids = ids
        self._clock = clock
        self._root = root
        self._seen = seen
        self._mounting = s3.mounting if s3 else None
        self._objects = s3.objects if s3 else None
        self._s3 = s3
        self._ops = partial(ContentOps, staging_dir=UPLOADS, ids=ids)
        self.files = self.contents(limit_bytes=config.output_limit_bytes, points_out=True)
        self.jobs = JobOps(
            self.caller,
            watch,
            root=root,
            limit_bytes=config.output_limit_bytes,
            defaults=LOCAL_CACHES if s3 else None,
            remarks=lambda job: self.job_remarks(job.command, job.ends_at - job.started_at),
            advise=self.advice,
        )

    def advice(self, command: str, output: str, exit_code: int) -> str | None:
        """Return the hint for a command that failed as commands do in an S3 workspace; None for any other."""
        if self._s3 is None:
            return None
        # What only a workspace on S3 needs is not imported without one.
        from langchain_daytona_ws._core.hints import hint

        return hint(command, output, exit_code, root=self._root)

    def job_remarks(self, command: str, within_s: float) -> tuple[str, ...]:
        """Return what the model should know of a job that may take so long from now on."""
        said = () if self._config.persistent else ("it ends with this session",)
        return (*said, *self._output_at_risk(command), *self.end_of_writing(within_s))

    def _output_at_risk(self, command: str) -> tuple[str, ...]:
        """Warn of output that goes to a file of an S3 workspace, which nobody may open before it is closed."""
        if self._mounting is None:
            return ()
        from langchain_daytona_ws._core.hints import written_here

        name = written_here(command, self._root)
        if name is None:
            return ()
        shown = name if name.isprintable() and len(name) <= SHOWN_NAME_CHARS else "a file of the workspace"
        return (
            f"its output goes to {shown}: if anything opens that file before the job has closed it, the rest is lost. "
            "Leave the output to the job's log, or write it under /tmp and cp it at the end",
        )

    def end_of_writing(self, within_s: float = math.inf) -> tuple[str, ...]:
        """Say until when what runs on may write to S3, if not for so long: only a later call renews its credentials."""
        mounting, until = self._mounting, self._clock.time() + within_s
        if mounting is None or mounting.expires_at is None or mounting.expires_at >= until:
            return ()
        return (
            f"what it writes to the workspace begins to fail at {mounting.ends_at}, unless another call comes before",
        )

    async def caller(self) -> Caller:
        """Return the way to the sandbox's guest programs. Nothing is provisioned yet."""
        port = await self._port()
        shared = (port, self._machine, self._config.plain_env_vars, self._ids, self._mounting)
        if not self._hooks:
            return Caller(*shared, watch=self._watch)

        async def run_hooks() -> None:
            info = await self._machine.acquire()
            only = Caller(port, _Only(self._machine, info), *shared[2:])
            try:
                await self._hooks.run(only, info.id)
            except OutcomeUnknown as error:
                if error.code != LOST_WHILE_RUNNING or (await self._machine.acquire()).id == info.id:
                    raise
                # What was half-done is gone with the machine; the new one begins from the start.

        async def set_up(_: SandboxInfo) -> None:
            await self._machine.set_up(run_hooks)

        return Caller(*shared, watch=self._watch, set_up=set_up)

    def command_ended(self) -> None:
        """Record that a command has ended, of which S3 may lack an empty file for a moment."""
        if self._s3 is not None:
            self._s3.late.command_ended()

    def contents(self, *, limit_bytes: int, points_out: bool = False) -> ContentOps:
        """Give the operations on the workspace's files.

        Args:
            limit_bytes: Most bytes of text in a result.
            points_out: Whether to name paths that are like a missing one.
        """
        given: dict[str, Any] = {"root": self._root, "limit_bytes": limit_bytes, "seen": self._seen}
        given["points_out"] = points_out
        if self._objects is not None:
            return self._ops(self._direct, None, None, **given)
        return self._ops(self._guest, self._upload, self._download, **given)

    def contents_beyond(self, *, limit_bytes: int, seen: dict[str, str], made: Collection[str]) -> ContentOps:
        """Give the operations on all of the sandbox's files, by their absolute paths.

        Args:
            limit_bytes: Most bytes of text in a result.
            seen: Where to remember what was read.
            made: Directories that are made, with sudo if need be, before something is written there.
        """

        async def guest(entry: str, request: Answer) -> Answer:
            # Entered is the workspace, as by every call: a mount below it must be there, too.
            path = f"/{request['path']}"
            making = [one for one in made if request["op"] == "write" and path.startswith(f"{one}/")]
            return await self._guest(entry, {**request, "root": self._root, "base": "/", "made": making})

        return self._ops(
            guest,
            self._upload,
            self._download,
            root="/",
            limit_bytes=limit_bytes,
            seen=seen,
            points_out=False,
        )

    async def _guest(self, entry: str, request: Answer) -> Answer:
        """Carry out a file request in the sandbox, which what only looks at what is there does not make."""
        if request.get("log") and not self._machine.may_exist():
            return {"ok": False, "error": "missing"}
        if request["op"] == "exists" and not self._machine.is_there():
            return {"ok": True, "found": []}
        return await (await self.caller()).call(entry, self._named(request), timeout_s=FILE_CALL_TIMEOUT_S)

    async def _direct(self, entry: str, request: Answer) -> Answer:
        """Carry out a file request on S3, but for the searches that only the sandbox's tools can do."""
        # Here already, with the files on S3; a session without them does without importing it.
        from langchain_daytona_ws._core.objects.search import BeyondBounds

        assert self._objects is not None  # noqa: S101 - this is its only user
        assert self._s3 is not None  # noqa: S101 - as above
        self._machine.check_open()
        if request.get("log"):
            return await self._guest(entry, request)
        late_s = self._s3.late.left_s()
        if late_s:
            await self._s3.sleep(late_s)
        request = self._named(request)
        try:
            return await self._objects(entry, request)
        except BeyondBounds:
            return await self._guest(entry, request)

    def _named(self, request: Answer) -> Answer:
        # What only reads may be sent again as it is; a change must not be made twice.
        if request["op"] not in _CHANGES or "key" in request:
            return request
        return {**request, "key": _once.get() or self._ids()}

    async def _upload(self, path: str, data: bytes) -> None:
        await (await self.caller()).upload(path, data)

    async def _download(self, path: str, limit_bytes: int) -> bytes:
        return await (await self.caller()).download(path, limit_bytes=limit_bytes)


class _Only:
    """The session's machine as long as it is this one: that of the hooks, done once in each."""

    def __init__(self, machine: Handle, info: SandboxInfo) -> None:
        self._machine = machine
        self._info = info
        self.lost = machine.lost
        self.failed = machine.failed
        self.starts = machine.starts
        self.restarted = machine.restarted
        self.is_persistent = machine.is_persistent

    async def acquire(self) -> SandboxInfo:
        found = await self._machine.acquire()
        if found.id != self._info.id:
            raise unknown("The machine that it was for is gone.", code=LOST_WHILE_RUNNING)
        return found
