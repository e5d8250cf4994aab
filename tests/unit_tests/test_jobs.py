"""Background jobs: the guest programs under real zsh, bash and dash, and what the host makes of their answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._core.commands.run import CommandResult, run_command
from langchain_daytona_ws._core.guest_rpc import payload as script
from langchain_daytona_ws._core.guest_rpc.attachments import GuestRequest
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.guest_rpc.payload import guest_source
from langchain_daytona_ws._core.jobs.keep_alive import JobTracker
from langchain_daytona_ws._core.jobs.models import UNSAVED, Job, JobLog, read_job
from langchain_daytona_ws._core.jobs.operations import STARTED_BEFORE, STATE_UNKNOWN, JobOps, job_request
from langchain_daytona_ws._core.ports import ExecReply, FaultKind, PortFault
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._guest import job_log, job_store
from langchain_daytona_ws._guest import jobs as guest_jobs
from langchain_daytona_ws._session.jobs import WorkspaceJobs
from langchain_daytona_ws.errors import CommandRefused, JobError, OutcomeUnknown, SandboxError
from langchain_daytona_ws.permissions import PermissionRequest, needs_approval
from tests.unit_tests.attached import exchange
from tests.unit_tests.daemon import ShellPort, guest_client

LONG = "sleep 600"
ROW = {
    "id": "abcd2345", "state": "finished", "command": "true", "started_ms": 1000, "ends_ms": 5000, "ended_ms": 3000,
    "exit_code": 0, "reason": "", "log_bytes": 7, "duration_ms": 2000,
}  # fmt: skip


class Port(ShellPort):
    """The shell, whose auto-stop interval is only noted; descriptors of the daemon's are left open to it."""

    def __init__(self, shell: str, directory: Path) -> None:
        super().__init__(shell, directory)
        self.autostop: list[int] = []

    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply:
        opened = "exec 3</etc/passwd 9</etc/hostname\n"
        return await super().execute(sandbox_id, opened + script, env=env, timeout_s=timeout_s)

    async def set_autostop(self, sandbox_id: str, minutes: int) -> None:
        self.autostop.append(minutes)

    async def sleep(self, seconds: float) -> None:
        return None


def faulty(execute: Callable[..., Any], faults: list[PortFault | None]) -> Callable[..., Any]:
    """Return an ``execute`` whose answers are replaced by these faults in turn; None keeps an answer."""

    async def run(*args: Any, **settings: Any) -> ExecReply:
        reply: ExecReply = await execute(*args, **settings)
        if fault := faults.pop(0):
            raise fault
        return reply

    return run


class Jobs:
    """A workspace on this host, and the jobs in it."""

    def __init__(self, shell: str, directory: Path) -> None:
        self.root = directory / "workspaces" / "ns"
        self.port = Port(shell, directory)
        self.ended: list[Job] = []
        self.reported: list[str] = []
        self.tracker, self.guest_client, self.ops = self.session()
        self.jobs = WorkspaceJobs(self.ops, self.ops, session=self)
        self.state = self.port.tmp / f".langchain-daytona-ws-{os.getuid()}" / "jobs"

    def session(self) -> tuple[JobTracker, GuestClient, JobOps]:
        """Return what a session of its own has."""
        tracker = JobTracker(15, 24 * 60, lambda job, _: self.ended.append(job), self.reported.append)
        guest_client = self.new_client(tracker)

        async def current() -> GuestClient:
            return self.new_client(tracker)

        ops = JobOps(
            current, tracker, root=str(self.root), limit_bytes=65_536, defaults=None, remarks=lambda job: ()
        )
        return tracker, guest_client, ops

    def new_client(self, tracker: JobTracker) -> GuestClient:
        return guest_client(self.port, attachments=[tracker])

    def start(self, command: str, **settings: Any) -> Job:
        return self.jobs.start(command, **settings)

    def run(self, command: str, *, timeout_s: float = 20, limit_bytes: int = 65_536) -> CommandResult:
        """Run a command that goes on as a job when its time is up."""
        goes_on = job_request(command, 600, self.tracker, at_once=False)
        return run_sync(
            run_command(
                self.guest_client, str(self.root), command, timeout_s=timeout_s, limit_bytes=limit_bytes, key=None,
                job=goes_on,
            )
        )  # fmt: skip

    def log(self, job_id: str) -> str:
        """Read a log from its start to its end, piece by piece."""
        text, offset = "", 0
        while True:
            piece = self.jobs.logs(job_id, offset=offset)
            assert piece.offset == offset
            text, offset = text + piece.output, piece.next_offset
            if offset == piece.size_bytes and not piece.job.is_running:
                return text

    def printed(self, job_id: str, text: str) -> None:
        """Wait until a job has printed something."""
        self.until(lambda: text in self.jobs.logs(job_id, tail_lines=100).output)

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def record(self, job_id: str, name: str = "about") -> dict[str, Any]:
        return dict(json.loads((self.state / job_id / name).read_text()))

    def hung(self, monkeypatch: pytest.MonkeyPatch, *, kill_s: float, push_s: float) -> tuple[Job, int]:
        """Start a job of a synchronised workspace whose supervisor hangs, for `stop_here` with these times.

        Return the job and the supervisor's pid.
        """
        monkeypatch.setattr(guest_jobs, "STOP_WAIT_S", kill_s)
        monkeypatch.setattr(job_store, "PUSH_WAIT_S", push_s)
        job = self.start(f"echo begun; {LONG}")
        self.printed(job.id, "begun")
        record = self.record(job.id)
        os.kill(record["pid"], signal.SIGSTOP)
        (self.state / job.id / "about").write_text(json.dumps({**record, "is_pushed": True}))
        return job, record["pid"]

    def stop_here(self, job_id: str) -> bool:
        """Stop a job by the guest's code in this process; return whether the job was running."""
        jobs = os.open(self.state, os.O_RDONLY)
        try:
            return guest_jobs._stop(jobs, job_id)
        finally:
            os.close(jobs)

    def alive(self) -> list[str]:
        """List what runs in the workspace, by its working directory."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                where, line = os.readlink(f"/proc/{name}/cwd"), Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if where.startswith(str(self.root)) and line:
                found.append(line.decode())
        return found

    def close(self) -> None:
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if str(self.root.parent.parent).encode() in file.read_bytes():
                    os.kill(int(file.parent.name), signal.SIGKILL)
        self.until(lambda: not self.alive())


@pytest.fixture(params=["zsh", "bash", "dash"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs("bash", tmp_path)
    yield made
    made.close()


class TestStart:
    def test_a_start_returns_at_once_and_the_end_is_recorded(self, anywhere: Jobs) -> None:
        job = anywhere.start("echo begun; while [ ! -e go ]; do sleep 0.02; done; echo done >&2; exit 3")
        assert anywhere.jobs.status(job.id).state == "running"
        anywhere.printed(job.id, "begun")
        (anywhere.root / "go").touch()
        ended = anywhere.jobs.join(job.id)
        assert (ended.state, ended.exit_code, ended.log_bytes) == ("finished", 3, len("begun\ndone\n"))
        assert ended.ended_at is not None
        assert ended.ended_at >= ended.started_at
        assert anywhere.log(job.id) == "begun\ndone\n"

    def test_a_job_has_the_environment_of_a_command(self, bash: Jobs) -> None:
        bash.run("echo run")
        job = bash.start(
            'pwd; cat; echo $?; echo "$GIT_TERMINAL_PROMPT"; env | grep -c ^LANGCHAIN; ulimit -c'
        )
        bash.jobs.join(job.id)
        assert bash.log(job.id).splitlines()[:4] == [str(bash.root), "0", "0", "1"]

    def test_a_job_inherits_no_file_descriptor_of_the_call(self, bash: Jobs) -> None:
        job = bash.start('for fd in /proc/$$/fd/*; do readlink "$fd"; done; while :; do sleep 1; done')
        bash.printed(job.id, "/dev/null")
        about = bash.record(job.id)
        held = [os.readlink(fd) for fd in Path(f"/proc/{about['pid']}/fd").iterdir()]
        own = bash.jobs.logs(job.id, tail_lines=50).output.splitlines()
        for names in (held, own):
            assert not {"/etc/passwd", "/etc/hostname"} & set(names)
        pipe = own[1]
        assert own[2] == pipe
        assert [name for name in own if name.startswith("pipe:") and name != pipe] == []
        # The command's output, and the two ends of the bell.
        assert len([name for name in held if name.startswith("pipe:")]) == 3
        assert os.readlink(f"/proc/{about['pid']}/cwd") == "/"
        assert os.getsid(about["pid"]) == about["pid"]

    def test_a_syntax_error_starts_nothing(self, anywhere: Jobs) -> None:
        with pytest.raises(CommandRefused, match="syntax error") as caught:
            anywhere.start("echo ran > ran\nif")
        assert caught.value.code == "command_syntax"
        assert anywhere.jobs.list() == ()
        assert not (anywhere.root / "ran").exists()

    def test_the_key_of_a_command_starts_nothing(self, anywhere: Jobs) -> None:
        run_sync(
            run_command(
                anywhere.guest_client,
                str(anywhere.root),
                "exit 2",
                timeout_s=20,
                limit_bytes=65_536,
                key="k1",
            )
        )
        with pytest.raises(CommandRefused, match="belongs to an earlier call") as caught:
            anywhere.start("sleep 60", idempotency_key="k1")
        assert caught.value.code == "idempotency_key"
        assert anywhere.jobs.list() == ()

    @pytest.mark.parametrize("command", ["", " ", "a\0", "\ud800"])
    @pytest.mark.parametrize("max_duration_s", [None, 0, -1, 86_401, float("nan")])
    def test_invalid_arguments_of_a_start_send_nothing(
        self, bash: Jobs, command: str, max_duration_s: float | None
    ) -> None:
        with pytest.raises(CommandRefused):
            bash.start(command or "true", max_duration_s=max_duration_s or 0)
        with pytest.raises(CommandRefused):
            bash.start(command)
        with pytest.raises(CommandRefused):
            bash.start("true", idempotency_key="../x")
        assert bash.port.scripts == []

    def test_the_same_key_starts_one_job(self, bash: Jobs) -> None:
        made: list[Job] = []
        threads = [
            threading.Thread(
                target=lambda: made.append(bash.start("echo x >> log; sleep 600", idempotency_key="a1"))
            )
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({job.id for job in made}) == 1
        assert sorted(len(job.notices) for job in made) == [0, 1, 1]
        assert len(bash.jobs.list()) == 1
        bash.jobs.stop(made[0].id)
        again = bash.start("echo x >> log; sleep 600", idempotency_key="a1")
        assert (again.id, again.state) == (made[0].id, "stopped")
        assert (bash.root / "log").read_text() == "x\n"

    def test_a_repeated_start_returns_its_job_though_the_state_cannot_be_read(
        self, bash: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = bash.start(LONG, idempotency_key="a1")
        refused = PortFault(FaultKind.REFUSED, "no", status=403)
        monkeypatch.setattr(bash.port, "execute", faulty(bash.port.execute, [None, refused]))
        again = bash.start(LONG, idempotency_key="a1")
        assert again == replace(job, notices=(STARTED_BEFORE, STATE_UNKNOWN))

    def test_a_stop_whose_answers_are_lost_is_an_unknown_outcome(
        self, bash: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job, execute = bash.start(LONG), bash.port.execute
        lost, refused = PortFault(FaultKind.DROPPED, "cut"), PortFault(FaultKind.REFUSED, "no", status=403)
        monkeypatch.setattr(bash.port, "execute", faulty(execute, [lost, refused]))
        with pytest.raises(OutcomeUnknown):
            bash.jobs.stop(job.id)
        monkeypatch.setattr(bash.port, "execute", execute)
        assert bash.jobs.status(job.id).state == "stopped"

    def test_a_stop_whose_answer_is_lost_returns_its_record(
        self, bash: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = bash.start(LONG)
        lost = PortFault(FaultKind.DROPPED, "cut")
        monkeypatch.setattr(bash.port, "execute", faulty(bash.port.execute, [lost, None]))
        stopped, was_running = run_sync(bash.ops.stop(job.id))
        assert (stopped.state, was_running) == ("stopped", True)

    def test_a_background_process_belongs_to_its_job(self, bash: Jobs) -> None:
        job = bash.start("(echo from below; sleep 600) & echo from above; exit 7")
        bash.printed(job.id, "from below")
        bash.until(lambda: bash.jobs.status(job.id).exit_code is not None)
        shown = bash.jobs.status(job.id)
        assert (shown.state, shown.exit_code) == ("running", 7)
        assert "its shell has ended, exit code 7" in shown.summary
        assert bash.jobs.stop(job.id).state == "stopped"
        assert bash.alive() == []

    def test_a_job_ends_at_its_max_duration(self, bash: Jobs) -> None:
        job = bash.start("trap '' TERM; setsid sleep 600 & echo a; sleep 600; sleep 600", max_duration_s=0.5)
        ended = bash.jobs.join(job.id)
        assert (ended.state, ended.exit_code) == ("timed_out", 124)
        assert bash.alive() == []

    def test_signals_of_the_agent_do_not_end_the_supervisor(self, bash: Jobs) -> None:
        job = bash.start(
            "kill -TERM $PPID; kill -HUP $PPID; pkill -TERM -P $PPID python3; echo alive; exit 4"
        )
        assert bash.jobs.join(job.id).exit_code == 4
        assert bash.log(job.id) == "alive\n"


class TestStop:
    @pytest.mark.parametrize(
        "command",
        [
            "sleep 601 & wait",
            "setsid sleep 601 & (setsid sleep 601 &) & sleep 601",
            "nohup setsid bash -c 'sleep 601' >/dev/null 2>&1 & sleep 601",
            "trap '' TERM; (trap '' TERM; while :; do sleep 601; done) & while :; do sleep 601; done",
            "env -i setsid sleep 601 & sleep 601",
        ],
    )
    @pytest.mark.one_in(4)
    def test_a_stop_ends_all_processes(self, anywhere: Jobs, command: str) -> None:
        job = anywhere.start(f"echo begun; {command}")
        anywhere.printed(job.id, "begun")
        stopped = anywhere.jobs.stop(job.id)
        assert (stopped.state, stopped.exit_code) == ("stopped", 130)
        assert anywhere.alive() == []

    def test_a_trap_runs_before_the_stop_kills(self, bash: Jobs) -> None:
        job = bash.start("trap 'echo tidied; exit 9' TERM; echo begun; while :; do sleep 0.05; done")
        bash.printed(job.id, "begun")
        bash.jobs.stop(job.id)
        assert bash.log(job.id).endswith("tidied\n")

    def test_stopping_an_ended_job_changes_nothing(self, bash: Jobs) -> None:
        job = bash.start("exit 5")
        bash.jobs.join(job.id)
        ended, was_running = run_sync(bash.ops.stop(job.id))
        assert (ended.state, ended.exit_code, was_running) == ("finished", 5, False)

    def test_a_hung_supervisor_is_killed(self, bash: Jobs) -> None:
        job = bash.start("echo begun; sleep 600")
        bash.printed(job.id, "begun")
        os.kill(bash.record(job.id)["pid"], signal.SIGSTOP)
        stopped = bash.jobs.stop(job.id)
        assert (stopped.state, stopped.exit_code) == ("stopped", 137)
        assert bash.alive() == []

    def test_a_stop_waits_for_the_last_push(self, bash: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
        job, supervisor = bash.hung(monkeypatch, kill_s=0.1, push_s=60)
        timer = threading.Timer(1, os.kill, (supervisor, signal.SIGCONT))
        timer.start()
        assert bash.stop_here(job.id)
        timer.join()
        assert (bash.jobs.status(job.id).exit_code, bash.jobs.status(job.id).notices) == (130, ())

    def test_a_job_killed_during_its_last_push_may_have_unsaved_files(
        self, bash: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job, _ = bash.hung(monkeypatch, kill_s=0.1, push_s=0.1)
        assert bash.stop_here(job.id)
        assert (bash.jobs.status(job.id).exit_code, bash.jobs.status(job.id).notices) == (137, (UNSAVED,))

    def test_a_stop_leaves_other_jobs_running(self, bash: Jobs) -> None:
        kept, ended = bash.start(LONG), bash.start(LONG)
        bash.jobs.stop(ended.id)
        assert bash.jobs.status(kept.id).state == "running"


def test_a_record_that_is_nested_too_deeply_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "keep_alive").write_text("[" * 60_000)
    at = os.open(tmp_path, os.O_RDONLY)
    try:
        assert job_store.load(at, "keep_alive") == {}
    finally:
        os.close(at)


class TestTen:
    def test_ten_of_eleven_concurrent_starts_succeed(self, bash: Jobs) -> None:
        begun: list[Job] = []
        refused: list[JobError] = []

        def start() -> None:
            try:
                begun.append(bash.start(f"echo x >> ran; {LONG}"))
            except JobError as error:
                refused.append(error)

        threads = [threading.Thread(target=start) for _ in range(11)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len({job.id for job in begun}), len(refused)) == (10, 1)
        assert refused[0].code == "jobs_full"
        assert all(job.id in refused[0].for_model for job in begun)
        bash.until(lambda: (bash.root / "ran").read_text() == "x\n" * 10)
        assert {job.id for job in bash.jobs.list() if job.is_running} == {job.id for job in begun}
        bash.jobs.stop(begun[0].id)
        assert bash.start(LONG).is_running
        with pytest.raises(JobError):
            bash.start(LONG)

    def test_a_refused_start_can_be_repeated_with_its_key(self, bash: Jobs) -> None:
        jobs = [bash.start(LONG) for _ in range(10)]
        with pytest.raises(JobError):
            bash.start("echo now", idempotency_key="b1")
        bash.jobs.stop(jobs[3].id)
        again = bash.start("echo now", idempotency_key="b1")
        assert again.notices == ()
        bash.jobs.join(again.id)
        assert bash.log(again.id) == "now\n"


class TestLost:
    def test_a_job_whose_supervisor_was_killed_is_lost(self, bash: Jobs) -> None:
        jobs = [bash.start(f"echo begun; {LONG}") for _ in range(10)]
        bash.printed(jobs[0].id, "begun")
        os.kill(bash.record(jobs[0].id)["pid"], signal.SIGKILL)
        lost = bash.jobs.join(jobs[0].id)
        assert lost.ended_at is not None
        assert lost.ended_at >= lost.started_at
        assert (lost.state, lost.exit_code, lost.reason) == ("lost", None, "its supervisor was killed")
        assert bash.record(jobs[0].id, "end")["state"] == "lost"
        assert len(bash.alive()) == 9
        assert bash.start(LONG).is_running

    def test_a_job_of_an_earlier_boot_is_lost(self, bash: Jobs) -> None:
        job = bash.start(f"echo begun; {LONG}")
        bash.printed(job.id, "begun")
        about = bash.record(job.id)
        os.kill(about["pid"], signal.SIGKILL)
        (bash.state / job.id / "about").write_text(json.dumps({**about, "boot": "another 1"}))
        bash.until(lambda: not bash.jobs.status(job.id).is_running)
        assert bash.jobs.status(job.id).reason == "the machine was stopped or restarted"
        assert len(bash.alive()) == 1  # the process with its number now does not belong to the job

    def test_a_start_whose_runner_dies_starts_no_job(self, bash: Jobs) -> None:
        source = guest_source("job_run")
        assert "    try:\n        job.publish()" in source
        broken = source.replace(
            "    try:\n        job.publish()", "    os.kill(os.getpid(), 9)\n    try:\n        pass"
        )
        with _replaced("job_run", broken), pytest.raises(OutcomeUnknown):
            bash.start(f"echo x >> log; {LONG}", idempotency_key="c1")
        assert bash.alive() == []
        assert bash.jobs.list() == ()
        with pytest.raises(OutcomeUnknown):
            bash.start(f"echo x >> log; {LONG}", idempotency_key="c1")


class TestFullDisk:
    FULL = "raise OSError(28, 'No space left on device')\n"

    def test_a_full_disk_is_detected_before_the_command_runs(self, bash: Jobs) -> None:
        source, begins = guest_source("job_store"), "    fd = os.open(name, os.O_WRONLY | os.O_CREAT"
        assert begins in source
        with _replaced("job_store", source.replace(begins, f"    {self.FULL}{begins}")):
            with pytest.raises(SandboxError, match="No space left") as caught:
                bash.start(f"echo x >> log; {LONG}", idempotency_key="c1")
        assert caught.value.code == "state_directory"
        assert bash.jobs.list() == ()
        assert bash.start("echo x >> log", idempotency_key="c1").is_running  # nothing had run
        bash.until(lambda: bash.run("cat log").output == "x\n")

    def test_a_job_that_cannot_be_recorded_is_ended(self, bash: Jobs) -> None:
        source, begins = (
            guest_source("job_run"),
            '        job_store.save(self._directory, "about", self._record(started',
        )
        assert begins in source
        with _replaced("job_run", source.replace(begins, f"        {self.FULL}{begins}")):
            with pytest.raises(SandboxError):
                bash.start(f"echo x >> log; {LONG}", idempotency_key="c1")
        bash.until(lambda: not bash.alive())  # the process that has answered ends a moment later
        assert bash.jobs.list() == ()
        with pytest.raises(OutcomeUnknown):
            bash.start(f"echo x >> log; {LONG}", idempotency_key="c1")


@contextlib.contextmanager
def _replaced(name: str, source: str) -> Iterator[None]:
    original = script.guest_source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "guest_source", lambda wanted: source if wanted == name else original(wanted))
        script._source.cache_clear()
        yield
    script._source.cache_clear()


class TestLog:
    def test_the_log_of_a_huge_output_is_bounded_with_true_offsets(self, bash: Jobs) -> None:
        job = bash.start("seq -f %015.0f 0 2999999")  # lines of 16 bytes: 48 MB
        ended = bash.jobs.join(job.id)
        assert ended.log_bytes == 48_000_000
        on_disk = sum(file.stat().st_size for file in (bash.state / job.id).iterdir())
        assert on_disk < 16 * 1024 * 1024 + 65_536
        first = bash.jobs.logs(job.id, offset=0)
        assert first.output.startswith("000000000000000\n000000000000001\n")
        middle = bash.jobs.logs(job.id, offset=20_000_000, limit_bytes=4096)
        assert middle.offset > 20_000_000
        assert "are not kept" in middle.text
        assert middle.output == "".join(
            f"{i:015d}\n" for i in range(middle.offset // 16, middle.next_offset // 16)
        )
        before = bash.jobs.logs(job.id, offset=4 * 1024 * 1024 - 32)
        assert before.next_offset == 4 * 1024 * 1024
        last = bash.jobs.logs(job.id, tail_lines=2)
        assert (last.offset, last.output) == (48_000_000 - 32, "000000002999998\n000000002999999\n")
        assert last.next_offset == last.size_bytes == 48_000_000
        assert bash.jobs.logs(job.id, offset=1 << 40).next_offset == 48_000_000

    def test_a_log_is_read_while_it_is_written(self, bash: Jobs) -> None:
        job = bash.start("seq -f %015.0f 0 99999999")
        offset = 0
        for number in range(40):
            tail = bash.jobs.logs(job.id, tail_lines=3)
            assert (
                tail.output[-16:-1] == f"{tail.next_offset // 16 - 1:015d}"
                or tail.next_offset % 16
                or not number
            )
            piece = bash.jobs.logs(job.id, offset=offset, limit_bytes=16_000)
            assert piece.next_offset >= piece.offset >= offset
            first = piece.output[-piece.offset % 16 :][:15]
            assert len(piece.output) < 31 or first == f"{(piece.offset + 15) // 16:015d}"
            offset = piece.next_offset + 100_000
        bash.jobs.stop(job.id)

    def test_output_that_imitates_an_answer_is_output(self, bash: Jobs) -> None:
        forged = '{"outcome": "job", "job": {"id": "aaaaaaaa"}, "keep_alive": {"over": true}}'
        (bash.root).mkdir(parents=True)
        raw = b"a\0b\x1b[31mred\xff\xfe" + forged.encode() + "\nżółć 🐍\u2028".encode() + bytes(range(256))
        (bash.root / "raw").write_bytes(raw)
        job = bash.start("cat raw; tr '\\0' '\\n' < /proc/$PPID/environ | head -c 100; exit 6")
        assert bash.jobs.join(job.id).exit_code == 6
        assert bash.log(job.id).startswith(raw.decode("utf-8", "replace"))

    def test_a_piece_of_a_log_has_whole_characters(self, bash: Jobs) -> None:
        bash.root.mkdir(parents=True)
        text = "aż🐍\u0800" * 100
        (bash.root / "text").write_text(text)
        job = bash.start("cat text")
        bash.jobs.join(job.id)
        read, offset = "", 0
        while offset < len(text.encode()):
            piece = bash.jobs.logs(job.id, offset=offset, limit_bytes=64)
            assert 60 < piece.next_offset - piece.offset <= 64 or piece.next_offset == piece.size_bytes
            read, offset = read + piece.output, piece.next_offset
        assert read == text

    def test_an_incomplete_character_is_returned_when_complete(self, bash: Jobs) -> None:
        job = bash.start(r"printf 'a\303'; while [ ! -e go ]; do sleep 0.02; done; printf '\263b\303'")
        bash.until(lambda: bash.jobs.status(job.id).log_bytes == 2)
        first = bash.jobs.logs(job.id, offset=0)
        assert (first.output, first.next_offset, first.is_more_to_come) == ("a", 1, True)
        (bash.root / "go").touch()
        bash.jobs.join(job.id)
        assert bash.jobs.logs(job.id, offset=1).output == "ób\ufffd"

    def test_invalid_arguments_of_a_query_send_nothing(self, bash: Jobs) -> None:
        for wrong in (
            {"offset": -1}, {"offset": 1 << 60}, {"tail_lines": 0}, {"tail_lines": 10_001}, {"limit_bytes": 1},
            {"limit_bytes": 65_537}, {"offset": 0, "tail_lines": 1},
        ):  # fmt: skip
            with pytest.raises(CommandRefused):
                bash.jobs.logs("abcd2345", **wrong)
        for wrong_id in (
            "",
            "../../..",
            "abcd234",
            "abcd23456",
            "ABCD2345",
            "abcd234l",
            "abcd2345\n",
            "abcd234\0",
        ):
            for ask in (bash.jobs.status, bash.jobs.logs, bash.jobs.stop, bash.jobs.join):
                with pytest.raises(JobError):
                    ask(wrong_id)
        assert bash.port.scripts == []
        with pytest.raises(JobError) as caught:
            bash.jobs.status("abcd2345")
        assert caught.value.code == "no_job"


class TestGoesOn:
    def test_a_command_becomes_a_job_with_its_output(self, anywhere: Jobs) -> None:
        result = anywhere.run(
            "echo early; while [ ! -e go ]; do sleep 0.02; done; echo late; exit 3", timeout_s=0.5
        )
        assert (result.timed_out, result.output, result.exit_code) == (True, "early\n", 124)
        assert result.job_id is not None
        assert result.text.endswith(f"[still running as job {result.job_id}]")
        assert anywhere.jobs.status(result.job_id).is_running
        (anywhere.root / "go").touch()
        ended = anywhere.jobs.join(result.job_id)
        assert (ended.state, ended.exit_code) == ("finished", 3)
        assert anywhere.log(result.job_id) == "early\nlate\n"

    def test_a_command_with_long_output_becomes_a_job(self, bash: Jobs) -> None:
        result = bash.run("seq 1 20000; touch printed; sleep 600", timeout_s=2, limit_bytes=4096)
        assert result.job_id is not None
        bash.jobs.stop(result.job_id)
        assert bash.log(result.job_id) == "".join(f"{i}\n" for i in range(1, 20_001))
        assert result.truncated

    def test_a_command_that_ends_in_time_is_no_job(self, anywhere: Jobs) -> None:
        assert anywhere.run("echo a; exit 2").text == "a\n[exit code 2]"
        result = anywhere.run("sleep 600 & echo b")
        assert (result.output, result.background, result.job_id) == ("b\n", True, None)
        assert anywhere.run("echo ran\nif").exit_code == 2
        assert anywhere.jobs.list() == ()

    def test_a_command_is_killed_at_the_limit_of_jobs(self, bash: Jobs) -> None:
        for _ in range(10):
            bash.start("while :; do sleep 601; done")
        result = bash.run("echo early; sleep 602", timeout_s=0.5)
        assert (result.timed_out, result.job_id, result.output) == (True, None, "early\n")
        assert "10 jobs are running already" in result.text
        assert not [line for line in bash.alive() if "602" in line]

    def test_a_job_that_was_a_command_can_be_stopped(self, bash: Jobs) -> None:
        result = bash.run("trap '' TERM; setsid sleep 600 & sleep 600; sleep 600", timeout_s=0.3)
        assert bash.jobs.stop(str(result.job_id)).state == "stopped"
        assert bash.alive() == []

    def test_a_killed_runner_is_an_unknown_outcome(self, bash: Jobs) -> None:
        with pytest.raises(OutcomeUnknown):
            bash.run("echo x >> log; kill -9 $PPID; sleep 600")
        assert (bash.root / "log").read_text() == "x\n"
        assert bash.alive() == []


class TestHostileDisk:
    """The agent's own processes may write wherever the library keeps its records."""

    def test_a_link_in_place_of_the_state_directory_is_refused(self, bash: Jobs, tmp_path: Path) -> None:
        bash.run("true")
        (tmp_path / "elsewhere").mkdir()
        bash.state.symlink_to(tmp_path / "elsewhere")
        for ask in (lambda: bash.start("true"), bash.jobs.list):
            with pytest.raises(SandboxError) as caught:
                ask()
            assert caught.value.code == "state_directory"
        assert list((tmp_path / "elsewhere").iterdir()) == []
        bash.state.unlink()

    @pytest.mark.parametrize(
        "content", ["", "garbage", "[]", "{}", '{"pid": -1}', '{"pid": 1, "birth": "0"}', "x" * 100_000]
    )
    @pytest.mark.one_in(3)
    def test_a_job_with_a_damaged_record_is_reported(self, bash: Jobs, content: str) -> None:
        job = bash.start(f"echo begun; {LONG}")
        bash.printed(job.id, "begun")
        about = bash.state / job.id / "about"
        good = about.read_text()
        about.write_text(content)
        assert bash.jobs.status(job.id).is_running
        with pytest.raises(JobError) as caught:
            bash.jobs.stop(job.id)
        assert caught.value.code == "job_damaged"
        assert len(bash.jobs.list()) == 1
        about.write_text(good)
        assert bash.jobs.stop(job.id).state == "stopped"
        about.write_text(content)
        assert bash.jobs.status(job.id).state == "stopped"

    @pytest.mark.parametrize("name", ["about", "end", "shell", "lock", "log.0"])
    @pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
    @pytest.mark.one_in(4)
    def test_special_files_in_a_jobs_directory_are_not_read(self, bash: Jobs, name: str, kind: str) -> None:
        job = bash.start("echo x")
        bash.jobs.join(job.id)
        file = bash.state / job.id / name
        file.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "link":
            file.symlink_to("/etc/passwd")
        else:
            file.mkdir()
        assert not bash.jobs.status(job.id).is_running
        assert "root" not in bash.jobs.logs(job.id, offset=0).output
        assert len(bash.jobs.list()) == 1
        assert bash.start("true").is_running

    def test_directories_with_other_names_are_no_jobs(self, bash: Jobs) -> None:
        bash.run("true")
        bash.jobs.list()
        for name in ("x", "new-", "..a", "abcd2345 ", "ABCD2345", "\udcff"):
            (bash.state / name).mkdir()
        (bash.state / "abcd2345").symlink_to("/etc")
        assert bash.jobs.list() == ()
        with pytest.raises(JobError):
            bash.jobs.status("abcd2345")

    def test_old_ended_jobs_are_removed_and_running_jobs_kept(self, bash: Jobs) -> None:
        kept = bash.start(LONG)
        old = bash.start("true")
        bash.jobs.join(old.id)
        for directory in (kept.id, old.id):
            os.utime(bash.state / directory, (1, 1))
        names = [f"aaaaaa{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
        for number, name in enumerate(names):
            (bash.state / name).mkdir()
            (bash.state / name / "lock").touch()
            (bash.state / name / "end").write_text('{"state": "finished", "exit_code": 0}')
            os.utime(bash.state / name, (time.time() - number, time.time() - number))
        left = {job.id for job in bash.jobs.list()}
        assert left == {kept.id, *names[:50]}
        big = bash.state / names[10] / "log.0"
        with big.open("wb") as file:
            file.truncate(300 * 1024 * 1024)
        os.utime(bash.state / names[10], (time.time() - 10, time.time() - 10))
        assert {job.id for job in bash.jobs.list()} == {kept.id, *names[:10]}


class TestSegments:
    """The log itself, without a sandbox."""

    @given(chunks=st.lists(st.binary(max_size=40), max_size=30), limit=st.integers(1, 60), data=st.data())
    def test_each_kept_piece_is_at_its_offset(
        self, chunks: list[bytes], limit: int, data: st.DataObject
    ) -> None:
        with tempfile.TemporaryDirectory() as location, pytest.MonkeyPatch.context() as patch:
            patch.setattr(job_log, "SEGMENT_BYTES", 16)
            directory = os.open(location, os.O_RDONLY)
            log = job_log.JobLog(directory)
            for chunk in chunks:
                log.feed(chunk)
            whole = b"".join(chunks)
            assert log.size_bytes == job_log.size(directory) == len(whole)
            assert sum(file.stat().st_size for file in Path(location).iterdir()) <= 4 * 16
            asked = data.draw(st.integers(0, len(whole) + 5))
            offset, piece, size = job_log.read(directory, asked, limit)
            assert size == len(whole)
            assert offset >= min(asked, size)
            assert piece == whole[offset : offset + len(piece)]
            assert bool(piece) == (asked < size)
            lines = data.draw(st.integers(1, 5))
            offset, piece, _ = job_log.tail(directory, lines, limit)
            assert whole[offset:] == piece
            assert len(piece) <= limit
            assert (
                len(piece.splitlines()) <= lines or b"\r" in piece or b"\x0b" in piece or len(piece) < limit
            )
            log._close()
            os.close(directory)

    def test_bytes_that_the_disk_refuses_are_left_out(self, tmp_path: Path) -> None:
        # A limit of the kernel's on a file's size takes the place of the full disk.
        program = (
            "import os, resource, sys\n"
            "from langchain_daytona_ws._guest import job_log\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "log = job_log.JobLog(os.open(sys.argv[1], os.O_RDONLY))\n"
            "log.feed(b'a' * 1500); log.feed(b'b' * 500)\n"
            "print(log.failed, log.size_bytes)\n"
        )
        message = subprocess.run(
            [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
        ).stdout
        assert message == "True 2000\n"
        directory = os.open(tmp_path, os.O_RDONLY)
        assert job_log.read(directory, 0, 5000) == (0, b"a" * 1000, 2000)
        assert job_log.read(directory, 1000, 5000) == (1500, b"b" * 500, 2000)
        os.close(directory)


class TestKeepAlive:
    def test_a_start_raises_the_interval_and_a_later_call_restores_it(self, bash: Jobs) -> None:
        job = bash.start(LONG, max_duration_s=3600)
        assert bash.port.autostop == [75]
        bash.run("true")
        bash.jobs.status(job.id)
        assert bash.port.autostop == [75]
        bash.jobs.stop(job.id)
        assert bash.port.autostop == [75, 15]
        bash.run("true")
        bash.run("true")
        assert bash.port.autostop == [75, 15]
        assert not (bash.state / "keep_alive").exists()
        _, [sent] = exchange(bash.tracker, GuestRequest(bash.port, "sb", "command", {}, 1.0))
        assert sent.fields == {}

    def test_the_longest_job_decides_the_interval(self, bash: Jobs) -> None:
        bash.start(LONG, max_duration_s=7200)
        bash.start(LONG, max_duration_s=60)
        assert bash.port.autostop == [135, 135]
        bash.start(LONG, max_duration_s=86_400)
        assert bash.port.autostop[-1] == 24 * 60  # its sandbox is destroyed at that age

    def test_any_call_detects_the_end_of_a_job(self, bash: Jobs) -> None:
        job = bash.start("while [ ! -e go ]; do sleep 0.02; done; exit 9")
        bash.run("touch go")
        bash.until(lambda: bash.run("true").exit_code == 0 and bool(bash.ended))
        bash.jobs.status(job.id)
        bash.jobs.list()
        assert [(ended.id, ended.exit_code) for ended in bash.ended] == [(job.id, 9)]
        assert bash.port.autostop == [75, 15]

    def test_another_session_restores_the_interval(self, bash: Jobs) -> None:
        job = bash.start("true")
        bash.jobs._sync_ops._tracker = JobTracker(15, None, lambda *_: None, bash.reported.append)
        bash.until(
            lambda: not (bash.state / job.id / "about").exists() or "end" in os.listdir(bash.state / job.id)
        )
        _, guest_client, _ = bash.session()
        bash.guest_client = guest_client
        bash.until(lambda: bash.run("true").exit_code == 0 and bash.port.autostop == [75, 15])

    def test_an_end_is_reported_once_although_the_start_is_repeated(self, bash: Jobs) -> None:
        job = bash.start("true", idempotency_key="d1")
        bash.jobs.join(job.id)
        assert bash.start("true", idempotency_key="d1").state == "finished"
        bash.run("true")
        assert [ended.id for ended in bash.ended] == [job.id]

    def test_a_job_started_after_the_restoration_raises_the_interval_again(self, bash: Jobs) -> None:
        first = bash.start("true")
        bash.jobs.join(first.id)
        assert bash.port.autostop == [75, 15]
        _, _, other = bash.session()
        run_sync(other.start(LONG, max_duration_s=600, idempotency_key=None))
        bash.port.autostop.append(15)  # as if this session's request had come last
        bash.run("true")
        assert bash.port.autostop[-1] == 75

    def test_a_refused_start_leaves_the_interval(self, bash: Jobs) -> None:
        with pytest.raises(CommandRefused):
            bash.start("if\n(")
        assert bash.port.autostop == []

    def test_a_failure_to_raise_the_interval_is_a_notice(
        self, bash: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refuse(sandbox_id: str, minutes: int) -> None:
            raise PortFault(FaultKind.UNAVAILABLE, "no", status=503)

        monkeypatch.setattr(bash.port, "set_autostop", refuse)
        assert bash.start(LONG).is_running
        assert len(bash.reported) == 1
        assert "may be stopped 15 minutes after" in bash.reported[0]

    def test_the_jobs_of_a_lost_sandbox_are_lost(self, bash: Jobs) -> None:
        job = bash.start(LONG)
        exchange(bash.tracker, GuestRequest(bash.port, "another", "command", {}, 1.0))
        assert [(ended.id, ended.state) for ended in bash.ended] == [(job.id, "lost")]


class TestForgedAnswers:
    def test_a_valid_row_is_read(self) -> None:
        job = read_job(ROW, "sb")
        assert (job.state, job.exit_code, job.duration_s, job.ended_at) == ("finished", 0, 2.0, 3.0)
        assert job.summary == "job abcd2345 finished after 2 s, exit code 0, 7 bytes of output"

    @given(
        st.sampled_from(sorted(ROW)),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=9),
            st.lists(st.integers(), max_size=2),
        ),
    )
    def test_a_row_with_any_value_is_harmless(self, name: str, value: object) -> None:
        try:
            job = read_job({**ROW, name: value}, "sb")
        except SandboxError:
            return
        assert job.text.isprintable() or "\n" in job.text or name in ("reason", "state")
        assert json.dumps(job.summary)

    @pytest.mark.parametrize(
        "row", [None, [], "x", {}, {**ROW, "id": "../../x"}, {**ROW, "exit_code": 1 << 40}]
    )
    def test_an_invalid_row_is_refused(self, row: object) -> None:
        with pytest.raises(SandboxError):
            read_job(row, "sb")

    @pytest.mark.parametrize(
        "change",
        [
            {"data": "!"}, {"data": "eHh4", "size_bytes": 2}, {"offset": -1}, {"size_bytes": 1 << 70},
            {"data": "eHh4" * 40_000, "size_bytes": 1 << 30}, {"job": {**ROW, "id": "abcd2346"}}, {"job": None},
        ],
    )  # fmt: skip
    def test_a_forged_log_is_refused(
        self, bash: Jobs, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = {"job": ROW, "offset": 0, "data": "eHh4", "size_bytes": 3}
        _answers(monkeypatch, answer)
        assert bash.jobs.logs("abcd2345").output == "xxx"
        _answers(monkeypatch, {**answer, **change})
        with pytest.raises(SandboxError):
            bash.jobs.logs("abcd2345")

    @pytest.mark.parametrize(
        "value", [None, 1, [], {"over": "yes"}, {"minutes": -5}, {"minutes": 1 << 80}, {"ended": 3}]
    )
    def test_a_forged_keep_alive_state_sets_no_interval(
        self, bash: Jobs, value: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _answers(monkeypatch, {"job": ROW, "keep_alive": value})
        bash.jobs.status("abcd2345")
        assert bash.port.autostop == []

    def test_a_forged_interval_is_limited_to_the_longest_job(
        self, monkeypatch: pytest.MonkeyPatch, bash: Jobs
    ) -> None:
        begun = {"id": "abcd2345", "started_ms": 1, "ends_ms": 2, "awake_minutes": 1 << 30}
        _answers(monkeypatch, {"outcome": "job", "job": begun})
        bash.start("true")
        assert bash.port.autostop == [24 * 60]


def _answers(monkeypatch: pytest.MonkeyPatch, answer: dict[str, object]) -> None:
    async def send(*_: object, **__: object) -> dict[str, object]:
        return answer

    monkeypatch.setattr(GuestClient, "_send", send)


def test_only_a_stop_needs_approval() -> None:
    asks = {
        action: [mode for mode in ("ask", "edit", "bypass") if needs_approval(mode, "bash_job", action)]
        for action in ("status", "logs", "list", "stop", "unheard of")
    }
    assert asks == {
        "status": [], "logs": [], "list": [], "stop": ["ask", "edit"], "unheard of": ["ask", "edit"],
    }  # fmt: skip


def test_the_request_to_stop_a_job_names_its_command() -> None:
    request = PermissionRequest.for_job(
        "stop", {"job_id": "abcd2345"}, command="npm run dev\x1b[2K\nrm x", namespace="ns", tool_call_id="c"
    )
    assert request.summary == "bash_job stop: abcd2345, npm run dev\\x1b[2K\\nrm x"
    assert (request.tool, request.action, request.command) == ("bash_job", "stop", None)
    assert request.to_dict()["arguments"] == {"job_id": "abcd2345", "action": "stop"}


def test_the_log_says_how_to_read_on() -> None:
    running = read_job({**ROW, "state": "running", "exit_code": None, "ended_ms": 0}, "sb")
    log = JobLog(job=running, output="a\n", offset=5, next_offset=7, size_bytes=7)
    assert "[bytes 5 to 7 of 7; read on with offset=7]" in log.text
    assert "read on" not in JobLog(read_job(ROW, "sb"), "a\n", 5, 7, 7).text
