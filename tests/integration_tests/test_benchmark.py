"""The S3 in memory and the everyday commands of the benchmark."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from benchmarks import everyday
from benchmarks.memory_s3 import MemoryS3, memory_s3
from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for
from tests.integration_tests.s3 import KEYS, outsider

BUCKET = "agents"
MIB = 1 << 20


@pytest.fixture(scope="module")
def store() -> Iterator[MemoryS3]:
    with memory_s3() as store:
        yield store


@pytest.fixture(params=["memory", "local"])
def client(request: pytest.FixtureRequest) -> Any:
    """Yield a client of the S3 in memory, and of the local S3, which answers alike."""
    if request.param == "memory":
        return outsider(request.getfixturevalue("store").endpoint)
    server = request.getfixturevalue("s3_server")
    server.make_bucket(BUCKET)
    return outsider(server.s3_endpoint)


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(Bucket=BUCKET, **arguments)
    return str(caught.value.response["ResponseMetadata"]["HTTPStatusCode"])


def test_an_object_keeps_content_and_metadata(client: Any) -> None:
    stored = client.put_object(Bucket=BUCKET, Key="a/ü +%&<", Body=b"content", Metadata={"file-mtime": "5ns"})
    read = client.get_object(Bucket=BUCKET, Key="a/ü +%&<")
    assert (read["Body"].read(), read["Metadata"], read["ETag"]) == (
        b"content",
        {"file-mtime": "5ns"},
        stored["ETag"],
    )
    head = client.head_object(Bucket=BUCKET, Key="a/ü +%&<")
    assert (head["ContentLength"], head["ETag"]) == (7, '"9a0364b9e99bb480dd25e1f0284c8555"')
    part = client.get_object(Bucket=BUCKET, Key="a/ü +%&<", Range="bytes=2-3", IfMatch=stored["ETag"])
    assert (part["Body"].read(), part["ContentRange"]) == (b"nt", "bytes 2-3/7")


def test_conditions_are_checked(client: Any) -> None:
    etag = client.put_object(Bucket=BUCKET, Key="if", Body=b"1")["ETag"]
    other = '"0cc175b9c0f1b6a831c399e269772661"'
    assert refused(client.put_object, Key="if", Body=b"2", IfNoneMatch="*") == "412"
    assert refused(client.put_object, Key="if", Body=b"2", IfMatch=other) == "412"
    assert refused(client.put_object, Key="none", Body=b"2", IfMatch=other) == "404"
    assert refused(client.get_object, Key="if", IfMatch=other) == "412"
    assert refused(client.get_object, Key="none") == "404"
    assert refused(client.delete_object, Key="if", IfMatch=other) == "412"
    client.put_object(Bucket=BUCKET, Key="if", Body=b"3", IfMatch=etag)
    assert client.get_object(Bucket=BUCKET, Key="if")["Body"].read() == b"3"
    client.delete_object(Bucket=BUCKET, Key="if", IfMatch=client.head_object(Bucket=BUCKET, Key="if")["ETag"])
    assert refused(client.head_object, Key="if") == "404"


def test_a_listing_has_all_keys_in_pages(client: Any) -> None:
    names = [f"list/{number:02}" for number in range(25)]
    for name in [*reversed(names), "list", "list0"]:
        client.put_object(Bucket=BUCKET, Key=name, Body=b"")
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": 10}
    )
    assert [[item["Key"] for item in page["Contents"]] for page in pages] == [
        names[:10],
        names[10:20],
        names[20:],
    ]
    after = client.list_objects_v2(Bucket=BUCKET, Prefix="list/", StartAfter=names[-2])
    assert [item["Key"] for item in after["Contents"]] == names[-1:]
    assert after["Contents"][0]["ETag"] == '"d41d8cd98f00b204e9800998ecf8427e"'
    client.delete_object(Bucket=BUCKET, Key=names[3])
    left = client.list_objects_v2(Bucket=BUCKET, Prefix="list/", MaxKeys=4)
    assert ([item["Key"] for item in left["Contents"]], left["IsTruncated"]) == ([*names[:3], names[4]], True)


def test_an_upload_in_parts_becomes_one_object(client: Any, tmp_path: Any) -> None:
    content = os.urandom(20 * MIB)
    (tmp_path / "big").write_bytes(content)
    client.upload_file(str(tmp_path / "big"), BUCKET, "big")
    client.download_file(BUCKET, "big", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == content
    assert client.head_object(Bucket=BUCKET, Key="big")["ETag"].endswith('-3"')


def test_delayed_answers_do_not_wait_for_each_other(store: MemoryS3) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(proxies={}, max_pool_connections=64),
    )
    client.put_object(Bucket=BUCKET, Key="late", Body=b"")
    store.latency(1.0)
    began = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda _: client.head_object(Bucket=BUCKET, Key="late"), range(64)))
    took_s = time.monotonic() - began
    store.latency(0)
    assert 1.0 <= took_s < 32.0  # 64 if they did


def test_everyday_commands_work_in_a_synchronised_workspace(server: LocalDaytona, store: MemoryS3) -> None:
    options = {
        "mountAwsS3Buckets": True,
        "s3Mode": "sync",
        "workspaceBucketName": BUCKET,
        "s3Endpoint": store.endpoint,
    }
    with WorkspaceSession(config_for(server, options=options, envVars=KEYS), namespace="everyday") as session:
        assert everyday.failing(session) == []
