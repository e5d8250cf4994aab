"""The account under test: everything that is made in it has a label, and is deleted at the end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cached_property
from typing import Any

from daytona import CreateSandboxFromSnapshotParams, ListSandboxesQuery, Sandbox
from daytona.common.errors import DaytonaError, DaytonaNotFoundError

from langchain_daytona_ws import SandboxConfig, WorkspaceError, WorkspaceSession
from langchain_daytona_ws._adapters.daytona_sync import Client
from langchain_daytona_ws._adapters.sdk import account_of, client_config, making_a_client
from langchain_daytona_ws._core.s3.workspace import S3Workspace, s3_workspace

LABEL = "live-check"
SANDBOXES, S3_SANDBOXES = 5, 2  # made by a whole run
TTL_MINUTES = 20  # if this process is killed, Daytona deletes its sandboxes within this time
REQUEST_S = 60.0
GONE_WITHIN_S = 90.0
LINGER_S = 3.0
GONE = ("gone", "destroyed")


class Account:
    """The account that the environment and the given options name.

    Args:
        options: Options of the configuration.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.run = secrets.token_hex(4)
        self.labels = {LABEL: self.run}
        self.namespace = f"{LABEL}-{self.run}"
        self.options = {**options, "labels": self.labels}
        self.config = self.configured()
        with making_a_client():
            self.client = Client(client_config(account_of(self.config)))
        self.client._target = self.config.options.target
        self.notes: dict[str, Any] = {}  # what one check leaves for the next
        self._sessions: list[WorkspaceSession] = []

    # --- sandboxes, made at their first use ---

    @cached_property
    def sandbox(self) -> Sandbox:
        """An ephemeral sandbox."""
        return self.create("raw", auto_delete_interval=0)

    @cached_property
    def kept(self) -> Sandbox:
        """A sandbox whose disk outlives a stop."""
        return self.create("kept", auto_delete_interval=TTL_MINUTES)

    @cached_property
    def session(self) -> WorkspaceSession:
        """A session over an ephemeral sandbox, with the workspace on its disk."""
        return self.open()

    def create(self, name: str, **more: Any) -> Sandbox:
        params = CreateSandboxFromSnapshotParams(
            name=f"{LABEL}-{self.run}-{name}",
            labels=dict(self.labels),
            snapshot=self.config.options.snapshot,
            auto_stop_interval=15,
            ttl_minutes=TTL_MINUTES,
            **more,
        )
        return self.client.create(params, timeout=REQUEST_S)

    def open(self, **settings: Any) -> WorkspaceSession:
        """Return a new session, which is closed at the end."""
        self._sessions.append(WorkspaceSession(self.configured(**settings), namespace=self.namespace))
        return self._sessions[-1]

    def configured(self, **settings: Any) -> SandboxConfig:
        """Return the account's configuration with further settings."""
        options = {**self.options, "mountAwsS3Buckets": False, **settings.pop("options", {})}
        return SandboxConfig.model_validate({"permissionMode": "bypass", **settings, "options": options})

    def execute(self, script: str, **more: Any) -> tuple[int, str]:
        """Run a script in the ephemeral sandbox as the SDK does."""
        answer = self.sandbox.process.exec(script, **more)
        return int(answer.exit_code), answer.result

    def python(self, code: str) -> str:
        """Run Python in the ephemeral sandbox; return its output."""
        return self.execute(in_python(code))[1].strip()

    # --- S3 ---

    @cached_property
    def workspace(self) -> S3Workspace | None:
        """The workspace on S3; None if the environment names no bucket and role."""
        options = self.config.options
        if not options.workspace_bucket_name or not options.mount_role_arn:
            return None
        return s3_workspace(self.configured(options={"mountAwsS3Buckets": True}), self.namespace)

    @cached_property
    def role(self) -> Any:
        """The workspace's credentials, of the assumed role."""
        from langchain_daytona_ws._adapters.aws import AssumedRole

        assert self.workspace is not None
        return AssumedRole(self.workspace).assume()

    @cached_property
    def s3(self) -> Any:
        """A client with the workspace's credentials."""
        import boto3
        from botocore.config import Config

        assert self.workspace is not None
        return boto3.client(
            "s3",
            region_name=self.workspace.region,
            endpoint_url=self.workspace.endpoint,
            aws_access_key_id=self.role.access_key_id,
            aws_secret_access_key=self.role.secret_access_key,
            aws_session_token=self.role.session_token,
            config=Config(
                connect_timeout=5,
                read_timeout=20,
                retries={"total_max_attempts": 2},
                proxies={} if self.workspace.endpoint else None,
            ),
        )

    # --- the end ---

    def without_secrets(self, text: str) -> str:
        """Return a text without this account's secrets."""
        known = [self.config.require_api_key().get_secret_value()]
        if "role" in self.__dict__:
            known += [self.role.access_key_id, self.role.secret_access_key, self.role.session_token]
        for secret in filter(None, known):
            text = text.replace(secret, "***")
        return text

    def clean_up(self) -> list[str]:
        """Delete everything that was made; return the names of the remains."""
        for session in self._sessions:
            # Sandboxes that this fails for are deleted below, by their label.
            with suppress(WorkspaceError):
                session.close(discard_unpushed=True)
        until, empty = time.monotonic() + GONE_WITHIN_S, 0
        # Twice: the sandbox of an interrupted request may appear a little later.
        while (left := self._sandboxes()) or (empty := empty + 1) < 2:
            if time.monotonic() > until:
                break
            for sandbox in left:
                with suppress(DaytonaError):  # a state change is in progress: it is tried again
                    sandbox.delete(timeout=REQUEST_S)
            time.sleep(0.5 if left else LINGER_S)
        return [sandbox.name for sandbox in left] + self._clean_bucket()

    def _sandboxes(self) -> list[Sandbox]:
        found = self.client.list(ListSandboxesQuery(labels=dict(self.labels)), request_timeout=REQUEST_S)
        return [sandbox for sandbox in found if _state(sandbox) not in ("destroyed", "destroying")]

    def _clean_bucket(self) -> list[str]:
        if "s3" not in self.__dict__:
            return []
        assert self.workspace is not None
        where = self.workspace.workspace
        try:
            for page in self.s3.get_paginator("list_objects_v2").paginate(
                Bucket=where.bucket, Prefix=where.prefix
            ):
                for item in page.get("Contents", []):
                    self.s3.delete_object(Bucket=where.bucket, Key=item["Key"])
        except Exception as error:  # noqa: BLE001 - named in the report
            return [f"objects below s3://{where.bucket}/{where.prefix} ({type(error).__name__})"]
        finally:
            self.s3.close()
        return []


def in_python(code: str) -> str:
    """Return a script that runs this code."""
    return f"python3 - <<'END_OF_CODE'\n{code}\nEND_OF_CODE"


def awaited(read: Callable[[], str], wanted: Collection[str], limit_s: float = 60.0) -> str:
    """Read until a wanted value is read or the time is up; return the last value."""
    until = time.monotonic() + limit_s
    while (seen := read()) not in wanted and time.monotonic() < until:
        time.sleep(0.5)
    return seen


def state_of(account: Account, identifier: str) -> str:
    """Return the state of a sandbox; "gone" if there is none."""
    try:
        return _state(account.client.get(identifier, request_timeout=REQUEST_S))
    except DaytonaNotFoundError:
        return "gone"


def _state(sandbox: Sandbox) -> str:
    return str(getattr(sandbox.state, "value", sandbox.state))
