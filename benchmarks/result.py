"""Results of a row: figures with a baseline and a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.measure import Samples, Spread, ratio


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of one row.

    Args:
        row: The row's name.
        what: The measured quantity.
        baseline: The divisor's name; empty if the figure is no ratio.
        value: The ratio, or the figure itself.
        unit: ``×`` for a ratio.
        reach: The upper limit of `value`; None for no limit.
        at_least: True: `reach` is the lower limit.
        medians: Medians to show with `value`. Each name ends with the unit, as in "exec, ms".
        note: An explanation that the reader needs.
        quoted: True: docs/benchmarks.md has this figure.
    """

    row: str
    what: str
    baseline: str
    value: Spread
    unit: str = "×"
    reach: float | None = None
    at_least: bool = False
    medians: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    quoted: bool = False

    @property
    def reached(self) -> bool | None:
        if self.reach is None:
            return None
        return self.value.median >= self.reach if self.at_least else self.value.median <= self.reach

    @property
    def excess(self) -> float | None:
        """The distance of `value` beyond the limit, divided by the limit; None within the limit."""
        if self.reach is None or self.reached:
            return None
        return abs(self.value.median / self.reach - 1) if self.reach else self.value.median

    @property
    def limit_sign(self) -> str:
        return "≥" if self.at_least else "≤"

    @property
    def absolute(self) -> tuple[list[float], str]:
        """The medians of the contender and the baseline, if any, and their unit."""
        unit = next((name.rpartition(", ")[2] for name in self.medians), "")
        return [value for name, value in self.medians.items() if name.rpartition(", ")[2] == unit][:2], unit

    def as_json(self) -> dict[str, Any]:
        medians = {name: round(value, 4) for name, value in self.medians.items()}
        value = {name: round(part, 4) for name, part in asdict(self.value).items()}
        return {
            **asdict(self),
            "value": value,
            "medians": medians,
            "reached": self.reached,
            "excess": self.excess,
        }


def read(document: Mapping[str, Any]) -> Result:
    """Read a result from its JSON (`Result.as_json`)."""
    values = {name: value for name, value in document.items() if name in Result.__dataclass_fields__}
    return Result(**{**values, "value": Spread(**document["value"])})


def compared(
    row: str, samples: Samples, contender: str, baseline: str, *, what: str | None = None, **more: Any
) -> Result:
    """Divide a contender's times by a baseline's, round by round."""
    medians = {f"{name}, ms": Spread.of(samples[name]).median * 1000 for name in (contender, baseline)}
    return Result(
        row, what or contender, baseline, ratio(samples, contender, baseline), medians=medians, **more
    )


def figure(row: str, what: str, value: float | Spread, unit: str, **more: Any) -> Result:
    """Return the result of a figure that is no ratio."""
    spread = value if isinstance(value, Spread) else Spread.of([value])
    return Result(row, what, "", spread, unit, **more)
