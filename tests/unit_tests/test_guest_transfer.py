"""The guest's part of transfers, on real directories."""

from __future__ import annotations

import binascii
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._guest import dirs, files, transfer, walk
from tests.unit_tests.test_guest_files import Box
from tests.unit_tests.test_search_engines import as_nobody


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setattr(dirs, "STATE_PARENT", str(tmp_path))
    before = set(os.listdir("/proc/self/fd"))
    yield Box(tmp_path)
    assert not set(os.listdir("/proc/self/fd")) - before, "no descriptor may leak"


def ask(box: Box, op: str, path: str = ".", **fields: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "survey": {"inline_bytes": 100, "inline_rows": 100, "within_s": 60},
        "pack": {"inline_bytes": 100, "max_bytes": 10_000, "within_s": 60},
    }.get(op, {})
    request = {"root": str(box.root), "op": op, "path": path, **defaults, **fields}
    answer: dict[str, Any] = json.loads(json.dumps(transfer.main(request)))
    return answer


def packs() -> list[str]:
    return [name for name in os.listdir(dirs.state_directory()) if name.endswith(transfer.ENDING)]


def test_a_survey(box: Box) -> None:
    box.put("d/a", "12").chmod(0o755)
    box.put("d/e/b", "345")
    (box.root / "d" / "none" / "below").mkdir(parents=True)
    (box.root / "d" / "in").symlink_to("e/b")
    (box.root / "d" / "out").symlink_to(box.secret)
    (box.root / "d" / "dir").symlink_to("e")
    os.mkfifo(box.root / "d" / "fifo")
    found = ask(box, "survey", "d")
    assert (found["kind"], found["path"]) == ("dir", "d")
    assert found["found"] == {
        "files": [["a", 2, True], ["e/b", 3, False], ["in", 3, False]],
        "empty": ["none/below"],
        "skipped": [["dir", "link"], ["fifo", "special"], ["out", "link"]],
        "cut": False,
    }
    large = ask(box, "survey", "d", inline_rows=3)
    with open(f"{large['at']}/{large['found_from']}", "rb") as file:
        assert json.load(file) == found["found"]
    ask(box, "drop", names=[large["found_from"]])
    assert packs() == []
    file_found = ask(box, "survey", "d/in")
    assert binascii.a2b_base64(file_found.pop("content")) == b"345"
    assert file_found == {"ok": True, "kind": "file", "path": "d/e/b", "bytes": 3, "executable": False}
    assert "content" not in ask(box, "survey", "d/a", inline_bytes=1)
    for path, error in (
        ("none", "missing"),
        ("d/out", "outside"),
        ("d/fifo", "not_regular"),
        ("../x", "outside"),
    ):
        assert ask(box, "survey", path)["error"] == error


def test_a_directory_whose_entries_cannot_be_read() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        box = Box(Path(directory))
        box.put("d/a", "12")
        (box.root / "d").chmod(0o444)
        request = {"op": "survey", "inline_bytes": 100, "inline_rows": 100, "within_s": 60}
        found = as_nobody("transfer", request, box.root)["found"]
        (box.root / "d").chmod(0o755)
    assert (found["files"], found["skipped"]) == ([], [["d/a", "unreadable"]])


def test_a_file_that_grows_during_the_survey(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_and_append(location: walk.Location, flags: int) -> int:
        with open(box.root / "a", "a") as file:
            file.write("x" * 100)
        return opened(location, flags)

    box.put("a", "12")
    opened = walk.Location.open
    monkeypatch.setattr(walk.Location, "open", open_and_append)
    grown = ask(box, "survey", "a", inline_bytes=102)
    assert (grown["bytes"], len(binascii.a2b_base64(grown["content"]))) == (102, 102)
    grown = ask(box, "survey", "a", inline_bytes=201)
    assert (grown["kind"], "content" in grown) == ("file", False)


def test_a_pack(box: Box) -> None:
    box.put("d/a", "12").chmod(0o755)
    box.put("d/large", "x" * 200)
    box.put("d/last", "end")
    (box.root / "d" / "out").symlink_to(box.secret)
    (box.root / "d" / "in").symlink_to("a")
    found = ask(box, "pack", "d", names=["a", "out", "none", "in"])
    assert found["files"] == [[2, True], ["outside"], ["missing"], [2, True]]
    assert binascii.a2b_base64(found["content"]) == b"1212"
    assert packs() == []
    found = ask(box, "pack", "d", names=["a", "large", "last"])
    assert found["bytes"] == 205
    path = f"{found['at']}/{found['content_from']}"
    assert Path(path).read_bytes() == b"12" + b"x" * 200 + b"end"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert ask(box, "pack", "d", names=["large", "last"], max_bytes=10)["files"] == [["later"], [3, False]]
    late = ask(box, "pack", "d", names=["a", "last"], within_s=-1, drop=[found["content_from"]])
    assert late["files"] == [[2, True], ["later"]]
    assert packs() == []
    assert ask(box, "pack", "d", names=["../../outside/secret", "/etc/passwd", "a\0b"])["files"] == [
        ["outside"], ["missing"], ["bad_path"]
    ]  # fmt: skip


def test_a_file_that_becomes_a_directory_is_one_refused_row(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace_and_open(location: walk.Location, flags: int) -> int:
        if location.name == "a":
            (box.root / "a").unlink()
            (box.root / "a").mkdir()
        return opened(location, flags)

    box.put("a", "12")
    box.put("b", "3")
    opened = walk.Location.open
    monkeypatch.setattr(walk.Location, "open", replace_and_open)
    found = ask(box, "pack", names=["a", "b"])
    assert found["files"] == [["is_directory"], [1, False]]
    assert binascii.a2b_base64(found["content"]) == b"3"


def test_a_full_disk_is_not_a_file_that_is_gone(box: Box) -> None:
    box.put("a", "12")
    box.put("b", "x" * 5000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        answer = ask(box, "pack", names=["a", "b"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (answer["ok"], answer.get("errno")) == (False, "EFBIG")
    assert packs() == []


def test_only_packs_are_dropped(box: Box) -> None:
    other = Path(dirs.state_directory()) / "x.call"
    other.write_text("kept")
    assert ask(box, "drop", names=["x.call", "../outside/secret", "none.pack.log", "../x.pack.log"])["ok"]
    assert other.exists()
    assert box.secret.exists()


def test_directories_are_made_inside(box: Box) -> None:
    assert ask(box, "make", "a/b/c") == {"ok": True, "path": "a/b/c"}
    assert (box.root / "a" / "b" / "c").is_dir()
    (box.root / "out").symlink_to(box.outside)
    assert ask(box, "make", "out/x")["error"] == "outside"
    box.put("file")
    assert ask(box, "make", "file/x")["error"] == "not_a_directory"
    assert os.listdir(box.outside) == ["secret"]


def test_an_executable_file(box: Box) -> None:
    def write(name: str, content: bytes, *, executable: bool) -> int:
        request = {"root": str(box.root), "op": "write", "path": name, "overwrite": True, "content": content}
        assert files.main({**request, "executable": executable})["ok"]
        return (box.root / name).stat().st_mode & 0o777

    before = os.umask(0o027)
    try:
        assert write("a", b"x", executable=False) == 0o640
        assert write("b", b"x", executable=True) == 0o750
        assert write("a", b"x", executable=True) == 0o750, "also if the content is the same"
        assert write("a", b"y", executable=False) == 0o750
    finally:
        os.umask(before)
