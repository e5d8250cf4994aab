"""Turns, medians and ratios: what all figures of the benchmark are made of."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.measure import Spread, ainterleaved, combined, interleaved, interleaved_values, ratio


def test_a_spread_is_the_median_with_its_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(median=3.0, low=2.0, high=4.0, count=5)


def test_one_sample_is_its_own_spread() -> None:
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)


def test_contenders_take_turns_and_each_comes_first_in_some_round() -> None:
    called: list[str] = []
    samples = interleaved(
        {name: lambda name=name: called.append(name) for name in "abc"},  # type: ignore[misc]
        rounds=6,
        warm_up=0,
    )
    rounds = [called[i : i + 3] for i in range(0, 18, 3)]
    assert all(sorted(item) == ["a", "b", "c"] for item in rounds)
    assert {item[0] for item in rounds} == {"a", "b", "c"}
    assert {name: len(times) for name, times in samples.items()} == {"a": 6, "b": 6, "c": 6}


def test_warm_up_rounds_are_called_and_not_counted() -> None:
    values = iter(range(100))
    samples = interleaved_values({"one": lambda: float(next(values))}, rounds=3, warm_up=2)
    assert samples == {"one": [2.0, 3.0, 4.0]}


def test_clean_up_runs_after_each_call() -> None:
    called: list[str] = []
    interleaved(
        {"a": lambda: called.append("a")}, 2, warm_up=1, tidy=lambda: called.append("tidied")
    )  # fmt: skip
    assert called == ["a", "tidied"] * 3


def test_awaited_contenders_take_turns_too() -> None:
    called: list[str] = []

    async def item(name: str) -> None:
        called.append(name)

    samples = asyncio.run(ainterleaved({"a": lambda: item("a"), "b": lambda: item("b")}, 2, warm_up=1))
    assert sorted(called) == ["a"] * 3 + ["b"] * 3
    assert all(len(times) == 2 and min(times) >= 0 for times in samples.values())


def test_a_ratio_is_made_within_each_round() -> None:
    # The machine was ten times slower in the second round; the ratio of the medians would be 5.5.
    samples = {"ours": [2.0, 20.0, 2.0], "theirs": [1.0, 10.0, 1.0]}
    assert ratio(samples, "ours", "theirs") == Spread(2.0, 2.0, 2.0, 3)


def test_a_ratio_of_unequal_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        ratio({"ours": [1.0], "theirs": [1.0, 2.0]}, "ours", "theirs")


def test_a_formula_is_applied_to_each_round() -> None:
    samples = {"a": [3.0, 5.0], "b": [1.0, 1.0]}
    assert combined(samples, lambda a, b: a - b, "a", "b") == Spread(3.0, 2.5, 3.5, 2)
