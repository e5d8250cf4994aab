"""Follow a job: return its lines of output as they arrive, the restarts of the sandbox, and the end of the job."""

from __future__ import annotations

from dataclasses import replace

from langchain_daytona_ws._core.commands.characters import whole_end
from langchain_daytona_ws._core.jobs.models import Job, JobLine, LineKind, LogPiece
from langchain_daytona_ws._core.jobs.operations import JobOps, left_out
from langchain_daytona_ws.errors import JobError

WAIT_S = 20.0  # maximum time for which one request waits for output
LINE_MAX_BYTES = 65_536  # longer lines are split; the line break counts
RESTARTED = "the machine was stopped and has been started again"
GONE = "the machine is gone"
_UNKNOWN = Job("", "running")  # stands for the job until the first answer


class LogFollower:
    """Reads a job's output, piece by piece, and splits it into lines.

    Reading starts at the byte ``offset``, or with the last ``tail_lines``; if both are None, at the beginning.
    """

    def __init__(self, ops: JobOps, job_id: str, *, offset: int | None, tail_lines: int | None) -> None:
        self._ops = ops
        self._job_id = job_id
        self._offset = 0 if offset is None and tail_lines is None else offset
        self._tail_lines = tail_lines
        self._job = _UNKNOWN
        self._rest = b""  # the bytes received of an incomplete line
        self._at = self._offset or 0  # offset of ``_rest`` in the output
        self._ended = False

    async def lines(self) -> list[JobLine] | None:
        """Wait for output and return the lines that are complete now, possibly none; None after the job's end.

        Until the first answer, a call does not wait. Errors are those of `JobOps.read_on`; but if the job is gone after
        the first answer, the result is the job's end.
        """
        if self._ended:
            return None
        starts, is_first = self._ops.starts(), self._job is _UNKNOWN
        try:
            piece = await self._ops.read_on(
                self._job_id,
                offset=self._offset,
                tail_lines=self._tail_lines if is_first else None,
                wait_s=0.0 if is_first else WAIT_S,
            )
        except JobError as error:
            if error.code != "no_job" or is_first:
                raise
            return self._end(replace(self._job, state="lost", reason=GONE, exit_code=None))
        return self._received(piece, is_restarted=not is_first and self._ops.starts() != starts)

    def _received(self, piece: LogPiece, *, is_restarted: bool) -> list[JobLine]:
        expected, self._job = self._offset, piece.job
        found: list[JobLine] = []
        if is_restarted:
            found.append(self._line("notice", RESTARTED))
        if piece.offset != expected:
            found += self._flush()
            self._at = piece.offset
            if expected is not None and piece.offset > expected:
                found.append(self._line("notice", left_out(piece.offset - expected)))
        self._rest += piece.data
        self._offset = piece.offset + len(piece.data)
        found += self._whole_lines()
        if not piece.job.is_running and (not piece.data or self._offset >= piece.size_bytes):
            found += self._end(piece.job)
        return found

    def _whole_lines(self) -> list[JobLine]:
        found: list[JobLine] = []
        start, received = 0, self._rest
        while True:
            end = received.find(b"\n", start, start + LINE_MAX_BYTES) + 1
            if not end:
                if len(received) - start <= LINE_MAX_BYTES:
                    break
                end = start + len(whole_end(received[start : start + LINE_MAX_BYTES]))
            found.append(self._output(received[start:end]))
            start = end
        self._rest = received[start:]
        return found

    def _flush(self) -> list[JobLine]:
        rest, self._rest = self._rest, b""
        return [self._output(rest)] if rest else []

    def _end(self, job: Job) -> list[JobLine]:
        self._ended, self._job = True, job
        return [*self._flush(), self._line("end", job.summary)]

    def _output(self, data: bytes) -> JobLine:
        self._at += len(data)
        return self._line("output", data.decode("utf-8", "replace"))

    def _line(self, kind: LineKind, text: str) -> JobLine:
        return JobLine(kind, text, self._at, self._job)
