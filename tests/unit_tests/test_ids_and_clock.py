"""A session's ids and time come from its arguments, or by default from this machine."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._adapters.aws import AssumedRole
from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._adapters.daytona_async import AsyncDaytonaPort
from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.s3 import AsyncS3Store, SyncS3Store
from langchain_daytona_ws._adapters.s3_bucket import Bucket
from langchain_daytona_ws._adapters.sdk import Account
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.workspace import S3Workspace, s3_workspace
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import CredentialsRefused

ROLE = "arn:aws:iam::123456789012:role/workspace"
ACCOUNT = Account(api_key="key", api_url="https://daytona.test/api", target=None)
ENDS_S = 1_750_003_600.0


class Clock:
    """A clock that only waits move forward; counts the waits."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.now = now
        self.waits: list[float] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def asleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def one_id() -> str:
    return "0" * 31 + "1"


def on_s3() -> S3Workspace:
    options = {
        "mountAwsS3Buckets": True, "workspaceBucketName": "agents", "awsRegion": "eu-west-1", "mountRoleArn": ROLE,
    }  # fmt: skip
    workspace = s3_workspace(SandboxConfig.model_validate({"options": options}), "demo")
    assert workspace is not None
    return workspace


async def nothing() -> Any:
    raise AssertionError("not needed")


def test_random_ids_have_the_required_form_and_unique_ends() -> None:
    ids = [WorkspaceSession({}, namespace="demo").id for _ in range(50)]
    assert all(re.fullmatch("[0-9a-f]{32}", item) for item in ids)
    assert len({item[-12:] for item in ids}) == 50


def test_a_session_takes_its_names_from_the_given_ids() -> None:
    session = WorkspaceSession({}, namespace="demo", ids=one_id)
    assert session.id == one_id()
    assert session._state.sandboxes._spec().name == "ldw-demo-000000000001"


@pytest.mark.parametrize("wrong", ["1", "0" * 31, "0" * 33, "A" * 32, "0" * 31 + "\n", 1])
def test_invalid_ids_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="ids must return 32"):
        WorkspaceSession({}, namespace="demo", ids=lambda: wrong)


def test_both_ports_use_the_clock() -> None:
    for make, run in ((SyncDaytonaPort, run_sync), (AsyncDaytonaPort, asyncio.run)):
        clock = Clock()
        port: Any = make(ACCOUNT, clock)
        run(port.sleep(2.5))
        assert clock.waits == [2.5]
        assert port.now() == clock.now


@pytest.mark.parametrize(("store", "run"), [(SyncS3Store, run_sync), (AsyncS3Store, asyncio.run)])
def test_both_stores_use_the_clock(store: Callable[..., Any], run: Callable[..., Any]) -> None:
    clock = Clock()
    made = store(Bucket(on_s3(), clock), nothing, lambda _: None)
    run(made.sleep(0.5))
    assert clock.waits == [0.5]
    assert made.now() == clock.now


def test_expiry_of_credentials_follows_the_clock() -> None:
    from datetime import UTC, datetime

    end = datetime.fromtimestamp(ENDS_S, UTC)
    answer = {
        "Credentials": {"AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c", "Expiration": end}
    }
    before, after = (AssumedRole(on_s3(), Clock(now))._checked(answer) for now in (ENDS_S - 1, ENDS_S))
    assert not isinstance(before, CredentialsRefused)
    assert before.expires_at == ENDS_S
    assert isinstance(after, CredentialsRefused)


def test_a_pickled_session_keeps_its_ids_and_its_clock() -> None:
    clock = Clock(ENDS_S)
    session = WorkspaceSession({"persistent": True}, namespace="demo", ids=one_id, clock=clock)
    copied = pickle.loads(pickle.dumps(session))
    assert copied.id == one_id()
    assert copied._state.clock.time() == ENDS_S
    assert pickle.loads(pickle.dumps(SYSTEM_CLOCK)).monotonic() > 0
