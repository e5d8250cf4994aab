"""Clients of all contenders, each with its default settings."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from daytona import AsyncDaytona, Daytona, DaytonaConfig, Sandbox
from langchain_daytona import DaytonaSandbox  # type: ignore[import-untyped]

from benchmarks.served import Served
from langchain_daytona_ws import WorkspaceSession

KEYS = {"AWS_ACCESS_KEY_ID": "AKIABENCHMARK", "AWS_SECRET_ACCESS_KEY": "a-key-of-the-local-s3"}


def settings(server: Served, *, bucket: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a session's configuration; with a bucket, for a workspace on S3."""
    options = {"apiKey": server.api_key, "apiUrl": server.api_url, **more.pop("options", {})}
    config = {"permissionMode": "bypass", **more, "options": options}
    if bucket is None:
        return config
    options |= {
        "mountAwsS3Buckets": True,
        "workspaceBucketName": bucket,
        "awsRegion": "us-east-1",
        "s3Endpoint": server.s3_endpoint,
    }
    return {**config, "envVars": KEYS}


def session(server: Served, **more: Any) -> WorkspaceSession:
    """Return a new session with its own workspace."""
    return WorkspaceSession(settings(server, **more), namespace=f"bench-{secrets.token_hex(4)}")


def raw_config(server: Served) -> DaytonaConfig:
    return DaytonaConfig(api_key=server.api_key, api_url=server.api_url)


@contextmanager
def raw(server: Served) -> Iterator[Daytona]:
    client = Daytona(raw_config(server))
    try:
        yield client
    finally:
        close(client)


def close(client: Daytona) -> None:
    """Close a client's connections; the SDK's sync client has no method for it."""
    client._http_client.close()
    client._api_client.rest_client.pool_manager.clear()
    client._toolbox_api_client.rest_client.pool_manager.clear()


@asynccontextmanager
async def araw(server: Served) -> AsyncIterator[AsyncDaytona]:
    async with AsyncDaytona(raw_config(server)) as client:
        yield client


def peer(sandbox: Sandbox) -> Any:
    """Return langchain-daytona's backend for a sandbox, a BaseSandbox of Deep Agents."""
    return DaytonaSandbox(sandbox=sandbox)
