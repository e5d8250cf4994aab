"""Random steps of three working copies with killed synchronisations and outages: ``python -m tests.faults.sync_hunt``.

Each round has a seed, which draws its steps and the kind of store; `--seed N --calls 1` runs one round again. Kills and
parallel synchronisations depend on timing, so a round that failed may need several attempts.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.sync_engine.memory_s3 import MemoryS3
from tests.sync_engine.world import Workers, World, drawn

CALLS = 1500
STEPS = 30


@dataclass
class Totals:
    """The counts of a hunt, and the failures by seed."""

    rounds: int = 0
    calls: int = 0
    kills: int = 0
    conflicts: int = 0
    seconds: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"Working copies: {self.calls:,} synchronisations in {self.rounds} rounds and {self.seconds:.0f} s, "
            f"{self.kills} killed, {self.conflicts} conflicts, {len(self.failures)} failed"
        )


def hunt(calls: int = CALLS, seed: int = 0) -> Totals:
    """Run rounds until they have made this many synchronisations."""
    totals, began = Totals(), time.monotonic()
    workers = Workers()
    try:
        with MemoryS3() as store:
            for number in _seeds(seed, calls, totals):
                _round(workers, store, number, totals)
    finally:
        workers.stop()
    totals.seconds = time.monotonic() - began
    return totals


def _seeds(seed: int, calls: int, totals: Totals) -> Iterator[int]:
    while totals.calls < calls:
        yield seed
        seed += 1


def _round(workers: Workers, store: MemoryS3, seed: int, totals: Totals) -> None:
    store.reset()
    draw = random.Random(seed)
    store.random_etags, store.honours_delete = draw.random() < 0.25, draw.random() < 0.7
    world = World(workers, store.endpoint, store)
    try:
        for step in drawn(draw, STEPS):
            world.step(*step)
        world.check()
    except AssertionError as failure:
        totals.failures[seed] = str(failure)
    except Exception as failure:  # noqa: BLE001 - a hunt goes on, and reports all failures
        totals.failures[seed] = world.text(f"{type(failure).__name__}: {failure}")
    finally:
        world.close()
        totals.rounds += 1
        totals.calls += world.calls
        totals.kills += world.kills
        totals.conflicts += world.conflicts


def main() -> int:
    """Hunt, print the failures, and return 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sync_hunt", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS, help="synchronisations, at least")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    chosen = parser.parse_args()
    totals = hunt(chosen.calls, chosen.seed)
    for seed, problem in totals.failures.items():
        print(f"--- seed {seed}: {problem}")
    print(totals)
    return int(bool(totals.failures))


if __name__ == "__main__":
    sys.exit(main())
