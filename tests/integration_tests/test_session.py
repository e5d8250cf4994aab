"""One session against the local server: how often it asks for what, and what it leaves behind."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws import BashTool, SandboxConfig, WorkspaceSession
from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._core.ports import FaultKind, PortFault
from langchain_daytona_ws._core.sandbox import lifecycle
from langchain_daytona_ws.errors import (
    CommandRefused,
    ConfigError,
    FileUnsuitable,
    OutcomeUnknown,
    ProvisionError,
)
from langchain_daytona_ws.local import Fault, LocalDaytona, ManualClock
from tests.integration_tests.conftest import Driven, config_for

Make = Callable[..., Driven]


class TestRequests:
    def test_nothing_is_requested_before_it_is_needed(self, server: LocalDaytona, open_session: Make) -> None:
        driven = open_session(server)
        repr(driven.session)
        assert driven.session.sandbox_id is None
        driven.close()
        assert server.requests == []

    def test_first_use_is_a_create_and_one_execute(self, server: LocalDaytona, workspace: Driven) -> None:
        assert workspace.run("pwd").output == "/mnt/workspaces/demo\n"
        assert [request.action for request in server.requests] == ["create", "execute"]

    def test_a_warm_command_is_one_request(self, server: LocalDaytona, workspace: Driven) -> None:
        workspace.run("true")
        server.clear_requests()
        for _ in range(3):
            workspace.run("true")
        assert [request.action for request in server.requests] == ["execute"] * 3

    def test_warm_file_operations_are_at_most_two_requests(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.run("true")
        calls = [
            ("write", ("a.txt", "one\n"), 1),
            ("write", ("large.txt", "x" * 1_000_000), 2),
            ("read", ("a.txt",), 1),
            ("download", ("a.txt",), 1),
            ("edit", ("a.txt", "one", "two"), 1),
            ("list", (".",), 1),
            ("glob", ("*.txt",), 1),
            ("grep", ("two",), 1),
            ("delete", ("a.txt",), 1),
        ]
        for name, arguments, most in calls:
            server.clear_requests()
            workspace.files(name, *arguments)
            assert len(server.requests) <= most, name

    def test_of_a_download_that_is_too_large_nothing_is_fetched(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.run("truncate -s 134217729 more; printf '\\0\\1' > few")
        assert workspace.files("download", "few") == b"\0\1"
        server.clear_requests()
        with pytest.raises(FileUnsuitable, match="over the limit of 134,217,728"):
            workspace.files("download", "more")
        assert len(server.requests) == 1

    def test_a_large_file_whose_name_no_request_can_hold_is_refused_at_once(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.run(
            r"head -c 300000 /dev/zero > $'\xe9'; ln -s $'\xe9' link; printf x > $'\xe8'; ln -s $'\xe8' short"
        )
        assert workspace.files("download", "short") == b"x"
        server.clear_requests()
        with pytest.raises(FileUnsuitable, match="not UTF-8"):
            workspace.files("download", "link")
        assert len(server.requests) == 1

    def test_a_session_that_starts_with_a_file_needs_no_more(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.files("write", "a.txt", "one\n")
        assert [request.action for request in server.requests] == ["create", "execute"]

    def test_close_deletes_the_sandbox_with_one_request(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.run("true")
        server.clear_requests()
        workspace.close()
        workspace.close()
        assert [request.action for request in server.requests] == ["delete"]
        assert server.sandboxes == []


class TestCreation:
    def test_requests_leak_no_secret(self, server: LocalDaytona, workspace: Driven) -> None:
        workspace.run("true")
        (sandbox,) = server.sandboxes
        assert sandbox.auto_stop_interval == 15
        assert sandbox.auto_delete_interval == 0
        assert sandbox.ttl_minutes == 24 * 60
        assert sandbox.labels["managed-by"] == "langchain-daytona-ws"
        assert sandbox.labels["namespace"] == "demo"

    def test_a_process_that_dies_leaves_nothing_for_long(self, open_session: Make) -> None:
        clock = ManualClock()
        with LocalDaytona(clock=clock) as server:
            driven = open_session(server)
            driven.run("sleep 1000 >/dev/null 2>&1 & echo $!")
            clock.advance(14 * 60)
            assert len(server.sandboxes) == 1
            clock.advance(2 * 60)
            assert server.sandboxes == []
            driven.close()

    def test_threads_that_start_together_share_one(self, server: LocalDaytona) -> None:
        server.faults.add(Fault(kind="latency", action="create", delay_s=0.3))
        with WorkspaceSession(config_for(server), namespace="demo") as session, ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda i: session.run(f"echo {i}").output, range(8)))
        assert results == [f"{i}\n" for i in range(8)]
        assert server.count("create") == 1

    def test_tasks_that_start_together_share_one(self, server: LocalDaytona) -> None:
        server.faults.add(Fault(kind="latency", action="create", delay_s=0.3))

        async def work() -> list[str]:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                results = await asyncio.gather(*(session.arun(f"echo {i}") for i in range(8)))
                return [result.output for result in results]

        assert asyncio.run(work()) == [f"{i}\n" for i in range(8)]
        assert server.count("create") == 1

    def test_threads_and_loops_together_share_one(self, server: LocalDaytona) -> None:
        server.faults.add(Fault(kind="latency", action="create", delay_s=0.3))
        with WorkspaceSession(config_for(server), namespace="demo") as session, ThreadPoolExecutor(6) as pool:

            def item(i: int) -> str:
                if i % 2:
                    return asyncio.run(session.arun(f"echo {i}")).output
                return session.run(f"echo {i}").output

            assert list(pool.map(item, range(6))) == [f"{i}\n" for i in range(6)]
        assert server.count("create") == 1

    def test_a_cancelled_first_caller_hands_over(self, server: LocalDaytona) -> None:
        came, goes_on = threading.Event(), threading.Event()

        def hold() -> None:
            came.set()
            goes_on.wait(60)

        server.faults.add(Fault(kind="act_before", action="create", act=hold, times=1))

        async def work() -> str:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                first = asyncio.create_task(session.arun("echo first"))
                await asyncio.to_thread(came.wait, 60)
                second = asyncio.create_task(session.arun("echo second"))
                await asyncio.sleep(0.1)  # to join the first; a later call joins the first call's result
                first.cancel()
                goes_on.set()
                with pytest.raises(asyncio.CancelledError):
                    await first
                return (await second).output

        assert asyncio.run(work()) == "second\n"
        assert server.sandboxes == []

    def test_env_vars_are_set_at_create_and_sent_with_every_command(
        self, server: LocalDaytona, open_session: Make
    ) -> None:
        driven = open_session(server, envVars={"GREETING": "hello $HOME"})
        assert driven.run("printenv GREETING").output == "hello $HOME\n"
        assert server.sandboxes[0].env == {"GREETING": "hello $HOME"}
        bare = open_session(server, namespace="other")
        assert bare.run("printenv GREETING").exit_code == 1

    def test_workspace_root_is_configurable_and_never_shown(
        self, server: LocalDaytona, open_session: Make
    ) -> None:
        driven = open_session(server, options={"workspaceRoot": "/mnt/else/where"})
        assert driven.run("pwd").output == "/mnt/else/where/demo\n"
        for tool in (driven.bash, driven.file):
            assert "/mnt" not in tool.description
        message = driven.call(driven.file, action="read", path="../../x")
        assert message.status == "error"
        assert "/mnt" not in message.content


@pytest.mark.sync_and_async
class TestCreationFails:
    def test_a_dropped_answer_to_create_makes_no_second_sandbox(
        self, server: LocalDaytona, open_session: Make
    ) -> None:
        server.faults.add(Fault(kind="drop_after", action="create", times=1))
        assert open_session(server).run("echo ok").output == "ok\n"
        assert len(server.sandboxes) == 1

    def test_a_create_that_takes_too_long_is_reaped(
        self, server: LocalDaytona, open_session: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lifecycle, "CREATE_CALL_S", 1.0)
        monkeypatch.setattr(lifecycle, "START_WITHIN_S", 1.0)
        # Deleting it answers 409 for as long as it is being created.
        server.faults.add(Fault(kind="pending", action="create", times=1, delay_s=4))
        driven = open_session(server)
        with pytest.raises(ProvisionError) as caught:
            driven.run("true")
        assert caught.value.code == "create_timeout"
        assert server.sandboxes == []
        assert driven.run("echo ok").output == "ok\n"

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    @pytest.mark.one_in(3)
    def test_passing_faults_are_waited_out(
        self, server: LocalDaytona, open_session: Make, status: int
    ) -> None:
        server.faults.add(Fault(kind="status", status=status, action="create", times=1))
        assert open_session(server).run("echo ok").output == "ok\n"
        assert len(server.sandboxes) == 1

    def test_bad_key(self, server: LocalDaytona, open_session: Make) -> None:
        driven = open_session(server, options={"apiKey": "wrong-key-1234"})
        with pytest.raises(ProvisionError) as caught:
            driven.run("true")
        assert caught.value.code == "unauthorized"
        assert "DAYTONA_API_KEY" in str(caught.value)
        assert "wrong-key-1234" not in f"{caught.value!r}{caught.value}{caught.value.context}"
        assert server.count("get") + server.count("delete") == 0

    @pytest.mark.parametrize(
        ("name", "value"),
        [("HTTP_PROXY", "::secret"), ("SSL_CERT_FILE", "/nowhere"), ("ALL_PROXY", "socks5://127.0.0.1:1")],
    )
    def test_a_wrong_set_up_is_reported_at_once(
        self, server: LocalDaytona, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setitem(sys.modules, "socksio", None)  # not installed
        monkeypatch.setenv(name, value)
        tool = BashTool(session=WorkspaceSession(config_for(server), namespace="demo"))
        with pytest.raises(ConfigError) as caught:
            tool.session.run("true")
        assert caught.value.code == "client"
        assert name in caught.value.message
        assert "secret" not in caught.value.message
        call = {"type": "tool_call", "id": "call_1", "name": "bash", "args": {"command": "true"}}
        assert tool.invoke(call).status == "error"
        assert server.requests == []

    def test_no_key(self, server: LocalDaytona, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DAYTONA_API_KEY", raising=False)
        session = WorkspaceSession({"options": {"apiUrl": server.api_url}}, namespace="demo")
        with pytest.raises(ConfigError, match=r"options\.apiKey.*DAYTONA_API_KEY"):
            session.run("true")

    def test_unknown_snapshot(self, server: LocalDaytona, open_session: Make) -> None:
        with pytest.raises(ProvisionError, match=r"options\.snapshot") as caught:
            open_session(server, options={"snapshot": "no-such"}).run("true")
        assert caught.value.code == "snapshot_not_found"

    def test_another_organization(self, server: LocalDaytona, open_session: Make) -> None:
        driven = open_session(server, options={"organizationId": "somebody-else"})
        with pytest.raises(ProvisionError, match="organizationId") as caught:
            driven.run("true")
        assert caught.value.code == "organization_mismatch"
        assert server.sandboxes == []

    def test_a_sandbox_of_another_organization_that_was_not_deleted_is_deleted_at_the_close(
        self, server: LocalDaytona, open_session: Make
    ) -> None:
        server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
        driven = open_session(server, options={"organizationId": "somebody-else"})
        with pytest.raises(ProvisionError, match="organizationId"):
            driven.run("true")
        assert len(server.sandboxes) == 1
        driven.close()
        assert server.sandboxes == []

    def test_the_right_organization(self, server: LocalDaytona, open_session: Make) -> None:
        assert (
            open_session(server, options={"organizationId": server.organization_id}).run("true").exit_code
            == 0
        )

    def test_a_failure_is_not_remembered(self, server: LocalDaytona, open_session: Make) -> None:
        server.faults.add(Fault(kind="status", status=403, action="create", times=1))
        driven = open_session(server)
        with pytest.raises(ProvisionError):
            driven.run("true")
        assert driven.run("echo ok").output == "ok\n"


class TestLost:
    def test_the_next_result_says_that_the_machine_is_new(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.run("echo kept > file")
        server.destroy_sandbox(server.sandboxes[0].id)
        result = workspace.run("ls")
        assert result.output == ""
        assert "machine was replaced" in result.text
        assert "machine was replaced" not in workspace.run("ls").text

    def test_the_next_file_result_says_so_too(self, server: LocalDaytona, workspace: Driven) -> None:
        workspace.run("true")
        server.destroy_sandbox(server.sandboxes[0].id)
        message = workspace.call(workspace.file, action="list")
        assert "machine was replaced" in message.content

    def test_what_was_read_before_does_not_count(self, server: LocalDaytona, workspace: Driven) -> None:
        workspace.files("write", "a", "1")
        server.destroy_sandbox(server.sandboxes[0].id)
        workspace.run("echo 2 > a")
        message = workspace.call(workspace.file, action="write", path="a", content="3")
        assert message.status == "error"
        assert "read" in message.content

    def test_an_idle_sandbox_is_replaced(self, open_session: Make) -> None:
        clock = ManualClock()
        with LocalDaytona(clock=clock) as server:
            driven = open_session(server)
            driven.run("true")
            clock.advance(3600)
            assert "machine was replaced" in driven.run("echo new").text
            driven.close()

    def test_a_stopped_sandbox_is_started_again(self, server: LocalDaytona, workspace: Driven) -> None:
        workspace.run("echo kept > file")
        sandbox = server.sandboxes[0]
        server.stop_sandbox(sandbox.id)
        if server.sandboxes:  # auto-delete 0 destroys it at once on the real service
            assert workspace.run("cat file").output == "kept\n"
        else:
            assert "machine was replaced" in workspace.run("true").text


@pytest.mark.sync_and_async
class TestOnceOnly:
    def test_dropped_after_execution(self, server: LocalDaytona, workspace: Driven) -> None:
        workspace.run("true")
        server.faults.add(Fault(kind="drop_after", action="execute", times=1))
        result = workspace.run("echo x >> log; wc -l < log")
        assert result.output == "1\n"
        assert workspace.run("wc -l < log").output == "1\n"

    def test_dropped_before_execution(self, server: LocalDaytona, workspace: Driven) -> None:
        workspace.run("true")
        server.faults.add(Fault(kind="drop_before", action="execute", times=1))
        assert workspace.run("echo x >> log; wc -l < log").output == "1\n"

    @pytest.mark.parametrize("kind", ["truncate", "malformed"])
    def test_an_answer_that_cannot_be_read(self, server: LocalDaytona, workspace: Driven, kind: str) -> None:
        workspace.run("true")
        server.faults.add(Fault(kind=kind, action="execute", times=1))
        assert workspace.run("echo x >> log; wc -l < log").output == "1\n"
        assert workspace.run("wc -l < log").output == "1\n"

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    @pytest.mark.one_in(3)
    def test_gateway_errors(self, server: LocalDaytona, workspace: Driven, status: int) -> None:
        workspace.run("true")
        server.faults.add(Fault(kind="status", status=status, action="execute", times=2))
        assert workspace.run("echo x >> log; wc -l < log").output == "1\n"

    def test_an_edit_whose_answer_was_dropped_is_made_once(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.files("write", "a", "one one")
        server.faults.add(Fault(kind="drop_after", action="execute", times=1))
        assert workspace.files("edit", "a", "one one", "one one one").count == 1
        assert workspace.run("cat a").output == "one one one"

    def test_lost_in_the_middle_is_unknown(self, server: LocalDaytona, workspace: Driven) -> None:
        workspace.run("true")
        sandbox = server.sandboxes[0].id
        timer = threading.Timer(0.7, server.destroy_sandbox, (sandbox,))
        timer.start()
        with pytest.raises(OutcomeUnknown) as caught:
            workspace.run("echo x; sleep 30")
        timer.join()
        assert "may have run" in caught.value.for_model
        assert "machine was replaced" in workspace.run("true").text

    def test_a_graph_node_that_runs_again_gets_the_recorded_result(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        first = workspace.call(workspace.bash, "call_7", "thread", command="echo x >> log; wc -l < log")
        again = workspace.call(workspace.bash, "call_7", "thread", command="echo x >> log; wc -l < log")
        assert first.content == "1\n[exit code 0]"
        assert "recorded result" in again.content
        assert again.artifact["from_record"] is True
        assert workspace.run("wc -l < log").output == "1\n"
        other_thread = workspace.call(workspace.bash, "call_7", "other", command="echo x >> log; wc -l < log")
        assert other_thread.content.startswith("2\n")
        other_command = workspace.call(workspace.bash, "call_7", "thread", command="wc -l < log")
        assert other_command.content.startswith("2\n")


class TestCancel:
    def test_cancelling_kills_the_command(self, server: LocalDaytona) -> None:
        async def work() -> None:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                await session.arun("true")
                task = asyncio.create_task(
                    session.arun("sleep 0.3; echo x > started; sleep 60; echo y > ended")
                )
                assert (await session.arun("until test -e started; do sleep 0.05; done")).exit_code == 0
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert (await session.arun("pgrep -f 'sleep 6[0]'")).output == ""

        asyncio.run(work())
        assert server.sandboxes == []

    def test_cancelling_one_that_has_not_arrived_keeps_it_from_running(self, server: LocalDaytona) -> None:
        async def work() -> str:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                await session.arun("true")
                came, goes_on = threading.Event(), threading.Event()

                def hold() -> None:
                    came.set()
                    goes_on.wait(60)

                server.faults.add(Fault(kind="act_before", action="execute", act=hold, times=1))
                task = asyncio.create_task(session.arun("echo ran > ran"))
                await asyncio.to_thread(came.wait, 60)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                goes_on.set()
                while server.open_requests:  # noqa: ASYNC110 - the server has no event to offer
                    await asyncio.sleep(0.01)
                return (await session.arun("ls")).output

        assert asyncio.run(work()) == ""


def test_a_hostile_env_file_steers_nothing(
    server: LocalDaytona, open_session: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "DAYTONA_TARGET=evil\nDAYTONA_OTEL_ENABLED=true\nDAYTONA_ORGANIZATION_ID=evil\n"
    )
    monkeypatch.chdir(tmp_path)
    driven = open_session(server)
    driven.run("true")
    assert server.sandboxes[0].target != "evil"
    ports = (driven.session._state.sandboxes.clients._sync, driven.session._state.sandboxes.clients._async)
    clients = [ports[0]._daytona()] if ports[0] else [item.client for item in ports[1]._loops.values()]  # type: ignore[union-attr]
    assert [client._tracer_provider for client in clients] == [None]


def test_loops_come_and_go(server: LocalDaytona) -> None:
    with WorkspaceSession(config_for(server), namespace="demo") as session:
        for i in range(4):
            assert asyncio.run(session.arun(f"echo {i}")).output == f"{i}\n"
        assert session._state.sandboxes.clients._async is not None
        assert session._state.sandboxes.clients._async._loops == {}


def test_many_threads_share_the_notice_and_all_results_arrive(server: LocalDaytona) -> None:
    with WorkspaceSession(config_for(server), namespace="demo") as session, ThreadPoolExecutor(8) as pool:
        session.run("true")
        server.destroy_sandbox(server.sandboxes[0].id)
        results = list(pool.map(lambda i: session.run(f"echo {i}"), range(8)))
    assert [result.output for result in results] == [f"{i}\n" for i in range(8)]
    assert sum("machine was replaced" in result.text for result in results) == 1


class TestRefused:
    @pytest.mark.parametrize("namespace", ["", "a/b", "..", ".a", "-a", "a\n", "x" * 129])
    def test_namespaces(self, server: LocalDaytona, namespace: str) -> None:
        with pytest.raises(ConfigError):
            WorkspaceSession(config_for(server), namespace=namespace)

    @pytest.mark.parametrize("timeout_s", [0, -1, 601, float("nan")])
    def test_time_outs(self, workspace: Driven, server: LocalDaytona, timeout_s: float) -> None:
        with pytest.raises(CommandRefused):
            workspace.run("true", timeout_s=timeout_s)
        assert server.requests == []

    def test_blank_commands_make_no_request(self, workspace: Driven, server: LocalDaytona) -> None:
        with pytest.raises(CommandRefused):
            workspace.run("  \n")
        message = workspace.call(workspace.bash, command=" ")
        assert (message.status, server.requests) == ("error", [])

    def test_a_config_object_is_taken_as_it_is(self, server: LocalDaytona) -> None:
        config = SandboxConfig.model_validate(config_for(server))
        with WorkspaceSession(config, namespace="demo") as session:
            assert session.run("echo ok").output == "ok\n"


class TestFilesAtOnce:
    def test_no_edit_is_lost_and_none_refused(self, server: LocalDaytona) -> None:
        with WorkspaceSession(config_for(server), namespace="demo") as session, ThreadPoolExecutor(6) as pool:
            lines = [f"line {i}: old" for i in range(24)]
            session.files.write("a", "\n".join(lines))
            list(pool.map(lambda i: session.files.edit("a", f"line {i}: old", f"line {i}: new"), range(24)))
            assert session.run("cat a").output == "\n".join(f"line {i}: new" for i in range(24))

    def test_a_read_sees_no_half_written_file(self, server: LocalDaytona) -> None:
        with WorkspaceSession(config_for(server), namespace="demo") as session, ThreadPoolExecutor(4) as pool:
            session.files.write("a", "0\n" * 200_000)
            writing = [
                pool.submit(session.files.write, "a", f"{i}\n" * 200_000, overwrite=True) for i in range(6)
            ]
            sizes = {session.files.read("a", limit=1).size_bytes for _ in range(12)}
            for item in writing:
                item.result()
        assert sizes == {400_000}


def test_old_files_and_deep_trees_are_ordinary(workspace: Driven) -> None:
    workspace.run("echo x > old; touch -d 1960-01-01 old; n=$(printf 'd%.0s' {1..250}); "
                  "for i in {1..36}; do mkdir $n && cd $n; done; touch deep.py")  # fmt: skip
    assert workspace.files("read", "old").lines == 1
    found = workspace.files("glob", "**/*")
    assert [entry.name for entry in found.entries] == ["old"]
    assert found.more


def test_a_command_whose_answer_is_lost_is_not_sent_to_the_next_sandbox(
    server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = WorkspaceSession(config_for(server), namespace="demo")
    session.run("true")
    execute, is_first = SyncDaytonaPort.execute, [True]

    def replace_the_sandbox() -> None:
        server.destroy_sandbox(str(session.sandbox_id))
        session.run("true")

    async def lost_once(port: SyncDaytonaPort, *given: Any, **named: Any) -> Any:
        was_first, is_first[0] = is_first[0], False
        reply = await execute(port, *given, **named)
        if was_first:
            thread = threading.Thread(target=replace_the_sandbox)
            thread.start()
            thread.join()
            raise PortFault(FaultKind.DROPPED, "the connection was closed")
        return reply

    monkeypatch.setattr(SyncDaytonaPort, "execute", lost_once)
    with pytest.raises(OutcomeUnknown) as raised:  # it has run in the sandbox that is gone
        session.run("echo ran")
    assert raised.value.code == "lost_while_running"
    session.close()
