"""Every fault, as the SDK meets it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import pytest
from daytona import Daytona, Sandbox, SandboxState
from daytona.common.errors import (
    DaytonaBadGatewayError,
    DaytonaConflictError,
    DaytonaConnectionError,
    DaytonaError,
    DaytonaNotFoundError,
    DaytonaRateLimitError,
    DaytonaServiceUnavailableError,
    DaytonaTimeoutError,
)

from langchain_daytona_ws.local import Fault, LocalDaytona

from .conftest import async_client, named

APPEND = "echo ran >> /tmp/runs; cat /tmp/runs"


@pytest.fixture(autouse=True)
def only_the_sdk_may_log(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    yield
    assert {record.name for record in caplog.records} <= {"urllib3.connectionpool"}


def runs(sandbox: Sandbox) -> int:
    return int(sandbox.process.exec("cat /tmp/runs 2>/dev/null | wc -l").result)


def test_latency(server: LocalDaytona, sandbox: Sandbox) -> None:
    server.faults.add(Fault("latency", action="execute", delay_s=0.5))
    started = time.monotonic()
    assert sandbox.process.exec("echo late").result == "late\n"
    assert time.monotonic() - started >= 0.5


def test_a_drop_after_execution_makes_the_sync_client_run_it_twice(
    server: LocalDaytona, sandbox: Sandbox
) -> None:
    server.faults.add(Fault("drop_after", action="execute"))
    assert sandbox.process.exec(APPEND).result == "ran\nran\n"
    assert [request.status for request in server.requests if request.action == "execute"] == [None, 200]


def test_a_drop_before_execution_runs_it_once(server: LocalDaytona, sandbox: Sandbox) -> None:
    server.faults.add(Fault("drop_before", action="execute"))
    assert sandbox.process.exec(APPEND).result == "ran\n"
    assert server.count("execute") == 2


def test_the_sync_client_gives_up_after_three_more(server: LocalDaytona, sandbox: Sandbox) -> None:
    server.faults.add(Fault("drop_after", action="execute", times=None))
    with pytest.raises(DaytonaError, match="Max retries exceeded"):
        sandbox.process.exec(APPEND)
    server.faults.clear()
    assert server.count("execute") == 4
    assert runs(sandbox) == 4


async def _async_drop(server: LocalDaytona) -> None:
    async with async_client(server) as daytona:
        sandbox = await daytona.create()
        server.faults.add(Fault("drop_after", action="execute"))
        with pytest.raises(DaytonaConnectionError):
            await sandbox.process.exec(APPEND)
        assert (await sandbox.process.exec("cat /tmp/runs")).result == "ran\n"


def test_the_async_client_does_not_send_again(server: LocalDaytona) -> None:
    asyncio.run(_async_drop(server))


def test_large_requests_can_be_dropped_too(server: LocalDaytona, sandbox: Sandbox) -> None:
    server.faults.add(Fault("drop_before", action="execute"))
    response = sandbox.process.exec(f": {'x' * 1_000_000}\n" + APPEND)
    assert response.result.endswith("ran\n")
    assert server.count("execute") == 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, DaytonaRateLimitError),
        (502, DaytonaBadGatewayError),
        (503, DaytonaServiceUnavailableError),
        (504, DaytonaTimeoutError),
    ],
)
def test_statuses(server: LocalDaytona, sandbox: Sandbox, status: int, error: type[DaytonaError]) -> None:
    server.faults.add(Fault("status", action="execute", status=status, headers={"X-Note": "here"}))
    with pytest.raises(error) as caught:
        sandbox.process.exec(APPEND)
    assert caught.value.status_code == status
    assert {key.lower(): value for key, value in caught.value.headers.items()}["x-note"] == "here"
    assert runs(sandbox) == 0


def test_a_get_waits_as_retry_after_says(server: LocalDaytona, daytona: Daytona, sandbox: Sandbox) -> None:
    server.faults.add(Fault("status", action="get", status=429, headers={"Retry-After": "1"}))
    started = time.monotonic()
    assert daytona.get(sandbox.id).id == sandbox.id
    assert time.monotonic() - started >= 1


def test_a_slow_answer_meets_the_clients_time_limit(
    server: LocalDaytona, daytona: Daytona, sandbox: Sandbox
) -> None:
    server.faults.add(Fault("slow_body", action="get", delay_s=3))
    with pytest.raises(DaytonaTimeoutError):
        daytona.get(sandbox.id, request_timeout=1)


def test_a_truncated_answer_is_not_sent_again(server: LocalDaytona, sandbox: Sandbox) -> None:
    server.faults.add(Fault("truncate", action="execute"))
    with pytest.raises(DaytonaError):
        sandbox.process.exec(APPEND)
    assert runs(sandbox) == 1
    sandbox.fs.upload_file(b"x" * 100_000, "f")
    server.faults.add(Fault("truncate", action="download"))
    with pytest.raises(DaytonaError):
        sandbox.fs.download_file("f")


def test_malformed_json(server: LocalDaytona, sandbox: Sandbox) -> None:
    server.faults.add(Fault("malformed", action="execute"))
    with pytest.raises(DaytonaError):
        sandbox.process.exec(APPEND)
    assert runs(sandbox) == 1


def test_a_create_that_never_ends_can_be_reaped(server: LocalDaytona, daytona: Daytona) -> None:
    server.faults.add(Fault("stuck", action="create"))
    with pytest.raises(DaytonaTimeoutError) as caught:
        daytona.create(named("slow"), timeout=2)
    (record,) = server.sandboxes
    assert (record.state, record.id) == ("creating", caught.value.sandbox_id)
    with pytest.raises(DaytonaConflictError, match="Sandbox state change in progress"):
        daytona.get(record.id).delete()
    server.destroy_sandbox(record.id)
    assert server.sandboxes == []


def test_during_a_change_of_state_others_are_refused(
    server: LocalDaytona, daytona: Daytona, sandbox: Sandbox
) -> None:
    server.faults.add(Fault("pending", action="stop", delay_s=1))
    daytona._sandbox_api.stop_sandbox(sandbox.id)
    assert server.sandboxes[0].state == "stopping"
    for call in (sandbox.start, sandbox.stop, sandbox.delete):
        with pytest.raises(DaytonaConflictError, match="Sandbox state change in progress"):
            call()
    deadline = time.monotonic() + 60
    while server.sandboxes[0].state == "stopping":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    sandbox.delete()
    assert server.sandboxes == []


def test_a_failed_change_of_state_is_an_error_state(
    server: LocalDaytona, daytona: Daytona, sandbox: Sandbox
) -> None:
    sandbox.stop()
    server.faults.add(Fault("fail", action="start"))
    with pytest.raises(DaytonaError, match="failed on demand"):
        sandbox.start()
    assert daytona.get(sandbox.id).state == SandboxState.ERROR
    with pytest.raises(DaytonaError, match="errored state") as caught:
        sandbox.start()
    assert caught.value.status_code == 400
    sandbox.delete()


def test_a_lost_sandbox(server: LocalDaytona, daytona: Daytona, sandbox: Sandbox) -> None:
    server.faults.add(Fault("lost", action="execute"))
    with pytest.raises(DaytonaNotFoundError):
        sandbox.process.exec("true")
    with pytest.raises(DaytonaNotFoundError):
        daytona.get(sandbox.id)


def test_faults_combine_and_choose_by_path(server: LocalDaytona, daytona: Daytona) -> None:
    item, two = daytona.create(), daytona.create()
    server.faults.add(
        Fault("latency", action="execute", delay_s=0.2, times=None),
        Fault("status", path=rf"{two.id}/process", status=503, times=None),
    )
    assert item.process.exec("echo fine").result == "fine\n"
    started = time.monotonic()
    with pytest.raises(DaytonaServiceUnavailableError):
        two.process.exec("true")
    assert time.monotonic() - started >= 0.2


def test_a_server_stops_while_a_fault_delays_its_answer(connect: Callable[[LocalDaytona], Daytona]) -> None:
    import threading

    server = LocalDaytona().start()
    sandbox = connect(server).create()
    server.faults.add(Fault("latency", action="execute", delay_s=60))

    def call() -> None:
        with pytest.raises(DaytonaError):
            sandbox.process.exec("true")

    thread = threading.Thread(target=call)
    thread.start()
    while server.count("execute") == 0:
        time.sleep(0.01)
    started = time.monotonic()
    server.stop()
    thread.join()
    assert time.monotonic() - started < 5


def test_something_happens_as_a_request_arrives(server: LocalDaytona, sandbox: Sandbox) -> None:
    server.faults.add(Fault("act_before", action="execute", act=lambda: server.destroy_sandbox(sandbox.id)))
    with pytest.raises(DaytonaNotFoundError):
        sandbox.process.exec(APPEND)


def test_something_happens_before_the_answer(server: LocalDaytona, sandbox: Sandbox) -> None:
    seen: list[tuple[int, bytes]] = []
    poll = Fault(
        "act_after", action="execute", act=lambda: seen.append(server.run_inside(sandbox.id, "cat /tmp/runs"))
    )
    server.faults.add(poll)
    server.clear_requests()
    assert sandbox.process.exec(APPEND).result == "ran\n"
    assert seen == [(0, b"ran\n")]
    assert server.count("execute") == 1
    assert server.open_requests == 0


def test_a_server_that_is_down_and_comes_back(
    server: LocalDaytona, sandbox: Sandbox, daytona: Daytona
) -> None:
    with server.unreachable():
        for call in (lambda: sandbox.process.exec("true"), lambda: daytona.get(sandbox.id)):
            with pytest.raises(DaytonaError, match="Connection refused"):
                call()
    assert sandbox.process.exec("echo back").result == "back\n"


def test_a_sandbox_that_fails_and_one_that_hangs_in_a_change(server: LocalDaytona, daytona: Daytona) -> None:
    failed, held = daytona.create(), daytona.create()
    server.fail_sandbox(failed.id)
    server.hold_sandbox(held.id, "stopping")
    assert [record.state for record in server.sandboxes] == ["error", "stopping"]
    for item in (failed, held):
        with pytest.raises(DaytonaError, match="Is the Sandbox started"):
            item.process.exec("true")
    failed.delete()
    with pytest.raises(DaytonaConflictError, match="Sandbox state change in progress"):
        held.delete()
    server.destroy_sandbox(held.id)


def test_a_full_disk(connect: Callable[[LocalDaytona], Daytona]) -> None:
    with LocalDaytona(disk_bytes=1 << 20) as server:
        sandbox = connect(server).create()
        filled = sandbox.process.exec("head -c 2M /dev/zero > /tmp/fill")
        assert (filled.exit_code, "No space left on device" in filled.result) == (1, True)
        assert sandbox.process.exec("rm /tmp/fill; echo x > /tmp/f; cat /tmp/f").result == "x\n"
