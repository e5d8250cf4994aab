"""The demo's workspace on the local S3: its bucket, its role, and a check from outside of the sandbox."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import boto3
from botocore.config import Config

from examples.demo.project import BROKEN, BROKEN_FILE, PUBLISHED, DemoFailed
from langchain_daytona_ws.local import LocalDaytona

BUCKET = "demo-workspaces"
ROLE = "arn:aws:iam::123456789012:role/sandbox-s3mount"
REGION = "us-east-1"
# Credentials of this process, to assume the role. The local STS accepts any keys.
HOST_KEYS = {"AWS_ACCESS_KEY_ID": "AKIADEMO", "AWS_SECRET_ACCESS_KEY": "demo", "AWS_REGION": REGION}

S3Mode = Literal["sync", "mount"]

_ACCOUNT = ("DAYTONA_",)
_STORAGE = ("AWS_", "SANDBOX_MOUNT_", "FILESYSTEM_BUCKET_NAME", "SKILLS_BUCKET_NAME")


@contextmanager
def own_environment(*, s3: bool) -> Iterator[None]:
    """Until the block ends, remove the settings of accounts from the environment. With `s3`, set HOST_KEYS."""
    before = dict(os.environ)
    for name in before:
        if name.startswith((*_ACCOUNT, *_STORAGE) if s3 else _ACCOUNT):
            del os.environ[name]
    os.environ.update(HOST_KEYS if s3 else {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def options_for(server: LocalDaytona, mode: S3Mode) -> dict[str, Any]:
    """Create a bucket on the server; return the options of a workspace in it."""
    return {
        "mountAwsS3Buckets": True,
        "s3Mode": mode,
        "workspaceBucketName": server.make_bucket(BUCKET),
        "awsRegion": REGION,
        "s3Endpoint": server.s3_endpoint,
        "mountRoleArn": ROLE,
        "stsEndpoint": server.s3_endpoint,
    }


def prefix_of(namespace: str) -> str:
    return f"sandbox/{namespace}/"


def repaired_object(server: LocalDaytona, namespace: str) -> str:
    """Read the file with boto3, and return its address; raise DemoFailed if it is not repaired."""
    key = prefix_of(namespace) + BROKEN_FILE
    client = boto3.client(
        "s3", region_name=REGION, endpoint_url=server.s3_endpoint, config=Config(proxies={})
    )
    with contextlib.closing(client) as s3:
        text = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    if PUBLISHED not in text or BROKEN in text:
        raise DemoFailed(f"s3://{BUCKET}/{key} is not repaired")
    return f"s3://{BUCKET}/{key}"
