"""Patch test servers with S3 to use the original programs of the environment."""

from __future__ import annotations

import functools
import os
from typing import Any

from langchain_daytona_ws.local import LocalDaytona, LocalS3, S3Store
from tests.real import ACCESS_KEY, ENDPOINT, MOUNT_S3, SECRET_KEY


@functools.cache
def apply() -> None:
    """Patch `LocalDaytona` and `LocalS3` once, if the environment names an original program."""
    mount_s3, endpoint = os.environ.get(MOUNT_S3), os.environ.get(ENDPOINT)
    settings: dict[str, Any] = {}
    if mount_s3:
        settings["mount_s3"] = mount_s3
    if endpoint:
        settings["s3_store"] = S3Store(endpoint, os.environ[ACCESS_KEY], os.environ[SECRET_KEY])
        _empty_new_buckets()
    if settings:
        _set_on_servers(settings)


def _set_on_servers(settings: dict[str, Any]) -> None:
    original = LocalDaytona.__init__

    @functools.wraps(original)
    def init(self: LocalDaytona, **named: Any) -> None:
        original(self, **({**settings, **named} if named.get("s3") else named))

    LocalDaytona.__init__ = init  # type: ignore[method-assign]


def _empty_new_buckets() -> None:
    """Patch `make_bucket` to empty the bucket: the store outlives the servers and may have earlier tests' objects."""
    original = LocalS3.make_bucket

    @functools.wraps(original)
    def make_bucket(self: LocalS3, name: str, region: str = "us-east-1") -> str:
        import boto3
        from botocore.config import Config

        made = original(self, name, region)
        client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=region, config=Config(proxies={}),
            aws_access_key_id="AKIAEMPTIES", aws_secret_access_key="any",
        )  # fmt: skip
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for entry in page.get("Contents", []):
                client.delete_object(Bucket=name, Key=entry["Key"])
        for upload in client.list_multipart_uploads(Bucket=name).get("Uploads", []):
            client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
        client.close()
        self.clear_requests()
        return made

    LocalS3.make_bucket = make_bucket  # type: ignore[method-assign]
