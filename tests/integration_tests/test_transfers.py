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
from tests.sample import sample

__all__ = ["bucket"]  # fixtures

OpenSession = Callable[..., Driven]
KINDS = ("disk", "mount", "mount-objects", "sync", "sync-objects")


class Case:
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
def case(request: pytest.FixtureRequest, open_session: OpenSession, tmp_path: Path) -> Iterator[Case]:
    kind: str = request.param
    if kind == "disk":
        driven = open_session(request.getfixturevalue("server"))
    else:
        options = {
            "s3Mode": kind.partition("-")[0],
            "fileAccess": "s3" if kind.endswith("objects") else "sandbox",
        }
        driven = request.getfixturevalue("bucket").session(open_session, options=options)
    made = Case(kind, driven, tmp_path)
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


@pytest.mark.parametrize("case", sample(KINDS, "disk", "mount", "sync-objects"), indirect=True)
def test_a_file_there_and_back(case: Case) -> None:
    content = os.urandom(700_000)
    local = case.put("a.bin", content)
    sha256 = hashlib.sha256(content).hexdigest()
    sent = case.upload(local, "data/b.bin")
    assert [(file.path, file.size_bytes, file.sha256) for file in sent.files] == [
        ("data/b.bin", 700_000, sha256)
    ]
    assert case.driven.files("download", "data/b.bin") == content
    back = case.download("data/b.bin", case.host / "new" / "c.bin")
    assert back == sent
    assert (case.host / "new" / "c.bin").read_bytes() == content
    case.upload(local, "data/")
    case.upload(case.put("~", "a name"))
    assert case.driven.files("download", "./~") == b"a name"
    case.put("a.bin", "short")
    case.upload(local, "data/b.bin")
    assert case.driven.files("download", "data/b.bin") == b"short"
    case.download("data/a.bin", f"{case.host}/into/")
    assert (case.host / "into" / "a.bin").read_bytes() == content
    reports: list[TransferProgress] = []
    case.download("data/b.bin", case.host / "new" / "c.bin", on_progress=reports.append)
    assert (case.host / "new" / "c.bin").read_bytes() == b"short"
    assert reports[-1] == TransferProgress("data/b.bin", 5, 5)


@pytest.mark.parametrize("case", sample(KINDS, "disk", "mount-objects", "sync"), indirect=True)
def test_a_directory_there_and_back(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(through_guest, "INLINE_ROWS", 20)
    monkeypatch.setattr(through_guest, "INLINE_BYTES", 4096)
    monkeypatch.setattr(through_guest, "GROUP_FILES", 25)
    monkeypatch.setattr(through_guest, "PACK_FILES", 25)
    for number in range(60):
        case.put(f"project/src/{number:02}/file {number}.txt", f"{number}\n" * 100)
    case.put("project/run.sh", "echo hi\n", 0o755)
    case.put("project/large.bin", os.urandom(400_000))
    case.put("project/empty.txt", "")
    (case.host / "project" / "none" / "below").mkdir(parents=True)
    reports: list[TransferProgress] = []
    sent = case.upload(case.host / "project", "copy", on_progress=reports.append)
    expected = tree(case.host / "project")
    assert {file.path: file.sha256 for file in sent.files} == {
        f"copy/{name}": hashlib.sha256(data).hexdigest() for name, data in expected.items()
    }
    total = sum(map(len, expected.values()))
    assert (reports[-1].done_bytes, reports[-1].total_bytes) == (total, total)
    assert {report.name for report in reports} <= {file.path for file in sent.files}
    reports.clear()
    back = case.download("copy", case.host / "back", on_progress=reports.append)
    assert back.skipped == ()
    assert tree(case.host / "back") == expected
    assert sorted(back.files, key=lambda file: file.path) == sorted(sent.files, key=lambda file: file.path)
    assert (reports[-1].done_bytes, reports[-1].total_bytes) == (total, total)
    assert (case.host / "back" / "run.sh").stat().st_mode & 0o100 or case.kind.startswith("mount")
    assert not (case.host / "back" / "empty.txt").stat().st_mode & 0o100
    assert (
        case.host / "back" / "none" / "below"
    ).is_dir() or case.kind == "mount"  # a mount keeps it for itself
    # A second upload replaces what changed, and keeps other files.
    case.put("project/empty.txt", "not any more")
    case.driven.files("write", "copy/other.txt", "kept")
    case.upload(case.host / "project" / "empty.txt", "copy/")
    case.upload(case.host / "project", "copy")
    case.put("back/own.txt", "kept too")
    case.download("copy", case.host / "back")
    assert tree(case.host / "back") == {
        **tree(case.host / "project"), "other.txt": b"kept", "own.txt": b"kept too"
    }  # fmt: skip


@pytest.mark.parametrize("case", sample(KINDS, "mount-objects", "sync"), indirect=True)
def test_links_and_special_files_of_the_host(case: Case) -> None:
    secret = case.put("secret", "of the host")
    case.put("d/a.txt", "a")
    case.put("d/sub/b.txt", "b")
    links = {
        "in": "a.txt",
        "up": "../secret",
        "out": str(secret),
        "dir": "sub",
        "loop": "loop",
        "gone": "none",
    }
    for name, target in links.items():
        (case.host / "d" / name).symlink_to(target)
    os.mkfifo(case.host / "d" / "fifo")
    sent = case.upload(case.host / "d", "d")
    assert {file.path for file in sent.files} == {"d/a.txt", "d/in", "d/sub/b.txt"}
    assert sent.skipped == tuple(
        SkippedEntry(name, "special" if name == "fifo" else "link")
        for name in sorted(("up", "out", "dir", "loop", "gone", "fifo"))
    )
    assert case.driven.files("download", "d/in") == b"a"
    (case.host / "named").symlink_to("d")
    assert len(case.upload(case.host / "named", "e").files) == 3, "a link that is named is followed"


def test_links_and_special_files_of_the_workspace(
    open_session: OpenSession, server: LocalDaytona, tmp_path: Path
) -> None:
    case = Case("disk", open_session(server), tmp_path)
    case.driven.run(
        "mkdir -p d/sub && echo a > d/a.txt && cd d && ln -s a.txt in && ln -s ../top.txt top && echo t > ../top.txt "
        "&& ln -s /etc/passwd out && ln -s ../../../etc/passwd up && ln -s sub dir && ln -s loop loop "
        "&& mkfifo fifo && ln a.txt hard && printf x > $'\\xff.txt' && printf y > 'a\\b' && printf z > $'new\\nline'"
    )  # fmt: skip
    back = case.download("d", tmp_path / "back")
    assert [entry.path for entry in back.skipped if entry.reason == "link"] == ["dir", "loop", "out", "up"]
    assert [entry.path for entry in back.skipped if entry.reason == "special"] == ["fifo"]
    assert not [path for path in (tmp_path / "back").rglob("*") if path.is_symlink()]
    found = tree(tmp_path / "back")
    assert found.pop("top") == b"t\n"
    assert sorted(os.fsencode(name) for name in found) == [
        b"a.txt", b"a\\b", b"hard", b"in", b"new\nline", b"\xff.txt"
    ]  # fmt: skip
    other = case.upload(tmp_path / "back", "again")
    assert len(other.files) == 7
    assert case.driven.run("cat again/$'\\xff.txt' again/'a\\b'").output == "xy"


def test_links_of_a_synchronised_workspace(bucket: Bucket, open_session: OpenSession, tmp_path: Path) -> None:
    options = {"s3Mode": "sync", "syncIgnore": ["node_modules/"]}
    case = Case("sync-objects", bucket.session(open_session, options=options), tmp_path)
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
    back = case.download("d", tmp_path / "back")
    assert tree(tmp_path / "back") == {"a.txt": b"a", "in": b"a", "run": b"r"}
    assert back.skipped == (SkippedEntry("dir", "link"), SkippedEntry("out", "link"))
    case.put("p/node_modules/x.js", "x")
    case.put("p/index.js", "i")
    sent = case.upload(tmp_path / "p", "p")
    assert [file.path for file in sent.files] == ["p/index.js"]
    assert sent.skipped == (SkippedEntry("node_modules/x.js", "ignored"),)


@pytest.mark.one_in(2)
def test_what_is_refused(case: Case) -> None:
    case.put("a.txt", "a")
    case.put("d/b.txt", "b")
    case.upload(case.host / "a.txt")
    case.upload(case.host / "d")
    for local, path, code in (
        (case.host / "none", "x", "local_missing"),
        ("", "x", "local_missing"),
        (case.host / "a.txt" / "x", "x", "local_not_directory"),
        (case.host / "a.txt", "d", "is_directory"),
        (case.host / "a.txt", "a.txt/x", "not_a_directory"),
    ):
        with pytest.raises(FileError) as caught:
            case.upload(local, path)
        assert caught.value.code == code
    for path in ("../x", "/etc/x", "~/x", "a\0b"):
        with pytest.raises(PathRefused):
            case.upload(case.host / "a.txt", path)
    with pytest.raises(FileMissing):
        case.download("none", case.host / "x")
    assert not (case.host / "x").exists()
    with pytest.raises(FileError) as caught:
        case.download("a.txt", case.host / "d")
    assert caught.value.code == "local_is_directory"
    with pytest.raises(FileError) as caught:
        case.download("d", case.host / "a.txt")
    assert caught.value.code == "local_not_directory"
    with pytest.raises(FileError) as caught:
        case.download("d", case.host / "y", max_bytes=0)
    assert caught.value.code == "too_large"
    assert not (case.host / "y").exists()
    with pytest.raises(FileError, match="empty"):
        case.download("a.txt", "")
    with pytest.raises(ValueError, match="NUL"):
        case.download("a.txt", "x\0y")


@pytest.mark.one_in(3)
def test_a_failing_callback_ends_the_reports_only(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def fail(progress: TransferProgress) -> None:
        calls.append(progress)
        raise RuntimeError("of the callback")

    case.put("d/a", "a")
    case.put("d/b", "b")
    assert len(case.upload(case.host / "d", "d", on_progress=fail).files) == 2
    assert len(calls) == 1
    assert "of the callback" in caplog.text


def test_an_upload_is_repeated_after_a_lost_connection(
    open_session: OpenSession, server: LocalDaytona, tmp_path: Path
) -> None:
    case = Case("disk", open_session(server), tmp_path)
    content = os.urandom(3 << 20)
    local = case.put("a", content)
    reports: list[TransferProgress] = []
    case.driven.run("true")
    server.faults.add(Fault("drop_after", action="upload"))
    case.upload(local, "a", on_progress=reports.append)
    assert reports[-1].done_bytes == len(content)
    server.faults.add(Fault("truncate", action="download"))
    case.download("a", tmp_path / "b", on_progress=reports.append)
    assert (tmp_path / "b").read_bytes() == content
    assert reports[-1].done_bytes == len(content)


def test_a_file_that_changes_while_it_is_uploaded(
    open_session: OpenSession, server: LocalDaytona, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "SENT_BYTES", 1 << 16)
    case = Case("disk", open_session(server), tmp_path)
    local = case.put("a", b"x" * (1 << 20))
    case.driven.run("true")

    def shorten(progress: TransferProgress) -> None:
        os.truncate(local, 10)

    with pytest.raises(FileError) as caught:
        case.upload(local, "a", on_progress=shorten)
    assert caught.value.code == "local_changed"
    assert case.driven.run("ls -A").output == ""


def test_files_that_change_while_they_are_downloaded(
    open_session: OpenSession, server: LocalDaytona, tmp_path: Path
) -> None:
    case = Case("disk", open_session(server), tmp_path)
    case.driven.run("mkdir d; for f in log once same; do head -c 600000 /dev/zero > d/$f; done")
    sandbox_id = str(case.driven.session.sandbox_id)

    def change(script: str) -> Callable[[TransferProgress], None]:
        """Return a callback that runs a command at the beginning of each download of a file."""
        return lambda progress: server.run_inside(sandbox_id, script) and None

    script = "cd /mnt/workspaces/demo/d && echo line >> log && rm -f once"
    result = case.download("d", tmp_path / "d", on_progress=change(script))
    assert [(file.path, file.size_bytes >= 600_000) for file in result.files] == [
        ("d/log", True),
        ("d/same", True),
    ]
    assert result.skipped == (SkippedEntry("once", "gone"),)
    with pytest.raises(WriteConflict):
        case.download("d/same", tmp_path / "s", on_progress=change("touch /mnt/workspaces/demo/d/same"))


@pytest.mark.sync_and_async
def test_a_cancelled_download_leaves_nothing(
    open_session: OpenSession, server: LocalDaytona, tmp_path: Path
) -> None:
    case = Case("disk", open_session(server), tmp_path)
    content = b"x" * (4 << 20)
    case.upload(case.put("a", content), "a")
    case.put("b", "before")

    class Stopped(BaseException):
        pass

    def stop(progress: TransferProgress) -> None:
        raise asyncio.CancelledError if case.driven.is_async else Stopped

    with pytest.raises((asyncio.CancelledError, Stopped)):
        case.download("a", tmp_path / "b", on_progress=stop)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "b").read_text() == "before"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Upload in parts of the least size that S3 allows."""
    monkeypatch.setattr(s3_transfers, "PART_BYTES", 5 << 20)
    return 5 << 20


@pytest.mark.sync_and_async
@pytest.mark.parametrize("mode", ["mount", "sync"])
@pytest.mark.one_in(3)
def test_a_large_file_goes_to_s3_in_parts(
    mode: str, bucket: Bucket, open_session: OpenSession, tmp_path: Path, parts: int
) -> None:
    case = Case("objects", bucket.session(open_session, options={"s3Mode": mode}), tmp_path)
    content = os.urandom(2 * parts + 1000)
    local = case.put("a", content, 0o755)
    reports: list[TransferProgress] = []
    sent = case.upload(local, "a", on_progress=reports.append)
    assert bucket.get("a") == content
    assert sent.files[0].sha256 == hashlib.sha256(content).hexdigest()
    assert [report.done_bytes for report in reports] == [parts, 2 * parts, len(content)]
    case.upload(local, "a")  # over the present object
    case.download("a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content
    assert bool((tmp_path / "b").stat().st_mode & 0o100) is (mode == "sync")
    assert bucket.server.requests == []


def test_another_writer_wins_over_an_upload_in_parts(
    bucket: Bucket, open_session: OpenSession, tmp_path: Path, parts: int
) -> None:
    case = Case("objects", bucket.session(open_session), tmp_path)
    local = case.put("a", os.urandom(2 * parts))
    for before in (None, b"before"):
        if before:
            bucket.put("a", before)
        with pytest.raises(WriteConflict):
            case.upload(local, "a", on_progress=lambda progress: bucket.put("a", b"theirs"))
        assert bucket.get("a") == b"theirs"
        bucket.client.delete_object(Bucket=bucket.name, Key=bucket.key("a"))
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=bucket.key(""))
    assert not uploads.get("Uploads"), "a refused upload is aborted"


def test_lost_answers_of_s3(bucket: Bucket, open_session: OpenSession, tmp_path: Path, parts: int) -> None:
    case = Case("objects", bucket.session(open_session), tmp_path)
    content = os.urandom(2 * parts)
    local = case.put("a", content)
    faults = [S3Fault("drop_after", method="POST"), S3Fault("drop_after", method="PUT")]

    def lose(progress: TransferProgress) -> None:
        if faults and progress.done_bytes == progress.total_bytes:  # the last request completes the upload
            bucket.server.s3.add_fault(faults.pop(0))

    case.upload(local, "a", on_progress=lose)
    assert bucket.get("a") == content
    bucket.server.s3.add_fault(S3Fault("truncate", method="GET", times=2))
    reports: list[TransferProgress] = []
    case.download("a", tmp_path / "b", on_progress=reports.append)
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
    case = Case(kind, driven, tmp_path)
    case.upload(case.put("small", b"x" * 300_000), "small")  # imports and connections
    case.download("small", tmp_path / "small.back")
    local = tmp_path / "large"
    with open(local, "wb") as file:
        for number in range(96):
            file.write(bytes([number]) * (1 << 20))
    tracemalloc.start()
    try:
        case.upload(local, "large")
        case.download("large", tmp_path / "large.back")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "large.back").stat().st_size == 96 << 20
    assert peak < 64 << 20
