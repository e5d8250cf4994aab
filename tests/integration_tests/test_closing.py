"""Closing a session over the real SDK: no leaks, also if it is interrupted."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import pytest

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._core.ports import SandboxPort
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sandbox import lifecycle
from langchain_daytona_ws._session import process_end, sandbox_manager
from langchain_daytona_ws._session.sandbox_manager import SandboxManager
from langchain_daytona_ws._session.single_flight import SingleFlight, once_blocking
from langchain_daytona_ws.errors import SandboxUnavailable, SessionClosed
from langchain_daytona_ws.local import Fault, LocalDaytona
from tests.hostile.forged import InstantClock
from tests.integration_tests.conftest import Driven, config_for
from tests.sample import sample

pytestmark = pytest.mark.sync_and_async

T = TypeVar("T")


def test_a_closed_session_refuses(workspace: Driven) -> None:
    workspace.close()
    with pytest.raises(SessionClosed):
        workspace.run("true")


def test_state_changes_in_progress_are_waited_for(server: LocalDaytona, workspace: Driven) -> None:
    workspace.run("true")
    server.faults.add(Fault(kind="status", status=409, action="delete", times=2))
    workspace.close()
    assert server.sandboxes == []


def test_a_sandbox_that_is_gone_already_is_fine(server: LocalDaytona, workspace: Driven) -> None:
    workspace.run("true")
    server.destroy_sandbox(server.sandboxes[0].id)
    workspace.close()


def test_a_failed_deletion_is_reported(server: LocalDaytona, workspace: Driven) -> None:
    workspace.run("true")
    server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
    with pytest.raises(SandboxUnavailable, match="dashboard"):
        workspace.close()


def test_it_can_be_tried_again(server: LocalDaytona, workspace: Driven) -> None:
    workspace.run("true")
    server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
    with pytest.raises(SandboxUnavailable):
        workspace.close()
    assert len(server.sandboxes) == 1
    workspace.close()
    assert server.sandboxes == []


def test_a_time_out_is_reported(server: LocalDaytona, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_manager, "CLOSE_WAITS_S", 0.2)

    async def work() -> None:
        session = WorkspaceSession(config_for(server), namespace="demo")
        await session.arun("true")
        goes_on = threading.Event()
        server.faults.add(Fault(kind="act_before", action="delete", act=lambda: goes_on.wait(60), times=1))
        with pytest.raises(SandboxUnavailable, match="no answer"):
            await session.aclose()
        goes_on.set()
        while server.open_requests:  # noqa: ASYNC110 - the server has no event to offer
            await asyncio.sleep(0.01)
        monkeypatch.setattr(sandbox_manager, "CLOSE_WAITS_S", 60)  # it makes a new client, too
        await session.aclose()

    asyncio.run(work())
    assert server.sandboxes == []


def test_closing_while_another_thread_provisions(server: LocalDaytona) -> None:
    came = threading.Event()

    def hold() -> None:
        came.set()
        time.sleep(0.3)  # in which the session is closed

    server.faults.add(Fault(kind="act_before", action="create", act=hold, times=1))
    session = WorkspaceSession(config_for(server), namespace="demo")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.run, "true")
        assert came.wait(60)
        session.close()
        with pytest.raises(SessionClosed):
            running.result()
    assert server.sandboxes == []


@pytest.mark.full
def test_the_interpreter_s_exit_deletes_it(server: LocalDaytona) -> None:
    program = f"""
        from langchain_daytona_ws import WorkspaceSession
        session = WorkspaceSession({config_for(server)!r}, namespace="demo")
        print(session.run("echo ok").output)
    """
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("ok\n\n", "")
    assert server.sandboxes == []


def test_so_does_that_of_an_async_program(server: LocalDaytona) -> None:
    program = f"""
        import asyncio
        from langchain_daytona_ws import WorkspaceSession
        session = WorkspaceSession({config_for(server)!r}, namespace="demo")
        async def work():
            print((await session.arun("echo ok")).output)
        asyncio.run(work())
        asyncio.run(work())
    """
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("ok\n\nok\n\n", "")
    assert server.sandboxes == []


@pytest.mark.parametrize(
    "leave",
    sample(
        ["sys.exit(0)", "session.close(); os._exit(0)", "asyncio.run(session.aclose()); sys.exit()"],
        "session.close(); os._exit(0)",
    ),
)
def test_a_forked_child_leaves_its_parent_s_sandbox(server: LocalDaytona, leave: str) -> None:
    program = f"""
        import asyncio, os, sys
        from langchain_daytona_ws import WorkspaceSession
        with WorkspaceSession({config_for(server)!r}, namespace="demo") as session:
            session.run("true")
            if os.fork() == 0:
                {leave}
            os.wait()
            print(session.run("echo still here").output, end="")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.stdout == "still here\n"


def test_a_forked_child_has_connections_of_its_own(server: LocalDaytona) -> None:
    program = f"""
        import os
        from langchain_daytona_ws import WorkspaceSession
        session = WorkspaceSession({config_for(server)!r}, namespace="demo")
        session.run("true")
        child = os.fork()
        for number in range(10):
            assert session.run(f"echo {{child}} {{number}}").output == f"{{child}} {{number}}\\n"
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=180, check=True)


def test_only_the_session_waits_as_retry_after_asks(server: LocalDaytona, workspace: Driven) -> None:
    clock = InstantClock()
    with_clock = Driven(WorkspaceSession(config_for(server), namespace="demo", clock=clock), workspace.runner)
    with_clock.run("true")
    busy = Fault(kind="status", status=429, action="delete", headers={"Retry-After": "30"}, times=1)
    server.faults.add(busy)
    began = time.monotonic()
    with_clock.close()
    assert clock.slept_s >= 30 > time.monotonic() - began
    assert server.sandboxes == []


def test_closing_ends_however_long_retry_after_is(server: LocalDaytona, workspace: Driven) -> None:
    clock = InstantClock()
    with_clock = Driven(WorkspaceSession(config_for(server), namespace="demo", clock=clock), workspace.runner)
    with_clock.run("true")
    busy = Fault(kind="status", status=503, action="delete", headers={"Retry-After": "86400"}, times=None)
    server.faults.add(busy)
    with pytest.raises(SandboxUnavailable, match="could not be deleted"):
        with_clock.close()
    assert clock.slept_s <= lifecycle.DELETE_WITHIN_S
    server.faults.clear()
    with_clock.close()


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_cancelled_close_still_deletes(
    server: LocalDaytona, caplog: pytest.LogCaptureFixture, is_refused: bool
) -> None:
    came, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        came.set()
        assert goes_on.wait(60)

    async def work() -> None:
        session = WorkspaceSession(config_for(server), namespace="demo")
        await session.arun("true")
        server.faults.add(Fault(kind="act_before", action="delete", act=hold, times=1))
        if is_refused:
            server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
        closing = asyncio.create_task(session.aclose())
        await asyncio.to_thread(came.wait, 30)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        assert rest
        goes_on.set()
        await asyncio.wait(rest)
        assert session._state.sandboxes.clients._async is not None
        assert session._state.sandboxes.clients._async._loops == {}
        assert (session.sandbox_id is None) is not is_refused
        if is_refused:
            await session.aclose()

    with caplog.at_level(logging.WARNING, "langchain_daytona_ws"):
        asyncio.run(work())
    assert ("after its call was cancelled" in caplog.text) is is_refused
    assert server.sandboxes == []


@pytest.mark.parametrize("persistent", [False, True])
def test_it_can_be_tried_again_while_that_goes_on(server: LocalDaytona, persistent: bool) -> None:
    came = threading.Event()

    async def work() -> None:
        session = WorkspaceSession(config_for(server, persistent=persistent), namespace="demo")
        await session.arun("true")
        server.faults.add(Fault(kind="act_before", action="delete", act=came.set, times=1))
        end = session.arelease if persistent else session.aclose
        closing = asyncio.create_task(end())
        await asyncio.to_thread(came.wait, 30)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await end()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        assert server.sandboxes == []
        assert session._state.sandboxes.clients._async is not None
        assert session._state.sandboxes.clients._async._loops == {}

    asyncio.run(work())


# --- sandboxes that could not be deleted before ---


def _fail(workspace: Driven) -> SandboxManager:
    """Provision a sandbox that then fails: it is deleted after the next creation."""
    workspace.run("true")
    sandboxes = workspace.session._state.sandboxes
    assert sandboxes.info is not None
    sandboxes.record_failure(sandboxes.info)
    return sandboxes


def test_all_deletions_are_tried_after_a_refusal(server: LocalDaytona, workspace: Driven) -> None:
    _fail(workspace)
    server.faults.add(Fault(kind="status", status=403, action="delete", times=2))
    _fail(workspace)
    refused, _ = server.sandboxes
    with pytest.raises(SandboxUnavailable, match=refused.id):
        workspace.close()
    assert server.sandboxes == [refused]


def test_earlier_sandboxes_are_deleted_after_a_refusal(server: LocalDaytona, workspace: Driven) -> None:
    _fail(workspace)
    server.faults.add(Fault(kind="status", status=403, action="delete", times=2))
    workspace.run("true")
    _, used = server.sandboxes
    with pytest.raises(SandboxUnavailable, match=used.id):
        workspace.close()
    assert server.sandboxes == [used]


def test_a_loss_does_not_end_the_deletion_at_exit(server: LocalDaytona, workspace: Driven) -> None:
    sandboxes = _fail(workspace)
    server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
    workspace.run("true")
    assert sandboxes.info is not None
    sandboxes.record_loss(sandboxes.info)
    assert process_end.is_owned_here(sandboxes)
    workspace.close()
    assert not process_end.is_owned_here(sandboxes)


def test_nor_does_the_deletion_of_another_sandbox(server: LocalDaytona, workspace: Driven) -> None:
    sandboxes = _fail(workspace)
    server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
    workspace.run("true")
    failed, used = server.sandboxes
    refuse = Fault(kind="status", status=403, action="delete", times=1)
    server.faults.add(
        Fault(kind="act_before", action="delete", act=lambda: server.faults.add(refuse), times=1)
    )
    with pytest.raises(SandboxUnavailable, match=failed.id):
        workspace.close()
    assert used not in server.sandboxes
    assert process_end.is_owned_here(sandboxes)
    workspace.close()
    assert server.sandboxes == []


def test_a_late_record_of_a_loss_does_not_end_the_deletion_of_the_next_sandbox(
    server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = WorkspaceSession(config_for(server), namespace="demo")
    session.run("true")
    sandboxes = session._state.sandboxes
    assert sandboxes.info is not None
    server.destroy_sandbox(sandboxes.info.id)
    forgotten, created, recorded = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        forgotten.set()
        assert created.wait(60)

    async def run_once(flight: SingleFlight[T], make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def make_and_wait() -> T:
            value = await make()
            created.set()
            assert recorded.wait(60)
            return value

        return await once_blocking(flight, make_and_wait)

    async def port() -> SandboxPort:
        return sandboxes.clients.sync_port()

    monkeypatch.setattr(sandboxes, "_record_start", hold)
    with ThreadPoolExecutor(2) as pool:
        recording = pool.submit(sandboxes.record_loss, sandboxes.info)
        assert forgotten.wait(60)
        creating = pool.submit(run_sync, sandboxes.acquire(run_once, port))
        recording.result()
        recorded.set()
        creating.result()
    session.close()
    assert server.sandboxes == []


class _HeldDeletion:
    """A deletion that waits in the server until `goes_on` is set."""

    def __init__(self, server: LocalDaytona) -> None:
        self.came, self.goes_on = threading.Event(), threading.Event()
        server.faults.add(Fault(kind="act_before", action="delete", act=self._wait, times=1))

    def _wait(self) -> None:
        self.came.set()
        assert self.goes_on.wait(60)


def test_a_call_that_is_cancelled_in_such_a_deletion_leaves_no_sandbox(server: LocalDaytona) -> None:
    async def work() -> None:
        session = WorkspaceSession(config_for(server), namespace="demo")
        await session.arun("true")
        sandboxes = session._state.sandboxes
        assert sandboxes.info is not None
        sandboxes.record_failure(sandboxes.info)
        held = _HeldDeletion(server)
        running = asyncio.create_task(session.arun("true"))
        assert await asyncio.to_thread(held.came.wait, 60)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        held.goes_on.set()
        await session.aclose()

    asyncio.run(work())
    assert server.sandboxes == []


def test_the_process_s_end_during_such_a_deletion_leaves_no_sandbox(
    server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_manager, "END_CREATION_S", 0.0)
    session = WorkspaceSession(config_for(server), namespace="demo")
    session.run("true")
    sandboxes = session._state.sandboxes
    assert sandboxes.info is not None
    sandboxes.record_failure(sandboxes.info)
    held = _HeldDeletion(server)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.run, "true")
        assert held.came.wait(60)
        asyncio.run(sandboxes.close_within(60))
        left = list(server.sandboxes)
        held.goes_on.set()
        with pytest.raises(SessionClosed):
            running.result()
    session.close()  # at the end of a process its connections are not closed
    assert left == []


class _KeepingConnections(BaseHTTPRequestHandler):
    """An S3 that keeps connections open, as Amazon's does and moto does not; an object contains its own name."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.partition("?")[0].rpartition("/")[2].encode()
        self.send_response(200)
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Mon, 30 Nov 2026 12:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        time.sleep(0.05)
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def test_a_forked_child_has_connections_to_s3_of_its_own() -> None:
    options = {
        "apiKey": "k", "mountAwsS3Buckets": True, "workspaceBucketName": "agents", "awsRegion": "us-east-1",
    }  # fmt: skip
    keys = {"AWS_ACCESS_KEY_ID": "AKIAWORKSPACE", "AWS_SECRET_ACCESS_KEY": "secret"}
    with ThreadingHTTPServer(("127.0.0.1", 0), _KeepingConnections) as store:
        threading.Thread(target=store.serve_forever).start()
        options["s3Endpoint"] = f"http://127.0.0.1:{store.server_port}"
        config = {"permissionMode": "bypass", "envVars": keys, "options": options}
        program = f"""
            import os, time
            from langchain_daytona_ws import WorkspaceSession
            session = WorkspaceSession({config!r}, namespace="demo")
            for number in range(10):
                session.files.read("a")
                begins = time.time() + 0.3
                child = os.fork()
                name = "a" if child else "b"
                time.sleep(max(0, begins - time.time()))
                assert session.files.read(name).body.split()[-1] == name
                if child == 0:
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
        """
        try:
            subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=180, check=True)
        finally:
            store.shutdown()
