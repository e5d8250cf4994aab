"""Creating and deleting a sandbox when requests fail."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from langchain_daytona_ws._core.ports import FaultKind, PortFault, SandboxInfo, SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sandbox import lifecycle
from langchain_daytona_ws.errors import ConfigError, ProvisionError, SandboxUnavailable
from tests.unit_tests.scripted_port import ScriptedPort, fault, info


class TestProvision:
    SPEC = SandboxSpec(name="mine")

    def provision(self, port: ScriptedPort, organization_id: str | None = None) -> SandboxInfo:
        return run_sync(lifecycle.provision(port, self.SPEC, organization_id=organization_id))

    @pytest.mark.parametrize("reached_before", [True, False])
    def test_a_first_connection_that_fails_is_an_error_soon(self, reached_before: bool) -> None:
        port = ScriptedPort(create=[fault(FaultKind.NOT_SENT)], get=[None])
        with pytest.raises(ProvisionError) as caught:
            run_sync(
                lifecycle.provision(port, self.SPEC, organization_id=None, reached_before=reached_before)
            )
        assert caught.value.code == "unreachable"
        assert (port.slept_s <= lifecycle.FIRST_REACH_S) is not reached_before

    def test_a_connection_that_fails_after_an_answer_is_retried_longer(self) -> None:
        port = ScriptedPort(create=[fault(FaultKind.UNAVAILABLE), fault(FaultKind.NOT_SENT)], get=[None])
        with pytest.raises(ProvisionError):
            run_sync(lifecycle.provision(port, self.SPEC, organization_id=None, reached_before=False))
        assert port.slept_s > lifecycle.FIRST_REACH_S

    def test_a_refused_certificate_is_not_retried(self) -> None:
        port = ScriptedPort(create=[fault(FaultKind.UNTRUSTED)])
        with pytest.raises(ProvisionError) as caught:
            self.provision(port)
        assert (caught.value.code, port.asked, port.slept_s) == ("certificate", ["create"], 0)

    def test_a_sandbox_that_is_not_started_yet_is_waited_for(self) -> None:
        port = ScriptedPort(
            create=[info("creating")], get=[info("creating"), info("starting"), info("started")]
        )
        assert self.provision(port) == info("started")

    def test_a_sandbox_that_never_starts_is_deleted(self) -> None:
        port = ScriptedPort(create=[info("creating")], get=[info("creating")], delete=[None])
        with pytest.raises(ProvisionError) as caught:
            self.provision(port)
        assert caught.value.code == "create_timeout"
        assert port.asked[-1] == "delete"

    @pytest.mark.parametrize("state", ["error", "build_failed", "destroyed"])
    def test_a_sandbox_that_fails_to_start_is_deleted(self, state: str) -> None:
        port = ScriptedPort(create=[info("creating")], get=[info(state)], delete=[None])
        with pytest.raises(ProvisionError) as caught:
            self.provision(port)
        assert caught.value.code == "create_failed"
        assert port.asked[-1] == "delete"

    def test_the_sandbox_of_an_interrupted_create_is_deleted(self) -> None:
        port = ScriptedPort(create=[KeyboardInterrupt()], get=[None, info("creating")], delete=[None])
        with pytest.raises(KeyboardInterrupt):
            self.provision(port)
        assert port.asked == ["create", "finish", "get", "get", "delete"]

    def test_the_search_after_an_interrupted_create_outlasts_a_fault(self) -> None:
        port = ScriptedPort(
            create=[KeyboardInterrupt()], get=[fault(FaultKind.UNAVAILABLE), info("started")], delete=[None]
        )
        with pytest.raises(KeyboardInterrupt):
            self.provision(port)
        assert port.asked[-1] == "delete"

    @pytest.mark.parametrize(
        ("get", "delete", "left"),
        [
            ([fault(FaultKind.NOT_SENT)], [], ["mine"]),
            ([fault(FaultKind.NOT_SENT), None], [], []),
            ([info("started")], [fault(FaultKind.FORBIDDEN)], ["mine"]),
            ([info("started")], [None], []),
        ],
    )
    def test_a_sandbox_that_may_be_left_is_named(
        self, get: list[object], delete: list[object], left: list[str]
    ) -> None:
        port, named = ScriptedPort(create=[KeyboardInterrupt()], get=get, delete=delete), list[str]()
        with pytest.raises(KeyboardInterrupt):
            run_sync(
                lifecycle.provision(
                    port, self.SPEC, organization_id=None, on_left=named.append, on_gone=named.remove
                )
            )
        assert named == left

    def test_the_sandbox_of_a_lost_answer_is_found_by_name(self) -> None:
        port = ScriptedPort(create=[fault(FaultKind.DROPPED)], get=[info("started")])
        assert self.provision(port) == info("started")
        assert port.asked == ["create", "get"]

    def test_a_sandbox_whose_name_is_taken_is_ours(self) -> None:
        port = ScriptedPort(create=[fault(FaultKind.NAME_TAKEN)], get=[info("started")])
        assert self.provision(port) == info("started")

    def test_a_missing_runner_is_retried_and_then_explained(self) -> None:
        no_runner = PortFault(FaultKind.REFUSED, "No available runners", status=400)
        assert self.provision(ScriptedPort(create=[no_runner, info("started")])) == info("started")
        with pytest.raises(ProvisionError, match="general snapshot") as caught:
            self.provision(ScriptedPort(create=[no_runner]))
        assert caught.value.code == "no_runner"

    @pytest.mark.parametrize(
        ("message", "code", "remedy"),
        [
            ("Region not found", "region_not_found", r"Omit options\.target"),
            ("Snapshot x not found. Did you", "snapshot_not_found", r"options\.snapshot"),
            ("Snapshot x is building", "snapshot_not_ready", "active"),
            ("Total CPU limit exceeded. Maximum", "quota", "limits"),
            ("Organization is suspended: x", "organization_suspended", "dashboard"),
            ("This API key has expired", "api_key_expired", "DAYTONA_API_KEY"),
            ("Cannot POST /sandbox", "api_url", r"options\.apiUrl .*/api"),
            ("something else", "create_refused", "something else"),
        ],
    )
    def test_refusals_name_their_remedy(self, message: str, code: str, remedy: str) -> None:
        with pytest.raises(ProvisionError, match=remedy) as caught:
            self.provision(ScriptedPort(create=[PortFault(FaultKind.REFUSED, message, status=400)]))
        assert caught.value.code == code

    def test_no_sandbox_is_searched_for_after_a_refused_create(self) -> None:
        port = ScriptedPort(create=[PortFault(FaultKind.REFUSED, "no", status=400)])
        with pytest.raises(ProvisionError):
            self.provision(port)
        assert port.asked == ["create"]

    def test_a_sandbox_of_another_organization_is_reported_if_it_cannot_be_deleted(self) -> None:
        made = info("started")
        port = ScriptedPort(create=[made], get=[made], delete=[fault(FaultKind.FORBIDDEN)])
        left: list[str] = []
        with pytest.raises(ProvisionError, match="organizationId"):
            run_sync(lifecycle.provision(port, self.SPEC, organization_id="other", on_left=left.append))
        assert left == [self.SPEC.name]

    def test_a_deletion_that_does_not_end_in_time_is_reported(self) -> None:
        class Slow(ScriptedPort):
            async def finish(self, work: Coroutine[Any, Any, None], *, within_s: float) -> bool:
                work.close()
                return False

        left: list[str] = []
        port = Slow(create=[info("error")], get=[info("error")])
        with pytest.raises(ProvisionError):
            run_sync(lifecycle.provision(port, self.SPEC, organization_id=None, on_left=left.append))
        assert left == [self.SPEC.name]

    @pytest.mark.parametrize("where", ["get", "delete"])
    def test_after_an_interrupted_deletion_it_is_not_gone(self, where: str) -> None:
        answers: dict[str, list[Any]] = {
            "get": [info("error")],
            "delete": [None],
            where: [KeyboardInterrupt()],
        }
        gone: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            run_sync(lifecycle.sweep(ScriptedPort(**answers), "name", gone.append))
        assert gone == []

    def test_without_a_client_nothing_is_left(self) -> None:
        left: list[str] = []
        port = ScriptedPort(create=[ConfigError("no API key")])
        with pytest.raises(ConfigError):
            run_sync(lifecycle.provision(port, self.SPEC, organization_id=None, on_left=left.append))
        assert (left, port.asked) == ([], ["create"])

    def test_a_failure_of_the_deletion_itself_is_reported(self) -> None:
        class Closed(ScriptedPort):
            async def finish(self, work: Coroutine[Any, Any, None], *, within_s: float) -> bool:
                work.close()
                raise RuntimeError("no running event loop")

        left: list[str] = []
        port = Closed(create=[KeyboardInterrupt()])
        with pytest.raises(RuntimeError):
            run_sync(lifecycle.provision(port, self.SPEC, organization_id=None, on_left=left.append))
        assert left == [self.SPEC.name]

    def test_a_sandbox_without_a_runner_may_exist(self) -> None:
        port = ScriptedPort(
            create=[PortFault(FaultKind.REFUSED, "No available runners")], get=[info("error")], delete=[None]
        )
        with pytest.raises(ProvisionError) as caught:
            self.provision(port)
        assert caught.value.code == "no_runner"
        assert port.asked[-3:] == ["finish", "get", "delete"]

    def test_a_sandbox_of_another_organization_is_deleted(self) -> None:
        port = ScriptedPort(create=[info("started")], get=[info("started")], delete=[None])
        with pytest.raises(ProvisionError, match="organizationId"):
            self.provision(port, organization_id="other")
        assert port.asked == ["create", "finish", "get", "delete"]


class TestDiscard:
    def test_a_deletion_waits_for_a_state_change(self) -> None:
        port = ScriptedPort(delete=[fault(FaultKind.BUSY), fault(FaultKind.BUSY), None])
        run_sync(lifecycle.discard(port, "id"))
        assert port.asked == ["delete"] * 3

    def test_a_deletion_waits_a_limited_time(self) -> None:
        port = ScriptedPort(delete=[fault(FaultKind.BUSY)])
        with pytest.raises(SandboxUnavailable) as caught:
            run_sync(lifecycle.discard(port, "id"))
        assert caught.value.code == "not_deleted"
        assert port.slept_s < 120
