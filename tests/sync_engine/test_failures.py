"""Failures of S3, of the disk and of other writers: the right outcome of each, and no acknowledged byte is lost."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._guest import sync_answers, sync_copy, sync_objects, sync_s3, sync_trash, sync_tree
from tests.sync_engine.conftest import Make
from tests.sync_engine.memory_s3 import DROPPED, Answer, MemoryS3, Request, error
from tests.sync_engine.world import PREFIX, Workers, WorkingCopy

Contents = Callable[[], dict[str, bytes]]
Serve = Callable[[], Answer]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_s3, "PAUSES_S", (0.0, 0.01, 0.02, 0.03))


# --- answers of S3 ---


def test_files_wait_on_the_disk_while_s3_is_down(s3: MemoryS3, make: Make, contents: Contents) -> None:
    copy = make()
    copy.write("a", "1")
    copy.pull()
    copy.push()
    s3.intercept = lambda *_: DROPPED
    assert copy.pull()["failure"] == "unreachable"
    copy.write("a", "2")
    copy.write("b", "3")
    report = copy.push()
    assert (report["failure"], report["unpushed"]) == ("unreachable", ["a", "b"])
    s3.intercept = None
    assert copy.pull()["failure"] == copy.push()["failure"] == ""
    assert contents() == {"a": b"2", "b": b"3"}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (error(503, "SlowDown"), "unavailable"),
        (error(500, "InternalError"), "unavailable"),
        (error(403, "AccessDenied"), "denied"),
        (error(401, "Unauthorized"), "denied"),
        (error(400, "ExpiredToken"), "expired"),
        (error(403, "InvalidAccessKeyId"), "expired"),
        (error(403, "SignatureDoesNotMatch"), "signature"),
        (error(404, "NoSuchBucket"), "no_bucket"),
        (error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1"), "wrong_region"),
        (error(307, "TemporaryRedirect", x_amz_bucket_region="eu-west-1"), "wrong_region"),
        (
            Answer(
                400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"
            ),
            "wrong_region",
        ),
        (Answer(502, b"<html>Bad Gateway"), "unavailable"),
        (Answer(302, b"", {"Location": "http://127.0.0.1/login"}), "unavailable"),
    ],
)
@pytest.mark.one_in(4)
def test_a_refusal_of_all_requests_stops_after_a_few(
    s3: MemoryS3, make: Make, contents: Contents, answer: Answer, code: str
) -> None:
    copy = make()
    copy.pull()
    for number in range(300):
        copy.write(f"f{number}", str(number))
    s3.requests.clear()
    s3.intercept = lambda *_: answer
    report = copy.push()
    assert report["failure"] == code
    assert len(report["unpushed"]) == 300
    assert len(s3.requests) <= sync_copy.WORKERS * len(sync_s3.PAUSES_S)
    s3.intercept = None
    assert copy.push()["failure"] == ""
    assert len(contents()) == 300


def test_throttling_is_waited_for(s3: MemoryS3, make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    left = 2

    def throttle(_: Request, __: Serve) -> Answer | None:
        nonlocal left
        left -= 1
        return error(503, "SlowDown") if left >= 0 else None

    s3.intercept = throttle
    assert copy.push()["failure"] == ""
    assert contents() == {"a": b"1"}


def test_credentials_that_expire_during_a_push_lose_nothing(
    s3: MemoryS3, make: Make, contents: Contents
) -> None:
    copy = make()
    copy.pull()
    for number in range(200):
        copy.write(f"f{number}", str(number))
    stored = 0

    def expire(request: Request, _: Serve) -> Answer | None:
        nonlocal stored
        stored += request.method == "PUT"
        return error(400, "ExpiredToken") if stored > 50 else None

    s3.intercept = expire
    report = copy.push()
    assert report["failure"] == "expired"
    assert len(report["unpushed"]) == 200 - len(contents())
    s3.intercept = None
    again = make()
    assert again.pull()["failure"] == again.push()["failure"] == ""
    assert contents() == {f"f{number}": str(number).encode() for number in range(200)}
    assert again.push()["conflicts"] == []


@pytest.mark.parametrize("is_listing", [True, False])
def test_no_answer_lasts_longer_than_the_deadline(s3: MemoryS3, make: Make, is_listing: bool) -> None:
    copy = make()
    s3.put(PREFIX + "a", b"x" * 1000)

    def trickle(request: Request, serve: Serve) -> Answer | None:
        if (request.key == "") != is_listing or request.method != "GET":
            return None
        answer = serve()
        answer.pause_s = 0.05
        return answer

    s3.intercept = trickle
    began = time.monotonic()
    assert copy.pull(limit_s=0.5)["failure"] == "deadline"
    assert time.monotonic() - began < 10
    s3.intercept = None
    assert copy.pull()["failure"] == ""
    assert copy.files() == {"a": b"x" * 1000}


@pytest.mark.parametrize("ahead_s", [3600, -3600])
def test_a_clock_that_is_off_by_an_hour_is_corrected(
    s3: MemoryS3, make: Make, contents: Contents, ahead_s: float
) -> None:
    copy = make()
    s3.put(PREFIX + "theirs", b"1")
    s3.ahead_s = ahead_s
    assert copy.pull()["failure"] == ""
    for number in range(100):
        copy.write(f"f{number}", "1")
    s3.ahead_s = 0.0  # and in mid-life, when many requests find it at once
    assert copy.push()["failure"] == ""
    assert len(contents()) == 101


HTML = b"<!DOCTYPE html><html><body>Please sign in<br></body></html>"
EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated>"


@pytest.mark.parametrize(
    "change",
    [
        lambda body: HTML,
        lambda body: b"",
        lambda body: b"<Error><Code>InternalError</Code></Error>",
        lambda body: EMPTY,
        lambda body: body[: body.index(b"<Contents>")],
        lambda body: body[: body.rindex(b"<Contents>")],
        lambda body: body.replace(b"<Size>", b"<Sizes>", 1),
        lambda body: body.replace(b"<Contents>", b"<s3:Contents>").replace(b"</Contents>", b"</s3:Contents>"),
        lambda body: body[: body.index(b"<Contents>")] + b"</ListBucketResult>",
        lambda body: body.replace(b"<IsTruncated>false", b"<IsTruncated>true").replace(b"<Contents>", b"<C>"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_whole_listing_changes_nothing(
    s3: MemoryS3, make: Make, contents: Contents, change: Callable[[bytes], bytes]
) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.write("b", "2")
    copy.push()
    copy.pull()

    def replace(request: Request, serve: Serve) -> Answer | None:
        return Answer(200, change(serve().body)) if request.key == "" else None

    s3.intercept = replace
    assert copy.pull()["failure"] == "unavailable"
    assert copy.files() == {"a": b"1", "b": b"2"}
    copy.write("b", "3")
    assert copy.push()["failure"] == ""
    assert contents() == {"a": b"1", "b": b"3"}


def test_a_page_of_a_proxy_is_no_file_and_no_success(s3: MemoryS3, make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.write("large", b"2" * 3_000_000)
    s3.intercept = lambda request, _: Answer(200, HTML) if request.key else None
    s3.put(PREFIX + "theirs", b"3")
    assert copy.pull()["failure"] == "unavailable"
    report = copy.push()
    assert (report["failure"], report["unpushed"]) == ("unavailable", ["a", "large"])
    s3.intercept = None
    assert copy.pull()["failure"] == copy.push()["failure"] == ""
    assert contents() == copy.files() == {"a": b"1", "large": b"2" * 3_000_000, "theirs": b"3"}


def test_an_archived_object_is_reported_and_stays(s3: MemoryS3, make: Make, contents: Contents) -> None:
    s3.put(PREFIX + "a", b"1")
    s3.put(PREFIX + "cold", b"2")
    refused = error(403, "InvalidObjectState", "The operation is not valid for the object's storage class")
    s3.intercept = lambda request, _: refused if request.key.endswith("cold") else None
    copy = make()
    report = copy.pull()
    assert (report["failure"], report["skipped_count"]) == ("", 1)
    assert copy.push()["failure"] == ""
    assert copy.files() == {"a": b"1"}
    assert contents() == {"a": b"1", "cold": b"2"}


@pytest.mark.parametrize("etag", ["a\r\nx-amz-acl: public-read", "\u20ac"])
def test_an_etag_that_is_no_header_fails_one_file(
    s3: MemoryS3, make: Make, monkeypatch: pytest.MonkeyPatch, etag: str
) -> None:
    monkeypatch.setattr(sync_objects, "PARTS_ABOVE_BYTES", 100)
    s3.put(PREFIX + "a", b"1" * 200, etag=etag)
    s3.put(PREFIX + "b", b"2")
    copy = make()
    assert copy.pull()["failure"] == "refused"
    assert copy.files() == {"b": b"2"}


def test_a_read_only_copy_stores_nothing(s3: MemoryS3, make: Make) -> None:
    s3.put(PREFIX + "a", b"1")
    copy = make(read_only=True)
    assert copy.pull()["failure"] == ""
    assert {request.method for request in s3.requests} == {"GET"}


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_truncated_body_is_read_again(s3: MemoryS3, make: Make, size: int) -> None:
    s3.put(PREFIX + "a", b"x" * size)
    copy, left = make(), 1

    def truncate(request: Request, serve: Serve) -> Answer | None:
        nonlocal left
        if request.key != PREFIX + "a" or left == 0:
            return None
        left -= 1
        answer = serve()
        answer.cut = size // 2
        return answer

    s3.intercept = truncate
    assert copy.pull()["failure"] == ""
    assert copy.files() == {"a": b"x" * size}


def test_a_refusal_before_the_body_is_read_is_understood(s3: MemoryS3, make: Make) -> None:
    copy = make()
    copy.pull()
    copy.write("big", os.urandom(20_000_000))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        spec = {**copy.spec, "endpoint": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        bucket = sync_s3.Bucket(spec, {"key": "a", "secret": "b", "token": None})
        bucket.begin(time.monotonic() + 30)
        import threading

        def refuse() -> None:
            connection = listener.accept()[0]
            connection.recv(1000)
            connection.sendall(
                b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
            connection.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        fd = os.open(copy.root / "big", os.O_RDONLY)
        with pytest.raises(sync_answers.S3Error) as caught:
            bucket.put("big", lambda: sync_s3.Slice(fd, 0, 20_000_000), 20_000_000, {})
        bucket._connection().close()
        os.close(fd)
        thread.join()
    assert caught.value.code == "changed"


# --- listings ---


def test_files_that_a_listing_lacks_go_to_the_trash_and_come_back(
    s3: MemoryS3, make: Make, contents: Contents
) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.write("d/b", "2")
    copy.write("c", "3")
    copy.push()
    copy.write("c", "4")
    hidden = {key: s3.objects[key] for key in (PREFIX + "d/b", PREFIX + "c")}
    for key in hidden:
        s3.remove(key)
    report = copy.pull()
    assert (report["failure"], report["removed_here"]) == ("", 1)
    assert copy.files() == {"a": b"1", "c": b"4"}
    assert copy.trash() == [b"2"]
    for key, stored in hidden.items():
        s3.put(key, stored.data)
    copy.push()
    copy.pull()
    copy.push()
    assert copy.files()["d/b"] == b"2"
    assert set(contents().values()) == {b"1", b"2", b"3", b"4"}


def test_a_wrong_listing_and_a_kill_delete_nothing(s3: MemoryS3, make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.push()
    stored = s3.objects[PREFIX + "a"]
    s3.remove(PREFIX + "a")
    before = Path(copy.spec["state"], "index").read_bytes()
    copy._pull.run()
    assert Path(copy.spec["state"], "index").read_bytes() != before  # as of a process that is killed now
    s3.put(PREFIX + "a", stored.data)
    again = make()
    again.push()
    assert contents() == {"a": b"1"}
    again.pull()
    assert again.files() == {"a": b"1"}


@pytest.mark.parametrize("refused", ["read", "rename"])
def test_a_deleted_object_is_not_created_again_if_its_file_cannot_be_removed(
    s3: MemoryS3, make: Make, contents: Contents, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.write("b", "2")
    copy.push()
    (copy.root / "b").chmod(0o600)
    s3.reset()
    method = {"read": "is_same_content", "rename": "move_to_trash"}[refused]
    plain = getattr(copy.copy, method)

    def refuse(path: str, *arguments: Any) -> Any:  # root may read and rename everything
        if path == "b":
            raise PermissionError(13, "Permission denied")
        return plain(path, *arguments)

    monkeypatch.setattr(copy.copy, method, refuse)
    assert copy.pull()["failure"] == "local"
    monkeypatch.undo()
    (copy.root / "b").chmod(0o644)
    copy.push()
    assert contents() == {}
    assert copy.pull()["failure"] == ""
    assert copy.files() == {}


def test_a_deleted_object_is_not_created_again_if_the_index_cannot_be_saved(
    s3: MemoryS3, make: Make, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.push()
    s3.reset()

    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copy.copy.index, "save", refuse)
    with pytest.raises(OSError, match="No space"):
        copy._pull.run()
    monkeypatch.undo()
    copy.push()
    assert contents() == {}
    copy.pull()
    assert copy.files() == {}


def test_an_emptied_prefix_moves_all_files_to_the_trash(s3: MemoryS3, make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    for number in range(20):
        copy.write(f"d/f{number}", str(number))
    copy.push()
    s3.reset()
    copy.write("d/f0", "mine")
    assert copy.pull()["removed_here"] == 19
    assert copy.files() == {"d/f0": b"mine"}
    assert len(copy.trash()) == 19
    copy.push()
    assert contents() == {"d/f0": b"mine"}


@pytest.mark.full
def test_pages_are_listed_although_their_first_keys_were_deleted(s3: MemoryS3, make: Make) -> None:
    names = [f"f{number:05d}" for number in range(2500)]
    for name in names:
        s3.put(PREFIX + name, b"")
    copy = make()
    copy.pull()
    marks = copy._pull._listing._starts
    assert len(marks) == 3
    for mark in marks[1:]:
        s3.remove(PREFIX + mark)
        s3.remove(PREFIX + names[names.index(mark) + 1])
    for number in range(1500):  # more than a page between two marks
        s3.put(PREFIX + f"f00000-{number:04d}", b"")
    copy.pull()
    assert set(copy.files()) == {key[len(PREFIX) :] for key in s3.objects}


def test_a_listing_that_is_the_same_again_is_compared_after_a_push(s3: MemoryS3, make: Make) -> None:
    copy = make()
    s3.put(PREFIX + "a", b"theirs")
    known = s3.objects[PREFIX + "a"]
    copy.pull()
    copy.write("a", "mine")
    copy.push()
    s3.put(PREFIX + "a", b"theirs")
    s3.objects[PREFIX + "a"] = known  # in the same second
    copy.pull()
    assert copy.files() == {"a": b"theirs"}


# --- the disk ---


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_a_full_disk_loses_nothing(s3: MemoryS3, tmp_path: Path) -> None:
    small = Workers(("bwrap", "--dev-bind", "/", "/", "--size", "2000000", "--tmpfs", str(tmp_path)))
    try:
        copy = WorkingCopy(small, str(tmp_path), s3.endpoint, "A")
        copy.spec["limit_bytes"] = 10**9
        s3.put(PREFIX + "small", b"1")
        assert (copy.sync("pull") or {})["failure"] == ""
        s3.put(PREFIX + "small", b"2")
        s3.put(PREFIX + "large", b"x" * 3_000_000)
        report = copy.sync("pull") or {}
        assert (report["failure"], report["detail"]) == ("local", "No space left on device")
        assert (copy.sync("push") or {})["pushed"] == 0
        assert s3.objects[PREFIX + "small"].data == b"2"
        s3.remove(PREFIX + "large")
        report = copy.sync("pull") or {}
        assert report["failure"] == ""
        assert (copy.sync("push") or {})["failure"] == ""
        copy.end()
    finally:
        small.stop()
    assert {key: stored.data for key, stored in s3.objects.items()} == {PREFIX + "small": b"2"}


@pytest.mark.parametrize("change", ["replaced", "gone", "gone in the scan", "gone and restarted"])
def test_a_directory_that_is_replaced_deletes_nothing(
    make: Make, contents: Contents, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.write("d/b", "2")
    copy.push()
    if change == "gone in the scan":
        scan = copy.copy.tree.scan

        def vanish(entries: Any) -> sync_tree.Scan:
            shutil.rmtree(copy.root)
            return scan(entries)

        monkeypatch.setattr(copy.copy.tree, "scan", vanish)
    else:
        shutil.rmtree(copy.root)
    if change == "replaced":
        copy.root.mkdir()
        copy.write("a", "other")
    if change == "gone and restarted":
        copy = make()
    report = copy.push()
    assert report["removed_there"] == 0
    assert {"a", "d/b"} <= contents().keys()
    monkeypatch.undo()
    copy.pull()
    copy.push()
    assert copy.files()["d/b"] == b"2"
    assert b"1" in copy.files().values()


def test_another_directory_has_another_identity(tmp_path: Path) -> None:
    tree, found = sync_tree.Tree(f"{tmp_path}/ws", []), set()
    for _ in range(20):  # a file system uses an inode again
        os.mkdir(tree.root)
        found.add(tuple(tree.identity() or ()))
        os.rmdir(tree.root)
    assert len(found) == 20


def test_deleting_everything_is_pushed_and_counted(make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    for number in range(150):
        copy.write(f"d{number % 7}/f{number}", str(number))
    copy.push()
    for at in copy.root.iterdir():
        shutil.rmtree(at)
    assert copy.push()["removed_there"] == 150
    assert contents() == {}


def test_nothing_is_deleted_before_its_replacement_is_stored(
    s3: MemoryS3, make: Make, contents: Contents
) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.push()
    (copy.root / "a").rename(copy.root / "b")
    s3.intercept = lambda request, _: error(400, "Odd") if request.key.endswith("/b") else None
    report = copy.push()
    assert report["failure"]
    assert {"a", "b"} == set(report["unpushed"])
    assert contents() == {"a": b"1"}


def test_a_file_that_moves_during_the_scan_is_not_deleted(
    make: Make, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = make()
    copy.pull()
    copy.write("a/x", "1")
    copy.write("b/y", "2")
    copy.push()
    scandir, moved = os.scandir, False

    def move(path: str) -> Any:
        nonlocal moved
        found = list(scandir(path))
        name = os.path.basename(path)
        if name in "ab" and not moved:  # it has read one of them: the file goes there
            moved = True
            other = {"a": "b/y", "b": "a/x"}[name]
            (copy.root / other).rename(copy.root / name / "moved")
        return found

    monkeypatch.setattr(os, "scandir", move)
    copy.push()
    assert moved
    assert set(contents().values()) >= {b"1", b"2"}


def test_an_unreadable_directory_is_not_deleted(
    make: Make, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = make()
    copy.pull()
    copy.write("d/a", "1")
    copy.write("e", "2")
    copy.push()
    scandir = os.scandir

    def refuse(path: str) -> Any:  # root may read everything
        if str(path).endswith("/d"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (copy.root / "e").unlink()
    report = copy.push()
    assert report["skipped"] == [["d/", "Permission denied"]]
    assert contents() == {"d/a": b"1"}


def test_a_deletion_in_a_directory_that_can_only_be_listed_is_skipped(
    s3: MemoryS3, make: Make, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mode is 0444: the names are listed, but a status cannot be read, not even of a missing file."""
    copy = make()
    copy.pull()
    for path in ("d/a", "d/b", "e"):
        copy.write(path, "1")
    copy.push()
    status = copy.copy.tree.status

    def refuse(path: str) -> Any:  # root may read everything
        if path.startswith("d/"):
            raise PermissionError(13, "Permission denied")
        return status(path)

    monkeypatch.setattr(copy.copy.tree, "status", refuse)
    (copy.root / "d/a").unlink()
    (copy.root / "e").unlink()
    report = copy.push()
    assert (report["failure"], report["skipped"]) == ("", [["d/a", "Permission denied"]])
    assert contents() == {"d/a": b"1", "d/b": b"1"}
    monkeypatch.undo()
    copy.push()
    assert contents() == {"d/b": b"1"}


def test_a_file_that_changes_while_it_is_read_is_stored_again(
    s3: MemoryS3, make: Make, contents: Contents
) -> None:
    copy = make()
    copy.pull()
    at = copy.write("a", "1")

    def change(request: Request, serve: Serve) -> Answer | None:
        if request.method == "PUT" and request.body == b"1":
            answer = serve()
            at.write_bytes(b"2")
            return answer
        return None

    s3.intercept = change
    copy.push()
    assert contents() == {"a": b"2"}


def test_a_file_that_becomes_shorter_is_named_and_stored_later(
    make: Make, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = make()
    copy.pull()
    at = copy.write("a", b"x" * 3_000_000)
    read = sync_s3.Slice.read

    def shorten(piece: sync_s3.Slice, size: int = -1) -> bytes:
        os.truncate(at, 10)
        return read(piece, size)

    monkeypatch.setattr(sync_s3.Slice, "read", shorten)
    report = copy.push()
    assert (report["failure"], report["unpushed"]) == ("local", ["a"])
    monkeypatch.undo()
    assert copy.push()["failure"] == ""
    assert contents() == {"a": b"x" * 10}


def test_a_disk_without_hard_links_works(s3: MemoryS3, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    copy = make()
    for content in (b"1", b"2"):
        s3.put(PREFIX + "a", content)
        assert copy.pull()["failure"] == copy.push()["failure"] == ""
        assert copy.files() == {"a": content}


@pytest.mark.parametrize("discarded", [20, 0])
def test_the_trash_is_bounded(
    make: Make, s3: MemoryS3, monkeypatch: pytest.MonkeyPatch, discarded: int
) -> None:
    monkeypatch.setattr(sync_trash, "KEPT_BYTES", 50_000 if discarded else 0)
    copy = make()
    copy.pull()
    for number in range(20):
        copy.write(f"f{number}", b"x" * 10_000)
    Path(copy.spec["state"], "trash", "a directory of an agent").mkdir()
    copy.push()
    s3.reset()
    assert copy.pull()["failure"] == ""
    assert len(os.listdir(f"{copy.spec['state']}/trash")) == (4 if discarded else 0)


def test_directories_of_an_agent_in_the_state_do_not_stop_it(make: Make, s3: MemoryS3) -> None:
    copy = make()
    Path(copy.spec["state"], "new", "x", "y").mkdir(parents=True)
    copy = make()
    shutil.rmtree(copy.spec["state"])
    s3.put(PREFIX + "a", b"1")
    assert copy.pull()["failure"] == ""
    assert copy.files() == {"a": b"1"}


# --- other writers ---


@pytest.mark.parametrize("is_deleted", [False, True])
def test_output_of_a_job_to_a_file_that_another_writer_changes_is_kept(
    s3: MemoryS3, make: Make, contents: Contents, is_deleted: bool
) -> None:
    copy = make()
    copy.pull()
    copy.write("d/log", "1")
    copy.push()
    with (copy.root / "d" / "log").open("ab", buffering=0) as log:
        if is_deleted:
            s3.remove(PREFIX + "d/log")
        else:
            s3.put(PREFIX + "d/log", b"edited")
        copy.pull()
        copy.push()
        log.write(b"2")
        report = copy.push()
        assert (report["restored_count"], report["conflicts_count"]) == ((1, 0) if is_deleted else (0, 1))
        log.write(b"3")
        copy.push()
    wanted = {"d/log": b"123"} if is_deleted else {"d/log": b"edited", "d/log.conflict-A": b"123"}
    assert contents() == wanted


@pytest.mark.parametrize("large", [False, True])
def test_an_object_that_is_replaced_during_its_download_arrives_whole(
    s3: MemoryS3, make: Make, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr(sync_objects, "PARTS_ABOVE_BYTES", 100_000)
    monkeypatch.setattr(sync_objects, "PART_BYTES", 50_000)
    size = 400_000 if large else 50_000
    s3.put(PREFIX + "a", b"1" * size)
    copy, count = make(), 0

    def replace(request: Request, _: Serve) -> Answer | None:
        nonlocal count
        if request.method == "GET" and request.key == PREFIX + "a":
            count += 1
            if count == (3 if large else 1):
                s3.put(PREFIX + "a", b"2" * (size + 7))
        return None

    s3.intercept = replace
    assert copy.pull()["failure"] == ""
    assert copy.files() == {"a": b"2" * (size + 7)}
    assert copy.push()["pushed"] == 0


def test_a_store_that_ignores_ranges_spoils_no_file(
    s3: MemoryS3, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_objects, "PARTS_ABOVE_BYTES", 100_000)
    monkeypatch.setattr(sync_objects, "PART_BYTES", 50_000)
    s3.put(PREFIX + "a", b"1" * 400_000)

    def ignore(request: Request, serve: Serve) -> Answer | None:
        request.headers.pop("range", None)
        return None

    s3.intercept = ignore
    copy = make()
    assert copy.pull()["failure"] == "unavailable"
    assert copy.files() == {}


def test_two_conflicts_of_one_file_keep_all_versions(s3: MemoryS3, make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "0")
    copy.push()
    for number in (1, 3):
        copy.write("a", str(number))
        s3.put(PREFIX + "a", str(number + 1).encode())
        assert copy.push()["conflicts_count"] == 1
    s3.put(PREFIX + "a.conflict-A-3", b"taken")
    copy.write("a", "5")
    s3.put(PREFIX + "a", b"6")
    copy.push()
    copy.pull()
    copy.push()
    assert contents()["a"] == b"6"
    assert set(contents().values()) == {b"1", b"3", b"5", b"6", b"taken"}
    assert set(copy.files().values()) == {b"1", b"3", b"5", b"6", b"taken"}


def test_conflict_copies_of_many_long_names_do_not_overwrite_each_other(
    s3: MemoryS3, make: Make, contents: Contents
) -> None:
    copy = make()
    copy.pull()
    names = ["n" * 220 + f"-{number}" for number in range(40)]
    for name in names:
        copy.write(name, f"mine {name}")
        s3.put(PREFIX + name, f"theirs {name}".encode())
    assert copy.push()["conflicts_count"] == 40
    wanted = {f"{writer} {name}".encode() for name in names for writer in ("mine", "theirs")}
    assert set(contents().values()) == wanted
    assert set(copy.files().values()) == wanted


def test_an_upload_whose_answer_is_lost_is_no_conflict(s3: MemoryS3, make: Make, contents: Contents) -> None:
    s3.random_etags = True
    copy = make()
    copy.pull()
    copy.write("a", "1")
    lost = 1

    def lose(request: Request, serve: Serve) -> Answer | None:
        nonlocal lost
        if request.method == "PUT" and lost:
            lost -= 1
            serve()
            return DROPPED
        return None

    s3.intercept = lose
    report = copy.push()
    assert (report["failure"], report["conflicts"]) == ("", [])
    assert contents() == {"a": b"1"}


@pytest.mark.parametrize("random_etags", [False, True])
def test_a_lost_index_adopts_all_files(s3: MemoryS3, make: Make, random_etags: bool) -> None:
    s3.random_etags = random_etags
    copy = make()
    copy.pull()
    for number in range(30):
        copy.write(f"f{number}", str(number))
    (copy.root / "link").symlink_to("f1")
    (copy.root / "f2").chmod(0o755)
    copy.push()
    before = dict(s3.objects)
    os.unlink(f"{copy.spec['state']}/index")
    again = make(limit_bytes=20)
    report, pushed = again.pull(), again.push()
    assert (report["failure"], report["conflicts"], pushed["pushed"]) == ("", [], 0)
    assert s3.objects == before
    (again.root / "f3").unlink()
    assert again.push()["removed_there"] == 1


def test_a_mode_that_changes_in_the_second_of_an_upload_is_seen(s3: MemoryS3, make: Make) -> None:
    first, second = make("A"), make("B")
    for copy in (first, second):
        copy.pull()
    at = first.write("a", "1")
    first.push()
    second.pull()
    at.chmod(0o755)
    first.push()
    second.pull()
    assert stat.S_IMODE((second.root / "a").stat().st_mode) == 0o755
    (second.root / "a").chmod(0o600)
    second.push()
    first.pull()
    assert stat.S_IMODE(at.stat().st_mode) == 0o600


def test_a_mode_that_changes_here_survives_an_equal_upload_of_another_writer(
    s3: MemoryS3, make: Make
) -> None:
    copy = make()
    copy.pull()
    at = copy.write("a", "1")
    at.chmod(0o644)
    copy.push()
    copy.pull()
    at.chmod(0o755)
    s3.put(PREFIX + "a", b"1", {"file-permissions": "0100600"}).modified += 10
    copy.pull()
    assert stat.S_IMODE(at.stat().st_mode) == 0o755
    copy.push()
    assert s3.objects[PREFIX + "a"].metadata["file-permissions"] == "0100755"
    assert stat.S_IMODE(at.stat().st_mode) == 0o755


def test_equal_content_with_another_mode_is_stored(s3: MemoryS3, make: Make) -> None:
    first, second = make("A"), make("B")
    for copy, mode in ((first, 0o755), (second, 0o644)):
        copy.pull()
        copy.write("a", "1").chmod(mode)
    for copy in (first, second):
        copy.push()
    first.pull()
    assert stat.S_IMODE((first.root / "a").stat().st_mode) == 0o644
    assert s3.objects[PREFIX + "a"].metadata["file-permissions"] == "0100644"


def test_objects_without_modes_keep_the_mode_of_the_file(s3: MemoryS3, make: Make) -> None:
    copy = make("A", read_only=True)
    s3.put(PREFIX + "a", b"1", {"file-permissions": "0100755"})
    copy.pull()
    for content in (b"2", b"3"):
        s3.put(PREFIX + "a", content)
        copy.pull()
    assert (copy.root / "a").read_bytes() == b"3"
    assert stat.S_IMODE((copy.root / "a").stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", ["file", "link"])
def test_an_object_without_a_mode_is_the_same_file_everywhere(s3: MemoryS3, make: Make, kind: str) -> None:
    first, second = make("A"), make("B")
    first.pull()
    if kind == "file":
        first.write("a", "1").chmod(0o755)
    else:
        (first.root / "a").symlink_to("1")
    first.push()
    s3.put(PREFIX + "a", b"by a program that saves no modes")
    for copy in (first, second, first):
        copy.pull()
        copy.push()
    for copy in (first, second):
        assert not (copy.root / "a").is_symlink()
        assert stat.S_IMODE((copy.root / "a").stat().st_mode) == (0o755 if kind == "file" else 0o644)
    assert first.push()["pushed"] == second.push()["pushed"] == 0


@pytest.mark.parametrize("target", [b"", b"a\0b", b"x" * 5000, b"\xff\n", b"../../outside"])
def test_any_content_may_have_the_mode_of_a_link(
    s3: MemoryS3, make: Make, contents: Contents, target: bytes
) -> None:
    s3.put(PREFIX + "a", target, {"file-permissions": "0120777", "file-mtime": "9999999999999999999ns"})
    s3.put(PREFIX + "b", b"1", {"file-permissions": "0177777", "file-mtime": "9999999999999999999ns"})
    copy = make()
    assert copy.pull()["failure"] == ""
    at = copy.root / "a"
    assert (os.fsencode(os.readlink(at)) if at.is_symlink() else at.read_bytes()) == target
    assert stat.S_IMODE((copy.root / "b").stat().st_mode) == 0o777
    copy.push()
    assert contents() == {"a": target, "b": b"1"}
    assert copy.pull()["failure"] == ""
    assert copy.push()["pushed"] == 0


def test_a_link_with_the_content_of_a_file_replaces_it(s3: MemoryS3, make: Make) -> None:
    first, second = make("A"), make("B")
    first.pull()
    first.write("a", "target")
    first.push()
    second.pull()
    (first.root / "a").unlink()
    (first.root / "a").symlink_to("target")
    first.push()
    second.pull()
    assert os.readlink(second.root / "a") == "target"


def test_a_directory_behind_a_link_is_not_the_old_one(s3: MemoryS3, make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    copy.write("d/a", "1")
    copy.push()
    (copy.root / "d").rename(copy.root / "e")
    (copy.root / "d").symlink_to("e")
    s3.remove(PREFIX + "d/a")  # another writer has deleted it
    copy.pull()
    assert (copy.root / "e" / "a").read_bytes() == b"1"
    copy.push()
    assert contents() == {"e/a": b"1", "d": b"e"}


def test_a_file_is_not_restored_behind_a_link(
    s3: MemoryS3, make: Make, contents: Contents, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    copy = make()
    copy.pull()
    copy.write("d/f", "1")
    (copy.root / "e").mkdir()
    copy.push()
    shutil.rmtree(copy.root / "d")
    (copy.root / "e").rmdir()
    for name in "de":
        (copy.root / name).symlink_to(outside)
    s3.put(PREFIX + "d/f", b"theirs")
    s3.put(PREFIX + "e/", b"theirs", {"file-permissions": "0040711"})
    for _ in range(2):
        assert copy.push()["failure"] == ""
        assert contents()["d/f"] == b"theirs"
    assert list(outside.iterdir()) == []
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    copy.pull()
    assert copy.files() == {"d/f": b"theirs"}


def test_output_of_a_job_does_not_overwrite_a_file_behind_a_link(
    s3: MemoryS3, make: Make, contents: Contents, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "log").write_text("outside")
    copy = make()
    copy.pull()
    copy.write("d/log", "1")
    copy.push()
    with (copy.root / "d" / "log").open("ab", buffering=0) as log:
        s3.remove(PREFIX + "d/log")
        copy.pull()
        log.write(b"2")
        (copy.root / "d").symlink_to(outside)
        assert copy.push()["conflicts"] == [["d/log", "d.conflict-A"]]
    assert (outside / "log").read_text() == "outside"
    assert contents() == {"d": os.fsencode(outside), "d.conflict-A": b"12"}


def test_a_file_below_a_deleted_directory_is_restored_and_reported(s3: MemoryS3, make: Make) -> None:
    copy = make()
    copy.pull()
    copy.write("d/e/f", "1")
    copy.push()
    shutil.rmtree(copy.root / "d")
    s3.put(PREFIX + "d/e/f", b"theirs")
    assert copy.push()["restored"] == [["d/e/f", "it was deleted here and changed in S3"]]
    assert copy.files() == {"d/e/f": b"theirs"}


def test_objects_of_a_file_and_below_it_are_kept(s3: MemoryS3, make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.push()
    s3.put(PREFIX + "a/b", b"2")
    report = copy.pull()
    assert "below this name" in report["skipped"][0][1]  # its writer may have stored it a moment ago
    copy.push()
    again = make()  # as after a kill
    again.pull()
    again.push()
    assert contents() == {"a": b"1", "a/b": b"2"}
    assert again.files() == {"a/b": b"2"}


@pytest.mark.parametrize("year", [1935, 1969, 1970, 2400])
def test_times_of_other_centuries_survive(s3: MemoryS3, make: Make, year: int) -> None:
    first, second = make("A"), make("B")
    first.pull()
    first.write("a", "1")
    then = int(datetime.datetime(year, 12, 31, tzinfo=datetime.UTC).timestamp()) * 10**9 + 5
    os.utime(first.root / "a", ns=(then, then))
    assert first.push()["failure"] == ""
    second.pull()
    assert os.stat(second.root / "a").st_mtime_ns == then
    again = make("B")  # it loads the index
    s3.requests.clear()
    again.pull()
    assert {request.method for request in s3.requests if request.key} == set()


def test_a_directory_in_the_place_of_a_file_and_back(make: Make, contents: Contents) -> None:
    first, second = make("A"), make("B")
    first.pull()
    first.write("a", "1")
    first.push()
    second.pull()
    (first.root / "a").unlink()
    first.write("a/b", "2")
    first.push()
    second.pull()
    assert second.files() == contents() == {"a/b": b"2"}
    shutil.rmtree(second.root / "a")
    second.write("a", "3")
    second.push()
    first.pull()
    assert first.files() == contents() == {"a": b"3"}


@pytest.mark.parametrize("name", ["../a", "d/../a", "a//b", "/a", "./a", "d/./a", "x" * 300, "d\0e"])
def test_keys_that_cannot_be_files_are_reported_and_kept(
    s3: MemoryS3, make: Make, contents: Contents, name: str
) -> None:
    s3.put(PREFIX + name, b"1")
    s3.put(PREFIX + "ok", b"2")
    copy = make()
    report = copy.pull()
    assert (report["failure"], report["skipped_count"]) == ("", 1)
    assert copy.files() == {"ok": b"2"}
    copy.push()
    assert contents() == {name: b"1", "ok": b"2"}


def test_names_that_differ_little_are_different_files(make: Make, contents: Contents) -> None:
    first, second = make("A"), make("B")
    names = [
        "caf\u00e9",
        "cafe\u0301",
        "Readme",
        "README",
        "a b",
        "a+b",
        "a%20b",
        "a\nb",
        "\u2028",
        "-",
        "~",
        "é/ü",
        "*?",
    ]
    first.pull()
    for number, name in enumerate(names):
        first.write(name, str(number))
    assert first.push()["skipped"] == []
    second.pull()
    assert second.files() == contents() == {name: str(number).encode() for number, name in enumerate(names)}


def test_files_that_cannot_be_objects_are_reported_once_and_stay(make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    os.mkfifo(copy.root / "pipe")
    Path(os.fsdecode(os.fsencode(str(copy.root)) + b"/\xff")).write_bytes(b"1")
    long = "/".join(["n" * 200] * 6)
    copy.write(long, "2")
    server = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(copy.root):  # the path of a socket is limited to 108 bytes
        server.bind("socket")
    report = copy.push()
    server.close()
    assert report["skipped_count"] == 4
    assert contents() == {}
    assert copy.push()["skipped"] == []
    assert copy.pull()["failure"] == ""
    assert long in copy.files()


def test_git_references_are_stored_after_their_objects(s3: MemoryS3, make: Make) -> None:
    copy = make()
    copy.pull()
    order = [
        "src/main",
        ".git/objects/ab/c",
        "objects/r/.git/objects/o",
        ".git/config",
        "objects/r/.git/refs/heads/m",
    ]
    order += [
        ".git/refs/heads/main",
        ".git/HEAD",
        ".git/index",
        ".git/packed-refs",
        "bare.git/refs/heads/main",
    ]
    for name in order:
        copy.write(name, name)
    copy.write("bare.git/objects/o", "1")
    s3.requests.clear()
    copy.push()
    stored = [request.key[len(PREFIX) :] for request in s3.requests if request.method == "PUT"]
    last_object = max(stored.index(name) for name in (*order[:3], "bare.git/objects/o"))
    first_reference = min(stored.index(name) for name in order[4:])
    assert last_object < stored.index(".git/config") < first_reference


@pytest.mark.parametrize("is_local", [False, True])
def test_git_references_are_not_stored_without_their_objects(
    s3: MemoryS3, make: Make, contents: Contents, monkeypatch: pytest.MonkeyPatch, is_local: bool
) -> None:
    copy = make()
    copy.pull()
    names = [".git/objects/ab/cd", ".git/config", ".git/refs/heads/main"]
    for name in names:
        copy.write(name, name)
    if is_local:
        pread = os.pread

        def fail(fd: int, *arguments: int) -> bytes:
            data = pread(fd, *arguments)
            if data == names[0].encode():
                raise OSError(errno.EIO, "Input/output error")
            return data

        monkeypatch.setattr(os, "pread", fail)
    else:
        s3.intercept = lambda request, _: error(400, "Odd") if request.key.endswith("/cd") else None
    report = copy.push()
    assert report["failure"]
    assert report["unpushed"] == sorted(names)
    assert contents() == {}
    s3.intercept = None
    monkeypatch.undo()
    assert copy.push()["unpushed"] == []
    assert contents().keys() == set(names)


def test_a_refused_file_outside_of_git_holds_no_reference_back(
    s3: MemoryS3, make: Make, contents: Contents
) -> None:
    copy = make()
    copy.pull()
    for name in ("notes.txt", ".git/objects/ab/cd", ".git/refs/heads/main"):
        copy.write(name, name)
    s3.intercept = lambda request, _: error(400, "Odd") if request.key.endswith("notes.txt") else None
    report = copy.push()
    assert report["unpushed"] == ["notes.txt"]
    assert contents().keys() == {".git/objects/ab/cd", ".git/refs/heads/main"}


def test_a_fifo_in_place_of_the_index_blocks_no_call(make: Make) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    os.mkfifo(f"{copy.spec['state']}/index.new")
    with pytest.raises(OSError, match="No such device"):  # the resident reports it
        copy.push()


# --- uploads in parts ---


@pytest.fixture
def _parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sync_objects, sync_tree):
        monkeypatch.setattr(module, "PART_BYTES", 300_000)
    monkeypatch.setattr(sync_objects, "PARTS_ABOVE_BYTES", 1_000_000)


@pytest.mark.usefixtures("_parts")
@pytest.mark.parametrize("random_etags", [False, True])
def test_large_files_travel_in_parts(
    s3: MemoryS3, make: Make, contents: Contents, random_etags: bool
) -> None:
    s3.random_etags = random_etags
    first, second = make("A"), make("B")
    first.pull()
    data = os.urandom(2_000_001)
    first.write("a", data).chmod(0o755)
    first.push()
    assert contents() == {"a": data}
    second.pull()
    assert second.files() == {"a": data}
    assert stat.S_IMODE((second.root / "a").stat().st_mode) == 0o755
    assert second.push()["pushed"] == 0
    os.unlink(f"{first.spec['state']}/index")
    again = make("A")
    again.pull()
    report = again.push()
    assert (report["pushed"], report["conflicts"]) == (0, [])


@pytest.mark.usefixtures("_parts")
@pytest.mark.parametrize("is_known", [False, True])
def test_the_completion_of_an_upload_is_conditional(
    s3: MemoryS3, make: Make, contents: Contents, is_known: bool
) -> None:
    copy = make()
    copy.pull()
    mine, theirs = b"m" * 2_000_000, b"theirs"
    if is_known:
        copy.write("a", "1")
        copy.push()
    copy.write("a", mine)

    def overtake(request: Request, _: Serve) -> Answer | None:
        if request.method == "POST" and "uploadId" in request.query:
            s3.put(PREFIX + "a", theirs)
        return None

    s3.intercept = overtake
    assert copy.push()["conflicts_count"] == 1
    s3.intercept = None
    copy.push()
    assert sorted(contents().values()) == sorted([mine, theirs])
    assert contents()["a"] == theirs
    assert s3._uploads == {}


@pytest.mark.usefixtures("_parts")
def test_the_object_is_read_before_a_completion_that_the_store_does_not_check(
    s3: MemoryS3, make: Make, contents: Contents
) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.push()
    mine = b"m" * 2_000_000
    copy.write("a", mine)

    def overtake(request: Request, _: Serve) -> Answer | None:
        if request.query.get("partNumber") == "1":
            s3.put(PREFIX + "a", b"theirs")
        if request.method == "POST":
            request.headers.pop("if-match", None)
        return None

    s3.intercept = overtake
    assert copy.push()["conflicts_count"] == 1
    assert sorted(contents().values()) == [mine, b"theirs"]


@pytest.mark.usefixtures("_parts")
@pytest.mark.parametrize(
    "body",
    [b"<Error><Code>InternalError</Code></Error>", b"<Error><Code>PreconditionFailed</Code></Error>", b""],
)
def test_a_completion_that_fails_in_its_body_is_not_mistaken(
    s3: MemoryS3, make: Make, contents: Contents, body: bytes
) -> None:
    copy = make()
    copy.pull()
    copy.write("a", b"1" * 2_000_000)
    left = 1

    def fail(request: Request, _: Serve) -> Answer | None:
        nonlocal left
        if request.method == "POST" and "uploadId" in request.query and left:
            left -= 1
            return Answer(200, body)
        return None

    s3.intercept = fail
    report = copy.push()
    if report["failure"]:
        assert report["unpushed"] == ["a"]
        assert contents() == {}
        assert copy.push()["failure"] == ""
    assert contents() == {"a": b"1" * 2_000_000}


@pytest.mark.usefixtures("_parts")
def test_a_completion_whose_answer_is_lost_is_adopted(s3: MemoryS3, make: Make, contents: Contents) -> None:
    copy = make()
    copy.pull()
    copy.write("a", b"1" * 2_000_000)
    left = 1

    def lose(request: Request, serve: Serve) -> Answer | None:
        nonlocal left
        if request.method == "POST" and "uploadId" in request.query and left:
            left -= 1
            serve()
            return DROPPED
        return None

    s3.intercept = lose
    report = copy.push()
    assert (report["failure"], report["conflicts"]) == ("", [])
    assert contents() == {"a": b"1" * 2_000_000}


# --- the index ---


def _entry(**changes: Any) -> list[Any]:
    fields: dict[str, Any] = {
        "etag": "e", "modified": "", "put_at": 0.0, "mode": 0o100644, "size": 1, "mtime_ns": 1, "ctime_ns": 1,
        "inode": 1, "is_racy": False, "digest": "",
    }  # fmt: skip
    return list({**fields, **changes}.values())


HOSTILE: list[Any] = [
    [], None, 1, "x", {}, {"count": 5}, {"count": "x"}, {"entries": {"a": []}}, {"entries": {"a": None}},
    {"entries": {"a": _entry(mode="x")}}, {"entries": {"a": _entry(mode=10**30)}},
    {"entries": {"a": _entry(mode=-1)}}, {"entries": {"a": _entry(size=10**400)}},
    {"entries": {"a": _entry(etag='"\r\nx-amz-acl: public-read')}}, {"entries": {"a": _entry(etag="\udc80")}},
    {"entries": {"../../outside": _entry()}}, {"entries": {"a/../../outside": _entry()}},
    {"entries": {"a\0b": _entry()}}, {"entries": {"n" * 5000: _entry()}}, {"honours_delete": "yes"},
    {"honours_delete": []}, {"version": 1}, {"entries": {"a": _entry(put_at=float("nan"))}},
    {"entries": {"a": _entry(is_racy=1)}},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_index_harms_nothing(
    s3: MemoryS3, make: Make, contents: Contents, number: int, tmp_path: Path
) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.push()
    (tmp_path / "outside").write_text("outside")
    at = Path(copy.spec["state"], "index")
    about, *entries = map(json.loads, at.read_text().splitlines())
    changes = HOSTILE[number]
    if isinstance(changes, dict) and changes:
        changes = dict(changes)
        entries = list(changes.pop("entries", dict(entries)).items())
        about = {**about, "count": len(entries), **changes}
    else:
        about = changes
    at.write_text("".join(json.dumps(line) + "\n" for line in [about, *entries]))
    again = make()
    again.write("b", "2")
    assert again.pull()["failure"] == again.push()["failure"] == ""
    assert contents() == {"a": b"1", "b": b"2"}
    assert (tmp_path / "outside").read_text() == "outside"


def test_an_impossible_mode_of_an_object_does_not_spoil_the_index(s3: MemoryS3, make: Make) -> None:
    s3.put(PREFIX + "a", b"1", {"file-permissions": "2100644"})
    copy = make()
    copy.write("a", "1")
    assert copy.pull()["failure"] == ""
    assert make().copy.index.entries.keys() == {"a"}


@pytest.mark.parametrize("kind", ["pipe", "directory", "half", "deep", "binary"])
def test_an_index_that_is_no_index_is_ignored(make: Make, contents: Contents, kind: str) -> None:
    copy = make()
    copy.pull()
    copy.write("a", "1")
    copy.push()
    at = Path(copy.spec["state"], "index")
    content = at.read_bytes()
    at.unlink()
    if kind == "pipe":
        os.mkfifo(at)
    elif kind == "directory":
        at.mkdir()
    else:
        at.write_bytes({"half": content[:-20], "deep": b"[" * 100_000, "binary": b"\xff\0"}[kind])
    again = make()
    if kind == "directory":
        at.rmdir()
    (again.root / "a").unlink()
    assert again.pull()["failure"] == again.push()["failure"] == ""
    assert contents() == {"a": b"1"}
    assert again.files() == {"a": b"1"}


# --- killed at each step ---


@pytest.mark.parametrize("action", ["pull", "push"])
def test_a_kill_at_any_step_loses_nothing(
    s3: MemoryS3, workers: Workers, tmp_path: Path, action: str
) -> None:
    steps = range(0, 60, 2) if action == "pull" else range(1, 60, 2)
    for kill_at in steps:
        s3.reset()
        copy = WorkingCopy(workers, f"{tmp_path}/{kill_at}", s3.endpoint, "A")
        root = Path(copy.root)
        for name in ("changed", "both", "deleted", "theirs", "gone"):
            (root / name).write_text(f"old {name}")
        copy.sync("pull")
        copy.sync("push")
        for name in ("changed", "both"):
            (root / name).write_text(f"mine {name}")
        (root / "deleted").unlink()
        (root / "d").mkdir()
        (root / "d" / "new").write_text("mine new")
        s3.put(PREFIX + "both", b"theirs both")
        s3.put(PREFIX + "theirs", b"theirs theirs")
        s3.put(PREFIX + "file/below", b"theirs below")
        s3.remove(PREFIX + "gone")
        if action == "push":
            copy.sync("pull")
            s3.put(PREFIX + "changed", b"theirs changed")
        report = copy.sync(action, kill_at)
        for again in ("pull", "push", "pull", "push"):
            report = copy.sync(again) or {}
            assert report["failure"] == ""
        copy.end()
        kept = {stored.data for stored in s3.objects.values()}
        wanted = {
            b"mine changed",
            b"mine both",
            b"mine new",
            b"theirs both",
            b"theirs theirs",
            b"theirs below",
        }
        wanted |= {b"theirs changed"} if action == "push" else set()
        assert kept - {b"old deleted", b"old gone"} == wanted, kill_at
        assert {at.read_bytes() for at in root.rglob("*") if at.is_file()} == kept, kill_at
