"""Files on S3 behave as files in a sandbox do: the same operations over a bucket and over the real guest."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._core.files import rendering as render
from langchain_daytona_ws._core.files.models import NeedsSandbox, WriteQuery
from langchain_daytona_ws._core.files.operations import FileOperations
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.files import S3Files
from langchain_daytona_ws._guest import files, search, similar_paths, tree
from langchain_daytona_ws.errors import WorkspaceError

from .bucket import MemoryBucket
from .guest import guest_operations

GUESTS = {"files": files.main, "tree": tree.main, "search": search.main, "similar_paths": similar_paths.main}
NAMES = ["a", "a.b", "a-", "b", "é", "node_modules", "A", "{x}", "a b", ".h"]
# A few paths again and again, so that operations meet.
PATHS = st.one_of(
    st.sampled_from(["a", "a/b", "a.b", "a-/a", "b/a", "a/b/a", "node_modules/a", "b/node_modules/a"]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join),
)
TEXTS = st.sampled_from(
    [
        "",
        "one\n",
        "one\r\ntwo\r\n",
        "two one two",
        "b\0n",
        "\0\0one",
        "one\n" * 30 + "two \0 one\n",
        "y" * 900 + "one\n",
        "é ünï\n\n",
        "word_1 word\n" * 5,
        "x" * 3000 + "\none",
        "\ufeffone\r\ntwo\r\n",
        "one\r\ntwo\n",
        "one\u00a0two \u201cword\u201d\n",
    ]
)
GLOBS = st.sampled_from(
    [
        "*",
        "**",
        "**/*",
        "a*",
        "*/",
        "**/",
        "a/*",
        "a/**",
        "**/a",
        "{a,b}/*",
        "node_modules/**",
        "**/[ab]",
        "[!a]",
        "a/b/*",
    ]
)
PATTERNS = st.sampled_from(
    [
        "one",
        "^one$",
        r"\bone\b",
        r"\w+",
        "^$",
        "x{3}",
        "[^o]n",
        "ONE",
        r"\s",
        r"w\w*_\d",
        "(one|two)",
        "zz",
        r"[é\d]",
        ".",
    ]
)
WRITES = st.tuples(st.just("write"), PATHS, TEXTS, st.booleans())
ACTIONS = st.one_of(
    WRITES,
    st.tuples(
        st.just("edit"), PATHS, st.sampled_from(["one", "word", "two\n", "x", "one two", '"word"', "ONE"]),
        st.sampled_from(["1", "", "a\nb", "one 2"]),
        st.booleans(),
    ),
    st.tuples(st.just("read"), PATHS, st.integers(1, 3)),
    st.tuples(st.just("delete"), PATHS),
    st.tuples(st.just("list"), PATHS | st.just(".")),
    st.tuples(st.just("glob"), GLOBS, PATHS | st.just(".")),
    st.tuples(
        st.just("grep"), PATTERNS, PATHS | st.just("."),
        st.none() | st.sampled_from(["a*", "!a", "*.b", "a/*", "node_modules/", "a/**"]),
        st.sampled_from(["files_with_matches", "content", "count"]), st.integers(0, 2), st.booleans(),
        st.sampled_from([2, 100]),
    ),
)  # fmt: skip


class Twins:
    """The same files in a bucket and in a directory, each behind its guest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bucket = MemoryBucket(page=3)
        self.objects = FileOperations(S3Files(self.bucket), root="/mnt/demo")
        self.disk = guest_operations(self._guest, root=str(root))

    async def _guest(self, entry: str, request: dict[str, Any]) -> Any:
        return json.loads(json.dumps(GUESTS[entry](request)))

    def both(self, call: Callable[[FileOperations], Awaitable[object]]) -> tuple[object, object]:
        try:
            on_s3 = outcome(call, self.objects)
        except NeedsSandbox:
            on_s3 = None
        on_disk = outcome(call, self.disk)
        self._vanish()
        return on_s3, on_disk

    def _vanish(self) -> None:
        """Remove directories without files, which do not exist on S3."""
        for location, _, _ in os.walk(self.root, topdown=False):
            if location != str(self.root) and not os.listdir(location):
                os.rmdir(location)


def outcome(call: Callable[[FileOperations], Awaitable[object]], ops: FileOperations) -> object:
    async def run() -> object:
        return await call(ops)

    try:
        result: dict[str, Any] = asdict(run_sync(run()))  # type: ignore[call-overload]
    except WorkspaceError as error:
        # Only on S3 a directory that was made in bash may not be seen yet.
        output = error.message.replace(
            " A directory created in bash appears here when it contains a file.", ""
        )
        return type(error), error.code, output, error.for_model == error.message, error.retryable
    result.pop("mtime_ns", None)
    for entry in result.get("entries", ()):
        del entry["mtime_ns"]
    if "pattern" in result and "entries" in result:  # newest first, but S3's seconds are the test's
        result["entries"] = sorted(result["entries"], key=lambda entry: str(entry["name"]))
        result["skipped"] = sorted(result["skipped"])
    return result


def performed(action: tuple[Any, ...]) -> Callable[[FileOperations], Awaitable[object]]:
    name, *rest = action
    match name:
        case "write":
            return lambda ops: ops.write(rest[0], rest[1], overwrite=rest[2])
        case "edit":
            return lambda ops: ops.edit(rest[0], rest[1], rest[2], replace_all=rest[3])
        case "read":
            return lambda ops: ops.read(rest[0], offset=rest[1])
        case "glob":
            return lambda ops: ops.glob(rest[0], path=rest[1])
        case "grep":
            pattern, path, glob, mode, around, ignore, limit = rest
            return lambda ops: ops.grep(
                pattern, path=path, glob=glob, output_mode=mode, before=around, after=around,
                ignore_case=ignore, limit=limit,
            )  # fmt: skip
        case _:
            return lambda ops: getattr(ops, name)(rest[0])


@settings(max_examples=150)
@given(st.lists(WRITES, min_size=3, max_size=6), st.lists(ACTIONS, min_size=4, max_size=12))
@example(
    [("write", "node_modules", "one\n", False), ("write", "a", "one\n", False)],
    [
        ("grep", "one", ".", "node_modules/", "content", 0, False, 100),
        ("grep", "one", ".", "a/**", "content", 0, False, 100),
    ],
)
def test_the_same_operations_have_the_same_outcomes(
    writes: list[tuple[Any, ...]], actions: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        twins = Twins(Path(directory))
        for action in [*writes, *actions]:
            on_s3, on_disk = twins.both(performed(action))
            event(
                f"{action[0]} {on_s3[1] if isinstance(on_s3, tuple) else 'sandbox' if on_s3 is None else 'done'}"
            )
            assert on_s3 is None or on_s3 == on_disk, action
        there = {
            str(path.relative_to(twins.root)): path.read_bytes()
            for path in twins.root.rglob("*")
            if path.is_file()
        }
        assert twins.bucket.data() == there


NAMED: dict[str, Callable[[FileOperations], Awaitable[object]]] = {
    "a name in other case": lambda ops: ops.read("readme.MD"),
    "a directory in other case": lambda ops: ops.read("docs/a"),
    "a narrow space": lambda ops: ops.edit("Shot 9 PM.png", "x", "y"),
    "another form of a letter": lambda ops: ops.read("caf\u00e9.txt"),
    "a curly quote": lambda ops: ops.delete("it's.txt"),
    "a shell's escapes": lambda ops: ops.grep("x", path="a\\ b.txt"),
    "quotes": lambda ops: ops.read("'a b.txt'"),
    "backslashes": lambda ops: ops.list("Docs\\deep"),
    "backslashes at a new name": lambda ops: ops.write("Docs\\new", "x"),
    "backslashes in a name that is there": lambda ops: ops.write("back\\slash", "y", overwrite=True),
    "backslashes that are meant": lambda ops: ops.write("$'new\\\\slash'", "y"),
    "nothing like it": lambda ops: ops.read("zzz/zzz"),
    "several like it": lambda ops: ops.read("SAME"),
    "a way through a file": lambda ops: ops.read("README.md/x"),
    "the base of a search": lambda ops: ops.glob("*", path="DOCS"),
    "outside, there without its first part": lambda ops: ops.read("/workspace/Docs/A"),
    "outside, a directory": lambda ops: ops.glob("*", path="/project/Docs"),
    "outside, not there": lambda ops: ops.read("/workspace/zzz"),
    "outside, a home": lambda ops: ops.write("~/Docs/A", "x"),
    "as it was printed": lambda ops: ops.read("$'Shot 9\\u202fPM.png'"),
    "a directory for a file": lambda ops: ops.write("Docs/deep/", "x"),
}


@pytest.mark.parametrize("subject", NAMED)
def test_both_backends_resolve_names_alike(tmp_path: Path, subject: str) -> None:
    twins = Twins(tmp_path)
    for path in (
        *(
            "README.md",
            "Docs/A",
            "Docs/deep/b",
            "Shot 9\u202fPM.png",
            "cafe\u0301.txt",
            "it\u2019s.txt",
            "a b.txt",
        ),
        *("back\\slash", "Same", "sAme", "samE", "saMe"),
    ):
        content = b"x\n"
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
        twins.bucket.put_by_others(path, content)
    on_s3, on_disk = twins.both(NAMED[subject])
    assert on_s3 == on_disk
    expected = EXPECTED[subject]
    shown_there = on_disk[2] if isinstance(on_disk, tuple) else on_disk
    assert expected in str(shown_there)


EXPECTED = {
    "a name in other case": "Did you mean README.md?",
    "a directory in other case": "Did you mean Docs/A?",
    "a narrow space": "Did you mean $'Shot 9\\u202fPM.png'?",
    "another form of a letter": "Did you mean $'cafe\\u0301.txt'?",
    "a curly quote": "Did you mean it\u2019s.txt?",
    "a shell's escapes": "Did you mean a b.txt?",
    "quotes": "Did you mean a b.txt?",
    "backslashes": "Did you mean Docs/deep?",
    "backslashes at a new name": "Use Docs/new, with slashes",
    "backslashes in a name that is there": "'created': False",
    "backslashes that are meant": "'created': True",
    "nothing like it": "zzz/zzz does not exist. Use list or glob",
    "several like it": "Did you mean Same or sAme or saMe?",
    "a way through a file": "is not a directory",
    "the base of a search": "Did you mean Docs?",
    "outside, there without its first part": "use Docs/A, which exists there",
    "outside, a directory": "use Docs, which exists there",
    "outside, not there": "use workspace/zzz for a file there",
    "outside, a home": "use Docs/A, which exists there",
    "as it was printed": "x",
    "a directory for a file": "names a directory",
}


STYLES = {
    "CRLF is kept": (b"a\r\nb\r\n", "x\ny\n", b"x\r\ny\r\n", ("crlf",), ()),
    "a byte order mark is kept": (b"\xef\xbb\xbfa\n", "x\n", b"\xef\xbb\xbfx\n", ("bom",), ()),
    "both are": (b"\xef\xbb\xbfa\r\n", "x\n", b"\xef\xbb\xbfx\r\n", ("bom", "crlf"), ()),
    "those that come with it are not doubled": (
        b"\xef\xbb\xbfa\r\n",
        "\ufeffx\r\n",
        b"\xef\xbb\xbfx\r\n",
        (),
        (),
    ),
    "mixed ones are gone": (b"a\r\nb\n", "x\ny\n", b"x\ny\n", (), ("crlf",)),
    "no lines, no line ends": (b"a\r\n", "x", b"x", (), ()),
    "an empty file has none": (b"\xef\xbb\xbfa\r\n", "", b"", (), ()),
    "bytes are written as they are": (b"\xef\xbb\xbfa\r\n", b"x\n", b"x\n", (), ()),
    "what is binary has no lines": (b"\0\0\r\n", "x\n", b"x\n", (), ()),
    "what is not UTF-8 is gone": (b"caf\xe9\r\n", "caf\u00e9\n", b"caf\xc3\xa9\r\n", ("crlf",), ("bytes",)),
    "LF stays": (b"a\n", "x\r\n", b"x\r\n", (), ()),
}


@pytest.mark.parametrize("read", [True, False], ids=["read", "overwrite"])
@pytest.mark.parametrize("subject", STYLES)
def test_a_write_keeps_line_ends_and_byte_order_mark(tmp_path: Path, subject: str, read: bool) -> None:
    before, content, after, kept, gone = STYLES[subject]
    twins = Twins(tmp_path)
    (tmp_path / "a").write_bytes(before)
    twins.bucket.put_by_others("a", before)
    if read and b"\0" not in before:
        twins.both(lambda ops: ops.read("a"))
    results = twins.both(lambda ops: ops.write("a", content, overwrite=not read or b"\0" in before))
    for result in results:
        assert isinstance(result, dict)
        assert (result["kept"], result["gone"], result["size_bytes"]) == (kept, gone, len(after))
    assert results[0] == results[1]
    assert (tmp_path / "a").read_bytes() == twins.bucket.data()["a"] == after
    # What was written counts as read; and the same content again is no change.
    again = twins.both(lambda ops: ops.write("a", content))
    assert again[0] == again[1]
    assert isinstance(again[0], dict)
    assert again[0]["unchanged"]


def test_a_large_upload_keeps_them_too(tmp_path: Path) -> None:
    root, staged = tmp_path / "ws", tmp_path / "staged"
    root.mkdir()

    async def guest(entry: str, request: dict[str, Any]) -> Any:
        return GUESTS[entry](request)

    async def upload(path: str, data: bytes) -> None:
        staged.write_bytes(data)
        os.rename(staged, path)

    ops = guest_operations(guest, upload, root=str(root), staging_dir=str(tmp_path))
    (root / "a").write_bytes(b"\xef\xbb\xbfa\r\n")
    result = run_sync(ops.write("a", "x\n" * 200_000, overwrite=True))
    assert (result.kept, result.size_bytes) == (("bom", "crlf"), 600_003)
    assert (root / "a").read_bytes() == b"\xef\xbb\xbf" + b"x\r\n" * 200_000
    assert sorted(os.listdir(tmp_path)) == ["ws"]


def test_a_write_that_was_sent_before_is_answered_with_what_it_kept() -> None:
    bucket = MemoryBucket()
    bucket.put_by_others("a", b"\xef\xbb\xbfa\r\n")
    query = WriteQuery(b"x\n", overwrite=True, expected_sha256=None, as_text=True, max_bytes=100)
    first = run_sync(S3Files(bucket).write("a", query, key="k" * 32))
    assert first.kept == ("bom", "crlf")
    assert run_sync(S3Files(bucket).write("a", query, key="k" * 32)) == first, (
        "by another process, which remembers no answer"
    )


INTENDED = {
    "alike": ("a\u00a0b c".encode(), "a b c", "a b d", "Edited a: 1 replacement, at line 1.\n[The text there is not "
              "exactly old_string: line 1, column 2 has NO-BREAK SPACE (U+00A0), old_string SPACE (U+0020). "
              "The parts that new_string repeats were kept unchanged.]\n"),
    "not clear": ("a\u00a0b a\u202fb".encode(), "a b", "c", "It would match at 2 or more places, first line 1, except "
                  "for characters that look alike (line 1, column 2 has NO-BREAK SPACE (U+00A0), old_string SPACE"),
    "a form": ("cafe\u0301".encode(), "\u00e9", "e", "line 1, column 4 has LATIN SMALL LETTER E (U+0065) + COMBINING "
               "ACUTE ACCENT (U+0301), old_string LATIN SMALL LETTER E WITH ACUTE (U+00E9)."),
    "whitespace": (b"if x:\n\ty\n", "    y", "z", "at line 2 except for whitespace (line 2, column 1 has TAB (U+0009), "
                   "old_string SPACE (U+0020))"),
    "bytes": (b"caf\xe9 x", r"caf\xe9", r"th\xe9", "Edited a: 1 replacement, at line 1.\n     1\tth\\xe9 x"),
    "mixed": (b"caf\xe9 x", "x", "\u00e9", "[The file is not UTF-8, and the inserted text is."),
    "verbatim": (b"caf\xe9 x", "x", r"\xe8", r"[\xNN was inserted as four characters."),
    "invisible": ("a\u200bb c".encode(), "ab", "x", "ZERO WIDTH SPACE (U+200B), old_string nothing."),
}  # fmt: skip


@pytest.mark.parametrize("subject", INTENDED)
def test_both_backends_apply_edits_alike(tmp_path: Path, subject: str) -> None:
    before, old, new, text = INTENDED[subject]
    twins = Twins(tmp_path)
    (tmp_path / "a").write_bytes(before)
    twins.bucket.put_by_others("a", before)

    def output(ops: FileOperations) -> str:
        try:
            return render.edited(run_sync(ops.edit("a", old, new)))
        except WorkspaceError as error:
            return error.for_model

    assert output(twins.objects) == output(twins.disk)
    (tmp_path / "a").write_bytes(before)
    assert text in output(twins.disk)
    assert twins.bucket.data()["a"] == (tmp_path / "a").read_bytes()
