"""gitignore patterns: the same answers as ``git check-ignore``, and a bounded cost for hostile ones."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies

from langchain_daytona_ws._guest.ignore import Ignore

_ODD = ["a", "b", "ab", "ba", "a.b", "é", "-", "]", "a b", "a ", "!a", "#a", "\\", "[a]", "a\nb"]
_NAMES = strategies.one_of(
    strategies.sampled_from(_ODD),
    strategies.text("ab.-", min_size=1, max_size=4).filter(lambda name: name not in (".", "..")),
)
_PATHS = strategies.lists(_NAMES, min_size=1, max_size=4).map("/".join)
_PIECES = ["a", "b", ".", "/", "*", "**", "**/", "/**/", "?", "\\", "\\/", " ", "!", "#", "é", "a/b"]
_CLASSES = [
    "[",
    "]",
    "-",
    "^",
    "[ab]",
    "[!a]",
    "[^a]",
    "[a-b]",
    "[]-]",
    "[[:alpha:]]",
    "[[:punct:]b]",
    "[[:x:]]",
    "[a-",
]
_PATTERNS = strategies.lists(strategies.sampled_from(_PIECES + _CLASSES), max_size=6).map("".join)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True)
    return tmp_path / "repo"


def _answer(repository: Path, patterns: list[str], paths: list[str]) -> set[str]:
    """Return which of the paths git ignores; they exist as files and directories below a fresh work tree."""
    (repository / ".git/info/exclude").write_bytes("".join(f"{pattern}\n" for pattern in patterns).encode())
    done = subprocess.run(
        [
            "git",
            "--git-dir",
            repository / ".git",
            "--work-tree",
            ".",
            *["check-ignore", "--no-index", "-z", "--stdin"],
        ],
        check=False,
        input="".join(f"{path}\0" for path in paths).encode(),
        stdout=subprocess.PIPE,
        cwd=_tree(repository, paths),
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode in (0, 1)
    return set(done.stdout.decode().split("\0")[:-1])


def _tree(repository: Path, paths: list[str]) -> Path:
    number = sum(1 for _ in repository.iterdir())
    root = repository / f"tree{number}"
    root.mkdir()
    for path in sorted(paths, key=len, reverse=True):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if not (root / path).exists():
            (root / path).touch()
    return root


@settings(max_examples=150)
@given(
    patterns=strategies.lists(_PATTERNS, min_size=1, max_size=5),
    paths=strategies.lists(_PATHS, min_size=1, max_size=12, unique=True),
)
@example(patterns=["a**/b", "a/b**/c"], paths=["axb", "a/bc", "a/bx/c", "a/b/x/y/c"])
@example(patterns=["*", "!*/", "!*.py"], paths=["a/b.py", "a/b.txt", "a"])
@example(patterns=["a/", "!a/b"], paths=["a/b", "a", "b/a"])
@example(patterns=["a/**/b", "/**", "!/a/**"], paths=["a/b", "a/x/y/b", "a", "c"])
@example(patterns=["a\\ ", "b ", "\\#a", "\\!a", "\\"], paths=["a ", "b", "#a", "!a", "\\"])
@example(patterns=["é", "?.x", "??.y", "[é].z"], paths=["é", "é.x", "é.y", "é.z"])
@example(patterns=["a/b/"], paths=["a/bc/d", "a/b/c", "a/bc"])
def test_paths_are_ignored_as_by_git(repository: Path, patterns: list[str], paths: list[str]) -> None:
    ignored = _answer(repository, patterns, paths)
    ignore = Ignore(patterns)
    directories = {path[:at] for path in paths for at, char in enumerate(path) if char == "/"}

    assert {path for path in paths if ignore.covers(path, path in directories)} == ignored


def test_a_pattern_with_a_final_slash_matches_directories_only() -> None:
    ignore = Ignore(["build/"])

    assert ignore.matches("x/build", is_dir=True)
    assert not ignore.matches("x/build", is_dir=False)
    assert not ignore.matches("build/a.o", is_dir=False)
    assert ignore.covers("build/a.o", is_dir=False)


def test_names_that_are_no_utf8_are_matched() -> None:
    assert Ignore(["*.bin"]).matches(os.fsdecode(b"\xff.bin"), is_dir=False)
    assert Ignore(["?"]).matches(os.fsdecode(b"\xff"), is_dir=False)


def test_no_patterns_ignore_nothing() -> None:
    assert not Ignore([]).covers("a/b", is_dir=False)
    assert not Ignore(["", "# a", "!", "/", "[a", "a\\"]).covers("a", is_dir=True)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 100 + "b", "a" * 4000),
        ("**/a*" * 60 + "b", "a/" * 1000 + "a"),
        ("[!b]*" * 100 + "b", "a" * 4000),
        ("x/" + "**/*a*/" * 30 + "b", "x/" + "aa/" * 600 + "c"),
    ],
)
def test_many_wildcards_stay_cheap(pattern: str, path: str) -> None:
    ignore = Ignore([pattern])
    start = time.process_time()

    assert not ignore.matches(path, is_dir=False)
    assert time.process_time() - start < 2


def test_many_wildcards_still_match() -> None:
    assert Ignore(["*a*b*a*"]).matches("xxabxbax", is_dir=False)
    assert Ignore(["a/**/b/**/*c*d/**/e"]).matches("a/b/b/x/xcccd/y/cd/z/e", is_dir=False)
    assert Ignore(["**/a*/b*/**/c"]).matches("a1/x/a2/b2/c", is_dir=False)
