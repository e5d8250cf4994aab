"""The async runtime's `SandboxPort`, over the SDK's ``AsyncDaytona``: one client for each event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daytona import AsyncDaytona, AsyncSandbox, DaytonaConfig, DaytonaNotFoundError

from langchain_daytona_ws._adapters import transfers
from langchain_daytona_ws._adapters.answers import limit_async_answers
from langchain_daytona_ws._adapters.background import AsyncioTask
from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._adapters.faults import translating
from langchain_daytona_ws._adapters.proxies import check_async_proxy
from langchain_daytona_ws._adapters.sdk import (
    PING_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    Account,
    client_config,
    create_params,
    describe,
    making_a_client,
    tracing_is_wanted,
    version_of,
)
from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws._core.ports import (
    BackgroundTask,
    ExecReply,
    OnBytes,
    SandboxInfo,
    SandboxSpec,
    UploadSource,
)

logger = logging.getLogger("langchain_daytona_ws")


@dataclass(slots=True)
class _Connections:
    """The connections of one event loop: aiohttp's sessions cannot be used from another loop."""

    client: AsyncDaytona
    guard: AsyncGenerator[None]  # closing it releases the client
    sandboxes: dict[str, AsyncSandbox] = field(default_factory=dict)


class AsyncDaytonaPort:
    """A `SandboxPort` that can be used on several event loops."""

    def __init__(self, account: Account, clock: Clock = SYSTEM_CLOCK) -> None:
        self._account = account
        self._clock = clock
        self.now = clock.monotonic
        self._loops: dict[asyncio.AbstractEventLoop, _Connections] = {}
        self._finishing: set[asyncio.Task[Any]] = set()
        self._leaving: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    async def _current(self) -> _Connections:
        """Return the connections of the running loop."""
        loop = asyncio.get_running_loop()
        current = self._loops.get(loop)
        if current is None:
            self._drop_dead_loops()
            current = _Connections(await _join_client(self._account), self._guard())
            if self._loops.setdefault(loop, current) is current:
                await anext(current.guard)
            else:
                # Meanwhile another task has stored connections for this loop: use them.
                await _leave_client(self._account)
                current = self._loops[loop]
        return current

    async def _guard(self) -> AsyncGenerator[None]:
        """Release the shared client when this generator is closed.

        `asyncio.run` closes all generators of its loop at its end. Without this one, each
        ``asyncio.run(session.arun(...))`` would leave its connections open.
        """
        loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            await _leave_client(self._account)

    def _drop_dead_loops(self) -> None:
        """Forget loops that were closed without closing their generators. Garbage collection closes their sockets."""
        for loop in list(self._loops):  # a copy, since other threads add and remove loops
            if loop.is_closed():
                self._loops.pop(loop, None)

    async def _sandbox(self, sandbox_id: str) -> AsyncSandbox:
        current = await self._current()
        sandbox = current.sandboxes.get(sandbox_id)
        if sandbox is None:
            sandbox = await current.client.get(sandbox_id, request_timeout=REQUEST_TIMEOUT_S)
            current.sandboxes[sandbox.id] = sandbox
        return sandbox

    @translating
    async def create(self, spec: SandboxSpec, *, timeout_s: float) -> SandboxInfo:
        current = await self._current()
        sandbox = await current.client.create(create_params(spec), timeout=timeout_s)
        current.sandboxes[sandbox.id] = sandbox
        return describe(sandbox)

    @translating
    async def get(self, id_or_name: str) -> SandboxInfo | None:
        current = await self._current()
        try:
            sandbox = await current.client.get(id_or_name, request_timeout=REQUEST_TIMEOUT_S)
        except DaytonaNotFoundError:
            current.sandboxes.pop(id_or_name, None)
            return None
        current.sandboxes[sandbox.id] = sandbox
        return describe(sandbox)

    @translating
    async def start(self, sandbox_id: str, *, timeout_s: float) -> None:
        await (await self._sandbox(sandbox_id)).start(timeout=timeout_s)

    @translating
    async def stop(self, sandbox_id: str, *, timeout_s: float) -> None:
        await (await self._sandbox(sandbox_id)).stop(timeout=timeout_s)

    @translating
    async def recover(self, sandbox_id: str, *, timeout_s: float) -> None:
        await (await self._sandbox(sandbox_id)).recover(timeout=timeout_s)

    @translating
    async def set_autostop(self, sandbox_id: str, minutes: int) -> None:
        sandbox = await self._sandbox(sandbox_id)
        await sandbox.set_autostop_interval(minutes, request_timeout=REQUEST_TIMEOUT_S)

    @translating
    async def set_autodelete(self, sandbox_id: str, minutes: int) -> None:
        sandbox = await self._sandbox(sandbox_id)
        await sandbox.set_auto_delete_interval(minutes, request_timeout=REQUEST_TIMEOUT_S)

    @translating
    async def preview_url(self, sandbox_id: str, port: int, *, expires_s: int) -> str:
        sandbox = await self._sandbox(sandbox_id)
        link = await sandbox.create_signed_preview_url(port, expires_s, request_timeout=REQUEST_TIMEOUT_S)
        return link.url

    @translating
    async def set_labels(self, sandbox_id: str, labels: Mapping[str, str]) -> None:
        sandbox = await self._sandbox(sandbox_id)
        await sandbox.set_labels(dict(labels), request_timeout=REQUEST_TIMEOUT_S)

    @translating
    async def delete(self, id_or_name: str) -> None:
        current = await self._current()
        try:
            await current.client.delete(await self._sandbox(id_or_name), timeout=REQUEST_TIMEOUT_S)
        except DaytonaNotFoundError:
            return
        finally:
            current.sandboxes.pop(id_or_name, None)

    @translating
    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply:
        process = (await self._sandbox(sandbox_id)).process
        reply = await process.exec(script, env=dict(env), timeout=timeout_s)
        return ExecReply(exit_code=int(reply.exit_code), output=reply.result)

    @translating
    async def ping(self, sandbox_id: str) -> None:
        fs = (await self._sandbox(sandbox_id)).fs
        await fs.get_file_info("/", request_timeout=PING_TIMEOUT_S)

    @translating
    async def upload(
        self, sandbox_id: str, files: Sequence[tuple[str, UploadSource]], on_bytes: OnBytes | None = None
    ) -> list[str]:
        return list(await transfers.aupload((await self._sandbox(sandbox_id)).fs, files, on_bytes))

    @translating
    async def download(
        self,
        sandbox_id: str,
        path: str,
        write: Callable[[bytes], object],
        on_bytes: OnBytes | None = None,
    ) -> None:
        await transfers.adownload((await self._sandbox(sandbox_id)).fs, path, write, on_bytes)

    @translating
    async def version(self, sandbox_id: str, path: str) -> str:
        fs = (await self._sandbox(sandbox_id)).fs
        return version_of(await fs.get_file_info(path, request_timeout=REQUEST_TIMEOUT_S))

    async def sleep(self, seconds: float) -> None:
        await self._clock.asleep(seconds)

    def background(self, work: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> BackgroundTask:
        return AsyncioTask(work)

    async def finish(self, work: Coroutine[Any, Any, object], *, within_s: float) -> bool:
        task = asyncio.ensure_future(work)
        # If the caller is cancelled, this wait ends and the task goes on. The set keeps the task alive, because asyncio
        # does not.
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        try:
            done, _ = await asyncio.wait({task}, timeout=within_s)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise
        if not done:
            task.add_done_callback(_log_failure)
            task.cancel()
            return False
        task.result()
        return True

    async def aclose(self) -> None:
        """Release this loop's client.

        If tasks of `finish` still run, return at once, and release the client when they end. A second call waits for
        these tasks.
        """
        loop = asyncio.get_running_loop()
        if loop in self._leaving:
            await asyncio.shield(self._leaving[loop])
        current = self._loops.get(loop)
        if current is None:
            return
        # `finish` may have left tasks behind, because it was cancelled or its time was over: do not wait for them here.
        if self._unfinished():
            self._leaving[loop] = asyncio.ensure_future(self._leave_when_finished(current))
            self._leaving[loop].add_done_callback(lambda _: self._leaving.pop(loop))
        else:
            await current.guard.aclose()

    async def _leave_when_finished(self, current: _Connections) -> None:
        try:
            while unfinished := self._unfinished():
                await asyncio.wait(unfinished)
        finally:
            await current.guard.aclose()

    def _unfinished(self) -> set[asyncio.Task[Any]]:
        loop = asyncio.get_running_loop()
        return {task for task in list(self._finishing) if task.get_loop() is loop}


def _log_failure(task: asyncio.Task[object]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("clean-up failed after its call was cancelled or timed out: %s", error)


class _Client(AsyncDaytona):
    """The SDK's client, with limits for answers. .env files cannot enable its tracing (see `tracing_is_wanted`)."""

    def __init__(self, config: DaytonaConfig) -> None:
        super().__init__(config)
        for api in (self._api_client, self._toolbox_api_client):
            limit_async_answers(api)

    def _init_otel(self, sdk_version: str) -> None:
        if tracing_is_wanted():
            super()._init_otel(sdk_version)


@dataclass(slots=True)
class _SharedClient:
    making: asyncio.Task[AsyncDaytona]
    users: int = 0


# Each entry is used on its own loop only. Any thread may remove entries of closed loops.
_shared: dict[tuple[asyncio.AbstractEventLoop, Account], _SharedClient] = {}


async def _join_client(account: Account) -> AsyncDaytona:
    """Return the client that all sessions of an account share on this loop. The caller must later call `_leave_client`.

    Each client reads the system's certificates twice: 60 ms and 1.7 MB (measured), too much for hundreds of sessions.
    """
    for key in list(_shared):  # a copy, since other threads add and remove loops
        if key[0].is_closed():
            _shared.pop(key, None)
    key = (asyncio.get_running_loop(), account)
    shared = _shared.get(key)
    if shared is None:
        making = asyncio.create_task(asyncio.to_thread(_new_client, account))  # reads files
        shared = _shared[key] = _SharedClient(making)
    shared.users += 1
    try:
        return await asyncio.shield(shared.making)
    except BaseException:
        await _leave_client(account)
        raise


async def _leave_client(account: Account) -> None:
    """Release this loop's client; the last user closes its connections."""
    key = (asyncio.get_running_loop(), account)
    shared = _shared[key]
    shared.users -= 1
    if shared.users:
        return
    del _shared[key]
    if not shared.making.done():
        shared.making.cancel()
    elif not shared.making.cancelled() and shared.making.exception() is None:
        await shared.making.result().close()  # type: ignore[no-untyped-call]


def _new_client(account: Account) -> AsyncDaytona:
    with making_a_client():
        check_async_proxy(account.api_url)
        client = _Client(client_config(account))
    client._target = account.target
    return client
