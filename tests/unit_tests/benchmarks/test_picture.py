"""The picture of the parts of a command: bars of the right lengths."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from benchmarks import picture, report
from benchmarks.measure import Spread
from benchmarks.result import Result, figure

TIMES = {
    "sandbox.process.exec": {"client": 1.0, "network": 2.0, "shell": 3.0},
    "a & b": {"client": 2.0, "network": 2.0, "shell": 3.0, "Python": 6.0, "guest": -0.5, "command": 1.0},
}


@pytest.fixture
def drawn() -> str:
    results = [
        figure(picture.ROW, f"{bar}: {part}", Spread.of([time_ms]), "ms")
        for bar, parts in TIMES.items()
        for part, time_ms in parts.items()
    ]
    other = Result("other", "ours", "raw", Spread.of([1.0]))
    return picture.draw(json.loads(report.as_json([*results, other], took_s=1, load=0)))


def test_it_is_xml_with_one_rectangle_for_each_part(drawn: str) -> None:
    ElementTree.fromstring(drawn)
    shown = re.findall(r"<title>(\w+): ([\d.]+) ms</title>", drawn)
    assert shown == [
        *(("client", "1.0"), ("network", "2.0"), ("shell", "3.0")),
        *(("client", "2.0"), ("network", "2.0"), ("shell", "3.0"), ("Python", "6.0"), ("command", "1.0")),
    ]
    for text in (*picture.PARTS, ">6.0 ms<", ">14.0 ms<", "a &amp; b"):
        assert text in drawn


def test_the_lengths_are_proportional(drawn: str) -> None:
    widths = [float(width) for width in re.findall(r"width='([\d.]+)' height='22'", drawn)]
    assert sum(widths[3:]) / sum(widths[:3]) == pytest.approx(14 / 6, rel=0.01)
    assert widths[1] / widths[0] == pytest.approx(2.0, rel=0.01)


def test_results_without_parts_give_an_empty_picture() -> None:
    assert picture.draw({"results": []}).count("<title>") == 1
