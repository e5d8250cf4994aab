"""Persistent sandboxes: one for each workspace, shared by all processes; kept, restarted, replaced, released."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from langchain_daytona_ws import HookFailed, PermissionDecision, PermissionRequest, WorkspaceSession
from langchain_daytona_ws.errors import ConfigError, ProvisionError, SandboxUnavailable, SessionClosed
from langchain_daytona_ws.local import Fault, LocalDaytona, ManualClock
from tests.integration_tests import claimants
from tests.integration_tests.conftest import Driven, config_for

OpenSession = Callable[..., Driven]

PROCESSES = 20
# `CLAIM_ROUNDS=100 make test ARGS="-k twenty"` for the long run.
ROUNDS = int(os.environ.get("CLAIM_ROUNDS", "5"))


@pytest.fixture
def clocked() -> Iterator[LocalDaytona]:
    with LocalDaytona(clock=ManualClock()) as running:
        yield running


def actions(server: LocalDaytona) -> list[str]:
    return [request.action for request in server.requests]


def test_closing_leaves_it_and_the_next_session_finds_it(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    first = open_session(server, persistent=True)
    first.run("echo kept > /tmp/f; echo here > f")
    first.close()
    assert len(server.sandboxes) == 1
    server.clear_requests()
    second = open_session(server, persistent=True)
    assert second.run("cat /tmp/f f").output == "kept\nhere\n"
    assert actions(server) == ["get", "execute"]
    assert second.session.sandbox_id == first.session.sandbox_id


def test_the_first_use_searches_creates_and_runs(server: LocalDaytona, open_session: OpenSession) -> None:
    open_session(server, persistent=True).run("true")
    assert actions(server) == ["get", "create", "execute"]
    [sandbox] = server.sandboxes
    assert sandbox.labels["managed-by"] == "langchain-daytona-ws"
    assert (sandbox.labels["namespace"], sandbox.labels["lifetime"]) == ("demo", "persistent")
    assert (sandbox.auto_stop_interval, sandbox.auto_delete_interval) == (15, 7 * 24 * 60)
    assert (sandbox.auto_archive_interval, sandbox.ttl_minutes) == (0, 0)


def test_size_user_and_labels(server: LocalDaytona, open_session: OpenSession) -> None:
    options = {"image": "python:3.12", "resources": {"cpu": 2, "memoryGiB": 4}, "user": "root"}
    labels = {"team": "ml", "old": "1"}
    open_session(server, persistent=True, options={**options, "labels": labels}).run("true")
    [sandbox] = server.sandboxes
    assert (sandbox.cpu, sandbox.memory, sandbox.disk, sandbox.user) == (2, 4, 3, "root")
    assert (sandbox.labels["team"], sandbox.labels["old"]) == ("ml", "1")
    later = open_session(server, persistent=True, options={**options, "labels": {"team": "web"}})
    later.run("true")
    [sandbox] = server.sandboxes
    assert (sandbox.labels["team"], sandbox.labels["old"]) == ("web", "1")
    assert sandbox.labels["namespace"] == "demo"
    server.clear_requests()
    later.run("true")
    assert actions(server) == ["execute"]
    with pytest.raises(ProvisionError, match="resources, user, target") as caught:
        open_session(server, persistent=True, options={**options, "user": "daytona"}).run("true")
    assert caught.value.code == "config_changed"


@pytest.mark.parametrize(
    ("options", "code", "remedy"),
    [
        ({"image": "x", "resources": {"cpu": 5}}, "resources", "Lower options.resources"),
        ({"image": "x", "resources": {"diskGiB": 11}}, "resources", "Disk request 11GB exceeds"),
        ({"user": "nobody-here"}, "user_not_found", "correct options.user"),
    ],
)
def test_a_refused_size_or_user_names_the_remedy(
    server: LocalDaytona,
    open_session: OpenSession,
    options: dict[str, Any],
    code: str,
    remedy: str,
) -> None:
    for persistent in (True, False):
        with pytest.raises(ProvisionError, match=remedy) as caught:
            open_session(server, persistent=persistent, options=options).run("true")
        assert caught.value.code == code
        assert server.sandboxes == []


def test_releasing_deletes_it_used_or_not(server: LocalDaytona, open_session: OpenSession) -> None:
    open_session(server, persistent=True).run("true")
    session = WorkspaceSession(config_for(server, persistent=True), namespace="demo")
    session.release()
    assert server.sandboxes == []
    session.release()  # again: there is none


async def test_releasing_from_a_loop(server: LocalDaytona) -> None:
    session = WorkspaceSession(config_for(server, persistent=True), namespace="demo")
    await session.arun("true")
    await session.arelease()
    assert server.sandboxes == []


async def test_releasing_on_a_loop_that_is_just_claiming_leaves_none(server: LocalDaytona) -> None:
    server.faults.add(Fault("latency", "create", delay_s=0.3))
    session = WorkspaceSession(config_for(server, persistent=True), namespace="demo")
    running = asyncio.create_task(session.arun("true"))
    while not server.count("create"):  # noqa: ASYNC110 - the server has no event to offer
        await asyncio.sleep(0)
    session.release()  # cannot wait for what only this loop can finish
    with pytest.raises(SessionClosed):
        await running
    assert server.sandboxes == []


async def test_a_sync_call_on_the_loop_that_runs_the_hooks_is_refused(server: LocalDaytona) -> None:
    hook = "touch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.05; done"
    session = WorkspaceSession(config_for(server, persistent=True, onResume=hook), namespace="demo")
    with WorkspaceSession(config_for(server, persistent=True), namespace="demo") as other:
        running = asyncio.create_task(session.arun("echo ran"))
        await other.arun("until [ -e /tmp/begun ]; do sleep 0.05; done")
        with pytest.raises(SandboxUnavailable) as caught:
            session.run("true")
        assert caught.value.code == "would_deadlock"
        await other.arun("touch /tmp/go")
        assert (await running).output == "ran\n"
        await other.aclose()
    await session.aclose()


def test_a_repeated_start_does_not_keep_the_sandbox_running(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    session = open_session(server, persistent=True).session
    job = session.jobs.start("true", idempotency_key="name")
    session.jobs.join(job.id)
    for _ in range(2):
        session.run("true")
    assert server.sandboxes[0].auto_stop_interval == 15
    again = open_session(server, persistent=True).session
    for item in (session, again):
        assert item.jobs.start("true", idempotency_key="name").id == job.id
        item.run("true")
        assert server.sandboxes[0].auto_stop_interval == 15


def test_each_workspace_has_its_own(server: LocalDaytona, open_session: OpenSession) -> None:
    for namespace in ("one", "two", "ONE"):
        open_session(server, persistent=True, namespace=namespace).run("true")
    assert len(server.sandboxes) == 3


def test_a_stopped_sandbox_is_started_by_the_next_session(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    open_session(server, persistent=True).run("echo kept > /tmp/f; sleep 600 >/dev/null 2>&1 &")
    server.stop_sandbox(server.sandboxes[0].id)
    server.clear_requests()
    result = open_session(server, persistent=True).run("cat /tmp/f; pgrep -x sleep")
    assert (result.output, result.exit_code) == ("kept\n", 1)
    assert "started again" in result.notices[0]
    assert actions(server) == ["get", "start", "get", "execute"]


def test_a_stopped_sandbox_is_started_by_an_open_session(
    clocked: LocalDaytona, open_session: OpenSession
) -> None:
    workspace = open_session(clocked, persistent=True, lifecycle={"idleTimeoutSeconds": 60})
    workspace.run("echo kept > /tmp/f")
    clocked.clock.advance(61)
    assert clocked.sandboxes[0].state == "stopped"
    result = workspace.run("cat /tmp/f")
    assert result.output == "kept\n"
    assert "started again" in result.notices[0]
    assert workspace.run("cat /tmp/f").notices == ()


def test_an_unused_sandbox_is_deleted(clocked: LocalDaytona, open_session: OpenSession) -> None:
    lifecycle = {"idleTimeoutSeconds": 60, "maxLifetimeSeconds": 3600}
    open_session(clocked, persistent=True, lifecycle=lifecycle).run("true")
    clocked.clock.advance(61)
    assert [sandbox.state for sandbox in clocked.sandboxes] == ["stopped"]
    clocked.clock.advance(3600)
    assert clocked.sandboxes == []


def test_a_deleted_sandbox_is_replaced_with_a_notice(server: LocalDaytona, open_session: OpenSession) -> None:
    workspace = open_session(server, persistent=True)
    workspace.run("touch /tmp/f")
    server.destroy_sandbox(workspace.session.sandbox_id or "")
    result = workspace.run("ls /tmp/f")
    assert result.exit_code == 2
    assert "machine was replaced" in result.notices[0]


def test_a_replacement_by_another_session_is_reported(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    item, other = open_session(server, persistent=True), open_session(server, persistent=True)
    other.run("true")
    item.run("true")
    server.destroy_sandbox(item.session.sandbox_id or "")
    for workspace in (item, other):
        assert "machine was replaced" in workspace.run("true").notices[0]
    assert item.session.sandbox_id == other.session.sandbox_id


def test_a_restart_is_reported_once_per_session(server: LocalDaytona) -> None:
    config = config_for(server, persistent=True, onResume="echo resumed >> /tmp/log")
    sessions = [WorkspaceSession(config, namespace="demo") for _ in range(2)]
    for session in sessions:
        session.run("true")
    server.stop_sandbox(server.sandboxes[0].id)
    server.faults.add(Fault("latency", "start", delay_s=0.3))
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda session: session.run("wc -l < /tmp/log"), sessions * 3))
    reported = [[result.notices for result in results[runtime::2] if result.notices] for runtime in (0, 1)]
    assert [len(notices) for notices in reported] == [1, 1]
    # Each session's own hook came before any of its commands.
    assert all(int(result.output) > 2 for result in results)
    assert sessions[0].run("wc -l < /tmp/log").output == "4\n"


def test_a_failed_sandbox_is_replaced_with_a_notice(server: LocalDaytona, open_session: OpenSession) -> None:
    open_session(server, persistent=True).run("touch /tmp/f")
    server.stop_sandbox(server.sandboxes[0].id)
    server.faults.add(Fault("fail", "start"))
    result = open_session(server, persistent=True).run("ls /tmp/f")
    assert result.exit_code == 2
    assert "replaced" in result.notices[0]
    assert len(server.sandboxes) == 1


def test_another_configuration_does_not_take_it_away(server: LocalDaytona, open_session: OpenSession) -> None:
    open_session(server, persistent=True).run("true")
    other = open_session(server, persistent=True, options={"workspaceRoot": "/srv/other"})
    with pytest.raises(ProvisionError, match="release") as caught:
        other.run("true")
    assert caught.value.code == "config_changed"
    assert len(server.sandboxes) == 1


@pytest.mark.full
@pytest.mark.timeout(600 if ROUNDS > 5 else 240)
def test_twenty_processes_at_once_get_one_sandbox(server: LocalDaytona) -> None:
    for action in ("get", "create", "execute"):
        server.faults.add(
            Fault("latency", action, times=None, probability=0.5, delay_s=0.05, seed=1),
            Fault("status", action, times=None, probability=0.1, status=503, seed=2),
            Fault("drop_before", action, times=None, probability=0.1, seed=3),
            Fault("drop_after", action, times=None, probability=0.1, seed=4),
        )
    config = config_for(server, persistent=True, onCreate="echo set up >> /tmp/hook")
    context = claimants.forkserver()
    barrier, reported = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(target=claimants.claim_each_round, args=(config, ROUNDS, barrier, reported))
        for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    answers = [reported.get(timeout=200) for _ in range(PROCESSES * ROUNDS)]
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    for number in range(ROUNDS):
        where = {sandbox for round_number, sandbox, _ in answers if round_number == number}
        assert len(where) == 1
    assert {output for *_, output in answers} == {"set up\n"}
    server.faults.clear()
    assert len(server.sandboxes) == ROUNDS
    for number in range(ROUNDS):
        session = WorkspaceSession(config, namespace=f"round-{number}")
        assert session.run("wc -l < /tmp/starts").output == f"{PROCESSES}\n"
        session.release()
    assert server.sandboxes == []


def allow(request: PermissionRequest) -> PermissionDecision:
    return PermissionDecision.allow()


def test_a_pickled_session_reconnects_and_holds_no_secret(
    server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WorkspaceSession(config_for(server, persistent=True), namespace="demo", approver=allow) as session:
        session.run("echo kept > /tmp/f")
        pickled = pickle.dumps(session)
    assert server.api_key.encode() not in pickled
    monkeypatch.setenv("DAYTONA_API_KEY", server.api_key)
    with pickle.loads(pickled) as again:
        assert again.run("cat /tmp/f").output == "kept\n"
        assert again._gate.approver is allow
        again.release()
    with WorkspaceSession(config_for(server), namespace="demo") as ephemeral:
        with pytest.raises(TypeError, match="persistent"):
            pickle.dumps(ephemeral)
    secret = WorkspaceSession(config_for(server, persistent=True, envVars={"A": "b"}), namespace="demo")
    with pytest.raises(ConfigError, match="envVars"):
        pickle.dumps(secret)


class TestHooks:
    def test_on_create_once_on_resume_each_time(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        hooks: dict[str, Any] = {
            "onCreate": ["echo create >> /tmp/log", "echo then >> /tmp/log"],
            "onResume": "echo resume >> /tmp/log",
        }
        first = open_session(server, persistent=True, **hooks)
        assert first.run("cat /tmp/log").output == "create\nthen\nresume\n"
        assert first.run("cat /tmp/log").output == "create\nthen\nresume\n"
        second = open_session(server, persistent=True, **hooks)
        assert second.run("cat /tmp/log").output == "create\nthen\n" + "resume\n" * 2
        server.stop_sandbox(server.sandboxes[0].id)
        assert second.run("cat /tmp/log").output == "create\nthen\n" + "resume\n" * 3

    def test_a_failure_keeps_the_command_from_running(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        hook = "echo tried >> /tmp/log; echo broken; [ -e /tmp/mended ]"
        workspace = open_session(server, persistent=True, onCreate=["echo once >> /tmp/log", hook])
        for _ in range(2):
            with pytest.raises(HookFailed, match="broken") as caught:
                workspace.run("touch /tmp/ran")
            assert caught.value.code == "on_create_failed"
            assert hook in caught.value.message
            assert caught.value.context["exit_code"] == 1
            assert "broken" not in caught.value.for_model
        plain = WorkspaceSession(config_for(server, persistent=True), namespace="demo")
        assert plain.run("ls /tmp/ran; touch /tmp/mended").exit_code == 0
        assert "once\ntried\ntried\n" in plain.run("cat /tmp/log").output
        assert workspace.run("cat /tmp/log").output == "once\ntried\ntried\ntried\n"

    def test_a_half_finished_one_is_run_again(self, server: LocalDaytona, open_session: OpenSession) -> None:
        hook = "echo begun >> /tmp/log; [ -e /tmp/again ] || { touch /tmp/again; sleep 60; }; echo done >> /tmp/log"
        workspace = open_session(server, persistent=True, onCreate=hook)

        def stop_in_the_midst_of_it() -> None:
            with WorkspaceSession(config_for(server, persistent=True), namespace="demo") as other:
                other.run("until [ -e /tmp/again ]; do sleep 0.05; done")
                server.stop_sandbox(other.sandbox_id or "")

        with ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(stop_in_the_midst_of_it)
            result = workspace.run("cat /tmp/log")
            stopped.result()
        assert result.output == "begun\nbegun\ndone\n"

    def test_on_create_runs_once_in_a_replaced_sandbox(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        settings: dict[str, Any] = {"persistent": True, "onCreate": "echo create >> /tmp/log; [ -e /tmp/ok ]"}
        workspace = open_session(server, **settings)
        with pytest.raises(HookFailed):
            workspace.run("true")
        server.destroy_sandbox(server.sandboxes[0].id)
        with pytest.raises(HookFailed):
            workspace.run("true")
        plain = WorkspaceSession(config_for(server, persistent=True), namespace="demo")
        plain.run("touch /tmp/ok")
        assert workspace.run("cat /tmp/log").output == "create\n" * 2
        assert open_session(server, **settings).run("cat /tmp/log").output == "create\n" * 2

    def test_an_unknown_hook_outcome_does_not_apply_to_the_command(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        hook = "[ -e /tmp/again ] || { touch /tmp/again; kill -9 $PPID; sleep 60; }"
        with pytest.raises(HookFailed, match="was not run") as caught:
            open_session(server, onResume=hook).run("touch /tmp/ran")
        assert caught.value.code == "hook_unknown"
        assert "may have run" not in caught.value.for_model

    def test_on_resume_in_an_ephemeral_sandbox(self, server: LocalDaytona, open_session: OpenSession) -> None:
        workspace = open_session(server, onResume="echo resumed > /tmp/log")
        assert workspace.run("cat /tmp/log").output == "resumed\n"
        assert workspace.files("write", "f", "x").created


@pytest.mark.parametrize("mode", ["deny-all", "allow-all"])
def test_the_network_is_blocked_or_not(server: LocalDaytona, open_session: OpenSession, mode: str) -> None:
    workspace = open_session(server, network={"mode": mode})
    interfaces = workspace.run("ls /sys/class/net | grep -v ^lo; true").output.split()
    assert server.sandboxes[0].network_block_all is (mode == "deny-all")
    reach = workspace.run(f"exec 5<>/dev/tcp/127.0.0.1/{server.api_url.rpartition(':')[2].split('/')[0]}")
    assert (reach.exit_code == 0) is (mode == "allow-all"), interfaces


def test_restricted_is_sent_as_ranges_and_domains(server: LocalDaytona, open_session: OpenSession) -> None:
    network = {"mode": "restricted", "allowCidrs": ["192.0.2.0/24"], "allowDomains": ["example.org"]}
    workspace = open_session(server, network=network, options={"enforceDomainAllowList": True})
    with pytest.raises(ProvisionError):  # the local server does not enforce it, and reports that
        workspace.run("true")


def test_prewarming_leaves_the_first_command_one_request(
    server: LocalDaytona, open_session: OpenSession
) -> None:
    workspace = open_session(server)
    workspace.session.prewarm()
    assert workspace.run("echo ready").output == "ready\n"
    _prewarmed()
    assert server.count("create") == 1
    before = server.count("execute")
    workspace.run("true")
    assert server.count("execute") == before + 1


def test_the_first_command_raises_the_error_of_prewarming(
    server: LocalDaytona, open_session: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = open_session(server, options={"snapshot": "no-such"})
    workspace.session.prewarm()
    _prewarmed()
    assert "prewarming" in caplog.text
    with pytest.raises(ProvisionError, match="no-such"):
        workspace.run("true")


def test_closing_while_prewarming_leaves_nothing(server: LocalDaytona) -> None:
    server.faults.add(Fault("latency", "create", delay_s=0.5))
    session = WorkspaceSession(config_for(server), namespace="demo")
    session.prewarm()
    session.close()
    _prewarmed()
    assert server.sandboxes == []


def _prewarmed() -> None:
    for thread in threading.enumerate():
        if thread.name == "langchain-daytona-ws-prewarm":
            thread.join()
