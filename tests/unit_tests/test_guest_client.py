"""Faults of a call: sent again if that is safe, otherwise reported as an unknown outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from langchain_daytona_ws._core.guest_rpc.client import MARGIN_S, GuestClient
from langchain_daytona_ws._core.guest_rpc.recovery import RETRY_WITHIN_S
from langchain_daytona_ws._core.jobs.keep_alive import JobTracker
from langchain_daytona_ws._core.ports import ExecReply, FaultKind, PortFault, SandboxInfo
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sandbox import lifecycle
from langchain_daytona_ws.errors import (
    HookFailed,
    OutcomeUnknown,
    SandboxError,
    SandboxUnavailable,
    WorkspaceError,
)
from tests.unit_tests.scripted_port import INFO, NONCE, Record, ScriptedPort, fault, info


def client_of(port: ScriptedPort, record: Record | None = None, **settings: Any) -> GuestClient:
    record = record or Record()
    return GuestClient(port, record, record.acquire, {}, lambda: NONCE, **settings)


def call(port: ScriptedPort, *, key: str | None = "k", record: Record | None = None) -> dict[str, object]:
    guest_client = client_of(port, record)
    request: dict[str, object] = {"op": "x"} if key is None else {"op": "x", "key": key}
    return run_sync(guest_client.call("command", request, timeout_s=10, killable=key is not None))[0]


PASSING = [FaultKind.NOT_SENT, FaultKind.DROPPED, FaultKind.THROTTLED, FaultKind.UNAVAILABLE, FaultKind.BUSY]


@pytest.mark.parametrize("kind", PASSING)
def test_a_passing_fault_is_sent_again(kind: FaultKind) -> None:
    port = ScriptedPort(execute=[fault(kind), {"ok": True}])
    assert call(port) == {"ok": True}
    assert port.asked == ["execute", "execute"]


def test_the_second_fault_asks_the_control_plane_first() -> None:
    port = ScriptedPort(
        execute=[fault(FaultKind.DROPPED), fault(FaultKind.DROPPED), {"ok": True}], get=[info("started")]
    )
    call(port)
    assert port.asked == ["execute", "execute", "get", "execute"]


class Timed(ScriptedPort):
    """Records the time-out of each request."""

    def __init__(self, **answers: list[Any]) -> None:
        super().__init__(**answers)
        self.within_s: list[int] = []

    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply:
        self.within_s.append(timeout_s)
        return await super().execute(sandbox_id, script, env=env, timeout_s=timeout_s)


def test_set_up_does_not_count_towards_the_deadline() -> None:
    port = Timed(execute=[{"ok": True}])

    async def set_up() -> None:
        await port.sleep(600)

    guest_client = client_of(port, set_up=set_up)
    run_sync(guest_client.call("command", {"key": "k"}, timeout_s=10))
    assert port.within_s == [10 + MARGIN_S]


def test_a_failed_set_up_after_sending_is_an_unknown_outcome() -> None:
    port = ScriptedPort(execute=[fault(FaultKind.DROPPED)], get=[info("started")])
    done: list[None] = []

    async def set_up() -> None:
        if done:
            raise HookFailed("onResume", for_model="Nothing ran.")
        done.append(None)

    guest_client = client_of(port, set_up=set_up)
    with pytest.raises(OutcomeUnknown):
        run_sync(guest_client.call("command", {"key": "k"}, timeout_s=10))
    done.clear()
    with pytest.raises(HookFailed):
        run_sync(guest_client.call("files", {"op": "read"}, timeout_s=10))


@pytest.mark.parametrize(
    "output", [info("stopping"), fault(FaultKind.UNAVAILABLE)], ids=["stuck", "no answer"]
)
def test_an_unusable_sandbox_is_abandoned_in_time(output: Any) -> None:
    port = ScriptedPort(get=[output])
    with pytest.raises(SandboxUnavailable, match="control plane"):
        run_sync(lifecycle.revive(port, INFO))
    assert port.slept_s == lifecycle.REVIVE_WITHIN_S


def test_a_start_of_another_session_is_a_restart_too() -> None:
    port = ScriptedPort(
        get=[info("stopped"), info("starting"), info("started")], start=[fault(FaultKind.BUSY)]
    )
    assert run_sync(lifecycle.revive(port, INFO)) is lifecycle.Revival.RESTARTED


def test_retry_after_is_obeyed_within_reason() -> None:
    port = ScriptedPort(execute=[fault(FaultKind.THROTTLED, retry_after_s=7.0), {"ok": True}])
    call(port)
    assert port.slept_s == 7.0
    port = ScriptedPort(execute=[fault(FaultKind.THROTTLED, retry_after_s=9999.0), {"ok": True}])
    call(port)
    assert port.slept_s == RETRY_WITHIN_S


def test_requests_that_never_arrive_end_as_unavailable() -> None:
    port = ScriptedPort(execute=[fault(FaultKind.NOT_SENT)], get=[info("started")])
    with pytest.raises(SandboxUnavailable) as caught:
        call(port)
    assert "Nothing ran" in caught.value.for_model
    assert port.slept_s <= 2 * RETRY_WITHIN_S


def test_a_refused_certificate_is_reported_at_once() -> None:
    port = ScriptedPort(execute=[fault(FaultKind.UNTRUSTED)])
    with pytest.raises(SandboxUnavailable, match="SSL_CERT_FILE") as caught:
        call(port)
    assert (caught.value.code, caught.value.retryable, port.slept_s) == ("certificate", False, 0)
    # Where an earlier sending may have run, that is not "nothing ran".
    port = ScriptedPort(execute=[fault(FaultKind.DROPPED), fault(FaultKind.UNTRUSTED)])
    with pytest.raises(OutcomeUnknown):
        call(port)
    port = ScriptedPort(execute=[fault(FaultKind.NOT_FOUND)], get=[fault(FaultKind.UNTRUSTED)])
    with pytest.raises(SandboxUnavailable) as caught:
        call(port)
    assert caught.value.code == "certificate"


def test_requests_that_may_have_arrived_end_as_unknown() -> None:
    port = ScriptedPort(execute=[fault(FaultKind.DROPPED)], get=[info("started")])
    with pytest.raises(OutcomeUnknown):
        call(port)


def test_reads_end_as_unavailable() -> None:
    port = ScriptedPort(execute=[fault(FaultKind.DROPPED)], get=[info("started")])
    with pytest.raises(SandboxUnavailable):
        call(port, key=None)


@pytest.mark.parametrize("kind", [FaultKind.NOT_STARTED, FaultKind.NOT_FOUND, FaultKind.UNAUTHORIZED])
@pytest.mark.parametrize("found", [None, info("destroyed"), info("destroying")])
def test_a_deleted_sandbox_is_replaced(kind: FaultKind, found: SandboxInfo | None) -> None:
    record = Record()
    port = ScriptedPort(execute=[fault(kind), {"ok": True}], get=[found])
    assert call(port, record=record) == {"ok": True}
    assert record.lost_ones == [INFO]


@pytest.mark.parametrize("state", ["error", "build_failed", "archived"])
def test_a_failed_sandbox_is_replaced_and_recorded(state: str) -> None:
    record = Record()
    port = ScriptedPort(execute=[fault(FaultKind.NOT_STARTED), {"ok": True}], get=[info(state)])
    assert call(port, record=record) == {"ok": True}
    assert (record.lost_ones, record.failed_ones) == ([], [INFO])


def test_an_unreachable_sandbox_after_a_possible_run_is_an_unknown_outcome() -> None:
    port = ScriptedPort(execute=[fault(FaultKind.DROPPED)], get=[fault(FaultKind.NOT_SENT)])
    with pytest.raises(OutcomeUnknown, match="control plane returned no state") as caught:
        call(port)
    assert "may have run" in caught.value.for_model
    with pytest.raises(SandboxUnavailable):
        call(ScriptedPort(execute=[fault(FaultKind.NOT_SENT)], get=[fault(FaultKind.NOT_SENT)]))


def test_a_sandbox_lost_after_sending_is_an_unknown_outcome() -> None:
    record = Record()
    port = ScriptedPort(
        execute=[fault(FaultKind.DROPPED), fault(FaultKind.NOT_FOUND), {"ok": True}], get=[None]
    )
    with pytest.raises(OutcomeUnknown) as caught:
        call(port, record=record)
    assert caught.value.code == "lost_while_running"
    assert record.lost_ones == [INFO]
    assert port.asked.count("execute") == 2


def test_vanishing_sandboxes_are_not_created_endlessly() -> None:
    record = Record()
    port = ScriptedPort(execute=[fault(FaultKind.NOT_FOUND)], get=[None])
    with pytest.raises(SandboxUnavailable):
        call(port, record=record)
    assert len(record.lost_ones) == 3


def test_a_stopped_sandbox_is_started() -> None:
    port = ScriptedPort(
        execute=[fault(FaultKind.NOT_STARTED), {"ok": True}], get=[info("stopped")], start=[None]
    )
    record = Record()
    assert call(port, record=record) == {"ok": True}
    assert "start" in port.asked
    assert record.restarts == 1


def test_a_sandbox_between_states_is_waited_for() -> None:
    port = ScriptedPort(
        execute=[fault(FaultKind.NOT_STARTED), {"ok": True}],
        get=[info("stopping"), info("stopping"), info("stopped")],
        start=[None],
    )
    assert call(port) == {"ok": True}


def test_a_refusal_of_the_control_plane_ends_the_call() -> None:
    port = ScriptedPort(execute=[fault(FaultKind.UNAUTHORIZED)], get=[fault(FaultKind.UNAUTHORIZED)])
    with pytest.raises(SandboxUnavailable, match="API key"):
        call(port)


def test_a_refusal_is_not_sent_again() -> None:
    port = ScriptedPort(execute=[fault(FaultKind.REFUSED)])
    with pytest.raises(SandboxError, match="REFUSED"):
        call(port)
    assert port.asked == ["execute"]


def test_an_unreadable_answer_is_retried_a_few_times() -> None:
    port = ScriptedPort(execute=["noise", {"ok": True}])
    assert call(port) == {"ok": True}
    port = ScriptedPort(execute=["noise"])
    with pytest.raises(OutcomeUnknown) as caught:
        call(port)
    assert (caught.value.code, caught.value.retryable) == ("unreadable_answer", False)
    assert port.asked == ["execute"] * 3
    with pytest.raises(OutcomeUnknown):
        call(ScriptedPort(execute=["noise"]), key=None)


@pytest.mark.parametrize("code", ["processes", "python", "state"])
def test_a_set_up_error_after_a_lost_answer_is_an_unknown_outcome(code: str) -> None:
    answers = [fault(FaultKind.DROPPED), {"error": "setup", "code": code, "detail": "x"}]
    with pytest.raises(OutcomeUnknown):
        call(ScriptedPort(execute=list(answers)))
    with pytest.raises(SandboxError) as caught:
        call(ScriptedPort(execute=answers[1:]))
    assert not isinstance(caught.value, OutcomeUnknown)


def test_an_unreadable_field_for_an_attachment_is_an_unknown_outcome() -> None:
    port = ScriptedPort(execute=[{"job": {"awake_minutes": 5}, "outcome": "job"}])
    tracker = JobTracker(15, None, lambda job, is_shown: None, lambda notice: None)
    client = client_of(port, attachments=[tracker])
    with pytest.raises(OutcomeUnknown) as caught:
        run_sync(client.call("command", {"key": "k", "job": {"command": "true"}}, timeout_s=10))
    assert (caught.value.code, port.asked) == ("garbled_answer", ["execute"])


def test_a_missing_python_is_not_retried() -> None:
    port = ScriptedPort(execute=[ExecReply(127, "bash: line 1: exec: python3: not found\n")])
    with pytest.raises(SandboxError, match="no python3"):
        call(port)
    assert port.asked == ["execute"]


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        ({"outcome": "unknown"}, OutcomeUnknown, "runner_died"),
        ({"outcome": "running"}, OutcomeUnknown, "still_running"),
        ({"error": "setup", "code": "bash", "detail": ""}, SandboxError, "no_bash"),
        (
            {"error": "setup", "code": "workspace", "detail": "Permission denied"},
            SandboxError,
            "workspace_directory",
        ),
        ({"error": "setup", "code": "state", "detail": "x"}, SandboxError, "state_directory"),
        ({"error": "guest", "code": "ValueError", "detail": "x:1"}, OutcomeUnknown, "guest_failed"),
    ],
)
def test_errors_of_the_guest(answer: dict[str, object], kind: type[WorkspaceError], code: str) -> None:
    with pytest.raises(kind) as caught:
        call(ScriptedPort(execute=[answer]))
    assert caught.value.code == code


@pytest.mark.parametrize("error", ["setup", "guest"])
def test_no_control_code_of_the_sandbox_reaches_a_terminal(error: str) -> None:
    forged = "\x1b]0;title\x07\u202e" * 1000
    with pytest.raises(SandboxError) as caught:
        call(ScriptedPort(execute=[{"error": error, "code": forged, "detail": f"one\n  two {forged}"}]))
    shown = f"{caught.value.message} {caught.value.for_model} {caught.value.context}"
    assert "one two \\x1b]0;title\\x07\\u202e" in shown.replace("\\\\", "\\")
    assert shown.isprintable()
    assert len(shown) < 5000


def test_an_interrupted_call_is_killed_in_the_sandbox() -> None:
    port = ScriptedPort(execute=[KeyboardInterrupt(), {"outcome": "cancelled"}])
    with pytest.raises(KeyboardInterrupt):
        call(port)
    assert port.asked == ["execute", "finish", "execute"]


def test_a_cancelled_call_is_an_unknown_outcome() -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        call(ScriptedPort(execute=[{"outcome": "cancelled"}]))
    assert caught.value.code == "cancelled"


def test_an_interrupt_between_two_attempts_kills_too() -> None:
    class Interrupted(ScriptedPort):
        async def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    port = Interrupted(execute=[fault(FaultKind.DROPPED), {"outcome": "cancelled"}])
    with pytest.raises(KeyboardInterrupt):
        call(port)
    assert port.asked == ["execute", "finish", "execute"]


@pytest.mark.parametrize("timeout_s", [1.0, 120.0, 600.0])
def test_a_sandbox_that_has_gone_silent_does_not_hold_the_call_for_long(timeout_s: float) -> None:
    class Silent(ScriptedPort):
        async def execute(
            self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
        ) -> ExecReply:
            self.slept_s += timeout_s + 5
            return await super().execute(sandbox_id, script, env=env, timeout_s=timeout_s)

    port = Silent(execute=[fault(FaultKind.DROPPED)], get=[info("started")])
    guest_client = client_of(port)
    with pytest.raises(OutcomeUnknown):
        run_sync(guest_client.call("command", {"key": "k"}, timeout_s=timeout_s))
    assert port.slept_s <= timeout_s + 100


def test_a_proxy_that_drops_long_requests_is_outlasted() -> None:
    class Proxy(ScriptedPort):
        async def execute(
            self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
        ) -> ExecReply:
            self.slept_s += 60
            return await super().execute(sandbox_id, script, env=env, timeout_s=timeout_s)

    port = Proxy(execute=[*[fault(FaultKind.DROPPED)] * 8, {"ok": True}], get=[info("started")])
    guest_client = client_of(port)
    assert run_sync(guest_client.call("command", {"key": "k"}, timeout_s=600)) == ({"ok": True}, INFO.id)


BAD_GATEWAY = fault(FaultKind.DROPPED, status=502)
SILENCE = [BAD_GATEWAY] * 7  # for a little more than ten seconds


def test_a_dead_daemon_ends_a_call_that_may_have_run() -> None:
    port, record = ScriptedPort(execute=[BAD_GATEWAY], get=[INFO], ping=[BAD_GATEWAY]), Record()
    with pytest.raises(OutcomeUnknown) as caught:
        call(port, record=record)
    assert caught.value.code == "lost_while_running"
    assert record.failed_ones == [INFO]
    assert port.slept_s < 15
    assert port.asked.count("ping") == 1


def test_a_repeatable_request_is_sent_to_the_next_sandbox() -> None:
    port, record = (
        ScriptedPort(execute=[*SILENCE, {"ok": True}], get=[INFO], ping=[BAD_GATEWAY]),
        Record(),
    )
    assert call(port, key=None, record=record) == {"ok": True}
    assert record.failed_ones == [INFO]


def test_a_persistent_sandbox_with_a_dead_daemon_is_restarted() -> None:
    record = Record(is_persistent=True)
    states = [INFO] * 6 + [info("stopping"), info("stopped")]
    port = ScriptedPort(
        execute=[*SILENCE, {"ok": True}], get=states, ping=[BAD_GATEWAY], stop=[None], start=[None]
    )
    assert call(port, record=record) == {"ok": True}
    assert [name for name in port.asked if name in ("ping", "stop", "start")] == ["ping", "stop", "start"]
    assert (record.restarts, record.failed_ones) == (1, [])


@pytest.mark.parametrize("kind", [FaultKind.BUSY, FaultKind.DROPPED, FaultKind.REFUSED])
def test_a_restart_by_another_session_is_waited_for(kind: FaultKind) -> None:
    record = Record(is_persistent=True)
    states = [INFO] * 6 + [info("starting"), INFO]
    port = ScriptedPort(execute=[*SILENCE, {"ok": True}], get=states, ping=[BAD_GATEWAY], stop=[fault(kind)])
    assert call(port, record=record) == {"ok": True}
    assert record.restarts == 1


@pytest.mark.parametrize("is_persistent", [True, False])
@pytest.mark.parametrize("ping", [None, fault(FaultKind.UNAVAILABLE, status=503), fault(FaultKind.DROPPED)])
def test_a_sandbox_that_answers_a_ping_is_kept(is_persistent: bool, ping: PortFault | None) -> None:
    record = Record(is_persistent=is_persistent)
    port = ScriptedPort(execute=[BAD_GATEWAY], get=[INFO], ping=[ping])
    with pytest.raises(OutcomeUnknown):
        call(port, record=record)
    assert (record.failed_ones, record.restarts) == ([], 0)


def test_other_gateway_errors_do_not_mean_a_dead_daemon() -> None:
    other = fault(FaultKind.DROPPED, status=504)
    port, record = ScriptedPort(execute=[*[BAD_GATEWAY, other] * 20, {"ok": True}], get=[INFO]), Record()
    with pytest.raises(OutcomeUnknown):
        call(port, record=record)
    assert record.failed_ones == []
