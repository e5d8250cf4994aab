"""Clients of S3: threads of different workspaces create them one after another; dates are read as botocore does."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from boto3.session import Session
from botocore.awsrequest import AWSResponse
from botocore.utils import parse_timestamp
from urllib3 import HTTPResponse

from langchain_daytona_ws import SandboxConfig
from langchain_daytona_ws._adapters.s3_bucket import Bucket, read_date
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._core.s3.workspace import s3_workspace

WORKSPACES = 4
OPTIONS = {
    "apiKey": "none",
    "mountAwsS3Buckets": True,
    "workspaceBucketName": "agents",
    "awsRegion": "eu-central-1",
}
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAWORKSPACE", "AWS_SECRET_ACCESS_KEY": "none"}


def test_one_thread_at_a_time_uses_the_shared_session(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SandboxConfig.model_validate({"options": OPTIONS, "envVars": KEYS})
    creating, most, begun = [0], [0], threading.Barrier(WORKSPACES)
    create = Session.client

    def counted(session: Session, *args: Any, **settings: Any) -> Any:
        creating[0] += 1
        most[0] = max(most[0], creating[0])
        try:
            return create(session, *args, **settings)
        finally:
            creating[0] -= 1

    def use(number: int) -> None:
        workspace = s3_workspace(config, f"demo-{number}")
        assert workspace is not None
        bucket = Bucket(workspace)
        begun.wait()
        bucket.clients(Credentials("AKIAWORKSPACE", "none", None))
        bucket.close()

    monkeypatch.setattr(Session, "client", counted)
    with ThreadPoolExecutor(WORKSPACES) as threads:
        list(threads.map(use, range(WORKSPACES)))
    assert most == [1]


def test_a_child_that_is_forked_meanwhile_creates_its_own() -> None:
    program = """
import os
from langchain_daytona_ws._adapters import s3_bucket
with s3_bucket._creating:
    session, child = s3_bucket._session(), os.fork()
    if child == 0:
        is_free = s3_bucket._creating.acquire(timeout=30)
        os._exit(0 if is_free and s3_bucket._session() is not session else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], timeout=120, check=True)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-30T14:33:32.000Z",
        "2026-11-30T14:33:32.123456789Z",
        "2026-11-30T14:33:32+02:00",
        "2026-11-30T14:33:32",
        "Mon, 30 Nov 2026 14:33:32 GMT",
        "Mon, 30 Nov 2026 14:33:32 -0000",
        "Monday, 30-Nov-26 14:33:32 GMT",
        "Mon Nov 30 14:33:32 2026",
        "1796049212",
    ],
)
def test_dates_are_read_as_botocore_reads_them(text: str) -> None:
    assert read_date(text) == parse_timestamp(text)


@pytest.mark.parametrize("text", ["", "soon", "2026-13-30T14:33:32Z", "Mon, 30 Nov 99999 14:33:32 GMT"])
def test_an_invalid_date_raises_as_in_botocore(text: str) -> None:
    with pytest.raises((ValueError, RuntimeError)) as expected:
        parse_timestamp(text)
    with pytest.raises(expected.type):
        read_date(text)


def test_listings_are_read_without_the_slow_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SandboxConfig.model_validate({"options": OPTIONS, "envVars": KEYS})
    workspace = s3_workspace(config, "demo")
    assert workspace is not None
    bucket = Bucket(workspace)
    reads = bucket.clients(Credentials("AKIAWORKSPACE", "none", None)).reads
    found = b"<Contents><LastModified>2026-11-30T14:33:32.000Z</LastModified></Contents>"
    listing = b"<ListBucketResult>" + found + b"</ListBucketResult>"
    answer = AWSResponse("https://s3", 200, {}, HTTPResponse(BytesIO(listing), preload_content=False))
    reads.meta.events.register("before-send.s3", lambda **_: answer)
    monkeypatch.setattr("dateutil.parser.parse", None)
    contents = reads.list_objects_v2(Bucket="agents")["Contents"]
    assert contents[0]["LastModified"] == datetime(2026, 11, 30, 14, 33, 32, tzinfo=UTC)
    bucket.close()
