"""Run the fault matrix and print it: ``python -m tests.faults [--step NAME] [--fault NAME] [--workers N]``.

A run of the whole matrix ends with random steps of working copies; see `sync_hunt.py`.
"""

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
from tests.faults.faults import FAULT_CASES
from tests.faults.steps import STEPS
from tests.faults.sync_hunt import hunt
from tests.faults.workers import run_cells


def main() -> int:
    """Run the chosen cells, and after all of them the hunt; return 1 if there is a problem."""
    chosen = _arguments()
    names = [
        (step, fault, is_async)
        for step in STEPS
        for fault in FAULT_CASES
        for is_async in (False, True)
        if (not chosen.step or step in chosen.step)
        and (not chosen.fault or any(part in fault for part in chosen.fault))
        and (chosen.runtime is None or is_async == (chosen.runtime == "async"))
        and expected.reason(step, fault) is None
    ]
    # Alternately by the sync and the async runtime: most problems show in the first half of a run.
    names.sort(key=lambda name: (list(STEPS).index(name[0]) + list(FAULT_CASES).index(name[1]) + name[2]) % 2)
    began = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 200)
    verdicts: list[Verdict] = []
    try:
        for verdict in run_cells(names, chosen.workers):
            verdicts.append(verdict)
            if verdict.problems or chosen.verbose:
                console.print(_line(verdict), markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print(f"Stopped after {len(verdicts)} of {len(names)} cells.")
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump([asdict(verdict) for verdict in verdicts], file, indent=1)
    console.print(_matrix(verdicts))
    for reason in expected.REASONS:
        console.print(f"{reason}: {expected.REASONS[reason]}", markup=False, highlight=False, soft_wrap=True)
    console.print(_totals(verdicts, time.monotonic() - began))
    has_failed = any(verdict.problems for verdict in verdicts) or len(verdicts) < len(names)
    if not (chosen.step or chosen.fault or chosen.runtime):
        totals = hunt()
        for seed, problem in totals.failures.items():
            console.print(f"--- seed {seed}: {problem}", markup=False, highlight=False, soft_wrap=True)
        console.print(str(totals), highlight=False)
        has_failed = has_failed or bool(totals.failures)
    return int(has_failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--step", action="append", choices=list(STEPS), help="only this step; may be repeated"
    )
    parser.add_argument(
        "--fault", action="append", help="only faults whose name contains this; may be repeated"
    )
    parser.add_argument("--runtime", choices=["sync", "async"], help="only this runtime")
    parser.add_argument("--workers", type=int, default=max(2, multiprocessing.cpu_count()))
    parser.add_argument("--json", help="write all verdicts to this file")
    parser.add_argument("--verbose", action="store_true", help="print each cell as it ends")
    return parser.parse_args()


# --- output ---


def _line(verdict: Verdict) -> str:
    how = "; ".join(verdict.problems) or "as expected"
    return f"{verdict.name}: {verdict.outcome} ({verdict.seconds:.1f} s) {how}"


def _matrix(verdicts: list[Verdict]) -> Table:
    table = Table(title="Outcome of each fault at each step, sync and async", title_justify="left")
    table.add_column("fault")
    steps = [step for step in STEPS if any(verdict.step == step for verdict in verdicts)]
    for step in steps:
        table.add_column(step)
    for fault in FAULT_CASES:
        if any(verdict.fault == fault for verdict in verdicts):
            table.add_row(fault, *(_shown(verdicts, step, fault) for step in steps))
    return table


def _shown(verdicts: list[Verdict], step: str, fault: str) -> str:
    here = [verdict for verdict in verdicts if (verdict.step, verdict.fault) == (step, fault)]
    reason = expected.reason(step, fault)
    if not here:
        return f"[dim]n/a {reason}[/dim]" if reason else ""
    outcomes = dict.fromkeys(expected.LABELS.get(verdict.outcome, verdict.outcome) for verdict in here)
    text = " / ".join(outcomes)
    if any(verdict.problems for verdict in here):
        return f"[bold red]FAILED[/bold red] {text}"
    return f"[green]{text}[/green]" if set(outcomes) <= set(expected.LABELS.values()) else text


def _totals(verdicts: list[Verdict], seconds: float) -> Table:
    table = Table(title=f"In {seconds:.0f} s", title_justify="left")
    ends = {"recovered": 0, "reported by the result": 0, "clear errors": 0, "cancelled": 0, "host died": 0}
    by_outcome = {
        "ok": "recovered",
        "result": "reported by the result",
        "cancelled": "cancelled",
        "died": "host died",
    }
    for verdict in verdicts:
        if not verdict.problems:
            ends[by_outcome.get(verdict.outcome, "clear errors")] += 1
    counts: dict[str, Any] = {
        "cells": len(verdicts), **ends,
        "ran twice": sum(verdict.ran_twice for verdict in verdicts),
        "lost data": sum(verdict.lost for verdict in verdicts),
        "leaked": sum(verdict.leaked for verdict in verdicts),
        "failed": sum(bool(verdict.problems) for verdict in verdicts),
    }  # fmt: skip
    for name in counts:
        table.add_column(name, justify="right")
    table.add_row(*(str(count) for count in counts.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
