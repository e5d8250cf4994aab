"""Play the matrix and print it: ``python -m tests.faults [--step NAME] [--fault NAME] [--workers N]``."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults import expected
from tests.faults.cell import Verdict
from tests.faults.mishaps import MISHAPS
from tests.faults.steps import STEPS
from tests.faults.workers import played


def main() -> int:
    """Play what the arguments choose; return 1 where a cell is not as it should be."""
    chosen = _arguments()
    names = [
        (step, mishap, is_async)
        for step in STEPS
        for mishap in MISHAPS
        for is_async in (False, True)
        if (not chosen.step or step in chosen.step)
        and (not chosen.fault or any(one in mishap for one in chosen.fault))
        and (chosen.way is None or is_async == (chosen.way == "async"))
        and expected.reason(step, mishap) is None
    ]
    # Each pair in turns by one face, then by the other: what is broken shows in half the time.
    names.sort(key=lambda name: (list(STEPS).index(name[0]) + list(MISHAPS).index(name[1]) + name[2]) % 2)
    began = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 200)
    verdicts: list[Verdict] = []
    try:
        for verdict in played(names, chosen.workers):
            verdicts.append(verdict)
            if verdict.problems or chosen.verbose:
                console.print(_line(verdict), markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print(f"Stopped after {len(verdicts)} of {len(names)} cells.")
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump([asdict(one) for one in verdicts], file, indent=1)
    console.print(_matrix(verdicts))
    for reason in expected.REASONS:
        console.print(f"{reason}: {expected.REASONS[reason]}", markup=False, highlight=False, soft_wrap=True)
    console.print(_totals(verdicts, time.monotonic() - began))
    return int(any(one.problems for one in verdicts) or len(verdicts) < len(names))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--step", action="append", choices=list(STEPS), help="only this step; may be repeated"
    )
    parser.add_argument(
        "--fault", action="append", help="only faults whose name has this in it; may be repeated"
    )
    parser.add_argument("--way", choices=["sync", "async"], help="only this face")
    parser.add_argument("--workers", type=int, default=max(2, multiprocessing.cpu_count()))
    parser.add_argument("--json", help="write all verdicts to this file")
    parser.add_argument("--verbose", action="store_true", help="print each cell as it ends")
    return parser.parse_args()


# --- showing ---


def _line(verdict: Verdict) -> str:
    how = "; ".join(verdict.problems) or "as it should be"
    return f"{verdict.name}: {verdict.outcome} ({verdict.seconds:.1f} s) {how}"


def _matrix(verdicts: list[Verdict]) -> Table:
    table = Table(title="What came of each fault at each step, sync and async", title_justify="left")
    table.add_column("fault")
    steps = [step for step in STEPS if any(one.step == step for one in verdicts)]
    for step in steps:
        table.add_column(step)
    for mishap in MISHAPS:
        if any(one.mishap == mishap for one in verdicts):
            table.add_row(mishap, *(_shown(verdicts, step, mishap) for step in steps))
    return table


def _shown(verdicts: list[Verdict], step: str, mishap: str) -> str:
    here = [one for one in verdicts if (one.step, one.mishap) == (step, mishap)]
    reason = expected.reason(step, mishap)
    if not here:
        return f"[dim]n/a {reason}[/dim]" if reason else ""
    outcomes = dict.fromkeys(expected.WORDS.get(one.outcome, one.outcome) for one in here)
    text = " / ".join(outcomes)
    if any(one.problems for one in here):
        return f"[bold red]FAILED[/bold red] {text}"
    return f"[green]{text}[/green]" if set(outcomes) <= set(expected.WORDS.values()) else text


def _totals(verdicts: list[Verdict], seconds: float) -> Table:
    table = Table(title=f"In {seconds:.0f} s", title_justify="left")
    ends = {"recovered": 0, "told by the result": 0, "clear errors": 0, "cancelled": 0, "host died": 0}
    by_outcome = {
        "ok": "recovered",
        "result": "told by the result",
        "cancelled": "cancelled",
        "died": "host died",
    }
    for one in verdicts:
        if not one.problems:
            ends[by_outcome.get(one.outcome, "clear errors")] += 1
    counts: dict[str, Any] = {
        "cells": len(verdicts), **ends,
        "ran twice": sum(one.ran_twice for one in verdicts), "lost data": sum(one.lost for one in verdicts),
        "leaked": sum(one.leaked for one in verdicts), "failed": sum(bool(one.problems) for one in verdicts),
    }  # fmt: skip
    for name in counts:
        table.add_column(name, justify="right")
    table.add_row(*(str(count) for count in counts.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
