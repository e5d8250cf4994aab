"""Commands in one sandbox that outlives a stop, as a persistent session's will."""

from __future__ import annotations

import dataclasses
import os

from langchain_daytona_ws._adapters.aws import AssumedRole, GivenKeys
from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.sdk import Account
from langchain_daytona_ws._core.calls import Caller
from langchain_daytona_ws._core.commands import CommandResult, run_command
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.mount import Luggage, Mounting
from langchain_daytona_ws._core.ports import SandboxInfo, SandboxSpec
from langchain_daytona_ws._core.store import Credentials
from langchain_daytona_ws._core.workspace import Mount, MountRole, S3Workspace
from langchain_daytona_ws._session.keyring import Keyring
from tests.integration_tests.s3 import KEYS, ROLE, Bucket


class _Counted(Mounting):
    """Counts how often the credentials travelled."""

    secrets = 0

    async def pack(self, sandbox_id: str, timeout_s: float) -> Luggage:
        luggage = await super().pack(sandbox_id, timeout_s)
        self.secrets += luggage.secret is not None
        return luggage


class OneSandbox:
    """The core's way to a sandbox, over the sync port.

    Args:
        bucket: Whose namespace to mount.
        role: Assume the role instead of using the keys.
    """

    is_persistent = False

    def __init__(self, bucket: Bucket, *, role: bool = False) -> None:
        server = bucket.server
        self.port = SyncDaytonaPort(Account(api_key=server.api_key, api_url=server.api_url, target=None))
        self.info: SandboxInfo = drive(self.port.create(SandboxSpec(name=bucket.namespace), timeout_s=60))
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
        ring = Keyring(source, source)
        self.mounting = _Counted(workspace, ring.get_here, ring.forget, delivered={}, tell=lambda _: None)
        self.caller = Caller(self.port, self, dict, lambda: os.urandom(16).hex(), self.mounting)

    async def acquire(self) -> SandboxInfo:
        return self.info

    def starts(self) -> int:
        return 0

    def restarted(self, since: int) -> None:
        return None

    def lost(self, info: SandboxInfo) -> None:
        raise AssertionError("not expected to be lost")

    failed = lost

    def run(self, command: str) -> CommandResult:
        return drive(
            run_command(self.caller, self.root, command, timeout_s=30, limit_bytes=262_144, key=None)
        )

    def close(self) -> None:
        drive(self.port.delete(self.info.id))
