"""The index file in any state, paths of keys, and the order of uploads."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies

from langchain_daytona_ws._guest import sync_tree
from langchain_daytona_ws._guest.sync_push import _level
from langchain_daytona_ws._guest.sync_tree import SAVED, Entry, Index, Tree, digest_of, parents, problem_of
from tests.unit_tests.drawn_json import JSON

BINDING: list[object] = [[1, 2, 3, 4], None, "agents", "p/"]


def entry(path: Path, **changes: Any) -> Entry:
    found = Entry("e" * 32, os.lstat(path), put_at=1.5, modified="2026-11-30T04:05:06.000Z", digest="d")
    for name, value in changes.items():
        setattr(found, name, value)
    return found


@given(
    strategies.dictionaries(
        strategies.text(
            strategies.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8
        ).filter(lambda name: name not in (".", "..")),
        strategies.tuples(
            strategies.integers(-(2**62), 2**62), strategies.booleans(), strategies.sampled_from(["", "0-9"])
        ),
        max_size=4,
    ),
    strategies.sampled_from([True, False, None]),
    strategies.booleans(),
)
def test_an_index_is_read_as_it_was_saved(
    values: dict[str, tuple[int, bool, str]], honours: bool | None, is_complete: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        index = Index(f"{directory}/index", BINDING)
        for path, (number, is_racy, etag) in values.items():
            index.set(path, entry(Path(directory), mtime_ns=number, is_racy=is_racy, etag=etag))
        index.is_complete, index.honours_delete, index.is_saved = is_complete, honours, False
        index.save()
        again = Index(f"{directory}/index", BINDING)
        assert {path: found.values() for path, found in again.entries.items()} == {
            path: found.values() for path, found in index.entries.items()
        }
        assert (again.is_complete, again.honours_delete) == (is_complete, honours)
        for other in ([[1, 2, 3, 5], *BINDING[1:]], [BINDING[0], None, "agents", "q/"]):
            assert Index(f"{directory}/index", other).entries == {}
        assert Index(f"{directory}/index", BINDING, starts_empty=True).entries == {}


@given(
    JSON,
    strategies.sampled_from(
        ["all", "entries", "entry", "field", "path", "honours_delete", "complete", "version"]
    ),
    strategies.sampled_from(list(SAVED)),
)
def test_any_index_file_is_read_without_an_error(value: Any, which: str, field: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        at = Path(directory, "index")
        at.write_text("")
        values = entry(at).values()
        if which == "field":
            values[list(SAVED).index(field)] = value
        saved: Any = {
            "version": 1, "binding": BINDING, "complete": True, "honours_delete": True,
            "entries": {str(value) if which == "path" else "a": value if which == "entry" else values},
        }  # fmt: skip
        if which in saved:
            saved[which] = value
        at.write_text(json.dumps(value if which == "all" else saved))
        index = Index(str(at), BINDING)
        assert index.honours_delete in (True, False, None)
        for path, found in index.entries.items():
            assert problem_of(path) == ""
            assert stat.S_IFMT(found.mode) >= 0
            for name, kind in SAVED.items():
                assert type(getattr(found, name)) is kind
            found.is_unchanged(os.lstat(at))
            found.is_listed_as("e", "x")


PARTS = strategies.sampled_from(
    ["a", "..", ".", "", "...", ".a", "é", "n" * 256, "é" * 128, "n" * 255, "\0", "\udc80", "\n"]
)


@given(strategies.lists(PARTS, min_size=1, max_size=5), strategies.booleans())
def test_a_path_without_a_problem_stays_in_the_directory_and_can_be_made(
    parts: list[str], is_directory: bool
) -> None:
    path = "/".join(parts) + ("/" if is_directory else "")
    if problem_of(path):
        parts = path.removesuffix("/").split("/")
        assert any(
            part in ("", ".", "..", "\0", "\udc80") or len(part.encode(errors="replace")) > 255
            for part in parts
        )
        return
    with tempfile.TemporaryDirectory() as directory:
        root = os.path.realpath(directory)
        at = f"{root}/{path}"
        assert os.path.normpath(at).startswith(root + "/")
        os.makedirs(os.path.dirname(at.rstrip("/")), exist_ok=True)
        Path(at.rstrip("/")).touch()


@pytest.mark.parametrize("path", ["a/" * 2000 + "a", "/", "//", "a//", "", "../", ".."])
def test_paths_with_a_problem(path: str) -> None:
    assert problem_of(path)


def test_parents() -> None:
    assert list(parents("a/b/c")) == ["a", "a/b"]
    assert list(parents("a/b/")) == ["a"]
    assert list(parents("a")) == []


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("src/HEAD", 0),
        ("refs/heads/main", 0),
        (".git/objects/ab/cd", 0),
        (".git/objects/pack/p.idx", 0),
        (".git/config", 1),
        (".git/logs/HEAD", 2),
        (".git/HEAD", 2),
        (".git/index", 2),
        (".git/packed-refs", 2),
        (".git/refs/heads/objects/x", 2),
        (".git/ORIG_HEAD", 1),
        (".git/worktrees/w/HEAD", 2),
        (".git/modules/m/objects/ab/cd", 0),
        (".git/modules/m/refs/heads/main", 2),
        ("objects/repo/.git/refs/heads/main", 2),
        ("a/b/.git/objects/ab/cd", 0),
        ("bare.git/refs/heads/main", 2),
        ("bare.git/objects/ab/cd", 0),
        (".gitignore", 0),
        (".github/HEAD", 0),
    ],
)
def test_the_order_of_uploads(path: str, level: int) -> None:
    assert _level(path) == level


def test_listed_times(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    listed = "2026-11-30T04:05:06.000Z"
    seconds = 1796011506.0
    for put_at, is_known in (
        (seconds, True),
        (seconds + 2, True),
        (seconds + 3, False),
        (seconds - 1, False),
        (0.0, True),
    ):
        assert entry(tmp_path / "a", put_at=put_at, modified="").is_listed_as("e" * 32, listed) is is_known
    assert not entry(tmp_path / "a", put_at=seconds, modified="").is_listed_as("f" * 32, listed)
    assert entry(tmp_path / "a", put_at=seconds, modified=listed).changed_at == seconds


def test_digests_of_parts(tmp_path: Path) -> None:
    import hashlib

    at = tmp_path / "a"
    at.write_bytes(b"123")
    found = os.lstat(at)
    whole = hashlib.md5(b"123").digest()
    assert digest_of(str(at), found) == whole.hex()
    assert digest_of(str(at), found, like="x-1") == hashlib.md5(whole).hexdigest() + "-1"
    at.unlink()
    at.symlink_to("target")
    assert digest_of(str(at), os.lstat(at)) == hashlib.md5(b"target").hexdigest()


def test_a_status_is_not_that_of_a_file_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").touch()
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "loop").symlink_to("loop")
    tree = Tree(str(tmp_path), [])
    assert tree.status("d/a") is not None
    assert tree.status("link") is not None
    for path in ("link/a", "loop/a", "d/a/b", "none", "none/a"):
        assert tree.status(path) is None


def test_a_file_is_not_read_for_an_etag_with_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("the file was read")

    at = tmp_path / "a"
    at.write_bytes(b"123")
    monkeypatch.setattr(sync_tree, "_digest", read)
    assert digest_of(str(at), os.lstat(at), like="x-13") == ""
