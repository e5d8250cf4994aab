"""The once-only marker and its expiry, and the bounded output, on this host's disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._guest import record
from langchain_daytona_ws._guest.dirs import SetupError
from langchain_daytona_ws._guest.output import Output
from langchain_daytona_ws._guest.record import Record, run_once


def nothing() -> None:
    return None


@pytest.fixture
def call(tmp_path: Path) -> Callable[[], Record]:
    return lambda: Record(str(tmp_path), "key")


class TestOnce:
    def test_the_second_time_returns_the_first_answer(self, call: Callable[[], Record]) -> None:
        done: list[int] = []

        def work() -> dict[str, object]:
            done.append(1)
            return {"n": len(done)}

        first = call()
        assert run_once(first, 0, work, nothing) == {"n": 1}
        first.close()
        assert run_once(call(), 0, work, nothing) == {"n": 1, "from_record": True}
        assert done == [1]

    def test_a_running_call_is_waited_for_until_the_limit(self, call: Callable[[], Record]) -> None:
        holder = call()
        assert holder.lock(0)
        assert run_once(call(), 0.05, dict, nothing) == {"outcome": "running"}

    def test_a_killed_call_has_an_unknown_outcome(self, call: Callable[[], Record]) -> None:
        dead = call()
        dead.lock(0)
        dead.write(record.STARTED, b"1")
        dead.close()
        cleared: list[int] = []
        assert run_once(call(), 0, dict, lambda: cleared.append(1)) == {"outcome": "unknown"}
        assert cleared == [1]

    def test_a_cancelled_call_does_not_start(self, call: Callable[[], Record]) -> None:
        cancelled = call()
        cancelled.lock(0)
        cancelled.write(record.CANCELLED)
        cancelled.close()
        assert run_once(call(), 0, dict, nothing) == {"outcome": "cancelled"}

    def test_what_did_nothing_may_be_sent_again(self, call: Callable[[], Record]) -> None:
        def refuse() -> dict[str, object]:
            raise SetupError("workspace", "no")

        first = call()
        with pytest.raises(SetupError):
            run_once(first, 0, refuse, nothing)
        first.close()
        assert run_once(call(), 0, lambda: {"ok": True}, nothing) == {"ok": True}

    def test_a_failure_half_way_is_never_repeated(self, call: Callable[[], Record]) -> None:
        def fail() -> dict[str, object]:
            raise ValueError

        first = call()
        with pytest.raises(ValueError):  # noqa: PT011
            run_once(first, 0, fail, nothing)
        first.close()
        assert run_once(call(), 0, dict, nothing) == {"outcome": "unknown"}

    def test_a_truncated_record_is_not_used(
        self, call: Callable[[], Record], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = call()
        first.lock(0)
        first.write(record.STARTED, b"1")
        whole = os.pwrite
        monkeypatch.setattr(record.posix, "pwrite", lambda fd, data, at: whole(fd, data[:9], at))
        first.write(record.DONE, b'{"n": 1}')
        first.close()
        monkeypatch.undo()
        assert run_once(call(), 0, dict, nothing) == {"outcome": "unknown"}

    @pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"n": ', b"\xff", b"[" * 100_000])
    def test_a_result_that_cannot_be_read_is_unknown(self, call: Callable[[], Record], body: bytes) -> None:
        written = call()
        written.lock(0)
        written.write(record.DONE, body)
        written.close()
        assert run_once(call(), 0, dict, nothing) == {"outcome": "unknown"}

    def test_a_full_disk_does_not_stop_the_command(
        self, call: Callable[[], Record], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(record.posix, "pwrite", full)
        first = call()
        assert run_once(first, 0, lambda: {"ok": 1}, nothing) == {"ok": 1}
        first.close()
        assert run_once(call(), 0, lambda: {"ok": 2}, nothing) == {"outcome": "unknown"}

    def test_many_at_once_do_it_once(self, tmp_path: Path) -> None:
        done: list[int] = []

        def work() -> dict[str, object]:
            done.append(1)
            time.sleep(0.05)
            return {}

        threads = [
            threading.Thread(target=lambda: run_once(Record(str(tmp_path), "k"), 5, work, nothing))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [1]

    def test_a_link_in_the_record_s_place_is_not_followed(
        self, tmp_path: Path, call: Callable[[], Record]
    ) -> None:
        (tmp_path / "victim").write_text("precious")
        (tmp_path / "key.call").symlink_to(tmp_path / "victim")
        with pytest.raises(OSError, match="symbolic"):
            run_once(call(), 0, dict, nothing)
        assert (tmp_path / "victim").read_text() == "precious"


class TestTidy:
    @pytest.fixture
    def state(self, tmp_path: Path) -> Path:
        (tmp_path / "state").mkdir()
        (tmp_path / "uploads").mkdir()
        return tmp_path / "state"

    def tidy(self, state: Path) -> set[str]:
        record.prune(str(state), str(state.parent / "uploads"))
        return {path.name for path in state.parent.rglob("*") if path.is_file()} - {"tidied"}

    def test_by_age(self, state: Path) -> None:
        for name in ("old.call", "old.log", "new.call", "other"):
            (state / name).write_text("x")
        (state.parent / "uploads" / "old").write_text("x")
        for path in (
            state / "old.call",
            state / "old.log",
            state / "other",
            state.parent / "uploads" / "old",
        ):
            os.utime(path, (0, 0))
        assert self.tidy(state) == {"new.call", "other"}

    def test_by_size_oldest_first(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(record, "KEEP_BYTES", 250)
        for i in range(5):
            (state / f"{i}.log").write_text("x" * 100)
            os.utime(state / f"{i}.log", (time.time() - i, time.time() - i))
        assert self.tidy(state) == {"0.log", "1.log"}

    def test_logs_push_out_no_record_of_a_call(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(record, "KEEP_BYTES", 250)
        monkeypatch.setattr(record, "KEEP_FILES", 3)
        (state / "made.call").write_text("x")
        os.utime(state / "made.call", (time.time() - 9, time.time() - 9))
        for i in range(5):
            (state / f"{i}.log").write_text("x" * 100)
            os.utime(state / f"{i}.log", (time.time() - i, time.time() - i))
        assert self.tidy(state) == {"0.log", "1.log", "made.call"}

    def test_by_number(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(record, "KEEP_FILES", 3)
        for i in range(5):
            (state / f"{i}.call").write_text("x")
            os.utime(state / f"{i}.call", (time.time() - i, time.time() - i))
        assert self.tidy(state) == {"0.call", "1.call", "2.call"}

    def test_a_running_call_stays(self, state: Path) -> None:
        running = Record(str(state), "running")
        running.lock(0)
        os.utime(running.path, (0, 0))
        assert self.tidy(state) == {"running.call"}
        running.close()

    def test_not_more_than_once_a_minute(self, state: Path) -> None:
        self.tidy(state)
        (state / "old.call").write_text("x")
        os.utime(state / "old.call", (0, 0))
        assert self.tidy(state) == {"old.call"}


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(2, 400))
def test_output_keeps_both_ends_of_whatever_comes(chunks: list[bytes], limit: int) -> None:
    path = f"/dev/shm/langchain-daytona-ws-test-{os.getpid()}.log"
    try:
        output = Output(limit, path, 1 << 20)
        for chunk in chunks:
            output.feed(chunk)
        whole = b"".join(chunks)
        head, tail = output.head_and_tail()
        assert output.size_bytes == len(whole)
        if len(whole) <= limit:
            assert (head, tail, output.has_log) == (whole, b"", False)
        else:
            assert whole.startswith(head)
            assert whole.endswith(tail)
            assert (len(head), len(tail)) == (limit // 2, limit // 2)
            assert Path(path).read_bytes() == whole
    finally:
        Path(path).unlink(missing_ok=True)


def test_the_log_is_capped(tmp_path: Path) -> None:
    output = Output(10, str(tmp_path / "log"), 25)
    for _ in range(10):
        output.feed(b"0123456789")
    assert (tmp_path / "log").read_bytes() == b"0123456789" * 2 + b"01234"
    assert (output.log_bytes, output.size_bytes) == (25, 100)


def test_a_log_that_cannot_be_written_is_reported_and_nothing_else_is_lost(tmp_path: Path) -> None:
    output = Output(10, str(tmp_path / "no" / "log"), 1000)
    for _ in range(10):
        output.feed(b"0123456789")
    assert output.log_error
    assert output.head_and_tail() == (b"01234", b"56789")
