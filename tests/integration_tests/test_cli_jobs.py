"""``jobs``: over a persistent workspace, each call a session of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws.cli.app import app
from langchain_daytona_ws.errors import UnpushedFiles
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DAYTONA_"):
            monkeypatch.delenv(name)


class Jobs:
    def __init__(self, server: LocalDaytona, folder: Path) -> None:
        self.server = server
        self.config = folder / "config.json"
        self.configure(persistent=True)

    def configure(self, **settings: Any) -> None:
        self.config.write_text(json.dumps(config_for(self.server, **settings)))

    def __call__(self, action: str, *arguments: str) -> Any:
        result = CliRunner().invoke(
            app, ["jobs", action, "--config", str(self.config), *arguments], env={"COLUMNS": "200"}
        )
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert self.server.api_key not in result.output
        return result

    def start(self, *arguments: str) -> str:
        result = self("start", *arguments)
        assert result.exit_code == 0, result.output
        return str(result.stdout.strip())

    def reported(self, action: str, *arguments: str) -> Any:
        return json.loads(self(action, "--json", *arguments).stdout)


@pytest.fixture
def jobs(server: LocalDaytona, tmp_path: Path) -> Jobs:
    return Jobs(server, tmp_path)


def test_a_job_from_its_start_to_its_end(server: LocalDaytona, jobs: Jobs) -> None:
    job = jobs.start("--", "echo begun; sleep 0.2; echo ended; exit 7")
    assert jobs("wait", job).exit_code == 7
    reported = jobs.reported("status", job)
    assert (reported["id"], reported["state"], reported["exit_code"]) == (job, "finished", 7)
    assert "finished after" in jobs("status", job).stdout
    result = jobs("logs", job)
    assert (result.exit_code, result.stdout) == (0, "begun\nended\n")
    assert "--offset 12" in result.stderr
    assert jobs("logs", job, "--offset", "6").stdout == "ended\n"
    assert jobs("logs", job, "--tail", "1").stdout == "ended\n"
    assert [item["id"] for item in jobs.reported("list")["jobs"]] == [job]
    assert "exit 7" in jobs("list").stdout
    assert server.count("create") == 1
    assert len(server.sandboxes) == 1


def test_the_id_of_a_started_job_is_printed_though_the_session_cannot_be_closed(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = WorkspaceSession.close

    def fail(session: WorkspaceSession) -> None:
        close(session)
        raise UnpushedFiles("not in S3")

    with monkeypatch.context() as patched:
        patched.setattr(WorkspaceSession, "close", fail)
        result = jobs("start", "sleep", "50")
    assert (result.exit_code, result.stderr) == (0, "Warning: not in S3\n")
    assert [job["id"] for job in jobs.reported("list")["jobs"]] == [result.stdout.strip()]


def test_a_running_job_is_stopped(jobs: Jobs) -> None:
    job = jobs.start("--max-duration", "60", "sleep", "50")
    assert jobs.reported("status", job)["state"] == "running"
    assert jobs.reported("status", job)["command"] == "sleep 50"
    assert jobs("wait", "--timeout", "1", job).exit_code == 124
    assert jobs.reported("stop", job)["state"] == "stopped"


def test_a_log_is_followed_to_the_end(jobs: Jobs) -> None:
    job = jobs.start("--", "for i in 1 2 3; do echo $i; sleep 0.3; done")
    assert jobs("logs", "--follow", "--offset", "0", job).stdout == "1\n2\n3\n"


def test_a_lost_one(server: LocalDaytona, jobs: Jobs) -> None:
    job = jobs.start("--", "sleep 100")
    server.stop_sandbox(server.sandboxes[0].id)
    assert jobs("wait", job).exit_code == 125
    assert jobs.reported("status", job)["state"] == "lost"


@pytest.mark.parametrize("action", ["list", "status", "logs", "stop", "wait"])
def test_listing_jobs_creates_no_sandbox(server: LocalDaytona, jobs: Jobs, action: str) -> None:
    result = jobs(action, *([] if action == "list" else ["abcd2345"]))
    assert result.exit_code == 1
    assert "no sandbox now" in result.stderr
    assert server.count("create") == 0


def test_an_unknown_job_id(jobs: Jobs) -> None:
    jobs.start("--", "true")
    result = jobs("status", "abcd2345")
    assert result.exit_code == 1
    assert "abcd2345" in result.stderr
    assert "Traceback" not in result.output


def test_an_ephemeral_configuration_is_a_wrong_call(server: LocalDaytona, jobs: Jobs) -> None:
    jobs.configure()
    result = jobs("list")
    assert result.exit_code == 2
    assert "persistent: true" in result.stderr
    assert server.requests == []


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("logs", ("--tail", "1", "--offset", "1", "abcd2345")),
        ("start", ()),
        ("start", ("--", " ")),
        ("stop", ()),
    ],
)
def test_wrong_calls(jobs: Jobs, action: str, arguments: tuple[str, ...]) -> None:
    assert jobs(action, *arguments).exit_code == 2
