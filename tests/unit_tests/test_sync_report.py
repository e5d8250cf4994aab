"""The report of a synchronisation from a hostile sandbox."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies

from langchain_daytona_ws._core.sync import manager, report
from langchain_daytona_ws._core.sync.report import NAME_CHARS, NAMES_MAX, SyncReport, read_report
from langchain_daytona_ws._guest.sync_s3 import GENERAL
from tests.unit_tests.drawn_json import JSON

FIELDS = [
    "pulled", "pushed", "removed_here", "removed_there", "conflicts", "conflicts_count",
    "restored", "restored_count", "skipped", "skipped_count",
    "unpushed", "unpushed_count", "failure", "detail", "seconds",
]  # fmt: skip
PAIRS = strategies.lists(strategies.lists(JSON | strategies.text(), min_size=2, max_size=2), max_size=30)


def _check(report: SyncReport) -> None:
    for count in (report.pulled, report.pushed, report.deleted, report.removed, report.conflict_count):
        assert 0 <= count < 10**18
    assert -1 <= report.unpushed_count < 10**18
    assert 0 <= report.duration_s < 10**6
    for pairs in (report.conflicts, report.restored, report.skipped):
        assert len(pairs) <= NAMES_MAX
        assert all(len(text) <= NAME_CHARS and text.isprintable() for pair in pairs for text in pair)
    assert len(report.unpushed) <= NAMES_MAX
    for notice in report.notices:
        assert notice.isprintable()
    assert report.merged(report).pushed == 2 * report.pushed


@given(strategies.dictionaries(strategies.sampled_from(FIELDS), JSON | PAIRS | strategies.text()))
def test_any_values_are_a_report(values: dict[str, Any]) -> None:
    _check(read_report(json.dumps(values)))


@given(JSON | strategies.text())
def test_any_text_is_a_report(value: Any) -> None:
    for text in (value, json.dumps(value)):
        _check(read_report(text))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{", "1e999", '{"pulled": 1e999}', '{"seconds": NaN}', '{"seconds": 1e400}']
)
def test_numbers_and_depths_out_of_range(text: str) -> None:
    report = read_report(text)
    assert (report.pulled, report.duration_s) == (0, 0.0)


def test_a_report_of_a_change_is_read() -> None:
    values = {
        "pulled": 1,
        "pushed": 2,
        "removed_there": 3,
        "conflicts": [["a", "a.conflict-A"]],
        "seconds": 0.5,
    }
    report = read_report(json.dumps(values))
    assert report == SyncReport(
        pulled=1, pushed=2, deleted=3, conflicts=(("a", "a.conflict-A"),), conflict_count=1, duration_s=0.5
    )
    assert "a.conflict-A" in report.notices[0]


@pytest.mark.parametrize("code", GENERAL)
def test_every_failure_of_s3_has_its_messages(code: str) -> None:
    assert f"sync_{code}" in manager._REFUSALS, "the error if a pull fails"
    assert code in report._FAILURES, "the notice if a push fails"


def test_conflicts_that_are_not_named_are_counted() -> None:
    pairs = [[f"f{number:02}", f"f{number:02}.conflict-A"] for number in range(20)]
    report = read_report(json.dumps({"conflicts": pairs, "conflicts_count": 1234}))
    assert (len(report.conflicts), report.conflict_count) == (NAMES_MAX, 1234)
    assert len(report.notices) == NAMES_MAX + 1
    assert "1,224 more files" in report.notices[-1]
    assert "*.conflict-*" in report.notices[-1]


@pytest.mark.parametrize(
    ("name", "expected"), [("restored", "990 more files are here again"), ("skipped", "f09: r; and 990 more")]
)
def test_files_that_are_not_named_are_counted(name: str, expected: str) -> None:
    pairs = [[f"f{number:02}", "r"] for number in range(20)]
    report = read_report(json.dumps({name: pairs, f"{name}_count": 1000}))
    assert expected in report.notices[-1]
    twice = report.merged(report)
    assert (
        f"{2000 - len(twice.restored if name == 'restored' else report.skipped):,} more" in twice.notices[-1]
    )


def test_the_conflicts_of_git_are_one_notice_for_each_branch_and_repository() -> None:
    names = ["refs/heads/main", "index", "logs/HEAD", "logs/refs/heads/main", "COMMIT_EDITMSG"]
    pairs = [[f"{at}.git/{name}", f"{at}.git/{name}.conflict-A"] for at in ("", "d/") for name in names]
    report = read_report(json.dumps({"conflicts": pairs}))
    [branch, other_branch, copies, other_copies] = report.notices
    assert "committed in the workspace on" in branch
    assert "git merge main.conflict-A`" in branch
    assert "committed in d on" in other_branch
    assert ".git/index.conflict-A, .git/logs/HEAD.conflict-A" in copies
    assert "d/.git/index.conflict-A, d/.git/logs/HEAD.conflict-A" in other_copies


def test_other_files_of_git_are_named_each() -> None:
    names = ["a/.git/HEAD", "a/.git/packed-refs", ".github/index", "index"]
    pairs = [[name, f"{name}.conflict-A"] for name in names]
    report = read_report(json.dumps({"conflicts": pairs}))
    for name, notice in zip(names, report.notices, strict=True):
        assert f"yours is {name}.conflict-A: merge" in notice


@pytest.mark.parametrize(
    ("pushed", "deleted", "is_reported"),
    [(0, 500, True), (499, 500, True), (500, 500, False), (0, 99, False)],
)
def test_many_deletions_are_reported_unless_the_files_were_renamed(
    pushed: int, deleted: int, is_reported: bool
) -> None:
    notices = " ".join(SyncReport(pushed=pushed, deleted=deleted).notices)
    assert (f"{deleted} files were deleted from the workspace" in notices) is is_reported
