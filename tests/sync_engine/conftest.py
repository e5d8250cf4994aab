"""The S3 in memory, working copies in this process, and the program that runs others."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._guest import sync_s3
from tests.sync_engine.memory_s3 import MemoryS3
from tests.sync_engine.worker import Runner
from tests.sync_engine.world import PREFIX, Workers, copy_spec


class Here(Runner):
    """A working copy in this process."""

    def __init__(self, spec: dict[str, Any]) -> None:
        os.makedirs(spec["root"], exist_ok=True)
        super().__init__(spec)
        self.spec = spec
        self.root = Path(spec["root"])

    def pull(self, **limits: float) -> dict[str, Any]:
        return self.run("pull", **limits)

    def push(self, **limits: float) -> dict[str, Any]:
        return self.run("push", **limits)

    def write(self, path: str, content: bytes | str) -> Path:
        at = self.root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(content.encode() if isinstance(content, str) else content)
        return at

    def files(self) -> dict[str, bytes]:
        return {
            str(at.relative_to(self.root)): at.read_bytes()
            for at in self.root.rglob("*")
            if at.is_file() and not at.is_symlink()
        }

    def trash(self) -> list[bytes]:
        return sorted(at.read_bytes() for at in Path(self.spec["state"], "trash").iterdir())


Make = Callable[..., Here]


@pytest.fixture(scope="module")
def memory_s3() -> Iterator[MemoryS3]:
    with MemoryS3() as running:
        yield running


@pytest.fixture
def s3(memory_s3: MemoryS3) -> MemoryS3:
    memory_s3.reset()
    return memory_s3


@pytest.fixture
def make(s3: MemoryS3, tmp_path: Path) -> Iterator[Make]:
    """Make a working copy; the same label again is the same directory with another process."""
    connections: list[http.client.HTTPConnection] = []
    connection_of = sync_s3.Bucket._connection

    def recorded(bucket: sync_s3.Bucket) -> http.client.HTTPConnection:
        connection = connection_of(bucket)
        connections.append(connection)
        return connection

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(sync_s3.Bucket, "_connection", recorded)
        made: list[Here] = []

        def make(label: str = "A", **changes: object) -> Here:
            made.append(Here({**copy_spec(f"{tmp_path}/{label}", s3.endpoint, label), **changes}))
            return made[-1]

        yield make
    for here in made:
        here.copy.pool.shutdown()
    for connection in connections:
        connection.close()


@pytest.fixture
def contents(s3: MemoryS3) -> Callable[[], dict[str, bytes]]:
    """Return the objects by path."""

    def contents() -> dict[str, bytes]:
        return {
            key[len(PREFIX) :]: stored.data for key, stored in s3.objects.items() if key.startswith(PREFIX)
        }

    return contents


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    running = Workers()
    yield running
    running.stop()
