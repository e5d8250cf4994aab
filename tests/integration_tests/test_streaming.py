"""A command's output while it runs, sync and async: in order, complete up to the limit, without side effects."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from langchain_daytona_ws import CommandResult, SandboxError, WorkspaceSession
from langchain_daytona_ws._adapters import background
from langchain_daytona_ws._core.commands import streaming as live
from langchain_daytona_ws._core.commands.streaming import FAILURES_MAX, LIMIT_NOTE, STREAM_LIMIT_BYTES
from langchain_daytona_ws._core.guest_rpc import client as guest_client
from langchain_daytona_ws.local import Fault, LocalDaytona
from tests.integration_tests.conftest import Driven, config_for
from tests.integration_tests.s3 import Bucket, bucket, host_keys

__all__ = ["bucket", "host_keys"]  # fixtures

OpenSession = Callable[..., Driven]
HELPER = "langchain-daytona-ws-background"


def wait_for(name: str) -> str:
    return f"while [ ! -e /tmp/{name} ]; do sleep 0.02; done"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not helpers()


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == HELPER]


def touch(server: LocalDaytona, name: str) -> None:
    (sandbox,) = server.sandboxes
    assert server.run_inside(sandbox.id, f"touch /tmp/{name}; chmod 666 /tmp/{name}") == (0, b"")


def until_asked(server: LocalDaytona, times: int) -> None:
    deadline = time.monotonic() + 60
    while server.count("execute") < times:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class CapturedWarnings:
    """Received texts, and actions on them: the command continues when a text has been received."""

    def __init__(self, server: LocalDaytona, **answers: str) -> None:
        self.texts: list[str] = []
        self._server = server
        self._answers = answers

    def __call__(self, text: str) -> None:
        self.texts.append(text)
        for shown, name in list(self._answers.items()):
            if shown in self.all:
                del self._answers[shown]
                touch(self._server, name)

    @property
    def all(self) -> str:
        return "".join(self.texts)


def logs_left(server: LocalDaytona) -> bytes:
    (sandbox,) = server.sandboxes
    return server.run_inside(sandbox.id, "ls /tmp/.langchain-daytona-ws-*/ | grep '[.]log$'")[1]


class TestWhileItRuns:
    def test_it_comes_before_the_command_has_ended(self, server: LocalDaytona, workspace: Driven) -> None:
        received = CapturedWarnings(server, one="go1", two="go2")
        result = workspace.run(
            f"echo one; {wait_for('go1')}; echo two >&2; {wait_for('go2')}; printf three",
            timeout_s=60,
            on_output=received,
        )
        assert (result.exit_code, result.output) == (0, "one\ntwo\nthree")
        assert received.all == result.output
        assert len(received.texts) >= 3
        assert logs_left(server) == b""

    def test_half_a_character_waits_for_its_rest(self, server: LocalDaytona, workspace: Driven) -> None:
        received = CapturedWarnings(server, a="go1")
        result = workspace.run(
            f"printf 'a\\305'; {wait_for('go1')}; printf '\\274b\\303'", timeout_s=60, on_output=received
        )
        assert received.texts[0] == "a"
        assert received.all == result.output == "ażb\ufffd"

    def test_silence_is_waited_for(
        self, server: LocalDaytona, workspace: Driven, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "WAIT_S", 0.1)
        received = CapturedWarnings(server)

        def release() -> None:
            until_asked(server, 6)
            touch(server, "go1")

        workspace.run("true")
        server.clear_requests()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(release)
            result = workspace.run(f"{wait_for('go1')}; echo end", timeout_s=60, on_output=received)
            done.result()
        assert received.all == result.output == "end\n"

    @pytest.mark.usefixtures("host_keys")
    def test_it_comes_from_a_workspace_on_s3(self, bucket: Bucket, open_session: OpenSession) -> None:
        received = CapturedWarnings(bucket.server, one="go1")
        driven = bucket.session(open_session, role=True)
        result = driven.run(f"echo one; {wait_for('go1')}; echo two", timeout_s=60, on_output=received)
        assert received.all == result.output == "one\ntwo\n"
        assert len(received.texts) >= 2

    def test_two_commands_at_once_each_have_their_own(self, server: LocalDaytona) -> None:
        with WorkspaceSession(config_for(server), namespace="demo") as session, ThreadPoolExecutor(2) as pool:
            session.run("true")
            left, right = CapturedWarnings(server, left="left"), CapturedWarnings(server, right="right")
            runs = [
                pool.submit(session.run, f"echo left; {wait_for('right')}", timeout_s=60, on_output=left),
                pool.submit(session.run, f"echo right; {wait_for('left')}", timeout_s=60, on_output=right),
            ]
            assert [run.result().exit_code for run in runs] == [0, 0]
        assert (left.all, right.all) == ("left\n", "right\n")

    def test_two_tasks_at_once_each_have_their_own(self, server: LocalDaytona) -> None:
        left, right = CapturedWarnings(server, left="left"), CapturedWarnings(server, right="right")

        async def work() -> None:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                await session.arun("true")
                await asyncio.gather(
                    session.arun(f"echo left; {wait_for('right')}", timeout_s=60, on_output=left),
                    session.arun(f"echo right; {wait_for('left')}", timeout_s=60, on_output=right),
                )
                assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(work())
        assert (left.all, right.all) == ("left\n", "right\n")

    def test_a_coroutine_function_is_awaited(self, server: LocalDaytona) -> None:
        texts: list[str] = []

        async def work() -> CommandResult:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:

                async def receive(text: str) -> None:
                    texts.append(text)
                    if text == "one\n":
                        await session.arun("touch /tmp/go1")

                return await session.arun(
                    f"echo one; {wait_for('go1')}; echo two", timeout_s=60, on_output=receive
                )

        assert asyncio.run(work()).output == "one\ntwo\n"
        assert "".join(texts) == "one\ntwo\n"


SCRIPT = "import sys; sys.stdout.buffer.write(bytes((i * i * 31 + i // 7) % 256 for i in range(300_000)))"
SAME = {
    "nothing": "true",
    "a little": "echo a; echo b >&2; exit 3",
    "what is no text": f'python3 -c "{SCRIPT}"',
    "more than the limit": "seq 1 100000",
    "a syntax error": "echo a\nif then",
    "a process that runs on": "echo a; exec >/dev/null 2>&1; sleep 300 &",
    "a process that holds the output": "echo a; sleep 300 &",
    "one that removes its own traces": "echo a; rm -f /tmp/.langchain-daytona-ws-*/*.log; sleep 0.5; echo b",
}


class TestTheResult:
    @pytest.mark.parametrize("name", SAME)
    @pytest.mark.one_in(2)
    def test_is_what_it_would_be_without(self, server: LocalDaytona, workspace: Driven, name: str) -> None:
        received = CapturedWarnings(server)
        plain = workspace.run(SAME[name])
        streamed = workspace.run(SAME[name], on_output=received)
        assert _comparable(streamed) == _comparable(plain)
        if not streamed.truncated:
            assert received.all == streamed.output

    def test_what_the_answer_leaves_out_is_streamed(self, server: LocalDaytona, workspace: Driven) -> None:
        text, binary = CapturedWarnings(server), CapturedWarnings(server)
        result = workspace.run("seq 1 100000", on_output=text)
        assert result.truncated
        assert text.all == "".join(f"{number}\n" for number in range(1, 100_001))
        workspace.run(SAME["what is no text"], on_output=binary)
        data = bytes((i * i * 31 + i // 7) % 256 for i in range(300_000))
        assert binary.all == data.decode("utf-8", "replace")

    def test_of_fifty_mebibytes_one_is_streamed(self, server: LocalDaytona, workspace: Driven) -> None:
        received = CapturedWarnings(server)
        result = workspace.run("head -c 52428800 /dev/zero | tr '\\0' x", on_output=received)
        assert result.output_bytes == 50 * 1024 * 1024
        assert received.all == "x" * STREAM_LIMIT_BYTES + LIMIT_NOTE
        assert logs_left(server).count(b".log") == 1  # which is the result's

    def test_exactly_the_bound_needs_no_note(self, server: LocalDaytona, workspace: Driven) -> None:
        received = CapturedWarnings(server)
        workspace.run(f"head -c {STREAM_LIMIT_BYTES} /dev/zero | tr '\\0' x", on_output=received)
        assert received.all == "x" * STREAM_LIMIT_BYTES

    def test_of_a_command_whose_time_is_up(self, server: LocalDaytona, workspace: Driven) -> None:
        received = CapturedWarnings(server)
        result = workspace.run("echo one; sleep 300", timeout_s=1, on_output=received)
        assert (result.timed_out, result.exit_code, result.output) == (True, 124, "one\n")
        assert received.all == "one\n"
        assert logs_left(server) == b""

    def test_of_one_that_goes_on_as_a_job(self, server: LocalDaytona, open_session: OpenSession) -> None:
        driven = open_session(server, onTimeout="background")
        received = CapturedWarnings(server)
        result = driven.run(f"echo one; {wait_for('go1')}; echo two", timeout_s=1, on_output=received)
        assert result.job_id is not None
        assert received.all == result.output == "one\n"
        touch(server, "go1")
        # The sync methods suffice: the job runs in the sandbox.
        assert driven.session.jobs.join(result.job_id, timeout_s=60).exit_code == 0
        assert driven.session.jobs.logs(result.job_id).output == "one\ntwo\n"
        assert received.all == "one\n"
        assert logs_left(server) == b""

    def test_that_was_recorded_comes_as_a_whole(self, server: LocalDaytona, workspace: Driven) -> None:
        first, again = CapturedWarnings(server), CapturedWarnings(server)
        workspace.run("echo $RANDOM; echo two", idempotency_key="call1", on_output=first)
        server.clear_requests()
        result = workspace.run("echo $RANDOM; echo two", idempotency_key="call1", on_output=again)
        assert result.from_record
        assert first.all == again.all == result.output

    def test_of_a_command_that_is_over_at_once_costs_no_request(
        self, server: LocalDaytona, workspace: Driven, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "FIRST_POLL_S", 60.0)
        workspace.run("true")
        server.clear_requests()
        received = CapturedWarnings(server)
        workspace.run("echo one", on_output=received)
        assert received.texts == ["one\n"]
        assert [request.action for request in server.requests] == ["execute"]


def _comparable(result: CommandResult) -> CommandResult:
    path = result.log_path
    hidden = replace(result, duration_s=0.0)
    if path is None:
        return hidden
    return replace(
        hidden,
        log_path="log",
        output=result.output.replace(path, "log"),
        notices=tuple(notice.replace(path, "log") for notice in result.notices),
    )


@pytest.mark.sync_and_async
class TestTheCallback:
    def test_that_raises_loses_nothing_but_itself(
        self, server: LocalDaytona, workspace: Driven, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls = []

        def raises(text: str) -> None:
            calls.append(text)
            touch(server, "go1")
            raise ValueError("no screen")

        with caplog.at_level(logging.ERROR, "langchain_daytona_ws"):
            result = workspace.run(f"echo one; {wait_for('go1')}; echo two", timeout_s=60, on_output=raises)
        assert result.output == "one\ntwo\n"
        assert calls == ["one\n"]
        (record,) = caplog.records
        assert "on_output failed" in record.message
        assert record.exc_info is not None

    def test_that_is_slow_gets_everything(self, server: LocalDaytona, workspace: Driven) -> None:
        texts = []

        def slow(text: str) -> None:
            texts.append(text)
            if len(texts) == 1:
                touch(server, "go1")
                (sandbox,) = server.sandboxes
                # Not before the command is over.
                assert server.run_inside(sandbox.id, wait_for("over")) == (0, b"")

        command = f"echo one; {wait_for('go1')}; seq 1 5000; touch /tmp/over"
        result = workspace.run(command, timeout_s=60, on_output=slow)
        assert "".join(texts) == result.output

    def test_that_must_be_awaited_is_refused_where_nobody_can(
        self, server: LocalDaytona, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def receive(text: str) -> None:
            raise AssertionError

        with WorkspaceSession(config_for(server), namespace="demo") as session:
            with pytest.raises(TypeError, match="arun"):
                session.run("true", on_output=receive)
            assert server.requests == []
            assert session.run("echo one", on_output=partial(_given, receive)).output == "one\n"
        assert "on_output failed" in caplog.text


def _given(receive: Callable[[str], Any], text: str) -> Any:
    return receive(text)


class TestCancellation:
    def test_a_cancelled_task_leaves_nothing(self, server: LocalDaytona) -> None:
        received: list[str] = []

        async def work() -> None:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                receives = asyncio.Event()

                def receive(text: str) -> None:
                    received.append(text)
                    receives.set()

                task = asyncio.create_task(
                    session.arun("echo $$; sleep 300; echo two", timeout_s=400, on_output=receive)
                )
                await receives.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert asyncio.all_tasks() == {asyncio.current_task()}
                pid = int(received[0])
                assert (await session.arun(f"ls -d /proc/{pid}")).exit_code != 0
                assert logs_left(server) == b""

        asyncio.run(work())
        assert len(received) == 1

    def test_a_cancelled_coroutine_callback_ends_with_the_call(self, server: LocalDaytona) -> None:
        async def work() -> None:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                receives, ended = asyncio.Event(), asyncio.Event()

                async def receive(text: str) -> None:
                    receives.set()
                    try:
                        await asyncio.Event().wait()
                    finally:
                        ended.set()

                task = asyncio.create_task(
                    session.arun("echo one; sleep 300", timeout_s=400, on_output=receive)
                )
                await receives.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert ended.is_set()
                assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(work())

    def test_an_interrupted_thread_leaves_nothing(self, server: LocalDaytona) -> None:
        received: list[str] = []

        def receive(text: str) -> None:
            received.append(text)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        with WorkspaceSession(config_for(server), namespace="demo") as session:
            session.run("true")
            with pytest.raises(KeyboardInterrupt):
                session.run("echo $$; sleep 300; echo two", timeout_s=400, on_output=receive)
            assert len(received) == 1
            assert session.run(f"ls -d /proc/{int(received[0])}").exit_code != 0
            assert logs_left(server) == b""


FAULTS: dict[str, dict[str, Any]] = {
    "refused": {"kind": "status", "status": 503},
    "throttled": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "lost before": {"kind": "drop_before"},
    "lost after": {"kind": "drop_after"},
    "cut": {"kind": "truncate"},
    "malformed": {"kind": "malformed"},
    "late": {"kind": "latency", "delay_s": 0.3},
}


@pytest.mark.sync_and_async
class TestFaults:
    @pytest.mark.parametrize("name", FAULTS)
    @pytest.mark.one_in(3)
    def test_a_lost_poll_is_repeated(
        self, server: LocalDaytona, workspace: Driven, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.05)
        workspace.run("true")
        server.faults.add(Fault(action="execute", skip=1, times=3, **FAULTS[name]))
        received = CapturedWarnings(server, one="go1")
        result = workspace.run(f"echo one; {wait_for('go1')}; echo two", timeout_s=60, on_output=received)
        assert received.all == result.output == "one\ntwo\n"

    def test_failing_polls_end_and_the_result_has_all_output(
        self, server: LocalDaytona, workspace: Driven, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.01)
        workspace.run("true")
        server.clear_requests()
        server.faults.add(Fault(kind="status", action="execute", skip=1, times=None, status=503))

        def release() -> None:
            until_asked(server, 1 + FAILURES_MAX)
            touch(server, "go1")

        received = CapturedWarnings(server)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(release)
            result = workspace.run(f"echo one; {wait_for('go1')}; echo two", timeout_s=60, on_output=received)
            done.result()
        server.faults.clear()
        assert received.texts == ["one\ntwo\n"]
        assert result.output == "one\ntwo\n"
        assert server.count("execute") == 1 + FAILURES_MAX

    def test_what_cannot_be_had_at_the_end_is_said(
        self, server: LocalDaytona, workspace: Driven, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.01)
        monkeypatch.setattr(live, "FIRST_POLL_S", 60.0)
        workspace.run("true")
        server.faults.add(Fault(kind="status", action="execute", skip=1, times=None, status=503))
        received = CapturedWarnings(server)
        result = workspace.run("seq 1 100000", on_output=received)
        server.faults.clear()
        assert result.truncated
        head, _, tail = received.all.partition(live.LOST_NOTE)
        assert result.output.startswith(f"{head}\n[... ")
        assert result.output.endswith(f" ...]\n{tail}")

    def test_a_command_that_is_sent_again_is_streamed_once(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.run("true")
        server.faults.add(Fault(kind="drop_after", action="execute", times=1))
        received = CapturedWarnings(server, one="go1")
        result = workspace.run(f"echo one; {wait_for('go1')}; echo two", timeout_s=60, on_output=received)
        assert received.all == result.output == "one\ntwo\n"

    def test_of_a_command_that_cannot_be_run_nothing_comes(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.run("true")
        (sandbox,) = server.sandboxes
        server.run_inside(sandbox.id, "rmdir /mnt/workspaces/demo && touch /mnt/workspaces/demo")
        received = CapturedWarnings(server)
        with pytest.raises(SandboxError):
            workspace.run("echo one", on_output=received)
        assert received.texts == []


class Hanging:
    """A poll whose answer is delayed, from an action until its release."""

    def __init__(self, server: LocalDaytona) -> None:
        self._server = server
        self._released = threading.Event()

    def hold(self, meanwhile: Callable[[], object], *, before: bool = False) -> None:
        """Delay the next command's first poll, before it runs, or its answer."""

        def act() -> None:
            meanwhile()
            assert self._released.wait(600)

        kind = "act_before" if before else "act_after"
        self._server.faults.add(Fault(kind=kind, action="execute", skip=1, act=act))  # type: ignore[arg-type]

    @property
    def is_held(self) -> bool:
        return not self._released.is_set()

    def let_go(self) -> None:
        self._released.set()
        for thread in helpers():
            thread.join(60)


@pytest.fixture
def hanging(server: LocalDaytona, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """No poll ends by its own time-out here, which would take a few seconds in the sync runtime."""
    monkeypatch.setattr(live, "POLL_MARGIN_S", 600.0)
    monkeypatch.setattr(background, "GRACE_S", 0.1)
    made = Hanging(server)
    yield made
    made.let_go()


def connections_to(server: LocalDaytona) -> list[Any]:
    port = urlsplit(server.api_url).port
    found = psutil.Process().net_connections("tcp")
    return [item for item in found if item.raddr and item.raddr.port == port]


@pytest.mark.sync_and_async
class TestALookThatHangs:
    @pytest.mark.parametrize("before", [True, False], ids=["unseen", "with its answer under way"])
    def test_is_left_behind_and_nothing_is_lost_or_told_twice(
        self, server: LocalDaytona, workspace: Driven, hanging: Hanging, before: bool
    ) -> None:
        workspace.run("true")
        hanging.hold(lambda: touch(server, "go1"), before=before)
        received = CapturedWarnings(server)
        result = workspace.run(f"echo one; {wait_for('go1')}; echo two", timeout_s=60, on_output=received)
        assert hanging.is_held
        assert result.output == "one\ntwo\n"
        assert received.texts == ["one\ntwo\n"]
        if workspace.runner:
            assert not helpers()
            assert not asyncio.all_tasks(workspace.runner.get_loop())
        hanging.let_go()
        assert received.texts == ["one\ntwo\n"]

    def test_what_the_answer_leaves_out_still_comes(
        self, server: LocalDaytona, workspace: Driven, hanging: Hanging
    ) -> None:
        workspace.run("true")
        hanging.hold(lambda: touch(server, "go1"))
        received = CapturedWarnings(server)
        result = workspace.run(f"echo 0; {wait_for('go1')}; seq 1 100000", timeout_s=60, on_output=received)
        assert hanging.is_held
        assert result.truncated
        assert received.all == "".join(f"{number}\n" for number in range(100_001))

    def test_the_next_command_is_streamed(
        self, server: LocalDaytona, workspace: Driven, hanging: Hanging
    ) -> None:
        workspace.run("true")
        hanging.hold(lambda: touch(server, "go1"))
        workspace.run(f"echo one; {wait_for('go1')}", timeout_s=60, on_output=CapturedWarnings(server))
        received = CapturedWarnings(server, one="go2")
        workspace.run(f"echo one; {wait_for('go2')}; echo two", timeout_s=60, on_output=received)
        assert hanging.is_held
        assert received.all == "one\ntwo\n"

    def test_no_connection_is_left_open(
        self, server: LocalDaytona, workspace: Driven, hanging: Hanging
    ) -> None:
        workspace.run("true")
        hanging.hold(lambda: touch(server, "go1"))
        workspace.run(f"echo one; {wait_for('go1')}", timeout_s=60, on_output=CapturedWarnings(server))
        assert connections_to(server)
        workspace.close()
        hanging.let_go()
        gc.collect()  # a client is closed when it is freed, and an exception may keep it in a cycle of references
        assert not connections_to(server)

    def test_a_thread_that_is_left_behind_ends_by_its_request(
        self, server: LocalDaytona, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "POLL_MARGIN_S", 0.0)
        monkeypatch.setattr(live, "WAIT_S", 0.0)
        monkeypatch.setattr(guest_client, "SHORTEST_REQUEST_S", 1)
        with WorkspaceSession(config_for(server), namespace="demo") as session:
            session.run("true")
            hanging.hold(lambda: touch(server, "go1"))
            session.run(f"echo one; {wait_for('go1')}", timeout_s=60, on_output=CapturedWarnings(server))
            (thread,) = helpers()
            thread.join(60)
            assert not thread.is_alive()
            assert hanging.is_held

    def test_a_cancelled_task_does_not_wait_for_it(self, server: LocalDaytona, hanging: Hanging) -> None:
        received: list[str] = []

        async def work() -> None:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                await session.arun("true")
                loop = asyncio.get_running_loop()
                hanging.hold(lambda: loop.call_soon_threadsafe(task.cancel))
                task = asyncio.create_task(
                    session.arun("echo one; sleep 300", timeout_s=400, on_output=received.append)
                )
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert hanging.is_held
                assert asyncio.all_tasks() == {asyncio.current_task()}
                assert (await session.arun("pgrep -x sleep")).output == ""

        asyncio.run(work())
        hanging.let_go()
        assert received == []

    def test_ctrl_c_does_not_wait_for_it(self, server: LocalDaytona, hanging: Hanging) -> None:
        main = threading.main_thread().ident or 0
        received: list[str] = []
        with WorkspaceSession(config_for(server), namespace="demo") as session:
            session.run("true")
            hanging.hold(lambda: signal.pthread_kill(main, signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                session.run("echo one; sleep 300", timeout_s=400, on_output=received.append)
            assert hanging.is_held
            assert session.run("pgrep -x sleep").output == ""
            hanging.let_go()
        assert received == []

    @pytest.mark.full
    def test_the_interpreter_ends_without_it(self, server: LocalDaytona, hanging: Hanging) -> None:
        # The sandbox is made here, since the fault is for the second request of those that are sent there.
        with WorkspaceSession(config_for(server, persistent=True), namespace="demo") as session:
            session.run("true")
            hanging.hold(lambda: touch(server, "go1"))
            ran = subprocess.run(
                [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM],
                input=json.dumps(config_for(server, persistent=True)),
                capture_output=True,
                text=True,
                timeout=80,
                check=False,
            )
            assert hanging.is_held
            assert (ran.stdout, ran.stderr, ran.returncode) == ("one\nleft behind: 1\n", "", 0)
            session.release()


PROGRAM = f"""
import json, sys, threading
from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._core.commands import streaming as live

live.POLL_MARGIN_S = 600.0
with WorkspaceSession(json.load(sys.stdin), namespace="demo") as session:
    session.run("echo one; {wait_for("go1")}", timeout_s=60, on_output=lambda text: print(text, end=""))
print("left behind:", sum(thread.name == "{HELPER}" for thread in threading.enumerate()))
"""
