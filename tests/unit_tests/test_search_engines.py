"""Searches by ripgrep, by GNU grep and on S3 have the same results: also of binary files and of very long lines."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._core.files import rendering as render
from langchain_daytona_ws._core.files.models import GrepResult, Omitted
from langchain_daytona_ws._core.files.operations import FileOperations
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.files import S3Files
from langchain_daytona_ws._guest import files, search, tree
from langchain_daytona_ws.errors import FileError, FileUnsuitable

from .bucket import MemoryBucket
from .guest import guest_operations

GUESTS = {"files": files.main, "tree": tree.main, "search": search.main}
MODES = ["files_with_matches", "content", "count"]


class Box:
    """The same files behind one of the three."""

    def __init__(self, kind: str, at: Path) -> None:
        self.kind = kind
        self.root = at / "root"
        self.root.mkdir()
        self.bucket = MemoryBucket()
        (at / "bin").mkdir()
        if kind == "s3":
            self.ops = FileOperations(S3Files(self.bucket), root="/mnt/demo")
        else:
            found = shutil.which(kind)
            assert found, "ripgrep and grep are needed by these tests"
            os.symlink(found, at / "bin" / kind)
            self._tools = str(at / "bin")
            self.ops = guest_operations(self._guest, root=str(self.root))

    async def _guest(self, entry: str, request: dict[str, Any]) -> Any:
        return json.loads(json.dumps(GUESTS[entry]({**request, "tool_path": self._tools})))

    def put(self, name: str, data: bytes) -> None:
        if self.kind == "s3":
            self.bucket.put_by_others(name, data)
        else:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def grep(self, pattern: str, **options: Any) -> GrepResult:
        return run_sync(self.ops.grep(pattern, **options))

    def text(self, pattern: str, **options: Any) -> list[str]:
        return render.grepped(self.grep(pattern, **options)).split("\n")


@pytest.fixture(params=["rg", "grep", "s3"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    return Box(request.param, tmp_path)


# A log after a crash: one NUL among lines of text.
WITH_A_NUL = b"a line of the log\n" * 20 + b"cut \0 off\nneedle here\n"


@pytest.mark.parametrize("before", [0, 9000, 70_000])
def test_a_text_with_a_nul_is_text_for_all(box: Box, before: int) -> None:
    head = b"x" * 80 + b"\n"
    box.put("logs/app.log", head * (before // len(head)) + WITH_A_NUL)
    line = before // len(head) + 22
    for path in (".", "logs", "logs/app.log"):
        assert box.text("needle", path=path) == ["logs/app.log"]
        assert box.text("needle", path=path, output_mode="count") == ["logs/app.log:1"]
        assert box.text("needle", path=path, output_mode="content") == [f"logs/app.log:{line}:needle here"]
        assert box.text("cut", path=path, output_mode="content") == [f"logs/app.log:{line - 1}:cut \\x00 off"]
    assert run_sync(box.ops.read("logs/app.log", offset=line)).body.endswith("\tneedle here")
    assert run_sync(box.ops.edit("logs/app.log", "needle here", "found")).lines == (line,)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", [".", "data", "data/small.bin"])
def test_a_binary_file_that_matches_is_named(box: Box, mode: str, path: str) -> None:
    box.put("data/small.bin", b"\x7fELF\0\0\0\nneedle\n\0\0")
    box.put("data/other.bin", b"\0\0nothing\n")
    result = box.grep("needle", path=path, output_mode=mode)
    assert (result.rows, result.more) == ((), False)
    assert result.omitted == (Omitted("binary_match", 1, ("data/small.bin",)),)
    assert box.text("needle", path=path, output_mode=mode) == [
        "No match.",
        "[1 binary file matches, its lines are not shown: data/small.bin. Use grep -a in bash.]",
    ]
    with pytest.raises(FileUnsuitable, match="binary"):
        run_sync(box.ops.read("data/small.bin"))


def test_large_binary_files_are_not_searched_unless_named(box: Box) -> None:
    for number in range(7):
        box.put(f"images/{number}.png", b"\x89PNG\r\n\x1a\n\0\0" + b"\xff\n" * 50_000 + b"needle\n")
    box.put("notes.md", b"a needle\n")
    result = box.grep("needle")
    assert [row.path for row in result.rows] == ["notes.md"]
    assert result.omitted == (Omitted("binary", 7, tuple(f"images/{n}.png" for n in range(7))),)
    named = ", ".join(f"images/{n}.png" for n in range(5))
    assert box.text("needle") == ["notes.md", f"[Not searched: 7 binary files: {named}, ...]"]
    assert box.grep("needle", path="images/3.png").omitted == (Omitted("binary_match", 1, ("images/3.png",)),)


def test_utf16_is_searched_or_named(box: Box) -> None:
    box.put("windows.reg", "\ufeffthe needle\r\n".encode("utf-16-le"))
    box.put("plain", b"needle\n")
    expected = ["plain:1:needle", "windows.reg:1:the needle"]
    if box.kind == "grep":
        expected[1] = "[Not searched: 1 UTF-16 file: windows.reg. Convert with iconv in bash.]"
    assert box.text("needle", output_mode="content") == expected


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_named(box: Box, encoding: str) -> None:
    data = "the needle caf\u00e9 \u20ac\r\n".encode(encoding)
    box.put("in/windows.reg", data)
    box.put("in/large.reg", data * 5000)
    for path, names in (
        ("in/windows.reg", "1 UTF-16 file: in/windows.reg"),
        ("in/large.reg", "1 UTF-16 file: in/large.reg"),
        ("in", "1 UTF-16 file: in/large.reg"),
    ):
        expected = ["No match.", f"[Not searched: {names}. Convert with iconv in bash.]"]
        assert box.text("needle", path=path) == expected
    kind = f"UTF-16{encoding[-2:].upper()} text"
    for name in ("windows", "large"):
        with pytest.raises(FileUnsuitable, match=f"is {kind} .*iconv"):
            run_sync(box.ops.read(f"in/{name}.reg"))


def test_all_of_many_files_are_searched(box: Box) -> None:
    """More names than one program takes."""
    if box.kind == "s3":
        pytest.skip("so many are searched in the sandbox")
    directory = box.root / ("long" * 50) / ("name" * 50)
    directory.mkdir(parents=True)
    for number in range(400):
        (directory / f"{number:03}").write_text("x\n" if number % 9 else "needle\n")
    result = box.grep("needle")
    assert [row.path[-3:] for row in result.rows] == [f"{number:03}" for number in range(0, 400, 9)]


MINIFIED = b"function(){return 1};" * 75_000  # 1.5 MB in one line


@pytest.mark.parametrize("size", [1000, 50_000, len(MINIFIED)])
def test_a_match_in_a_long_line_is_shown_with_its_surroundings(box: Box, size: int) -> None:
    data = MINIFIED[:size]
    middle = size * 3 // 5
    box.put("dist/app.js", b"/* head */\n" + data[:middle] + b"needle" + data[middle:] + b"\nlast\n")
    result = box.grep("nee.le", output_mode="content")
    assert (len(result.rows), result.more, result.rows[0].line) == (1, False, 2)
    row = result.rows[0]
    assert row.column == middle + 1
    before = data[middle - 150 : middle].decode()
    after = data[middle : middle + 344].decode()
    assert row.text == f"...{before}needle{after}... [line cut]"
    assert box.text("nee.le", output_mode="content") == [f"dist/app.js:2:[column {middle + 1:,}] {row.text}"]


def test_the_column_is_of_the_first_match_in_bytes(box: Box) -> None:
    box.put("é.txt", "漢".encode() * 5000 + b"needle and needle" + "é".encode() * 5000)
    row = box.grep("needle", output_mode="content").rows[0]
    assert (row.column, row.text.index("needle")) == (15_001, 153)
    assert row.text.startswith("...漢漢")
    assert "\\x" not in row.text


def test_near_its_ends_a_long_line_is_cut_on_one_side(box: Box) -> None:
    box.put("a", b"x" * 100 + b"first" + b"y" * 2000 + b"last")
    head = box.grep("first", output_mode="content").rows[0]
    assert (head.column, head.text) == (101, "x" * 100 + "first" + "y" * 395 + "... [line cut]")
    tail = box.grep("last", output_mode="content").rows[0]
    assert (tail.column, tail.text) == (2106, "..." + "y" * 150 + "last")


@pytest.mark.parametrize("box", ["rg", "grep"], indirect=True)
def test_a_file_deleted_before_its_long_line_is_read(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def delete_and_find(self: Any) -> None:
        (box.root / "a").unlink()
        find(self)

    box.put("a", b"x" * 3000 + b"needle" + b"y" * 3000)
    box.put("b", b"needle\n")
    find = search._Search._find_in_long_lines
    monkeypatch.setattr(search._Search, "_find_in_long_lines", delete_and_find)
    result = box.grep("needle", output_mode="content")
    assert [row.path for row in result.rows if row.text == "needle"] == ["b"]
    assert result.more == (box.kind == "grep")  # ripgrep prints the excerpt in the first search


@pytest.mark.parametrize("box", ["rg", "grep"], indirect=True)
def test_a_program_that_is_killed_leaves_the_search_incomplete(box: Box) -> None:
    program = box.root.parent / "bin" / box.kind
    program.unlink()
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    box.put("a", b"needle\n")
    result = box.grep("needle")
    assert (result.more, result.timed_out) == (True, False)


def test_a_match_of_no_length_in_a_long_line(box: Box) -> None:
    box.put("a", b"x" * 3000)
    row = box.grep("^", output_mode="content").rows[0]
    assert row.text == "x" * 500 + "... [line cut]"


@pytest.fixture
def site(box: Box) -> Box:
    """A web project whose directories have brackets in their names."""
    box.put("app/[locale]/page.tsx", b"export default needle\n")
    box.put("app/docs/[[...slug]]/page.tsx", b"needle\n")
    box.put("app/x/b.ts", b"needle\n")
    return box


@pytest.mark.parametrize(
    ("glob", "path", "hint"),
    [
        ("app/[locale]/**", ".", r"app/[locale]/page.tsx exists: use app/\[locale]/**"),
        ("[locale]/*.tsx", "app", r"app/[locale]/page.tsx exists: use \[locale]/*.tsx"),
        ("**/[[...slug]]/**", ".", r"app/docs/[[...slug]]/page.tsx exists: use **/\[\[...slug]]/**"),
        ("*.ts,*.js", ".", "use {*.ts,*.js}"),
        ("**/*.ts, **/*.{js,jsx}", ".", "use {**/*.ts,**/*.{js,jsx}}"),
        ("app/**/*.ts", "app", "relative to the searched path: use **/*.ts"),
        ("app/[locale]/*", "app", r"use \[locale]/*"),
        ("**/*.@(ts|js)", ".", "use **/*.{ts,js}"),
        ("!(a|b)", ".", "!(...) is not a glob here"),
        # There is no other reading.
        ("*.py", ".", None),
        ("[ab].py", ".", None),
        ("app/**/*.py", "app", None),
        ("a,b", ".", None),
        ("{a,c}.ts", ".", None),
    ],
)
def test_a_glob_that_matches_nothing_is_doubted_where_there_is_a_reason(
    site: Box, glob: str, path: str, hint: str | None
) -> None:
    # A glob of grep's without a slash is for names at any depth.
    pattern = glob if "/" in glob else f"**/{glob}" if "," not in glob else glob.replace("*.", "**/*.")
    found = run_sync(site.ops.glob(pattern, path=path))
    searched = site.grep("needle", glob=glob, path=path)
    if glob != "!(a|b)":  # in grep it is a negation
        assert (found.entries, searched.rows) == ((), ())
    if hint is None:
        assert (found.hint, searched.hint) == ("", "")
        return
    if "," not in glob:
        assert hint in found.hint
        assert render.globbed(found).split("\n") == ["No file matches.", f"[{found.hint}]"]
    else:
        assert "use {**/" in found.hint
    if glob != "!(a|b)":
        assert hint in searched.hint
        assert render.grepped(searched).split("\n") == ["No match.", f"[{searched.hint}]"]


def test_what_a_hint_says_works(site: Box) -> None:
    for pattern, path in (("app/[locale]/**", "."), ("app/x/**", "app"), ("app/**/[[...slug]]/*", ".")):
        found = run_sync(site.ops.glob(pattern, path=path))
        again = run_sync(site.ops.glob(found.hint.rpartition("use ")[2], path=path))
        assert len(again.entries) == 1
        assert again.hint == ""


def test_a_glob_that_matches_other_files_is_in_doubt_for_its_brackets_only(site: Box) -> None:
    site.put("app/l/page.tsx", b"nothing\n")
    result = site.grep("needle", glob="app/[locale]/**")
    assert (result.rows, "app/[locale]/page.tsx exists" in result.hint) == ((), True)
    site.put("app/app/l.md", b"nothing\n")
    result = site.grep("needle", glob="app/*.md", path="app")
    assert (result.rows, result.hint) == ((), "")


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        (r"foo\|bar", "use foo|bar"),
        (r"\(foo\|bar\)+\.py", r"use (foo|bar)+\.py"),
        ("/Needle/i", "use Needle with ignore_case=true"),
        ("/api.v1/", "use api.v1"),
        ("nothing", ""),
        (r"a\\|nothing|b\.c", ""),
        ("/usr/local/bin", ""),
        ("/etc/hosts", ""),
        (r"[^\n]zz", ""),
        ("zz$", r"use \r?$"),
        (r"(zz|foo)\r?$", ""),
        (r"\$zz|[$]", ""),
    ],
)
def test_a_pattern_that_matches_nothing_is_doubted_where_there_is_a_reason(
    box: Box, pattern: str, hint: str
) -> None:
    box.put("a", b"xyz\n")
    if pattern == r"[^\n]zz" and box.kind == "s3":
        pytest.skip("only ripgrep reads it")
    found = box.grep(pattern)
    assert (bool(found.hint), hint in found.hint) == (bool(hint), True)
    assert box.text(pattern) == ["No match.", *([f"[{found.hint}]"] if hint else [])]
    box.put("b", b"foo|bar (foo|bar)).py /Needle/i /api/v1/ nothing a\\ /usr/local/bin /etc/hosts $zz")
    assert box.grep(pattern).hint == ""


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        ("(?<=a)b", "Look-around and backreferences are not supported."),
        (r"(a)\1", "Look-around and backreferences are not supported."),
        (r"a\nb", "A match is within one line"),
        (r"/a\/b/i", "use a/b with ignore_case=true"),
        ("(", "unclosed group"),
    ],
)
def test_an_error_recommends_only_what_the_tool_can_do(tmp_path: Path, pattern: str, advice: str) -> None:
    box = Box("rg", tmp_path)
    box.put("a", b"x\n")
    with pytest.raises(FileError) as caught:
        box.grep(pattern)
    assert advice in caught.value.for_model
    assert not re.search(r"--\w|Consider|multiline", caught.value.for_model)


def test_grep_searches_what_ripgrep_does_not(tmp_path: Path) -> None:
    box = Box("grep", tmp_path)
    box.put("a", b"ab\n")
    assert box.grep("(?<=a)b").rows
    assert "within one line" in box.grep(r"a\nb").hint


@pytest.mark.parametrize("program", ["rg", "grep"])
def test_what_cannot_be_read_is_named(program: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        at = Path(directory)
        at.chmod(0o755)
        box = Box(program, at)
        for name in ("open/a", "open/secret", "private/b"):
            box.put(name, b"needle\n")
        (box.root / "private").chmod(0)
        (box.root / "open/secret").chmod(0)
        grep = {"op": "grep", "pattern": "needle", "mode": "files_with_matches", "tool_path": str(at / "bin")}
        answer = as_nobody("search", grep, box.root)
        assert answer["rows"] == [["open/a"]]
        assert answer["omitted"] == {"unreadable": [2, ["open/secret", "private"]]}
        answer = as_nobody("tree", {"op": "glob", "pattern": "**/*"}, box.root)
        assert sorted(row[0] for row in answer["paths"]) == ["open/a", "open/secret"]
        assert answer["omitted"] == {"unreadable": [1, ["private"]]}
        (box.root / "private").chmod(0o755)


def test_a_directory_that_opens_and_refuses_to_be_read() -> None:
    """An unreadable directory, like /proc/1/map_files for root without all capabilities."""
    answer = as_nobody("tree", {"op": "glob", "pattern": "*/*/*"}, Path("/proc"))
    assert answer["ok"]
    assert any(path.endswith("/fd") for path in answer["omitted"]["unreadable"][1])


def as_nobody(entry: str, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Ask a guest that has no rights beyond those of a stranger."""
    given = {"root": str(root), "path": ".", "limit": 100, "limit_bytes": 65536, "timeout_s": 20, **request}
    program = (
        "import importlib, json, os, sys\n"
        "entry, request = json.loads(sys.argv[1])\n"
        "guest = importlib.import_module('langchain_daytona_ws._guest.' + entry)\n"
        "os.getuid() == 0 and os.setresuid(65534, 65534, 65534)\n"
        "print(json.dumps(guest.main(request)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, json.dumps([entry, given])],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer
