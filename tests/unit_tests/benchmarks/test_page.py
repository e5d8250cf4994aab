"""docs/benchmarks.md and its picture are of the committed results."""

from __future__ import annotations

import json

from benchmarks import picture, report


def test_the_page_quotes_the_results() -> None:
    results = json.loads(report.RESULTS.read_text("utf-8"))
    assert report.page_block(results) in report.PAGE.read_text("utf-8"), "run python -m benchmarks --docs"


def test_the_picture_is_of_the_results() -> None:
    results = json.loads(report.RESULTS.read_text("utf-8"))
    assert picture.draw(results) == picture.PICTURE.read_text("utf-8"), "run python -m benchmarks --docs"
    assert f"images/{picture.PICTURE.name}" in report.PAGE.read_text("utf-8")
