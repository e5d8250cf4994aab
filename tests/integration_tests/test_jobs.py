"""Background jobs through the real SDK: sync and async, across sessions, and across a stop of the sandbox."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from langchain_daytona_ws import (
    BashJobTool,
    CommandRefused,
    Job,
    JobError,
    JobLine,
    OutcomeUnknown,
    PermissionDecision,
    PermissionRequest,
    WorkspaceSession,
)
from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.sdk import Account
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.jobs.keep_alive import JobTracker
from langchain_daytona_ws._core.jobs.operations import JobOps
from langchain_daytona_ws._core.ports import ExecReply, SandboxInfo, SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync as driven
from langchain_daytona_ws._core.sync.push import OneSandbox
from langchain_daytona_ws.local import Fault, LocalDaytona, ManualClock
from tests.integration_tests.conftest import Driven, config_for
from tests.integration_tests.s3 import Bucket, bucket, host_keys

__all__ = ["bucket", "host_keys"]  # fixtures

OpenSession = Callable[..., Driven]
LONG = "sleep 600"
MINUTE = 60
GO = "while [ ! -e /tmp/go ]; do sleep 0.02; done"


def jobs(workspace: Driven, name: str, *arguments: Any, **named: Any) -> Any:
    """Call ``session.jobs`` through the face that the test is over."""
    if workspace.runner is None:
        return getattr(workspace.session.jobs, name)(*arguments, **named)
    return workspace.runner.run(getattr(workspace.session.jobs, f"a{name}")(*arguments, **named))


def job_tool(workspace: Driven) -> BashJobTool:
    return BashJobTool(session=workspace.session)


def printed(workspace: Driven, job: Job, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in jobs(workspace, "logs", job.id).output:
        assert time.monotonic() < deadline


def followed(workspace: Driven, job_id: str, **start: Any) -> Iterator[JobLine]:
    """Follow a job through the runtime that the test is over."""
    if workspace.runner is None:
        yield from workspace.session.jobs.follow(job_id, **start)
        return
    lines = aiter(workspace.session.jobs.afollow(job_id, **start))
    while (line := workspace.runner.run(anext(lines, None))) is not None:  # type: ignore[arg-type]
        yield line


def intervals(server: LocalDaytona) -> list[int]:
    """List what the auto-stop interval was set to."""
    return [int(item.path.rpartition("/")[2]) for item in server.requests if "/autostop/" in item.path]


class TestSession:
    def test_a_job_from_its_start_to_its_end(self, server: LocalDaytona, workspace: Driven) -> None:
        job = jobs(workspace, "start", f"echo begun; {GO}; echo done; exit 3", max_duration_s=600)
        assert (job.is_running, job.exit_code, round(job.ends_at - job.started_at)) == (True, None, 600)
        assert job.sandbox_id == workspace.session.sandbox_id
        assert job.notices == ("it ends with this session",)
        printed(workspace, job, "begun")
        assert jobs(workspace, "status", job.id).is_running
        assert jobs(workspace, "join", job.id, timeout_s=0.2).is_running
        workspace.run("touch /tmp/go")
        ended = jobs(workspace, "join", job.id)
        assert (ended.state, ended.exit_code) == ("finished", 3)
        assert jobs(workspace, "logs", job.id, offset=6).output == "done\n"
        assert [item.id for item in jobs(workspace, "list")] == [job.id]
        assert server.count("create") == 1

    def test_following_yields_lines_while_they_come(self, workspace: Driven) -> None:
        job = jobs(workspace, "start", f"echo one; printf two; {GO}; echo; echo three >&2; exit 4")
        lines = followed(workspace, job.id)
        first = next(lines)
        assert (first.kind, first.text, first.next_offset, first.job.is_running) == (
            "output",
            "one\n",
            4,
            True,
        )
        workspace.run("touch /tmp/go")
        *rest, end = lines
        assert [line.text for line in rest] == ["two\n", "three\n"]
        assert (end.kind, end.job.state, end.job.exit_code, end.next_offset) == ("end", "finished", 4, 14)
        assert [line.text for line in followed(workspace, job.id, offset=4)][:-1] == ["two\n", "three\n"]
        assert [line.text for line in followed(workspace, job.id, tail_lines=1)][:-1] == ["three\n"]
        with pytest.raises(JobError, match="no job"):
            next(followed(workspace, "abcd2345"))
        with pytest.raises(CommandRefused, match="not both"):
            next(followed(workspace, job.id, offset=1, tail_lines=1))

    def test_waiting_for_output_takes_one_request(self, server: LocalDaytona, workspace: Driven) -> None:
        job = jobs(workspace, "start", "echo a; sleep 1.2; echo b")
        printed(workspace, job, "a")
        before = server.count("execute")
        assert [line.text for line in followed(workspace, job.id)][:-1] == ["a\n", "b\n"]
        # The output so far, the wait for the line, and that for the end, unless both came at once.
        assert server.count("execute") - before <= 3

    def test_a_stop_ends_all_processes(self, workspace: Driven) -> None:
        job = jobs(workspace, "start", f"setsid {LONG} & echo begun; {LONG}")
        printed(workspace, job, "begun")
        assert jobs(workspace, "stop", job.id).state == "stopped"
        assert "sleep 600" not in workspace.run("ps axo args").output
        assert jobs(workspace, "stop", job.id).state == "stopped"

    def test_starting_a_job_takes_one_request_more_than_a_command(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.run("true")
        before = len(server.requests)
        job = jobs(workspace, "start", LONG)
        assert len(server.requests) == before + 2
        jobs(workspace, "status", job.id)
        workspace.run("true")
        workspace.files("write", "f", "x")
        assert len(server.requests) == before + 5
        jobs(workspace, "stop", job.id)
        assert len(server.requests) == before + 7  # it put the interval back
        workspace.run("true")
        workspace.run("true")
        assert len(server.requests) == before + 9
        assert intervals(server) == [75, 15]

    def test_a_request_that_is_sent_twice_starts_one_job(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        workspace.run("true")
        server.faults.add(Fault("drop_after", action="execute"))
        job = jobs(workspace, "start", f"echo x >> ran; {LONG}")
        assert [item.id for item in jobs(workspace, "list")] == [job.id]
        assert workspace.run("cat ran").output == "x\n"

    def test_ten_of_eleven_concurrent_starts_succeed(self, server: LocalDaytona) -> None:
        async def start_all() -> list[Job | BaseException]:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                starts = (session.jobs.astart(f"echo x >> ran; {LONG}") for _ in range(11))
                made = await asyncio.gather(*starts, return_exceptions=True)
                shown = await session.jobs.alist()
                assert {job.id for job in shown} == {job.id for job in made if isinstance(job, Job)}
                return made

        made = asyncio.run(start_all())
        refused = [item for item in made if isinstance(item, JobError)]
        assert (len(made), len(refused), refused[0].code) == (11, 1, "jobs_full")
        assert server.count("create") == 1

    def test_the_end_is_reported_once_to_a_waiting_caller(self, server: LocalDaytona) -> None:
        ended: list[Job] = []
        settings = config_for(server)
        with WorkspaceSession(settings, namespace="demo", on_job_done=ended.append) as session:
            first, second = session.jobs.start("exit 1"), session.jobs.start(f"{GO}; exit 2")
            session.jobs.join(first.id)
            session.jobs.status(first.id)
            assert [(job.id, job.exit_code) for job in ended] == [(first.id, 1)]
            results = [session.run("touch /tmp/go")]
            deadline = time.monotonic() + 60
            while len(ended) < 2:  # any call detects it, including this one, and adds a notice
                results.append(session.run("true"))
                assert time.monotonic() < deadline
            assert (ended[1].id, ended[1].exit_code) == (second.id, 2)
            reported = [result.text for result in (*results, session.run("true")) if second.id in result.text]
            assert len(reported) == 1
            assert f"job {second.id} finished" in reported[0]
            assert "exit code 2" in reported[0]

    def test_errors_of_on_job_done_are_logged(
        self, server: LocalDaytona, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(job: Job) -> None:
            raise ValueError("mine")

        with WorkspaceSession(config_for(server), namespace="demo", on_job_done=fail) as session:
            job = session.jobs.start("true")
            assert session.jobs.join(job.id).state == "finished"
        assert "on_job_done failed" in caplog.text

    def test_refused_calls_send_nothing(self, server: LocalDaytona, workspace: Driven) -> None:
        with pytest.raises(CommandRefused):
            jobs(workspace, "start", " ")
        with pytest.raises(CommandRefused):
            jobs(workspace, "start", "true", max_duration_s=86_401)
        with pytest.raises(JobError):
            jobs(workspace, "status", "../../etc/passwd")
        assert server.requests == []


class TestTools:
    def test_bash_starts_a_job_and_bash_job_reports_it(self, workspace: Driven) -> None:
        message = workspace.call(
            workspace.bash, command=f"echo hello; {GO}; exit 4", background=True, timeout=900
        )
        job_id = message.artifact["id"]
        assert message.status == "success"
        assert f"job {job_id} running" in message.content
        assert "stopped after 900 s" in message.content
        assert "ends with this session" in message.content
        tool = job_tool(workspace)
        workspace.run("touch /tmp/go")
        jobs(workspace, "join", job_id)
        status = workspace.call(tool, action="status", job_id=job_id)
        assert f"job {job_id} finished" in status.content
        assert "exit code 4" in status.content
        assert status.artifact["exit_code"] == 4
        logs = workspace.call(tool, action="logs", job_id=job_id, tail=5)
        assert logs.content.startswith("hello\n[bytes 0 to 6 of 6]")
        assert logs.artifact["next_offset"] == 6
        assert workspace.call(tool, action="logs", job_id=job_id, offset=2).content.startswith("llo\n")
        listed = workspace.call(tool, action="list")
        assert job_id in listed.content
        assert [job["id"] for job in listed.artifact["jobs"]] == [job_id]
        assert "[it had ended before]" in workspace.call(tool, action="stop", job_id=job_id).content

    def test_the_exit_codes_of_a_jobs_pipeline_are_reported(self, workspace: Driven) -> None:
        message = workspace.call(workspace.bash, command="echo a; exit 3 | tail -1", background=True)
        job = jobs(workspace, "join", message.artifact["id"])
        assert (job.exit_code, job.pipeline) == (0, (3, 0))
        assert ", exit code 0 (in the pipeline: 3, 0)" in job.text

    def test_a_call_that_a_graph_repeats_starts_no_second_job(self, workspace: Driven) -> None:
        first = workspace.call(workspace.bash, thread="t", command=LONG, background=True)
        again = workspace.call(workspace.bash, thread="t", command=LONG, background=True)
        assert again.artifact["id"] == first.artifact["id"]
        assert "this call was made before" in again.content
        assert workspace.call(workspace.bash, thread="t", command="echo x").content == "x\n[exit code 0]"
        assert len(jobs(workspace, "list")) == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            {"action": "status"}, {"action": "kill", "job_id": "abcd2345"}, {"action": "logs", "job_id": "x"},
            {"action": "logs", "job_id": "abcd2345", "tail": 1, "offset": 1}, {"action": "stop", "job_id": "../../x"},
            {"action": "logs", "job_id": "abcd2345", "offset": -1}, {"action": "status", "job_id": "a" * 10_000},
        ],
    )  # fmt: skip
    def test_invalid_arguments_send_nothing(
        self, server: LocalDaytona, workspace: Driven, arguments: dict[str, Any]
    ) -> None:
        message = workspace.call(job_tool(workspace), **arguments)
        assert message.status == "error"
        assert len(message.content) < 400
        assert server.requests == []

    def test_time_outs_out_of_range_are_refused(self, server: LocalDaytona, workspace: Driven) -> None:
        for arguments in ({"timeout": 601}, {"timeout": 3601, "background": True}, {"hours": 2}):
            message = workspace.call(workspace.bash, command="true", **arguments)
            assert message.status == "error"
        assert server.requests == []

    def test_a_job_of_more_than_an_hour_is_requested_in_hours(self, workspace: Driven) -> None:
        message = workspace.call(workspace.bash, command="true", background=True, hours=2)
        assert "stopped after 7200 s" in message.content

    def test_only_a_start_and_a_stop_need_approval(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        asked: list[PermissionRequest] = []

        def answer(request: PermissionRequest) -> PermissionDecision:
            asked.append(request)
            return PermissionDecision.allow() if len(asked) % 2 else PermissionDecision.deny("not now")

        workspace = open_session(server, approver=answer, permissionMode="edit")
        tool = job_tool(workspace)
        job_id = workspace.call(workspace.bash, command=LONG, background=True).artifact["id"]
        for action in ("status", "logs", "list"):
            assert workspace.call(tool, action=action, job_id=job_id).status == "success"
        assert [request.summary for request in asked] == [f"bash (in the background): {LONG}"]
        assert asked[0].arguments["background"] is True
        denied = workspace.call(tool, action="stop", job_id=job_id)
        assert denied.status == "error"
        assert "not now" in denied.content
        assert jobs(workspace, "status", job_id).is_running
        assert workspace.call(tool, action="stop", job_id=job_id).artifact["state"] == "stopped"
        assert asked[1].summary == f"bash_job stop: {job_id}, {LONG}"
        assert dict(asked[1].arguments) == {"action": "stop", "job_id": job_id}

    def test_approval_is_requested_before_a_sandbox_is_created(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        workspace = open_session(server, permissionMode="ask")
        assert workspace.call(workspace.bash, command="true", background=True).status == "error"
        assert workspace.call(job_tool(workspace), action="stop", job_id="abcd2345").status == "error"
        assert server.requests == []

    def test_the_limit_of_jobs_is_reported_with_a_remedy(self, workspace: Driven) -> None:
        begun = [jobs(workspace, "start", LONG).id for _ in range(10)]
        message = workspace.call(workspace.bash, command="echo x > ran", background=True)
        assert message.status == "error"
        assert "10 jobs are running" in message.content
        assert "Stop one with bash_job" in message.content
        assert all(job_id in message.content for job_id in begun)
        assert workspace.run("ls").output == ""

    def test_a_command_becomes_a_job_at_its_time_out(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        workspace = open_session(server, onTimeout="background")
        assert "goes on as a job" in workspace.bash.description
        message = workspace.call(workspace.bash, command=f"echo early; {GO}; echo late", timeout=0.5)
        job_id = message.artifact["job_id"]
        assert message.artifact["timed_out"] is True
        assert f"[still running as job {job_id}]" in message.content
        assert "early" in message.content
        assert "ends with this session" in message.content
        assert workspace.call(workspace.bash, command="touch /tmp/go").status == "success"
        assert jobs(workspace, "join", job_id).exit_code == 0
        assert jobs(workspace, "logs", job_id, offset=0).output == "early\nlate\n"
        assert intervals(server) == [75, 15]


class KeptSandbox:
    """A sandbox that outlives a stop, and the jobs in it as one session after another sees them."""

    def __init__(self, server: LocalDaytona) -> None:
        self.port = SyncDaytonaPort(Account(api_key=server.api_key, api_url=server.api_url, target=None))
        self.info: SandboxInfo = driven(self.port.create(SandboxSpec(name="kept"), timeout_s=60))

    def session(self) -> JobOps:
        tracker = JobTracker(15, None, lambda *_: None, lambda _: None)

        sandbox = OneSandbox(self.info, is_persistent=True)

        async def guest_client() -> GuestClient:
            return GuestClient(
                self.port,
                sandbox,
                sandbox.acquire,
                {},
                lambda: f"{time.monotonic_ns():032x}",
                attachments=[tracker],
            )

        return JobOps(
            guest_client, tracker, root="/tmp/ws", limit_bytes=65_536, defaults=None, remarks=lambda job: ()
        )

    def start(self, command: str) -> Job:
        return driven(self.session().start(command, max_duration_s=None, idempotency_key=None))


@pytest.fixture
def kept(server: LocalDaytona) -> KeptSandbox:
    return KeptSandbox(server)


class TestSandbox:
    def test_a_stop_of_the_sandbox_loses_its_running_jobs(
        self, server: LocalDaytona, kept: KeptSandbox
    ) -> None:
        done = kept.start("echo done; exit 6")
        driven(kept.session().join(done.id, timeout_s=None))
        begun = [kept.start(f"echo begun; {LONG}") for _ in range(10)]
        server.stop_sandbox(kept.info.id)
        ops = kept.session()
        found = {job.id: job for job in driven(ops.list())}
        assert found[done.id].exit_code == 6
        for job in begun:
            assert (found[job.id].state, found[job.id].reason) == (
                "lost",
                "the machine was stopped or restarted",
            )
        assert driven(ops.logs(begun[0].id, tail_lines=None, offset=0, limit_bytes=None)).output == "begun\n"
        assert driven(ops.logs(done.id, tail_lines=None, offset=0, limit_bytes=None)).output == "done\n"
        assert kept.start(LONG).is_running

    def test_the_interval_is_restored_after_a_stop_of_the_sandbox(
        self, server: LocalDaytona, kept: KeptSandbox
    ) -> None:
        kept.start(LONG)
        server.stop_sandbox(kept.info.id)
        ops = kept.session()
        driven(ops.list())
        driven(ops.list())
        assert intervals(server) == [75, 15]

    def test_following_reports_a_restart_of_the_sandbox(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        workspace = open_session(server, persistent=True)
        job = jobs(workspace, "start", f"echo begun; {LONG}")
        printed(workspace, job, "begun")
        lines = followed(workspace, job.id)
        assert next(lines).text == "begun\n"
        server.stop_sandbox(server.sandboxes[0].id)
        notice, end = lines
        assert (notice.kind, notice.text) == ("notice", "the machine was stopped and has been started again")
        assert (end.kind, end.job.state) == ("end", "lost")
        assert "the machine was stopped or restarted" in end.text

    def test_jobs_outlive_the_session_of_a_persistent_sandbox(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        first = open_session(server, persistent=True)
        job = jobs(first, "start", f"echo begun; {GO}; exit 8")
        assert job.notices == ()
        first.close()
        second = open_session(server, persistent=True)
        assert jobs(second, "status", job.id).is_running
        second.run("touch /tmp/go")
        assert jobs(second, "join", job.id).exit_code == 8
        assert server.count("create") == 1
        second.run("true")
        assert intervals(server)[-1] == intervals(server)[0] - 60
        _release(second)

    def test_a_pickled_session_reports_the_end_of_a_job_elsewhere(
        self, server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = config_for(server, persistent=True)
        with WorkspaceSession(settings, namespace="demo", on_job_done=_note_end) as session:
            job = session.jobs.start("exit 9")
            pickled = pickle.dumps(session)
        monkeypatch.setenv("DAYTONA_API_KEY", server.api_key)
        with pickle.loads(pickled) as again:
            assert again.jobs.join(job.id).exit_code == 9
            _ended.clear()
            again.jobs.join(again.jobs.start("exit 8").id)
            assert [job.exit_code for job in _ended] == [8]
            again.release()

    def test_a_job_keeps_an_ephemeral_sandbox_for_as_long_as_it_may_take(self) -> None:
        clock = ManualClock()
        with LocalDaytona(clock=clock) as server:
            with WorkspaceSession(config_for(server), namespace="demo") as session:
                job = session.jobs.start(LONG, max_duration_s=3600)
                clock.advance(74 * MINUTE)
                assert [record.state for record in server.sandboxes] == ["started"]
                assert session.jobs.stop(job.id).state == "stopped"
                clock.advance(16 * MINUTE)
                assert server.sandboxes == []

    def test_the_jobs_of_a_lost_sandbox_are_lost(self, server: LocalDaytona) -> None:
        ended: list[Job] = []
        with WorkspaceSession(config_for(server), namespace="demo", on_job_done=ended.append) as session:
            job = session.jobs.start(LONG)
            server.destroy_sandbox(str(session.sandbox_id))
            with pytest.raises(JobError):
                session.jobs.status(job.id)
            assert [(item.id, item.state, item.reason) for item in ended] == [
                (job.id, "lost", "the machine is gone")
            ]

    def test_closing_an_ephemeral_session_ends_its_jobs(
        self, server: LocalDaytona, open_session: OpenSession
    ) -> None:
        workspace = open_session(server)
        jobs(workspace, "start", LONG)
        workspace.close()
        assert server.sandboxes == []


_ended: list[Job] = []


def _note_end(job: Job) -> None:
    _ended.append(job)


def _release(workspace: Driven) -> None:
    if workspace.runner is None:
        workspace.session.release()
    else:
        workspace.runner.run(workspace.session.arelease())


class TestStorage:
    def test_a_job_works_on_the_mount(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = bucket.session(open_session)
        job = jobs(workspace, "start", "echo from the job > f.txt")
        assert jobs(workspace, "join", job.id).exit_code == 0
        assert bucket.get("f.txt") == b"from the job\n"
        assert job.notices[0] == "it ends with this session"  # the keys in envVars do not end
        assert job.notices[1].startswith("its output goes to f.txt: if anything opens that file before")
        assert len(job.notices) == 2
        assert bucket.server.count("create") == 1
        assert [path for path in bucket.paths() if path != "f.txt"] == []

    def test_a_log_contains_the_hint_for_the_failure(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = bucket.session(open_session)
        job = jobs(workspace, "start", "echo x > /tmp/f.txt; cp /tmp/f.txt f.txt; mv f.txt g.txt")
        assert jobs(workspace, "join", job.id).exit_code == 1
        assert (
            "[hint: Files here cannot be renamed. Use: cp -r f.txt g.txt"
            in jobs(workspace, "logs", job.id).text
        )

    def test_output_that_is_not_in_the_workspace_is_at_no_risk(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = bucket.session(open_session)
        job = jobs(workspace, "start", "echo x > /tmp/f.txt; cp /tmp/f.txt f.txt")
        assert job.notices == ("it ends with this session",)
        jobs(workspace, "join", job.id)

    @pytest.mark.full
    @pytest.mark.usefixtures("host_keys")
    def test_waiting_renews_the_credentials_of_a_job(self, bucket: Bucket, open_session: OpenSession) -> None:
        bucket.server.s3.credential_lifetime_s = 20.0  # long enough to mount on a busy machine
        workspace = bucket.session(open_session, role=True)
        job = jobs(
            workspace,
            "start",
            "for i in {1..50}; do echo $i > f.txt || exit 1; sleep 0.5; done",
            max_duration_s=240,
        )
        assert "its writes to the workspace begin to fail at" in job.text
        deadline = time.monotonic() + 240
        while job.is_running:
            job = jobs(workspace, "join", job.id, timeout_s=0.5)
            assert time.monotonic() < deadline
        assert (job.state, job.exit_code) == ("finished", 0)
        assert bucket.get("f.txt") == b"50\n"

    @pytest.mark.usefixtures("host_keys")
    def test_a_job_that_ends_before_the_credentials_has_no_notice_of_them(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = bucket.session(open_session, role=True)
        assert "begin to fail" not in jobs(workspace, "start", "true", max_duration_s=60).text
        assert "begin to fail" in jobs(workspace, "start", "true", max_duration_s=7200).text


def test_a_question_about_one_job_does_not_hide_the_end_of_another(workspace: Driven) -> None:
    thread = "one"
    ends = workspace.call(workspace.bash, "c1", thread, command="true", background=True).artifact["id"]
    other = workspace.call(workspace.bash, "c2", thread, command=LONG, background=True).artifact["id"]
    seen = ""
    deadline = time.monotonic() + 60
    while workspace.session._state.tracker.command_of(ends) is not None:
        assert time.monotonic() < deadline
        seen += workspace.call(job_tool(workspace), "c3", thread, action="status", job_id=other).content
    seen += workspace.call(workspace.bash, "c4", thread, command="true").content
    assert f"job {ends} finished" in seen


def test_a_late_request_to_a_lost_sandbox_does_not_lose_jobs(
    server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Job] = []
    session = WorkspaceSession(config_for(server), namespace="demo", on_job_done=done.append)
    session.run("true")
    execute, is_first = SyncDaytonaPort.execute, [True]

    def replace_the_sandbox() -> None:
        server.destroy_sandbox(str(session.sandbox_id))
        session.run("true")
        session.jobs.start(LONG)

    async def unreadable_once(port: SyncDaytonaPort, *given: Any, **named: Any) -> Any:
        reply = None if is_first[0] else await execute(port, *given, **named)
        if reply is None:
            is_first[0] = False
            thread = threading.Thread(target=replace_the_sandbox)
            thread.start()
            thread.join()
            reply = ExecReply(exit_code=0, output="not an answer")
        return reply

    monkeypatch.setattr(SyncDaytonaPort, "execute", unreadable_once)
    with pytest.raises(OutcomeUnknown):
        session.run("true")
    assert done == []  # the job runs in the new sandbox
    session.close()
