"""Protection of the server against hostile or careless sandboxes, clients and other users."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import io
import json
import logging
import os
import platform
import shlex
import socket
import stat
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from daytona import Daytona, Sandbox
from daytona.common.errors import DaytonaError

from langchain_daytona_ws.local import Fault, LocalDaytona, ManualClock

from .conftest import Connect, eventually, named


def python(script: str) -> str:
    return f"python3 -c {shlex.quote(textwrap.dedent(script))}"


def send(
    server: LocalDaytona, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Send what no SDK would, and return the status and body of the answer."""
    host, port = server.api_url.split("/")[2].rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    with contextlib.closing(connection):
        given = {"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"}
        connection.request(method, path, body, given | (headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()


def execute(server: LocalDaytona, sandbox: Sandbox, **body: Any) -> int:
    path = f"/toolbox/{sandbox.id}/process/execute"
    return send(server, "POST", path, json.dumps({"command": "true", **body}).encode())[0]


# --- the disk ---


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("mv /etc /etc2 && ln -s /oldroot{aim} /etc", "/etc"),
        ("rm -rf /etc/ssl 2>/dev/null; mv /etc /etc2; mkdir /etc; ln -s /oldroot{aim} /etc/ssl", "/etc/ssl"),
    ],
)
def test_a_disk_with_links_for_folders_is_not_started_again(
    server: LocalDaytona, sandbox: Sandbox, tmp_path: Path, script: str, named: str
) -> None:
    tmp_path.chmod(0o777)
    sandbox.process.exec(script.format(aim=tmp_path))
    sandbox.stop()
    with pytest.raises(DaytonaError, match=f"the sandbox replaced {named}: it cannot be started again"):
        sandbox.start()
    assert list(tmp_path.iterdir()) == []
    sandbox.delete()
    assert server.sandboxes == []


def test_a_disk_without_its_folders_is_started_again(sandbox: Sandbox) -> None:
    sandbox.process.exec("mv /etc /etc2")
    sandbox.stop()
    sandbox.start()
    assert sandbox.process.exec("ls -d /etc/ssl").result == "/etc/ssl\n"


DEEP = python("""
    import os
    os.chdir("/tmp")
    for _ in range(3000):
        os.mkdir("d")
        os.chdir("d")
    """)


def test_a_deep_tree_is_deleted(daytona: Daytona, server: LocalDaytona) -> None:
    sandbox = daytona.create(named("deep"))
    assert sandbox.process.exec(DEEP).exit_code == 0
    folder = server.sandboxes[0].folder
    sandbox.delete()
    assert server.sandboxes == []
    assert not folder.exists()


def test_a_killed_servers_deep_tree_is_deleted_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "local-daytona-left"
    mounted_sandbox = left
    mounted_sandbox.mkdir()
    (left / "lock").touch()
    descriptor = os.open(mounted_sandbox, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    with LocalDaytona(root=tmp_path, isolation="none"):
        assert not left.exists()


def test_a_destroyed_sandbox_is_renamed_once(server: LocalDaytona, daytona: Daytona) -> None:
    sandbox = daytona.create(named("once"))
    server.faults.add(Fault("fail", action="delete"))
    with contextlib.suppress(DaytonaError):
        sandbox.delete()
    (record,) = server.sandboxes
    assert record.name.startswith("DESTROYED_once_")
    server.faults.add(Fault("stuck", action="delete"))
    with contextlib.suppress(DaytonaError):
        sandbox.delete(timeout=1)
    (again,) = server.sandboxes
    assert again.name == record.name


def test_cleaning_up_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "lock").touch()
    for folder in (victim, victim / "sub"):
        folder.chmod(0o755)
    root = tmp_path / "root"
    root.mkdir()
    (root / "local-daytona-evil").symlink_to(victim)
    trap = root / "local-daytona-trap"
    trap.mkdir()
    (trap / "lock").symlink_to(victim / "lock")
    with LocalDaytona(root=root, isolation="none"):
        pass
    assert [stat.S_IMODE(item.stat().st_mode) for item in (victim, victim / "sub")] == [0o755, 0o755]
    assert (victim / "lock").exists()


@pytest.mark.full
def test_any_umask_will_do() -> None:
    program = """
        import os
        os.umask(0o077)
        from daytona import Daytona, DaytonaConfig
        from langchain_daytona_ws.local import LocalDaytona
        with LocalDaytona() as server:
            config = DaytonaConfig(api_key=server.api_key, api_url=server.api_url, target="local")
            sandbox = Daytona(config).create()
            print(sandbox.process.exec("touch f; stat -c %a f").result)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "644", done.stderr


# --- processes ---


@pytest.fixture
def secret_key() -> Iterator[str]:
    """The description of a key in a session keyring of this process's main thread."""
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of system calls are those of x86-64")
    library = ctypes.CDLL(None)
    library.syscall.restype = ctypes.c_long
    library.syscall(250, 1, None)  # a new session keyring
    serial = library.syscall(248, b"user", b"host-secret", b"TOPSECRET", 9, -3)
    if serial < 0:
        pytest.skip("no keyrings here")
    # so that all users may find and read it, like its owner
    library.syscall(250, 5, serial, 0x3F3F3F3F)
    yield "host-secret"
    assert library.syscall(250, 10, -3, b"user", b"host-secret", 0) == serial  # ours is what it was
    library.syscall(250, 9, serial, -3)


def test_the_servers_keys_stay_outside(secret_key: str) -> None:
    from langchain_daytona_ws.local.isolation import _popen_without_keys

    script = f"""
        import ctypes
        library = ctypes.CDLL(None)
        library.syscall.restype = ctypes.c_long
        print(library.syscall(250, 10, -3, b"user", b"{secret_key}", 0))
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    assert int(subprocess.check_output(argv)) > 0
    with _popen_without_keys(argv, stdout=subprocess.PIPE) as process:
        assert int(process.communicate()[0]) == -1


def test_the_daemon_cannot_be_traced(server: LocalDaytona, sandbox: Sandbox) -> None:
    attach = python("import ctypes; print(ctypes.CDLL(None).ptrace(16, 1, 0, 0))")
    assert sandbox.process.exec(attach).result == "-1\n"
    assert sandbox.process.exec("kill -STOP 1; ls /proc/1/fd; cat /proc/1/mem").exit_code != 0
    assert sandbox.process.exec("echo alive").result == "alive\n"


def test_a_blocked_daemon_does_not_delay_others(server: LocalDaytona, daytona: Daytona) -> None:
    sandbox = daytona.create()
    other = daytona.create()
    running = server._running
    assert running is not None
    control = running.fleet.get(sandbox.id).processes._control
    (pid,) = {  # of the daemon: what it is on the host
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _is_daemon(entry, server.sandboxes[0].folder.stat().st_uid)
    }
    os.kill(pid, 19)
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.suppress(BlockingIOError):
        while True:
            socket.send_fds(control, [b"c"], [theirs.fileno()])
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(send, server, "GET", f"/toolbox/{sandbox.id}/work-dir")
        assert other.process.exec("echo fine").result == "fine\n"
        assert waiting.result()[0] == 502
    sandbox.delete()
    assert len(server.sandboxes) == 1


def _is_daemon(entry: Path, uid: int) -> bool:
    with contextlib.suppress(OSError):
        status = (entry / "status").read_text()
        of_user = f"\nUid:\t{uid}\t" in status
        numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
        return of_user and len(numbers) > 1 and numbers[-1] == "1"
    return False


def test_a_dead_sandboxs_number_is_not_killed(
    server: LocalDaytona, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.crash_sandbox(sandbox.id)
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    sandbox.delete()
    assert killed == []
    assert server.sandboxes == []


def test_a_sandbox_survives_running_out_of_descriptors(server: LocalDaytona, sandbox: Sandbox) -> None:
    # 20 are not enough for 30 commands at once.
    lower = python("""
        import resource
        resource.prlimit(1, resource.RLIMIT_NOFILE, (20, resource.prlimit(1, resource.RLIMIT_NOFILE)[1]))
        """)
    assert sandbox.process.exec(lower).exit_code == 0
    with ThreadPoolExecutor(30) as pool:
        statuses = set(pool.map(lambda _: execute(server, sandbox, command="sleep 1"), range(30)))
    assert statuses <= {200, 400, 502}
    assert sandbox.process.exec("echo alive").result == "alive\n"


# --- the network ---


def test_a_blocked_network_is_blocked(server: LocalDaytona, daytona: Daytona) -> None:
    port = int(server.api_url.split("/")[2].rsplit(":", 1)[1])
    name = f"hardening-{os.getpid()}"
    reach = python(f"""
        import socket
        for family, address in ((socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_UNIX, "\\0{name}")):
            try:
                socket.socket(family).connect(address)
                print("reached")
            except OSError:
                print("refused")
        """).replace("\0", "\\0")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        assert daytona.create(named("open")).process.exec(reach).result == "reached\nreached\n"
        blocked = daytona.create(named("blocked", network_block_all=True))
        assert blocked.process.exec(reach).result == "refused\nrefused\n"
        blocked.stop()
        blocked.start()
        assert blocked.process.exec(reach).result == "refused\nrefused\n"


def test_unenforced_settings_are_refused(
    server: LocalDaytona, daytona: Daytona, connect: Callable[[LocalDaytona], Daytona]
) -> None:
    with pytest.raises(DaytonaError, match="networkAllowList is not enforced by the local server"):
        daytona.create(named("listed", network_allow_list="10.0.0.0/8"))
    status, body = send(server, "POST", "/api/sandbox", b'{"domainAllowList": "example.com"}')
    assert (status, b"not enforced by the local server" in body) == (400, True)
    assert server.sandboxes == []
    with (
        LocalDaytona(isolation="none") as bare,
        pytest.raises(DaytonaError, match="networkBlockAll is not enforced"),
    ):
        connect(bare).create(named("bare", network_block_all=True))


# --- clients ---


@pytest.mark.parametrize(
    "body",
    [
        {"ttlMinutes": 10**12},
        {"ttlMinutes": -1},
        {"autoStopInterval": 10**310},
        {"autoStopInterval": -1},
        {"autoDeleteInterval": -2},
        {"autoArchiveInterval": 10**12},
        {"cpu": -1},
        {"cpu": 1},
        {"snapshot": "default", "memory": 1},
        {"snapshot": "default", "buildInfo": {"dockerfileContent": "FROM x"}},
        {"snapshot": ["default"]},
    ],
)
def test_silly_fields_are_refused(server: LocalDaytona, body: dict[str, Any]) -> None:
    assert send(server, "POST", "/api/sandbox", json.dumps(body).encode())[0] == 400
    assert send(server, "GET", "/api/sandbox")[0] == 200
    assert server.sandboxes == []


def test_a_failing_sandbox_does_not_block_the_cleanup_of_others(
    clock: ManualClock, connect: Callable[[LocalDaytona], Daytona], caplog: pytest.LogCaptureFixture
) -> None:
    with LocalDaytona(clock=clock) as server:
        daytona = connect(server)
        for name in ("first", "second"):
            daytona.create(named(name, auto_stop_interval=5))
        assert server._running is not None
        server._running.fleet.get("first").auto_stop_interval = 10**310
        clock.advance(301)
        assert {item.name: item.state for item in server.sandboxes} == {
            "first": "started",
            "second": "stopped",
        }
        server._running.fleet.get("first").auto_stop_interval = 0
        assert [record.levelno for record in caplog.records if "sweeping" in record.message] == [
            logging.ERROR
        ]


@pytest.mark.parametrize(
    "body",
    [
        {"envs": {"A": 1}},
        {"envs": ["A"]},
        {"cwd": 7},
        {"timeout": 1e300},
        {"timeout": 10**400},
    ],
)
def test_a_malformed_command_is_refused(server: LocalDaytona, sandbox: Sandbox, body: dict[str, Any]) -> None:
    assert execute(server, sandbox, **body) == 400
    assert execute(server, sandbox) == 200


def test_malformed_requests_are_refused(
    server: LocalDaytona, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    toolbox = f"/toolbox/{sandbox.id}"
    for method, path, body in (
        ("GET", f"{toolbox}/files?path=%00", b""),
        ("GET", f"{toolbox}/files/download?path=/tmp%00", b""),
        ("GET", f"{toolbox}/files/info?path=a%00", b""),
        ("POST", f"{toolbox}/process/execute", b"[" * 100_000),
        ("POST", f"{toolbox}/process/session", b'{"sessionId": {}}'),
        ("POST", f"{toolbox}/files/replace", b'{"files": ["a"], "pattern": 1, "newValue": "b"}'),
        ("POST", "/api/sandbox", b"[" * 100_000),
        ("GET", "/api/sandbox?labels=" + "[" * 40_000, b""),
    ):
        assert send(server, method, path, body)[0] == 400, path
    for kind, body in (
        ("multipart/form-data", b"nothing"),
        ("multipart/form-data; boundary=x", b"--y\r\nnothing"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nz\r\n--x--\r\n"),
    ):
        path = f"{toolbox}/files/bulk-upload"
        assert send(server, "POST", path, body, {"Content-Type": kind})[0] == 400, body
    assert send(server, "GET", "/api/sandbox", headers={"Host": "["})[0] in (200, 400)
    assert {record.name for record in caplog.records} <= {"python_multipart.multipart"}
    assert sandbox.process.exec("echo alive").result == "alive\n"


def test_http_1_0_needs_no_host(server: LocalDaytona, sandbox: Sandbox) -> None:
    address = server.api_url.split("/")[2]
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        key = f"Authorization: Bearer {server.api_key}\r\n"
        connection.sendall(f"GET /api/sandbox/{sandbox.id} HTTP/1.0\r\n{key}\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 200 " in answer.splitlines()[0]
    assert f"http://{address}/toolbox".encode() in answer


def test_a_fifo_is_no_file_to_wait_for(server: LocalDaytona, sandbox: Sandbox) -> None:
    sandbox.process.exec("mkfifo /tmp/fifo")
    assert send(server, "GET", f"/toolbox/{sandbox.id}/files/download?path=/tmp/fifo")[0] == 400
    with pytest.raises(DaytonaError):
        sandbox.fs.upload_file(b"x", "/tmp/fifo")
    assert eventually(lambda: server.sandboxes[0].open_requests == 0)


def _arrived(server: LocalDaytona, count: int) -> bool:
    return server.count("execute") >= count


def test_clients_that_leave_early_leave_no_traces(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    server = LocalDaytona().start()
    sandbox = connect(server).create()
    host, port = server.api_url.split("/")[2].rsplit(":", 1)
    head = f"Host: x\r\nAuthorization: Bearer {server.api_key}\r\nContent-Length: 1000\r\n\r\n{{"
    path = f"/toolbox/{sandbox.id}/process/execute"
    server.faults.add(Fault("drop_before", action="execute", times=3))
    for count in range(1, 7):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\n{head}".encode())
            assert eventually(partial(_arrived, server, count))
    server.faults.clear()
    server.faults.add(Fault("latency", action="execute", delay_s=0.3))
    server.faults.add(Fault("drop_after", action="execute"))
    with socket.create_connection((host, int(port))) as connection:
        body = b'{"command": "true"}'
        head = f"Host: x\r\nAuthorization: Bearer {server.api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}".encode() + body)
        assert eventually(partial(_arrived, server, 7))
    assert eventually(lambda: server.sandboxes[0].open_requests == 0)
    server.stop()  # which ends what is still under way
    assert not caplog.records


def test_tar_unpacks_without_being_asked_twice(sandbox: Sandbox) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("file")
        member.uid, member.gid, member.size = 1000, 1000, 4
        archive.addfile(member, io.BytesIO(b"text"))
    sandbox.fs.upload_file(packed.getvalue(), "/tmp/a.tar.gz")
    done = sandbox.process.exec("tar xzf /tmp/a.tar.gz && cat file")
    assert (done.exit_code, done.result) == (0, "text")
