"""The README quotes the results that are there."""

from __future__ import annotations

import json

from benchmarks import report


def test_the_readme_quotes_the_results() -> None:
    told = json.loads(report.RESULTS.read_text("utf-8"))
    assert report.readme_block(told) in report.README.read_text("utf-8"), "run python -m benchmarks --readme"
