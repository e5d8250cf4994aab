"""FileOperations over the guest in this process, and over a guest with forged answers."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._core.files import errors as file_errors
from langchain_daytona_ws._core.files import rendering as render
from langchain_daytona_ws._core.files.guest import BATCH_FILES, INLINE_BYTES
from langchain_daytona_ws._core.files.models import Entry, GrepResult, GrepRow
from langchain_daytona_ws._core.files.operations import FileOperations
from langchain_daytona_ws._core.paths import shown
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._guest import files, search, similar_paths, tree
from langchain_daytona_ws.errors import (
    EditRefused,
    FileError,
    FileMissing,
    FileUnsuitable,
    OutcomeUnknown,
    PathRefused,
    SandboxError,
    SandboxUnavailable,
    WorkspaceError,
    WriteConflict,
)

from .guest import guest_files, guest_operations

GUESTS = {"files": files.main, "tree": tree.main, "search": search.main, "similar_paths": similar_paths.main}


class World:
    """A workspace directory, and the requests that reached it."""

    def __init__(self, path: Path) -> None:
        self.root = path / "mnt" / "demo"
        self.root.mkdir(parents=True)
        self.staging = path / "staging"
        self.staging.mkdir()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.ops = self.session()

    def session(self, **options: Any) -> FileOperations:
        return guest_operations(
            self.guest, self.upload, root=str(self.root), staging_dir=str(self.staging), **options
        )

    async def guest(self, entry: str, request: dict[str, Any]) -> Any:
        self.requests.append((entry, request))
        return json.loads(json.dumps(GUESTS[entry](request)))

    async def upload(self, path: str, data: bytes) -> None:
        self.requests.append(("upload", {}))
        with open(path, "wb") as stream:  # noqa: ASYNC230 (a file on a local disk)
            stream.write(data)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def refusal(
    kind: type[WorkspaceError], call: Awaitable[object], world: World | None = None
) -> WorkspaceError:
    async def run() -> None:
        await call

    with pytest.raises(kind) as caught:
        asyncio.run(run())
    error = caught.value
    if world:
        for text in (error.message, error.for_model, str(error.context)):
            assert str(world.root) not in text
    assert pickle.loads(pickle.dumps(error)).code == error.code
    return error


def test_the_usual_day(world: World) -> None:
    async def day() -> None:
        ops = world.ops
        assert (await ops.write("src/a.py", "x = 1\ny = 2\n")).created
        text = await ops.read(f"{world.root}/src/a.py", offset=2)
        assert render.file_text(text) == "     2\ty = 2\n[Showing lines 2-2 of 2.]"
        edited = await ops.edit("src/a.py", "y = 2", "y = 3")
        assert render.edited(edited).startswith("Edited src/a.py: 1 replacement, at line 2.\n     1\tx = 1\n")
        assert render.written(await ops.write("src/a.py", "z\n")) == "Wrote src/a.py (2 bytes)."
        assert (
            render.written(await ops.write("src/a.py", "z\n")) == "src/a.py already has exactly this content."
        )
        assert render.listing(await ops.list()) == "src/"
        assert render.listing(await ops.list("src")) == "a.py  2 bytes"
        assert render.globbed(await ops.glob("**/*.py")) == "src/a.py"
        assert render.grepped(await ops.grep("z")) == "src/a.py"
        assert render.grepped(await ops.grep("z", output_mode="content")) == "src/a.py:1:z"
        assert render.grepped(await ops.grep("z", output_mode="count", path="src")) == "src/a.py:1"
        assert render.deleted(await ops.delete("src/a.py")) == "Deleted src/a.py."
        assert render.deleted(await ops.delete("src")) == "Deleted the empty directory src."

    asyncio.run(day())
    assert len(world.requests) == 13, "one request each"


def test_runs_without_an_event_loop(world: World) -> None:
    assert run_sync(world.ops.write("a", "x")).created


class TestKnowing:
    def test_an_unread_file_is_not_overwritten(self, world: World) -> None:
        (world.root / "a").write_text("theirs")
        error = refusal(WriteConflict, world.ops.write("a", "mine"), world)
        assert "Read it first" in error.message
        assert (world.root / "a").read_text() == "theirs"
        asyncio.run(world.ops.write("a", "mine", overwrite=True))
        asyncio.run(world.ops.write("a", "mine again"))
        assert (world.root / "a").read_text() == "mine again"

    def test_a_page_counts_as_read(self, world: World) -> None:
        (world.root / "a").write_text("1\n2\n3\n")
        asyncio.run(world.ops.read("a", limit=1))
        asyncio.run(world.ops.write("a", "new"))

    def test_a_change_by_others_is_noticed(self, world: World) -> None:
        asyncio.run(world.ops.write("a", "one"))
        (world.root / "a").write_text("two")
        error = refusal(WriteConflict, world.ops.write("a", "three"), world)
        assert error.code == "changed"
        asyncio.run(world.ops.read("a"))
        asyncio.run(world.ops.write("a", "three"))

    def test_read_hashes_belong_to_one_session(self, world: World) -> None:
        asyncio.run(world.ops.write("a", "one"))
        refusal(WriteConflict, world.session().write("a", "two"), world)
        world.ops._read_hashes.clear()
        refusal(WriteConflict, world.ops.write("a", "two"), world)

    def test_an_edit_keeps_and_so_does_not_hide_a_change_by_others(self, world: World) -> None:
        asyncio.run(world.ops.write("a", "one two"))
        (world.root / "a").write_text("one two three")
        asyncio.run(world.ops.edit("a", "one", "1"))
        assert (world.root / "a").read_text() == "1 two three"
        refusal(WriteConflict, world.ops.write("a", "all mine"), world)

    def test_an_edit_counts_as_written(self, world: World) -> None:
        (world.root / "a").write_text("one")
        asyncio.run(world.ops.edit("a", "one", "1"))
        asyncio.run(world.ops.write("a", "all mine"))

    @pytest.mark.parametrize(("read", "edited"), [("real", "link"), ("link", "real"), ("link", "link2")])
    def test_an_edit_through_a_symlink_does_not_hide_another_change(
        self, world: World, read: str, edited: str
    ) -> None:
        (world.root / "real").write_text("one two")
        for name in ("link", "link2"):
            os.symlink("real", world.root / name)
        asyncio.run(world.ops.read(read))
        (world.root / "real").write_text("one two three")
        asyncio.run(world.ops.edit(edited, "one", "1"))
        for name in ("real", read):
            assert refusal(WriteConflict, world.ops.write(name, "all mine"), world).code == "changed"

    def test_through_a_symlink(self, world: World) -> None:
        (world.root / "real").write_text("x")
        os.symlink("real", world.root / "link")
        asyncio.run(world.ops.read("link"))
        asyncio.run(world.ops.write("real", "y"))

    def test_deleted_is_forgotten(self, world: World) -> None:
        asyncio.run(world.ops.write("a", "one"))
        asyncio.run(world.ops.delete("a"))
        (world.root / "a").write_text("theirs")
        assert refusal(WriteConflict, world.ops.write("a", "two"), world).code == "exists_unread"


class TestRefusals:
    @pytest.fixture
    def full(self, world: World) -> World:
        (world.root / "d").mkdir()
        (world.root / "d/x").write_text("x")
        (world.root / "text").write_text("a\n  b\na\n")
        (world.root / "bin").write_bytes(b"\0" * 100)
        (world.root / "utf16").write_bytes("hi".encode("utf-16"))
        (world.root / "big").write_bytes(b"x" * 11_000_000)
        os.mkfifo(world.root / "fifo")
        os.symlink("/etc/passwd", world.root / "out")
        return world

    @pytest.mark.parametrize(
        ("call", "kind", "text"),
        [
            (lambda ops: ops.read("no"), FileMissing, "no does not exist. Use list or glob"),
            (
                lambda ops: ops.read("Text"),
                FileMissing,
                "Did you mean text? Send it exactly as it is written here.",
            ),
            (lambda ops: ops.read("D/X"), FileMissing, "Did you mean d/x?"),
            (lambda ops: ops.read("d\\x"), FileMissing, "Did you mean d/x?"),
            (
                lambda ops: ops.read("/tmp/text"),
                PathRefused,
                "Paths are relative to it: use text, which exists",
            ),
            (lambda ops: ops.list("/home/me/d"), PathRefused, "use d, which exists there"),
            (
                lambda ops: ops.read("/tmp/no"),
                PathRefused,
                "use tmp/no for a file there. For files elsewhere",
            ),
            (lambda ops: ops.read("../a/d/x"), PathRefused, "use d/x, which exists there"),
            (lambda ops: ops.write("~/.bashrc", "x"), PathRefused, "~/.bashrc is in a home directory"),
            (lambda ops: ops.write("d\\new", "x"), PathRefused, "Use d/new, with slashes"),
            (lambda ops: ops.write("new/", "x"), PathRefused, "new/ names a directory"),
            (lambda ops: ops.write("d/.", "x"), PathRefused, "such as d/file.txt"),
            (lambda ops: ops.read("d"), FileUnsuitable, "d is a directory: use list."),
            (lambda ops: ops.read("bin"), FileUnsuitable, "a binary file (100 bytes)"),
            (lambda ops: ops.read("utf16"), FileUnsuitable, "UTF-16 text (6 bytes)"),
            (lambda ops: ops.read("big"), FileUnsuitable, "11,000,000 bytes, over the limit of 10,485,760."),
            (lambda ops: ops.read("fifo"), FileUnsuitable, "fifo is a FIFO, not a regular file."),
            (lambda ops: ops.read("out"), PathRefused, "out leads out of the workspace"),
            (lambda ops: ops.read("../x"), PathRefused, "leaves the workspace"),
            (lambda ops: ops.read("text", offset=9), FileError, "only 3 lines"),
            (lambda ops: ops.read("text", offset=0), FileError, "offset must be from 1"),
            (lambda ops: ops.grep("x" * 16_385), FileError, "more than 16,384 bytes. Search for a part"),
            (lambda ops: ops.read("text", limit=0), FileError, "limit must be from 1"),
            (lambda ops: ops.edit("text", "", "x"), EditRefused, "old_string is empty"),
            (lambda ops: ops.edit("text", "a", "a"), EditRefused, "identical"),
            (lambda ops: ops.edit("text", "a\n", "x"), EditRefused, "occurs 2 times in text, at lines 1, 3."),
            (lambda ops: ops.edit("text", "zz", "x"), EditRefused, "Read the file again"),
            (
                lambda ops: ops.edit("text", "a\n\tb", "x"),
                EditRefused,
                "match at line 1 except for whitespace",
            ),
            (lambda ops: ops.edit("text", "     1\ta", "x"), EditRefused, "leave out the number and tab"),
            (lambda ops: ops.edit("text", "a" * 600_000, "x"), EditRefused, "524,288 bytes"),
            (lambda ops: ops.edit("text", "\udc80", "x"), FileError, "not valid Unicode"),
            (lambda ops: ops.write("text/x", "x"), FileUnsuitable, "is not a directory"),
            (lambda ops: ops.write("x", "\udc80"), FileError, "not valid Unicode"),
            (lambda ops: ops.write("d", "x"), FileUnsuitable, "is a directory"),
            (lambda ops: ops.delete("d"), FileUnsuitable, "d is a directory with 1 entry in it."),
            (lambda ops: ops.delete("."), PathRefused, "itself can't be deleted"),
            (lambda ops: ops.list("text"), FileUnsuitable, "is not a directory"),
            (lambda ops: ops.list(limit=0), FileError, "limit must be"),
            (lambda ops: ops.glob("{a,b}" * 40), FileError, "more than 256 patterns"),
            (lambda ops: ops.glob("../*"), PathRefused, "leaves the workspace"),
            (lambda ops: ops.grep("("), FileError, "The regular expression can't be used"),
            (lambda ops: ops.grep("x", output_mode="wrong"), FileError, "output_mode must be"),
            (lambda ops: ops.grep("x", before=-1), FileError, "before must be"),
            (lambda ops: ops.grep("x", glob="../*"), PathRefused, "leaves the workspace"),
        ],
    )
    def test_say_what_to_do(
        self,
        full: World,
        call: Callable[[FileOperations], Awaitable[object]],
        kind: type[WorkspaceError],
        text: str,
    ) -> None:
        error = refusal(kind, call(full.ops), full)
        assert type(error) is kind
        assert text in error.message

    @pytest.mark.parametrize(
        ("count", "at", "output"),
        [
            (2, [1, 3], "occurs 2 times in f, at lines 1, 3. Add surrounding lines"),
            (3, [1, 1, 3], "occurs 3 times in f, at lines 1, 3. Add surrounding lines"),
            (3, [7, 7, 7], "occurs 3 times in f, in line 7. Add the text before or after it in that line"),
            (
                99,
                [7] * 20,
                "occurs 99 times in f, the first 20 of them in line 7. Add the text before or after it",
            ),
            (99, [7, 8], "occurs 99 times in f, at lines 7, 8, .... Add surrounding lines"),
        ],
    )
    def test_of_many_matches_each_line_is_named_once(self, count: int, at: list[int], output: str) -> None:
        error = file_errors.file_error("f", "edit", "not_unique", {"count": count, "at": at})
        assert output in error.message

    @pytest.mark.parametrize("code", file_errors.REFUSALS)
    def test_each_has_words(self, code: str) -> None:
        facts = {"bytes": 1, "max_bytes": 1, "lines": 1, "count": 1, "at": [1], "line": 1, "state": "partial"}
        facts["what"] = "PNG image"
        error = file_errors.file_error("a\nb", "read", code, facts)
        assert error.code == code
        assert "{path}" not in error.message
        assert "\n" not in error.message


def test_large_content_is_uploaded_first(world: World) -> None:
    data = os.urandom(INLINE_BYTES + 1)
    asyncio.run(world.ops.write("big", data))
    assert [entry for entry, _ in world.requests] == ["upload", "files"]
    assert (world.root / "big").read_bytes() == data
    assert os.listdir(world.staging) == []


def test_searches_take_absolute_patterns(world: World) -> None:
    for name in ("a.py", "src/a.py", "src/deep/a.py"):
        target = world.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("x\n")

    def globbed(pattern: str, path: str = ".") -> list[str]:
        return sorted(entry.name for entry in asyncio.run(world.ops.glob(pattern, path=path)).entries)

    def grepped(glob: str, path: str = ".") -> list[str]:
        return [row.path for row in asyncio.run(world.ops.grep("x", glob=glob, path=path)).rows]

    assert globbed(f"{world.root}/src/*.py", "src/deep") == ["src/a.py"]
    assert globbed("/*.py", "src") == ["a.py"]
    assert grepped("a.py") == ["a.py", "src/a.py", "src/deep/a.py"]
    assert grepped("/a.py") == ["a.py"]
    assert grepped(f"{world.root}/src/*.py", "src") == ["src/a.py"]
    assert grepped("!/a.py") == ["src/a.py", "src/deep/a.py"]
    assert grepped(f"{world.root}/**/*.py", "src/deep") == ["src/deep/a.py"]
    for elsewhere in (f"{world.root}/src/*.py", f"{world.root}/**/src/*.py", "!/src/a.py", "/*.py"):
        with pytest.raises(FileError, match="Give a glob relative to src/deep, or leave out path") as caught:
            grepped(elsewhere, "src/deep")
        assert caught.value.code == "bad_glob"
    assert grepped("deep/*", "src") == ["src/deep/a.py"]


class TestForgedAnswers:
    """The sandbox belongs to whatever ran in it."""

    FORGED: tuple[object, ...] = (
        None,
        [],
        "x",
        {},
        {"ok": 1},
        {"ok": False},
        {"ok": False, "error": 5},
        {"ok": False, "error": "unheard of"},
        {"ok": False, "error": "x" * 1000},
        {"ok": False, "error": "too_large", "bytes": "many"},
        {"ok": False, "error": "not_unique", "count": 2, "at": "1"},
        {"ok": True},
    )

    @pytest.mark.parametrize("forged", FORGED, ids=str)
    @pytest.mark.parametrize("op", ["read", "write", "edit", "list", "glob", "grep", "delete"])
    def test_are_unknown_outcomes(self, op: str, forged: object) -> None:
        refusal(OutcomeUnknown, getattr(_forging(forged), op)(*_arguments(op)))

    GOOD: ClassVar[dict[str, dict[str, Any]]] = {
        "read": {
            "body": "x",
            "first": 1,
            "last": 1,
            "lines": 1,
            "cut": 0,
            "lossy": False,
            "newline": "lf",
            "bom": False,
            "bytes": 1,
            "mtime_ns": 1,
            "sha256": "0" * 64,
            "path": "a",
        },
        "list": {"entries": [["a", "file", 1, 1, None]], "total": 1, "more": False},
        "grep": {"rows": [["a"]], "more": False, "timed_out": False, "skipped": []},
    }

    @pytest.mark.parametrize("op", GOOD)
    @given(data=st.data())
    def test_each_field_is_checked(self, op: str, data: st.DataObject) -> None:
        junk = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats() | st.binary()
        wrong = junk | st.lists(junk | st.lists(junk, max_size=5), max_size=3) | st.just("x" * 300_000)
        field = data.draw(st.sampled_from(sorted(self.GOOD[op])))
        forged = {"ok": True, **self.GOOD[op], field: data.draw(wrong)}
        try:
            asyncio.run(getattr(_forging(forged), op)(*_arguments(op)))
        except SandboxError as error:
            assert error.code == "garbled_answer"  # noqa: PT017

    def test_a_download_of_a_forged_size_is_not_begun(self) -> None:
        async def forge(entry: str, request: dict[str, Any]) -> Any:
            return {"ok": True, "path": "a", "bytes": 50 << 20}

        async def download(path: str) -> tuple[bytes, bool]:
            raise AssertionError(path)

        files = guest_files(forge, download=download, root="/mnt/demo")
        refusal(SandboxError, files.fetch("a", max_bytes=10))

    def test_a_code_of_the_host_with_forged_facts_is_an_error(self) -> None:
        forged = {"ok": False, "error": "media_too_large", "width": 1}
        refusal(SandboxError, _forging(forged).read("a"))

    def test_content_can_always_be_encoded(self) -> None:
        forged = {"ok": True, **self.GOOD["read"], "body": "a\ud800b"}
        assert asyncio.run(_forging(forged).read("a")).body == "a?b"

    def test_huge_numbers_and_lists(self) -> None:
        refusal(SandboxError, _forging({"ok": True, **self.GOOD["read"], "lines": 10**400}).read("a"))
        entries = [["a", "file", 1, 1, None]] * 20_000
        refusal(SandboxError, _forging({"ok": True, **self.GOOD["list"], "entries": entries}).list())


def test_a_failed_batch_leaves_the_results_of_earlier_batches(world: World) -> None:
    failure = SandboxUnavailable("The sandbox could not be reached; nothing ran.")

    async def guest(entry: str, request: dict[str, Any]) -> Any:
        if world.requests and request["op"] == "batch":
            raise failure
        return await world.guest(entry, request)

    backend = guest_files(guest, root=str(world.root))
    ops = FileOperations(backend, root=str(world.root), batches=backend)
    names = [f"f{number}" for number in range(2 * BATCH_FILES + 1)]
    errors = asyncio.run(ops.overwrite_many([(name, b"x") for name in names]))
    assert errors == [*[None] * BATCH_FILES, *[failure] * (BATCH_FILES + 1)]
    assert len(os.listdir(world.root)) == BATCH_FILES
    asyncio.run(ops.write(names[0], "known since its write"))


def _forging(forged: object) -> FileOperations:
    async def guest(_entry: str, _request: dict[str, Any]) -> object:
        return forged

    async def upload(_path: str, _data: bytes) -> None:
        raise AssertionError

    return guest_operations(guest, upload, root="/mnt/workspaces/demo", staging_dir="/tmp")


def _arguments(op: str) -> tuple[str, ...]:
    return {"write": ("a", "x"), "edit": ("a", "x", "y"), "list": ()}.get(op, ("a",))


class TestRendering:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("plain name-é漢.txt", "plain name-é漢.txt"),
            ("a\nb'c\\", "$'a\\nb\\'c\\\\'"),
            ("\udce9", "$'\\xe9'"),
            ("\x1b[31m", "$'\\x1b[31m'"),
            ("\u202egpj", "$'\\u202egpj'"),
            ("\U000e0041", "$'\\U000e0041'"),
        ],
    )
    def test_names(self, name: str, expected: str) -> None:
        assert shown(name) == expected

    @given(st.text() | st.binary().map(os.fsdecode))
    def test_names_are_printable(self, name: str) -> None:
        assert shown(name).isprintable()

    def test_notes_of_a_page(self, world: World) -> None:
        (world.root / "a").write_bytes(b"caf\xe9\r\n" + b"x\n" * 3)
        text = render.file_text(asyncio.run(world.ops.read("a", limit=2)))
        assert text.split("\n")[2:] == [
            "[Showing lines 1-2 of 4. Use offset=3 to continue.]",
            "[Line endings: CRLF and LF mixed.]",
            "[Bytes that are not UTF-8 text are shown as \\xNN.]",
        ]
        (world.root / "b").write_bytes(b"")
        assert render.file_text(asyncio.run(world.ops.read("b"))) == "[The file is empty.]"

    def test_listing(self, world: World) -> None:
        assert render.listing(asyncio.run(world.ops.list())) == "[The directory is empty.]"
        for n in range(5):
            (world.root / f"f{n}").touch()
        os.symlink("f0", world.root / "a_link")
        os.symlink("/etc", world.root / "b_link")
        text = render.listing(asyncio.run(world.ops.list(limit=3)))
        assert text.split("\n") == [
            "a_link -> f0",
            "b_link -> (outside the workspace)",
            "f0  0 bytes",
            "[Showing 3 of 7 entries. Use glob, or list a directory in it.]",
        ]

    def test_searches(self, world: World) -> None:
        nothing = render.globbed(asyncio.run(world.ops.glob("*.py")))
        assert nothing == "No file matches.\n[To search at any depth, use **/*.py]"
        (world.root / "node_modules").mkdir()
        (world.root / "src").mkdir()
        assert render.globbed(asyncio.run(world.ops.glob("*/"))) in (
            "src/\nnode_modules/",
            "node_modules/\nsrc/",
        )
        text = render.grepped(asyncio.run(world.ops.grep("x")))
        assert text == "No match.\n[Not searched unless named: node_modules]"

    def test_groups_of_context(self) -> None:
        rows = [("a", 1, False), ("a", 2, True), ("a", 9, True), ("b\n", 10, True)]
        result = GrepResult(
            "x", "content", tuple(GrepRow(p, line, hit, "t") for p, line, hit in rows), True, False, ()
        )
        assert render.grepped(result).split("\n") == [
            "a-1-t",
            "a:2:t",
            "--",
            "a:9:t",
            "--",
            "$'b\\n':10:t",
            "[There are more matches than shown. Narrow it with a path, a glob or the pattern.]",
        ]


def test_entries_are_frozen() -> None:
    entry = Entry("a", "file", 1, 1)
    with pytest.raises(AttributeError):
        entry.name = "b"  # type: ignore[misc]
