"""``s3-snapshot``: the command over the real SDK and the local Daytona."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import Result
from daytona import Daytona, DaytonaConfig
from typer.testing import CliRunner

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._adapters import snapshots as adapter
from langchain_daytona_ws._core.mount.snapshot import MOUNT_S3_VERSION, Recipe
from langchain_daytona_ws.cli import s3_snapshot as command
from langchain_daytona_ws.cli.app import app
from langchain_daytona_ws.local import Fault, LocalDaytona

from .conftest import config_for
from .test_cli import PROGRAM, environment

FROM = "DAYTONA_S3_SNAPSHOT_BASE_IMAGE"
NAMED = "DAYTONA_S3_SNAPSHOT_NAME"
POST = r"/snapshots$"


@pytest.fixture
def server() -> Iterator[LocalDaytona]:
    """A server for each test: the client of an interrupted build polls on for a while, and would reach a shared one."""
    with LocalDaytona() as running:
        yield running


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "API_KEY",
        "API_URL",
        "TARGET",
        "ORGANIZATION_ID",
        "S3_SNAPSHOT_BASE_IMAGE",
        "S3_SNAPSHOT_NAME",
    ):
        monkeypatch.delenv(f"DAYTONA_{name}", raising=False)


def build(server: LocalDaytona | None, *arguments: str, **variables: str) -> Result:
    account = {} if server is None else {"DAYTONA_API_URL": server.api_url, "DAYTONA_API_KEY": server.api_key}
    named = {FROM: "node:22", NAMED: "mine"}
    return CliRunner().invoke(
        app, ["s3-snapshot", *arguments], env={"COLUMNS": "200", **account, **named, **variables}
    )


def client(server: LocalDaytona) -> Daytona:
    return Daytona(DaytonaConfig(api_url=server.api_url, api_key=server.api_key))


def stored(server: LocalDaytona, name: str = "mine") -> Any:
    return client(server).snapshot.get(name)


def test_builds_a_general_snapshot_that_sandboxes_start_from(server: LocalDaytona) -> None:
    result = build(server, DAYTONA_TARGET="eu")
    assert result.exit_code == 0, result.output
    assert (
        result.stdout == 'Snapshot mine is active (general). Use it with {"options": {"snapshot": "mine"}}.\n'
    )
    snapshot = stored(server)
    assert snapshot.state == "active"
    assert snapshot.region_ids is None
    assert snapshot.build_info.dockerfile_content == Recipe("node:22").dockerfile()
    with WorkspaceSession(config_for(server, options={"snapshot": "mine"}), namespace="n") as session:
        assert session.run("echo $((6 * 7))").output == "42\n"
    # Look, create, and then only what the SDK polls.
    posted = [item for item in server.requests if item.method == "POST" and item.path.endswith("/snapshots")]
    assert len(posted) == 1


def test_streams_the_build_log(server: LocalDaytona) -> None:
    result = build(server)
    assert "Creating snapshot mine (building)\n" in result.stderr
    assert "the local Daytona runs no Dockerfile" in result.stderr
    assert "not run: FROM node:22\n" in result.stderr
    assert "Created snapshot mine (active)\n" in result.stderr


def test_flags_come_before_the_environment(server: LocalDaytona) -> None:
    arguments = ["--base-image", "python:3.12", "--name", "other", "--region", "eu", "--user", "agent"]
    arguments += ["--workspace-root", "/srv/work", "--skills-mount-path", "/srv/skills"]
    result = build(
        server, *arguments, "--cpu", "2", "--memory", "4", "--disk", "8", "--mount-s3-version", "1.20.0"
    )
    assert result.exit_code == 0, result.output
    assert "pinned to eu" in result.stdout
    snapshot = stored(server, "other")
    assert (snapshot.region_ids, snapshot.cpu, snapshot.mem, snapshot.disk) == (["eu"], 2, 4, 8)
    recipe = Recipe("python:3.12", "1.20.0", "agent", "/srv/work", "/srv/skills")
    assert snapshot.build_info.dockerfile_content == recipe.dockerfile()


def test_a_dry_run_prints_the_dockerfile_and_sends_nothing(server: LocalDaytona) -> None:
    result = build(server, "--dry-run")
    assert (result.exit_code, result.stdout) == (0, Recipe("node:22").dockerfile())
    assert server.requests == []
    # Neither a name nor a key is needed for it.
    assert build(None, "--dry-run", **{NAMED: ""}).exit_code == 0


@pytest.mark.parametrize(
    ("variables", "arguments", "message"),
    [
        ({FROM: ""}, (), ("--base-image", FROM)),
        ({NAMED: ""}, (), ("--name", NAMED)),
        ({}, (), ("options.apiKey", "DAYTONA_API_KEY")),
        ({}, ("--base-image", "a b"), ("not an image name",)),
        ({}, ("--name", "a b"), ("not possible",)),
        ({}, ("--mount-s3-version", "latest"), ("not pinned", MOUNT_S3_VERSION)),
        ({}, ("--user", "A B"), ("not an account name", "daytona")),
        ({}, ("--workspace-root", "work"), ("absolute directory", "/mnt/workspaces")),
        ({}, ("--workspace-root", "/mnt", "--skills-mount-path", "/mnt/skills"), ("overlap",)),
        ({}, ("--cpu", "0"), ("--cpu",)),
        ({"DAYTONA_API_KEY": "k", "DAYTONA_API_URL": "ftp://x"}, (), ("DAYTONA_API_URL",)),
    ],
)
def test_missing_arguments_are_named_with_both_remedies(
    variables: dict[str, str], arguments: tuple[str, ...], message: tuple[str, ...]
) -> None:
    result = build(None, *arguments, **variables)
    assert result.exit_code == 2
    for word in message:
        assert word in result.stderr
    assert "Traceback" not in result.output


class TestAnExistingSnapshot:
    def test_is_reported_and_left_alone(self, server: LocalDaytona) -> None:
        build(server)
        before = stored(server)
        result = build(server, "--base-image", "debian:12")
        assert result.exit_code == 1
        assert "The snapshot mine exists already: active, made 20" in result.stderr
        assert "--replace" in result.stderr
        assert "--name" in result.stderr
        assert stored(server) == before

    def test_is_replaced(self, server: LocalDaytona) -> None:
        build(server)
        before = stored(server)
        result = build(server, "--replace", "--base-image", "debian:12")
        assert result.exit_code == 0, result.output
        assert "Deleting the snapshot mine: active" in result.stderr
        assert stored(server).id != before.id
        assert "FROM debian:12" in stored(server).build_info.dockerfile_content

    def test_replace_without_one_just_builds(self, server: LocalDaytona) -> None:
        assert build(server, "--replace").exit_code == 0

    def test_is_waited_for_until_it_is_gone(self, server: LocalDaytona) -> None:
        build(server)
        identifier = stored(server).id
        server.faults.add(
            # Its state was changing, then it went slowly.
            Fault("status", path=rf"/snapshots/{identifier}$", status=409),
            Fault("pending", path=rf"/snapshots/{identifier}$", delay_s=2.5, skip=1),
        )
        started = time.monotonic()
        result = build(server, "--replace")
        assert result.exit_code == 0, result.output
        assert time.monotonic() - started > 2.5
        assert stored(server).id != identifier

    def test_of_daytona_cannot_be_replaced(self, server: LocalDaytona) -> None:
        result = build(server, "--replace", "--name", "fuse-s3")
        assert result.exit_code == 1
        assert "You cannot delete a general snapshot" in result.stderr
        assert "another --name" in result.stderr

    def test_that_failed_says_so(self, server: LocalDaytona) -> None:
        server.faults.add(Fault("fail", path=POST))
        build(server)
        assert "exists already: build_failed, failed on demand, made" in build(server).stderr
        assert build(server, "--replace").exit_code == 0

    def test_made_meanwhile(self, server: LocalDaytona) -> None:
        server.faults.add(
            Fault(
                "status",
                path=POST,
                status=409,
                body=b'{"statusCode":409,"message":"Snapshot mine already exists"}',
            )
        )
        result = build(server)
        assert result.exit_code == 1
        assert "Build with --replace, or use another --name" in result.stderr


class TestAFailure:
    def test_of_the_build(self, server: LocalDaytona) -> None:
        server.faults.add(Fault("fail", path=POST))
        result = build(server)
        assert result.exit_code == 1
        assert "failed on demand" in result.stderr
        assert "--replace" in result.stderr
        assert "Traceback" not in result.output

    def test_no_runner_is_the_source_documents_row(self, server: LocalDaytona) -> None:
        body = b'{"statusCode":400,"error":"Bad Request","message":"No available runners"}'
        server.faults.add(Fault("status", path=POST, status=400, body=body, headers={"content-type": "x"}))
        result = build(server)
        assert result.exit_code == 1
        for expected in (
            "Daytona has no available runner for snapshot 'mine'",
            "non-general",
            "at capacity",
            "--region",
        ):
            assert expected in result.stderr

    def test_of_the_key(self, server: LocalDaytona) -> None:
        result = build(server, DAYTONA_API_KEY="wrong")
        assert result.exit_code == 1
        assert "DAYTONA_API_KEY" in result.stderr
        assert "wrong" not in result.stderr

    def test_no_connection(self, server: LocalDaytona) -> None:
        result = build(server, DAYTONA_API_URL="http://127.0.0.1:1/api")
        assert result.exit_code == 1
        assert "options.apiUrl" in result.stderr

    def test_one_lost_answer_does_not_end_a_build(self, server: LocalDaytona) -> None:
        server.faults.add(
            Fault("pending", path=POST, delay_s=3),
            # The check before the build passes; then the SDK gives up at this request.
            Fault("status", path=r"/snapshots/[^/]+$", skip=1, status=502, times=2),
        )
        result = build(server)
        assert result.exit_code == 0, result.output
        assert "looking whether the build goes on" in result.stderr
        assert "is active" in result.stdout

    def test_a_lost_answer_to_the_create(self, server: LocalDaytona) -> None:
        server.faults.add(Fault("drop_after", path=POST))
        result = build(server)
        assert result.exit_code == 0, result.output
        assert stored(server).state == "active"

    def test_a_lost_create(self, server: LocalDaytona) -> None:
        server.faults.add(Fault("status", path=POST, status=503))
        result = build(server)
        assert result.exit_code == 1
        assert "try again later" in result.stderr

    def test_no_log_is_no_failure(self, server: LocalDaytona) -> None:
        server.faults.add(Fault("status", action="snapshots.log", status=500, times=None))
        result = build(server)
        assert result.exit_code == 0, result.output
        assert "(no more build log: " in result.stderr
        assert "Traceback" not in result.output

    def test_too_slow(self, server: LocalDaytona) -> None:
        server.faults.add(Fault("stuck", path=POST))
        result = build(server, "--timeout", "2")
        assert result.exit_code == 1
        assert "not finished in 2 s, and goes on" in result.stderr
        assert "--replace" in result.stderr

    def test_no_answer_at_all(self, server: LocalDaytona, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(adapter, "REQUEST_TIMEOUT_S", 1.0)
        server.faults.add(Fault("latency", path=r"/snapshots/mine$", delay_s=30))
        result = build(server)
        assert result.exit_code == 1
        assert "did not answer within 1 s" in result.stderr


@pytest.mark.full
def test_it_ends_by_itself_when_the_build_does_not(server: LocalDaytona) -> None:
    """The SDK's log thread must keep no program from ending, after a time-out or a Ctrl-C."""
    server.faults.add(Fault("stuck", path=POST, times=None))
    variables = environment(
        DAYTONA_API_URL=server.api_url, DAYTONA_API_KEY=server.api_key, **{FROM: "node:22", NAMED: "mine"}
    )
    started = subprocess.Popen(
        [*PROGRAM, "s3-snapshot"], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not server.count("snapshots.log"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=180)
    assert started.returncode == 1
    assert "interrupted. The build continues at Daytona" in errors
    assert "Traceback" not in errors


def test_the_log_cannot_steer_the_terminal() -> None:
    hostile = "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2Jdone\x07\rnext\u202e\n[bold]plain[/bold]"
    assert command._clean(hostile) == "red done\nnext\n[bold]plain[/bold]"


def test_a_refused_sandbox_of_a_snapshot_that_is_building(server: LocalDaytona) -> None:
    server.faults.add(Fault("stuck", path=POST))
    build(server, "--timeout", "1")
    with pytest.raises(Exception, match="Snapshot mine is building"):
        client(server).create(params=_from("mine"))


def test_other_threads_failures_are_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    message: list[str] = []
    seen: list[str] = []
    before, threading.excepthook = threading.excepthook, lambda failed: seen.append(str(failed.exc_value))
    try:
        with adapter._without_traceback_of_the_log(message.append):
            thread = threading.Thread(target=lambda: 1 / 0)
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before
    assert (message, seen) == ([], ["division by zero"])


def test_help_loads_no_sdk() -> None:
    code = (
        "import sys; from langchain_daytona_ws.cli.app import app\n"
        "try: app(['s3-snapshot', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('daytona', 'boto3', 'starlette') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(COLUMNS="200"),
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    for word in ("--replace", "--dry-run", "--region", FROM, NAMED):
        assert word in done.stdout
    assert done.stdout.endswith("[]\n")


def _from(name: str) -> Any:
    from daytona import CreateSandboxFromSnapshotParams

    return CreateSandboxFromSnapshotParams(snapshot=name)
