"""A pool of sessions over the real SDK: leases, limits, closing, release, and the lifespan of a server."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from langchain_daytona_ws import PoolEvent, WorkspacePool, WorkspaceSession, namespace_of
from langchain_daytona_ws.errors import ConfigError, SandboxUnavailable, SessionClosed
from langchain_daytona_ws.local import Fault, LocalDaytona
from tests.integration_tests.conftest import config_for


class Pooled:
    """A pool, used through its sync or its async methods."""

    def __init__(self, pool: WorkspacePool, events: list[PoolEvent], runner: asyncio.Runner | None) -> None:
        self.pool = pool
        self.events = events
        self.runner = runner

    def run(self, key: str, command: str) -> str:
        if self.runner is None:
            with self.pool.session(key) as session:
                return session.run(command).output

        async def work() -> str:
            async with self.pool.session(key) as session:
                return (await session.arun(command)).output

        return self.runner.run(work())

    def release(self, key: str) -> None:
        if self.runner is None:
            self.pool.release(key)
        else:
            self.runner.run(self.pool.arelease(key))

    def close(self) -> None:
        if self.runner is None:
            self.pool.close()
        else:
            self.runner.run(self.pool.aclose())

    def kinds(self) -> list[tuple[str, str]]:
        return [(event.kind, event.key) for event in self.events]


@pytest.fixture(params=["sync", "async"])
def open_pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Pooled] = []
    runner = asyncio.Runner() if request.param == "async" else None

    def make(server: LocalDaytona, *, settings: dict[str, Any] | None = None, **arguments: Any) -> Pooled:
        events: list[PoolEvent] = []
        pool = WorkspacePool(config_for(server, **(settings or {})), on_event=events.append, **arguments)
        made.append(Pooled(pool, events, runner))
        return made[-1]

    yield make
    for pooled in made:
        pooled.close()
    if runner:
        runner.close()


def wait_until(condition: Any) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_each_key_has_a_workspace_of_its_own(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server)
    keys = ["a@b.com", "auth0|1", "auth0/1", "../a", "A", "a"]
    for key in keys:
        assert pooled.run(key, "cat who 2>/dev/null; echo -n mine > who") == ""
    assert [pooled.run(key, "cat who") for key in keys] == ["mine"] * len(keys)
    assert len(server.sandboxes) == len(keys)
    assert {sandbox.labels["namespace"] for sandbox in server.sandboxes} == {
        namespace_of(key) for key in keys
    }
    pooled.close()
    assert server.sandboxes == []
    assert pooled.kinds()[:2] == [("open", "a@b.com"), ("create", "a@b.com")]
    created = pooled.events[1]
    assert created.namespace == namespace_of("a@b.com")
    assert created.duration_s > 0
    assert created.sandbox_id
    closed = [event for event in pooled.events if event.kind == "close"]
    assert {event.key for event in closed} == {*keys}
    assert closed[-1].sessions == 0


def test_opening_needs_no_sandbox(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server)
    with pooled.pool.session("a") as session:
        assert session.sandbox_id is None
    assert server.requests == []
    assert pooled.kinds() == [("open", "a")]


def test_the_least_recently_used_makes_room(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server, max_sessions=2)
    for key in "abac":
        pooled.run(key, "true")
    assert {sandbox.labels["namespace"] for sandbox in server.sandboxes} == {"a", "c"}
    assert ("close", "b") in pooled.kinds()
    assert ("wait", "c") in pooled.kinds()


def test_a_full_pool_refuses(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server, max_sessions=1, wait_s=0.05)
    with pooled.pool.session("a"), pytest.raises(SandboxUnavailable, match="max_sessions") as caught:
        pooled.run("b", "true")
    assert caught.value.code == "pool_full"
    assert caught.value.retryable
    refused = pooled.events[-1]
    assert (refused.kind, refused.key, refused.error) == ("refuse", "b", caught.value)
    assert pooled.run("b", "echo b") == "b\n"


def test_a_caller_waits_for_the_end_of_a_lease(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server, max_sessions=1)
    lease = pooled.pool.session("a")
    with lease as first, ThreadPoolExecutor(1) as workers:
        running = workers.submit(pooled.run, "b", "echo b")
        wait_until(lambda: pooled.pool._sessions._slots._waiting)
        assert first.sandbox_id is None
        lease.__exit__(None, None, None)
        assert running.result(60) == "b\n"
        lease.__enter__()


def test_idle_sessions_are_closed_at_the_next_use(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server, idle_close_s=0)
    pooled.run("a", "true")
    pooled.run("b", "true")
    wait_until(lambda: ("close", "a") in pooled.kinds())
    assert [sandbox.labels["namespace"] for sandbox in server.sandboxes] == ["b"]


def test_a_running_job_keeps_its_session(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server, idle_close_s=0)
    with pooled.pool.session("a") as session:
        job = session.jobs.start("sleep 600", max_duration_s=600)
    pooled.run("b", "true")
    pooled.run("c", "true")
    wait_until(lambda: ("close", "b") in pooled.kinds())
    with pooled.pool.session("a") as session:
        assert session.jobs.status(job.id).is_running
        session.jobs.stop(job.id)
    pooled.run("b", "true")
    wait_until(lambda: ("close", "a") in pooled.kinds())


def test_a_second_opening_waits_for_the_close(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server, max_sessions=2, idle_close_s=0)
    pooled.run("a", "echo 1 > f")
    goes_on = threading.Event()
    server.faults.add(Fault(kind="act_before", action="delete", act=lambda: goes_on.wait(60), times=1))
    pooled.run("b", "true")
    wait_until(lambda: server.open_requests)
    with ThreadPoolExecutor(1) as workers:
        running = workers.submit(pooled.run, "a", "cat f 2>&1")
        wait_until(running.running)
        time.sleep(0.1)
        assert not running.done()
        goes_on.set()
        assert "No such file" in running.result(60)
    assert ("wait", "a") in pooled.kinds()


def test_a_close_that_takes_too_long_is_reported(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server, max_sessions=2, idle_close_s=0, wait_s=0.05)
    pooled.run("a", "true")
    goes_on = threading.Event()
    server.faults.add(Fault(kind="act_before", action="delete", act=lambda: goes_on.wait(60), times=1))
    pooled.run("b", "true")
    with pytest.raises(SandboxUnavailable, match="still being closed") as caught:
        pooled.run("a", "true")
    assert caught.value.code == "pool_closing"
    goes_on.set()


def test_a_failed_close_is_reported_and_repeated(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server)
    pooled.run("a", "true")
    server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
    with pytest.raises(SandboxUnavailable):
        pooled.close()
    assert pooled.events[-1].error is not None
    pooled.close()
    assert server.sandboxes == []


def test_sessions_are_closed_in_parallel(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server)
    for key in "abcd":
        pooled.run(key, "true")
    together = threading.Barrier(4)
    server.faults.add(Fault(kind="act_before", action="delete", act=lambda: together.wait(60), times=4))
    pooled.close()
    assert server.sandboxes == []


def test_release_deletes_a_persistent_sandbox(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server, settings={"persistent": True})
    pooled.run("a", "echo 1 > f")
    pooled.run("b", "true")
    pooled.close()
    assert len(server.sandboxes) == 2
    pooled.pool._sessions.reopen()
    pooled.release("a")  # not opened by this pool since
    assert [sandbox.labels["namespace"] for sandbox in server.sandboxes] == ["b"]
    assert pooled.run("b", "true") == ""
    pooled.release("b")
    assert server.sandboxes == []
    pooled.release("never used")


def test_release_deletes_a_sandbox_that_could_not_be_deleted_before(
    server: LocalDaytona, open_pool: Any
) -> None:
    pooled = open_pool(server, idle_close_s=0)
    pooled.run("a", "true")
    server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
    pooled.run("b", "true")
    wait_until(lambda: ("close", "a") in pooled.kinds())
    assert len(server.sandboxes) == 2
    pooled.release("a")
    assert [sandbox.labels["namespace"] for sandbox in server.sandboxes] == ["b"]


def test_release_waits_for_the_leases(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server)
    lease = pooled.pool.session("a")
    session = lease.__enter__()
    session.run("true")
    with ThreadPoolExecutor(1) as workers:
        running = workers.submit(pooled.release, "a")
        wait_until(lambda: pooled.pool._sessions._slots._reserved["a"])
        assert session.run("echo on").output == "on\n"
        assert not running.done()
        lease.__exit__(None, None, None)
        running.result(60)
    with pytest.raises(SessionClosed):
        session.run("true")
    assert server.sandboxes == []
    assert pooled.run("a", "echo new") == "new\n"


def test_a_workspace_in_use_is_not_released(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server, wait_s=0.05)
    with pooled.pool.session("a") as session:
        with pytest.raises(SandboxUnavailable, match="still in use") as caught:
            pooled.release("a")
        assert session.run("echo on").output == "on\n"
    assert caught.value.code == "pool_in_use"
    assert pooled.run("a", "echo on") == "on\n"


def test_a_closed_pool_refuses_until_it_is_entered(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server)
    pooled.close()
    with pytest.raises(SessionClosed, match="pool was closed") as caught:
        pooled.run("a", "true")
    assert caught.value.code == "pool_closed"
    with pooled.pool:
        assert pooled.run("a", "echo a") == "a\n"
    assert server.sandboxes == []


def test_a_session_that_was_closed_is_opened_again(server: LocalDaytona, open_pool: Any) -> None:
    pooled = open_pool(server)
    with pooled.pool.session("a") as session:
        session.close()
    assert pooled.run("a", "echo a") == "a\n"


def test_a_failing_callback_harms_nothing(
    server: LocalDaytona, caplog: pytest.LogCaptureFixture, open_pool: Any
) -> None:
    pooled = open_pool(server)
    pooled.pool._sessions._on_event = lambda event: 1 / 0
    assert pooled.run("a", "echo a") == "a\n"
    assert "on_event of the WorkspacePool failed for open" in caplog.text


def test_many_callers_on_threads_and_loops(server: LocalDaytona) -> None:
    """More keys than sessions: everyone gets the own workspace, and the limit holds."""
    most: list[int] = []
    pool = WorkspacePool(
        config_for(server), max_sessions=3, on_event=lambda event: most.append(event.sessions)
    )

    def blocking(key: str) -> str:
        with pool.session(key) as session:
            return session.run("touch x; ls -d $PWD").output

    async def on_loop(key: str) -> str:
        async with pool.session(key) as session:
            return (await session.arun("touch x; ls -d $PWD")).output

    async def several() -> list[str]:
        return await asyncio.gather(*(on_loop(key) for key in "abcde"))

    with pool, ThreadPoolExecutor(8) as workers:
        loops = [workers.submit(asyncio.run, several()) for _ in range(2)]
        threads = [workers.submit(blocking, key) for key in "abcde"]
        for found in (*(loop.result(200) for loop in loops), [thread.result(200) for thread in threads]):
            assert [line.strip()[-2:] for line in found] == [f"/{key}" for key in "abcde"]
    assert max(most) <= 3
    assert server.sandboxes == []


def test_a_full_pool_does_not_block_a_loop(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server), max_sessions=1)

    async def main() -> None:
        async with pool.session("a"):
            with pytest.raises(SandboxUnavailable, match=r"using all.*a-form") as caught, pool.session("b"):
                pass
            assert caught.value.code == "would_deadlock"
            with pytest.raises(SandboxUnavailable, match="using the session"):
                pool.release("a")
            with pool.session("a") as session:
                assert isinstance(session, WorkspaceSession)

    asyncio.run(main())


def test_a_cancelled_caller_leaves_no_lease(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server), max_sessions=1)

    async def enter() -> None:
        async with pool.session("b"):
            pass

    async def main() -> None:
        async with pool.session("a"):
            waiting = asyncio.create_task(enter())
            while not pool._sessions._slots._waiting:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert pool._sessions._slots._waiting == []
        assert pool._sessions.in_use == 0
        await asyncio.wait_for(enter(), 60)
        await pool.aclose()

    asyncio.run(main())


def test_a_sync_caller_does_not_block_the_loop_that_closes_its_session(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server))

    async def main() -> None:
        async with pool.session("a") as session:
            await session.arun("true")
        goes_on = threading.Event()
        server.faults.add(Fault(kind="act_before", action="delete", act=lambda: goes_on.wait(60), times=1))
        releasing = asyncio.create_task(pool.arelease("a"))
        while not server.count("delete"):  # noqa: ASYNC110 - the server has no event to offer
            await asyncio.sleep(0)
        with pytest.raises(SandboxUnavailable) as caught, pool.session("a"):
            pass
        assert caught.value.code == "would_deadlock"
        goes_on.set()
        await releasing
        await pool.aclose()

    asyncio.run(main())


def test_ctrl_c_in_on_event_leaves_no_lease(server: LocalDaytona) -> None:
    def interrupt(event: PoolEvent) -> None:
        raise KeyboardInterrupt if event.kind == "open" else ValueError

    with WorkspacePool(config_for(server), on_event=interrupt) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.session("a").__enter__()
        assert repr(pool) == "WorkspacePool(sessions=1, in_use=0)"


def test_a_close_that_the_end_of_the_loop_cancels_can_be_repeated(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server))
    goes_on = threading.Event()

    async def main() -> None:
        async with pool.session("a") as session:
            await session.arun("true")
        server.faults.add(Fault(kind="act_before", action="delete", act=lambda: goes_on.wait(60), times=1))
        closing = asyncio.create_task(pool.aclose())
        while not server.open_requests:  # noqa: ASYNC110 - the server has no event to offer
            await asyncio.sleep(0.01)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait([closing])

    asyncio.run(main())
    assert [slot.namespace for slot in pool._sessions._unclosed] == ["a"]
    goes_on.set()
    pool.close()
    assert server.sandboxes == []


def test_a_cancelled_close_goes_on(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server))

    async def main() -> None:
        async with pool.session("a") as session:
            await session.arun("true")
        goes_on = threading.Event()
        server.faults.add(Fault(kind="act_before", action="delete", act=lambda: goes_on.wait(60), times=1))
        closing = asyncio.create_task(pool.aclose())
        while not server.open_requests:  # noqa: ASYNC110 - the server has no event to offer
            await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert len(pool._sessions) == 1
        goes_on.set()
        while len(pool._sessions):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await pool.aclose()

    asyncio.run(main())
    assert server.sandboxes == []


def test_the_lifespan_of_a_server(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server))

    async def run(request: Request) -> PlainTextResponse:
        async with pool.session(request.path_params["key"]) as session:
            return PlainTextResponse((await session.arun("pwd")).output)

    app = Starlette(routes=[Route("/{key}", run)], lifespan=pool.lifespan)
    for _ in range(2):  # a server that starts again opens the pool again
        with TestClient(app) as client:
            assert client.get("/ann@example.com").text.endswith(f"/{namespace_of('ann@example.com')}\n")
            assert client.get("/bob").text.endswith("/bob\n")
            assert len(server.sandboxes) == 2
        assert server.sandboxes == []


def test_a_pickled_pool_finds_the_persistent_sandboxes(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server, persistent=True), max_sessions=7)
    with pool.session("a") as session:
        session.run("echo 1 > f")
    with pool, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAYTONA_API_KEY", server.api_key)
        copied = pickle.loads(pickle.dumps(pool))
        assert server.api_key.encode() not in pickle.dumps(pool)
    assert copied._sessions._slots._max_slots == 7
    with copied, copied.session("a") as session:
        assert session.run("cat f").output == "1\n"
    with pytest.raises(TypeError, match="persistent: true"):
        pickle.dumps(WorkspacePool(config_for(server)))


def test_an_invalid_configuration_is_refused_at_once(server: LocalDaytona) -> None:
    with pytest.raises(ConfigError):
        WorkspacePool({"permissionMode": "never"})
    with pytest.raises(ConfigError, match="approver"):
        WorkspacePool({}, approver=7)  # type: ignore[arg-type]
    for name, value in (("max_sessions", 0), ("idle_close_s", -1), ("wait_s", float("nan"))):
        with pytest.raises(ConfigError, match=name):
            WorkspacePool({}, **{name: value})  # type: ignore[arg-type]


def test_a_pool_without_references_leaves_no_sandbox(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server))
    with pool.session("a") as session:
        session.run("true")
    del pool, session
    gc.collect()
    wait_until(lambda: server.sandboxes == [])
