"""The host's files in transfers: they are read and written as documented, whatever the names are."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._core.files.received import TooLongError
from langchain_daytona_ws._core.transfers import local as local_files
from langchain_daytona_ws._core.transfers.local import LocalTarget, NameRefused, is_safe_name, scan
from langchain_daytona_ws._core.transfers.models import Progress, TransferProgress
from langchain_daytona_ws.errors import FileError

HOSTILE = [
    "", ".", "..", "a/../../x", "../x", "/etc/x", "a//b", "./a", "a/.", "a/..", "/", "a/", "nul\0", "\ud800", "a" * 256,
    "a" * 250 + "/" + "b" * 300,
]  # fmt: skip


def write(target: LocalTarget, name: str, data: bytes = b"x", *, executable: bool = False) -> None:
    sink = target.open(name, 1 << 20)
    try:
        sink.write(data)
        sink.commit(is_executable=executable)
    finally:
        sink.abort()


def below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused(name: str, tmp_path: Path) -> None:
    target = LocalTarget(str(tmp_path / "t"), is_directory=True, new_lock=threading.Lock)
    with pytest.raises(NameRefused) as caught:
        write(target, name)
    assert caught.value.reason == "name"
    with pytest.raises(NameRefused):
        target.make_directory(name)
    assert {part.partition("/")[0] for part in below(tmp_path)} == {"t"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "name", ["-rf", "~", "$(x)", "a\\b", "C:x", "\udcff", "new\nline", "\x1b[31m", "con", "...", " "]
)
def test_a_strange_name_is_a_name(name: str, tmp_path: Path) -> None:
    write(LocalTarget(str(tmp_path / "t"), is_directory=True, new_lock=threading.Lock), f"d/{name}")
    assert os.listdir(tmp_path / "t" / "d") == [name]


@pytest.mark.parametrize(
    "name", ["a\\b", "..\\x", "C:x", "C:\\x", "con", "nul.txt", "a.", "a ", "a:stream", "a\tb", "a?"]
)
def test_a_name_with_a_meaning_on_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_safe_name(name)
    monkeypatch.setattr(local_files, "_WINDOWS", True)
    assert not is_safe_name(name)
    assert is_safe_name("a b.txt")


def test_links_in_the_target_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("before")
    root = tmp_path / "t"
    root.mkdir()
    (root / "dir").symlink_to(outside)
    (root / "file").symlink_to(outside / "file")
    target = LocalTarget(str(root), is_directory=True, new_lock=threading.Lock)
    with pytest.raises(NameRefused):
        write(target, "dir/x")
    with pytest.raises(NameRefused):
        target.make_directory("dir/x")
    write(target, "file", b"new")  # replaces the link itself
    assert (outside / "file").read_text() == "before"
    assert os.listdir(outside) == ["file"]
    assert not (root / "file").is_symlink()
    (tmp_path / "named").symlink_to(root)
    write(LocalTarget(str(tmp_path / "named"), is_directory=True, new_lock=threading.Lock), "y")
    assert (root / "y").read_bytes() == b"x"
    (tmp_path / "link.txt").symlink_to(outside / "file")
    write(LocalTarget(str(tmp_path / "link.txt"), is_directory=False, new_lock=threading.Lock), "", b"named")
    assert (outside / "file").read_bytes() == b"named", "a link that the caller named is followed"


def test_a_file_in_the_way_of_a_directory(tmp_path: Path) -> None:
    target = LocalTarget(str(tmp_path), is_directory=True, new_lock=threading.Lock)
    write(target, "a")
    write(target, "d/x")
    for name in ("a/b", "d"):
        with pytest.raises(NameRefused):
            write(target, name)
    assert below(tmp_path) == {"a", "d", "d/x"}


def test_twins_of_a_file_system_that_knows_no_case(tmp_path: Path) -> None:
    target = LocalTarget(str(tmp_path), is_directory=True, new_lock=threading.Lock)
    write(target, "readme", b"first")
    os.link(tmp_path / "readme", tmp_path / "README")  # as if both names were one
    with pytest.raises(NameRefused) as caught:
        write(target, "README", b"second")
    assert caught.value.reason == "name_twin"
    with pytest.raises(NameRefused):
        write(target, "readme", b"twice in the listing")
    assert (tmp_path / "readme").read_bytes() == b"first"
    again = LocalTarget(str(tmp_path), is_directory=True, new_lock=threading.Lock)
    write(again, "readme", b"another download")
    assert below(tmp_path) == {"readme", "README"}


def test_a_file_is_complete_or_as_before(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    target = LocalTarget(str(tmp_path), is_directory=True, new_lock=threading.Lock)
    sink = target.open("a", 10)
    sink.write(b"12345")
    assert (tmp_path / "a").read_text() == "before"
    with pytest.raises(TooLongError):
        sink.write(b"1234567")
    sink.restart()
    sink.write(b"again")
    sink.abort()
    sink.abort()
    assert (tmp_path / "a").read_text() == "before"
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(FileError):
        sink.write(b"a thread that was late")
    with pytest.raises(FileError):
        sink.commit(is_executable=False)
    assert os.listdir(tmp_path) == ["a"]


def test_modes(tmp_path: Path) -> None:
    target = LocalTarget(str(tmp_path), is_directory=True, new_lock=threading.Lock)
    before = os.umask(0o027)
    try:
        write(target, "plain")
        write(target, "run", executable=True)
    finally:
        os.umask(before)
    (tmp_path / "old").write_text("x")
    (tmp_path / "old").chmod(0o4604)
    write(target, "old", executable=True)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "run", "old")}
    assert modes == {"plain": 0o640, "run": 0o750, "old": 0o705}


def test_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "a").write_text("abc")
    tree = scan(str(tmp_path / "d"))
    assert [name for name, _ in tree.files] == ["a"]
    assert tree.empty_directories == ("e",)
    source = tree.files[0][1]
    with source.open() as file:
        assert file.read(2) + file.read(2) == b"abc"
    with source.open() as file:
        os.truncate(tmp_path / "d" / "a", 1)
        assert file.read(1) == b"a"
        with pytest.raises(FileError, match="changed"):
            file.read(1)
    with pytest.raises(FileError, match="changed"):
        source.open()
    (tmp_path / "d" / "a").write_text("abcd")  # it grows, as a log does
    with source.open() as file:
        assert [file.read(5), file.read(5)] == [b"abc", b""]
    (tmp_path / "d" / "b").write_text("other")
    (tmp_path / "d" / "b").rename(tmp_path / "d" / "a")
    with pytest.raises(FileError, match="changed"):
        source.open()
    (tmp_path / "d" / "a").unlink()
    (tmp_path / "d" / "a").symlink_to("/etc/passwd")
    with pytest.raises(FileError):
        source.open()  # it became a link after the scan
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileError, match="neither"):
        scan(str(tmp_path / "fifo"))
    monkeypatch.setattr(local_files, "MAX_FILES", 3)
    for name in "bcde":
        (tmp_path / "d" / name).write_text("x") if name != "e" else None
    (tmp_path / "d" / "f").write_text("x")
    (tmp_path / "d" / "g").write_text("x")
    with pytest.raises(FileError) as caught:
        scan(str(tmp_path / "d"))
    assert caught.value.code == "too_many_files"


def test_a_directory_that_vanishes_during_the_scan_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_and_scan(path: str) -> Any:
        if path.endswith("/a"):
            (tmp_path / "d" / "a").rmdir()
        return scandir(path)

    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "b").write_text("1")
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", remove_and_scan)
    tree = scan(str(tmp_path / "d"))
    assert [name for name, _ in tree.files] == ["b"]
    assert [(entry.path, entry.reason) for entry in tree.skipped] == [("a", "gone")]


def test_a_path_that_the_system_cannot_open_is_a_file_error(tmp_path: Path) -> None:
    names = ["x" * 200] * 25
    at = os.open(tmp_path, os.O_RDONLY)
    for name in names:  # step by step, because the whole path is too long
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    with pytest.raises(FileError, match="too long"):
        scan(str(tmp_path))


def test_progress_names_the_file_that_is_transferred() -> None:
    reports: list[TransferProgress] = []
    progress = Progress(reports.append, 30, threading.Lock())
    meter = progress.meter([("a", 10), ("empty", 0), ("b", 20)])
    meter.add(4)
    meter.add(6)
    meter.add(5)
    meter.restart()
    meter.add(10)
    meter.add(20)
    assert [(report.name, report.done_bytes) for report in reports] == [
        ("a", 4), ("a", 10), ("b", 15), ("b", 0), ("a", 10), ("b", 30)
    ]  # fmt: skip
