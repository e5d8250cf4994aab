"""Cells of the fault matrix, one for each mechanism; ``make faults`` runs all cells."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator

import pytest

from tests.faults import expected, faults
from tests.faults.cell import run_cell
from tests.faults.faults import FAULT_CASES
from tests.faults.steps import STEPS
from tests.faults.world import World, world
from tests.sample import sample

# All steps and all kinds of injection; cells that wait for long are left to the full run.
CELLS = [
    ("create", "dropped after", True),
    ("claim", "503", False),
    ("warm", "daemon dead", False),
    ("mount", "mount daemon killed", True),
    ("first", "deleted", False),
    ("write", "truncated", False),
    ("upload", "429 Retry-After", True),
    ("edit", "disk full", False),
    ("job", "host killed, done", True),
    ("close", "refused for good", False),
    ("s3write", "S3 refuses", True),
    ("s3edit", "dropped after", False),
    ("warm", "cancelled", True),
]
# Other faults at steps of the cells above.
MORE_CELLS = [
    ("claim", "daemon dead", True),
    ("warm", "in error", True),
    ("warm", "done, then down", False),
    ("warm", "STS refuses", True),
    ("warm", "mount daemon killed", False),
    ("edit", "credentials revoked early", False),
    ("job", "mount daemon hung", True),
    ("job", "approver hangs", False),
]


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world() as made:
        for is_async in (False, True):  # loads modules, which would count as leaks
            assert run_cell(made, "mount", "slow answer", is_async=is_async).problems == []
        yield made


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("step", "fault", "is_async"), sample([*CELLS, *MORE_CELLS], *CELLS))
def test_a_cell_ends_as_expected(
    here: World, step: str, fault: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    # A captured log record would keep its error alive, and with it the connection.
    for name in ("langchain_daytona_ws", "urllib3.connectionpool"):
        caplog.set_level(logging.CRITICAL, logger=name)
    verdict = run_cell(here, step, fault, is_async=is_async)
    assert verdict.problems == [], verdict.message
    assert not verdict.ran_twice
    assert not verdict.lost
    assert not verdict.leaked


@pytest.mark.parametrize("table", [faults.SHORT, faults.RARELY], ids=["SHORT", "RARELY"])
def test_the_shortened_times_exist(table: dict[str, dict[str, float]]) -> None:
    for module, times in table.items():
        for name in times:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_every_cell_has_an_expected_outcome() -> None:
    for step in STEPS:
        for fault in FAULT_CASES:
            reason = expected.reason(step, fault)
            assert reason is None or reason in expected.REASONS
            for outcome in expected.allowed(step, fault):
                assert reason or re.fullmatch(r"[a-z0-9_]+", outcome)


def test_the_chosen_cells_exist_and_cover_all_steps() -> None:
    assert all(expected.reason(step, fault) is None for step, fault, _ in (*CELLS, *MORE_CELLS))
    assert {step for step, _, _ in CELLS} == set(STEPS)
