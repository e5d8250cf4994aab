"""File operations through the sync SDK."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daytona import Daytona, FileDownloadRequest, FileUpload, Sandbox
from daytona.common.errors import (
    DaytonaConflictError,
    DaytonaError,
    DaytonaFileNotFoundError,
    DaytonaNotFoundError,
    DaytonaValidationError,
)

from langchain_daytona_ws.local import LocalDaytona


@pytest.fixture
def newer(connect: Callable[[LocalDaytona], Daytona]) -> Iterator[Sandbox]:
    with LocalDaytona(daemon="0.226") as server:
        yield connect(server).create()


def test_bytes_go_up_and_down_unchanged(sandbox: Sandbox) -> None:
    content = os.urandom(3_000_000) + b"\r\n--boundary\r\n\0"
    sandbox.fs.upload_file(content, "/tmp/new/deep/file.bin")
    assert sandbox.fs.download_file("/tmp/new/deep/file.bin") == content
    sandbox.fs.upload_file(b"", "/tmp/empty")
    assert sandbox.fs.get_file_info("/tmp/empty").size == 0


def test_many_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_bytes(b"from disk")
    sandbox.fs.upload_files([FileUpload(b"one", "a.txt"), FileUpload(str(source), "b/b.txt")])
    target = tmp_path / "target.txt"
    item, _, missing = sandbox.fs.download_files(
        [
            FileDownloadRequest(source="a.txt"),
            FileDownloadRequest(source="b/b.txt", destination=str(target)),
            FileDownloadRequest(source="none.txt"),
        ]
    )
    assert (item.result, item.error) == (b"one", None)
    assert target.read_bytes() == b"from disk"
    assert missing.result is None
    assert missing.error_details.code == "FILE_NOT_FOUND"


def test_streams_up_and_down(sandbox: Sandbox) -> None:
    content = os.urandom(2_000_000)
    sandbox.fs.upload_file_stream(content, "streamed")
    assert b"".join(sandbox.fs.download_file_stream("streamed")) == content


def test_hostile_names(sandbox: Sandbox) -> None:
    names = [
        "with space",
        'quo"te',
        "back\\slash",
        "ünï©ode",
        "-dash",
        "$(touch x)",
        "a'b",
        "semi;colon",
        "per%20cent",
    ]
    for name in names:
        sandbox.fs.upload_file(name.encode(), f"odd/{name}")
    for name in names:
        assert sandbox.fs.download_file(f"odd/{name}") == name.encode()
    assert {entry.name for entry in sandbox.fs.list_files("odd")} == set(names)


def test_an_upload_truncates_in_place(sandbox: Sandbox) -> None:
    sandbox.fs.upload_file(b"a longer text", "f")
    inode = sandbox.process.exec("stat -c %i f").result
    sandbox.fs.upload_file(b"short", "f")
    assert sandbox.process.exec("stat -c %i f").result == inode
    assert sandbox.fs.download_file("f") == b"short"


def test_an_upload_onto_a_folder_is_reported(sandbox: Sandbox) -> None:
    with pytest.raises(DaytonaError, match="is a directory"):
        sandbox.fs.upload_files([FileUpload(b"x", "/tmp"), FileUpload(b"y", "fine")])
    assert sandbox.fs.download_file("fine") == b"y"


def test_a_missing_file_has_its_own_error(sandbox: Sandbox) -> None:
    with pytest.raises(DaytonaNotFoundError) as caught:
        sandbox.fs.download_file("/nope")
    assert (caught.value.code, caught.value.source) == ("FILE_NOT_FOUND", None)
    for call in (sandbox.fs.get_file_info, sandbox.fs.list_files, sandbox.fs.delete_file):
        with pytest.raises(DaytonaNotFoundError) as caught:
            call("/nope")
        assert caught.value.code is None


def test_a_newer_daemons_errors_are_those_of_the_sdk(newer: Sandbox) -> None:
    calls = (newer.fs.download_file, newer.fs.get_file_info, newer.fs.list_files, newer.fs.delete_file)
    for call in calls:
        with pytest.raises(DaytonaFileNotFoundError) as caught:
            call("/nope")
        assert caught.value.source == "DAYTONA_DAEMON"
    newer.fs.upload_file(b"", "d/e/f")
    assert [entry.path for entry in newer.fs.list_files("d", depth=2)] == [
        "/home/daytona/d/e",
        "/home/daytona/d/e/f",
    ]


def test_info_and_listing(sandbox: Sandbox) -> None:
    sandbox.fs.create_folder("d", "750")
    sandbox.fs.upload_file(b"12345", "d/f")
    sandbox.process.exec("ln -s nowhere d/dangling; mkdir d/sub; touch d/sub/deep")
    info = sandbox.fs.get_file_info("d/f")
    assert (info.name, info.size, info.is_dir, info.mode, info.permissions) == (
        "f",
        5,
        False,
        "-rw-r--r--",
        "0644",
    )
    assert (info.owner, info.group) == ("0", "0")
    folder = sandbox.fs.get_file_info("d")
    assert (folder.is_dir, folder.mode) == (True, "drwxr-x---")
    assert [entry.name for entry in sandbox.fs.list_files("d")] == ["f", "sub"]
    assert "d" in {entry.name for entry in sandbox.fs.list_files(".")}


def test_delete_move_and_permissions(sandbox: Sandbox) -> None:
    sandbox.fs.upload_file(b"x", "d/f")
    with pytest.raises(DaytonaValidationError):
        sandbox.fs.delete_file("d")
    sandbox.fs.upload_file(b"y", "other")
    with pytest.raises(DaytonaConflictError):
        sandbox.fs.move_files("d/f", "other")
    sandbox.fs.create_folder("new", "755")
    sandbox.fs.move_files("d/f", "new/place")
    assert sandbox.fs.download_file("new/place") == b"x"
    sandbox.fs.set_file_permissions("new/place", mode="700", owner="root")
    assert sandbox.fs.get_file_info("new/place").permissions == "0700"
    sandbox.fs.delete_file("new/place")
    sandbox.fs.delete_file("d", recursive=True)
    with pytest.raises(DaytonaNotFoundError):
        sandbox.fs.get_file_info("d")


def test_deleting_a_link_spares_its_target(sandbox: Sandbox) -> None:
    sandbox.process.exec("mkdir t; touch t/kept; ln -s t l")
    sandbox.fs.delete_file("l", recursive=True)
    assert sandbox.fs.get_file_info("t/kept").name == "kept"


def test_find_search_and_replace(sandbox: Sandbox) -> None:
    sandbox.fs.upload_file(b"one\nneedle (.*) here\n", "s/a.py")
    sandbox.fs.upload_file(b"needle (.*)\0binary", "s/b.bin")
    sandbox.fs.upload_file(b"nothing\n", "s/deep/c.py")
    (match,) = sandbox.fs.find_files("s", "needle (.*)")
    assert (match.file, match.line, match.content) == ("s/a.py", 2, "needle (.*) here")
    assert sandbox.fs.search_files("s", "*.py").files == ["s/a.py", "s/deep/c.py"]
    done, failed = sandbox.fs.replace_in_files(["s/a.py", "s/none"], "needle (.*)", "pin")
    assert (done.success, failed.success) == (True, False)
    assert sandbox.fs.download_file("s/a.py") == b"one\npin here\n"


def test_symlinks_are_followed_within_the_sandbox_only(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    sandbox.process.exec(f"ln -s {secret} link; ln -s /etc/passwd inner")
    with pytest.raises(DaytonaNotFoundError):
        sandbox.fs.download_file("link")
    assert b"daytona" in sandbox.fs.download_file("inner")


def test_directories_and_version(server: LocalDaytona, sandbox: Sandbox) -> None:
    assert sandbox.get_work_dir() == "/home/daytona"
    assert sandbox.get_user_home_dir() == "/home/daytona"
    assert server.count("info") == 2


def test_the_daemons_environment_can_be_changed(newer: Sandbox) -> None:
    newer.update_env({"ADDED": "yes"}, unset=["LANG"])
    assert newer.process.exec("echo $ADDED-$LANG").result == "yes-\n"
