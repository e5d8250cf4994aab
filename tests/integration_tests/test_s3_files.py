"""Files straight on S3: boto3 and a real HTTP server between the operations and the bucket."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from langchain_daytona_ws._adapters.s3 import AsyncS3Store, Bucket, S3Store, SyncS3Store
from langchain_daytona_ws._core import render
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.files import FileOps
from langchain_daytona_ws._core.objects.guest import ObjectFiles
from langchain_daytona_ws._core.objects.search import BeyondBounds
from langchain_daytona_ws._core.store import Credentials, StoreFault, StoreFaultKind
from langchain_daytona_ws._core.workspace import Mount, S3Workspace
from langchain_daytona_ws.errors import FileError, FileMissing, WorkspaceError, WriteConflict
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests import s3

T = TypeVar("T")
KEYS = Credentials("AKIAWORKSPACE", "a-secret-of-the-workspace")

s3_server = s3.s3_server
bucket = s3.bucket


def workspace_of(bucket: s3.Bucket, **more: Any) -> S3Workspace:
    prefix = more.pop("prefix", bucket.key(""))
    settings: dict[str, Any] = {
        "region": "us-east-1",
        "endpoint": bucket.server.s3_endpoint,
        "workspace": Mount(more.pop("name", bucket.name), prefix, "/mnt/ns"),
        "skills": None,
        "kms_key_arn": None,
        "role": None,
        "keys": KEYS,
    }
    return S3Workspace(**{**settings, **more})


class Keys:
    """Gives out credentials one after the other; the last of them for ever."""

    def __init__(self, *given: Credentials) -> None:
        self.given = list(given) or [KEYS]
        self.refused: list[Credentials] = []

    async def current(self) -> Credentials:
        return self.given[0]

    def expired(self, credentials: Credentials) -> None:
        self.refused.append(credentials)
        if len(self.given) > 1:
            self.given.pop(0)


class Face:
    """One of the two faces, and sessions on it."""

    def __init__(self, kind: type[S3Store], bucket: s3.Bucket) -> None:
        self.outside = bucket
        self.kind = kind
        self._runner = asyncio.Runner() if kind is AsyncS3Store else None
        self._buckets: list[Bucket] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work) if self._runner else drive(work)

    def store(self, keys: Keys | None = None, **more: Any) -> S3Store:
        keys = keys or Keys()
        self._buckets.append(Bucket(workspace_of(self.outside, **more)))
        return self.kind(self._buckets[-1], keys.current, keys.expired)

    def ops(self, store: S3Store | None = None) -> FileOps:
        return FileOps(ObjectFiles(store or self.store(), where="s3://agents"), None, root="/mnt/ns")

    def refusal(self, kind: type[WorkspaceError], work: Coroutine[Any, Any, object]) -> WorkspaceError:
        with pytest.raises(kind) as caught:
            self.run(work)
        assert "agents" not in caught.value.for_model
        return caught.value

    def close(self) -> None:
        for one in self._buckets:
            one.close()
        if self._runner:
            self._runner.close()


@pytest.fixture(params=[SyncS3Store, AsyncS3Store], ids=["sync", "async"])
def face(request: pytest.FixtureRequest, bucket: s3.Bucket) -> Iterator[Face]:
    made = Face(request.param, bucket)
    yield made
    made.close()


@pytest.mark.parametrize("forbidding", [False, True])
def test_the_usual_day(face: Face, bucket: s3.Bucket, forbidding: bool) -> None:
    bucket.server.s3.head_403 = forbidding
    bucket.server.s3.clear_requests()

    async def day(ops: FileOps) -> None:
        assert (await ops.write("src/a.py", "x = 1\ny = 2\n")).created
        assert (
            render.file_text(await ops.read("src/a.py", offset=2))
            == "     2\ty = 2\n[Showing lines 2-2 of 2.]"
        )
        assert render.edited(await ops.edit("src/a.py", "y = 2", "y = 3")).startswith(
            "Edited src/a.py: 1 repl"
        )
        assert render.written(await ops.write("src/a.py", "z\n")) == "Wrote src/a.py (2 bytes)."
        assert (
            render.written(await ops.write("src/a.py", "z\n")) == "src/a.py already has exactly this content."
        )
        assert render.listing(await ops.list()) == "src/"
        assert render.listing(await ops.list("src")) == "a.py  2 bytes"
        assert render.globbed(await ops.glob("**/*.py")) == "src/a.py"
        assert render.grepped(await ops.grep("z", output_mode="content")) == "src/a.py:1:z"
        assert render.deleted(await ops.delete("src/a.py")) == "Deleted src/a.py."
        with pytest.raises(FileMissing):
            await ops.read("src/a.py")
        assert render.listing(await ops.list()) == "[The directory is empty.]"

    face.run(day(face.ops()))
    asked = [one for one in bucket.server.s3.requests if one.access_key == KEYS.access_key_id]
    assert {one.method for one in asked} == {"GET", "PUT", "DELETE"}, "no HEAD"
    assert all(
        one.key.startswith(bucket.key("")) or one.query["prefix"].startswith(bucket.key("")) for one in asked
    )


def test_one_request_reads(face: Face, bucket: s3.Bucket) -> None:
    bucket.put("a", b"x")
    bucket.server.s3.clear_requests()
    face.run(face.ops().read("a"))
    assert len(bucket.server.s3.requests) == 1
