"""Searches on a bucket: their results, and searches that need the sandbox."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable
from typing import Any

import pytest

from langchain_daytona_ws._core.files import rendering as render
from langchain_daytona_ws._core.files.models import GrepResult, NeedsSandbox
from langchain_daytona_ws._core.files.operations import FileOperations
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3 import search
from langchain_daytona_ws._core.s3.files import S3Files
from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind
from langchain_daytona_ws.errors import FileError

from .bucket import MemoryBucket


@pytest.fixture
def bucket() -> MemoryBucket:
    made = MemoryBucket(page=7)
    made.put_by_others("a.txt", "one\ntwo\n")
    made.put_by_others("a/x.py", "import one\r\n")
    made.put_by_others("b/é.md", "# One\n\none — eins\n")
    made.put_by_others("node_modules/m.js", "one")
    made.put_by_others("a/node_modules/m.js", "one")
    return made


def grep(bucket: MemoryBucket, pattern: str, **options: Any) -> GrepResult:
    return run_sync(FileOperations(S3Files(bucket), root="/mnt/demo").grep(pattern, **options))


def outside(call: Awaitable[object]) -> str:
    async def run() -> None:
        await call

    with pytest.raises(NeedsSandbox) as caught:
        run_sync(run())
    return str(caught.value)


def test_rows(bucket: MemoryBucket) -> None:
    result = grep(bucket, "one", output_mode="content", after=1)
    assert render.grepped(result).split("\n") == [
        "a.txt:1:one", "a.txt-2-two", "--", "a/x.py:1:import one", "--", "b/é.md:3:one — eins",
        "[Not searched unless named: node_modules]",
    ]  # fmt: skip
    assert [row.count for row in grep(bucket, "o", output_mode="count").rows] == [2, 1, 1]
    assert [row.path for row in grep(bucket, "ONE", ignore_case=True, path="b").rows] == ["b/é.md"]
    assert [row.path for row in grep(bucket, "one", glob="**/node_modules/**").rows] == [
        "a/node_modules/m.js",
        "node_modules/m.js",
    ]
    assert grep(bucket, "one$").rows[0].path == "a.txt", "a carriage return is part of the line"
    assert [
        (row.path, row.line) for row in grep(bucket, "one", path="a/x.py", output_mode="content").rows
    ] == [("a/x.py", 1)]


def test_only_what_matches_the_glob_is_loaded(bucket: MemoryBucket) -> None:
    bucket.requests.clear()
    grep(bucket, "one", glob="*.py")
    assert bucket.asked("get") == [("get", "a/x.py")]


def test_encodings_are_detected_by_their_mark(bucket: MemoryBucket) -> None:
    bucket.objects.clear()
    bucket.put_by_others("utf16le", "\ufeffönly\n".encode("utf-16-le"))
    bucket.put_by_others("utf16be", "\ufeffönly\n".encode("utf-16-be"))
    bucket.put_by_others("utf8", "\ufeffönly\n".encode())
    bucket.put_by_others("latin1", "önly\n".encode("latin-1"))
    bucket.put_by_others("binary", b"nly\0")
    result = grep(bucket, "nly$", output_mode="content")
    assert [(row.path, row.text) for row in result.rows] == [
        ("latin1", "\\xf6nly"), ("utf16be", "önly"), ("utf16le", "önly"), ("utf8", "önly"),
    ]  # fmt: skip
    assert [row.path for row in grep(bucket, "^ön").rows] == ["utf16be", "utf16le", "utf8"]


def test_long_lines(bucket: MemoryBucket) -> None:
    bucket.put_by_others("long", b"x" * 3000 + b"\n" + b"y" * (1 << 21) + b"\n")
    cut = grep(bucket, "x{100}", output_mode="content", path="long")
    assert re.fullmatch(r"x{500}\.\.\. \[line cut\]", cut.rows[0].text)
    longest = grep(bucket, "y", output_mode="content", path="long")
    assert re.fullmatch(r"y{500}\.\.\. \[line cut\]", longest.rows[0].text)
    assert (len(longest.rows), longest.more) == (1, False)


def test_limits(bucket: MemoryBucket) -> None:
    for n in range(100):
        bucket.put_by_others(f"many/{n:03}", "hit\n" * 100)
    bucket.requests.clear()
    result = grep(bucket, "hit", path="many", output_mode="content", limit=150)
    assert (len(result.rows), result.more, result.rows[-1].path) == (150, True, "many/001")
    assert len(bucket.asked("get")) <= search.BATCH_FILES


def test_nothing_to_search(bucket: MemoryBucket) -> None:
    bucket.put_by_others("shadowed", "one")
    bucket.put_by_others("shadowed/")
    assert grep(bucket, "one", path="shadowed").rows == ()
    bucket.objects.clear()
    assert grep(bucket, "one").rows == ()


class TestNeedsSandbox:
    def ops(self, bucket: MemoryBucket) -> FileOperations:
        return FileOperations(S3Files(bucket), root="/mnt/demo")

    def test_too_many(self, bucket: MemoryBucket) -> None:
        for n in range(search.MAX_FILES + 1):
            bucket.put_by_others(f"many/{n}")
        bucket.requests.clear()
        assert "too much" in outside(self.ops(bucket).grep("x"))
        assert not bucket.asked("get"), "nothing is loaded for nothing"
        assert grep(bucket, "one", glob="*.md").rows

    def test_too_large(self, bucket: MemoryBucket) -> None:
        bucket.put_by_others("large/x", b"x" * (search.MAX_TOTAL_BYTES + 1))
        assert "too much" in outside(self.ops(bucket).grep("x"))
        assert "too large" in outside(self.ops(bucket).grep("x", path="large/x"))

    def test_what_only_ripgrep_can_read(self, bucket: MemoryBucket) -> None:
        bucket.put_by_others("c", "é eins")
        for pattern in ("(?=a)", "(", r"\beins\b"):
            assert "ripgrep" in outside(self.ops(bucket).grep(pattern))

    def test_too_slow(self, bucket: MemoryBucket) -> None:
        def slow() -> None:
            bucket.clock_s += 30

        for operation in ("list", "get"):
            bucket.script[operation] = [slow]
            assert "too" in outside(self.ops(bucket).grep("one"))

    def test_refusals_need_no_sandbox(self, bucket: MemoryBucket) -> None:
        with pytest.raises(FileError, match="one line"):
            grep(bucket, "a\nb")
        with pytest.raises(FileError, match="256 patterns"):
            grep(bucket, "a", glob="{a,b}" * 40)
        with pytest.raises(FileError, match="does not exist"):
            grep(bucket, "(", path="none")


def test_what_happens_meanwhile(bucket: MemoryBucket) -> None:
    bucket.script["get"] = [lambda: bucket.objects.pop("a/x.py") and None]
    assert [row.path for row in grep(bucket, "one").rows] == ["a.txt", "b/é.md"]
    bucket.script["get"] = [lambda: bucket.put_by_others("a.txt", b"one" * 1000)]
    with pytest.raises(NeedsSandbox):
        grep(bucket, "one")
    bucket.script["get"] = [StoreFault(StoreFaultKind.DENIED, "AccessDenied", status=403)]
    with pytest.raises(FileError) as caught:
        grep(bucket, "one")
    assert caught.value.code == "s3_denied"


def test_without_the_extra_literal_patterns_need_no_sandbox(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    assert [row.path for row in grep(bucket, "import one").rows] == ["a/x.py"]
    assert [row.path for row in grep(bucket, "IMPORT", ignore_case=True).rows] == ["a/x.py"]
    files = FileOperations(S3Files(bucket), root="/mnt/demo")
    assert outside(files.grep("^import")) == "the expression needs ripgrep"
