"""The sandbox port over ``AsyncDaytona``: one client for each running loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from daytona import AsyncDaytona, AsyncSandbox, DaytonaNotFoundError

from langchain_daytona_ws._adapters.faults import translated
from langchain_daytona_ws._adapters.sdk import (
    REQUEST_TIMEOUT_S,
    UPLOAD_TIMEOUT_S,
    Account,
    client_config,
    create_params,
    describe,
    polling_is_meant,
)
from langchain_daytona_ws._core.ports import ExecReply, SandboxInfo, SandboxSpec

T = TypeVar("T")


@dataclass(slots=True)
class _OnLoop:
    """What belongs to one event loop: aiohttp's sessions cannot be used from another."""

    client: AsyncDaytona
    guard: AsyncGenerator[None]
    sandboxes: dict[str, AsyncSandbox] = field(default_factory=dict)


async def _open_until_the_loop_ends(client: AsyncDaytona) -> AsyncGenerator[None]:
    """Close the client when this generator is closed, which a loop does with all of them before it ends.

    Otherwise each ``asyncio.run(session.arun(...))`` would leave its connections open behind it.
    """
    try:
        yield
    finally:
        await client.close()  # type: ignore[no-untyped-call]


class AsyncDaytonaPort:
    """Answer on whichever loop is running."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OnLoop] = WeakKeyDictionary()
        self._finishing: set[asyncio.Task[Any]] = set()

    async def _here(self) -> _OnLoop:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            with polling_is_meant():
                client = AsyncDaytona(client_config(self._account))
            here = self._loops[loop] = _OnLoop(client, _open_until_the_loop_ends(client))
            await anext(here.guard)
        return here

    async def _sandbox(self, sandbox_id: str) -> AsyncSandbox:
        here = await self._here()
        sandbox = here.sandboxes.get(sandbox_id)
        if sandbox is None:
            sandbox = await here.client.get(sandbox_id, request_timeout=REQUEST_TIMEOUT_S)
            here.sandboxes[sandbox.id] = sandbox
        return sandbox

    async def create(self, spec: SandboxSpec, *, timeout_s: float) -> SandboxInfo:
        here = await self._here()
        with translated():
            sandbox = await here.client.create(create_params(spec), timeout=timeout_s)
            here.sandboxes[sandbox.id] = sandbox
            return describe(sandbox)

    async def get(self, id_or_name: str) -> SandboxInfo | None:
        here = await self._here()
        with translated():
            try:
                sandbox = await here.client.get(id_or_name, request_timeout=REQUEST_TIMEOUT_S)
            except DaytonaNotFoundError:
                here.sandboxes.pop(id_or_name, None)
                return None
            here.sandboxes[sandbox.id] = sandbox
            return describe(sandbox)

    async def start(self, sandbox_id: str, *, timeout_s: float) -> None:
        with translated():
            await (await self._sandbox(sandbox_id)).start(timeout=timeout_s)

    async def delete(self, id_or_name: str) -> None:
        here = await self._here()
        with translated():
            try:
                await here.client.delete(await self._sandbox(id_or_name), timeout=REQUEST_TIMEOUT_S)
            except DaytonaNotFoundError:
                return
            finally:
                here.sandboxes.pop(id_or_name, None)

    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply:
        with translated():
            process = (await self._sandbox(sandbox_id)).process
            reply = await process.exec(script, env=dict(env), timeout=timeout_s)
            return ExecReply(exit_code=int(reply.exit_code), output=reply.result)

    async def upload(self, sandbox_id: str, path: str, data: bytes) -> None:
        with translated():
            await (await self._sandbox(sandbox_id)).fs.upload_file(data, path, timeout=UPLOAD_TIMEOUT_S)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def finish(self, work: Coroutine[Any, Any, T], *, within_s: float) -> T | None:
        task = asyncio.ensure_future(work)
        # Held here since a second cancellation may end our wait, and a task that nobody holds is collected.
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        done, _ = await asyncio.wait({task}, timeout=within_s)
        if not done:
            task.cancel()
            return None
        return task.result()

    async def aclose(self) -> None:
        """Close this loop's client; those of loops that have ended were closed with them."""
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.guard.aclose()
