"""A cell of each mechanism; ``make faults`` plays them all."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from tests.faults import expected
from tests.faults.cell import play
from tests.faults.mishaps import MISHAPS
from tests.faults.steps import STEPS
from tests.faults.world import World, world

# Between them each step and each way in which a fault comes about; those that wait for long are left to the full run.
CELLS = [
    ("create", "dropped after", True),
    ("claim", "503", False),
    ("claim", "daemon dead", True),
    ("warm", "daemon dead", False),
    ("mount", "mount daemon killed", True),
    ("first", "deleted", False),
    ("warm", "done, then down", False),
    ("warm", "in error", True),
    ("write", "truncated", False),
    ("upload", "429 Retry-After", True),
    ("edit", "disk full", False),
    ("job", "host killed, done", True),
    ("close", "refused for good", False),
    ("s3write", "S3 refuses", True),
    ("s3edit", "dropped after", False),
    ("warm", "STS refuses", True),
    ("warm", "cancelled", True),
    ("warm", "mount daemon killed", False),
    ("job", "mount daemon hung", True),
    ("edit", "credentials revoked early", False),
    ("job", "approver hangs", False),
]


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world() as made:
        for is_async in (False, True):  # what is loaded once is not taken for left behind
            assert play(made, "mount", "slow answer", is_async=is_async).problems == []
        yield made


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("step", "mishap", "is_async"), CELLS)
def test_a_cell_is_as_it_should_be(
    here: World, step: str, mishap: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    # A record that is kept keeps the error in its arguments alive, and with it the connection.
    for name in ("langchain_daytona_ws", "urllib3.connectionpool"):
        caplog.set_level(logging.CRITICAL, logger=name)
    verdict = play(here, step, mishap, is_async=is_async)
    assert verdict.problems == [], verdict.told
    assert not verdict.ran_twice
    assert not verdict.lost
    assert not verdict.leaked


def test_of_every_cell_it_is_said_what_is_right() -> None:
    for step in STEPS:
        for mishap in MISHAPS:
            reason = expected.reason(step, mishap)
            assert reason is None or reason in expected.REASONS
            for outcome in expected.allowed(step, mishap):
                assert reason or re.fullmatch(r"[a-z0-9_]+", outcome)


def test_the_chosen_cells_exist_and_leave_no_step_out() -> None:
    assert all(expected.reason(step, mishap) is None for step, mishap, _ in CELLS)
    assert {step for step, _, _ in CELLS} == set(STEPS)
