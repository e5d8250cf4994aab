"""Facts of the real service: how each is checked, and the table of what was expected and seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.live.account import Account

SEEN_CHARS = 200
LATE = "not checked: the time was up"


@dataclass(frozen=True)
class Fact:
    """One fact that this package relies on.

    Attributes:
        area: The group that it belongs to.
        text: The fact, as a sentence.
        expected: The result of the check if it holds; several if this package can live with each.
        check: Returns the result.
    """

    area: str
    text: str
    expected: tuple[str, ...]
    check: Callable[[Account], object]


@dataclass(frozen=True)
class Result:
    """The result of one check, for the table and for JSON."""

    area: str
    fact: str
    expected: str
    seen: str
    equal: bool
    seconds: float


class Facts:
    """Collects facts in their order."""

    def __init__(self) -> None:
        self.all: list[Fact] = []

    def __call__(
        self, area: str, text: str, *expected: object
    ) -> Callable[[Callable[[Account], object]], Callable[[Account], object]]:
        """Return the decorator of a check."""

        def add(check: Callable[[Account], object]) -> Callable[[Account], object]:
            self.all.append(Fact(area, text, tuple(map(str, expected)), check))
            return check

        return add


def results(
    facts: Iterable[Fact], account: Account, *, until: float, show: Callable[[Result], Any]
) -> list[Result]:
    """Check facts one after another.

    Args:
        facts: The facts.
        account: The account.
        until: No check begins after this time, on the monotonic clock.
        show: Called with each result.
    """
    found = []
    for fact in facts:
        began = time.monotonic()
        seen = LATE if began > until else _seen(fact, account)
        result = Result(
            fact.area,
            fact.text,
            " or ".join(fact.expected),
            seen,
            seen in fact.expected,
            round(time.monotonic() - began, 2),
        )
        found.append(result)
        show(result)
    return found


def _seen(fact: Fact, account: Account) -> str:
    try:
        seen = str(fact.check(account))
    except Exception as error:  # noqa: BLE001 - any failure is a result
        seen = f"{type(error).__name__}: {error}"
    return account.without_secrets(" ".join(seen.split()))[:SEEN_CHARS]


def table(found: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    rows = ["| | area | fact | expected | seen | s |", "|---|---|---|---|---|---|"]
    for result in found:
        mark = "=" if result.equal else "≠"
        cells = (mark, result.area, result.fact, result.expected, result.seen, f"{result.seconds:.1f}")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)
