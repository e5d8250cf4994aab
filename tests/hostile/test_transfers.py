"""Downloads from a sandbox with forged answers: nothing is written outside of the target, or without end."""

from __future__ import annotations

import binascii
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.transfers.guest import GuestTransfers
from langchain_daytona_ws._core.transfers.models import Transferred
from langchain_daytona_ws._core.transfers.operations import TransferOperations
from langchain_daytona_ws.errors import WorkspaceError
from tests.unit_tests.drawn_json import JSON
from tests.unit_tests.guest import guest_files

Answer = Callable[[dict[str, Any]], Any]


def base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


async def now(work: Callable[[], Any]) -> Any:
    return work()


def download(answer: Answer, target: Path, blob: bytes = b"") -> Transferred:
    """Download a directory from a guest that is a function."""

    async def call(entry: str, request: dict[str, Any]) -> Any:
        return answer(request)

    async def fetch(path: str) -> tuple[bytes, bool]:
        return blob, True

    backend = GuestTransfers(guest_files(call, None, fetch, root="/w"), new_key=lambda: "k", offload=now)
    operations = TransferOperations(backend, root="/w", offload=now, new_lock=threading.Lock)
    return run_sync(operations.download("d", target, None))


def listing(*files: Any, **more: Any) -> dict[str, Any]:
    found = {"files": list(files), "empty": [], "skipped": [], "cut": False, **more}
    return {"ok": True, "kind": "dir", "path": "d", "found": found}


def packing(found: dict[str, Any]) -> Answer:
    """Answer with a listing, and pack a byte for each file."""

    def answer(request: dict[str, Any]) -> Any:
        if request["op"] != "pack":
            return found if request["op"] == "survey" else {"ok": True}
        count = len(request["names"])
        return {"ok": True, "files": [[1, False]] * count, "content": base64(b"x" * count), "bytes": count}

    return answer


def everything_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


NAMES = [
    "../x", "/abs", "a/../../x", "..", ".", "a//b", "nul\0", "\ud800", "x" * 300, "d/" * 3000 + "x", "a/./b",
    "../../../../../../tmp/x",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name(name: str, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    found = listing([name, 1, False], ["good", 1, False], empty=[name])
    result = download(packing(found), target)
    assert [file.path for file in result.files] == ["d/good"]
    assert {entry.reason for entry in result.skipped} == {"name"}
    assert everything_below(tmp_path) <= {"a", "a/b", "a/b/good", "a/b/d", "a/b/a"}


def test_a_file_and_a_directory_of_one_name(tmp_path: Path) -> None:
    result = download(packing(listing(["a", 1, False], ["a/b", 1, False], ["a", 1, False])), tmp_path / "t")
    assert [file.path for file in result.files] == ["d/a"]
    assert len(result.skipped) == 2
    assert everything_below(tmp_path / "t") == {"a"}


@pytest.mark.parametrize(
    "found",
    [
        listing(["a", -1, False]),
        listing(["a", 1 << 70, False]),
        listing(["a", True, False]),
        listing(["a", 1, 0]),
        listing(["a", 1]),
        listing("a"),
        listing([1, 1, False]),
        listing(["", 1, False]),
        listing(["x" * 9000, 1, False]),
        listing(skipped=[["a", "because"]]),
        listing(empty=[1]),
        listing(empty=None),
        {**listing(), "kind": "link"},
        {**listing(), "path": 7},
        {**listing(), "found": [1]},
        {"ok": True, "kind": "dir", "path": "d", "found_from": "../x", "at": "/tmp", "bytes": 3},
        {"ok": True, "kind": "dir", "path": "d", "found_from": "x", "at": "/tmp", "bytes": 1 << 40},
        {"ok": True, "kind": "dir", "path": "d", "found_from": "x", "at": "/tmp", "bytes": 3},
        {"ok": True, "kind": "file", "path": "d", "bytes": 3, "executable": False, "content": "!"},
    ],
)
def test_a_forged_listing(found: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError) as caught:
        download(packing(found), tmp_path / "t", b"[}x")
    assert caught.value.code == "garbled_answer"
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    "pack",
    [
        {"files": [[2, False]], "content": base64(b"x"), "bytes": 1},
        {"files": [[1, False]], "content": base64(b"xy"), "bytes": 1},
        {"files": [[1, False]], "content": base64(b"x"), "bytes": 2},
        {"files": [], "content": "", "bytes": 0},
        {"files": [[1, 1]], "content": base64(b"x"), "bytes": 1},
        {"files": [[4, False]], "content_from": "x", "at": "/tmp", "bytes": 4},
        {"files": [[1 << 50, False]], "content_from": "x", "at": "/tmp", "bytes": 1 << 50},
        {"files": [[5, False]], "content_from": "a/b", "at": "/tmp", "bytes": 5},
    ],
)
def test_a_forged_pack(pack: dict[str, Any], tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> Any:
        return {"ok": True, **pack} if request["op"] == "pack" else listing(["a", 1, False])

    with pytest.raises(WorkspaceError) as caught:
        download(answer, tmp_path / "t", b"12345")
    assert caught.value.code == "garbled_answer"
    assert everything_below(tmp_path / "t") == set()


def test_a_size_that_lies(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError) as caught:
        download(packing(listing(["a", 300_000, False])), tmp_path / "t", b"x" * (20 << 20))
    assert caught.value.code == "busy"
    assert everything_below(tmp_path / "t") == set()


def test_a_file_that_has_grown_over_the_limit_of_a_pack(tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> Any:
        if request["op"] != "pack":
            return listing(["a", 1, False], ["b", 1, True], ["c", 1, False])
        first = {"a": [1, False]}.get(request["names"][0], ["later"])
        files = [first, *[["later"]] * (len(request["names"]) - 1)]
        return {"ok": True, "files": files, "content": base64(b"1" * len(first[1:])), "bytes": len(first[1:])}

    large = b"x" * (9 << 20)
    result = download(answer, tmp_path / "t", large)
    assert [(file.path, file.size_bytes) for file in result.files] == [
        ("d/a", 1), ("d/b", len(large)), ("d/c", len(large))
    ]  # fmt: skip
    assert (tmp_path / "t" / "b").read_bytes() == large


def test_too_many_files(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError) as caught:
        download(packing(listing(cut=True)), tmp_path / "t")
    assert caught.value.code == "too_many_files"
    with pytest.raises(WorkspaceError):
        download(packing(listing(*[["a", 1, False]] * 200_001)), tmp_path / "t")


@settings(max_examples=150)
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.sampled_from("ab./\\\0\udcff\ud800: "), max_size=8), st.integers(0, 3), st.booleans()
        ),
        max_size=6,
    )
)
def test_drawn_names(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, bool]]) -> None:
    top = tmp_path_factory.mktemp("top")
    target = top / "a" / "b"
    found = listing(*[[name, size, flag] for name, size, flag in rows if name])
    result = download(packing(found), target)
    assert {path for path in everything_below(top) if not path.startswith("a/b/")} == {"a", "a/b"}
    stored = [path for path in target.rglob("*") if path.is_file()]
    assert len(stored) == len(result.files)


@given(survey=JSON, pack=JSON)
def test_drawn_answers(tmp_path_factory: pytest.TempPathFactory, survey: Any, pack: Any) -> None:
    top = tmp_path_factory.mktemp("top")

    def answer(request: dict[str, Any]) -> Any:
        if request["op"] == "survey":
            return {"ok": True, "kind": "dir", "path": "d", "found": survey}
        return {"ok": True, **pack} if isinstance(pack, dict) else pack

    with contextlib.suppress(WorkspaceError):
        download(answer, top / "t")
    assert everything_below(top) <= {"t"}
