"""Commands in a sandbox that mounts a workspace, without a session."""

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
from langchain_daytona_ws._core.sync.push import OneSandbox
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


class MountedSandbox:
    """A sandbox whose commands have the mount as their only attachment, over the sync port.

    Args:
        bucket: Whose namespace to mount.
        role: Assume the role instead of using the keys.
    """

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
        sandbox = OneSandbox(self.info, is_persistent=False)
        self.client = GuestClient(
            self.port, sandbox, sandbox.acquire, {}, lambda: os.urandom(16).hex(), attachments=[self.mount]
        )

    def run(self, command: str) -> CommandResult:
        return run_sync(
            run_command(self.client, self.root, command, timeout_s=30, limit_bytes=262_144, key=None)
        )

    def close(self) -> None:
        run_sync(self.port.delete(self.info.id))
