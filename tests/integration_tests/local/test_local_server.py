"""The server itself: its door, its thread, and what it leaves behind."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from daytona import CreateSnapshotParams, Daytona, DaytonaConfig, DaytonaError, Sandbox
from daytona.common.errors import DaytonaAuthenticationError

from langchain_daytona_ws.local import Fault, LocalDaytona, S3Fault
from langchain_daytona_ws.local import serving as serving_module

from .conftest import eventually, sleeping

Connect = Callable[[LocalDaytona], Daytona]


def ask(server: LocalDaytona, method: str, path: str, **headers: str) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection(server.api_url.split("/")[2])
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    finally:
        connection.close()


def test_a_key_is_required(server: LocalDaytona, sandbox: Sandbox) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": server.api_key},
        {"Authorization": "é"},
    ):
        for path in ("/api/sandbox", f"/toolbox/{sandbox.id}/files?path=/"):
            encoded = {key: value.encode().decode("latin-1") for key, value in headers.items()}
            status, body = ask(server, "GET", path, **encoded)
            assert status == 401
            assert body["message"] == "Invalid credentials"
            assert body["statusCode"] == 401
    with pytest.raises(DaytonaAuthenticationError, match="Invalid credentials"):
        Daytona(DaytonaConfig(api_key="wrong", api_url=server.api_url)).create()
    assert len({LocalDaytona().api_key for _ in range(5)}) == 5


def test_a_chosen_key_port_and_organization(connect: Connect) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with LocalDaytona(port=port, api_key="chosen", organization_id="acme") as server:
        assert server.api_url == f"http://127.0.0.1:{port}/api"
        assert (server.api_key, server.organization_id) == ("chosen", "acme")
        assert connect(server).create().organization_id == "acme"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_any_other_host_than_loopback_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="--allow-remote"):
        LocalDaytona(host=host)


def test_a_wider_host_with_the_flag_is_reached_by_the_name_that_was_used() -> None:
    with LocalDaytona(host="0.0.0.0", allow_remote=True) as server:
        port = server.api_url.split(":")[2].split("/")[0]
        client = Daytona(DaytonaConfig(api_key=server.api_key, api_url=f"http://localhost:{port}/api"))
        sandbox = client.create()
        assert sandbox.toolbox_proxy_url == f"http://localhost:{port}/toolbox"
        assert sandbox.process.exec("echo hi").result == "hi\n"


def test_an_unknown_path_is_a_json_404(server: LocalDaytona) -> None:
    status, body = ask(server, "GET", "/api/nowhere", Authorization=f"Bearer {server.api_key}")
    assert status == 404
    assert body["message"] == "Cannot GET /api/nowhere"
    assert server.requests[-1].action == "unknown"


def test_socket_io_is_refused_at_once_and_in_silence(
    server: LocalDaytona, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="uvicorn")
    daytona = connect(server)
    daytona.create()
    assert eventually(lambda: daytona._event_dispatcher.is_failed)
    time.sleep(1)  # creating asked once more
    tried = server.count("socket.io")
    assert 1 <= tried <= 3
    assert {request.status for request in server.requests if request.action == "socket.io"} == {404}
    time.sleep(2.5)  # a client's automatic retry would come after a second
    assert server.count("socket.io") == tried
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_after_a_reset_it_is_as_it_was_at_the_start(connect: Connect) -> None:
    with LocalDaytona(s3=True) as server, ThreadPoolExecutor(2) as pool:
        server.make_bucket("agents")
        daytona = connect(server)
        daytona.snapshot.create(CreateSnapshotParams(name="mine", image="debian"))
        sandbox, other = daytona.create(), daytona.create()
        running = pool.submit(sandbox.process.exec, "sleep 300")
        assert eventually(lambda: server.open_requests == 1)
        server.faults.add(Fault("slow_body", "execute", delay_s=300))
        delayed = pool.submit(other.process.exec, "true")
        assert eventually(lambda: server.open_requests == 2)
        server.faults.add(Fault("status", times=None))
        server.s3.deny = ("agents/",)
        server.s3.add_fault(S3Fault("status"))
        server.reset()
        assert (server.sandboxes, server.requests, server.open_requests, server.s3.requests) == (
            [],
            [],
            0,
            [],
        )
        assert isinstance(running.exception(timeout=30), DaytonaError)
        assert delayed.result(timeout=30).exit_code == 0
        assert server.s3.deny == ()
        assert server.make_bucket("agents") == "agents"
        assert "mine" not in [item.name for item in daytona.snapshot.list().items]
        assert daytona.create().process.exec("echo on").result == "on\n"


def test_several_servers_live_side_by_side(connect: Connect) -> None:
    with LocalDaytona() as item, LocalDaytona() as two:
        assert item.api_url != two.api_url
        connect(item).create()
        assert (len(item.sandboxes), len(two.sandboxes)) == (1, 0)
        assert two.count("create") == 0


def test_requests_are_noted_in_order(server: LocalDaytona, daytona: Daytona, sandbox: Sandbox) -> None:
    server.clear_requests()
    sandbox.process.exec("true")
    daytona.get(sandbox.id)
    sandbox.delete()
    noted = [request for request in server.requests if request.action != "socket.io"]
    assert [(request.method, request.action, request.status) for request in noted] == [
        ("POST", "execute", 200),
        ("GET", "get", 200),
        ("DELETE", "delete", 200),
    ]
    assert {request.sandbox_id for request in noted} == {sandbox.id}
    assert server.count("execute") == 1


@pytest.fixture
def root() -> Iterator[Path]:
    # pytest's own temporary folders are private, and sandboxes belong to another user
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        yield Path(root)


def test_nothing_is_left_behind(connect: Connect, root: Path) -> None:
    before = threading.enumerate()
    with LocalDaytona(root=root) as server:
        sandbox = connect(server).create()
        sandbox.process.exec("setsid nohup sleep 765.25 >/dev/null 2>&1 &")
        assert list(root.iterdir()) != []
        assert eventually(lambda: bool(sleeping("765.25")))
    assert not sleeping("765.25")
    assert list(root.iterdir()) == []
    left = [item.name for item in threading.enumerate() if item not in before]
    assert [name for name in left if name.startswith("local-daytona")] == []
    assert len(left) <= 2  # the SDK's own
    server.stop()  # again: nothing happens


SERVE = """
import sys
from langchain_daytona_ws.local import LocalDaytona
LocalDaytona(api_key="k", root=sys.argv[1]).serve_forever(on_ready=lambda server: print(server.api_url, flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def serving(root: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process = subprocess.Popen([sys.executable, "-c", SERVE, root], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    sandbox = Daytona(DaytonaConfig(api_key="k", api_url=url)).create()
    sandbox.process.exec(f"sleep 543.{process.pid} >/dev/null 2>&1 &")
    assert eventually(lambda: bool(sleeping(f"543.{process.pid}")))
    yield process, root
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(
    serving: tuple[subprocess.Popen[str], Path], number: signal.Signals
) -> None:
    process, root = serving
    process.send_signal(number)
    assert process.wait(20) == 0
    assert process.stdout is not None
    assert process.stdout.read() == "ended\n"
    assert not sleeping(f"543.{process.pid}")
    assert list(root.iterdir()) == []


def test_a_killed_server_leaves_no_process(serving: tuple[subprocess.Popen[str], Path]) -> None:
    process, root = serving
    process.kill()
    process.wait()
    assert eventually(lambda: not sleeping(f"543.{process.pid}"))
    # its folder is left, until the next server there tidies up
    (left,) = root.iterdir()
    with LocalDaytona(root=root) as item, LocalDaytona(root=root) as two:
        assert not left.exists()
        assert len(list(root.iterdir())) == 2
        assert item.sandboxes == two.sandboxes == []
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("new_loop", [serving_module._new_loop, asyncio.new_event_loop])
def test_no_answer_waits_for_an_acknowledgement(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    # Without the option every call takes 40 ms more on loops that do not set it themselves.
    monkeypatch.setattr(serving_module, "_new_loop", new_loop)
    accepted = []
    made = serving_module._Protocol.connection_made

    def connection_made(protocol: object, transport: asyncio.Transport) -> None:
        accepted.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(protocol, transport)  # type: ignore[arg-type]

    monkeypatch.setattr(serving_module._Protocol, "connection_made", connection_made)
    with LocalDaytona() as server:
        assert connect(server).create().process.exec("echo ok").result == "ok\n"
    assert accepted
    assert all(accepted)


def test_a_disconnecting_client_is_not_logged(
    server: LocalDaytona, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = server.api_url.split("/")[2].split(":")
    head = f"Host: {host}\r\nAuthorization: Bearer {server.api_key}\r\n"
    sandbox.process.exec("head -c 20000000 /dev/zero > /tmp/large")
    requests = [
        f"POST /toolbox/{sandbox.id}/process/execute HTTP/1.1\r\n{head}Content-Length: 500\r\n\r\n{{",
        f"POST /toolbox/{sandbox.id}/files/bulk-upload HTTP/1.1\r\n{head}Content-Length: 500\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n",
        f"GET /toolbox/{sandbox.id}/files/download?path=/tmp/large HTTP/1.1\r\n{head}\r\n",
        "nonsense\r\n\r\n",
    ]
    for text in requests:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(text.encode())
            time.sleep(0.1)
    assert eventually(lambda: server.sandboxes[0].open_requests == 0)
    assert sandbox.process.exec("echo fine").result == "fine\n"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
