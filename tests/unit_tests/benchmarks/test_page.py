"""docs/benchmarks.md quotes the committed results."""

from __future__ import annotations

import json

from benchmarks import report


def test_the_page_quotes_the_results() -> None:
    results = json.loads(report.RESULTS.read_text("utf-8"))
    assert report.page_block(results) in report.PAGE.read_text("utf-8"), "run python -m benchmarks --docs"
