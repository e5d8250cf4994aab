"""The attachment that names the resident in each request: when it sends the resident, and when it sends again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from langchain_daytona_ws._core.guest_rpc.attachments import SENDS_MAX, GuestRequest, OnProgress
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._core.sync.manager import MARGIN_S, PULL_LIMIT_S, SyncManager, SyncState
from tests.unit_tests.attached import exchange, workspace_of

PULLING = '[12.5, "[1, 2]"]'
SAVED = {"outcome": "finished", "sync": json.dumps({"pushed": 1})}


class Port:
    """A clock that only sleeping advances."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


class Session:
    """A manager with the state of its session."""

    def __init__(self) -> None:
        self.port = Port()
        self.state = SyncState()
        self.forgotten: list[str] = []
        self.fetched = 0
        workspace = workspace_of("sync")
        self.manager = SyncManager(
            workspace, self.credentials, self.forget, state=self.state, now=lambda: 0.0
        )

    async def credentials(self, min_life_s: float) -> Credentials:
        return Credentials(f"AKIA{self.fetched}", "secret", None, expires_at=3600.0)

    def forget(self, credentials: Credentials) -> None:
        self.forgotten.append(credentials.access_key_id)
        self.fetched += 1

    def request(self, on_progress: OnProgress | None = None) -> GuestRequest:
        return GuestRequest(self.port, "sb", "command", {}, 60.0, on_progress)  # type: ignore[arg-type]

    def send(
        self, *answers: Mapping[str, object], on_progress: OnProgress | None = None
    ) -> list[Mapping[str, Any]]:
        """Answer the sends of one request, the last answer for ever; return the fields of each send."""
        self.answer, sent = exchange(self.manager, self.request(on_progress), *answers)
        return [each.fields for each in sent]


def refusal(code: str, detail: str = "") -> dict[str, object]:
    return {"error": "setup", "code": code, "detail": detail}


def test_the_resident_is_sent_once() -> None:
    session = Session()
    [first], [second] = session.send(SAVED), session.send(SAVED)
    assert "sync_resident" in first
    assert "sync_resident" not in second
    assert session.state.reports["sb"].pushed == 1


@pytest.mark.parametrize("code", ["sync_absent", "sync_credentials", "sync_of_an_impostor"])
def test_a_missing_resident_is_sent_at_once(code: str) -> None:
    session = Session()
    session.send(SAVED)
    first, second = session.send(refusal(code), SAVED)
    assert "sync_resident" not in first
    assert "sync_resident" in second
    assert session.answer == SAVED


@pytest.mark.parametrize("failure", ["absent", "expired", "denied", "signature", "unreadable"])
def test_after_some_failed_pushes_the_next_call_sends_the_resident(failure: str) -> None:
    session = Session()
    session.send(SAVED)
    session.send({**SAVED, "sync": json.dumps({"failure": failure})})
    assert "sync_resident" in session.send(SAVED)[0]


def test_a_resident_with_refused_credentials_is_replaced() -> None:
    session = Session()
    [first] = session.send(SAVED)
    assert first["sync"]["key"] == "any"
    session.send({**SAVED, "sync": json.dumps({"failure": "expired"})})
    assert session.forgotten == ["AKIA0"]
    [second] = session.send(SAVED)
    assert second["sync"]["key"] == second["sync_resident"]["key"] != first["sync_resident"]["key"]
    assert session.send(SAVED)[0]["sync"]["key"] == "any"


def test_new_credentials_are_tried_once_a_request() -> None:
    session = Session()
    session.send(SAVED)
    first, second = session.send(refusal("sync_denied"))
    assert "sync_resident" not in first
    assert second["sync_resident"]["key"] == second["sync"]["key"]
    assert session.forgotten == ["AKIA0"]
    assert session.answer == refusal("sync_denied")


def test_a_sandbox_that_never_has_the_resident_is_given_up() -> None:
    session = Session()
    assert len(session.send(refusal("sync_absent"))) == SENDS_MAX
    assert session.answer == refusal("sync_absent")


def test_a_sandbox_that_pulls_for_ever_is_given_up() -> None:
    session = Session()
    notes: list[str] = []

    async def on_progress(text: str) -> None:
        notes.append(text)

    requests = len(session.send(refusal("sync_pulling", PULLING), on_progress=on_progress))
    assert PULL_LIMIT_S < session.port.time < PULL_LIMIT_S + 2 * MARGIN_S
    assert requests == len(notes) + 1 < 10_000
    assert notes[0] == "[copying the workspace into the sandbox: 1 of 2 files]\n"
    assert session.manager.ends_at is not None
    error = session.manager.error("sync_pulling", "[1, 2]")
    assert error
    assert error.retryable


def test_a_repeated_request_waits_for_the_same_pull() -> None:
    session = Session()
    first, second, third = session.send(
        refusal("sync_pulling", PULLING), refusal("sync_pulling", PULLING), SAVED
    )
    assert "asked" not in first["sync"]
    assert second["sync"]["asked"] == third["sync"]["asked"] == 12.5
    assert "asked" not in session.send(SAVED)[0]["sync"]


@pytest.mark.parametrize(
    "detail",
    [
        "",
        "[]",
        "nothing",
        '"x"',
        '[NaN, "[1, 2]"]',
        '[1e999, "[1e999, 2]"]',
        "[12.5, [1, 2]]",
        "[" * 100_000,
        "[null, {}]",
    ],
)
def test_forged_progress_is_harmless(detail: str) -> None:
    session = Session()
    assert len(session.send(refusal("sync_pulling", detail), SAVED)) == 2
    assert session.answer == SAVED


@pytest.mark.parametrize("answer", [refusal("bash"), {"error": "guest", "code": "KeyError"}])
def test_a_workspace_that_was_not_entered_needs_no_push(answer: dict[str, object]) -> None:
    session = Session()
    session.send(answer)
    assert session.state.reports == {}


def test_a_refused_file_operation_has_entered_the_workspace() -> None:
    session = Session()
    session.send({"ok": False, "error": "missing", "sync": "{}"})
    assert "sb" in session.state.reports
