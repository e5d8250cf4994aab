"""A workspace that is synchronised with S3, through real sessions: every path into the sandbox saves its files."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_daytona_ws import FileMissing, UnpushedFiles, WorkspaceSession
from langchain_daytona_ws._core.guest_rpc import payload
from langchain_daytona_ws._core.guest_rpc.payload import guest_source
from langchain_daytona_ws.cli.app import app
from langchain_daytona_ws.deepagents import WorkspaceBackend
from langchain_daytona_ws.local import Fault, LocalDaytona, S3Fault
from tests.integration_tests.conftest import Driven, config_for
from tests.integration_tests.s3 import KEYS, Bucket, bucket, host_keys, s3_options
from tests.sample import sample

__all__ = ["bucket", "host_keys"]  # fixtures

OpenSession = Callable[..., Driven]


@pytest.fixture(autouse=True)
def no_sandbox_is_left(s3_server: LocalDaytona) -> Iterator[None]:
    """Destroy the sandboxes that a session has kept."""
    yield
    for record in s3_server.sandboxes:
        s3_server.destroy_sandbox(record.id)


def synced(bucket: Bucket, open_session: OpenSession, **settings: Any) -> Driven:
    return bucket.session(open_session, options={"s3Mode": "sync", **settings.pop("options", {})}, **settings)


def config_of(bucket: Bucket, **settings: Any) -> dict[str, Any]:
    options = s3_options(bucket.server, bucket.name, s3Mode="sync")
    return config_for(bucket.server, options=options, envVars=KEYS, **settings)


def write_inside(bucket: Bucket, workspace: Driven, name: str, text: str) -> None:
    """Write a file as a background process does: without a call of the session."""
    path = f"{workspace.session.root}/{name}"
    code, output = bucket.server.run_inside(sandbox_of(workspace), f"printf %s {text!r} > {path}")
    assert code == 0, output


def sandbox_of(workspace: Driven) -> str:
    assert workspace.session.sandbox_id
    return workspace.session.sandbox_id


def refuse_uploads(bucket: Bucket) -> None:
    bucket.server.s3.add_fault(S3Fault("status", method="PUT", status=403, times=None))


def names(bucket: Bucket) -> list[str]:
    return [record.name for record in bucket.server.sandboxes]


def leave(workspace: Driven, error: Exception | None) -> None:
    """Leave the session's block, with an exception or without."""

    async def aleave() -> None:
        async with workspace.session:
            if error:
                raise error

    if workspace.runner:
        workspace.runner.run(aleave())
        return
    with workspace.session:
        if error:
            raise error


class TestClose:
    pytestmark = pytest.mark.sync_and_async

    def test_it_saves_the_files_of_background_processes(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("echo first > first.txt")
        write_inside(bucket, workspace, "late.txt", "late")
        bucket.server.clear_requests()
        workspace.close()
        assert bucket.get("late.txt") == b"late"
        assert bucket.server.sandboxes == []
        assert bucket.server.count("execute") == 1

    def test_a_session_without_a_sandbox_requests_nothing(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.files("write", "f.txt", "x")
        workspace.close()
        assert bucket.server.requests == []

    def test_a_sandbox_that_is_gone_is_fine(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        bucket.server.destroy_sandbox(sandbox_of(workspace))
        workspace.close()

    def test_it_does_not_delete_files_that_are_not_in_s3(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        for number in range(12):
            write_inside(bucket, workspace, f"f{number:02}", "x")
        [name] = names(bucket)
        refuse_uploads(bucket)
        with pytest.raises(UnpushedFiles) as caught:
            workspace.close()
        error = caught.value
        assert error.code == "unpushed_files"
        assert error.context["files"] == [f"f{number:02}" for number in range(10)]
        assert error.context["count"] == 12
        for text in ("12 changed files", "f09", name, f"sandboxes recover {name}", "discard_unpushed=True"):
            assert text in error.message
        assert ", f10" not in error.message
        assert bucket.name not in error.for_model
        sandbox = sandbox_of(workspace)
        bucket.server.stop_sandbox(sandbox)
        [kept] = bucket.server.sandboxes
        assert (kept.state, kept.auto_delete_interval) == ("stopped", 1440)
        bucket.server.s3.clear_faults()
        workspace.close(discard_unpushed=True)
        assert bucket.server.sandboxes == []
        assert bucket.paths() == []

    def test_it_can_be_called_again(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        write_inside(bucket, workspace, "late.txt", "late")
        refuse_uploads(bucket)
        with pytest.raises(UnpushedFiles):
            workspace.close()
        bucket.server.s3.clear_faults()
        workspace.close()
        assert bucket.get("late.txt") == b"late"
        assert bucket.server.sandboxes == []

    def test_it_deletes_an_earlier_sandbox_even_if_files_are_not_in_s3(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        sandboxes = workspace.session._state.sandboxes
        assert sandboxes.info is not None
        sandboxes.record_failure(sandboxes.info)
        bucket.server.faults.add(Fault(kind="status", status=403, action="delete", times=1))
        workspace.run("true")
        write_inside(bucket, workspace, "late.txt", "late")
        refuse_uploads(bucket)
        with pytest.raises(UnpushedFiles):
            workspace.close()
        assert [record.id for record in bucket.server.sandboxes] == [workspace.session.sandbox_id]
        bucket.server.s3.clear_faults()

    def test_it_does_not_repeat_the_failure_of_an_earlier_pull(
        self, bucket: Bucket, open_session: OpenSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        bucket.server.s3.add_fault(S3Fault("malformed", method="GET", times=None))
        assert "changes of other writers may be missing" in workspace.run("true").notices[0]
        bucket.server.s3.clear_faults()
        with caplog.at_level(logging.INFO):
            workspace.close()
        assert "missing" not in caplog.text

    def test_discarding_is_possible(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        write_inside(bucket, workspace, "late.txt", "late")
        workspace.close(discard_unpushed=True)
        assert bucket.paths() == []
        assert bucket.server.sandboxes == []

    def test_the_program_s_own_exception_stays(
        self, bucket: Bucket, open_session: OpenSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        write_inside(bucket, workspace, "late.txt", "late")
        [name] = names(bucket)
        refuse_uploads(bucket)

        with pytest.raises(KeyError, match="own"), caplog.at_level(logging.WARNING):
            leave(workspace, KeyError("own"))
        assert "late.txt" in caplog.text
        assert f"sandboxes recover {name}" in caplog.text
        bucket.server.s3.clear_faults()

    def test_leaving_a_block_without_an_exception_raises(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        write_inside(bucket, workspace, "late.txt", "late")
        refuse_uploads(bucket)

        with pytest.raises(UnpushedFiles):
            leave(workspace, None)
        bucket.server.s3.clear_faults()

    def test_a_workspace_that_was_never_entered_is_deleted(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        bucket.server.s3.add_fault(S3Fault("status", method="GET", status=403, times=None))
        workspace = synced(bucket, open_session)
        assert workspace.call(workspace.bash, command="true").status == "error"
        workspace.close()
        assert bucket.server.sandboxes == []

    def test_a_cancelled_close_saves_and_deletes(self, bucket: Bucket) -> None:
        async def work() -> None:
            session = WorkspaceSession(config_of(bucket), namespace=bucket.namespace)
            await session.arun("true")
            write_inside(bucket, Driven(session, asyncio.Runner()), "late.txt", "late")
            closing = asyncio.ensure_future(session.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            while bucket.server.sandboxes:  # noqa: ASYNC110 - the server has no event to offer
                await asyncio.sleep(0.01)

        asyncio.run(work())
        assert bucket.get("late.txt") == b"late"


class TestExit:
    def run(self, bucket: Bucket, *, uploads: bool) -> subprocess.CompletedProcess[str]:
        text = f"""
            import sys
            from langchain_daytona_ws import WorkspaceSession
            session = WorkspaceSession({config_of(bucket)!r}, namespace={bucket.namespace!r})
            session.run("true")
            print(session.sandbox_id, flush=True)
            sys.stdin.readline()
        """
        child = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout
        assert child.stdin
        sandbox_id = child.stdout.readline().strip()
        path = f"/mnt/workspaces/{bucket.namespace}/late.txt"
        code, output = bucket.server.run_inside(sandbox_id, f"printf late > {path}")
        assert code == 0, output
        if not uploads:
            refuse_uploads(bucket)
        output, errors = child.communicate("\n", timeout=180)
        return subprocess.CompletedProcess([], child.returncode, output, errors)

    @pytest.mark.full
    def test_the_exit_saves_and_deletes(self, bucket: Bucket) -> None:
        ran = self.run(bucket, uploads=True)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert bucket.get("late.txt") == b"late"
        assert bucket.server.sandboxes == []

    def test_the_exit_keeps_a_sandbox_with_unpushed_files(self, bucket: Bucket) -> None:
        ran = self.run(bucket, uploads=False)
        assert ran.returncode == 0
        [name] = names(bucket)
        assert f"sandboxes recover {name}" in ran.stderr
        assert bucket.server.sandboxes[0].auto_delete_interval == 1440
        bucket.server.s3.clear_faults()


def test_an_unreferenced_session_is_saved_and_deleted(bucket: Bucket) -> None:
    session = WorkspaceSession(config_of(bucket), namespace=bucket.namespace)
    path = f"/mnt/workspaces/{bucket.namespace}/late.txt"
    sandbox_id = session.run("true").sandbox_id
    code, output = bucket.server.run_inside(sandbox_id, f"printf late > {path}")
    assert code == 0, output
    del session
    gc.collect()
    until = time.monotonic() + 60
    while bucket.server.sandboxes and time.monotonic() < until:
        time.sleep(0.02)
    assert bucket.server.sandboxes == []
    assert bucket.get("late.txt") == b"late"


class TestPersistent:
    def test_release_refuses_with_unpushed_files(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session, persistent=True)
        workspace.run("true")
        write_inside(bucket, workspace, "late.txt", "late")
        workspace.close()
        assert bucket.get("late.txt") == b"late"
        write_inside(bucket, workspace, "later.txt", "later")
        bucket.server.stop_sandbox(sandbox_of(workspace))
        refuse_uploads(bucket)
        other = synced(bucket, open_session, persistent=True)
        with pytest.raises(UnpushedFiles, match=r"later\.txt"):
            release(other)
        assert len(bucket.server.sandboxes) == 1
        bucket.server.s3.clear_faults()
        bucket.server.stop_sandbox(sandbox_of(workspace))
        release(synced(bucket, open_session, persistent=True))
        assert bucket.get("later.txt") == b"later"
        assert bucket.server.sandboxes == []

    def test_release_can_discard(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session, persistent=True)
        workspace.run("true")
        write_inside(bucket, workspace, "late.txt", "late")
        release(workspace, discard_unpushed=True)
        assert bucket.paths() == []
        assert bucket.server.sandboxes == []

    def test_close_does_not_start_a_stopped_sandbox(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session, persistent=True)
        workspace.run("true")
        bucket.server.stop_sandbox(sandbox_of(workspace))
        workspace.close()
        assert [record.state for record in bucket.server.sandboxes] == ["stopped"]
        release(workspace)


class TestRecover:
    def invoke(self, bucket: Bucket, tmp_path: Path, *arguments: str, **options: Any) -> Any:
        settings = config_of(bucket)
        settings["options"].update(options)
        file = tmp_path / "config.json"
        file.write_text(json.dumps(settings))
        return CliRunner().invoke(
            app, ["sandboxes", "recover", "--config", str(file), *arguments], env={"COLUMNS": "200"}
        )

    def kept(self, bucket: Bucket, open_session: OpenSession) -> str:
        """Return the name of a sandbox that a session has kept."""
        workspace = synced(bucket, open_session)
        workspace.run("echo 1 > pushed.txt")
        write_inside(bucket, workspace, "late.txt", "late")
        refuse_uploads(bucket)
        with pytest.raises(UnpushedFiles):
            workspace.close()
        [name] = names(bucket)
        return name

    @pytest.mark.parametrize("stopped", sample([True, False], True))
    def test_it_saves_and_deletes(
        self, bucket: Bucket, open_session: OpenSession, tmp_path: Path, stopped: bool
    ) -> None:
        name = self.kept(bucket, open_session)
        refused = self.invoke(bucket, tmp_path, name)
        assert refused.exit_code == 1
        assert "late.txt" in refused.stderr
        bucket.server.s3.clear_faults()
        if stopped:
            bucket.server.stop_sandbox(name)
        result = self.invoke(bucket, tmp_path, name)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == f"Saved 1 files of {name} in S3, deleted 0 there.\nDeleted {name}.\n"
        assert bucket.get("late.txt") == b"late"
        assert bucket.server.sandboxes == []

    def test_as_json(self, bucket: Bucket, open_session: OpenSession, tmp_path: Path) -> None:
        name = self.kept(bucket, open_session)
        bucket.server.s3.clear_faults()
        result = self.invoke(bucket, tmp_path, name, "--json")
        report = json.loads(result.stdout)
        assert (report["recovered"]["name"], report["sync"]["pushed"], report["deleted"]) == (name, 1, True)

    def test_a_sandbox_in_use_is_not_deleted(
        self, bucket: Bucket, open_session: OpenSession, tmp_path: Path
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        write_inside(bucket, workspace, "late.txt", "late")
        [name] = names(bucket)
        result = self.invoke(bucket, tmp_path, name)
        assert result.stdout == f"Saved 1 files of {name} in S3, deleted 0 there.\n"
        assert workspace.run("cat late.txt").output == "late"

    @pytest.mark.parametrize("other", [{"workspacePrefix": "other/{namespace}/"}, {"s3Mode": "mount"}])
    def test_another_workspace_is_refused(
        self, bucket: Bucket, open_session: OpenSession, tmp_path: Path, other: dict[str, str]
    ) -> None:
        name = self.kept(bucket, open_session)
        bucket.server.s3.clear_faults()
        result = self.invoke(bucket, tmp_path, name, **other)
        assert result.exit_code == 2
        assert "made with another S3 workspace" in result.stderr
        assert bucket.paths() == ["pushed.txt"]

    def test_a_sandbox_without_synchronisation_is_refused(
        self, bucket: Bucket, open_session: OpenSession, tmp_path: Path
    ) -> None:
        open_session(bucket.server).run("true")
        [name] = names(bucket)
        result = self.invoke(bucket, tmp_path, name)
        assert result.exit_code == 1
        assert "nothing to recover" in result.stderr

    def test_no_such_sandbox(self, bucket: Bucket, tmp_path: Path) -> None:
        result = self.invoke(bucket, tmp_path, "no-such")
        assert result.exit_code == 1
        assert "no sandbox no-such" in result.stderr


STATE = "/tmp/.langchain-daytona-ws-$(id -u)"
# Takes the resident's socket, and answers in its place.
IMPOSTOR = """
import os, socket, sys
path = sys.argv[1]
os.unlink(path)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(9)
null = os.open("/dev/null", os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
if os.fork():
    os._exit(0)
os.setsid()
connections = []
while True:
    connection = listener.accept()[0]
    connection.recv(100)
    connections.append(connection)
    try:
        connection.sendall({answer})
    except OSError:
        pass
"""


def impostor(answer: str) -> str:
    script = IMPOSTOR.replace("{answer}", answer)
    return f"cat > /tmp/impostor.py <<'END'\n{script}\nEND\npython3 /tmp/impostor.py {STATE}/sync-*.socket"


# Commands that an agent could run, by accident or not.
DAMAGES = {
    "killed": "pkill -9 -x workspace-sync",
    "stopped": "pkill -STOP -x workspace-sync",
    "socket": f"rm {STATE}/sync-*.socket",
    "socket-directory": f"rm -rf {STATE}",
    "state": 'rm -rf "$(dirname "$PWD")"/.sync-*',
    "pkill-python": "pkill -f '[p]ython'; true",
    "garbage": impostor(r"b'\xff\x00 no answer\n' * 9"),
    "huge": impostor("b'x' * 10_000_000"),
    "silent": impostor("b''"),
}


class TestResident:
    @pytest.mark.parametrize("how", sorted(DAMAGES))
    @pytest.mark.one_in(2)
    def test_losing_it_in_a_call_loses_nothing(
        self, bucket: Bucket, open_session: OpenSession, how: str
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("echo 1 > first.txt")
        result = workspace.run(f"echo 2 > second.txt\n{DAMAGES[how]}\necho 3 > third.txt")
        assert bucket.paths() == ["first.txt", "second.txt", "third.txt"]
        assert result.notices == ()
        bucket.put("other.txt", b"of another writer")
        assert workspace.run("cat other.txt; echo 4 > first.txt").output == "of another writer"
        assert bucket.get("first.txt") == b"4\n"

    @pytest.mark.parametrize("how", sorted(DAMAGES))
    @pytest.mark.one_in(3)
    def test_losing_it_between_calls_loses_nothing(
        self, bucket: Bucket, open_session: OpenSession, how: str
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("echo 1 > first.txt")
        code, output = bucket.server.run_inside(
            sandbox_of(workspace), f"cd {workspace.session.root}\n{DAMAGES[how]}"
        )
        assert code == 0, output
        bucket.put("other.txt", b"of another writer")
        result = workspace.run("cat other.txt; echo 2 > first.txt")
        assert (result.output, result.notices) == ("of another writer", ())
        assert bucket.get("first.txt") == b"2\n"


class TestPaths:
    """Every path into the sandbox leaves its files in S3."""

    def test_a_command_that_times_out(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session)
        result = workspace.run("echo 1 > a; sleep 1000", timeout_s=1)
        assert result.timed_out
        assert bucket.get("a") == b"1\n"

    def test_a_cancelled_call(self, bucket: Bucket) -> None:
        async def work() -> None:
            async with WorkspaceSession(config_of(bucket), namespace=bucket.namespace) as session:
                await session.arun("true")
                running = asyncio.ensure_future(session.arun("echo 1 > a; sleep 1000"))
                begun = f"[ -s {session.root}/a ]"
                inside = partial(bucket.server.run_inside, str(session.sandbox_id), begun)
                await asyncio.to_thread(wait_for, lambda: inside()[0] == 0)
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
                await asyncio.to_thread(wait_for, lambda: "a" in bucket.paths())

        asyncio.run(work())

    def test_a_command_that_becomes_a_job(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session, onTimeout="background")
        command = "echo 1 > a; until [ -e /tmp/go ]; do sleep 0.05; done; echo 2 > b"
        result = workspace.run(command, timeout_s=1)
        assert bucket.paths() == ["a"]
        workspace.run("touch /tmp/go")
        job = jobs(workspace, "join", result.job_id)
        assert (job.state, job.notices) == ("finished", ())
        assert bucket.paths() == ["a", "b"]

    def test_a_job(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session)
        started = jobs(workspace, "start", "echo 1 > a")
        job = jobs(workspace, "join", started.id)
        assert (job.state, job.notices) == ("finished", ())
        assert bucket.get("a") == b"1\n"

    def test_a_job_is_saved_while_it_runs(
        self, bucket: Bucket, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = guest_source("job_run")
        assert "PUSH_EVERY_S = 30.0" in source
        sooner = source.replace("PUSH_EVERY_S = 30.0", "PUSH_EVERY_S = 0.2")
        monkeypatch.setattr(
            payload, "guest_source", lambda name: sooner if name == "job_run" else guest_source(name)
        )
        payload._source.cache_clear()
        workspace = synced(bucket, open_session)
        job = jobs(
            workspace, "start", "touch begun; until [ -e /tmp/go ]; do sleep 0.05; done; echo 1 > a; cat"
        )
        assert bucket.paths() == [] or bucket.paths() == ["begun"]
        bucket.server.run_inside(sandbox_of(workspace), "touch /tmp/go")
        wait_for(lambda: "a" in bucket.paths())
        jobs(workspace, "stop", job.id)
        payload._source.cache_clear()

    def test_a_job_whose_files_cannot_be_saved_says_so(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = synced(bucket, open_session)
        started = jobs(workspace, "start", "until [ -e /tmp/go ]; do sleep 0.05; done; echo 1 > a")
        refuse_uploads(bucket)
        bucket.server.run_inside(sandbox_of(workspace), "touch /tmp/go")
        job = jobs(workspace, "join", started.id)
        assert "not all of its files could be saved" in job.text
        bucket.server.s3.clear_faults()
        workspace.run("true")
        assert bucket.get("a") == b"1\n"

    def test_hooks(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session, onCreate=["echo 1 > made"], onResume=["echo 1 > resumed"])
        workspace.run("true")
        assert bucket.paths() == ["made", "resumed"]

    def test_file_operations_in_the_sandbox(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session, options={"fileAccess": "sandbox"})
        bucket.put("given", b"by another writer")
        assert "by another" in workspace.files("read", "given").body
        workspace.files("write", "a", "1")
        workspace.files("write", "large", b"x" * 400_000)
        assert bucket.get("a") == b"1"
        assert len(bucket.get("large")) == 400_000
        refuse_uploads(bucket)
        workspace.files("write", "b", "2")
        bucket.server.s3.clear_faults()
        result = workspace.run("true")
        assert "1 changed file (b) is only on this machine" in result.text
        assert bucket.get("b") == b"2"

    @pytest.mark.parametrize("operation", ["grep", "glob", "list", "download", "download of a directory"])
    def test_a_file_operation_in_a_new_sandbox_sees_the_workspace(
        self, bucket: Bucket, open_session: OpenSession, tmp_path: Path, operation: str
    ) -> None:
        """A search in a workspace that was not pulled found nothing."""
        bucket.put("d/given.txt", b"by another writer")
        workspace = synced(bucket, open_session, options={"fileAccess": "sandbox"})
        match operation:
            case "grep":
                assert [row.path for row in workspace.files("grep", "another").rows] == ["d/given.txt"]
            case "glob":
                assert [entry.name for entry in workspace.files("glob", "**/*.txt").entries] == [
                    "d/given.txt"
                ]
            case "list":
                assert [entry.name for entry in workspace.files("list", "d").entries] == ["given.txt"]
            case "download":
                workspace.files("download", "d/given.txt", tmp_path / "f")
                assert (tmp_path / "f").read_bytes() == b"by another writer"
            case _:
                workspace.files("download", "d", tmp_path / "d")
                assert (tmp_path / "d/given.txt").read_bytes() == b"by another writer"

    def test_a_download_of_a_directory_pulls_once(
        self,
        bucket: Bucket,
        open_session: OpenSession,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Each pack pulled again: 4,000 files took six times as long."""
        monkeypatch.setattr("langchain_daytona_ws._core.transfers.guest.PACK_FILES", 2)
        for number in range(8):
            bucket.put(f"d/{number}", b"x")
        workspace = synced(bucket, open_session, options={"fileAccess": "sandbox"})
        workspace.run("true")
        bucket.server.s3.clear_requests()
        workspace.files("download", "d", tmp_path / "d")
        assert sum("list-type" in request.query for request in bucket.server.s3.requests) == 1

    def test_suggestions_for_a_missing_file_do_not_pull_again(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        bucket.put("readme", b"x")
        workspace = synced(bucket, open_session, options={"fileAccess": "sandbox"})
        workspace.run("true")
        bucket.server.s3.clear_requests()
        with pytest.raises(FileMissing, match="readme"):
            workspace.files("read", "README")
        assert sum("list-type" in request.query for request in bucket.server.s3.requests) == 1

    def test_an_uploaded_directory_is_saved_when_the_upload_returns(
        self, bucket: Bucket, open_session: OpenSession, tmp_path: Path
    ) -> None:
        for name in ("a", "below/b"):
            (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "x" / name).write_text(name)
        (tmp_path / "x/empty").mkdir()
        workspace = synced(bucket, open_session, options={"fileAccess": "sandbox"})
        workspace.files("upload", tmp_path / "x", "x")
        assert bucket.paths() == ["x/a", "x/below/b", "x/empty/"]

    def test_an_upload_that_cannot_be_saved_is_told_of_once(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("true")
        refuse_uploads(bucket)
        message = workspace.call(workspace.bash, command="echo 1 > a")
        assert "1 changed file (a) is only on this machine so far" in message.content
        assert message.artifact["sync"]["unpushed"] == ("a",)
        assert bucket.name not in message.content
        bucket.server.s3.clear_faults()
        message = workspace.call(workspace.bash, "call_2", command="true")
        assert message.content == "[exit code 0]"
        assert message.artifact["sync"]["pushed"] == 1
        assert bucket.get("a") == b"1\n"

    def test_a_recorded_result_has_its_report(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session)
        first = workspace.run("echo 1 > a", idempotency_key="k1")
        second = workspace.run("echo 1 > a", idempotency_key="k1")
        assert second.from_record
        assert first.sync
        assert first.sync.pushed == 1
        assert second.sync == first.sync

    def test_a_long_pull_reports_its_progress(
        self, bucket: Bucket, open_session: OpenSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        bucket.put("a", b"1")
        bucket.put("b", b"2")
        workspace = synced(bucket, open_session)
        bucket.server.s3.add_fault(S3Fault("late", method="GET", delay_s=4.0, times=3))
        pieces: list[str] = []
        with caplog.at_level(logging.INFO):
            assert workspace.run("cat a b", on_output=pieces.append).output == "12"
        bucket.server.s3.clear_faults()
        assert "[copying the workspace into the sandbox: 0 of 2 files]\n" in pieces
        assert pieces[-1] == "12"
        assert "0 of 2 files" in caplog.text

    @pytest.mark.parametrize("is_first", sample([True, False], False))
    def test_a_pull_longer_than_a_request_is_made_once(
        self, bucket: Bucket, open_session: OpenSession, is_first: bool
    ) -> None:
        workspace = synced(bucket, open_session)
        if not is_first:
            workspace.run("true")
        bucket.server.s3.clear_requests()
        bucket.server.s3.add_fault(S3Fault("late", method="GET", delay_s=4.0, times=4))
        pieces: list[str] = []
        assert workspace.run("echo ran", on_output=pieces.append).output == "ran\n"
        bucket.server.s3.clear_faults()
        assert pieces[0].startswith("[copying the workspace")
        assert sum(request.method == "GET" for request in bucket.server.s3.requests) == 1

    def test_deep_agents(self, bucket: Bucket, open_session: OpenSession) -> None:
        backend = WorkspaceBackend(synced(bucket, open_session).session)
        root = backend.root
        assert backend.write(f"{root}/written", "1").error is None
        assert backend.execute("cat written; echo 2 > executed").output == "1"
        assert backend.upload_files([(f"{root}/uploaded", b"3")])[0].error is None
        assert backend.edit(f"{root}/executed", "2", "4").error is None
        [found] = backend.download_files([f"{root}/executed"])
        assert found.content == b"4\n"
        assert backend.execute("cat executed uploaded; mkdir d; echo 5 > d/f").output.startswith("4\n3")
        assert backend.delete(f"{root}/d").error is None
        assert bucket.paths() == ["executed", "uploaded", "written"]

    def test_a_replaced_machine_tells_what_is_lost(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session)
        workspace.run("echo 1 > a")
        refuse_uploads(bucket)
        workspace.run("echo 2 > b")
        bucket.server.s3.clear_faults()
        bucket.server.destroy_sandbox(sandbox_of(workspace))
        result = workspace.run("ls")
        assert result.output == "a\n"
        assert "saved when the last call returned" in result.notices[0]
        assert "1 changed file (b) is lost" in result.notices[1]

    def test_a_restarted_machine_saves_what_is_left(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session, persistent=True)
        workspace.run("echo 1 > a")
        write_inside(bucket, workspace, "late.txt", "late")
        bucket.server.stop_sandbox(sandbox_of(workspace))
        workspace.run("true")
        assert bucket.get("late.txt") == b"late"
        release(workspace)

    def test_parallel_first_calls(self, bucket: Bucket) -> None:
        bucket.put("given", b"x")
        with WorkspaceSession(config_of(bucket), namespace=bucket.namespace) as session:
            with ThreadPoolExecutor(4) as pool:
                results = list(pool.map(lambda n: session.run(f"cat given; echo {n} > f{n}"), range(4)))
            assert [(result.output, result.notices) for result in results] == [("x", ())] * 4
            assert session.run("pgrep -xc workspace-sync").output == "1\n"
        assert bucket.paths() == ["f0", "f1", "f2", "f3", "given"]

    def test_two_sessions_share_one_resident(self, bucket: Bucket, open_session: OpenSession) -> None:
        first = synced(bucket, open_session, persistent=True)
        second = synced(bucket, open_session, persistent=True)
        seen = set()
        for number in range(3):
            for name, workspace in (("a", first), ("b", second)):
                result = workspace.run(f"echo {number} >> {name}; pgrep -x workspace-sync")
                assert result.notices == ()
                seen.add(result.output)
        assert len(seen) == 1
        assert (bucket.get("a"), bucket.get("b")) == (b"0\n1\n2\n",) * 2
        release(first)

    def test_sessions_with_other_settings_take_turns(self, bucket: Bucket) -> None:
        plain = config_of(bucket, persistent=True)
        other = config_of(bucket, persistent=True)
        other["options"]["syncIgnore"] = ["*.log"]
        with (
            WorkspaceSession(plain, namespace=bucket.namespace) as first,
            WorkspaceSession(other, namespace=bucket.namespace) as second,
            ThreadPoolExecutor(2) as pool,
        ):

            def work(session: WorkspaceSession, name: str) -> list[tuple[str, ...]]:
                return [session.run(f"echo {number} >> {name}").notices for number in range(4)]

            calls = [pool.submit(work, first, "a"), pool.submit(work, second, "b")]
            assert [notices for call in calls for notices in call.result()] == [()] * 8
        assert (bucket.get("a"), bucket.get("b")) == (b"0\n1\n2\n3\n",) * 2

    @pytest.mark.usefixtures("host_keys")
    def test_credentials_that_end_in_a_call(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session, role=True)
        workspace.run("true")
        with ThreadPoolExecutor(1) as pool:
            command = "echo 1 > a; touch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.05; done"
            running = pool.submit(workspace.run, command)
            inside = partial(bucket.server.run_inside, sandbox_of(workspace))
            wait_for(lambda: inside("[ -e /tmp/begun ]")[0] == 0)
            bucket.server.s3.expire_credentials()
            inside("touch /tmp/go")
            assert running.result().notices == ()
        assert bucket.get("a") == b"1\n"

    @pytest.mark.usefixtures("host_keys")
    def test_credentials_that_end_before_a_job(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session, role=True)
        job = jobs(workspace, "start", "sleep 1000", max_duration_s=7200)
        assert [notice for notice in job.notices if "is saved only when another call comes" in notice]
        assert jobs(workspace, "stop", job.id).state == "stopped"


def jobs(workspace: Driven, name: str, *arguments: Any, **named: Any) -> Any:
    if workspace.runner:
        return workspace.runner.run(getattr(workspace.session.jobs, f"a{name}")(*arguments, **named))
    return getattr(workspace.session.jobs, name)(*arguments, **named)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


class TestGit:
    @pytest.mark.parametrize("other", ["x", "a"], ids=["other files", "one file"])
    @pytest.mark.one_in(2)
    def test_two_commits_at_once_are_joined_as_the_notice_says(
        self, bucket: Bucket, open_session: OpenSession, other: str
    ) -> None:
        first, second = synced(bucket, open_session), synced(bucket, open_session)
        first.run("git init -q -b main . && git config user.email a@b && git config user.name n")
        first.run("seq 9 > a && git add a && git commit -qm base")
        second.run("true")
        script = f"cd {second.session.root} && sed -i s/9/nine/ a && seq 3 > y && git add . && git commit -qm second"
        code, output = bucket.server.run_inside(
            sandbox_of(second), script
        )  # without a call: it was not pulled
        assert code == 0, output
        first.run(
            f"{'sed -i s/1/one/' if other == 'a' else 'echo 1 >>'} {other} && git add . && git commit -qm first"
        )
        notices = second.run("true").notices
        assert len(notices) == (3 if other == "a" else 2)
        assert notices[-1].startswith("conflict: another writer used Git in the workspace.")
        for command in re.findall("`([^`]*)`", notices[0]):
            result = second.run(command.replace("commit", "commit -qm all").replace("merge", "merge -m both"))
            assert result.exit_code == 0, result
        assert first.run("git status --porcelain").output == ""
        text = first.run("cat a y; git log --format=%s").output
        for expected in ("nine", "both", "first", "second", *(["one"] if other == "a" else [])):
            assert expected in text.split()

    def test_status_does_not_store_the_index_again(self, bucket: Bucket, open_session: OpenSession) -> None:
        first, second = synced(bucket, open_session), synced(bucket, open_session)
        files = "for n in 1 2 3; do echo $n > f$n; touch -d '1 hour ago' f$n; done"
        first.run(f"{GIT}; git init -q .; {files}; git add .; git commit -qm one")
        result = second.run("git status --porcelain; git log --oneline | wc -l")
        assert result.output == "1\n"
        assert result.sync
        assert result.sync.pushed == 0
        assert first.run("git status --porcelain").sync.pushed == 0  # type: ignore[union-attr]

    def test_a_users_own_settings_win(self, bucket: Bucket, open_session: OpenSession) -> None:
        own = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "own"}
        workspace = synced(bucket, open_session, envVars={**KEYS, **own})
        assert workspace.run("git config user.name; git config core.checkStat").output == "own\n"

    def test_a_repository_of_two_sandboxes_loses_no_commit(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        first, second = synced(bucket, open_session), synced(bucket, open_session)
        first.run(
            f"{GIT}; git init -qb main up && cd up && echo 0 > f && git add f && git commit -qm base && cd .. && "
            "git clone -q up r && cd r && git checkout -qb side && echo s > s && git add s && git commit -qm side && "
            "git checkout -q main && git merge -q --no-edit side && git rebase -q side && git gc -q"
        )
        second.run("cd r && git status --porcelain && git fsck --strict")
        # Both commit on one branch at once: each has pulled before any push.
        commit = (
            f"cd r; {GIT}; touch /tmp/ready; until [ -e /tmp/go ]; do sleep 0.05; done; "
            "echo {n} > {n}; git add {n}; git commit -qm {n}"
        )
        with ThreadPoolExecutor(2) as pool:
            calls = [
                pool.submit(workspace.session.run, commit.format(n=name))
                for name, workspace in (("one", first), ("two", second))
            ]
            for workspace in (first, second):
                inside = partial(bucket.server.run_inside, sandbox_of(workspace))
                wait_for(lambda inside=inside: inside("[ -e /tmp/ready ]")[0] == 0)
            for workspace in (first, second):
                bucket.server.run_inside(sandbox_of(workspace), "touch /tmp/go")
            results = [call.result() for call in calls]
        texts = [notice for result in results for notice in result.notices]
        assert [text for text in texts if "git merge main.conflict-" in text]
        workspace = synced(bucket, open_session)
        result = workspace.run(
            "cd r; git log --all --format=%s | sort; git fsck --full; git for-each-ref --format='%(refname)'"
        )
        assert {"base", "one", "side", "two"} <= set(result.output.split())
        assert "refs/heads/main.conflict-" in result.output
        assert not [line for line in result.output.splitlines() if "missing" in line or "error" in line]
        merged = workspace.run(
            f"cd r; {GIT}; git reset -q --hard; git merge -q --no-edit main.conflict-*; ls; rm .git/*.conflict-*"
        )
        assert {"one", "two"} <= set(merged.output.split()), merged.output


GIT = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b"


class TestSecrets:
    @pytest.mark.usefixtures("host_keys")
    def test_no_credential_is_on_the_disk_in_an_argument_or_in_an_environment(
        self, bucket: Bucket, open_session: OpenSession
    ) -> None:
        workspace = synced(bucket, open_session, role=True)
        workspace.run("echo 1 > a")
        storage = workspace.session._state.storage
        assert storage
        cached = storage.credentials._flight.value
        assert cached
        issued = cached.credentials
        for secret in (issued.secret_access_key, issued.session_token):
            assert secret
            script = f"""
                cd /; hidden={secret[:8]!r}{secret[8:]!r}
                grep -laF -f <(printf %s "$hidden") /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null
                grep -rlaF -f <(printf %s "$hidden") /tmp /mnt /home /root /var/tmp /dev/shm 2>/dev/null
            """
            found = workspace.run(script).output.split()
            assert found == []

    def test_its_memory_and_its_socket_are_private(self, bucket: Bucket, open_session: OpenSession) -> None:
        workspace = synced(bucket, open_session)
        script = f"""
            pid=$(pgrep -x workspace-sync); cat /proc/$pid/environ; head -c1 /proc/$pid/mem
            stat -c '%a %U' {STATE}; stat -c '%a' {STATE}/sync-*.socket
        """
        output = workspace.run(script).output
        assert output.count("Permission denied") == 2, output
        assert output.splitlines()[-2:] == ["700 daytona", "600"]


def release(workspace: Driven, **arguments: Any) -> None:
    if workspace.runner:
        workspace.runner.run(workspace.session.arelease(**arguments))
    else:
        workspace.session.release(**arguments)
