"""File operations in the sandbox wait for the lock of the files, and release it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._guest import (  # noqa: F401 - content and files are entries of boot
    boot,
    content,
    dirs,
    files,
    locks,
    operations,
)

READ: dict[str, Any] = {"op": "read"}
VIEW: dict[str, Any] = {
    "op": "view", "offset": 1, "limit": 9, "limit_bytes": 99, "binary": False, "binary_bytes": 99, "max_bytes": 99,
}  # fmt: skip
FETCH: dict[str, Any] = {"op": "fetch", "inline_bytes": 99, "max_bytes": 99}
WRITE: dict[str, Any] = {"op": "write", "content": b"new", "overwrite": True, "key": "k"}

BATCH: dict[str, Any] = {"op": "batch", "requests": [WRITE], "key": "k"}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(dirs, "STATE_PARENT", str(tmp_path))
    monkeypatch.setattr(operations, "LOCK_WAIT_S", 0)
    monkeypatch.setattr(boot, "FILE_WAIT_S", 0)
    return dirs.state_directory()


@contextlib.contextmanager
def locked(state: str, kind: int) -> Iterator[None]:
    """Hold the lock of the files, as another call does."""
    with open(f"{state}/files.lock", "a") as file:
        fcntl.flock(file, kind)
        yield


def carried_out(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    entry = "content" if request["op"] in ("view", "fetch") else "files"
    with contextlib.chdir("."):  # the call changes into the workspace, and this returns from it
        return boot._execute(entry, {"root": str(root), "path": "f", **request}, dirs)


@pytest.mark.parametrize("request_", [READ, VIEW, FETCH, WRITE], ids=lambda request: request["op"])
def test_no_read_sees_a_half_written_file(tmp_path: Path, state: str, request_: dict[str, Any]) -> None:
    (tmp_path / "f").write_text("half of i")
    with locked(state, fcntl.LOCK_EX):
        assert carried_out(tmp_path, request_) == {"ok": False, "error": "busy"}


@pytest.mark.parametrize("request_", [READ, VIEW, FETCH], ids=lambda request: request["op"])
def test_reads_share_the_lock(tmp_path: Path, state: str, request_: dict[str, Any]) -> None:
    (tmp_path / "f").write_text("all of it")
    with locked(state, fcntl.LOCK_SH):
        assert carried_out(tmp_path, request_)["ok"] is True


@pytest.mark.parametrize("request_", [WRITE, BATCH], ids=["write", "batch"])
def test_a_change_waits_for_reads(tmp_path: Path, state: str, request_: dict[str, Any]) -> None:
    with locked(state, fcntl.LOCK_SH):
        assert carried_out(tmp_path, request_) == {"ok": False, "error": "busy"}


def test_a_batch_of_reads_shares_the_lock(tmp_path: Path, state: str) -> None:
    (tmp_path / "f").write_text("all of it")
    reads = {"op": "batch", "requests": [{"root": str(tmp_path), "path": "f", **READ}]}
    with locked(state, fcntl.LOCK_SH):
        assert carried_out(tmp_path, reads)["ok"] is True


def test_a_change_does_not_hold_the_lock_while_it_is_pushed(tmp_path: Path, state: str) -> None:
    """A push to a slow S3 takes as long as others wait for the lock: their reads were refused as busy."""
    (tmp_path / "f").write_text("old")
    is_free = False

    class Storage:
        enter = staticmethod(dirs.enter)

        @staticmethod
        def leave(request: dict[str, Any], timed_out: bool) -> dict[str, Any]:
            nonlocal is_free
            with open(f"{state}/files.lock") as other:
                is_free = locks.lock_within(other.fileno(), 0, fcntl.LOCK_SH)
            return {}

    with contextlib.chdir("."):
        boot._execute("files", {"root": str(tmp_path), "path": "f", **WRITE}, Storage)
    assert is_free
