"""Paths as a model writes them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._core.paths import workspace_path, workspace_pattern
from langchain_daytona_ws.errors import PathRefused

ROOT = "/mnt/workspaces/demo"

GOOD = {
    "a.py": "a.py",
    ".": ".",
    "./a//b/./c/": "a/b/c",
    "a/../b": "b",
    "a/..": ".",
    "/src/a.py": "src/a.py",
    "/": ".",
    "//etc/passwd": "etc/passwd",
    ROOT: ".",
    ROOT + "/": ".",
    ROOT + "/src/a.py": "src/a.py",
    "//mnt/./workspaces//demo/x": "x",
    "/mnt/../mnt/workspaces/demo/x": "x",
    ROOT + "2/x": "mnt/workspaces/demo2/x",
    "mnt/workspaces/demo/x": "mnt/workspaces/demo/x",
    "~/x": "~/x",
    "a\\b": "a\\b",
    "-rf": "-rf",
    "$(reboot)\n'\"": "$(reboot)\n'\"",
    "...": "...",
    " ": " ",
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
    "a\udc80": "path_not_unicode",
    "x" * 256: "path_too_long",
    "ä" * 128: "path_too_long",
    "x/" * 2048: "path_too_long",
}


@pytest.mark.parametrize(("path", "code"), BAD.items())
def test_refuses(path: str, code: str) -> None:
    with pytest.raises(PathRefused) as caught:
        workspace_path(path, ROOT)
    assert caught.value.code == code
    assert "workspaces" not in caught.value.for_model


PARTS = st.lists(
    st.sampled_from(["..", ".", "", "a", "b c", "mnt", "workspaces", "demo", "-x", "\n"]), max_size=9
)


@settings(deadline=None)
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
    if path.split("/")[:3] != ROOT.strip("/").split("/"):
        # An absolute path from the workspace root is the same file, unless it spells the root itself.
        assert workspace_path("/" + path, ROOT) == path


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        path = workspace_path(text, ROOT)
    except PathRefused:
        return
    assert path
    assert "\0" not in path


def test_patterns_keep_their_end_and_say_where_they_start() -> None:
    assert workspace_pattern("**/*.py", ROOT) == ("**/*.py", False)
    assert workspace_pattern(ROOT + "/src/*/", ROOT) == ("src/*/", True)
    assert workspace_pattern("/*.md", ROOT) == ("*.md", True)
    for bad in ("", "/", "../*"):
        with pytest.raises(PathRefused):
            workspace_pattern(bad, ROOT)
