"""Settings of one benchmark run, and the type of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.result import Result


@dataclass(frozen=True, slots=True)
class Bench:
    """Settings of a run.

    Args:
        quick: Do a tenth of the work, to check that every row runs; the figures are not reliable.
        report: Called with lines about the progress.
    """

    quick: bool
    report: Callable[[str], object]

    def times(self, full: int, quick: int | None = None) -> int:
        """Return the number of repetitions: ``full``, or ``quick`` (default: a tenth) in a quick run."""
        return full if not self.quick else quick or max(2, full // 10)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its name on the command line, its description, and its function."""

    name: str
    about: str
    run: Callable[[Bench], Iterable[Result]]
