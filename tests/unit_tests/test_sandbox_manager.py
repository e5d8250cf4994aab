"""The sandbox of a session: a creation that never ends leaves no sandbox."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_daytona_ws import SandboxConfig
from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._core.ports import SandboxInfo, SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._session import process_end
from langchain_daytona_ws._session.sandbox_manager import SandboxManager
from langchain_daytona_ws._session.single_flight import once_blocking, once_on_loop
from tests.unit_tests.scripted_port import ScriptedPort


class Port(ScriptedPort):
    """A Daytona API whose first create never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.created: list[str] = []
        self.deleted: list[str] = []

    async def create(self, spec: SandboxSpec, *, timeout_s: float) -> SandboxInfo:
        self.created.append(spec.name)
        if len(self.created) == 1:
            await asyncio.Event().wait()
        return SandboxInfo(spec.name, spec.name, "started", "org", {})

    async def delete(self, id_or_name: str) -> None:
        self.deleted.append(id_or_name)


@pytest.mark.parametrize("is_used", [False, True])
@pytest.mark.parametrize("is_collected", [False, True])
def test_a_closed_loop_leaves_no_sandbox(*, is_collected: bool, is_used: bool) -> None:
    names = iter("ab")
    manager = SandboxManager(
        SandboxConfig(permission_mode="bypass"),
        lambda: SandboxSpec(name=next(names), labels={"namespace": "demo"}),
        on_lost=lambda: None,
        add_notice=lambda _: None,
        clock=SYSTEM_CLOCK,
    )
    port = Port()
    manager.clients = SimpleNamespace(sync_port=lambda: port, account=lambda: None, close=lambda: None)  # type: ignore[assignment]

    async def api() -> Any:
        return port

    loop = asyncio.new_event_loop()
    creating: object = loop.create_task(manager.acquire(once_on_loop, api))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    if is_collected:
        creating = None
        gc.collect()
    if is_used:
        assert manager._flight.pending is None
        assert run_sync(manager.acquire(once_blocking, api)).id == "b"
        assert port.deleted == ["a"]
    manager.close()
    assert sorted(port.deleted) == port.created
    del creating
    gc.collect()
    assert not process_end.is_owned_here(manager)
