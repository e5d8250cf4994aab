"""The guest's file operations on real directories, hostile ones above all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._guest import dirs as guest_location
from langchain_daytona_ws._guest import files, match, search, store, tree, walk

ENTRIES = {"list": tree, "glob": tree, "grep": search}
DEFAULTS: dict[str, dict[str, Any]] = {
    "list": {"limit": 1000, "limit_bytes": 65536},
    "glob": {"limit": 200, "limit_bytes": 65536, "timeout_s": 20},
    "grep": {"limit": 200, "limit_bytes": 65536, "timeout_s": 20, "mode": "content"},
}

HOSTILE = [
    "new\nline",
    "tab\t",
    "'quote'",
    '"double"',
    "-rf",
    "--help",
    "$(touch pwned)",
    "`touch pwned`",
    "a;b&c|d",
    "*",
    "[a]",
    "{a,b}",
    "back\\slash",
    " space ",
    "ünïcödé-漢字-🙂",
    "a:1:b",
    "./x".replace("/", "_"),
    "x" * 255,
    "~",
    "!bang",
    "#hash",
    "\x1b[31mred",
    "\u202egpj.exe",
]


class Box:
    """A workspace, and a secret outside of it."""

    def __init__(self, path: Path) -> None:
        self.root = path / "workspaces" / "demo"
        self.root.mkdir(parents=True)
        self.outside = path / "outside"
        self.outside.mkdir()
        self.secret = self.outside / "secret"
        self.secret.write_text("top secret\n")

    def ask(self, op: str, path: str = ".", **arguments: Any) -> dict[str, Any]:
        request = {"root": str(self.root), "op": op, "path": path, **DEFAULTS.get(op, {}), **arguments}
        answer = ENTRIES.get(op, files).main(request)
        copy: dict[str, Any] = json.loads(json.dumps(answer))
        assert copy["ok"] is ("error" not in copy)
        return copy

    def put(self, path: str, content: bytes | str = b"") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    before = set(os.listdir("/proc/self/fd"))
    yield Box(tmp_path)
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 0, "no descriptor may leak"


class TestLogs:
    KEY = "0" * 32

    @pytest.fixture
    def state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(guest_location, "STATE_PARENT", str(tmp_path))
        state = Path(guest_location.state_directory())
        (state / f"{self.KEY}.log").write_text("one\ntwo\n")
        (state / f"{self.KEY}.call").write_text("a record")
        (state / "link.log").symlink_to(f"{self.KEY}.call")
        (state / "directory.log").mkdir()
        (state / "jobs").mkdir()
        (state / "jobs" / "other.log").write_text("x")
        return state

    def test_are_read_and_searched(self, box: Box, state: Path) -> None:
        log = f"{state}/{self.KEY}.log"
        assert box.ask("read", log, log=True)["body"] == "     1\tone\n     2\ttwo"
        assert box.ask("grep", log, log=True, pattern="tw")["rows"] == [[f"{self.KEY}.log", 2, True, "two"]]

    @pytest.mark.parametrize(
        "name",
        [
            "{key}.call",
            "link.log",
            "directory.log",
            "jobs/other.log",
            "../{key}.log",
            "jobs/../{key}.log",
            "no.log",
        ],
    )
    def test_nothing_else_is(self, box: Box, state: Path, name: str) -> None:
        path = f"{state}/{name.format(key=self.KEY)}"
        for op in ("read", "grep"):
            assert box.ask(op, path, log=True, pattern="x") == {"ok": False, "error": "missing"}
        assert box.ask("read", f"/{self.KEY}.log", log=True)["error"] == "missing"

    def test_are_not_changed(self, box: Box, state: Path) -> None:
        path = f"{state}/{self.KEY}.log"
        for op, arguments in (
            ("write", {"content": b"x", "overwrite": True}),
            ("edit", {"old": "one", "new": "1"}),
            ("delete", {}),
        ):
            assert box.ask(op, path, log=True, **arguments)["error"] == "missing"
        assert Path(path).read_text() == "one\ntwo\n"


class TestRead:
    def test_page_and_facts(self, box: Box) -> None:
        target = box.put("src/a.txt", b"one\r\ntwo\r\n")
        answer = box.ask("read", "src/a.txt", offset=2)
        assert answer["body"] == "     2\ttwo"
        assert answer["sha256"] == hashlib.sha256(b"one\r\ntwo\r\n").hexdigest()
        assert answer["mtime_ns"] == target.stat().st_mtime_ns
        assert (answer["bytes"], answer["lines"], answer["newline"]) == (10, 2, "crlf")

    def test_empty(self, box: Box) -> None:
        box.put("empty")
        assert box.ask("read", "empty")["lines"] == 0

    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("nothing", "missing"),
            ("nothing/below", "missing"),
            ("dir", "is_directory"),
            (".", "is_directory"),
            ("file/below", "not_a_directory"),
            ("fifo", "not_regular"),
            ("socket", "not_regular"),
            ("png", "binary"),
            ("large", "too_large"),
            ("../outside/secret", "outside"),
            ("/etc/passwd", "bad_path"),
            ("a\0b", "bad_path"),
        ],
    )
    def test_refusals(self, box: Box, path: str, error: str) -> None:
        box.put("file", b"x")
        (box.root / "dir").mkdir()
        os.mkfifo(box.root / "fifo")
        here = os.getcwd()
        os.chdir(box.root)  # the path of a socket is limited to 108 bytes
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
        os.chdir(here)
        box.put("png", b"\x89PNG\0\0")
        box.put("large", b"x" * 2000)
        assert box.ask("read", path, max_bytes=1000)["error"] == error

    def test_device(self, box: Box) -> None:
        os.symlink("/dev/zero", box.root / "zero")
        assert box.ask("read", "zero")["error"] == "outside"

    def test_offset_past_the_end(self, box: Box) -> None:
        box.put("a", b"x\n")
        assert box.ask("read", "a", offset=2) == {"ok": False, "error": "past_end", "lines": 1}

    def test_a_name_too_long_is_an_answer(self, box: Box) -> None:
        answer = box.ask("read", "x" * 300)
        assert (answer["error"], answer["errno"]) == ("os", "ENAMETOOLONG")

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_names(self, box: Box, name: str) -> None:
        assert box.ask("write", f"d {name[:200]}/{name}", content=b"old")["created"]
        assert box.ask("read", f"d {name[:200]}/{name}")["body"] == "     1\told"
        assert box.ask("edit", f"d {name[:200]}/{name}", old="old", new="new")["count"] == 1
        found = box.ask("grep", mode="files_with_matches", pattern="new")["rows"]
        assert found == [[f"d {name[:200]}/{name}"]]
        assert box.ask("list", f"d {name[:200]}")["entries"][0][0] == name
        assert box.ask("delete", f"d {name[:200]}/{name}")["ok"]
        assert not list(box.root.rglob("pwned"))

    def test_names_that_are_not_utf8(self, box: Box) -> None:
        raw = os.fsencode(box.root) + b"/caf\xe9.txt"
        with open(raw, "wb") as stream:
            stream.write(b"hit\n")
        name = os.fsdecode(b"caf\xe9.txt")
        assert box.ask("list")["entries"][0][0] == name
        assert box.ask("glob", pattern="*.txt")["paths"][0][0] == name
        assert box.ask("grep", pattern="hit")["rows"] == [[name, 1, True, "hit"]]
        assert box.ask("read", name)["body"] == "     1\thit"


class TestSymlinks:
    @pytest.fixture
    def links(self, box: Box) -> Box:
        box.put("real/file", "inside\n")
        for name, target in {
            "to_file": "real/file",
            "to_dir": "real",
            "absolute": f"{box.root}/real/file",
            "real/up": "../real/../real/file",
            "to_root": ".",
            "real/to_root": "..",
            "chain": "to_chain",
            "to_chain": "to_dir/file",
            "out": "../../outside/secret",
            "out_absolute": str(box.secret),
            "out_dir": "../../outside",
            "out_by_root": f"{box.root}/../../outside/secret",
            "out_sibling": f"{box.root}2/secret",
            "out_through": "to_root/../../../outside/secret",
            "loop": "loop",
            "loop_a": "loop_b",
            "loop_b": "loop_a",
            "dangling": "real/not_yet",
            "dangling_out": "../../outside/not_yet",
        }.items():
            os.symlink(target, box.root / name)
        return box

    @pytest.mark.parametrize(
        "path",
        [
            "to_file",
            "to_dir/file",
            "absolute",
            "real/up",
            "to_root/real/file",
            "real/to_root/to_root/to_dir/file",
            "chain",
        ],
    )
    def test_inside_are_followed(self, links: Box, path: str) -> None:
        answer = links.ask("read", path)
        assert answer["body"] == "     1\tinside"
        assert answer["path"] == "real/file"

    @pytest.mark.parametrize("op", ["read", "write", "edit", "list", "grep"])
    @pytest.mark.parametrize(
        "path",
        ["out", "out_absolute", "out_dir/secret", "out_dir", "out_by_root", "out_sibling", "out_through"],
    )
    def test_outside_are_refused(self, links: Box, op: str, path: str) -> None:
        arguments = {
            "write": {"content": b"pwned", "overwrite": True},
            "edit": {"old": "top", "new": "no"},
            "grep": {"pattern": "secret"},
        }
        assert links.ask(op, path, **arguments.get(op, {})) == {"ok": False, "error": "outside"}
        assert links.secret.read_text() == "top secret\n"
        assert os.listdir(links.outside) == ["secret"]

    def test_outside_nothing_is_made(self, links: Box) -> None:
        for path in ("dangling_out", "out_dir/new", "out_dir/new/deeper"):
            assert links.ask("write", path, content=b"x")["error"] == "outside"
        assert links.ask("glob", pattern="out_dir/*")["error"] == "outside"
        assert os.listdir(links.outside) == ["secret"]

    @pytest.mark.parametrize("path", ["loop", "loop_a", "loop/x"])
    def test_loops_end(self, links: Box, path: str) -> None:
        assert links.ask("read", path)["error"] == "loop"

    def test_many_dots_end(self, links: Box) -> None:
        deep = "/".join("d" * 1 for _ in range(500))
        (links.root / deep).mkdir(parents=True)
        os.symlink(deep + "/.." * 400 + "/d" * 300, links.root / "zigzag")
        began = time.monotonic()
        assert links.ask("list", "zigzag")["error"] == "loop"
        assert time.monotonic() - began < 20

    def test_a_dangling_one_inside_is_written_through(self, links: Box) -> None:
        assert links.ask("write", "dangling", content=b"x")["path"] == "real/not_yet"
        assert (links.root / "real/not_yet").read_bytes() == b"x"

    def test_are_deleted_themselves(self, links: Box) -> None:
        for name in ("out", "out_dir", "to_dir", "loop", "dangling"):
            assert links.ask("delete", name)["kind"] == "link"
        assert links.secret.exists()
        assert (links.root / "real/file").exists()
        assert links.ask("delete", "to_root/real/up")["ok"]
        assert links.ask("delete", "out_dir/secret")["error"] == "missing"

    def test_are_named_but_not_entered(self, links: Box) -> None:
        found = {row[0] for row in links.ask("glob", pattern="**/*")["paths"]}
        assert "out_dir" in found
        assert not any("secret" in name for name in found)
        assert all(not name.startswith(("to_dir/", "to_root/", "out_dir/")) for name in found)
        for tool_path in (None, "grep"):
            rows = links.ask("grep", pattern="secret|inside", tool_path=_tools(links, tool_path))["rows"]
            assert rows == [["real/file", 1, True, "inside"]]

    def test_listing_tells_no_host_paths(self, links: Box) -> None:
        targets = {row[0]: row[4] for row in links.ask("list")["entries"]}
        assert targets["absolute"] == "/real/file"
        assert targets["out_absolute"] == ""
        assert targets["to_dir"] == "real"
        assert targets["real"] is None

    def test_glob_and_grep_start_at_one(self, links: Box) -> None:
        assert links.ask("glob", pattern="to_dir/fi*")["paths"][0][0] == "real/file"
        assert links.ask("grep", "to_file", pattern="inside")["rows"] == [["real/file", 1, True, "inside"]]

    @pytest.mark.parametrize("op", ["read", "write", "edit", "delete", "list"])
    def test_a_race_never_leads_out(self, links: Box, op: str) -> None:
        """Swap a directory for a symlink to the outside as fast as can be, and a file too."""
        (links.root / "swap_dir").mkdir()
        (links.root / "swap_dir/secret").write_text("inside\n")
        stop = threading.Event()

        def swap() -> None:
            real, parked = f"{links.root}/swap_dir", f"{links.root}/parked"
            steps: list[Callable[[], None]] = [
                lambda: shutil.rmtree(parked),  # there only when a write has made a directory meanwhile
                lambda: os.rename(real, parked),
                lambda: os.symlink(links.outside, real),
                lambda: os.unlink(real),
                lambda: os.rename(parked, real),
            ]
            while not stop.is_set():
                for step in steps:
                    with contextlib.suppress(OSError):
                        step()

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            for _ in range(300):
                if op == "read":
                    answer = links.ask("read", "swap_dir/secret")
                    assert "top" not in answer.get("body", "")
                elif op == "write":
                    links.ask("write", "swap_dir/other", content=b"x", overwrite=True)
                elif op == "edit":
                    links.ask("edit", "swap_dir/secret", old="top secret", new="pwned")
                elif op == "delete":
                    links.ask("delete", "swap_dir/secret")
                else:
                    links.ask("list", "swap_dir")
        finally:
            stop.set()
            thread.join()
        assert links.secret.read_text() == "top secret\n"
        assert os.listdir(links.outside) == ["secret"]


class TestWrite:
    def test_makes_parents(self, box: Box) -> None:
        answer = box.ask("write", "a/b/c.txt", content=b"x\n")
        assert answer == {
            "ok": True,
            "created": True,
            "unchanged": False,
            "path": "a/b/c.txt",
            "bytes": 2,
            "sha256": hashlib.sha256(b"x\n").hexdigest(),
        }

    def test_an_existing_file_must_be_known(self, box: Box) -> None:
        target = box.put("a", b"old")
        old = hashlib.sha256(b"old").hexdigest()
        assert box.ask("write", "a", content=b"newer") == {
            "ok": False,
            "error": "exists_unread",
            "bytes": 3,
        }
        assert box.ask("write", "a", content=b"new", expected_sha256="0" * 64)["error"] == "changed"
        assert target.read_bytes() == b"old"
        assert box.ask("write", "a", content=b"new", expected_sha256=old)["ok"]
        assert box.ask("write", "a", content=b"newest", overwrite=True)["created"] is False
        assert target.read_bytes() == b"newest"

    def test_the_same_again_changes_nothing(self, box: Box) -> None:
        target = box.put("a", b"same")
        os.utime(target, ns=(1, 1))
        assert box.ask("write", "a", content=b"same")["unchanged"]
        assert target.stat().st_mtime_ns == 1

    @pytest.mark.parametrize("path", ["dir", "fifo", "."])
    def test_only_over_files(self, box: Box, path: str) -> None:
        (box.root / "dir").mkdir()
        os.mkfifo(box.root / "fifo")
        answer = box.ask("write", path, content=b"x", overwrite=True)
        assert answer["error"] in ("is_directory", "not_regular")

    def test_not_below_a_file(self, box: Box) -> None:
        box.put("file", b"x")
        assert box.ask("write", "file/below", content=b"x")["error"] == "not_a_directory"

    def test_keeps_inode_mode_and_links(self, box: Box) -> None:
        target = box.put("a", b"old")
        target.chmod(0o754)
        before = target.stat()
        box.ask("write", "a", content=b"newer", overwrite=True)
        after = target.stat()
        assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)

    def test_staged_upload(self, box: Box, tmp_path: Path) -> None:
        data = os.urandom(3 << 20)
        staged = tmp_path / "staged"
        staged.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        answer = box.ask("write", "big", content_from=str(staged), content_sha256=sha256)
        assert (answer["bytes"], answer["sha256"]) == (len(data), sha256)
        assert (box.root / "big").read_bytes() == data
        assert not staged.exists()

    @pytest.mark.parametrize("as_text", [False, True])
    def test_an_upload_becomes_the_file_at_once_with_the_mode_of_the_old_one(
        self, box: Box, tmp_path: Path, as_text: bool
    ) -> None:
        target = box.put("a", b"old")
        target.chmod(0o754)
        request, inode = _staged(tmp_path, b"newer"), (tmp_path / "staged").stat().st_ino
        with target.open("rb") as reader:
            answer = box.ask("write", "a", **request, overwrite=True, as_text=as_text)
            assert reader.read() == b"old"  # not cut off while it is read
        assert (answer["created"], answer["sha256"]) == (False, request["content_sha256"])
        assert (target.read_bytes(), target.stat().st_mode & 0o7777) == (b"newer", 0o754)
        assert target.stat().st_ino == inode
        assert not (tmp_path / "staged").exists()

    def test_an_upload_of_a_new_file_has_the_mode_of_a_new_file(self, box: Box, tmp_path: Path) -> None:
        request = _staged(tmp_path, b"new")
        (tmp_path / "staged").chmod(0o600)
        assert box.ask("write", "d/a", **request)["created"]
        plain = box.put("plain", b"")
        created = box.root / "d" / "a"
        assert created.stat().st_mode == plain.stat().st_mode
        assert created.stat().st_nlink == 1
        assert not (tmp_path / "staged").exists()

    @pytest.mark.parametrize("reason", ["another name", "another file system", "a group's directory"])
    def test_an_upload_is_copied_if_the_file_must_stay_the_same(
        self, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
    ) -> None:
        target = box.put("a", b"old")
        if reason == "another name":
            (box.root / "b").hardlink_to(target)
        elif reason == "a group's directory":
            box.root.chmod(0o2755)
        else:

            def fail(*_: object, **__: object) -> None:
                raise OSError(errno.EXDEV, "Invalid cross-device link")

            monkeypatch.setattr(os, "rename", fail)
        inode = target.stat().st_ino
        box.ask("write", "a", **_staged(tmp_path, b"newer"), overwrite=True)
        assert (target.read_bytes(), target.stat().st_ino) == (b"newer", inode)
        assert not (tmp_path / "staged").exists()

    def test_an_upload_of_another_size_or_with_another_name_is_checked(
        self, box: Box, tmp_path: Path
    ) -> None:
        target = box.put("a", b"old")
        request = _staged(tmp_path, b"newer")
        (tmp_path / "staged").write_bytes(b"cut")
        answer = box.ask("write", "a", **request, overwrite=True)
        assert answer == {"ok": False, "error": "staging"}
        request = _staged(tmp_path, b"newer")
        (tmp_path / "staged").write_bytes(b"other")
        (tmp_path / "second name").hardlink_to(tmp_path / "staged")
        answer = box.ask("write", "a", **request, overwrite=True)
        assert answer == {"ok": False, "error": "staging"}
        assert target.read_bytes() == b"old"

    def test_a_damaged_or_missing_upload_changes_nothing(self, box: Box, tmp_path: Path) -> None:
        target = box.put("a", b"old")
        staged = tmp_path / "staged"
        staged.write_bytes(b"half")
        for path in (staged, staged, tmp_path):
            answer = box.ask("write", "a", content_from=str(path), content_sha256="0" * 64, overwrite=True)
            assert answer == {"ok": False, "error": "staging"}
        assert target.read_bytes() == b"old"
        assert not staged.exists()

    def test_a_racing_creator_is_not_clobbered(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        real = store.create

        def late(location: walk.Location, source: store.Source) -> bool:
            box.put("a", b"theirs")
            return real(location, source)

        monkeypatch.setattr(files, "create", late)
        assert box.ask("write", "a", content=b"mine")["error"] == "exists_unread"
        assert (box.root / "a").read_bytes() == b"theirs"

    def test_a_vanished_directory_is_made_again(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        """A missing directory, as on an S3 mount after the deletion of its last file."""
        (box.root / "d").mkdir()
        real = store.create
        vanishings = [1]

        def create(location: walk.Location, source: store.Source) -> bool:
            if vanishings:
                vanishings.pop()
                (box.root / "d").rmdir()
            return real(location, source)

        monkeypatch.setattr(files, "create", create)
        assert box.ask("write", "d/a", content=b"x")["created"]
        assert (box.root / "d/a").read_bytes() == b"x"

    def test_large_targets_are_not_read_for_nothing(self, box: Box) -> None:
        box.put("a", b"x" * 5000)
        assert box.ask("write", "a", content=b"y", max_bytes=100)["error"] == "exists_unread"
        assert box.ask("write", "a", content=b"y", max_bytes=100, overwrite=True)["ok"]


class TestFailedWrites:
    """Errors of the kernel, injected where it gives them: at write and at close."""

    def full_disk(self, monkeypatch: pytest.MonkeyPatch, room: int, until: int = 1000) -> None:
        real = os.write
        calls = 0

        def write(fd: int, data: Any) -> int:
            nonlocal room, calls
            calls += 1
            if calls > until:
                return real(fd, data)
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            count = real(fd, bytes(data)[:room])
            room -= count
            return count

        monkeypatch.setattr(store.os, "write", write)

    def test_short_writes_go_on(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.write
        monkeypatch.setattr(store.os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
        assert box.ask("write", "a", content=b"0123456789")["ok"]
        monkeypatch.undo()
        assert (box.root / "a").read_bytes() == b"0123456789"

    def test_a_new_file_leaves_nothing(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full_disk(monkeypatch, 4)
        answer = box.ask("write", "a", content=b"0123456789")
        assert answer == {
            "ok": False,
            "error": "write_failed",
            "errno": "ENOSPC",
            "text": "No space left on device",
            "state": "absent",
            "bytes": 0,
        }

    def test_the_old_content_is_put_back(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        target = box.put("a", b"old content")
        self.full_disk(monkeypatch, 4, until=2)
        answer = box.ask("write", "a", content=b"x" * 50, overwrite=True)
        assert (answer["errno"], answer["state"]) == ("ENOSPC", "restored")
        assert target.read_bytes() == b"old content"

    def test_what_is_left_is_told(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        box.put("a", b"old content")
        self.full_disk(monkeypatch, 4)
        answer = box.ask("edit", "a", old="old", new="new" * 20)
        assert (answer["error"], answer["state"], answer["bytes"]) == ("write_failed", "partial", 0)

    def test_a_full_disk_for_real(self, box: Box) -> None:
        """A file size limit, which is the kernel's own short write and error."""
        box.put("a", b"old content")
        request = {
            "root": str(box.root),
            "op": "write",
            "path": "a",
            "content": b"x" * 5000,
            "overwrite": True,
        }
        program = (
            "import resource, json; from langchain_daytona_ws._guest import files;"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
            f"print(json.dumps(files.main({request!r})))"
        )
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        answer = json.loads(done.stdout)
        assert (answer["errno"], answer["state"]) == ("EFBIG", "restored")
        assert (box.root / "a").read_bytes() == b"old content"

    def test_a_failed_close_is_reported(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        """An S3 mount uploads at close, and keeps the old object when that fails."""
        target = box.put("a", b"old")
        real_open, real_close = walk.Location.open, os.close
        writers: set[int] = set()

        def opened(location: walk.Location, flags: int) -> int:
            fd = real_open(location, flags & ~os.O_TRUNC)
            if flags & os.O_WRONLY:
                writers.add(fd)
            return fd

        def close(fd: int) -> None:
            real_close(fd)
            if fd in writers:
                writers.discard(fd)
                target.write_bytes(b"old")
                raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(walk.Location, "open", opened)
        monkeypatch.setattr(store.os, "close", close)
        answer = box.ask("edit", "a", old="old", new="new")
        assert (answer["error"], answer["errno"], answer["state"]) == ("write_failed", "EIO", "unchanged")

    def test_a_reader_not_yet_released_is_waited_for(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        box.put("a", b"old")
        real = walk.Location.open
        refusals = [errno.EPERM, errno.EPERM]

        def opened(location: walk.Location, flags: int) -> int:
            if flags & os.O_WRONLY and refusals:
                raise OSError(refusals.pop(), "Operation not permitted")
            return real(location, flags)

        monkeypatch.setattr(walk.Location, "open", opened)
        assert box.ask("edit", "a", old="old", new="new")["ok"]
        assert not refusals


def test_writes_are_plain(box: Box) -> None:
    """An S3 mount supports no rename, append, chmod, link or utime: check the system calls themselves."""
    called: list[str] = []
    watched = {
        "os.rename",
        "os.chmod",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.utime",
        "os.chown",
        "open",
    }

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event in watched:
            append = (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_APPEND | os.O_RDWR)
            )
            is_lock = str(arguments[0]).endswith("/files.lock")  # on the sandbox's own disk
            if (event != "open" or append) and not is_lock:
                called.append(event)

    active = True
    sys.addaudithook(hook)  # stays for the life of the process, switched off below
    try:
        box.ask("write", "d/a", content=b"old")
        box.ask("write", "d/a", content=b"newer", overwrite=True)
        box.ask("edit", "d/a", old="newer", new="x")
        box.ask("delete", "d/a")
    finally:
        active = False
    assert called == []


class TestEdit:
    def test_answer(self, box: Box) -> None:
        target = box.put("a", b"one\r\ntwo\r\nthree\r\n")
        answer = box.ask("edit", "a", old="two\nthree", new="2\n3")
        assert target.read_bytes() == b"one\r\n2\r\n3\r\n"
        assert (answer["count"], answer["at"]) == (1, [2])
        assert answer["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
        assert answer["before_sha256"] == hashlib.sha256(b"one\r\ntwo\r\nthree\r\n").hexdigest()
        assert "     2\t2" in answer["snippet"]

    def test_refusals(self, box: Box) -> None:
        target = box.put("a", b"x\nx\n")
        assert box.ask("edit", "a", old="x", new="y") == {
            "ok": False,
            "error": "not_unique",
            "count": 2,
            "at": [1, 2],
        }
        assert box.ask("edit", "a", old="zz", new="y")["error"] == "not_found"
        assert box.ask("edit", "none", old="x", new="y")["error"] == "missing"
        assert box.ask("edit", "a", old="x", new="y", replace_all=True, expected_sha256="0" * 64)[
            "error"
        ] == ("changed")
        assert box.ask("edit", "a", old="x", new="y" * 100, replace_all=True, max_bytes=50)["error"] == (
            "too_large"
        )
        assert target.read_bytes() == b"x\nx\n"

    def test_a_change_in_between_is_noticed(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        target = box.put("a", b"one two")
        real: Callable[..., Any] = files.edits.apply_edit

        def slow(*arguments: Any, **named: Any) -> Any:
            target.write_bytes(b"one two three")
            return real(*arguments, **named)

        monkeypatch.setattr(files.edits, "apply_edit", slow)
        assert box.ask("edit", "a", old="one", new="1")["error"] == "changed"
        assert target.read_bytes() == b"one two three"


class TestDelete:
    def test_files_and_empty_directories(self, box: Box) -> None:
        box.put("a", b"123")
        (box.root / "d").mkdir()
        assert box.ask("delete", "a") == {"ok": True, "path": "a", "kind": "file", "bytes": 3}
        assert box.ask("delete", "d")["kind"] == "dir"
        assert os.listdir(box.root) == []

    def test_refusals(self, box: Box) -> None:
        box.put("d/a", b"x")
        box.put("d/b", b"x")
        assert box.ask("delete", "d") == {"ok": False, "error": "not_empty", "count": 2}
        assert box.ask("delete", ".")["error"] == "is_root"
        assert box.ask("delete", "none")["error"] == "missing"
        assert (box.root / "d/a").exists()

    def test_a_fifo(self, box: Box) -> None:
        os.mkfifo(box.root / "fifo")
        assert box.ask("delete", "fifo")["kind"] == "other"


class TestList:
    def test_directories_first(self, box: Box) -> None:
        box.put("b.txt", b"12")
        box.put(".hidden", b"")
        (box.root / "z").mkdir()
        os.mkfifo(box.root / "fifo")
        rows = box.ask("list")["entries"]
        assert [(row[0], row[1], row[2]) for row in rows] == [
            ("z", "dir", 0),
            (".hidden", "file", 0),
            ("b.txt", "file", 2),
            ("fifo", "other", 0),
        ]

    def test_is_bounded(self, box: Box) -> None:
        for n in range(30):
            box.put(f"f{n:02}")
        answer = box.ask("list", limit=10)
        assert (len(answer["entries"]), answer["total"], answer["more"]) == (10, 30, True)
        assert answer["entries"][0][0] == "f00"
        assert len(box.ask("list", limit_bytes=200)["entries"]) == 4

    def test_of_a_file(self, box: Box) -> None:
        box.put("a")
        assert box.ask("list", "a")["error"] == "not_a_directory"
        assert box.ask("list", "none")["error"] == "missing"


def _offsets_of_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Record at which offsets of a pattern a function of `match` is called."""

    def record_and_call(text: str, at: int) -> Any:
        offsets.append(at)
        return function(text, at)

    offsets: list[int] = []
    function = getattr(match, name)
    monkeypatch.setattr(match, name, record_and_call)
    return offsets


def test_a_class_that_is_not_closed_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = _offsets_of_calls(monkeypatch, "_class")
    assert match.Glob("[" * 1000).matches("[" * 1000)
    assert searched == [1]
    assert match.Glob("[a][]b[").matches("a[]b[")


def test_braces_that_are_not_closed_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = _offsets_of_calls(monkeypatch, "_choices")
    assert match.Glob("{" * 1000).matches("{" * 1000)
    assert read == []
    assert match.Glob("{a,{b,c}{").matches("{a,c{")
    assert match.Glob("{x{a,b}").matches("{xb")
    assert match.Glob(r"{\{,a}{b,\}}").matches("{}")


class TestGlob:
    @pytest.fixture
    def project(self, box: Box) -> Box:
        names = ["a.py", "src/b.py", "src/deep/er/c.py", "src/d.ts", "src/e.tsx", ".github/w.yml"]
        names += [".git/config.py", "node_modules/m/index.py", "src/[x]/f.py"]
        for age, name in enumerate(names):
            target = box.put(name)
            os.utime(target, ns=(0, (100 - age) * 10**9))
        return box

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("**/*.py", ["a.py", "src/b.py", "src/deep/er/c.py", "src/[x]/f.py"]),
            ("*.py", ["a.py"]),
            ("src/*.{ts,tsx}", ["src/d.ts", "src/e.tsx"]),
            ("src/**", ["src/b.py", "src/deep/er/c.py", "src/d.ts", "src/e.tsx", "src/[x]/f.py"]),
            ("src/**/er/*", ["src/deep/er/c.py"]),
            ("**/w.yml", [".github/w.yml"]),
            (".git/*", [".git/config.py"]),
            ("node_modules/**/*.py", ["node_modules/m/index.py"]),
            ("src/\\[x\\]/*", ["src/[x]/f.py"]),
            ("?.p[a-z]", ["a.py"]),
            ("[!b].py", ["a.py"]),
            ("none/*.py", []),
            ("a.py/*", []),
            ("src/", ["src"]),
            ("src/*/", ["src/[x]", "src/deep"]),
            ("./src/b.py", ["src/b.py"]),
        ],
    )
    def test_patterns(self, project: Box, pattern: str, expected: list[str]) -> None:
        found = [row[0] for row in project.ask("glob", pattern=pattern)["paths"]]
        if pattern.endswith("/"):
            found.sort()
        assert found == expected

    def test_base_and_skipped(self, project: Box) -> None:
        assert [row[0] for row in project.ask("glob", "src", pattern="*.py")["paths"]] == ["src/b.py"]
        assert sorted(project.ask("glob", pattern="**/*.py")["skipped"]) == [".git", "node_modules"]
        assert project.ask("glob", "node_modules", pattern="**/*.py")["total"] == 1
        assert project.ask("glob", "none", pattern="*")["error"] == "missing"
        assert project.ask("glob", "none", pattern="a/*")["error"] == "missing"
        assert project.ask("glob", pattern="{a,../b}")["error"] == "bad_glob"

    def test_is_bounded(self, project: Box) -> None:
        answer = project.ask("glob", pattern="**/*.py", limit=2)
        assert (len(answer["paths"]), answer["total"], answer["more"]) == (2, 4, True)
        answer = project.ask("glob", pattern="**", timeout_s=-1)
        assert (answer["timed_out"], answer["more"]) == (True, True)

    def test_very_deep_trees_end(self, box: Box) -> None:
        fd = os.open(box.root, os.O_RDONLY)
        for _ in range(400):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
        assert box.ask("glob", pattern="**/x")["more"]
        shutil.rmtree(box.root)

    def test_hostile_patterns_stay_cheap(self, box: Box) -> None:
        box.put("a" * 200)
        began = time.monotonic()
        for pattern in (
            "*a" * 100 + "b",
            "[a-z]*" * 100 + "!",
            "**/" * 500 + "x",
            "{a,b}" * 4,
            "{" * 900,
            "[" * 900,
        ):
            assert box.ask("glob", pattern=pattern)["ok"]
        assert box.ask("glob", pattern="{a,b}" * 40)["error"] == "bad_glob"
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "pattern", ["{a,b}" * 8 + "x" * 300, "x" * 70_000, "{" + "," * 200 + "}" + "/x" * 200]
)
def test_the_size_of_the_expanded_pattern_is_limited(pattern: str) -> None:
    with pytest.raises(match.GlobError, match="has more than 65,536 characters"):
        match.Glob(pattern)


def test_commas_separate_globs_except_within_braces() -> None:
    assert dict(match.readings("a, {b,c}d,{e,f", "")) == {"commas": "{a,{b,c}d,{e,f}"}
    assert dict(match.readings("@(a|b|c)@(d|", "")) == {"alternatives": "{a,b,c}@(d|"}


@given(
    pattern=st.lists(
        st.sampled_from(["**", "*", "a", "?", "a*", "[ab]", "*b*", "{a,b}"]), min_size=1, max_size=4
    ),
    path=st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=4),
)
def test_matching_agrees_with_a_plain_recursion(pattern: list[str], path: list[str]) -> None:
    import fnmatch

    def plain(segments: list[str], names: list[str]) -> bool:
        if not segments:
            return not names
        if segments[0] == "**":
            return plain(segments[1:], names) or (bool(names) and plain(segments, names[1:]))
        choices = ["a", "b"] if segments[0] == "{a,b}" else [segments[0]]
        return (
            bool(names)
            and any(fnmatch.fnmatchcase(names[0], c) for c in choices)
            and plain(segments[1:], names[1:])
        )

    assert match.Glob("/".join(pattern)).matches("/".join(path)) is plain(pattern, path)


def _tools(box: Box, tool: str | None) -> str:
    """Make a PATH with only one search program on it."""
    directory = box.outside.parent / f"bin-{tool or 'rg'}"
    if not directory.exists():
        directory.mkdir()
        found = shutil.which(tool or "rg")
        assert found, "ripgrep and grep are needed by these tests"
        os.symlink(found, directory / (tool or "rg"))
    return str(directory)


@pytest.fixture(params=["rg", "grep"])
def tool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestGrep:
    def grep(self, box: Box, tool: str, pattern: str, path: str = ".", **arguments: Any) -> dict[str, Any]:
        answer = box.ask("grep", path, pattern=pattern, tool_path=_tools(box, tool), **arguments)
        if answer["ok"]:
            assert answer["engine"] == {"rg": "ripgrep", "grep": "grep"}[tool]
        return answer

    @pytest.fixture
    def project(self, box: Box) -> Box:
        box.put("a.py", "import os\ndef main():\n    return 42\n")
        box.put("src/b.py", "def Main():\r\n    pass\r\n")
        box.put("src/c.txt", "main thing\n")
        box.put(".git/d", "main\n")
        box.put("node_modules/e.js", "main\n")
        box.put(".gitignore", "*.txt\n")
        box.put("binary", b"\0\0main\n")
        box.put("latin", "main caf\xe9\n".encode("latin-1"))
        box.put("empty")
        os.mkfifo(box.root / "fifo")
        os.symlink("/dev/zero", box.root / "zero")
        return box

    def test_content(self, project: Box, tool: str) -> None:
        answer = self.grep(project, tool, "main")
        assert answer["rows"] == [
            ["a.py", 2, True, "def main():"],
            ["latin", 1, True, "main caf\\xe9"],
            ["src/c.txt", 1, True, "main thing"],
        ]
        assert sorted(answer["skipped"]) == [".git", "node_modules"]
        assert (answer["more"], answer["timed_out"]) == (False, False)

    def test_files_and_counts(self, project: Box, tool: str) -> None:
        rows = self.grep(project, tool, "main", mode="files_with_matches", ignore_case=True)["rows"]
        assert rows == [["a.py"], ["latin"], ["src/b.py"], ["src/c.txt"]]
        assert self.grep(project, tool, "i", mode="count")["rows"] == [
            ["a.py", 2],
            ["latin", 1],
            ["src/b.py", 1],
            ["src/c.txt", 1],
        ]

    def test_context(self, project: Box, tool: str) -> None:
        assert self.grep(project, tool, "def main", before=1, after=1)["rows"] == [
            ["a.py", 1, False, "import os"],
            ["a.py", 2, True, "def main():"],
            ["a.py", 3, False, "    return 42"],
        ]
        location_rows = self.grep(project, tool, "main|pass", after=0, before=1)["rows"]
        assert [row[:3] for row in location_rows][:2] == [["a.py", 1, False], ["a.py", 2, True]]

    @pytest.mark.parametrize(
        ("glob", "expected"),
        [
            ("*.py", ["a.py"]),
            ("*.{py,txt}", ["a.py", "src/c.txt"]),
            ("src/*", ["src/c.txt"]),
            ("src/", ["src/c.txt"]),
            ("src/**", ["src/c.txt"]),
            ("/*.py", ["a.py"]),
            ("./*.txt", []),
            ("!*.py", ["latin", "src/c.txt"]),
            ("[ab].py", ["a.py"]),
            ("node_modules/**", ["node_modules/e.js"]),
            ("*.none", []),
        ],
    )
    def test_globs(self, project: Box, tool: str, glob: str, expected: list[str]) -> None:
        answer = self.grep(project, tool, "main", mode="files_with_matches", glob=glob)
        assert [row[0] for row in answer["rows"]] == expected

    def test_paths(self, project: Box, tool: str) -> None:
        assert self.grep(project, tool, "main", "src")["rows"] == [["src/c.txt", 1, True, "main thing"]]
        assert self.grep(project, tool, "main", "src/c.txt")["rows"] == [["src/c.txt", 1, True, "main thing"]]
        assert self.grep(project, tool, "main", "node_modules")["rows"] == [
            ["node_modules/e.js", 1, True, "main"]
        ]
        assert self.grep(project, tool, "main", "fifo")["error"] == "not_regular"
        assert self.grep(project, tool, "main", "none")["error"] == "missing"
        assert self.grep(project, tool, "main", "zero")["error"] == "outside"

    @pytest.mark.parametrize(
        ("pattern", "text"),
        [
            ("-e", "a -e b"),
            ("--help", "x --help"),
            (r"\bword\b", "a word here"),
            (r"\d{3}", "abc 123"),
            (r"a.c", "abc"),
            (r"(a|b)+x", "abax"),
            ("ü.*字", "ünd 漢字"),
            ("$(touch pwned)|`x`", "`x`"),
            ("^start", "start"),
            (r"\$\{x\}", "${x}"),
        ],
    )
    def test_patterns(self, box: Box, tool: str, pattern: str, text: str) -> None:
        box.put("f", f"nothing\n{text}\n")
        assert self.grep(box, tool, pattern)["rows"] == [["f", 2, True, text]]

    @pytest.mark.parametrize("pattern", ["(", "[z-a]", "*\\", "a{2,1}", "", "a\nb"])
    def test_bad_patterns(self, box: Box, tool: str, pattern: str) -> None:
        box.put("f", "x\n")
        answer = self.grep(box, tool, pattern)
        assert answer["error"] == "bad_pattern"
        assert answer["text"]
        assert str(box.root) not in answer["text"]

    def test_no_match(self, box: Box, tool: str) -> None:
        assert self.grep(box, tool, "x")["rows"] == []
        box.put("f", "a\n")
        assert self.grep(box, tool, "x", mode="count")["rows"] == []

    def test_is_bounded(self, box: Box, tool: str) -> None:
        box.put("f", "hit\n" * 100_000)
        answer = self.grep(box, tool, "hit", limit=10)
        assert (len(answer["rows"]), answer["more"]) == (10, True)
        answer = self.grep(box, tool, "hit", limit=100_000, limit_bytes=1000)
        assert (len(answer["rows"]), answer["more"]) == (45, True)

    def test_long_lines_are_cut(self, box: Box, tool: str) -> None:
        box.put("f", "hit " + "x" * 5000 + "\n")
        text = self.grep(box, tool, "hit")["rows"][0][3]
        assert len(text) < 600
        assert text.endswith("... [line cut]")

    def test_enormous_lines_are_survived(self, box: Box, tool: str) -> None:
        box.put("a", "hit " + "x" * (5 << 20) + "\n")
        box.put("b", "hit\n")
        answer = self.grep(box, tool, "hit")
        assert answer["rows"][-1] == ["b", 1, True, "hit"]
        assert len(answer["rows"]) == 2 or answer["more"]

    def test_stops_in_time(self, box: Box, tool: str) -> None:
        """A program that never ends, as on a mount that hangs."""
        fake = box.outside / "fake"
        fake.mkdir()
        (fake / tool).write_text("#!/bin/sh\nprintf './f\\0001:first\\n'; exec sleep 60\n")
        (fake / tool).chmod(0o755)
        began = time.monotonic()
        answer = box.ask("grep", pattern="x", tool_path=str(fake), timeout_s=0.5, mode="files_with_matches")
        assert time.monotonic() - began < 20
        assert (answer["timed_out"], answer["more"]) == (True, True)

    def test_a_pathological_pattern_ends(self, box: Box, tool: str) -> None:
        box.put("f", "a" * 30_000 + "\n")
        began = time.monotonic()
        self.grep(box, tool, r"(a+)+(b+)+$|(a|aa)+c", timeout_s=2)
        assert time.monotonic() - began < 20

    def test_without_perl_patterns(self, box: Box) -> None:
        """A grep built without PCRE takes the extended pattern instead."""
        fake = box.outside / "fake"
        fake.mkdir()
        grep = shutil.which("grep")
        (fake / "grep").write_text(
            '#!/bin/sh\n[ "$1" = -P ] && { echo "grep: no support for Perl matching" >&2; exit 2; }\n'
            f'exec {grep} "$@"\n'
        )
        (fake / "grep").chmod(0o755)
        box.put("f", "a1b\n[2]\n")
        answer = box.ask("grep", pattern=r"a\db|[\d]]", tool_path=str(fake))
        assert [row[1] for row in answer["rows"]] == [1, 2]

    def test_without_any_tool(self, box: Box) -> None:
        fake = box.outside / "fake"
        fake.mkdir()
        assert box.ask("grep", pattern="x", tool_path=f"relative:{fake}:.")["error"] == "no_tool"
        (fake / "grep").write_text('#!/bin/sh\necho "grep: unrecognized option: Z" >&2; exit 2\n')
        (fake / "grep").chmod(0o755)
        assert box.ask("grep", pattern="x", tool_path=str(fake))["error"] == "no_tool"


@pytest.mark.parametrize("op", ["read", "write", "edit", "delete", "list", "glob", "grep"])
@pytest.mark.one_in(4)
def test_a_bare_interpreter_is_enough(box: Box, op: str) -> None:
    """No site, no installed package: the sources alone, as they are sent."""
    box.put("a", "x\n")
    request = {"root": str(box.root), "op": op, "path": "." if op in ("list", "glob", "grep") else "a"}
    request |= DEFAULTS.get(op, {}) | {
        "content": b"y",
        "overwrite": True,
        "old": "x",
        "new": "y",
        "pattern": "a|x|*",
    }
    if op == "grep":
        request["pattern"] = "x"
    entry = ENTRIES.get(op, files).__name__.rpartition(".")[2]
    package = Path(files.__file__).parent
    program = (
        "import sys, importlib.machinery as m, importlib.util as u\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in ('langchain_daytona_ws', 'langchain_daytona_ws._guest'):\n"
        "            return m.ModuleSpec(name, None, is_package=True)\n"
        "        if name.startswith('langchain_daytona_ws._guest.'):\n"
        f"            return u.spec_from_file_location(name, {str(package)!r} + '/' + name.split('.')[-1] + '.py')\n"
        "sys.meta_path.insert(0, Finder()); sys.dont_write_bytecode = True\n"
        f"from langchain_daytona_ws._guest import {entry}\n"
        "import json\n"
        f"print(json.dumps({entry}.main({request!r})))\n"
    )
    for python in _interpreters():
        box.put("a", "x\n")
        done = subprocess.run(
            [python, "-I", "-S", "-W", "error", "-c", program], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout)["ok"], (python, done.stdout)


def _interpreters() -> list[str]:
    """This interpreter, and older installed versions."""
    others = (shutil.which(f"python3.{minor}") for minor in (8, 9, 10, 12, 13))
    # A version manager's stand-in is found too, but does not run.
    runs = (path for path in others if path and subprocess.run([path, "-c", ""], check=False).returncode == 0)
    return [sys.executable, *runs]


@settings(max_examples=50)
@given(data=st.binary(max_size=200), more=st.binary(max_size=200))
def test_bytes_come_back(box: Box, data: bytes, more: bytes) -> None:
    box.ask("write", "f", content=data, overwrite=True)
    assert (box.root / "f").read_bytes() == data
    box.ask("write", "f", content=more, expected_sha256=hashlib.sha256(data).hexdigest())
    assert (box.root / "f").read_bytes() == more


def _staged(directory: Path, data: bytes) -> dict[str, Any]:
    """Write an upload, and return the fields of its request."""
    staged = directory / "staged"
    staged.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return {"content_from": str(staged), "content_sha256": sha256, "content_bytes": len(data)}
