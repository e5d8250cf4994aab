"""A new recording equals the committed cassettes; otherwise run `make record`."""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_daytona_ws.local import LocalDaytona
from tests.cassettes.record import LOCAL, RECORDED
from tests.cassettes.scenarios import SCENARIOS
from tests.cassettes.tape import load, written

# As long as the name in the cassettes: STS reports the packed size of the policy.
BUCKET = "xyzzyx"
ACCOUNT = "998877665544"
KEY = "dtn_of_an_account"


@pytest.mark.full
@pytest.mark.timeout(600)
def test_recording_again_changes_nothing(tmp_path: Path) -> None:
    with LocalDaytona(s3=True, api_key=KEY) as server:
        server.make_bucket(BUCKET)
        outer = {
            name: value for name, value in os.environ.items() if not name.startswith(("DAYTONA_", "AWS_"))
        }
        account = {
            "DAYTONA_API_KEY": KEY,
            "DAYTONA_API_URL": server.api_url,
            "FILESYSTEM_BUCKET_NAME": BUCKET,
            "SANDBOX_MOUNT_ROLE_ARN": f"arn:aws:iam::{ACCOUNT}:role/teams/of-mine",
            "AWS_ACCESS_KEY_ID": "AKIAOFTHEACCOUNT",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-account",
        }
        options = json.dumps({"s3Endpoint": server.s3_endpoint, "stsEndpoint": server.s3_endpoint})
        # In a separate process, like `make record`: vcrpy leaves connections to the garbage collector.
        program = [sys.executable, "-m", "tests.cassettes.record", "--runtime", "sync", "--to", str(tmp_path)]
        root = Path(__file__).parents[2]
        subprocess.run([*program, "--options", options], env={**outer, **account}, check=True, cwd=root)
        assert server.sandboxes == []
    recorded = sorted(tmp_path.iterdir())
    assert {path.stem for path in recorded} == {f"{name}-sync" for name in SCENARIOS}
    for path in recorded:
        text = path.read_text()
        assert [word for word in (BUCKET, ACCOUNT, "of-mine", KEY, "AKIA", "secret-of") if word in text] == []
        assert load(path)["recorded"]["server"] == "Daytona at 127.0.0.1, version unknown"
        assert _difference(RECORDED / path.name, path) == []


def _difference(before: Path, now: Path) -> list[str]:
    """Return the differences of settings and interactions; versions of the recording programs may differ."""
    cassettes = [load(before), load(now)]
    if not cassettes[0]["recorded"]["server"].startswith(LOCAL):
        return []  # recorded on another server
    texts = [written({**cassette, "recorded": None}).splitlines() for cassette in cassettes]
    return list(difflib.unified_diff(*texts, str(before), str(now), lineterm=""))
