"""Faults of S3 and STS, as boto3 meets them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from langchain_daytona_ws.local import LocalS3, S3Fault

ROLE = "arn:aws:iam::123456789012:role/workspace"


@pytest.fixture(scope="module")
def s3() -> Iterator[LocalS3]:
    with LocalS3() as running:
        running.make_bucket("agents")
        yield running


@contextlib.contextmanager
def client(s3: LocalS3, service: str) -> Iterator[Any]:
    made: Any = boto3.client(
        service, endpoint_url=s3.endpoint, region_name="us-east-1", aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="example", config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )  # fmt: skip
    with contextlib.closing(made):
        yield made


def put(bucket: Any, key: str) -> None:
    bucket.put_object(Bucket="agents", Key=key, Body=b"x")


def keys(bucket: Any) -> list[str]:
    return [item["Key"] for item in bucket.list_objects_v2(Bucket="agents").get("Contents", [])]


@pytest.mark.parametrize("name", ["a\x01b", "a\nb", "a\x1b[31mb", "a%41&b<c>", "a\ufffeb"])
def test_keys_with_control_characters(s3: LocalS3, name: str) -> None:
    with client(s3, "s3") as bucket:
        put(bucket, f"odd/{name}")
        assert bucket.get_object(Bucket="agents", Key=f"odd/{name}")["Body"].read() == b"x"
        after = bucket.list_objects_v2(Bucket="agents", Prefix="odd/", StartAfter=f"odd/{name}")
        assert (after["KeyCount"], after["StartAfter"]) == (0, f"odd/{name}")
        assert [
            item["Key"] for item in bucket.list_objects_v2(Bucket="agents", Prefix="odd/")["Contents"]
        ] == [f"odd/{name}"]
        bucket.delete_object(Bucket="agents", Key=f"odd/{name}")


@pytest.mark.parametrize(
    ("kind", "done"),
    [("drop_before", False), ("drop_after", True), ("truncate", True), ("malformed", True)],
)
def test_an_answer_that_does_not_come_through(s3: LocalS3, kind: Any, done: bool) -> None:
    with client(s3, "s3") as bucket:
        s3.add_fault(S3Fault(kind, method="PUT"))
        with contextlib.suppress(BotoCoreError, ClientError):
            put(bucket, kind)
        assert (kind in keys(bucket)) is done
        put(bucket, kind)  # it happens once


def test_a_refusing_answer(s3: LocalS3) -> None:
    with client(s3, "s3") as bucket:
        s3.add_fault(S3Fault("status", method="PUT", times=None, status=503, retry_after_s=2))
        for _ in range(2):
            with pytest.raises(ClientError) as caught:
                put(bucket, "refused")
            about = caught.value.response["ResponseMetadata"]
            assert (about["HTTPStatusCode"], about["HTTPHeaders"]["retry-after"]) == (503, "2")
        s3.clear_faults()
        assert "refused" not in keys(bucket)


def test_a_truncated_body(s3: LocalS3) -> None:
    with client(s3, "s3") as bucket:
        bucket.put_object(Bucket="agents", Key="large", Body=b"x" * 1000)
        s3.add_fault(S3Fault("truncate", method="GET"))
        with pytest.raises(BotoCoreError):
            bucket.get_object(Bucket="agents", Key="large")["Body"].read()


def test_a_role_that_is_denied(s3: LocalS3) -> None:
    with client(s3, "sts") as sts:
        s3.deny_role = True
        with pytest.raises(ClientError, match="AccessDenied"):
            sts.assume_role(RoleArn=ROLE, RoleSessionName="demo")
        s3.deny_role = False
        assert sts.assume_role(RoleArn=ROLE, RoleSessionName="demo")["Credentials"]


def test_a_fault_of_no_service(s3: LocalS3) -> None:
    with pytest.raises(ValueError, match="service must be one of"):
        s3.add_fault(S3Fault("status", service="ec2"))
