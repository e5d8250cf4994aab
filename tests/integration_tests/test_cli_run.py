"""``run``: one command, its output and its exit code, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_daytona_ws.cli.app import app
from langchain_daytona_ws.local import Fault, LocalDaytona
from tests.integration_tests.conftest import config_for
from tests.integration_tests.s3 import KEYS, Bucket, bucket, s3_options
from tests.integration_tests.test_cli import PROGRAM, environment
from tests.sample import sample

__all__ = ["bucket"]  # fixtures


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DAYTONA_"):
            monkeypatch.delenv(name)


def run(server: LocalDaytona, *arguments: str, **settings: Any) -> Any:
    document = json.dumps(config_for(server, **settings))
    result = CliRunner().invoke(app, ["run", "--config", "-", *arguments], input=document)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result


def until_executed(server: LocalDaytona) -> None:
    waiting, deadline = threading.Event(), time.monotonic() + 60
    while not any(item.open_requests for item in server.sandboxes):
        assert time.monotonic() < deadline
        waiting.wait(0.05)


@pytest.mark.parametrize("code", [0, 1, 2, 77, 255])
def test_the_commands_output_and_exit_code(server: LocalDaytona, code: int) -> None:
    result = run(server, "--", f"printf 'a\\nb  ü'; echo err >&2; exit {code}")
    assert (result.exit_code, result.stdout_bytes) == (code, "a\nb  üerr\n".encode())
    assert result.stderr == ""
    assert server.sandboxes == []
    assert server.count("create") == 1


def test_several_arguments_are_words(server: LocalDaytona) -> None:
    assert run(server, "--", "printf", "%s|", "a b", "$HOME", "'").stdout == "a b|$HOME|'|"
    assert run(server, "printf", "%s|", "-n", "--namespace").stdout == "-n|--namespace|"


def test_much_output_is_whole(server: LocalDaytona) -> None:
    result = run(server, "--", "head -c 200000 /dev/zero | tr '\\0' x")
    assert result.stdout == "x" * 200_000


def test_a_limit_that_was_set_holds(server: LocalDaytona) -> None:
    result = run(server, "--", "head -c 5000 /dev/zero | tr '\\0' x", outputLimitBytes=1024)
    assert "bytes left out" in result.stdout


def test_its_time_is_up(server: LocalDaytona) -> None:
    result = run(server, "--timeout", "1", "--", "echo begun; sleep 100")
    assert (result.exit_code, result.stdout) == (124, "begun\n")
    assert "timed out after 1 s" in result.stderr
    assert server.sandboxes == []


def test_a_workspace_on_s3(bucket: Bucket) -> None:
    options = s3_options(bucket.server, bucket.name)
    arguments = ("--namespace", bucket.namespace, "--")
    for command in ("echo kept > f", "cat f"):
        result = run(bucket.server, *arguments, command, options=options, envVars=KEYS)
        assert result.exit_code == 0
    assert result.stdout == "kept\n"
    assert bucket.server.sandboxes == []


def test_a_persistent_sandbox_stays(server: LocalDaytona) -> None:
    assert run(server, "--", "echo kept > /tmp/f", persistent=True).exit_code == 0
    assert run(server, "--", "cat /tmp/f", persistent=True).stdout == "kept\n"
    assert [item.labels["lifetime"] for item in server.sandboxes] == ["persistent"]
    assert server.count("create") == 1


class TestNothingRan:
    def test_a_wrong_configuration(self, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        path.write_text("{")
        result = CliRunner().invoke(app, ["run", "--config", str(path), "--", "true"])
        assert (result.exit_code, result.stdout) == (125, "")
        assert "is not JSON" in result.stderr

    def test_no_key(self) -> None:
        result = CliRunner().invoke(app, ["run", "--", "true"])
        assert result.exit_code == 125
        assert "DAYTONA_API_KEY" in result.stderr

    def test_no_sandbox(self, server: LocalDaytona) -> None:
        result = run(server, "--", "true", options={"snapshot": "no-such"})
        assert (result.exit_code, result.stdout) == (125, "")
        assert "options.snapshot" in result.stderr

    def test_an_empty_command(self, server: LocalDaytona) -> None:
        assert run(server, "--", "  ").exit_code == 125
        assert server.count("execute") == 0

    @pytest.mark.parametrize("arguments", [(), ("--timeout", "0", "--", "true"), ("--no-such", "true")])
    def test_a_wrong_call(self, server: LocalDaytona, arguments: tuple[str, ...]) -> None:
        assert run(server, *arguments).exit_code == 2
        assert server.requests == []


def test_an_unreadable_answer_is_an_unknown_outcome(server: LocalDaytona) -> None:
    body = b'{"exitCode":0,"result":"Killed"}'
    headers = {"content-type": "application/json"}
    server.faults.add(Fault("status", action="execute", status=200, headers=headers, body=body, times=None))
    result = run(server, "--", "true")
    assert result.exit_code == 123
    assert "outcome is unknown" in result.stderr


def test_an_unknown_outcome(server: LocalDaytona) -> None:
    def lose() -> None:
        until_executed(server)
        server.destroy_sandbox(server.sandboxes[0].id)

    losing = threading.Thread(target=lose)
    losing.start()
    result = run(server, "--", "sleep 100")
    losing.join()
    assert result.exit_code == 123
    assert "outcome is unknown" in result.stderr
    assert server.sandboxes == []


def test_a_sandbox_that_cannot_be_deleted_does_not_hide_the_result(server: LocalDaytona) -> None:
    server.faults.add(Fault("status", action="delete", status=403, times=None))
    result = run(server, "--", "echo done; exit 3")
    assert (result.exit_code, result.stdout) == (3, "done\n")
    assert "Warning: The sandbox" in result.stderr


@pytest.mark.parametrize("number", sample([signal.SIGINT, signal.SIGTERM], signal.SIGTERM))
def test_a_signal_ends_the_command_and_deletes_the_sandbox(
    server: LocalDaytona, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_for(server)))
    started = subprocess.Popen(
        [*PROGRAM, "run", "--config", str(path), "--", "sleep 100"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until_executed(server)
    started.send_signal(number)
    _, errors = started.communicate(timeout=180)
    assert started.returncode == 128 + number
    assert "Traceback" not in errors
    assert server.sandboxes == []


def test_a_command_that_goes_on_as_a_job(server: LocalDaytona) -> None:
    settings = {"onTimeout": "background", "persistent": True}
    result = run(server, "--timeout", "1", "--", "echo begun; sleep 100", **settings)
    assert (result.exit_code, result.stdout) == (124, "begun\n")
    assert "goes on as job" in result.stderr
    result = run(server, "--timeout", "1", "--", "sleep 100", onTimeout="background")
    assert result.exit_code == 124
    assert "was killed" in result.stderr
    assert len(server.sandboxes) == 1
