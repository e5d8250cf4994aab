"""No async call of this package blocks the event loop: a detector watches it, as `langgraph dev` does.

In a process of its own, where nothing is imported yet: a first call's imports count too.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for
from tests.integration_tests.s3 import KEYS, ROLE, s3_options

ROOT = Path(__file__).parents[3]
# On Python 3.14, as in pyproject.toml.
OF_LANGSMITH = (
    "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning:"
    "langsmith._internal._beta_decorator"
)


def watched(scene: str, config: dict[str, Any]) -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            OF_LANGSMITH,
            "-m",
            "tests.integration_tests.langgraph.unblocked",
            scene,
        ],
        check=False,
        cwd=ROOT,
        input=json.dumps(config),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ran.stdout == "done\n"


def own_bucket(server: LocalDaytona) -> str:
    """Make a bucket without files of the other scenes, which all have one namespace."""
    return server.make_bucket(f"blocking-{secrets.token_hex(4)}")


@pytest.mark.parametrize(
    "scene",
    ["session", "tools", "approvals", "pool"],
)
@pytest.mark.full
def test_on_a_disk_of_its_own(server: LocalDaytona, scene: str) -> None:
    watched(scene, config_for(server))


@pytest.mark.full
def test_in_a_persistent_sandbox(server: LocalDaytona) -> None:
    watched("session", config_for(server, persistent=True, onCreate=["true"]))


def test_on_s3_by_its_api(s3_server: LocalDaytona, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    role = {"mountRoleArn": ROLE, "stsEndpoint": s3_server.s3_endpoint}
    watched("session", config_for(s3_server, options=s3_options(s3_server, own_bucket(s3_server), **role)))


@pytest.mark.full
def test_on_s3_through_the_mount(s3_server: LocalDaytona) -> None:
    options = s3_options(s3_server, own_bucket(s3_server), fileAccess="sandbox")
    watched("session", config_for(s3_server, options=options, envVars=KEYS))


@pytest.mark.full
def test_the_detector_finds_blocking_calls(server: LocalDaytona) -> None:
    with pytest.raises(AssertionError, match="BlockingError"):
        watched("blocking", config_for(server))
