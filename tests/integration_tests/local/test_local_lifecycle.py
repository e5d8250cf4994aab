"""Auto-stop and its like, by a clock in the test's hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from daytona import CreateSandboxFromSnapshotParams, Daytona, SandboxState
from daytona.common.errors import DaytonaNotFoundError

from langchain_daytona_ws.local import Fault, LocalDaytona, ManualClock

MINUTE = 60


def params(**options: object) -> CreateSandboxFromSnapshotParams:
    return CreateSandboxFromSnapshotParams(**options)


@pytest.fixture
def server(clock: ManualClock) -> Iterator[LocalDaytona]:
    with LocalDaytona(clock=clock) as server:
        yield server


def state(server: LocalDaytona) -> list[str]:
    return [record.state for record in server.sandboxes]


def test_auto_stop_counts_from_the_last_toolbox_request(
    server: LocalDaytona, daytona: Daytona, clock: ManualClock
) -> None:
    sandbox = daytona.create(params(auto_stop_interval=2))
    clock.advance(1.5 * MINUTE)
    daytona.get(sandbox.id)  # a control-plane request is no activity
    sandbox.process.exec("sleep 1000 >/dev/null 2>&1 &")  # and neither is a background process
    server.clock.advance(1.5 * MINUTE)
    assert state(server) == ["started"]
    sandbox.refresh_activity()
    clock.advance(1.9 * MINUTE)
    assert state(server) == ["started"]
    clock.advance(0.2 * MINUTE)
    assert state(server) == ["stopped"]
    sandbox.start()
    assert "sleep 1000" not in sandbox.process.exec("ps axo args").result


def test_the_default_is_fifteen_minutes_and_zero_is_off(
    server: LocalDaytona, daytona: Daytona, clock: ManualClock
) -> None:
    daytona.create(params(name="default"))
    daytona.create(params(name="off", auto_stop_interval=0))
    clock.advance(14 * MINUTE)
    assert state(server) == ["started", "started"]
    clock.advance(2 * MINUTE)
    assert state(server) == ["stopped", "started"]


def test_an_open_request_keeps_it_awake(server: LocalDaytona, daytona: Daytona, clock: ManualClock) -> None:
    sandbox = daytona.create(params(auto_stop_interval=1))
    results = []
    thread = threading.Thread(
        target=lambda: results.append(sandbox.process.exec("sleep 1; echo done").result)
    )
    thread.start()
    deadline = time.monotonic() + 60
    while server.count("execute") == 0 or server.sandboxes[0].open_requests == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    clock.advance(60 * MINUTE)
    assert state(server) == ["started"]
    thread.join()
    assert results == ["done\n"]
    clock.advance(2 * MINUTE)
    assert state(server) == ["stopped"]


def test_auto_delete_counts_from_stopping(server: LocalDaytona, daytona: Daytona, clock: ManualClock) -> None:
    sandbox = daytona.create(params(auto_stop_interval=0, auto_delete_interval=5))
    clock.advance(60 * MINUTE)
    assert state(server) == ["started"]
    sandbox.stop()
    clock.advance(4 * MINUTE)
    assert state(server) == ["stopped"]
    clock.advance(2 * MINUTE)
    assert state(server) == []
    with pytest.raises(DaytonaNotFoundError):
        daytona.get(sandbox.id)


def test_ephemeral_sandboxes_are_destroyed_instead_of_stopped(
    server: LocalDaytona, daytona: Daytona, clock: ManualClock
) -> None:
    by_hand = daytona.create(params(ephemeral=True))
    daytona.create(params(auto_stop_interval=1, auto_delete_interval=0))
    folders = [record.folder for record in server.sandboxes]
    by_hand.stop()
    assert by_hand.state == SandboxState.DESTROYED
    clock.advance(2 * MINUTE)
    assert state(server) == []
    assert not any(folder.exists() for folder in folders)


def test_time_to_live_destroys_in_any_state(
    server: LocalDaytona, daytona: Daytona, clock: ManualClock
) -> None:
    daytona.create(params(ttl_minutes=10, auto_stop_interval=0))
    daytona.create(params(ttl_minutes=10)).stop()
    daytona.create(params(ttl_minutes=0, auto_stop_interval=0))
    server.faults.add(Fault("stuck", action="stop"))
    stuck = daytona.create(params(ttl_minutes=10, auto_stop_interval=0))
    daytona._sandbox_api.stop_sandbox(stuck.id)
    assert state(server) == ["started", "stopped", "started", "stopping"]
    clock.advance(9 * MINUTE)
    assert len(state(server)) == 4
    clock.advance(2 * MINUTE)
    assert state(server) == ["started"]


def test_an_archive_interval_of_zero_is_the_longest(
    server: LocalDaytona, daytona: Daytona, clock: ManualClock
) -> None:
    daytona.create(params(auto_archive_interval=0)).stop()
    clock.advance(29 * 24 * 60 * MINUTE)
    assert state(server) == ["stopped"]
    clock.advance(2 * 24 * 60 * MINUTE)
    assert state(server) == ["archived"]


def test_archived_sandboxes_start_again(server: LocalDaytona, daytona: Daytona, clock: ManualClock) -> None:
    sandbox = daytona.create(params(auto_archive_interval=30, auto_delete_interval=60))
    sandbox.process.exec("echo kept > f")
    sandbox.stop()
    clock.advance(31 * MINUTE)
    assert state(server) == ["archived"]
    clock.advance(120 * MINUTE)  # archived ones are not auto-deleted
    assert state(server) == ["archived"]
    sandbox.start()
    assert sandbox.process.exec("cat f").result == "kept\n"


def test_a_state_change_takes_the_time_of_the_clock(
    server: LocalDaytona, daytona: Daytona, clock: ManualClock
) -> None:
    sandbox = daytona.create()
    server.faults.add(Fault("pending", action="stop", delay_s=5))
    daytona._sandbox_api.stop_sandbox(sandbox.id)
    assert state(server) == ["stopping"]
    clock.advance(4)
    assert state(server) == ["stopping"]
    clock.advance(2)
    assert state(server) == ["stopped"]


def test_the_system_clock_sweeps_by_itself(connect: Callable[[LocalDaytona], Daytona]) -> None:
    with LocalDaytona() as server:
        sandbox = connect(server).create(params(auto_stop_interval=0))
        record = server._active.fleet.get(sandbox.id)
        record.ttl_minutes = 1
        record.created_at -= 61
        deadline = time.monotonic() + 60
        while server.sandboxes:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_one_clock_drives_several_servers(
    clock: ManualClock, connect: Callable[[LocalDaytona], Daytona]
) -> None:
    with LocalDaytona(clock=clock) as item, LocalDaytona(clock=clock) as two:
        for server in (item, two):
            connect(server).create(params(auto_stop_interval=1))
        clock.advance(2 * MINUTE)
        assert (state(item), state(two)) == (["stopped"], ["stopped"])
    clock.advance(1)  # the port is closed
