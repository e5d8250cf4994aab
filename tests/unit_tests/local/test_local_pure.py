"""The parts of the local server that need neither sockets nor sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from langchain_daytona_ws import local
from langchain_daytona_ws.local import Fault, LocalDaytona, ManualClock, proxy, rootfs, scratch
from langchain_daytona_ws.local.errors import ApiError, DaemonGone
from langchain_daytona_ws.local.faults import Faults
from langchain_daytona_ws.local.isolation import _unprivileged_uid
from langchain_daytona_ws.local.journal import MAX_ENTRIES, Journal
from langchain_daytona_ws.local.link import Link
from langchain_daytona_ws.local.proxy import BYTEWISE, _part_head
from langchain_daytona_ws.local.record import timestamp
from langchain_daytona_ws.local.snapshots import require_dockerfile
from langchain_daytona_ws.local.toolbox import daemon, files, wire
from langchain_daytona_ws.local.toolbox.children import Children
from langchain_daytona_ws.local.toolbox.errors import ToolboxError
from langchain_daytona_ws.local.toolbox.execute import check_env, execute, find_shell


def struck(faults: Faults, count: int, action: str = "execute", path: str = "/x") -> list[bool]:
    return [bool(faults.take(action, path)) for _ in range(count)]


def test_a_fault_applies_the_given_number_of_times() -> None:
    faults = Faults()
    faults.add(Fault("latency", times=2))
    assert struck(faults, 4) == [True, True, False, False]
    faults.add(Fault("latency", times=None))
    assert all(struck(faults, 50))
    faults.clear()
    assert not any(struck(faults, 3))


def test_a_fault_skips_and_chooses() -> None:
    faults = Faults()
    faults.add(Fault("latency", action="get", path=r"/box-\d$", skip=1))
    assert not faults.take("execute", "/box-1")
    assert not faults.take("get", "/other")
    assert struck(faults, 3, "get", "/box-1") == [False, True, False]


def test_chance_is_reproducible() -> None:
    def draw(seed: int) -> list[bool]:
        faults = Faults()
        faults.add(Fault("latency", probability=0.5, times=None, seed=seed))
        return struck(faults, 40)

    assert draw(1) == draw(1) != draw(2)
    assert 5 < sum(draw(1)) < 35


def test_a_manual_clock_tells_its_listeners_and_never_runs_back() -> None:
    clock = ManualClock(start=100)
    received: list[float] = []
    clock.subscribe(on_text := lambda: received.append(clock.now()))
    clock.advance(5)
    clock.unsubscribe(on_text)
    clock.advance(5)
    assert received == [105]
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_the_journal_keeps_order_and_is_bounded() -> None:
    journal = Journal()
    first = journal.add("GET", "/a", "get", None)
    journal.add("GET", "/b", "get", None)
    journal.finish(first, 200, "id")
    assert [(item.path, item.status, item.sandbox_id) for item in journal.requests()] == [
        ("/a", 200, "id"),
        ("/b", None, None),
    ]
    journal.clear()
    journal.finish(first, 200, None)
    assert journal.requests() == []
    for _ in range(MAX_ENTRIES + 5):
        journal.add("GET", "/", "get", None)
    assert len(journal.requests()) == MAX_ENTRIES


def test_every_undecodable_byte_gives_one_replacement() -> None:
    cases = {
        b"\xff\xfe": 2,
        b"\xe2\x82": 2,
        b"\xf0\x9f\x98": 3,
        b"\xc0\xaf": 2,
        b"\xed\xa0\x80": 3,
        b"a\x80b": 1,
    }
    for data, count in cases.items():
        assert data.decode("utf-8", BYTEWISE).count("\ufffd") == count
    assert "grüße 😀".encode().decode("utf-8", BYTEWISE) == "grüße 😀"


def test_wire_headers_round_trip() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(wire.pack({"op": "x", "path": "\udcff ü"}) + b"rest")
        ours.shutdown(socket.SHUT_WR)
        assert wire.read_header(theirs) == {"op": "x", "path": "\udcff ü"}
        assert wire.read_rest(theirs) == b"rest"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(wire.HEADER_LENGTH.pack(wire.MAX_HEADER_BYTES + 1))
        with pytest.raises(ValueError, match="over the limit"):
            wire.read_header(theirs)
        ours.close()
        with pytest.raises(EOFError):
            wire.read_header(theirs)


def test_environment_keys() -> None:
    check_env({"A": "", "_b1": ""})
    for key in ("", "1a", "a-b", "a b", "a=b", "ä", "a\n"):
        with pytest.raises(ToolboxError):
            check_env({key: ""})


@pytest.fixture
def children() -> Iterator[Children]:
    """Children whose ends are seen, as by a daemon's loop; it waits for no process but theirs."""
    made, ended = Children(), threading.Event()

    def reap() -> None:
        while not ended.wait(0.002):
            for child in list(made._started.values()):
                with contextlib.suppress(ChildProcessError):
                    pid, status = os.waitpid(child.pid, os.WNOHANG)
                    if pid:
                        made._started.pop(pid).finish(status)

    thread = threading.Thread(target=reap)
    thread.start()
    yield made
    ended.set()
    thread.join()


def test_a_forced_shell_is_looked_for_in_the_path(children: Children, tmp_path: Path) -> None:
    (tmp_path / "fish").write_text("")
    (tmp_path / "fish").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert find_shell(children, "fish", env) == str(tmp_path / "fish")
    assert find_shell(children, "none", env) == "none"


def test_without_programs_it_is_sh(children: Children, tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path), "SHELL": "/bin/fish"}
    shell = find_shell(children, None, env)
    assert shell == "sh"
    ended = execute(children, b"true", shell=shell, cwd=None, env=env, timeout_s=None)
    assert ended == (-1, b'exec: "sh": executable file not found in $PATH')


def test_a_script_that_redirects_its_output_is_read_to_its_end(children: Children, tmp_path: Path) -> None:
    script = b"exec >/dev/null 2>&1\n" + b": %s\n" % (b"x" * 100) * 2000 + b"echo end > end\n"
    ended = execute(
        children, script, shell="/bin/sh", cwd=str(tmp_path), env={}, timeout_s=None, drains=False
    )
    assert ended == (0, b"")
    assert (tmp_path / "end").read_text() == "end\n"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*a" * 60 + "b", "a" * 200, False),  # this took forever
        ("*a" * 60 + "*b", "a" * 200 + "b", True),
        ("a*b", "ab", True),
        ("a*b*", "a\nbc", True),
        ("*", "", True),
        ("**", "x", True),
        ("ab", "abc", False),
        ("a*a", "a", False),
        (r"\**[^b-d]?", "*xay", True),
        ("[b-a]", "a", False),
    ],
)
def test_search_patterns(pattern: str, name: str, matches: bool) -> None:
    assert files._glob(pattern)(name) is matches


@pytest.mark.parametrize(
    ("content", "is_valid"),
    [("# x\n\n  from debian\n", True), ("FROM\n", False), ("", False), ("\n" * 100_000, False)],
    ids=["valid", "no image", "empty", "blank lines"],
)
def test_a_dockerfile_needs_an_image(content: str, is_valid: bool) -> None:
    with contextlib.nullcontext() if is_valid else pytest.raises(ApiError):
        require_dockerfile({"dockerfileContent": content})


def test_a_read_error_after_the_header_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"x")

    def broken(file: BinaryIO) -> Iterator[bytes]:
        with file:
            yield b"x"
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(daemon, "_chunks", broken)
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(wire.pack({"op": "read", "path": str(tmp_path / "f")}))
        ours.shutdown(socket.SHUT_WR)
        daemon.Daemon(str(tmp_path), None).answer(theirs)
        assert wire.read_header(ours) == {"size": 1}
        assert wire.read_rest(ours) == b"x"


@pytest.mark.parametrize("drains", [True, False])
def test_output_that_is_held_open_is_given_up_in_some_calls(
    children: Children, monkeypatch: pytest.MonkeyPatch, drains: bool
) -> None:
    monkeypatch.setattr("langchain_daytona_ws.local.toolbox.execute.DRAIN_S", 0.2)
    began = time.monotonic()
    env = {"PATH": "/usr/bin:/bin"}
    given = {"shell": "/bin/sh", "cwd": None, "env": env, "timeout_s": None, "drains": drains}
    assert execute(children, b"(sleep 2; echo late) & echo early; exit 4", **given) == (
        4,
        b"early\n" if drains else b"early\nlate\n",
    )
    assert (time.monotonic() - began < 2) is drains


def test_a_part_of_a_download_carries_its_path_twice() -> None:
    assert b'filename="a \\"b\\" \\\\c"; filename*=utf-8\'\'a%20%22b%22%20%5Cc' in _part_head(
        "x", "file", 'a "b" \\c', b""
    )
    assert b"filename=\"\xe4_\"; filename*=utf-8''%C3%A4%0A%E2%82%AC" in _part_head("x", "file", "ä\n€", b"")


def test_times_are_written_as_the_api_does() -> None:
    assert timestamp(0.1239) == "1970-01-01T00:00:00.123Z"


def test_unprivileged_users_fit_what_a_container_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    for line, lowest, highest in (("0 0 4294967295", 2**30, 2**31), ("0 100000 65536", 40_000, 65_536)):
        monkeypatch.setattr("builtins.open", lambda *_, line=line, **__: io.StringIO(line))
        uids = {_unprivileged_uid() for _ in range(50)}
        monkeypatch.undo()
        assert len(uids) > 10
        assert all(lowest <= uid < highest for uid in uids)


def test_the_disk_of_a_sandbox_tells_nothing_of_the_host(tmp_path: Path) -> None:
    rootfs.build(tmp_path, "box", None)
    assert {path.name for path in tmp_path.iterdir()} >= {"usr", "home", "tmp", "mnt", "etc", "proc", "dev"}
    assert not (tmp_path / "etc/shadow").exists()
    assert not (tmp_path / "etc/machine-id").exists()
    assert (tmp_path / "etc/passwd").read_text().startswith("daytona:x:0:0:")
    assert (tmp_path / "etc/hostname").read_text() == "box\n"


def test_folders_that_forbid_their_removal_are_removed(tmp_path: Path) -> None:
    # As root nothing is forbidden: then this only holds that links are not followed.
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o500)
    inner = tmp_path / "gone" / "read-only" / "closed"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    (inner / "link").symlink_to(kept)
    inner.chmod(0)
    inner.parent.chmod(0o500)
    scratch.remove(tmp_path / "gone")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert kept.stat().st_mode & 0o777 == 0o500


def test_much_output_is_converted_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    class Answering:
        async def call(self, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
            return {"exitCode": 0}, b"\xff" * int(body)

    def convert(value: dict[str, Any]) -> Response:
        threads.append(threading.get_ident())
        return Response(value["result"].encode())

    async def execute(size: int) -> int:
        async def receive() -> Message:
            return {"type": "http.request", "body": json.dumps({"command": str(size)}).encode()}

        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        return len((await proxy.execute(cast(Link, Answering()), request)).body)

    monkeypatch.setattr(proxy, "json_reply", convert)
    assert asyncio.run(execute(1000)) == 3000
    assert threads.pop() == threading.get_ident()
    assert asyncio.run(execute(1_000_000)) == 3_000_000
    assert threads.pop() != threading.get_ident()


@pytest.mark.parametrize(
    "header",
    [
        b'{"code": "x"}',
        b'{"code": "", "status": "x", "message": ""}',
        b'{"code": "", "status": 1000, "message": ""}',
        b'{"code": "", "status": 200, "message": ""}',
        b"[" * 200_000,
        b"[]",
        b"",
    ],
    ids=lambda header: header[:20].decode(),
)
def test_a_malformed_header_of_a_daemon_is_no_answer(header: bytes) -> None:
    ours, daemons = socket.socketpair()

    def answer() -> None:
        _, (fd,), *_ = socket.recv_fds(daemons, 1, 1)
        with socket.socket(fileno=fd) as connection:
            while connection.recv(1 << 16):
                continue
            connection.sendall(wire.HEADER_LENGTH.pack(len(header)) + header)

    daemon = threading.Thread(target=answer)
    daemon.start()
    with ours, daemons, pytest.raises(DaemonGone):
        asyncio.run(Link(ours).call({"op": "x"}))
    daemon.join()


@pytest.mark.parametrize("value", [1, False, ["a"]])
def test_a_variables_value_is_text(value: object) -> None:
    with pytest.raises(ToolboxError, match="variable A is not a string"):
        check_env({"A": value})
    assert check_env({"A": None, "B": "b"}) == {"A": "", "B": "b"}


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="bubblewrap"):
        LocalDaytona(isolation="docker")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'0\.190' or '0\.226', not '0\.1'"):
        LocalDaytona(daemon="0.1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a loopback"):
        LocalDaytona(host="10.0.0.1")
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        LocalDaytona(host=host)
    with pytest.raises(RuntimeError, match="not running"):
        _ = LocalDaytona().api_url


def test_the_public_names_are_these() -> None:
    assert sorted(local.__all__) == local.__all__
    assert {"LocalDaytona", "Fault", "ManualClock", "IsolationUnavailable"} <= set(local.__all__)
    assert all(hasattr(local, name) for name in local.__all__)


def test_it_stands_apart() -> None:
    program = (
        "import json, sys, langchain_daytona_ws.local; print(json.dumps([m for m in sys.modules"
        " if m.split('.')[0] in ('daytona', 'boto3', 'langchain_core') or m.startswith('langchain_daytona_ws.')]))"
    )
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    )
    assert loaded
    assert all(name.startswith("langchain_daytona_ws.local") for name in loaded)
