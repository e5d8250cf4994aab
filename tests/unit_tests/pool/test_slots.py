"""The slots of a pool: leases, the limit, idle slots, and the order of waiting callers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from langchain_daytona_ws import SessionClosed
from langchain_daytona_ws._pool.slots import Slot, Slots


@dataclass
class Value:
    namespace: str
    is_ended: bool = False
    is_busy: bool = False


class Bench:
    """Slots with a clock that the test sets."""

    def __init__(self, max_slots: int = 2, idle_s: float | None = 10.0) -> None:
        self.now = 0.0
        self.slots: Slots[Value] = Slots(
            lambda key, namespace: Value(namespace),
            max_slots=max_slots,
            idle_s=idle_s,
            now=lambda: self.now,
            is_ended=lambda value: value.is_ended,
            is_busy=lambda value: value.is_busy,
        )

    def lease(self, name: str, ticket: object = None) -> Any:
        return self.slots.try_lease(name, name, ticket or object())

    def leased(self, name: str) -> Slot[Value]:
        slot = self.lease(name).slot
        assert slot is not None
        return slot


def test_callers_of_a_namespace_share_its_slot() -> None:
    bench = Bench()
    first, second = bench.lease("a"), bench.lease("a")
    assert first.slot is second.slot
    assert (first.opened, second.opened) == (True, False)
    assert first.slot.leases == 2
    assert bench.slots.in_use == 1


def test_the_least_recently_used_is_closed_for_another() -> None:
    bench = Bench()
    a, b = bench.leased("a"), bench.leased("b")
    bench.slots.end_lease(a)
    bench.slots.end_lease(b)
    bench.slots.end_lease(bench.leased("a"))
    ticket = object()
    step = bench.lease("c", ticket)
    assert step.reason == "full"
    assert step.to_close == (b,)
    assert not step.changed.done()
    bench.slots.record_closed(b)
    assert step.changed.done()
    assert b.closed.done()
    assert bench.lease("c", ticket).opened
    assert bench.lease("a").slot is a


def test_no_more_are_closed_than_callers_wait() -> None:
    bench = Bench(max_slots=3)
    for name in "abc":
        bench.slots.end_lease(bench.leased(name))
    first, second = object(), object()
    assert len(bench.lease("d", first).to_close) == 1
    assert bench.lease("d", first).to_close == ()
    assert len(bench.lease("e", second).to_close) == 1
    assert bench.lease("e", second).to_close == ()


def test_nothing_in_use_is_closed() -> None:
    bench = Bench(max_slots=1)
    a = bench.leased("a")
    bench.now = 1000
    step = bench.lease("b")
    assert (step.slot, step.reason, step.to_close) == (None, "full", ())
    assert bench.slots.end_lease(a) == ()
    assert step.changed.done()
    assert bench.lease("b").to_close == (a,)


def test_a_busy_one_is_not_closed_either() -> None:
    bench = Bench(max_slots=1)
    a = bench.leased("a")
    a.value.is_busy = True
    bench.slots.end_lease(a)
    bench.now = 1000
    assert bench.lease("b").to_close == ()
    a.value.is_busy = False
    assert bench.lease("b").to_close == (a,)


def test_one_that_is_closed_is_not_leased_before_the_end() -> None:
    bench = Bench(max_slots=1)
    a = bench.leased("a")
    bench.slots.end_lease(a)
    bench.lease("b")
    step = bench.lease("a")
    assert (step.slot, step.reason) == (None, "closing")
    bench.slots.record_closed(a)
    again = bench.lease("a", object())
    assert again.slot is not a


def test_idle_ones_are_closed_at_the_next_use_of_any() -> None:
    bench = Bench(max_slots=9)
    a, b, c = (bench.leased(name) for name in "abc")
    bench.slots.end_lease(a)
    bench.now = 5
    bench.slots.end_lease(b)
    bench.now = 11
    step = bench.lease("d")
    assert step.to_close == (a,)
    bench.now = 16
    assert bench.slots.end_lease(c) == (b,)


def test_an_idle_one_is_kept_for_its_own_caller() -> None:
    bench = Bench()
    a = bench.leased("a")
    bench.slots.end_lease(a)
    bench.now = 1000
    step = bench.lease("a")
    assert step.slot is a
    assert step.to_close == ()


def test_without_an_idle_limit_they_stay() -> None:
    bench = Bench(idle_s=None)
    bench.slots.end_lease(bench.leased("a"))
    bench.now = 1e9
    assert bench.lease("b").to_close == ()


def test_one_that_the_program_has_closed_is_replaced() -> None:
    bench = Bench()
    a = bench.leased("a")
    bench.slots.end_lease(a)
    a.value.is_ended = True
    assert bench.leased("a") is not a
    assert len(bench.slots) == 1


def test_the_first_to_wait_is_the_first_to_get_one() -> None:
    bench = Bench(max_slots=1)
    a = bench.leased("a")
    first, second = object(), object()
    bench.lease("b", first)
    bench.lease("c", second)
    bench.slots.end_lease(a)
    assert bench.lease("b", first).to_close == (a,)
    assert bench.lease("d").reason == "full"
    bench.slots.record_closed(a)
    assert bench.lease("c", second).reason == "full"
    assert bench.lease("d").reason == "full"
    assert bench.lease("b", first).opened


def test_a_caller_that_is_stuck_does_not_stop_the_others() -> None:
    bench = Bench(max_slots=2)
    a, b = bench.leased("a"), bench.leased("b")
    bench.lease("c", object())  # it never tries again
    other = object()
    bench.lease("d", other)
    for slot in (a, b):
        slot.value.is_ended = True
        bench.slots.end_lease(slot)
        bench.slots.record_closed(slot)
    assert bench.lease("d", other).opened


def test_a_reserved_namespace_waits_for_its_leases() -> None:
    bench = Bench()
    a = bench.leased("a")
    bench.slots.hold("a")
    step = bench.slots.reserve("a", "a")
    assert step.reason == "in_use"
    assert bench.lease("a").reason == "closing"
    bench.slots.end_lease(a)
    assert step.changed.done()
    assert bench.slots.reserve("a", "a").slot is a
    bench.slots.unhold("a")
    assert bench.lease("a").reason == "closing"
    bench.slots.record_closed(a)
    assert bench.leased("a") is not a


def test_a_reserved_namespace_is_not_opened_by_a_lease() -> None:
    bench = Bench()
    bench.slots.hold("a")
    assert bench.lease("a").reason == "closing"
    assert len(bench.slots) == 0
    bench.slots.unhold("a")
    assert bench.lease("a").opened


def test_a_given_up_reservation_is_lifted() -> None:
    bench = Bench()
    a = bench.leased("a")
    bench.slots.hold("a")
    waiting = bench.lease("a")
    bench.slots.unhold("a")
    assert waiting.changed.done()
    assert bench.lease("a").slot is a


def test_a_closed_pool_refuses_until_it_is_entered_again() -> None:
    bench = Bench()
    a, b = bench.leased("a"), bench.leased("b")
    bench.slots.hold("b")
    bench.slots.end_lease(b)
    bench.slots.reserve("b", "b")
    waiting = bench.lease("c")
    assert bench.slots.close() == ([a], [b])
    assert waiting.changed.done()
    with pytest.raises(SessionClosed):
        bench.lease("c")
    bench.slots.reopen()
    assert bench.lease("a").reason == "closing"


def test_a_cancelled_caller_leaves_the_others_waiting() -> None:
    async def main() -> None:
        bench = Bench(max_slots=1)
        a = bench.leased("a")
        changed = bench.lease("b").changed
        assert bench.lease("c").changed is changed
        cancelled = asyncio.wrap_future(changed)
        cancelled.cancel()
        await asyncio.sleep(0)
        assert not changed.done()
        bench.slots.end_lease(a)
        assert changed.done()

    asyncio.run(main())
