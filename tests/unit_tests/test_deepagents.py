"""The parts of `WorkspaceBackend`: paths, patterns, pages, errors and names of calls."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deepagents.backends.protocol import BackendProtocol, SandboxBackendProtocol
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws import WorkspaceBackend, WorkspaceSession
from langchain_daytona_ws._core.answer import Reply
from langchain_daytona_ws._core.files.errors import file_error as refused_file
from langchain_daytona_ws._core.files.guest import FETCH_TRIES
from langchain_daytona_ws._core.files.models import VIEWED_BYTES, FileBackend, FileContent, ViewQuery
from langchain_daytona_ws._core.files.operations import EDIT_BYTES, FileOperations
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.files import S3Files
from langchain_daytona_ws._deepagents import calls
from langchain_daytona_ws._deepagents.approval import file_request, upload_arguments
from langchain_daytona_ws._deepagents.locations import FileLocation, artifact_directories, locate
from langchain_daytona_ws._deepagents.messages import code_of, directory_error, error_text, file_error
from langchain_daytona_ws._deepagents.reader import (
    BINARY_BYTES,
    Reader,
    file_glob,
    hidden_name_filter,
    literal_regex,
    split_absolute,
)
from langchain_daytona_ws._deepagents.session import CallSession
from langchain_daytona_ws._deepagents.writer import remove_tree_command
from langchain_daytona_ws._guest import content, files
from langchain_daytona_ws._guest.content import window
from langchain_daytona_ws.errors import (
    ConfigError,
    FileError,
    FileMissing,
    FileUnsuitable,
    PathRefused,
    PermissionDenied,
    SandboxError,
    WorkspaceError,
    WriteConflict,
)
from langchain_daytona_ws.permissions import PermissionRequest, RememberedApprovals

from .bucket import MemoryBucket
from .guest import guest_files, guest_operations

ROOT = "/mnt/workspaces/demo"
NO_EXTRA = "import sys; sys.modules['deepagents'] = None; import langchain_daytona_ws as it; "


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_without_deepagents_the_import_error_names_the_extra() -> None:
    failed = _run(NO_EXTRA + "it.WorkspaceBackend")
    assert failed.returncode == 1
    assert "ImportError: WorkspaceBackend needs Deep Agents" in failed.stderr
    assert "pip install 'langchain-daytona-ws[deepagents]'" in failed.stderr
    assert _run(
        NO_EXTRA + "it.WorkspaceToolkit; it.WorkspaceSession; print('WorkspaceBackend' in dir(it))"
    ).stdout
    assert _run("import langchain_daytona_ws, sys; assert 'deepagents' not in sys.modules").returncode == 0


def test_every_method_of_the_protocol_is_its_own_also_the_async_ones() -> None:
    # What is not overridden would run the sync method in a thread, or not at all.
    wanted = {
        name
        for protocol in (BackendProtocol, SandboxBackendProtocol)
        for name, value in vars(protocol).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property))
    }
    assert wanted <= set(vars(WorkspaceBackend))
    assert {f"a{name}" for name in wanted if not name.startswith("a") and name != "id"} <= wanted


def test_creating_a_backend_provisions_nothing() -> None:
    with WorkspaceSession({}, namespace="demo") as session:
        backend = WorkspaceBackend(session)
        assert backend.id == session.id
        assert backend.root in backend.guidance()
        assert session.sandbox_id is None
        assert "no_approver" in backend.execute("id").output
        assert backend.upload_files([("/tmp/x", b"")])[0].error == "permission_denied"
        assert session.sandbox_id is None


@pytest.mark.parametrize(
    ("path", "full", "relative"),
    [
        (ROOT, ROOT, "."),
        (f"{ROOT}/", ROOT, "."),
        (f"{ROOT}/a//b/./c", f"{ROOT}/a/b/c", "a/b/c"),
        (f"{ROOT}/a/../b", f"{ROOT}/b", "b"),
        (f"{ROOT}/../other/x", "/mnt/workspaces/other/x", None),
        (f"{ROOT}-other/x", f"{ROOT}-other/x", None),
        ("a/b", f"{ROOT}/a/b", "a/b"),
        (".", ROOT, "."),
        ("../x", "/mnt/workspaces/x", None),
        ("/", "/", None),
        ("/tmp/x", "/tmp/x", None),
        ("~/x", f"{ROOT}/~/x", "~/x"),
    ],
)
def test_a_path_is_in_the_workspace_or_outside(path: str, full: str, relative: str | None) -> None:
    location = locate(path, ROOT)
    assert (location.path, location.relative) == (full, relative)
    assert location.is_outside is (relative is None)


@pytest.mark.parametrize("path", ["", "/../x", "/a\0b", "\ud800", "/" + "x" * 300])
def test_invalid_paths_are_refused(path: str) -> None:
    with pytest.raises(PathRefused):
        locate(path, ROOT)


@pytest.mark.parametrize(
    ("path", "is_artifact"),
    [
        ("/large_tool_results/x", True),
        ("/blobs/a/b", True),
        ("/conversation_history/../etc/passwd", False),
        ("/large_tool_results", False),
        ("/large_tool_results_of_mine/x", False),
        (f"{ROOT}/large_tool_results/x", False),
    ],
)
def test_only_files_in_artifact_directories_are_artifacts(path: str, is_artifact: bool) -> None:
    assert locate(path, ROOT, artifact_directories("/")).is_artifact is is_artifact
    directories = artifact_directories("/tmp/agent/")
    assert locate(f"/tmp/agent{path}", ROOT, directories).is_artifact is is_artifact


@pytest.mark.parametrize("root", ["", "tmp", "/tmp/../etc"])
def test_an_artifacts_root_must_be_absolute(root: str) -> None:
    with WorkspaceSession({}, namespace="demo") as session, pytest.raises(ConfigError):
        WorkspaceBackend(session, artifacts_root=root)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), min_size=1))
def test_a_literal_matches_itself_and_nothing_else(text: str) -> None:
    import re

    import re2

    for engine in (re, re2):
        assert engine.search(literal_regex(text), f"before {text} after")
        assert engine.fullmatch(literal_regex(text), text)
        assert not engine.fullmatch(literal_regex(text), text + "x")


@pytest.mark.parametrize(
    ("pattern", "path", "is_shown"),
    [
        ("*.yml", "ci.yml", True),
        ("*.yml", ".github/ci.yml", True),
        ("*.yml", ".hidden.yml", False),
        (".*", ".hidden.yml", True),
        ("**/*.yml", ".github/ci.yml", False),
        (".github/**/*.yml", ".github/a/ci.yml", True),
        ("{.a,b}/*", ".a/x", True),
        ("{.a,b}/*", "b/.x", False),
        ("/*", ".env", False),
        ("/.env", ".env", True),
    ],
)
def test_hidden_names_must_be_spelled_out(pattern: str, path: str, is_shown: bool) -> None:
    assert hidden_name_filter(pattern)(path) is is_shown


@pytest.mark.parametrize(
    ("pattern", "directory", "below"),
    [
        ("/etc/host*", "/etc", "/host*"),
        ("/a/b c/**/*.py", "/a/b c", "/**/*.py"),
        ("/etc/hosts", "/etc", "/hosts"),
        ("/a/{b,c}/d", "/a", "/{b,c}/d"),
        ("/a\\*/b", "", "/a\\*/b"),
        ("/*.py", "", "/*.py"),
        ("src/*.py", "", "src/*.py"),
        ("*.py", "", "*.py"),
    ],
)
def test_the_literal_directory_of_an_absolute_pattern(pattern: str, directory: str, below: str) -> None:
    assert split_absolute(pattern) == (directory, below)


def test_the_error_of_an_invalid_answer_names_no_tool() -> None:
    error = Reply("read", {}).malformed("content")
    assert error_text(error, "/x").endswith(
        "'/x': The sandbox returned an invalid answer to 'read'. Use a shell command instead. If it was to change "
        "something, first check whether it did."
    )


def test_a_remembered_upload_of_binary_data_covers_no_other_data() -> None:
    approved, other = upload_arguments(b"\xff1"), upload_arguments(b"\xff2")
    remembered = RememberedApprovals()
    remembered.remember(PermissionRequest.for_file("write", approved, namespace="demo"), "command")
    assert remembered.covers("workspace_file", "write", approved)
    assert not remembered.covers("workspace_file", "write", other)


def test_a_pattern_without_a_slash_is_for_any_depth() -> None:
    assert file_glob("*.py") == "**/*.py"
    assert file_glob("src/*.py") == "src/*.py"
    assert file_glob("/*.py") == "*.py"


@pytest.mark.parametrize(
    ("data", "asked", "expected"),
    [
        (b"", (1, 10, 100), ("", 0, 0, False, False)),
        (b"a\nb\n", (1, 10, 100), ("a\nb", 1, 2, False, False)),
        (b"a\r\nb\r\n", (1, 10, 100), ("a\nb", 1, 2, False, False)),
        (b"\xef\xbb\xbfa\nb", (1, 1, 100), ("a", 1, 1, False, False)),
        (b"a\nb\nc", (2, 1, 100), ("b", 2, 2, False, False)),
        (b"a\nb\nc", (4, 1, 100), ("", 0, 0, False, False)),
        (b"\n\n\n", (1, 10, 100), ("\n\n", 1, 3, False, False)),
        (b"aaaa\nbbbb\ncccc", (1, 10, 10), ("aaaa\nbbbb", 1, 2, True, False)),
        (b"aaaa\nb", (1, 10, 4), ("aaaa", 1, 1, True, False)),
        (b"aaaaaaaa\nb", (1, 10, 4), ("aaaa", 1, 1, True, True)),
        (b"a" * 100, (1, 10, 4), ("aaaa", 1, 1, True, True)),
        ("ééé\nb".encode(), (1, 10, 5), ("éé", 1, 1, True, True)),
        (b"a\xffb", (1, 10, 100), ("a\\xffb", 1, 1, False, False)),
    ],
)
def test_a_window_has_the_requested_lines(
    data: bytes, asked: tuple[int, int, int], expected: tuple[object, ...]
) -> None:
    found = window(data, *asked)
    assert (found.body, found.first, found.last, found.more, found.cut) == expected


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0\x1b"), max_size=30), max_size=30
    ),
    st.integers(1, 7),
    st.integers(40, 200),
)
def test_consecutive_windows_give_the_whole_file(lines: list[str], limit: int, limit_bytes: int) -> None:
    data = "\n".join(lines).lstrip("\ufeff").encode()
    parts, offset = [], 1
    while True:
        found = window(data, offset, limit, limit_bytes)
        if not found.first:
            break
        assert len(found.body.encode()) <= limit_bytes
        if found.cut:  # a line that no window can hold
            return
        parts.append(found.body)
        offset = found.last + 1
    # A last line with and without a line end is the same.
    assert "\n".join(parts) == data.decode().removesuffix("\n") or not data


VIEW = ViewQuery(offset=1, limit=10, limit_bytes=1000, binary=False, binary_bytes=100, max_bytes=2000)


class Twins:
    """The same files on a disk and in a bucket."""

    def __init__(self, root: Path, files: dict[str, bytes]) -> None:
        bucket = MemoryBucket()
        for name, data in files.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(data)
            bucket.put_by_others(name, data)

        async def guest(_entry: str, request: dict[str, Any]) -> Any:
            return content.main(request)

        self._backends: tuple[FileBackend, ...] = (guest_files(guest, root=str(root)), S3Files(bucket))

    def both(self, call: Callable[[FileBackend], Awaitable[object]]) -> list[object]:
        return [self._outcome(call, backend) for backend in self._backends]

    def _outcome(self, call: Callable[[FileBackend], Awaitable[object]], backend: FileBackend) -> object:
        async def run() -> object:
            return await call(backend)

        try:
            return run_sync(run())
        except WorkspaceError as error:
            return type(error), error.code, error.message, error.context


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("data", [b"", b"one\r\ntwo\n", b"\0\1", b"\0" * 101, b"x" * 2001, b"x" * 150])
@pytest.mark.parametrize("op", ["view", "fetch"])
def test_the_sandbox_and_s3_return_the_same_text(tmp_path: Path, op: str, data: bytes, binary: bool) -> None:
    twins = Twins(tmp_path, {"f": data})
    query = replace(VIEW, binary=binary)
    here, there = twins.both(
        lambda files: files.view("f", query) if op == "view" else files.fetch("f", max_bytes=2000)
    )
    assert here == there
    if op == "fetch" and len(data) <= 2000:
        assert here == FileContent("f", data, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("path", ["none", "d", "d/none", "f/below"])
def test_the_sandbox_and_s3_refuse_the_same_calls(tmp_path: Path, path: str) -> None:
    twins = Twins(tmp_path, {"d/g": b"x", "f": b"x"})
    here, there = twins.both(lambda files: files.fetch(path, max_bytes=2000))
    assert isinstance(here, tuple)
    assert here == there


def _contents(
    answer: dict[str, Any], downloads: list[tuple[bytes, bool]], root: str = ROOT
) -> FileOperations:
    async def guest(_entry: str, _request: dict[str, Any]) -> Any:
        return answer

    async def download(_path: str) -> tuple[bytes, bool]:
        return downloads.pop(0)

    return guest_operations(guest, None, download, root=root)


class Session(CallSession):
    """The session of a call that has the same operations for all files."""

    def __init__(self, ops: FileOperations) -> None:
        self.root = ROOT
        self._ops = ops

    def location_and_operations(self, path: str) -> tuple[FileLocation, FileOperations]:
        return locate(path, ROOT), self._ops


FOUND = {"ok": True, "more": False, "timed_out": False, "skipped": []}


def test_a_glob_reports_unreadable_directories() -> None:
    paths = [["a.py", "file", 1, 0]]
    answer = {**FOUND, "paths": paths, "total": 1, "omitted": {"unreadable": [1, ["proc/1/map_files"]]}}
    found = run_sync(Reader(Session(_contents(answer, [], root="/"))).glob("*.py", "/"))
    assert found.error is None
    assert {match["path"] for match in found.matches or ()} == {"a.py"}
    assert (found.truncated, found.truncation_reason) == (True, "unreadable")


def test_a_binary_file_that_matches_is_a_match_without_its_lines() -> None:
    rows = [["a.py", 3, True, "needle"]]
    ops = _contents({**FOUND, "rows": rows, "omitted": {"binary_match": [1, ["b.bin"]]}}, [])
    found = run_sync(Reader(Session(ops)).grep("needle", None, None, None))
    assert [(match["path"], match["line"]) for match in found.matches or ()] == [
        (f"{ROOT}/a.py", 3),
        (f"{ROOT}/b.bin", 0),
    ]
    assert "grep -a" in (found.matches or [])[1]["text"]
    assert not found.truncated
    ops = _contents({**FOUND, "rows": [], "omitted": {"unreadable": [1, ["shut"]]}}, [])
    assert run_sync(Reader(Session(ops)).grep("needle", None, None, None)).truncated


def test_a_file_that_changes_during_a_download_is_downloaded_again() -> None:
    data = b"the right one"
    answer = {"ok": True, "path": "f", "bytes": len(data)}
    for changed in ((b"another one..", False), (b"too long for it", True), (b"short", True)):
        assert run_sync(_contents(answer, [changed, (data, True)]).fetch("f")) == data
    with pytest.raises(WriteConflict):
        run_sync(_contents(answer, [(b"never", True)] * FETCH_TRIES).fetch("f"))


RIGHT: dict[str, Any] = {"ok": True, "path": "f", "bytes": 1, "sha256": "0" * 64, "content": "eA=="}
LINES = {"content": None, "body": "x", "first": 1, "last": 1, "lines": 1, "cut": False, "more": False}


@pytest.mark.parametrize(
    "forged",
    [
        {"content": "no base64!"},
        {"content": base64.b64encode(b"x" * 300).decode()},
        {"content": 7},
        {"sha256": "short"},
        {"path": None},
        {**LINES, "body": "x" * 101},
        {**LINES, "first": "1"},
        {**LINES, "lines": -1},
        {**LINES, "lines": 0},
        {**LINES, "first": 2, "last": 2, "lines": 2},
        {**LINES, "last": 0},
    ],
)
def test_a_forged_view_is_refused(forged: dict[str, Any]) -> None:
    view = _contents({**RIGHT, **forged}, []).view
    with pytest.raises(SandboxError):
        run_sync(view("f", ViewQuery(1, 1, limit_bytes=100, binary=False, binary_bytes=200)))


@pytest.mark.parametrize(
    "forged", [{"content": "no base64!"}, {"content": 7}, {"path": None}, {"bytes": -1}, {"bytes": 2}]
)
def test_a_forged_fetch_is_refused(forged: dict[str, Any]) -> None:
    with pytest.raises(SandboxError):
        run_sync(_contents({**RIGHT, **forged}, []).fetch("f", max_bytes=200))


LONG = "x" * EDIT_BYTES


@pytest.mark.parametrize(
    ("old", "new", "phrase"),
    [
        (LONG, "y", "old_string occurs 2 times in f, at lines 1, 2"),
        (f"{LONG}\nz", "y", "old_string was not found in f. Read"),
        (f"{LONG} ", "y", "It would match at line 1 except for whitespace"),
        (LONG, LONG, "identical"),
        ("", LONG, "old_string is empty"),
        ("last", LONG * 100, "f would be, or is, "),
    ],
)
def test_a_large_edit_fails_with_the_errors_of_a_small_edit(old: str, new: str, phrase: str) -> None:
    data = f"{LONG}\n{LONG}\nlast".encode()
    sha256 = hashlib.sha256(data).hexdigest()
    answer = {**RIGHT, "bytes": len(data), "sha256": sha256, "content": base64.b64encode(data).decode()}
    with pytest.raises(FileError, match=phrase) as caught:
        run_sync(_contents(answer, []).replace_text("f", old, new, replace_all=False))
    assert caught.value.op == "edit"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileMissing("gone"), "file_not_found"),
        (PermissionDenied("no"), "permission_denied"),
        (FileError("no", context={"errno": "EACCES"}), "permission_denied"),
        (FileError("no", context={"errno": "EROFS"}), "permission_denied"),
        (FileUnsuitable("dir", code="is_directory"), "is_directory"),
        (FileUnsuitable("dir", code="not_a_directory"), "invalid_path"),
        (PathRefused("no"), "invalid_path"),
        (FileError("long", context={"errno": "ENAMETOOLONG"}), "invalid_path"),
        (FileError("full", context={"errno": "ENOSPC"}), None),
        (SandboxError("away"), None),
    ],
)
def test_errors_in_deep_agents_own_words(error: WorkspaceError, code: str | None) -> None:
    assert code_of(error) == code


def test_errors_for_the_model_name_its_own_tools_and_not_the_host() -> None:
    error = FileUnsuitable(
        "/host/secret", code="too_large", for_model="Use grep, or bash with head. Or in bash."
    )
    assert "secret" not in file_error("/x", error) + directory_error("/x", error)
    assert "secret" not in error_text(error)
    assert directory_error("/x", FileUnsuitable("f", code="not_a_directory")) == "Path '/x': not_a_directory"
    assert directory_error("/x", FileMissing("f")) == "Path '/x': path_not_found"
    assert len(error_text(FileError("x" * 10_000))) == 4000


@pytest.mark.parametrize(
    ("code", "facts", "text"),
    [
        ("too_large", {"bytes": 2000, "max_bytes": 1000}, "Use grep, or {shell} with head, tail or sed"),
        ("binary", {"bytes": 7}, "Inspect it with {shell}, such as `file` or `xxd`"),
        ("binary", {"bytes": 7, "what": "UTF-16 text"}, "with iconv in {shell}"),
        ("not_empty", {"count": 3}, "use `rm -r` in {shell}"),
        ("missing", {"on_s3": True}, "created in {shell}"),
        ("no_tool", {}, "Install one (`ripgrep`) with {shell}"),
        ("os", {"errno": "EACCES", "text": "with bash in bash"}, "ls -l in {shell}"),
    ],
)
def test_a_refusal_names_the_shell_tool_of_the_models_toolset(
    code: str, facts: dict[str, Any], text: str
) -> None:
    error = refused_file("a {shell}", "read", code, facts)
    assert text.format(shell="bash") in error.message
    shown = error_text(error)
    assert text.format(shell="execute") in shown
    assert shown.startswith(f"[{code}] ")
    assert shown.replace("execute", "bash") == f"[{code}] {error.message}"
    assert error.context["path"] == "a {shell}"
    assert error.context.items() >= facts.items()


def test_a_text_of_the_sandbox_is_not_changed() -> None:
    error = refused_file("f", "read", "os", {"errno": "EIO", "text": "found {path} with bash"})
    assert "found {path} with bash" in error.message
    assert "found {path} with bash" in error_text(error)


@pytest.mark.parametrize(("limit", "is_preview"), [(BINARY_BYTES, True), (VIEWED_BYTES, False)])
def test_the_limit_of_a_preview_is_read_from_the_facts(limit: int, is_preview: bool) -> None:
    ops = _contents({"ok": False, "error": "too_large", "bytes": limit + 1, "max_bytes": limit}, [])
    found = run_sync(Reader(Session(ops)).read("a.png", 0, 10))
    assert ("exceeds maximum preview size of 512000 bytes" in str(found.error)) is is_preview
    assert ("too_large" in str(found.error)) is not is_preview


@pytest.mark.parametrize(
    ("action", "arguments", "is_outside", "summary"),
    [
        ("delete", {"recursive": True}, False, "workspace_file delete, with all below it: a"),
        ("delete", {"recursive": True}, True, "outside the workspace, delete, with all below it: a"),
        ("write", {"content": "x"}, True, "outside the workspace, write: a (1 characters, 1 line)"),
        ("write", {"content": "x"}, False, "workspace_file write: a (1 characters, 1 line)"),
    ],
)
def test_a_request_shows_location_and_extent_of_a_change(
    action: str, arguments: dict[str, Any], is_outside: bool, summary: str
) -> None:
    request = file_request(
        action,
        {"path": "a", **arguments},
        path="/a",
        is_outside=is_outside,
        namespace="demo",
        tool_call_id=None,
    )
    assert request.summary == summary
    assert request.tool == ("sandbox_file" if is_outside else "workspace_file")


class TestRemoveTree:
    """The command that deletes a directory tree, and refuses the workspace and its parents."""

    @pytest.fixture
    def workspace(self, tmp_path: Path) -> Path:
        workspace = tmp_path / "mnt" / "demo"
        (workspace / "src").mkdir(parents=True)
        (workspace / "src" / "a.py").write_text("x")
        return workspace

    def _delete(self, workspace: Path, path: object) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-c", remove_tree_command(str(path))]
        return subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)

    @pytest.mark.parametrize("name", ["src", "a b", "it's", "$(touch x)", "new\nline", "-rf", "*"])
    def test_a_directory_is_deleted(self, workspace: Path, name: str) -> None:
        (workspace / name / "deep" / "er").mkdir(parents=True)
        assert self._delete(workspace, workspace / name).returncode == 0
        assert not (workspace / name).exists()
        assert {path.name for path in workspace.iterdir()} == {"src"} - {name}

    def test_a_directory_outside_is_deleted(self, workspace: Path, tmp_path: Path) -> None:
        (tmp_path / "other" / "deep").mkdir(parents=True)
        assert self._delete(workspace, tmp_path / "other").returncode == 0
        assert not (tmp_path / "other").exists()

    def test_a_missing_directory_is_no_error(self, workspace: Path) -> None:
        assert self._delete(workspace, workspace / "none").returncode == 0

    @pytest.mark.parametrize("path", ["mnt/demo", "mnt/demo/", "mnt", ".", "mnt/demo/src/.."])
    def test_the_workspace_and_its_parents_are_kept(self, workspace: Path, tmp_path: Path, path: str) -> None:
        done = self._delete(workspace, f"{tmp_path}/{path}")
        assert (done.returncode, done.stdout) == (
            1,
            "it is the workspace directory or one of its parents\n",
        )
        assert (workspace / "src" / "a.py").exists()

    @pytest.mark.parametrize("target", ["mnt/demo", "mnt", "/"])
    def test_a_link_to_the_workspace_or_a_parent_is_kept(
        self, workspace: Path, tmp_path: Path, target: str
    ) -> None:
        link = workspace / "link"
        link.symlink_to(tmp_path / target)
        assert self._delete(workspace, link).returncode == 1
        assert link.is_symlink()
        assert (workspace / "src" / "a.py").exists()

    def test_a_workspace_reached_through_a_link_is_kept(self, workspace: Path, tmp_path: Path) -> None:
        (tmp_path / "alias").symlink_to(workspace)
        assert self._delete(tmp_path / "alias", workspace).returncode == 1
        assert (workspace / "src" / "a.py").exists()

    def test_a_directory_that_cannot_be_deleted_is_an_error(self, workspace: Path) -> None:
        assert self._delete(workspace, "/proc/self/task").returncode != 0


def test_only_the_models_own_call_has_an_idempotency_key() -> None:
    call: Any = {"name": "execute", "args": {"command": "date"}, "id": "call_1"}

    def name(tool: str, command: str, done: str = "date", namespace: str = "demo") -> str | None:
        return calls.idempotency_key(
            tool, {"command": command}, {"command": done}, namespace=namespace, session_id="session"
        )

    assert name("execute", "date") is None
    assert calls.tool_call_id() is None
    with calls._current_call(call):
        assert calls.tool_call_id() == "call_1"
        assert name("execute", "date") == name("execute", "date")
        assert name("execute", "date") is not None
        assert (
            len(
                {name("execute", "date"), name("execute", "date", "id"), name("execute", "date", "date", "b")}
            )
            == 3
        )
        assert name("execute", "id") is None
        assert name("write_file", "date") is None
    assert calls.tool_call_id() is None


@pytest.mark.parametrize(
    "name", ["~", "~root", "C:\\x", "file:/x", "$'a\\n'", " a ", "back\\slash", "a\u202fb"]
)
def test_an_odd_name_is_not_interpreted(tmp_path: Path, name: str) -> None:
    async def guest(entry: str, request: dict[str, Any]) -> Any:
        return {"files": files, "content": content}[entry].main(request)

    ops = guest_operations(guest, root=str(tmp_path))
    location = locate(f"{tmp_path}/{name}", str(tmp_path))
    run_sync(ops.create(location.path, "one"))
    assert (tmp_path / name).read_text() == "one"
    assert run_sync(ops.replace_text(location.path, "one", "two", replace_all=False)) == 1
    assert run_sync(ops.fetch(location.path)) == b"two"
    assert (
        run_sync(
            ops.view(
                location.path,
                ViewQuery(offset=1, limit=9, limit_bytes=99, binary=False, binary_bytes=9),
            )
        ).body
        == "two"
    )
