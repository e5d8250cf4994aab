"""File operations have the same results directly on S3 and through a sandbox's mount.

Every test runs with both backends and both runtimes, and expects the same messages.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._core.files import rendering as render
from langchain_daytona_ws.errors import FileMissing, FileUnsuitable, PathRefused, WorkspaceError
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests import s3
from tests.integration_tests.conftest import Driven, config_for
from tests.sample import sample

SHOWN: dict[str, Any] = {
    "read": render.file_text, "write": render.written, "edit": render.edited, "list": render.listing,
    "glob": render.globbed, "grep": render.grepped, "delete": render.deleted,
}  # fmt: skip


class Backend:
    """A folder of a workspace that no other test uses: asked through a session, and seen from outside."""

    def __init__(self, driven: Driven, bucket: s3.Bucket) -> None:
        self._driven = driven
        self._bucket = bucket
        self._folder = f"f{secrets.token_hex(4)}"

    def put(self, path: str, data: bytes | str = b"x") -> None:
        self._bucket.put(f"{self._folder}/{path}", data.encode() if isinstance(data, str) else data)

    def get(self, path: str) -> bytes:
        return self._bucket.get(f"{self._folder}/{path}")

    def download(self, path: str) -> bytes:
        data: bytes = self._driven.files("download", f"{self._folder}/{path}" if path != ".." else "../x")
        return data

    def ask(self, op: str, path: str = "", *arguments: Any, **named: Any) -> str:
        """Return what the model would read, or the error's code and its text; the folder is left out."""
        backend = f"{self._folder}/{path}".rstrip("/") if path != ".." else "../x"
        given = (backend, *arguments) if op not in ("glob", "grep") else arguments
        named = named if op not in ("glob", "grep") else {"path": backend, **named}
        try:
            text: str = SHOWN[op](self._driven.files(op, *given, **named))
        except WorkspaceError as error:
            text = f"{error.code}: {error.for_model}"
        # This message is only for S3 without a mount.
        text = text.replace(" A directory created in bash appears here when it contains a file.", "")
        return text.replace(f"{self._folder}/", "").replace(self._folder, "FOLDER")


@pytest.fixture(scope="module", params=sample(["objects", "mount"], "objects"))
def workspace(
    request: pytest.FixtureRequest, s3_server: LocalDaytona
) -> Iterator[tuple[WorkspaceSession, Any, Any]]:
    bucket = s3.Bucket(s3_server)
    access = {"objects": "s3", "mount": "sandbox"}[request.param]
    options = s3.s3_options(s3_server, bucket.name, fileAccess=access)
    config = config_for(s3_server, options=options, envVars=s3.KEYS)
    runner = asyncio.Runner()
    session = WorkspaceSession(config, namespace=bucket.namespace)
    yield session, bucket, runner
    assert (session.sandbox_id is None) is (request.param == "objects"), "only the mount needs a sandbox"
    runner.run(session.aclose())
    session.close()
    runner.close()
    bucket.client.close()


@pytest.fixture(params=["sync", "async"])
def backend(request: pytest.FixtureRequest, workspace: tuple[WorkspaceSession, Any, Any]) -> Backend:
    session, bucket, runner = workspace
    return Backend(Driven(session, runner if request.param == "async" else None), bucket)


def test_the_usual_day(backend: Backend) -> None:
    assert backend.ask("write", "src/a.py", "x = 1\ny = 2\n") == "Created src/a.py (12 bytes)."
    assert backend.get("src/a.py") == b"x = 1\ny = 2\n"
    assert backend.ask("read", "src/a.py") == "     1\tx = 1\n     2\ty = 2"
    assert backend.ask("read", "src/a.py", offset=2) == "     2\ty = 2\n[Showing lines 2-2 of 2.]"
    assert backend.ask("edit", "src/a.py", "y = 2", "y = 3") == (
        "Edited src/a.py: 1 replacement, at line 2.\n     1\tx = 1\n     2\ty = 3"
    )
    assert backend.ask("write", "src/a.py", "z\n") == "Wrote src/a.py (2 bytes)."
    assert backend.ask("write", "src/a.py", "z\n") == "src/a.py already has exactly this content."
    assert backend.ask("write", "src/b.txt", "zz\n") == "Created src/b.txt (3 bytes)."
    assert backend.ask("list") == "src/"
    assert backend.ask("list", "src") == "a.py  2 bytes\nb.txt  3 bytes"
    assert backend.ask("glob", "", "**/*.py") == "src/a.py"
    assert backend.ask("grep", "", "z") == "src/a.py\nsrc/b.txt"
    assert backend.ask("grep", "", "z+$", output_mode="content") == "src/a.py:1:z\nsrc/b.txt:1:zz"
    assert backend.ask("delete", "src") == (
        "not_empty: src is a directory with 2 entries in it. To delete all of it, use `rm -r` in bash."
    )
    assert backend.ask("delete", "src/a.py") == "Deleted src/a.py."
    assert backend.ask("delete", "src/b.txt") == "Deleted src/b.txt."
    assert (
        backend.ask("read", "src/a.py")
        == "missing: src/a.py does not exist. Use list or glob to see the existing files."
    )


def test_knowing_what_is_there(backend: Backend) -> None:
    backend.put("a", "theirs")
    assert backend.ask("write", "a", "mine") == (
        "exists_unread: a exists already (6 bytes) and was not read in this session. Read it first, "
        "or pass overwrite=true to replace it."
    )
    backend.ask("read", "a")
    backend.put("a", "theirs, later")
    assert backend.ask("write", "a", "mine") == (
        "changed: a has changed since this session read it. Read it again first."
    )
    assert backend.ask("write", "a", "mine", overwrite=True) == "Wrote a (4 bytes)."
    assert backend.ask("write", "a", "mine again") == "Wrote a (10 bytes)."
    backend.put("a", "one two")
    assert backend.ask("edit", "a", "one", "1").startswith("Edited a: 1 replacement")
    assert backend.ask("write", "a", "all mine").startswith("changed: ")
    assert backend.get("a") == b"1 two"


def test_a_file_that_is_too_large_to_read_is_not_to_be_read_first(backend: Backend) -> None:
    large = b"a line\n" * 1_600_000
    backend.put("a", large)
    assert backend.ask("write", "a", "mine") == (
        "exists_unread: a exists already (11,200,000 bytes), and is too large to read here. Look at it with bash; "
        "pass overwrite=true to replace it."
    )
    backend.put("a", "short")
    backend.ask("read", "a")
    backend.put("a", large)
    assert backend.ask("write", "a", "mine") == (
        "changed: a has changed since this session read it, and has 11,200,000 bytes now, too large to read here. "
        "Look at it with bash; to replace it, delete it first."
    )
    backend.ask("delete", "a")
    assert backend.ask("write", "a", "mine") == "Created a (4 bytes)."


MISSING = "missing: {} does not exist. Use list or glob to see the existing files."
IS_DIRECTORY = "is_directory: {} is a directory: use list."
WRITES_DIRECTORY = "is_directory: {} is a directory. Write to the path of a file in it."
NO_DIRECTORY = "not_a_directory: {}, or a part of this path, is not a directory."
BINARY = "binary: {} is a binary file (100 bytes). Inspect it with bash, such as `file` or `xxd`."
REFUSALS: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("read", "none"), {}, MISSING),
    (("read", "none/below"), {}, MISSING),
    (("read", "d"), {}, IS_DIRECTORY),
    (("read", "text/below"), {}, NO_DIRECTORY),
    (
        ("read", ".."),
        {},
        "path_outside: The path leaves the workspace ('..'). Only files inside the workspace can be used.",
    ),
    (("read", "bin"), {}, BINARY),
    (("read", "utf16"), {}, "binary: utf16 is UTF-16 text (6 bytes). Convert it first, with iconv in bash."),
    (("read", "text"), {"offset": 9}, "past_end: text has only 3 lines. Use a smaller offset."),
    (
        ("read", "big"),
        {},
        "too_large: big has 11,000,000 bytes, over the limit of 10,485,760. "
        "Use grep, or bash with head, tail or sed, to work on a part of it.",
    ),
    (
        ("edit", "big", "x", "y"),
        {},
        "too_large: big would be, or is, 11,000,000 bytes, over the limit of 10,485,760. "
        "Use grep, or bash with head, tail or sed, to work on a part of it.",
    ),
    (("edit", "none", "x", "y"), {}, MISSING),
    (
        ("edit", "text", "a\n", "x"),
        {},
        "not_unique: old_string occurs 2 times in text, at lines 1, 3. Add surrounding lines to make it unique, or "
        "pass replace_all=true.",
    ),
    (
        ("edit", "text", "zz", "x"),
        {},
        "not_found: old_string was not found in text. Read the file again and copy the text exactly.",
    ),
    (
        ("edit", "text", "a\n\tb", "x"),
        {},
        "not_found: old_string was not found in text. It would match at line 1 except for whitespace (line 2, column 1 "
        "has SPACE (U+0020), old_string TAB (U+0009)): copy indentation "
        "and line breaks exactly.",
    ),
    (("edit", "bin", "x", "y"), {}, BINARY),
    (("write", "text/below", "x"), {}, NO_DIRECTORY),
    (("write", "text/below/that", "x"), {"overwrite": True}, NO_DIRECTORY),
    (("write", "d", "x"), {}, WRITES_DIRECTORY),
    (("write", "d", "x"), {"overwrite": True}, WRITES_DIRECTORY),
    (("delete", "none"), {}, MISSING),
    (("delete", "text/below"), {}, NO_DIRECTORY),
    (
        ("delete", "d"),
        {},
        "not_empty: d is a directory with 1 entry in it. To delete all of it, use `rm -r` in bash.",
    ),
    (("list", "text"), {}, NO_DIRECTORY),
    (("list", "none"), {}, MISSING),
    (("glob", "none", "*"), {}, MISSING),
    (("glob", "text", "*"), {}, NO_DIRECTORY),
    (
        ("glob", "", "{a,b}" * 40),
        {},
        "bad_glob: The glob pattern can't be used: the braces stand for more than 256 patterns.",
    ),
    (("grep", "none", "x"), {}, MISSING),
    (
        ("grep", "", "a\nb"),
        {},
        "bad_pattern: The regular expression can't be used: the pattern must be one line, and not empty",
    ),
]


def test_refusals(backend: Backend) -> None:
    backend.put("d/x", "x")
    backend.put("text", "a\n  b\na\n")
    backend.put("bin", b"\0" * 100)
    backend.put("utf16", "hi".encode("utf-16"))
    backend.put("big", b"x" * 11_000_000)
    for arguments, named, expected in REFUSALS:
        assert backend.ask(*arguments, **named) == expected.replace("{}", arguments[1]), arguments


def test_bytes_are_kept(backend: Backend) -> None:
    backend.put("crlf", b"\xef\xbb\xbfone\r\ntwo\r\nthree")
    assert backend.ask("read", "crlf") == "     1\tone\n     2\ttwo\n     3\tthree\n[Line endings: CRLF.]"
    assert backend.ask("edit", "crlf", "one\ntwo", "1\n1b\n2").startswith(
        "Edited crlf: 1 replacement, at line 1."
    )
    assert backend.get("crlf") == b"\xef\xbb\xbf1\r\n1b\r\n2\r\nthree"
    backend.put("latin1", b"caf\xe9\nx\n")
    assert backend.ask("read", "latin1").startswith("     1\tcaf\\xe9\n     2\tx\n[Bytes that are not UTF-8")
    backend.ask("edit", "latin1", "x", "y")
    assert backend.get("latin1") == b"caf\xe9\ny\n"
    backend.put("empty", b"")
    assert backend.ask("read", "empty") == "[The file is empty.]"
    assert backend.ask("write", "empty", "") == "empty already has exactly this content."
    backend.ask("write", "large", "x" * 1_000_000)
    assert backend.get("large") == b"x" * 1_000_000
    assert backend.ask("edit", "large", "x", "y", replace_all=True).startswith(
        "too_many: old_string occurs more than 100,000 times in large."
    )


def test_downloads(backend: Backend) -> None:
    contents = [b"", bytes(range(256)) + b"\r\n\r", b"\xffx" * (150 << 10)]  # the last needs a detour
    for number, data in enumerate(contents):
        backend.put(f"d/{number}", data)
        assert backend.download(f"d/{number}") == data
    assert backend.ask("write", "d/1", "new").startswith("Wrote")  # it counts as read
    backend.download("d/2")
    backend.put("d/2", "somebody else's")
    assert backend.ask("write", "d/2", "new").startswith("changed")
    for path, error, code in [
        ("none", FileMissing, "missing"),
        ("d", FileUnsuitable, "is_directory"),
        ("..", PathRefused, "path_outside"),
    ]:
        with pytest.raises(error) as caught:
            backend.download(path)
        assert caught.value.code == code


def test_names(backend: Backend) -> None:
    names = ["a b", "é漢🙂", "a+b%20c", "x?y#z&w=1", "-rf", "'\"`$(x)", "~", "[x]", "{a,b}", "*", "x" * 255]
    for name in names:
        assert backend.ask("write", f"odd/{name}", name).startswith("Created ")
        assert backend.get(f"odd/{name}") == name.encode()
        assert backend.ask("read", f"odd/{name}") == f"     1\t{name}"
    listed = [row.rpartition("  ")[0] for row in backend.ask("list", "odd").split("\n")]
    assert listed == sorted(names)
    assert sorted(backend.ask("glob", "odd", "*").split("\n")) == sorted(f"odd/{name}" for name in names)
    assert backend.ask("grep", "odd", "漢") == "odd/é漢🙂"
    for name in names:
        assert backend.ask("delete", f"odd/{name}") == f"Deleted odd/{name}."


def test_keys_that_are_no_files(backend: Backend) -> None:
    for key in ("d", "d/x", "d-", "e//f", "e/ok", "e/../g", "h/", "i/j/"):
        backend.put(key)
    assert backend.ask("list").split("\n") == ["d/", "e/", "h/", "i/", "d-  1 byte"]
    assert backend.ask("list", "e") == "ok  1 byte"
    assert backend.ask("list", "h") == "[The directory is empty.]"
    assert backend.ask("list", "i") == "j/"
    assert sorted(backend.ask("glob", "", "**").split("\n")) == ["d-", "d/x", "e/ok"]
    assert sorted(backend.ask("glob", "", "**/").split("\n")) == ["d/", "e/", "h/", "i/", "i/j/"]
    assert backend.ask("grep", "", "x") == "d-\nd/x\ne/ok"
    for path in "dh":
        assert backend.ask("write", path, "new") == (
            f"is_directory: {path} is a directory. Write to the path of a file in it."
        )
    assert backend.ask("delete", "d").startswith("not_empty: d is a directory with 1 entry")


def test_globs(backend: Backend) -> None:
    for key in (
        "a.py",
        "src/b.py",
        "src/deep/er/c.py",
        ".github/w.yml",
        "node_modules/m/index.py",
        "src/[x]/f.py",
        "src/é.py",
    ):
        backend.put(key)
    note = "[Not searched unless named: node_modules]"
    for pattern, expected in {
        "*.py": ["a.py"],
        "**/*.py": [note, "a.py", "src/[x]/f.py", "src/b.py", "src/deep/er/c.py", "src/é.py"],
        "src/*": ["src/b.py", "src/é.py"],
        "src/**/c.py": ["src/deep/er/c.py"],
        "src/*/": ["src/[x]/", "src/deep/"],
        "{a,src/b}.py": ["a.py", "src/b.py"],
        "**/w.yml": [".github/w.yml", note],
        "node_modules/**/*.py": ["node_modules/m/index.py"],
        "src/\\[x\\]/*": ["src/[x]/f.py"],
        "[!b]*.py": ["a.py"],
        "none/*": ["No file matches."],
        "a.py/*": ["No file matches."],
    }.items():  # fmt: skip
        assert sorted(backend.ask("glob", "", pattern).split("\n")) == expected, pattern
    assert backend.ask("glob", "", "**/*.py", limit=2).split("\n")[2:] == [
        "[Showing 2 of at least 5 matches. Narrow the pattern.]",
        note,
    ]


def test_searches(backend: Backend) -> None:
    backend.put("a.py", "import os\n\ndef one():\n    return 1  # TODO\n")
    backend.put("a/b.py", "def two():\r\n    pass\r\n")
    backend.put("c.md", "# Títle\n\nText — with TODO and def\n" + "x" * 600 + "\n")
    backend.put("bin", b"def\0\0")
    backend.put("utf16", "def utf\n".encode("utf-16"))
    backend.put("node_modules/x.py", "def no\n")
    note = "[Not searched unless named: node_modules]"
    binary = "[1 binary file matches, its lines are not shown: bin. Use grep -a in bash.]"
    for named, expected in (
        ({}, ["a.py", "a/b.py", "c.md", "utf16", binary, note]),
        ({"output_mode": "count"}, ["a.py:1", "a/b.py:1", "c.md:1", "utf16:1", binary, note]),
        ({"glob": "*.py"}, ["a.py", "a/b.py", note]),
        ({"glob": "!*.py"}, ["c.md", "utf16", binary, note]),
        ({"glob": "node_modules/**"}, ["node_modules/x.py"]),
        ({"path": "a"}, ["a/b.py"]),
        ({"path": "a/b.py"}, ["a/b.py"]),
        ({"limit": 2}, ["a.py", "a/b.py",
                        "[There are more matches than shown. Narrow it with a path, a glob or the pattern.]", binary,
                        note]),
    ):  # fmt: skip
        path = named.pop("path", "")  # type: ignore[attr-defined]
        assert backend.ask("grep", path, "def", **named).split("\n") == expected, named
    for pattern, named, expected in (
        (r"^def \w+\(\)", {}, ["a.py:3:def one():", "a/b.py:1:def two():"]),
        (r"\bTODO\b", {"before": 1, "after": 1},
         ["a.py-3-def one():", "a.py:4:    return 1  # TODO", "--", "c.md-2-", "c.md:3:Text — with TODO and def",
          f"c.md-4-{'x' * 500}... [line cut]"]),
        (r"títle", {"ignore_case": True}, ["c.md:1:# Títle"]),
        (r"pass$", {}, ["No match.", r"[In files with CRLF line endings, $ does not match before the CR: use \r?$]"]),
        (r"[^a-z]{4}pass", {}, ["a/b.py:2:    pass"]),
        (r"t\wtle", {"ignore_case": True}, ["c.md:1:# Títle"]),
    ):  # fmt: skip
        shown = backend.ask("grep", "", pattern, output_mode="content", **named).split("\n")  # type: ignore[arg-type]
        assert shown == [*expected, note], pattern
