"""One run of the benchmark: how thorough it is, and what every row may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.result import Result


@dataclass(frozen=True, slots=True)
class Bench:
    """How thorough a run is.

    Args:
        quick: A tenth of the work, to see that all runs; its figures say little.
        tell: Is told what goes on.
    """

    quick: bool
    tell: Callable[[str], object]

    def times(self, full: int, quick: int | None = None) -> int:
        """Return how often to do something."""
        return full if not self.quick else quick or max(2, full // 10)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its name on the command line, what it asks, and how it finds out."""

    name: str
    about: str
    run: Callable[[Bench], Iterable[Result]]
