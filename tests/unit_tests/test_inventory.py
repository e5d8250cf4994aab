"""Selecting old sandboxes, and confirming that a deleted sandbox is gone."""

from __future__ import annotations

import pytest

from langchain_daytona_ws._core.ports import FaultKind, PortFault, SandboxInfo
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sandbox.inventory import (
    SandboxSummary,
    age_s,
    managed_labels,
    prunable,
    remove,
)
from langchain_daytona_ws.errors import SandboxUnavailable

NOW = 1_000_000.0
HOUR_S = 3600.0


def sandbox(**changes: object) -> SandboxSummary:
    usual: dict[str, object] = {
        "id": "id", "name": "name", "state": "started", "organization_id": "ours", "created_at": NOW - 9 * HOUR_S,
        "last_activity_at": NOW - 8 * HOUR_S, "auto_stop_minutes": 15, "auto_delete_minutes": 0,
        "labels": {"managed-by": "langchain-daytona-ws", "namespace": "n"},
    }  # fmt: skip
    return SandboxSummary(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), ("0s", 0),
        ("7", None), ("d", None), ("-1d", None), ("1.5h", None), ("7 d", None), ("7D", None), ("٧d", None),
        ("7d\n", None), ("", None), ("9999999d", None),
    ],
)  # fmt: skip
def test_ages(text: str, seconds: int | None) -> None:
    assert age_s(text) == seconds


@pytest.mark.parametrize(
    ("changes", "older_than_h", "is_old"),
    [
        ({}, 7, True),
        ({}, 9, False),
        ({"labels": {}}, 7, False),
        ({"labels": {"managed-by": "somebody"}}, 7, False),
        ({"state": "stopped"}, 7, True),
        ({"state": "error"}, 7, True),
        ({"state": "destroying"}, 7, False),
        ({"last_activity_at": None}, 8.5, True),
        ({"last_activity_at": None, "created_at": None}, 1, False),
        # A job may be at work until the auto-stop is due.
        ({"auto_stop_minutes": 9 * 60}, 7, False),
        ({"auto_stop_minutes": 7.5 * 60}, 7, True),
        ({"auto_stop_minutes": 9 * 60, "state": "stopped"}, 7, True),
        # It never stops, or this is not known.
        ({"auto_stop_minutes": 0}, 7, False),
        ({"auto_stop_minutes": None}, 7, False),
        ({"auto_stop_minutes": 0, "state": "stopped"}, 7, True),
    ],
)
def test_sandboxes_are_old_by_their_last_activity(
    changes: dict[str, object], older_than_h: float, is_old: bool
) -> None:
    item = sandbox(**changes)
    assert prunable([item], now=NOW, older_than_s=older_than_h * HOUR_S) == ([item] if is_old else [])


def test_labels_of_ours() -> None:
    assert managed_labels(None) == {"managed-by": "langchain-daytona-ws"}
    assert managed_labels("n") == {"managed-by": "langchain-daytona-ws", "namespace": "n"}


class Answers:
    """A control plane that gives these answers to GET, the last of them for ever."""

    def __init__(self, *answers: str | PortFault | None) -> None:
        self.answers = list(answers)
        self.deleted: list[str] = []
        self.clock = 0.0

    async def delete(self, id_or_name: str) -> None:
        self.deleted.append(id_or_name)

    async def get(self, id_or_name: str) -> SandboxInfo | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, PortFault):
            raise answer
        return None if answer is None else SandboxInfo(id_or_name, "name", answer, "ours", {})

    async def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def now(self) -> float:
        return self.clock


DROPPED = PortFault(FaultKind.DROPPED, "gone away")


@pytest.mark.parametrize(
    "answers",
    [(None,), ("destroyed",), ("started", "destroying", None), (DROPPED, "destroying", "destroyed")],
)
def test_a_deletion_is_confirmed_by_the_control_plane(answers: tuple[str | PortFault | None, ...]) -> None:
    port = Answers(*answers)
    run_sync(remove(port, "id"))  # type: ignore[arg-type]
    assert port.deleted == ["id"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("destroying", "it is destroying"),
        (DROPPED, "gone away"),
        (PortFault(FaultKind.FORBIDDEN, "not you"), "not you"),
    ],
)
def test_it_is_not_said_to_be_gone_otherwise(answer: str | PortFault, message: str) -> None:
    with pytest.raises(SandboxUnavailable, match=message):
        run_sync(remove(Answers(answer), "id"))  # type: ignore[arg-type]
