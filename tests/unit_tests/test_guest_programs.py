"""The guest program is sent once to a sandbox; its file there is used only if it is unchanged."""

from __future__ import annotations

import json
import marshal
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.guest_rpc.payload import MISSING_MAX, KeptPrograms, guest_call
from langchain_daytona_ws._core.ports import ExecReply, FaultKind, PortFault
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._guest import keep, loader, record
from langchain_daytona_ws.errors import OutcomeUnknown, SandboxError
from tests.unit_tests.daemon import INFO, SANDBOX_PATH, Workspace, guest_client, program_in
from tests.unit_tests.scripted_port import NONCE, ScriptedPort

DIGEST = "ab" * 32


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace("bash", tmp_path)


def carried(workspace: Workspace) -> str:
    """Return what the requests since the last time carried: "s" for source, "d" for a digest."""
    programs = workspace.port.programs
    letters = "".join("d" if "\nload(eval(" in program else "s" for program in programs)
    programs.clear()
    return letters


def kept(workspace: Workspace) -> Path:
    """Return the file of the program of commands."""
    digest = workspace.programs.call("sb", "command", {}, NONCE).digest
    (path,) = workspace.port.tmp.glob(f".langchain-daytona-ws-*/{digest}.program")
    return path


@pytest.mark.parametrize("shell", ["zsh", "bash", "dash"])
def test_the_source_is_sent_once(tmp_path: Path, shell: str) -> None:
    workspace = Workspace(shell, tmp_path)
    assert [workspace.run(f"echo {i}").output for i in range(3)] == ["0\n", "1\n", "2\n"]
    assert carried(workspace) == "sdd"
    status = kept(workspace).stat()
    assert status.st_mode & 0o777 == 0o600
    assert loader.digest_of(kept(workspace).read_bytes()) == kept(workspace).stem


def test_each_program_is_sent_once(workspace: Workspace) -> None:
    for _ in range(2):
        workspace.run("echo one")
        workspace.run("echo vim")  # a command that may start an editor needs one more module
    assert carried(workspace) == "ssdd"


def test_a_new_session_sends_the_source_again(workspace: Workspace) -> None:
    workspace.run("true")
    workspace.guest_client = guest_client(workspace.port)
    workspace.run("true")
    assert carried(workspace) == "ss"


def replaced(path: Path) -> None:
    forged = compile("open('/tmp/forged', 'w')", "forged", "exec")
    path.write_bytes(loader.head() + marshal.dumps([("boot", forged)]))


def replaced_with_the_same_head(path: Path) -> None:
    data = path.read_bytes()
    forged = marshal.dumps([("boot", compile("open('/tmp/forged', 'w')", "forged", "exec"))])
    path.write_bytes(data[: data.index(b"]") + 1] + forged)


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    copy = path.rename(path.with_suffix(".copy"))
    path.symlink_to(copy.name)


def too_large(path: Path) -> None:
    os.truncate(path, 1 << 40)


CHANGES: dict[str, Callable[[Path], None]] = {
    "replaced": replaced,
    "replaced with the same head": replaced_with_the_same_head,
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "appended": appended,
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "deleted": Path.unlink,
    "a pipe": a_pipe,
    "a directory": a_directory,
    "a link": a_link,
    "too large": too_large,
    "the directory removed": lambda path: shutil.rmtree(path.parent),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_file_is_sent_again_and_never_run(
    workspace: Workspace, change: Callable[[Path], None]
) -> None:
    workspace.run("true")
    change(kept(workspace))
    carried(workspace)
    assert workspace.run("echo ran >>ran; cat ran").output == "ran\n"
    assert carried(workspace) == "ds"
    assert not (workspace.port.tmp / "forged").exists()
    assert workspace.run("cat ran").output == "ran\n"
    assert carried(workspace) == ("s" if change is a_directory else "d")


def test_a_call_that_asks_for_the_source_leaves_no_record(workspace: Workspace) -> None:
    workspace.run("true")
    kept(workspace).unlink()
    call = guest_call("command", {"mode": "run", "key": "k1"}, NONCE, digest=DIGEST)
    reply = run_sync(workspace.port.execute("sb", call.script, env=call.env, timeout_s=20))
    assert reply.output == f'\n{NONCE} {{"error": "program"}}\n'
    assert not list(workspace.port.tmp.glob("*/k1.*"))


def test_a_program_that_is_replaced_again_and_again_while_calls_run(workspace: Workspace) -> None:
    workspace.run("true")
    path = kept(workspace)
    whole, ended = path.read_bytes(), threading.Event()

    def replace_all_the_time() -> None:
        while not ended.is_set():
            replaced_with_the_same_head(path)
            path.write_bytes(whole)
            path.unlink(missing_ok=True)
            beside = path.with_suffix(".beside")
            beside.write_bytes(whole)
            beside.rename(path)

    thread = threading.Thread(target=replace_all_the_time)
    thread.start()
    try:
        outputs = [workspace.run(f"echo {i} >>ran; wc -l <ran").output for i in range(30)]
    finally:
        ended.set()
        thread.join()
    assert outputs == [f"{i + 1}\n" for i in range(30)]
    assert not (workspace.port.tmp / "forged").exists()


def test_another_python_gets_its_own_program(workspace: Workspace, tmp_path: Path) -> None:
    workspace.run("true")
    (tmp_path / "bin").mkdir()
    other = tmp_path / "bin" / "python3"
    python = shutil.which("python3", path=SANDBOX_PATH)
    program = "import sys; sys.version = 'another ' + sys.version; exec(sys.argv[1])"
    other.write_text(f'#!/bin/sh\nexec {python} -I -S -c "{program}" "$4"\n')
    other.chmod(0o755)
    workspace.port.extra_env["PATH"] = f"{tmp_path}/bin:{SANDBOX_PATH}"
    assert [workspace.run("echo x").output for _ in range(2)] == ["x\n"] * 2
    assert carried(workspace) == "sdsd"
    workspace.port.extra_env.clear()
    assert [workspace.run("echo x").output for _ in range(2)] == ["x\n"] * 2
    assert carried(workspace) == "dsd"


def _change_python(workspace: Workspace, directory: Path, change: str) -> None:
    """Add a statement to the start of each call, after ``import sys``."""
    (directory / "bin").mkdir()
    changed = directory / "bin" / "python3"
    python = shutil.which("python3", path=SANDBOX_PATH)
    changed.write_text(f'#!/bin/sh\nexec {python} -I -S -c "import sys; {change}; exec(sys.argv[1])" "$4"\n')
    changed.chmod(0o755)
    workspace.port.extra_env["PATH"] = f"{directory}/bin:{SANDBOX_PATH}"


def test_an_old_python_is_named(workspace: Workspace, tmp_path: Path) -> None:
    _change_python(workspace, tmp_path, "sys.version_info = (3, 7, 16)")
    with pytest.raises(SandboxError, match=r"is too old: 3\.7\. Use .* Python 3\.8") as caught:
        workspace.run("echo x > ran")
    assert caught.value.code == "python_too_old"
    assert "too old" in caught.value.for_model
    assert not (workspace.root / "ran").exists()


def test_a_python_without_ssl_is_named(workspace: Workspace, tmp_path: Path) -> None:
    _change_python(workspace, tmp_path, "sys.modules['ssl'] = None")
    assert workspace.run("echo x").output == "x\n"
    request: dict[str, object] = {
        "root": str(workspace.root),
        "sync": {"is_new": True, "pulls": False},
        "sync_resident": {},
    }
    with pytest.raises(SandboxError, match="lacks the module ssl") as caught:
        run_sync(workspace.guest_client.call("sync", request, timeout_s=20))
    assert caught.value.code == "python_incomplete"
    assert "incomplete" in caught.value.for_model


def test_a_repeated_call_finds_its_record_with_either(workspace: Workspace) -> None:
    for letters in ("s", "d", "ds"):
        assert workspace.run("echo $RANDOM >>ran; wc -l <ran", key="k1").output == "1\n"
        assert carried(workspace) == letters
        if letters == "d":
            kept(workspace).unlink()


def test_a_full_disk_costs_only_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keep.posix, "write", full)
    assert keep.write(str(tmp_path), b"program") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_separate_program_comes_from_the_request_or_its_file(tmp_path: Path) -> None:
    digest = loader.digest_of(b"program")
    named = {"digest": digest, "source": None}
    assert keep.source_of(str(tmp_path), named) == b""
    assert keep.source_of(str(tmp_path), {**named, "source": b"program"}) == b"program"
    assert keep.write(str(tmp_path), b"program") == digest
    assert keep.source_of(str(tmp_path), named) == b"program"
    (tmp_path / f"{digest}.program").write_bytes(b"forged")
    assert keep.source_of(str(tmp_path), named) == b""


def test_without_blake2_another_digest_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = loader.digest_of(b"program")
    monkeypatch.setitem(sys.modules, "_blake2", None)
    assert loader.digest_of(b"program") != usual
    assert loader.read(str(tmp_path), keep.write(str(tmp_path), b"program")) == b"program"


def test_programs_are_removed_by_age(tmp_path: Path) -> None:
    for name in ("old.program", "new.program"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "old.program", (0, 0))
    record.prune(str(tmp_path), str(tmp_path / "uploads"))
    assert {path.name for path in tmp_path.iterdir()} == {"new.program", "tidied"}


class Answering(ScriptedPort):
    """Records what each request carries."""

    def __init__(self, **answers: list[Any]) -> None:
        super().__init__(**answers)
        self.carried = ""
        self.within_s: list[int] = []

    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply:
        self.carried += "d" if f"{DIGEST!r})" in program_in(env) else "s"
        self.within_s.append(timeout_s)
        return await super().execute(sandbox_id, script, env=env, timeout_s=timeout_s)


LEARNED = {"ok": True, "program": DIGEST}
MISSING = {"error": "program"}


def client_of(port: ScriptedPort) -> GuestClient:
    return guest_client(port, new_key=lambda: NONCE)


def calls(port: Answering, number: int) -> list[object]:
    guest_client = client_of(port)
    return [
        run_sync(guest_client.call("command", {"op": "x", "key": "k"}, timeout_s=10))[0]
        for _ in range(number)
    ]


def test_the_digest_is_learned_from_the_answer_and_is_no_part_of_it() -> None:
    port = Answering(execute=[LEARNED, {"ok": True}])
    assert calls(port, 3) == [{"ok": True}] * 3
    assert port.carried == "sdd"


@pytest.mark.parametrize(
    "digest", [None, 1, "", "ab", "AB" * 32, "ab" * 32 + "\n", "../" * 20 + "ab" * 2, [DIGEST]]
)
def test_an_invalid_digest_is_ignored(digest: object) -> None:
    port = Answering(execute=[{"ok": True, "program": digest}])
    calls(port, 2)
    assert port.carried == "ss"


def test_polls_learn_too() -> None:
    port = Answering(execute=[LEARNED, {"ok": True}, MISSING, LEARNED, {"ok": True}])
    guest_client = client_of(port)
    for _ in range(4):
        assert run_sync(guest_client.poll(INFO, "poll_output", {}, within_s=9)) == {"ok": True}
    assert port.carried == "sddsd"


def test_a_missing_program_is_sent_in_the_rest_of_the_time() -> None:
    port = Answering(execute=[LEARNED, MISSING, LEARNED, {"ok": True}])
    usual = port._next

    def slow(name: str) -> Any:
        port.slept_s += 5
        return usual(name)

    port._next = slow  # type: ignore[method-assign]
    assert calls(port, 3) == [{"ok": True}] * 3
    assert port.carried == "sdsd"
    first, with_digest, with_source, _ = port.within_s
    assert with_digest == first
    assert with_source == first - 5


def test_a_sandbox_that_never_has_the_program_gets_the_source_at_once() -> None:
    port = Answering(execute=[LEARNED, *[MISSING, LEARNED] * MISSING_MAX, LEARNED])
    calls(port, 1 + MISSING_MAX + 3)
    assert port.carried == "s" + "ds" * MISSING_MAX + "sss"


def test_a_sandbox_that_has_it_again_is_not_given_up() -> None:
    port = Answering(execute=[LEARNED, *[MISSING, LEARNED, {"ok": True}] * 2 * MISSING_MAX])
    calls(port, 1 + 4 * MISSING_MAX)
    assert port.carried == "s" + "dsd" * 2 * MISSING_MAX


def test_the_source_that_was_sent_cannot_be_asked_for() -> None:
    port = Answering(execute=[MISSING])
    with pytest.raises(SandboxError) as caught:
        calls(port, 1)
    assert caught.value.code == "unreadable_answer"
    assert set(port.carried) == {"s"}


def test_after_an_unreadable_answer_the_source_is_sent() -> None:
    port = Answering(execute=[LEARNED, "crashed", {"ok": True}])
    assert calls(port, 2) == [{"ok": True}] * 2
    assert port.carried == "sds"


@pytest.mark.parametrize(
    ("kind", "letters"),
    [(FaultKind.DROPPED, "sds"), (FaultKind.NOT_SENT, "sdd"), (FaultKind.THROTTLED, "sdd")],
)
def test_after_a_fault_the_source_is_sent_if_the_program_may_be_its_cause(
    kind: FaultKind, letters: str
) -> None:
    port = Answering(execute=[LEARNED, PortFault(kind, "fault"), {"ok": True}])
    assert calls(port, 2) == [{"ok": True}] * 2
    assert port.carried == letters


def test_a_missing_program_after_a_request_that_may_have_run_changes_no_outcome() -> None:
    dropped = PortFault(FaultKind.DROPPED, "fault")
    port = Answering(execute=[LEARNED, dropped, LEARNED, MISSING, {"outcome": "unknown"}])
    guest_client = client_of(port)
    request: dict[str, object] = {"op": "x", "key": "k"}
    for _ in range(2):
        run_sync(guest_client.call("command", request, timeout_s=10))
    with pytest.raises(OutcomeUnknown):
        run_sync(guest_client.call("command", request, timeout_s=10))
    assert port.carried == "sdsds"


def test_sandboxes_and_programs_are_kept_apart() -> None:
    programs = KeptPrograms()
    assert not programs.lacks("a", programs.call("a", "command", {}, NONCE), {"program": DIGEST})
    assert programs.call("a", "command", {}, NONCE).digest == DIGEST
    assert programs.call("a", "command", {}, NONCE, with_source=True).digest == ""
    assert programs.call("b", "command", {}, NONCE).digest == ""
    assert programs.call("a", "command", {"mount": {}}, NONCE).digest == ""


def test_the_answer_has_the_digest_only_in_its_frame(workspace: Workspace) -> None:
    workspace.run("true", key="k1")
    (path,) = workspace.port.tmp.glob("*/k1.call")
    assert "program" not in json.loads(path.read_bytes().partition(b"\n")[2])
