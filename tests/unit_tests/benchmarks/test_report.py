"""Results: what was reached, by how much not, and that nothing is lost on the way to docs and JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.measure import Spread
from benchmarks.result import Result, compared, figure, read

REACHED = Result("row", "ours", "raw", Spread(1.1, 1.0, 1.2, 9), reach=1.15, quoted=True)
MISSED = Result(
    "row", "ours too", "raw", Spread(1.38, 1.3, 1.4, 9), reach=1.15, medians={"ours, ms": 2.76}, note="why",
    quoted=True,
)  # fmt: skip
UNASKED = figure("other", "a figure", 12.3, "ms")


def test_a_ratio_within_the_target_meets_it() -> None:
    assert (REACHED.reached, REACHED.excess) == (True, None)


def test_a_missed_target_is_reported_with_its_distance() -> None:
    assert MISSED.reached is False
    assert MISSED.excess == pytest.approx(0.2)


def test_a_lower_limit_is_missed_from_below() -> None:
    rate = Result("row", "commands/s", "raw", Spread(0.2, 0.1, 0.3, 9), reach=0.25, at_least=True)
    assert (rate.reached, rate.limit_sign, rate.excess) == (False, "≥", pytest.approx(0.2))
    assert Result("row", "commands/s", "raw", Spread(0.3, 0.1, 0.3, 9), reach=0.25, at_least=True).reached


def test_the_medians_of_a_ratio_have_one_unit() -> None:
    medians = {"commands/s": 36.0, "p99, ms": 38.0, "raw, commands/s": 257.0, "raw, p99, ms": 5.0}
    rate = Result("row", "x", "raw", Spread(1, 1, 1, 1), medians=medians)
    assert rate.absolute == ([36.0, 257.0], "commands/s")
    assert UNASKED.absolute == ([], "")


def test_where_nothing_is_demanded_nothing_is_reached() -> None:
    assert (UNASKED.reached, UNASKED.excess) == (None, None)


def test_a_comparison_holds_both_medians_in_milliseconds() -> None:
    samples = {"ours": [0.002, 0.004, 0.006], "raw": [0.001, 0.002, 0.003]}
    made = compared("row", samples, "ours", "raw", reach=2.0)
    assert made.value == Spread(2.0, 2.0, 2.0, 3)
    assert made.medians == {"ours, ms": 4.0, "raw, ms": 2.0}
    assert made.reached is True


def test_a_result_comes_back_from_its_json() -> None:
    for result in (REACHED, MISSED, UNASKED):
        assert read(json.loads(json.dumps(result.as_json()))) == result


def test_the_json_holds_machine_versions_and_date() -> None:
    reported = json.loads(report.as_json([REACHED, MISSED], took_s=61.4, load=0.3))
    assert reported["took_s"] == 61
    assert reported["machine"]["cores"] >= 1
    assert reported["machine"]["load_before"] == 0.3
    assert {"python", "daytona", "langchain-daytona"} <= reported["versions"].keys()
    assert [item["reached"] for item in reported["results"]] == [True, False]
    assert reported["results"][1]["excess"] == pytest.approx(0.2)
    assert reported["results"][1]["note"] == "why"


def test_rows_that_were_measured_again_replace_theirs_and_carry_their_date() -> None:
    whole = report.as_json([REACHED, MISSED, UNASKED], took_s=600, load=0.3)
    again = Result("row", "ours", "raw", Spread(1.0, 1.0, 1.0, 9), reach=1.15, quoted=True)
    merged = json.loads(report.as_json([again], took_s=9, load=4.5, earlier=whole))
    assert list(map(read, merged["results"])) == [again, UNASKED]
    assert (merged["took_s"], merged["machine"]["load_before"]) == (600, 0.3)
    assert list(merged["later_runs"]) == ["row"]
    assert (merged["later_runs"]["row"]["took_s"], merged["later_runs"]["row"]["date"]) == (9, merged["date"])
    assert f"Row *row*: {merged['date']}, load 4.5 before." in report.page_block(merged)
    twice = json.loads(report.as_json([UNASKED], took_s=1, load=0, earlier=json.dumps(merged)))
    assert list(twice["later_runs"]) == ["row", "other"]


def test_the_table_shows_ratio_reach_and_what_is_missed() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(report.table([REACHED, MISSED, UNASKED]))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for part in ("1.1×", "≤ 1.15", "reached", "missed by 20 %", "12.3 ms", "why"):
        assert part in shown


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(report.as_json([REACHED, MISSED, UNASKED], took_s=1, load=0.3), "utf-8")
    return path


def test_the_page_gets_the_quoted_results_and_keeps_the_rest(tmp_path: Path, reported: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nEnd.\n", "utf-8")
    report.renew(page, reported, tmp_path / "parts.svg")
    text = page.read_text("utf-8")
    assert text.startswith("# Title\n\n<!-- benchmarks -->\nMedians (")
    assert text.endswith("<!-- /benchmarks -->\n\nEnd.\n")
    assert "| row | ours too | raw | 1.38× | 2.76 ms | ≤ 1.15, missed by 20 % |" in text
    assert (tmp_path / "parts.svg").read_text("utf-8").startswith("<svg ")
    assert "a figure" not in text
    report.renew(page, reported, tmp_path / "parts.svg")
    assert page.read_text("utf-8") == text


def test_a_page_without_markers_is_an_error(tmp_path: Path, reported: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Title\n", "utf-8")
    with pytest.raises(ValueError, match="<!-- benchmarks -->"):
        report.renew(page, reported, tmp_path / "parts.svg")
