"""``cp``: files go to a workspace and come back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws.cli import cp
from langchain_daytona_ws.cli.app import app
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for
from tests.integration_tests.s3 import KEYS, Bucket, bucket, s3_options

__all__ = ["bucket"]  # fixtures


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DAYTONA_"):
            monkeypatch.delenv(name)


def run(config: dict[str, Any], *arguments: str) -> Any:
    result = CliRunner().invoke(app, ["cp", "--config", "-", *arguments], input=json.dumps(config))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result


def test_there_and_back(server: LocalDaytona, tmp_path: Path) -> None:
    config = config_for(server, persistent=True)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.txt").write_text("a\n")
    (tmp_path / "d" / "out").symlink_to("/etc/passwd")
    done = run(config, f"{tmp_path}/d", "ws:copy")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "1 file, 2 bytes\n", "Left out (link): out\n")
    document = json.loads(run(config, "--json", "ws:copy", f"{tmp_path}/back").stdout)
    assert [file["path"] for file in document["files"]] == ["copy/a.txt"]
    assert (tmp_path / "back" / "a.txt").read_text() == "a\n"
    assert run(config, "ws:copy/a.txt", str(tmp_path)).exit_code == 0
    assert (tmp_path / "a.txt").read_text() == "a\n"
    missing = run(config, "ws:none", str(tmp_path / "x"))
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "none does not exist" in missing.stderr
    WorkspaceSession(config, namespace="default").release()


def test_a_workspace_on_s3_needs_no_sandbox(bucket: Bucket, tmp_path: Path) -> None:
    config = config_for(bucket.server, options=s3_options(bucket.server, bucket.name), envVars=KEYS)
    (tmp_path / "a.txt").write_text("a\n")
    assert run(config, "--namespace", bucket.namespace, f"{tmp_path}/a.txt", "ws:").exit_code == 0
    assert bucket.get("a.txt") == b"a\n"
    assert bucket.server.count("create") == 0


@pytest.mark.parametrize("paths", [("a", "b"), ("ws:a", "ws:b")])
def test_one_path_is_in_the_workspace(server: LocalDaytona, paths: tuple[str, str]) -> None:
    done = run(config_for(server, persistent=True), *paths)
    assert done.exit_code == 2
    assert "must begin with ws:" in done.stderr


def test_an_ephemeral_workspace_is_refused(server: LocalDaytona) -> None:
    done = run(config_for(server), "a", "ws:a")
    assert done.exit_code == 2
    assert "persistent: true" in done.stderr
    assert server.count("create") == 0


def test_a_hostile_name_cannot_control_the_terminal() -> None:
    assert cp._shown("a\x1b[31m/\u202eb") == r"$'a\x1b[31m/\u202eb'"
    assert cp._shown("[red]x") == r"\[red]x"
    assert len(cp._shown("x" * 500)) == cp.NAME_CHARS + 1
