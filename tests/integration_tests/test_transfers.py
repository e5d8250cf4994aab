"""Uploads and downloads between this host and each kind of workspace."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws import (
    FileError,
    FileMissing,
    PathRefused,
    SkippedEntry,
    TransferProgress,
    Transferred,
    WriteConflict,
)
from langchain_daytona_ws._adapters import s3_transfers, transfers
from langchain_daytona_ws._core.transfers import guest as through_guest
from langchain_daytona_ws.local import Fault, LocalDaytona, S3Fault
from tests.integration_tests.conftest import Driven
from tests.integration_tests.s3 import Bucket, bucket

__all__ = ["bucket"]  # fixtures

OpenSession = Callable[..., Driven]
KINDS = ("disk", "mount", "mount-objects", "sync", "sync-objects")


class Side:
    """A session over one kind of workspace, and a directory of this host."""

    def __init__(self, kind: str, driven: Driven, host: Path) -> None:
        self.kind = kind
        self.driven = driven
        self.host = host
        self.is_direct = kind.endswith("objects")

    def put(self, name: str, content: bytes | str, mode: int = 0o644) -> Path:
        path = self.host / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def upload(self, local: Path | str, *arguments: Any, **named: Any) -> Transferred:
        found: Transferred = self.driven.files("upload", local, *arguments, **named)
        return found

    def download(self, path: str, local: Path | str, **named: Any) -> Transferred:
        found: Transferred = self.driven.files("download", path, local, **named)
        return found


@pytest.fixture(params=KINDS)
def side(request: pytest.FixtureRequest, open_session: OpenSession, tmp_path: Path) -> Iterator[Side]:
    kind: str = request.param
    if kind == "disk":
        driven = open_session(request.getfixturevalue("server"))
    else:
        options = {
            "s3Mode": kind.partition("-")[0],
            "fileAccess": "s3" if kind.endswith("objects") else "sandbox",
        }
        driven = request.getfixturevalue("bucket").session(open_session, options=options)
    made = Side(kind, driven, tmp_path)
    yield made
    if made.is_direct:
        assert driven.session.sandbox_id is None
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if "langchain" in name]


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_a_file_there_and_back(side: Side) -> None:
    content = os.urandom(700_000)
    local = side.put("a.bin", content)
    sha256 = hashlib.sha256(content).hexdigest()
    sent = side.upload(local, "data/b.bin")
    assert [(file.path, file.size_bytes, file.sha256) for file in sent.files] == [
        ("data/b.bin", 700_000, sha256)
    ]
    assert side.driven.files("download", "data/b.bin") == content
    back = side.download("data/b.bin", side.host / "new" / "c.bin")
    assert back == sent
    assert (side.host / "new" / "c.bin").read_bytes() == content
    side.upload(local, "data/")
    side.put("a.bin", "short")
    side.upload(local, "data/b.bin")
    assert side.driven.files("download", "data/b.bin") == b"short"
    side.download("data/a.bin", f"{side.host}/into/")
    assert (side.host / "into" / "a.bin").read_bytes() == content
    side.download("data/b.bin", side.host / "new" / "c.bin")
    assert (side.host / "new" / "c.bin").read_bytes() == b"short"


def test_a_directory_there_and_back(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(through_guest, "INLINE_ROWS", 20)
    monkeypatch.setattr(through_guest, "INLINE_BYTES", 4096)
    monkeypatch.setattr(through_guest, "GROUP_FILES", 25)
    monkeypatch.setattr(through_guest, "PACK_FILES", 25)
    for number in range(60):
        side.put(f"project/src/{number:02}/file {number}.txt", f"{number}\n" * 100)
    side.put("project/run.sh", "echo hi\n", 0o755)
    side.put("project/large.bin", os.urandom(400_000))
    side.put("project/empty.txt", "")
    (side.host / "project" / "none" / "below").mkdir(parents=True)
    reports: list[TransferProgress] = []
    sent = side.upload(side.host / "project", "copy", on_progress=reports.append)
    expected = tree(side.host / "project")
    assert {file.path: file.sha256 for file in sent.files} == {
        f"copy/{name}": hashlib.sha256(data).hexdigest() for name, data in expected.items()
    }
    total = sum(map(len, expected.values()))
    assert (reports[-1].done_bytes, reports[-1].total_bytes) == (total, total)
    assert {report.name for report in reports} <= {file.path for file in sent.files}
    reports.clear()
    back = side.download("copy", side.host / "back", on_progress=reports.append)
    assert back.skipped == ()
    assert tree(side.host / "back") == expected
    assert sorted(back.files, key=lambda file: file.path) == sorted(sent.files, key=lambda file: file.path)
    assert (reports[-1].done_bytes, reports[-1].total_bytes) == (total, total)
    assert (side.host / "back" / "run.sh").stat().st_mode & 0o100 or side.kind.startswith("mount")
    assert not (side.host / "back" / "empty.txt").stat().st_mode & 0o100
    assert (
        side.host / "back" / "none" / "below"
    ).is_dir() or side.kind == "mount"  # a mount keeps it for itself
    # A second upload replaces what changed, and keeps other files.
    side.put("project/empty.txt", "not any more")
    side.driven.files("write", "copy/other.txt", "kept")
    side.upload(side.host / "project" / "empty.txt", "copy/")
    side.upload(side.host / "project", "copy")
    side.put("back/own.txt", "kept too")
    side.download("copy", side.host / "back")
    assert tree(side.host / "back") == {
        **tree(side.host / "project"), "other.txt": b"kept", "own.txt": b"kept too"
    }  # fmt: skip


def test_links_and_special_files_of_the_host(side: Side) -> None:
    secret = side.put("secret", "of the host")
    side.put("d/a.txt", "a")
    side.put("d/sub/b.txt", "b")
    links = {
        "in": "a.txt",
        "up": "../secret",
        "out": str(secret),
        "dir": "sub",
        "loop": "loop",
        "gone": "none",
    }
    for name, target in links.items():
        (side.host / "d" / name).symlink_to(target)
    os.mkfifo(side.host / "d" / "fifo")
    sent = side.upload(side.host / "d", "d")
    assert {file.path for file in sent.files} == {"d/a.txt", "d/in", "d/sub/b.txt"}
    assert sent.skipped == tuple(
        SkippedEntry(name, "special" if name == "fifo" else "link")
        for name in sorted(("up", "out", "dir", "loop", "gone", "fifo"))
    )
    assert side.driven.files("download", "d/in") == b"a"
    (side.host / "named").symlink_to("d")
    assert len(side.upload(side.host / "named", "e").files) == 3, "a link that is named is followed"


def test_links_and_special_files_of_the_workspace(
    open_session: OpenSession, server: LocalDaytona, tmp_path: Path
) -> None:
    side = Side("disk", open_session(server), tmp_path)
    side.driven.run(
        "mkdir -p d/sub && echo a > d/a.txt && cd d && ln -s a.txt in && ln -s ../top.txt top && echo t > ../top.txt "
        "&& ln -s /etc/passwd out && ln -s ../../../etc/passwd up && ln -s sub dir && ln -s loop loop "
        "&& mkfifo fifo && ln a.txt hard && printf x > $'\\xff.txt' && printf y > 'a\\b' && printf z > $'new\\nline'"
    )  # fmt: skip
    back = side.download("d", tmp_path / "back")
    assert [entry.path for entry in back.skipped if entry.reason == "link"] == ["dir", "loop", "out", "up"]
    assert [entry.path for entry in back.skipped if entry.reason == "special"] == ["fifo"]
    assert not [path for path in (tmp_path / "back").rglob("*") if path.is_symlink()]
    found = tree(tmp_path / "back")
    assert found.pop("top") == b"t\n"
    assert sorted(os.fsencode(name) for name in found) == [
        b"a.txt", b"a\\b", b"hard", b"in", b"new\nline", b"\xff.txt"
    ]  # fmt: skip
    other = side.upload(tmp_path / "back", "again")
    assert len(other.files) == 7
    assert side.driven.run("cat again/$'\\xff.txt' again/'a\\b'").output == "xy"


def test_links_of_a_synchronised_workspace(bucket: Bucket, open_session: OpenSession, tmp_path: Path) -> None:
    options = {"s3Mode": "sync", "syncIgnore": ["node_modules/"]}
    side = Side("sync-objects", bucket.session(open_session, options=options), tmp_path)
    for name, data, permissions in (
        ("d/a.txt", b"a", "0100644"),
        ("d/run", b"r", "0100755"),
        ("d/in", b"a.txt", "0120777"),
        ("d/out", b"/etc/passwd", "0120777"),
        ("d/dir", b".", "0120777"),
    ):
        bucket.client.put_object(
            Bucket=bucket.name, Key=bucket.key(name), Body=data, Metadata={"file-permissions": permissions}
        )
    back = side.download("d", tmp_path / "back")
    assert tree(tmp_path / "back") == {"a.txt": b"a", "in": b"a", "run": b"r"}
    assert back.skipped == (SkippedEntry("dir", "link"), SkippedEntry("out", "link"))
    side.put("p/node_modules/x.js", "x")
    side.put("p/index.js", "i")
    sent = side.upload(tmp_path / "p", "p")
    assert [file.path for file in sent.files] == ["p/index.js"]
    assert sent.skipped == (SkippedEntry("node_modules/x.js", "ignored"),)


def test_what_is_refused(side: Side) -> None:
    side.put("a.txt", "a")
    side.put("d/b.txt", "b")
    side.upload(side.host / "a.txt")
    side.upload(side.host / "d")
    for local, path, code in (
        (side.host / "none", "x", "local_missing"),
        (side.host / "a.txt" / "x", "x", "local_not_directory"),
        (side.host / "a.txt", "d", "is_directory"),
        (side.host / "a.txt", "a.txt/x", "not_a_directory"),
    ):
        with pytest.raises(FileError) as caught:
            side.upload(local, path)
        assert caught.value.code == code
    for path in ("../x", "/etc/x", "~/x", "a\0b"):
        with pytest.raises(PathRefused):
            side.upload(side.host / "a.txt", path)
    with pytest.raises(FileMissing):
        side.download("none", side.host / "x")
    assert not (side.host / "x").exists()
    with pytest.raises(FileError) as caught:
        side.download("a.txt", side.host / "d")
    assert caught.value.code == "local_is_directory"
    with pytest.raises(FileError) as caught:
        side.download("d", side.host / "a.txt")
    assert caught.value.code == "local_not_directory"
    with pytest.raises(FileError) as caught:
        side.download("d", side.host / "y", max_bytes=0)
    assert caught.value.code == "too_large"
    assert not (side.host / "y").exists()
    with pytest.raises(ValueError, match="NUL"):
        side.download("a.txt", "x\0y")


def test_a_failing_callback_ends_the_reports_only(side: Side, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def fail(progress: TransferProgress) -> None:
        calls.append(progress)
        raise RuntimeError("of the callback")

    side.put("d/a", "a")
    side.put("d/b", "b")
    assert len(side.upload(side.host / "d", "d", on_progress=fail).files) == 2
    assert len(calls) == 1
    assert "of the callback" in caplog.text


def test_an_upload_is_repeated_after_a_lost_connection(
    open_session: OpenSession, server: LocalDaytona, tmp_path: Path
) -> None:
    side = Side("disk", open_session(server), tmp_path)
    content = os.urandom(3 << 20)
    local = side.put("a", content)
    reports: list[TransferProgress] = []
    side.driven.run("true")
    server.faults.add(Fault("drop_after", action="upload"))
    side.upload(local, "a", on_progress=reports.append)
    assert reports[-1].done_bytes == len(content)
    server.faults.add(Fault("truncate", action="download"))
    side.download("a", tmp_path / "b", on_progress=reports.append)
    assert (tmp_path / "b").read_bytes() == content
    assert reports[-1].done_bytes == len(content)


def test_a_file_that_changes_while_it_is_uploaded(
    open_session: OpenSession, server: LocalDaytona, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "SENT_BYTES", 1 << 16)
    side = Side("disk", open_session(server), tmp_path)
    local = side.put("a", b"x" * (1 << 20))
    side.driven.run("true")

    def shorten(progress: TransferProgress) -> None:
        os.truncate(local, 10)

    with pytest.raises(FileError) as caught:
        side.upload(local, "a", on_progress=shorten)
    assert caught.value.code == "local_changed"
    assert side.driven.run("ls -A").output == ""


@pytest.mark.sync_and_async
def test_a_cancelled_download_leaves_nothing(
    open_session: OpenSession, server: LocalDaytona, tmp_path: Path
) -> None:
    side = Side("disk", open_session(server), tmp_path)
    content = b"x" * (4 << 20)
    side.upload(side.put("a", content), "a")
    side.put("b", "before")

    class Stopped(BaseException):
        pass

    def stop(progress: TransferProgress) -> None:
        raise asyncio.CancelledError if side.driven.is_async else Stopped

    with pytest.raises((asyncio.CancelledError, Stopped)):
        side.download("a", tmp_path / "b", on_progress=stop)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "b").read_text() == "before"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Upload in parts of the least size that S3 allows."""
    monkeypatch.setattr(s3_transfers, "PART_BYTES", 5 << 20)
    return 5 << 20


@pytest.mark.sync_and_async
@pytest.mark.parametrize("mode", ["mount", "sync"])
def test_a_large_file_goes_to_s3_in_parts(
    mode: str, bucket: Bucket, open_session: OpenSession, tmp_path: Path, parts: int
) -> None:
    side = Side("objects", bucket.session(open_session, options={"s3Mode": mode}), tmp_path)
    content = os.urandom(2 * parts + 1000)
    local = side.put("a", content, 0o755)
    reports: list[TransferProgress] = []
    sent = side.upload(local, "a", on_progress=reports.append)
    assert bucket.get("a") == content
    assert sent.files[0].sha256 == hashlib.sha256(content).hexdigest()
    assert [report.done_bytes for report in reports] == [parts, 2 * parts, len(content)]
    side.upload(local, "a")  # over the present object
    side.download("a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content
    assert bool((tmp_path / "b").stat().st_mode & 0o100) is (mode == "sync")
    assert bucket.server.requests == []


def test_another_writer_wins_over_an_upload_in_parts(
    bucket: Bucket, open_session: OpenSession, tmp_path: Path, parts: int
) -> None:
    side = Side("objects", bucket.session(open_session), tmp_path)
    local = side.put("a", os.urandom(2 * parts))
    for before in (None, b"before"):
        if before:
            bucket.put("a", before)
        with pytest.raises(WriteConflict):
            side.upload(local, "a", on_progress=lambda progress: bucket.put("a", b"theirs"))
        assert bucket.get("a") == b"theirs"
        bucket.client.delete_object(Bucket=bucket.name, Key=bucket.key("a"))
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name)
    assert not uploads.get("Uploads"), "a refused upload is aborted"


def test_lost_answers_of_s3(bucket: Bucket, open_session: OpenSession, tmp_path: Path, parts: int) -> None:
    side = Side("objects", bucket.session(open_session), tmp_path)
    content = os.urandom(2 * parts)
    local = side.put("a", content)
    faults = [S3Fault("drop_after", method="POST"), S3Fault("drop_after", method="PUT")]

    def lose(progress: TransferProgress) -> None:
        if faults and progress.done_bytes == progress.total_bytes:  # the last request completes the upload
            bucket.server.s3.add_fault(faults.pop(0))

    side.upload(local, "a", on_progress=lose)
    assert bucket.get("a") == content
    bucket.server.s3.add_fault(S3Fault("truncate", method="GET", times=2))
    reports: list[TransferProgress] = []
    side.download("a", tmp_path / "b", on_progress=reports.append)
    assert (tmp_path / "b").read_bytes() == content
    assert reports[-1].done_bytes == len(content)


@pytest.mark.full
@pytest.mark.sync_and_async
@pytest.mark.parametrize("kind", ["disk", "objects"])
def test_memory_does_not_grow_with_the_file(
    kind: str, request: pytest.FixtureRequest, open_session: OpenSession, tmp_path: Path
) -> None:
    if kind == "disk":
        driven = open_session(request.getfixturevalue("server"))
    else:
        driven = request.getfixturevalue("bucket").session(open_session)
    side = Side(kind, driven, tmp_path)
    side.upload(side.put("small", b"x" * 300_000), "small")  # imports and connections
    side.download("small", tmp_path / "small.back")
    local = tmp_path / "large"
    with open(local, "wb") as file:
        for number in range(96):
            file.write(bytes([number]) * (1 << 20))
    tracemalloc.start()
    try:
        side.upload(local, "large")
        side.download("large", tmp_path / "large.back")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "large.back").stat().st_size == 96 << 20
    assert peak < 64 << 20
