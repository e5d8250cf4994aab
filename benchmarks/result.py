"""What a row finds: figures, each beside its baseline and its reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.measure import Samples, Spread, ratio


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of one row.

    Args:
        row: The row that it belongs to.
        what: What was measured.
        baseline: What it is divided by; empty for a figure that is none of a ratio.
        value: The ratio, or the figure itself.
        unit: ``×`` for a ratio.
        reach: The most that `value` is meant to be; None where nothing is demanded.
        medians: Medians behind the ratio, each with its unit in its name.
        note: What a reader has to know to read it rightly.
        quoted: Whether the README quotes it.
    """

    row: str
    what: str
    baseline: str
    value: Spread
    unit: str = "×"
    reach: float | None = None
    medians: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    quoted: bool = False

    @property
    def reached(self) -> bool | None:
        return None if self.reach is None else self.value.median <= self.reach

    @property
    def beyond(self) -> float | None:
        """By which part of the reach it was missed, such as 0.2 for a fifth; None where it was not."""
        if self.reach is None or self.reached:
            return None
        return self.value.median / self.reach - 1 if self.reach else self.value.median

    def as_json(self) -> dict[str, Any]:
        medians = {name: round(value, 4) for name, value in self.medians.items()}
        value = {name: round(part, 4) for name, part in asdict(self.value).items()}
        return {
            **asdict(self),
            "value": value,
            "medians": medians,
            "reached": self.reached,
            "beyond": self.beyond,
        }


def read(told: Mapping[str, Any]) -> Result:
    """Read a result from the JSON that `Result.as_json` gives."""
    fields = {name: value for name, value in told.items() if name not in ("reached", "beyond")}
    return Result(**{**fields, "value": Spread(**told["value"])})


def compared(
    row: str, samples: Samples, contender: str, baseline: str, *, what: str | None = None, **more: Any
) -> Result:
    """Divide a contender's times by a baseline's, round by round."""
    medians = {f"{name}, ms": Spread.of(samples[name]).median * 1000 for name in (contender, baseline)}
    return Result(
        row, what or contender, baseline, ratio(samples, contender, baseline), medians=medians, **more
    )


def figure(row: str, what: str, value: float | Spread, unit: str, **more: Any) -> Result:
    """Tell of one figure that is no ratio."""
    spread = value if isinstance(value, Spread) else Spread.of([value])
    return Result(row, what, "", spread, unit, **more)
