"""Waiting for the file lock, in the program that runs requests in the sandbox."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._guest import boot, content, dirs, files, locks  # noqa: F401 - entries of boot

READ: dict[str, Any] = {"op": "read"}
VIEW: dict[str, Any] = {
    "op": "view", "offset": 1, "limit": 9, "limit_bytes": 99, "binary": False, "binary_bytes": 99, "max_bytes": 99,
}  # fmt: skip
FETCH: dict[str, Any] = {"op": "fetch", "inline_bytes": 99, "max_bytes": 99}
WRITE: dict[str, Any] = {"op": "write", "content": b"new", "overwrite": True, "key": "k"}

BATCH: dict[str, Any] = {"op": "batch", "requests": [WRITE], "key": "k"}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(dirs, "STATE_PARENT", str(tmp_path))
    monkeypatch.setattr(boot, "LOCK_WAIT_S", 0)
    monkeypatch.setattr(boot, "FILE_WAIT_S", 0)
    yield dirs.state_directory()
    # A guest's turn ends with its process; here it has to be ended.
    for fd in os.listdir("/proc/self/fd"):
        try:
            held = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # that of the listing
            continue
        if held == f"{dirs.state_directory()}/files.lock":
            os.close(int(fd))


def carried_out(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    entry = "content" if request["op"] in ("view", "fetch") else "files"
    with contextlib.chdir("."):  # the call changes into the workspace, and this returns from it
        return boot._execute(entry, {"root": str(root), "path": "f", **request}, dirs)


@pytest.mark.parametrize("request_", [READ, VIEW, FETCH, WRITE], ids=lambda request: request["op"])
def test_no_read_sees_a_half_written_file(tmp_path: Path, state: str, request_: dict[str, Any]) -> None:
    (tmp_path / "f").write_text("half of i")
    assert locks.lock_files(state, True, 0)
    assert carried_out(tmp_path, request_) == {"ok": False, "error": "busy"}


@pytest.mark.parametrize("request_", [READ, VIEW, FETCH], ids=lambda request: request["op"])
def test_reads_share_the_lock(tmp_path: Path, state: str, request_: dict[str, Any]) -> None:
    (tmp_path / "f").write_text("all of it")
    assert locks.lock_files(state, False, 0)
    assert carried_out(tmp_path, request_)["ok"] is True


@pytest.mark.parametrize("request_", [WRITE, BATCH], ids=["write", "batch"])
def test_a_change_waits_for_reads(tmp_path: Path, state: str, request_: dict[str, Any]) -> None:
    assert locks.lock_files(state, False, 0)
    assert carried_out(tmp_path, request_) == {"ok": False, "error": "busy"}


def test_a_batch_of_reads_shares_the_lock(tmp_path: Path, state: str) -> None:
    (tmp_path / "f").write_text("all of it")
    assert locks.lock_files(state, False, 0)
    reads = {"op": "batch", "requests": [{"root": str(tmp_path), "path": "f", **READ}]}
    assert carried_out(tmp_path, reads)["ok"] is True
