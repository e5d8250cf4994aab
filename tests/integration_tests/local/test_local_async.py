"""The same server through `AsyncDaytona`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest
from daytona import AsyncDaytona, ListSandboxesQuery, SandboxState, SessionExecuteRequest
from daytona.common.errors import (
    DaytonaConflictError,
    DaytonaNotFoundError,
    DaytonaTimeoutError,
)

from langchain_daytona_ws.local import Fault, LocalDaytona

from .conftest import async_client, named


def run(server: LocalDaytona, work: Callable[[AsyncDaytona], Awaitable[None]]) -> None:
    async def main() -> None:
        async with async_client(server) as daytona:
            await work(daytona)

    asyncio.run(main())


def test_the_control_plane(server: LocalDaytona) -> None:
    async def work(daytona: AsyncDaytona) -> None:
        sandbox = await daytona.create(named("one", labels={"a": "b"}, auto_stop_interval=3))
        assert sandbox.state == SandboxState.STARTED
        with pytest.raises(DaytonaConflictError):
            await daytona.create(named("one"))
        assert (await daytona.get("one")).auto_stop_interval == 3
        await sandbox.set_labels({"c": "d"})
        assert [item.id async for item in daytona.list(ListSandboxesQuery(labels={"c": "d"}))] == [sandbox.id]
        await sandbox.set_autostop_interval(4)
        await sandbox.stop()
        assert (await daytona.get("one")).state == SandboxState.STOPPED
        await sandbox.start()
        await daytona.delete(sandbox, wait=True)
        with pytest.raises(DaytonaNotFoundError):
            await daytona.get("one")
        assert {item.name for item in (await daytona.snapshot.list()).items} == {"default", "fuse-s3"}

    run(server, work)


def test_commands_and_files(server: LocalDaytona) -> None:
    async def work(daytona: AsyncDaytona) -> None:
        sandbox = await daytona.create(named("one", env_vars={"A": "1"}))
        response = await sandbox.process.exec("echo $A $B; exit 4", env={"B": "2"}, cwd="/tmp")
        assert (response.exit_code, response.result) == (4, "1 2\n")
        content = os.urandom(1_000_000)
        await sandbox.fs.upload_file(content, "d/ä.bin")
        assert await sandbox.fs.download_file("d/ä.bin") == content
        assert (await sandbox.fs.get_file_info("d/ä.bin")).size == len(content)
        assert [item.name for item in await sandbox.fs.list_files("d")] == ["ä.bin"]
        await sandbox.fs.move_files("d/ä.bin", "e")
        await sandbox.fs.delete_file("e")
        with pytest.raises(DaytonaTimeoutError):
            await sandbox.process.exec("sleep 60", timeout=1)
        await sandbox.process.create_session("s")
        ran = await sandbox.process.execute_session_command("s", SessionExecuteRequest(command="echo hi"))
        assert ran.stdout == "hi\n"
        assert await sandbox.get_work_dir() == "/home/daytona"

    run(server, work)


def test_many_at_once(server: LocalDaytona) -> None:
    async def work(daytona: AsyncDaytona) -> None:
        sandboxes = await asyncio.gather(*(daytona.create(named(f"box-{n}")) for n in range(4)))
        responses = await asyncio.gather(
            *(sandbox.process.exec(f"echo {n}") for n in range(10) for sandbox in sandboxes)
        )
        assert [response.result for response in responses] == [f"{n}\n" for n in range(10) for _ in range(4)]

    run(server, work)


def test_a_create_that_answers_creating_is_polled_for(server: LocalDaytona) -> None:
    async def work(daytona: AsyncDaytona) -> None:
        server.faults.add(Fault("pending", action="create", delay_s=0.3))
        sandbox = await daytona.create()
        assert sandbox.state == SandboxState.STARTED

    run(server, work)
    assert server.count("get") >= 1


def test_a_cancelled_call_continues_in_the_sandbox(server: LocalDaytona) -> None:
    async def work(daytona: AsyncDaytona) -> None:
        sandbox = await daytona.create()
        command = "touch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.05; done; echo finished > /tmp/outcome"
        call = asyncio.ensure_future(sandbox.process.exec(command))
        await sandbox.process.exec("until [ -e /tmp/begun ]; do sleep 0.05; done")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        poll = "touch /tmp/go; until [ -s /tmp/outcome ]; do sleep 0.05; done; cat /tmp/outcome"
        assert (await sandbox.process.exec(poll, timeout=60)).result == "finished\n"

    run(server, work)
