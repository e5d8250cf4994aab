"""Commands in one sandbox that outlives a stop, as a persistent session's will."""

from __future__ import annotations

import dataclasses
import os
from functools import partial

from langchain_daytona_ws._adapters.aws import AssumedRole, GivenKeys
from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.sdk import Account
from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.commands.run import CommandResult, run_command
from langchain_daytona_ws._core.guest_rpc.attachments import GuestRequest, Send
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.mount.manager import MountManager
from langchain_daytona_ws._core.ports import SandboxInfo, SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._core.s3.workspace import Mount, MountRole, S3Workspace
from langchain_daytona_ws._session.credential_cache import CredentialCache
from langchain_daytona_ws._session.single_flight import once_blocking
from tests.integration_tests.s3 import KEYS, ROLE, Bucket


class _Counted(MountManager):
    """Counts how often the credentials travelled."""

    secrets = 0

    async def send(self, send: Send, request: GuestRequest) -> Answer:
        async def counted(complete: GuestRequest) -> Answer:
            self.secrets += complete.secret is not None
            return await send(complete)

        return await super().send(counted, request)


class OneSandbox:
    """The core's way to a sandbox, over the sync port.

    Args:
        bucket: Whose namespace to mount.
        role: Assume the role instead of using the keys.
    """

    is_persistent = False
    starts = 0

    def __init__(self, bucket: Bucket, *, role: bool = False) -> None:
        server = bucket.server
        self.port = SyncDaytonaPort(Account(api_key=server.api_key, api_url=server.api_url, target=None))
        self.info: SandboxInfo = run_sync(self.port.create(SandboxSpec(name=bucket.namespace), timeout_s=60))
        self.root = f"/mnt/workspaces/{bucket.namespace}"
        keys = Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
        workspace = S3Workspace(
            region="us-east-1",
            endpoint=server.s3_endpoint,
            workspace=Mount(bucket.name, bucket.key(""), self.root),
            skills=None,
            kms_key_arn=None,
            role=None,
            keys=keys,
        )
        source = GivenKeys(keys)
        if role:
            by_role = MountRole(ROLE, None, "us-east-1", server.s3_endpoint)
            source = AssumedRole(dataclasses.replace(workspace, keys=None, role=by_role))
        cache = CredentialCache()
        get = partial(cache.get, once_blocking, source)
        self.mount = _Counted(workspace, get, cache.forget, delivered={}, add_notice=lambda _: None)
        self.client = GuestClient(
            self.port, self, self.acquire, {}, lambda: os.urandom(16).hex(), attachments=[self.mount]
        )

    async def acquire(self) -> SandboxInfo:
        return self.info

    def restarted(self, since: int) -> None:
        return None

    def lost(self, info: SandboxInfo) -> None:
        raise AssertionError("not expected to be lost")

    failed = lost

    def run(self, command: str) -> CommandResult:
        return run_sync(
            run_command(self.client, self.root, command, timeout_s=30, limit_bytes=262_144, key=None)
        )

    def close(self) -> None:
        run_sync(self.port.delete(self.info.id))
