"""Time contenders alternately, so that disturbances of the machine affect all of them equally."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Samples: TypeAlias = dict[str, list[float]]
WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the quartiles around it, of `count` samples."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high, len(samples))


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = WARM_UP,
    tidy: Callable[[], object] | None = None,
) -> Samples:
    """Call each contender once a round, and return the seconds of each call.

    The first `warm_up` rounds are not counted among `rounds`. `tidy` is called after each call, and is not timed.
    """

    def timed(contender: Callable[[], object]) -> Callable[[], float]:
        def seconds() -> float:
            began = time.perf_counter()
            contender()
            took = time.perf_counter() - began
            if tidy is not None:
                tidy()
            return took

        return seconds

    timers = {name: timed(contender) for name, contender in contenders.items()}
    return interleaved_values(timers, rounds, warm_up=warm_up)


def interleaved_values(
    contenders: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int = 1
) -> Samples:
    """Return the values of contenders that measure themselves; otherwise like `interleaved`."""
    samples: Samples = {name: [] for name in contenders}
    for counted, name in _order(list(contenders), rounds, warm_up):
        value = contenders[name]()
        if counted:
            samples[name].append(value)
    return samples


async def ainterleaved(
    contenders: Mapping[str, Callable[[], Awaitable[object]]], rounds: int, *, warm_up: int = WARM_UP
) -> Samples:
    """Await each contender; otherwise like `interleaved`."""
    samples: Samples = {name: [] for name in contenders}
    for counted, name in _order(list(contenders), rounds, warm_up):
        began = time.perf_counter()
        await contenders[name]()
        took = time.perf_counter() - began
        if counted:
            samples[name].append(took)
    return samples


def _order(names: list[str], rounds: int, warm_up: int) -> Iterator[tuple[bool, str]]:
    """Rotate the order, so that a contender's after-effects do not always affect the same next contender."""
    for number in range(-warm_up, rounds):
        first = number % len(names)
        order = names[first:] + names[:first]
        for name in order if number % 2 else reversed(order):
            yield number >= 0, name


def ratio(samples: Samples, contender: str, baseline: str) -> Spread:
    """Divide within each round, so that slow moments of the machine cancel out."""
    pairs = zip(samples[contender], samples[baseline], strict=True)
    return Spread.of([time_s / baseline_s for time_s, baseline_s in pairs])


def combined(samples: Samples, formula: Callable[..., float], *names: str) -> Spread:
    """Apply a formula to the named contenders' times of each round."""
    return Spread.of([formula(*times) for times in zip(*(samples[name] for name in names), strict=True)])
