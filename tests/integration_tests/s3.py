"""Configurations for workspaces on S3, and clients that read their buckets."""

from __future__ import annotations

import contextlib
import functools
import secrets
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config

from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import Driven

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAWORKSPACE", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-workspace"}
ROLE = "arn:aws:iam::123456789012:role/sandbox-s3mount"


def s3_options(server: LocalDaytona, bucket: str, **more: Any) -> dict[str, Any]:
    """Return the options of a workspace on the local S3."""
    options = {"mountAwsS3Buckets": True, "workspaceBucketName": bucket, "s3Endpoint": server.s3_endpoint}
    return {**options, **more}


@functools.cache
def outsider(endpoint: str) -> Any:
    """Return a client for an S3, as someone outside of the workspace has it.

    The client is shared; after `close()` it opens new connections.
    """
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIAOUTSIDE",
        aws_secret_access_key="outside",
        config=Config(proxies={}),
    )


@contextlib.contextmanager
def refuses_renames_and_is_gone() -> Iterator[str]:
    """Yield the endpoint of an S3 that answers one request, with 501, and then closes its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.send_response(501)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    def serve() -> None:
        server.handle_request()
        server.server_close()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.timeout = 60
    serving = threading.Thread(target=serve)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    serving.join()


class Bucket:
    """One namespace of one bucket, seen from outside; a name of its own for each test."""

    def __init__(self, server: LocalDaytona, name: str = "agents") -> None:
        self.server = server
        self.name = name
        self.namespace = f"ns-{secrets.token_hex(4)}"
        self.client = outsider(server.s3_endpoint)

    def key(self, path: str) -> str:
        return f"sandbox/{self.namespace}/{path}"

    def put(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=self.key(path), Body=data)

    def get(self, path: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=self.key(path))["Body"].read()
        return data

    def paths(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.key(""))
        return [item["Key"].removeprefix(self.key("")) for page in pages for item in page.get("Contents", [])]

    def session(self, open_session: Callable[..., Driven], *, role: bool = False, **settings: Any) -> Driven:
        """Make a session on it, with the keys in envVars or with the role."""
        by = {"mountRoleArn": ROLE, "stsEndpoint": self.server.s3_endpoint} if role else {}
        options = s3_options(self.server, self.name, **{**by, **settings.pop("options", {})})
        if not role:
            settings = {"envVars": KEYS, **settings}
        settings.setdefault("namespace", self.namespace)
        return open_session(self.server, options=options, **settings)


@pytest.fixture
def bucket(s3_server: LocalDaytona) -> Iterator[Bucket]:
    made = Bucket(s3_server)
    s3_server.clear_requests()
    with contextlib.closing(made.client):
        yield made
    s3_server.faults.clear()
    s3_server.s3.reset()


@pytest.fixture
def host_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own credentials, for assuming the role."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHOST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-host")
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
