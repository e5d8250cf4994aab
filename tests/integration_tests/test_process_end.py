"""Sandboxes of unclosed sessions: at exit, at SIGTERM, and after the last reference to a session; real processes."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from langchain_daytona_ws import WorkspacePool, WorkspaceSession, WorkspaceToolkit
from langchain_daytona_ws._session import process_end
from langchain_daytona_ws._session.clients import DaytonaClients
from langchain_daytona_ws.local import Fault, LocalDaytona
from tests.integration_tests.conftest import config_for

SANDBOXES = 4


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def program(server: LocalDaytona, code: str) -> subprocess.Popen[str]:
    """Start a program with ``open_sessions(number)``, which opens sessions of different workspaces."""
    start = f"""
        import asyncio, signal, sys, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from langchain_daytona_ws import WorkspaceSession, close_on_sigterm

        def open_session(number):
            session = WorkspaceSession({config_for(server)!r}, namespace=f"demo-{{number}}")
            session.run("true")
            return session

        def open_sessions(number):
            with ThreadPoolExecutor() as pool:
                return list(pool.map(open_session, range(number)))

    """
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(start) + textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def terminated_when_ready(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Send SIGTERM once the program prints a line; return its exit code and what else it wrote."""
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=120)
    return running.returncode, out + err


# --- exit ---


def test_exit_deletes_in_parallel(server: LocalDaytona) -> None:
    together = threading.Barrier(SANDBOXES, timeout=120)  # sequential requests would wait for ever
    server.faults.add(Fault(kind="act_before", action="delete", act=together.wait, times=None))
    running = program(server, f"sessions = open_sessions({SANDBOXES})")
    assert running.communicate(timeout=180) == ("", "")
    assert server.count("delete") == SANDBOXES
    assert server.sandboxes == []


@pytest.mark.full
def test_exit_reports_what_it_could_not_delete(server: LocalDaytona) -> None:
    server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
    _, errors = program(server, "sessions = open_sessions(2)").communicate(timeout=180)
    (left,) = server.sandboxes
    assert errors.startswith(f"at exit, sandbox {left.name}: The sandbox {left.id} could not be deleted")
    assert len(errors.splitlines()) == 1


def test_exit_ends_in_time_and_reports_the_cause(server: LocalDaytona) -> None:
    server.faults.add(Fault(kind="status", status=503, action="delete", times=None))
    code = """
        from langchain_daytona_ws._session import process_end
        process_end.EXIT_WITHIN_S = 8.0
        session = open_session(0)
    """
    began = time.monotonic()
    _, errors = program(server, code).communicate(timeout=180)
    assert time.monotonic() - began < 60
    assert "could not be deleted: " in errors
    assert "fault injected" in errors


def test_the_import_of_the_sdk_counts(
    server: LocalDaytona, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import takes seconds on a busy machine; the failure must be logged before the process ends."""
    async_port = DaytonaClients.async_port

    async def slowly(clients: DaytonaClients) -> Any:
        await asyncio.sleep(1.2)
        return await async_port(clients)

    session = WorkspaceSession(config_for(server), namespace="demo")
    session.run("true")
    monkeypatch.setattr(DaytonaClients, "async_port", slowly)
    server.faults.add(Fault(kind="latency", delay_s=600, action="delete", times=None))
    process_end.end_all([session._state.sandboxes], within_s=2.6, when="at SIGTERM")
    assert re.search("no answer within [01] s", caplog.text)
    monkeypatch.undo()
    server.faults.clear()
    session.close()


# --- SIGTERM ---


def test_sigterm_deletes_and_ends_the_process(server: LocalDaytona) -> None:
    code = f"close_on_sigterm(); sessions = open_sessions({SANDBOXES}); print(flush=True); signal.pause()"
    assert terminated_when_ready(program(server, code)) == (-signal.SIGTERM, "")
    assert server.sandboxes == []


@pytest.mark.full
def test_without_it_they_stay(server: LocalDaytona) -> None:
    code = "sessions = open_sessions(1); print(flush=True); signal.pause()"
    assert terminated_when_ready(program(server, code)) == (-signal.SIGTERM, "")
    assert len(server.sandboxes) == 1


def test_sigterm_finds_a_sandbox_whose_creation_it_interrupts(server: LocalDaytona) -> None:
    code = "close_on_sigterm(within_s=100); print(flush=True); open_session(0)"
    running = program(server, code)
    server.faults.add(Fault(kind="act_after", action="create", act=running.terminate, times=1))
    _, errors = running.communicate(timeout=120)
    assert (running.returncode, errors) == (-signal.SIGTERM, "")
    assert server.sandboxes == []


@pytest.mark.full
def test_sigterm_in_a_program_that_handles_it_itself(server: LocalDaytona) -> None:
    code = f"""
        async def work():
            ended = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
            close_on_sigterm()
            sessions = [WorkspaceSession({config_for(server)!r}, namespace=f"demo-{{n}}") for n in range(2)]
            await asyncio.gather(*(session.arun("true") for session in sessions))
            print(flush=True)
            await ended.wait()
            print("ended")
        asyncio.run(work())
    """
    assert terminated_when_ready(program(server, code)) == (0, "ended\n")
    assert server.sandboxes == []


# --- the last reference to a session ---


@pytest.fixture
def uncollected() -> Any:
    """Switch the garbage collector off: only reference counts free a session."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_the_last_reference_deletes(server: LocalDaytona) -> None:
    session = WorkspaceSession(config_for(server), namespace="demo")
    session.run("true")
    files, jobs = session.files, session.jobs
    del session
    assert files.list(".").total == 0
    del files
    assert not jobs.list()
    del jobs
    until(lambda: server.sandboxes == [])
    assert server.count("delete") == 1


@pytest.mark.usefixtures("uncollected")
def test_a_cell_that_runs_twice_holds_one(server: LocalDaytona, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        toolkit = WorkspaceToolkit(session=WorkspaceSession(config_for(server), namespace="demo"))
        toolkit.bash.invoke({"command": "true"})
    until(lambda: len(server.sandboxes) == 1)
    assert caplog.text == ""
    del toolkit
    until(lambda: server.sandboxes == [])


def test_a_pool_without_references_is_closed(server: LocalDaytona) -> None:
    pool = WorkspacePool(config_for(server))
    with pool.session("demo") as session:
        session.run("true")
    del pool, session
    gc.collect()
    until(lambda: server.sandboxes == [])


def test_the_event_loop_goes_on_meanwhile(server: LocalDaytona) -> None:
    goes_on = threading.Event()

    async def work() -> None:
        session: Any = WorkspaceSession(config_for(server), namespace="demo")
        await session.arun("true")
        session.itself = session  # a cycle: the collector finds it, in this thread
        server.faults.add(Fault(kind="act_before", action="delete", act=lambda: goes_on.wait(60), times=1))
        del session
        gc.collect()
        assert len(server.sandboxes) == 1
        goes_on.set()
        while server.sandboxes:  # noqa: ASYNC110 - the server has no event to offer
            await asyncio.sleep(0.01)

    asyncio.run(work())


def test_a_call_holds_its_session(server: LocalDaytona) -> None:
    running = WorkspaceSession(config_for(server), namespace="demo").arun("sleep 0.2; echo done")
    gc.collect()
    assert asyncio.run(running).output == "done\n"
    until(lambda: server.sandboxes == [])


def test_a_persistent_sandbox_stays(server: LocalDaytona) -> None:
    session = WorkspaceSession(config_for(server, persistent=True), namespace="demo")
    session.run("true")
    del session
    gc.collect()
    assert [thread.name for thread in threading.enumerate() if "unreferenced" in thread.name] == []
    assert server.count("delete") == 0


@pytest.mark.full
def test_a_forked_child_leaves_its_parent_s_sandbox(server: LocalDaytona) -> None:
    code = """
        import os
        sessions = open_sessions(1)
        if os.fork() == 0:
            sessions.clear()
            sys.exit()
        os.wait()
        print(sessions[0].run("echo still here").output, end="")
    """
    assert program(server, code).communicate(timeout=180) == ("still here\n", "")
    assert server.count("delete") == 1
    assert server.sandboxes == []


# --- two sessions of one workspace ---


def test_a_workspace_that_is_open_twice_is_reported(
    server: LocalDaytona, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(server)
    with caplog.at_level(logging.WARNING), WorkspaceSession(config, namespace="demo") as first:
        first.run("true")
        with WorkspaceSession(config, namespace="other") as other:
            other.run("true")
        assert caplog.text == ""
        with WorkspaceSession(config, namespace="demo") as second:
            assert caplog.text == ""
            second.run("true")
    assert "The workspace demo is open in two sessions of this process" in caplog.text


def test_sessions_of_one_persistent_sandbox_are_not(
    server: LocalDaytona, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(server, persistent=True)
    with (
        WorkspaceSession(config, namespace="demo") as first,
        WorkspaceSession(config, namespace="demo") as second,
    ):
        assert first.run("true").sandbox_id == second.run("true").sandbox_id
        first.release()
    assert caplog.text == ""
