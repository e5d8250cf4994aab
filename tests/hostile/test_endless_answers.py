"""Endless and slow answers of a forged sandbox daemon: every call ends within its limits of size and time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from langchain_daytona_ws._adapters import answers, transfers
from langchain_daytona_ws._adapters.daytona_async import AsyncDaytonaPort
from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.sdk import Account
from langchain_daytona_ws._core.files.received import Received, TooLongError
from langchain_daytona_ws._core.ports import BytesSource, FaultKind, PortFault, SandboxInfo, SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws.local import LocalDaytona

WHOLE = b'{"exitCode": 0, "result": "all of it"}'


class Toolbox(ThreadingHTTPServer):
    """A forged daemon: an agent with root can replace the sandbox's daemon.

    Attributes:
        pieces: The pieces of the next body.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.pieces: Iterator[bytes] = iter(())
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        assert isinstance(self.server, Toolbox)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        is_file = "download" in self.path
        self.send_header("Content-Type", "application/octet-stream" if is_file else "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            for piece in self.server.pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        return


class Port:
    """A sandbox port whose requests to the sandbox reach the forged daemon."""

    def __init__(self, server: LocalDaytona, toolbox: Toolbox, *, is_async: bool) -> None:
        account = Account(api_key=server.api_key, api_url=server.api_url, target=None)
        self._runner = asyncio.Runner() if is_async else None
        self.port: Any = AsyncDaytonaPort(account) if is_async else SyncDaytonaPort(account)
        self.info: SandboxInfo = self.run(self.port.create(SandboxSpec(name="impostor"), timeout_s=30))
        sandbox = self.run(self.port._sandbox(self.info.id)) if is_async else self.port._sandbox(self.info.id)
        sandbox._toolbox_api._toolbox_base_url = f"http://127.0.0.1:{toolbox.server_port}"

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work) if self._runner else run_sync(work)

    def execute(self) -> Any:
        return self.run(self.port.execute(self.info.id, "true", env={}, timeout_s=1))

    def download(self) -> bytes:
        received = Received(1 << 20)
        self.run(self.port.download(self.info.id, "/f", received.write))
        return received.data

    def close(self) -> None:
        self.run(self.port.delete(self.info.id))
        if self._runner:
            self._runner.run(self.port.aclose())
            self._runner.close()
        else:
            self.port.close()


@pytest.fixture
def toolbox() -> Iterator[Toolbox]:
    with Toolbox() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(params=["sync", "async"])
def port(request: pytest.FixtureRequest, toolbox: Toolbox) -> Iterator[Port]:
    with LocalDaytona() as server:
        made = Port(server, toolbox, is_async=request.param == "async")
        yield made
        made.close()


def test_an_answer_that_ends_is_read(port: Port, toolbox: Toolbox) -> None:
    for _ in range(2):  # the second request uses the same connection
        toolbox.pieces = iter([WHOLE[:9], WHOLE[9:]])
        assert port.execute().output == "all of it"


def test_an_oversized_answer_is_not_read_completely(port: Port, toolbox: Toolbox) -> None:
    sent = []

    def long() -> Iterator[bytes]:
        for _ in range(4 * answers.LONGEST_ANSWER_BYTES >> 20):
            sent.append(1 << 20)
            yield b" " * (1 << 20)
        yield WHOLE

    toolbox.pieces = long()
    with pytest.raises(PortFault, match="larger than the limit") as caught:
        port.execute()
    assert caught.value.kind is FaultKind.DROPPED  # the command may have run
    assert sum(sent) < 2 * answers.LONGEST_ANSWER_BYTES
    toolbox.pieces = iter([WHOLE])
    assert port.execute().output == "all of it"  # on a new connection


def test_a_slow_answer_ends_at_the_time_out(port: Port, toolbox: Toolbox) -> None:
    over, sent = threading.Event(), 0

    def slow() -> Iterator[bytes]:
        nonlocal sent
        while not over.wait(0.2) and sent < 150:  # 30 s; the time-outs are 1 s and the SDK's 5 s
            sent += 1
            yield b" "
        yield WHOLE

    toolbox.pieces = slow()
    with pytest.raises(PortFault) as caught:
        port.execute()
    over.set()
    assert caught.value.kind is FaultKind.DROPPED


def test_so_does_a_file_that_comes_a_byte_at_a_time(
    port: Port, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "STALL_S", 1.0)
    over, sent = threading.Event(), 0

    def slow() -> Iterator[bytes]:
        nonlocal sent
        while not over.wait(0.2) and sent < 100:
            sent += 1
            yield b"x"

    toolbox.pieces = slow()
    with pytest.raises(PortFault) as caught:
        port.download()
    over.set()
    assert caught.value.kind is FaultKind.DROPPED
    toolbox.pieces = iter([b"all ", b"of it"])
    assert port.download() == b"all of it"


def test_an_async_upload_renews_its_limit_after_each_64_kib(
    toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    moved = transfers.Pace.moved

    def recorded(pace: transfers.Pace, count: int) -> bool:
        counts.append(count)
        return moved(pace, count)

    monkeypatch.setattr(transfers.Pace, "moved", recorded)
    with LocalDaytona() as server, contextlib.closing(Port(server, toolbox, is_async=True)) as port:
        port.run(port.port.upload(port.info.id, [("/f", BytesSource(b"x" * 3_000_000))]))
    assert sum(counts) > 3_000_000
    assert max(counts) <= transfers.LEAST_BYTES


def test_a_file_longer_than_announced_is_not_read_to_its_end(port: Port, toolbox: Toolbox) -> None:
    sent = []

    def long() -> Iterator[bytes]:
        for _ in range(64):
            sent.append(1 << 20)
            yield b"x" * (1 << 20)

    toolbox.pieces = long()
    with pytest.raises(TooLongError):
        port.download()
    assert sum(sent) < 32 << 20
    toolbox.pieces = iter([b"all of it"])
    assert port.download() == b"all of it"  # on a new connection
