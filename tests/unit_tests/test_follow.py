"""Following a job's output: lines, gaps, restarts and the end, over scripted answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._core.jobs.follow import LINE_MAX_BYTES, RESTARTED, LogFollower
from langchain_daytona_ws._core.jobs.models import Job, JobLine, LogPiece, no_such_job
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws.errors import JobError

RUNNING = Job("abcd2345", "running")
DONE = Job("abcd2345", "finished", exit_code=0)


class Ops:
    """Answers `read_on` with pieces of an output: (job, data, offset)."""

    def __init__(
        self, *pieces: tuple[Job, bytes, int] | JobError, restarts_at: int = 0, missing: int = 0
    ) -> None:
        self.pieces = list(pieces)
        self.missing = missing  # bytes after each piece
        self.asked: list[tuple[int | None, int | None, float]] = []
        self.restarts_at = restarts_at

    def starts(self) -> int:
        return int(bool(self.restarts_at) and len(self.asked) >= self.restarts_at)

    async def read_on(
        self, job_id: str, *, offset: int | None, tail_lines: int | None, wait_s: float
    ) -> LogPiece:
        self.asked.append((offset, tail_lines, wait_s))
        piece = self.pieces.pop(0)
        if isinstance(piece, JobError):
            raise piece
        job, data, at = piece
        return LogPiece(job, data, at, at + len(data) + self.missing)


def followed(ops: Ops, **start: Any) -> list[JobLine]:
    follower = LogFollower(ops, "abcd2345", **{"offset": None, "tail_lines": None, **start})  # type: ignore[arg-type]
    lines: list[JobLine] = []
    while (found := run_sync(follower.lines())) is not None:
        lines += found
    return lines


def seen(lines: list[JobLine]) -> list[tuple[str, str, int]]:
    return [(line.kind, line.text, line.next_offset) for line in lines[:-1]]


def test_lines_are_whole_and_have_the_offset_after_them() -> None:
    ops = Ops((RUNNING, b"a\nb", 0), (RUNNING, b"", 3), (RUNNING, b"\n\xc3", 3), (DONE, b"\xa9 end", 5))
    lines = followed(ops)
    assert seen(lines) == [("output", "a\n", 2), ("output", "b\n", 4), ("output", "\xe9 end", 10)]
    assert (lines[-1].kind, lines[-1].job, lines[-1].next_offset) == ("end", DONE, 10)
    assert "finished" in lines[-1].text
    # Only the first request does not wait.
    assert [wait_s > 0 for _, _, wait_s in ops.asked] == [False, True, True, True]
    assert [offset for offset, _, _ in ops.asked] == [0, 3, 3, 5]


def test_it_begins_with_the_last_lines_or_at_an_offset() -> None:
    ops = Ops((RUNNING, b"x\n", 40), (DONE, b"", 42))
    assert seen(followed(ops, tail_lines=1)) == [("output", "x\n", 42)]
    assert [offset for offset, _, _ in ops.asked] == [None, 42]
    assert [tail_lines for _, tail_lines, _ in ops.asked] == [1, None]
    ops = Ops((DONE, b"x", 7))
    assert seen(followed(ops, offset=7)) == [("output", "x", 8)]
    # Beyond the end: it goes on where the output is.
    assert seen(followed(Ops((RUNNING, b"", 3), (DONE, b"y", 3)), offset=9)) == [("output", "y", 4)]


def test_a_gap_is_reported_between_the_lines() -> None:
    lines = followed(Ops((RUNNING, b"half", 0), (DONE, b"rest\n", 1004)))
    assert [(line.kind, line.next_offset) for line in lines] == [
        ("output", 4),
        ("notice", 1004),
        ("output", 1009),
        ("end", 1009),
    ]
    assert lines[1].text.startswith("1,000 bytes before this are not kept")


def test_a_restart_is_reported_once_and_the_job_is_lost() -> None:
    lost = Job("abcd2345", "lost", reason="the machine was stopped or restarted")
    lines = followed(Ops((RUNNING, b"a\n", 0), (RUNNING, b"b\n", 2), (lost, b"", 4), restarts_at=2))
    assert [line.text for line in lines if line.kind == "notice"] == [RESTARTED]
    assert lines[-1].job.state == "lost"
    assert "the machine was stopped" in lines[-1].text


def test_a_lost_sandbox_is_the_end() -> None:
    lines = followed(Ops((RUNNING, b"ha", 0), no_such_job("abcd2345")))
    assert [(line.kind, line.job.state) for line in lines] == [("output", "lost"), ("end", "lost")]
    assert lines[-1].text == "job abcd2345 lost: the machine is gone, 0 bytes of output"
    with pytest.raises(JobError):
        followed(Ops(no_such_job("abcd2345")))


def test_an_ended_job_without_more_output_is_the_end_whatever_its_size() -> None:
    lines = followed(Ops((DONE, b"a\n", 0), (DONE, b"", 2), missing=9))
    assert [(line.kind, line.next_offset) for line in lines] == [("output", 2), ("end", 2)]


def test_a_line_without_an_end_comes_in_pieces() -> None:
    long = "\u20ac".encode() * LINE_MAX_BYTES
    lines = followed(Ops((RUNNING, long, 0), (DONE, b"", len(long))))
    assert all(len(line.text.encode()) <= LINE_MAX_BYTES for line in lines)
    assert "".join(line.text for line in lines[:-1]) == long.decode()


@pytest.mark.parametrize("first", [LINE_MAX_BYTES, LINE_MAX_BYTES + 1, 2 * LINE_MAX_BYTES])
def test_a_long_line_is_split_wherever_a_piece_ends(first: int) -> None:
    whole = b"a" * (2 * LINE_MAX_BYTES - 1) + b"\n" + b"b" * LINE_MAX_BYTES + b"\nc\n"
    lines = followed(Ops((RUNNING, whole[:first], 0), (DONE, whole[first:], first)))
    sizes = [len(line.text) for line in lines[:-1]]
    assert sizes == [LINE_MAX_BYTES, LINE_MAX_BYTES, LINE_MAX_BYTES, 1, 2]


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_the_lines_are_the_output_however_it_comes(pieces: list[bytes]) -> None:
    offsets = [sum(map(len, pieces[:number])) for number in range(len(pieces))]
    answers = [(RUNNING, data, at) for data, at in zip(pieces, offsets, strict=True)]
    whole = b"".join(pieces)
    lines = followed(Ops(*answers, (DONE, b"", len(whole))))
    expected = [line + b"\n" for line in whole.split(b"\n")]
    expected[-1] = expected[-1][:-1]
    assert [line.text for line in lines[:-1]] == [
        line.decode("utf-8", "replace") for line in expected if line
    ]
    assert lines[-1].next_offset == len(whole)
