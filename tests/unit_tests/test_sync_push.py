"""Waiting for a push that continues after its call."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sync.push import finish_push, push
from langchain_daytona_ws._core.sync.report import SyncReport


class Client:
    """Answers calls with reports, and records their fields. Each call takes 20 seconds."""

    def __init__(self, *reports: Mapping[str, object]) -> None:
        self.reports = list(reports)
        self.calls: list[dict[str, Any]] = []

    def now(self) -> float:
        return 20.0 * len(self.calls)

    async def call(self, entry: str, fields: dict[str, Any], **_: float) -> tuple[dict[str, object], None]:
        self.calls.append(fields)
        report = dict(self.reports.pop(0) if len(self.reports) > 1 else self.reports[0])
        asked = {"asked": report.pop("asked")} if "asked" in report else {}
        return {"sync": json.dumps(report), **asked}, None


def pending(asked: object) -> dict[str, object]:
    return {"failure": "pending", "asked": asked}


def test_each_request_waits_for_the_push_of_the_call() -> None:
    client = Client(pending(12.5), {"failure": "unreachable", "unpushed_count": 1})
    first = SyncReport(failure="pending", unpushed_count=-1)
    report = run_sync(finish_push(client, "/w", first, asked=12.5))  # type: ignore[arg-type]
    assert [call.get("asked") for call in client.calls] == [12.5, 12.5]
    assert report.failure == "unreachable"


def test_a_first_push_is_a_new_one() -> None:
    client = Client({"pushed": 1})
    assert run_sync(push(client, "/w")).pushed == 1  # type: ignore[arg-type]
    assert client.calls == [{"root": "/w", "pulls": False}]


@pytest.mark.parametrize("asked", ["", "x", math.nan, math.inf, "12.5", None, [12.5], True])
def test_a_forged_time_is_not_sent_back(asked: object) -> None:
    client = Client(pending(asked), {"pushed": 1})
    assert run_sync(push(client, "/w")).pushed == 1  # type: ignore[arg-type]
    assert all("asked" not in call for call in client.calls)


def test_a_push_without_end_is_given_up_without_a_detail() -> None:
    client = Client(pending(12.5))
    report = run_sync(push(client, "/w", limit_s=100.0))  # type: ignore[arg-type]
    assert (report.is_pending, report.detail, len(client.calls)) == (True, "", 5)
