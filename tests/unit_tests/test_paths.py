"""Paths as a model writes them."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langchain_daytona_ws._core.paths import (
    candidates,
    is_log,
    outside,
    shown,
    spelled_out,
    with_slashes,
    workspace_path,
    workspace_pattern,
)
from langchain_daytona_ws.errors import PathRefused

ROOT = "/mnt/workspaces/demo"

GOOD = {
    "a.py": "a.py",
    ".": ".",
    "./a//b/./c/": "a/b/c",
    "a/../b": "b",
    "a/..": ".",
    ROOT: ".",
    ROOT + "/": ".",
    ROOT + "/src/a.py": "src/a.py",
    "//mnt/./workspaces//demo/x": "x",
    "/mnt/../mnt/workspaces/demo/x": "x",
    "mnt/workspaces/demo/x": "mnt/workspaces/demo/x",
    "./~/x": "~/x",
    ROOT + "/~/x": "~/x",
    "~$report.docx": "~$report.docx",
    "notes~": "notes~",
    "./C:/x": "C:/x",
    "c:x": "c:x",
    "./http://x": "http:/x",
    "a:1:b": "a:1:b",
    "a\\b": "a\\b",
    "-rf": "-rf",
    "$(reboot)\n'\"": "$(reboot)\n'\"",
    "...": "...",
    " ": " ",
    "$'a\\nb'": "a\nb",
    "src/$'a\\tb'/c": "src/a\tb/c",
    "$'src/it\\'s\\\\'/": "src/it's\\",
    "$'caf\\xe9'": "caf\udce9",
    "caf\udce9": "caf\udce9",
    "$'caf\\xc3\\xa9 \\u202f\\U0001f642'": "café \u202f🙂",
    "$'~/x'": "~/x",
    "a$'b'": "a$'b'",
    "$'a": "$'a",
    ROOT + "/$'a\\nb'": "$'a\\nb'",
}


@pytest.mark.parametrize(("path", "expected"), GOOD.items())
def test_is_taken_from_the_workspace(path: str, expected: str) -> None:
    assert workspace_path(path, ROOT) == expected


BAD = {
    "": "path_empty",
    "..": "path_outside",
    "a/../../b": "path_outside",
    "/..": "path_outside",
    ROOT + "/..": "path_outside",
    ROOT + "/../demo2/x": "path_outside",
    "a\0b": "path_nul",
    "a\ud800": "path_not_unicode",
    "$'\\ud800'": "path_not_unicode",
    "$'\\Uffffffff'": "path_not_unicode",
    "$'a\\0b'": "path_nul",
    "/": "path_outside",
    "/src/a.py": "path_outside",
    "//etc/passwd": "path_outside",
    ROOT + "2/x": "path_outside",
    "$'/etc/passwd'": "path_outside",
    "~": "path_outside",
    "~/x": "path_outside",
    "~root/x": "path_outside",
    "C:\\x": "path_outside",
    "c:/x": "path_outside",
    "\\\\server\\share": "path_outside",
    "file:///etc/passwd": "path_outside",
    "FILE:/etc/passwd": "path_outside",
    "https://example.org/a.py": "path_outside",
    "sandbox:/mnt/data/a.py": "path_outside",
    "x" * 256: "path_too_long",
    "ä" * 128: "path_too_long",
    "x/" * 2048: "path_too_long",
}


@pytest.mark.parametrize(("path", "code"), BAD.items())
def test_refuses(path: str, code: str) -> None:
    with pytest.raises(PathRefused) as caught:
        workspace_path(path, ROOT)
    assert caught.value.code == code
    assert "workspaces" in path or "workspaces" not in caught.value.for_model


PARTS = st.lists(
    st.sampled_from(["..", ".", "", "a", "b c", "mnt", "workspaces", "demo", "-x", "\n"]), max_size=9
)


@given(parts=PARTS, start=st.sampled_from(["", "/", ROOT + "/"]))
def test_stays_inside_and_is_stable(parts: list[str], start: str) -> None:
    try:
        path = workspace_path(start + "/".join(parts), ROOT)
    except PathRefused:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert workspace_path(path, ROOT) == path
    assert os.path.normpath(f"{ROOT}/{path}").startswith(ROOT)
    assert workspace_path(f"{ROOT}/{path}", ROOT) == path
    with pytest.raises(PathRefused):
        workspace_path("/elsewhere/" + path, ROOT)


@given(st.text(max_size=300))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        path = workspace_path(text, ROOT)
    except PathRefused:
        return
    assert path
    assert "\0" not in path


NAMES = st.one_of(
    st.text(min_size=1, max_size=20).filter(lambda name: not set(name) & {"\0", "/"}),
    st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & {0, 47}).map(os.fsdecode),
    st.sampled_from(["~", "~root", "$'a'", "a\\n", "it's", "C:\\x", " a", "a ", "\u202fPM", "x:"]),
)


@given(st.lists(NAMES, min_size=1, max_size=3))
@example(["file:", "a"])
def test_shown_paths_are_accepted(names: list[str]) -> None:
    path = "/".join(names)
    if set(names) & {".", ".."}:
        return
    assert workspace_path(shown(path), ROOT) == path
    assert workspace_path(f"{shown(path)}/", ROOT) == path
    assert workspace_path(f"above/{shown(path)}", ROOT) == f"above/{path}"
    assert workspace_path(spelled_out(path), ROOT) == path


OUTSIDE = {
    "/tmp/report.txt": "outside the workspace. Paths are relative to it: use tmp/report.txt for a file",
    "/": "outside the workspace. Paths are relative to it: use . for the workspace itself",
    "/repo": "use repo for a file there or . for the workspace itself. For files elsewhere on the machine use bash.",
    "~/.bashrc": "in a home directory, outside the workspace. Paths are relative to it: use .bashrc",
    "C:\\Users\\me\\a.py": "a Windows path, outside the workspace. Paths are relative to it: use Users/me/a.py",
    "file:///tmp/a%20b.py": "a URL, and no path in the workspace. Paths are relative to it: use tmp/a b.py",
    f"file://{ROOT}/src/a.py": "use src/a.py",
}


@pytest.mark.parametrize(("path", "text"), OUTSIDE.items())
def test_says_what_to_use(path: str, text: str) -> None:
    with pytest.raises(PathRefused) as caught:
        workspace_path(path, ROOT)
    assert text in caught.value.for_model
    assert path in ("/", ".") or caught.value.for_model.startswith(f"{shown(path)} is ")


def test_a_path_outside_suggests_one_inside() -> None:
    assert candidates("/workspace/src/a.py", ROOT) == ("workspace/src/a.py", "src/a.py", "a.py")
    assert candidates("../src/a.py", ROOT) == ("src/a.py", "a.py")
    assert candidates("/tmp/../var/x", ROOT) == ("var/x", "x")
    assert candidates("/", ROOT) == ()
    assert len(candidates("/x" * 2000, ROOT)) == 8
    refusal = outside("/workspace/src/a.py", ROOT, "src/a.py")
    assert refusal.message.endswith("Paths are relative to it: use src/a.py, which exists there.")


def test_backslashes() -> None:
    assert with_slashes("src\\win.py", ROOT) == "src/win.py"
    assert with_slashes("$'src\\\\win.py'", ROOT) is None
    assert with_slashes(ROOT + "/src\\win.py", ROOT) is None
    assert with_slashes("src/win.py", ROOT) is None


def test_logs() -> None:
    key = "0123456789abcdef" * 2
    assert is_log(f"/tmp/.langchain-daytona-ws-1000/{key}.log")
    for other in (
        f"/tmp/.langchain-daytona-ws-1000/{key}.call",
        "/tmp/.langchain-daytona-ws-1000/mount-workspace.log",
        f"/tmp/.langchain-daytona-ws-1000/jobs/{key}.log",
        f"/tmp/.langchain-daytona-ws-1000/../{key}.log",
        f"/tmp/.langchain-daytona-ws-1000/{key}.log\n",
        f"tmp/.langchain-daytona-ws-1000/{key}.log",
    ):
        assert not is_log(other)


def test_patterns_keep_their_end_and_say_where_they_start() -> None:
    assert workspace_pattern("**/*.py", ROOT) == ("**/*.py", False)
    assert workspace_pattern(ROOT + "/src/*/", ROOT) == ("src/*/", True)
    assert workspace_pattern("/*.md", ROOT) == ("*.md", True)
    for bad in ("", "/", "../*"):
        with pytest.raises(PathRefused):
            workspace_pattern(bad, ROOT)
