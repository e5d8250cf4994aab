"""Preview links: arguments, faults of the control plane, and what shows the link."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from langchain_daytona_ws._core.ports import FaultKind, PortFault
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sandbox.preview import PreviewUrl, preview_url
from langchain_daytona_ws.errors import CommandRefused, SandboxError, SandboxUnavailable
from langchain_daytona_ws.permissions import PermissionRequest
from tests.unit_tests.scripted_port import INFO, Record, ScriptedPort, info

LINK = "https://3000-t0ken.proxy.example"
BUSY = PortFault(FaultKind.THROTTLED, "too many", status=429, retry_after_s=2.0)


def made(
    *answers: Any, state: str = "started", may_exist: bool = True, **given: Any
) -> tuple[PreviewUrl, ScriptedPort, Record]:
    port = ScriptedPort(get=[info(state)], start=[None], preview_url=list(answers))
    record = Record()
    arguments = {"port": 3000, "expires_s": 60, **given}
    number = arguments.pop("port")
    link = run_sync(
        preview_url(
            port, record, record.acquire, number, may_exist=may_exist, now=lambda: 1000.0, **arguments
        )
    )
    return link, port, record


def test_a_link_names_port_sandbox_and_end_and_shows_no_token() -> None:
    link, port, _ = made(LINK)
    assert (link.url, link.port, link.expires_at, link.sandbox_id) == (LINK, 3000, 1060.0, INFO.id)
    assert "t0ken" not in f"{link} {link!r}"
    assert port.asked == ["get", "preview_url"]


def test_a_stopped_sandbox_is_started_first() -> None:
    _, port, record = made(LINK, state="stopped")
    assert port.asked == ["get", "start", "preview_url"]
    assert record.restarts == 1


def test_a_lost_sandbox_is_recorded() -> None:
    port, record = ScriptedPort(get=[None]), Record()
    with pytest.raises(SandboxUnavailable, match="Start the server again") as caught:
        run_sync(
            preview_url(port, record, record.acquire, 3000, expires_s=60, may_exist=True, now=lambda: 0.0)
        )
    assert (caught.value.code, record.lost_ones) == ("sandbox_gone", [INFO])


@pytest.mark.parametrize("state", ["error", "archived"])
def test_a_failed_sandbox_is_recorded_as_existing(state: str) -> None:
    port, record = ScriptedPort(get=[info(state)]), Record()
    with pytest.raises(SandboxUnavailable) as caught:
        run_sync(
            preview_url(port, record, record.acquire, 3000, expires_s=60, may_exist=True, now=lambda: 0.0)
        )
    assert (caught.value.code, record.lost_ones, record.failed_ones) == ("sandbox_failed", [], [INFO])


def test_passing_faults_are_repeated_and_others_are_not() -> None:
    link, port, _ = made(BUSY, BUSY, LINK)
    assert (link.url, port.asked.count("preview_url"), port.slept_s) == (LINK, 3, 4.0)
    with pytest.raises(SandboxError, match="too many") as caught:
        made(BUSY)
    assert caught.value.retryable
    with pytest.raises(SandboxError, match="write:sandboxes") as caught:
        made(PortFault(FaultKind.FORBIDDEN, "Access denied", status=403))
    assert (caught.value.code, caught.value.retryable) == ("forbidden", False)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        *(
            ({"port": port}, "preview_port")
            for port in (0, 80, 2999, 10_000, 22222, 65_536, -1, True, "3000", 3000.0)
        ),
        *(({"expires_s": s}, "preview_time") for s in (0, -1, 0.5, 86_401, True, float("nan"), float("inf"))),
        ({"may_exist": False}, "no_server"),
    ],
)
def test_invalid_arguments_send_nothing(given: dict[str, Any], code: str) -> None:
    with pytest.raises(CommandRefused) as caught:
        made(AssertionError("sent"), **given)
    assert caught.value.code == code


def test_the_request_for_approval_says_what_is_opened() -> None:
    request = PermissionRequest.for_preview({"port": 3000, "expires_s": 60}, namespace="demo")
    assert request.summary == "preview_url: open port 3000 to anyone with the link for 60 seconds"
    assert (request.tool, request.action, request.command) == ("preview_url", "open", None)
    odd = PermissionRequest.for_preview({"port": "3\n\x1b[2J", "expires_s": ["x" * 999]}, namespace="demo")
    assert odd.summary.isprintable()
    assert len(odd.summary) <= 400


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        made(LINK)
    assert "t0ken" not in caplog.text
