"""The live check, against the local server: all facts hold there, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws.local import Fault, LocalDaytona
from langchain_daytona_ws.local.proxy import DAEMON_KINDS, DaemonKind
from tests.integration_tests.s3 import ROLE
from tests.sample import sample

ROOT = Path(__file__).parents[2]
LIMIT_S = 600


def environment(server: LocalDaytona, **more: str) -> dict[str, str]:
    """Return an environment that names the server's account."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("DAYTONA_", "AWS_"))}
    account = {"DAYTONA_API_KEY": server.api_key, "DAYTONA_API_URL": server.api_url}
    return {**outer, "NO_PROXY": "127.0.0.1,localhost", **account, **more}


def command(report: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.live", "--json", str(report), *arguments]


def checked(server: LocalDaytona, report: Path, *arguments: str, **more: str) -> dict[str, Any]:
    """Run the check to its end; return its report."""
    done = subprocess.run(
        command(report, *arguments), env=environment(server, **more), cwd=ROOT, capture_output=True, text=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert server.api_key not in done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    assert [fact for fact in found["facts"] if not fact["equal"]] == [], done.stdout
    assert (done.returncode, found["ended"], found["not_deleted"]) == (0, "complete", []), done.stderr
    assert "Cost: at most" in done.stdout.partition("= ")[0]
    assert "| fact | expected | seen |" in done.stdout
    assert server.sandboxes == []
    return found


@pytest.mark.full
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("daemon", DAEMON_KINDS)
def test_all_facts_hold_on_the_local_server(daemon: DaemonKind, tmp_path: Path) -> None:
    with LocalDaytona(daemon=daemon, s3=True) as server:
        server.make_bucket("agents")
        aws = {
            "FILESYSTEM_BUCKET_NAME": "agents",
            "SANDBOX_MOUNT_ROLE_ARN": ROLE,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIAHOST",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-host",
        }
        where = {"s3Endpoint": server.s3_endpoint, "stsEndpoint": server.s3_endpoint, "snapshot": "fuse-s3"}
        found = checked(server, tmp_path / "report.json", "--options", json.dumps(where), **aws)
        areas = {fact["area"] for fact in found["facts"]}
        assert areas >= {
            "create",
            "commands",
            "files",
            "jobs",
            "network",
            "previews",
            "policy",
            "conditional",
        }
        assert "a-secret-of-the-host" not in (tmp_path / "report.json").read_text()


@pytest.mark.full
def test_some_facts_hold_without_s3(server: LocalDaytona, tmp_path: Path) -> None:
    found = checked(server, tmp_path / "report.json", "--area", "create", "--area", "files")
    assert {fact["area"] for fact in found["facts"]} == {"create", "files"}


@pytest.mark.parametrize("during", sample(["a command", "a create"], "a command"))
def test_an_interrupted_check_leaves_nothing(server: LocalDaytona, tmp_path: Path, during: str) -> None:
    report = tmp_path / "report.json"
    if during == "a create":
        server.faults.add(Fault("latency", action="create", delay_s=1.0))
    with subprocess.Popen(
        command(report), env=environment(server), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as check:  # fmt: skip
        assert check.stdout is not None
        if during == "a create":
            deadline = time.monotonic() + 60
            while not server.count("create"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        else:
            while "time-out" not in check.stdout.readline():
                pass
        check.send_signal(signal.SIGINT)
        rest = check.stdout.read()
    assert check.returncode == 130, rest
    found = json.loads(report.read_text())
    assert (found["ended"], found["not_deleted"]) == ("interrupted", [])
    assert "interrupted" in rest
    assert server.sandboxes == []


@pytest.mark.full
def test_a_difference_is_reported(server: LocalDaytona, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    # A server whose sandboxes have another size, for example after a change of the default.
    done = subprocess.run(
        [sys.executable, "-c", DIFFERENT, "--json", str(report), "--area", "create"],
        env=environment(server), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    different = [fact for fact in json.loads(report.read_text())["facts"] if not fact["equal"]]
    assert [(fact["expected"], fact["seen"]) for fact in different] == [("2 1 3", "1 1 3")]
    assert "| ≠ | create |" in done.stdout


DIFFERENT = """
import dataclasses, sys
from tests.live import daytona_facts
facts = daytona_facts.fact.all
facts[1] = dataclasses.replace(facts[1], expected=("2 1 3",))
from tests.live.__main__ import main
sys.exit(main())
"""


@pytest.mark.full
def test_without_a_key_it_says_what_is_missing(tmp_path: Path) -> None:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("DAYTONA_")}
    done = subprocess.run(
        command(tmp_path / "report.json"), env=outer, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert (done.returncode, "DAYTONA_API_KEY" in done.stderr) == (2, True)
    assert not (tmp_path / "report.json").exists()
