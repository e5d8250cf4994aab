"""The unmodified SDK against a local server."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daytona import AsyncDaytona, CreateSandboxFromSnapshotParams, Daytona, DaytonaConfig, Sandbox

from langchain_daytona_ws.local import LocalDaytona, ManualClock

from .mounted import Mounted, mounted

Connect = Callable[[LocalDaytona], Daytona]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK's file transfers obey HTTP_PROXY, also for loopback.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost,::1")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect an SDK client to a server; it is closed at the end."""
    clients: list[Daytona] = []

    def make(server: LocalDaytona) -> Daytona:
        client = Daytona(DaytonaConfig(api_key=server.api_key, api_url=server.api_url, target="local"))
        clients.append(client)
        return client

    yield make
    for client in clients:
        client._http_client.close()
        client._api_client.rest_client.pool_manager.clear()
        client._toolbox_api_client.rest_client.pool_manager.clear()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def daytona(server: LocalDaytona, connect: Connect) -> Daytona:
    return connect(server)


@pytest.fixture
def sandbox(daytona: Daytona) -> Sandbox:
    return daytona.create()


@pytest.fixture(scope="session")
def mounted_sandbox() -> Iterator[Mounted]:
    """A sandbox with a mount at /mnt/w that all tests of a worker share: each keeps to a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost,::1")
        with mounted() as made:
            made.mount("/mnt/w")
            yield made


@pytest.fixture
def alone(mounted_sandbox: Mounted) -> Iterator[Mounted]:
    """A sandbox and a bucket that no other test sees. Nothing is mounted yet."""
    with contextlib.closing(
        Mounted(mounted_sandbox.server, mounted_sandbox.daytona, f"alone-{uuid.uuid4().hex[:8]}")
    ) as made:
        yield made
        mounted_sandbox.server.s3.credential_lifetime_s = None


def eventually(happens: Callable[[], bool]) -> bool:
    """Return whether it happens within a minute."""
    deadline = time.monotonic() + 60
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def sleeping(argument: str) -> list[Path]:
    """Return the host's /proc entries of the processes `sleep <argument>`."""
    wanted = b"sleep\0" + argument.encode() + b"\0"
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == wanted:
                found.append(entry)
    return found


def named(name: str, **options: Any) -> CreateSandboxFromSnapshotParams:
    return CreateSandboxFromSnapshotParams(name=name, **options)


def async_client(server: LocalDaytona) -> AsyncDaytona:
    return AsyncDaytona(DaytonaConfig(api_key=server.api_key, api_url=server.api_url, target="local"))
