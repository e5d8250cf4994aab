"""Find or create a workspace's sandbox, in all its states, and with concurrent processes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws import SandboxConfig
from langchain_daytona_ws._core.ports import FaultKind, NetworkRules, PortFault, Resources, SandboxInfo
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.workspace import s3_workspace
from langchain_daytona_ws._core.sandbox.get_or_create import (
    WITHIN_S,
    Acquired,
    find,
    get_or_create,
)
from langchain_daytona_ws._core.sandbox.network import network_rules
from langchain_daytona_ws._core.sandbox.specification import (
    config_hash,
    sandbox_name,
    specification,
)
from langchain_daytona_ws.errors import ConfigError, ProvisionError
from tests.unit_tests.scripted_port import ScriptedPort

CONFIG = SandboxConfig.model_validate({"persistent": True})
SPEC = specification(CONFIG, "demo", None, unique="x")
BUSY = PortFault(FaultKind.BUSY, "Sandbox state change in progress")


def found(state: str, id: str = "one", **facts: Any) -> SandboxInfo:
    facts.setdefault("labels", SPEC.labels)
    return SandboxInfo(
        **{"id": id, "name": SPEC.name, "state": state, "organization_id": "org", "labels": {}, **facts}
    )


def claimed(**answers: list[Any]) -> tuple[Acquired, ScriptedPort]:
    port = ScriptedPort(**answers)
    return run_sync(get_or_create(port, SPEC)), port


def refused(**answers: list[Any]) -> ProvisionError:
    with pytest.raises(ProvisionError) as caught:
        claimed(**answers)
    return caught.value


def test_a_running_sandbox_costs_one_request() -> None:
    had, port = claimed(get=[found("started")])
    assert (had.info.id, had.created, had.notice) == ("one", False, None)
    assert port.asked == ["get"]


def test_a_missing_sandbox_is_created() -> None:
    had, port = claimed(get=[None], create=[found("started")])
    assert (had.created, port.asked) == (True, ["get", "create"])


def test_the_loser_of_a_race_takes_the_winners() -> None:
    taken = PortFault(FaultKind.NAME_TAKEN, "Sandbox with name x already exists")
    had, port = claimed(get=[None, found("creating", "other"), found("started", "other")], create=[taken])
    assert (had.info.id, had.created) == ("other", False)
    assert port.asked == ["get", "create", "get", "get"]


def test_a_lost_answer_of_create_is_recovered() -> None:
    had, port = claimed(
        get=[None, found("started")], create=[PortFault(FaultKind.DROPPED, "connection reset")]
    )
    assert had.info.id == "one"
    assert port.asked.count("create") == 1


@pytest.mark.parametrize("state", ["stopped", "archived", "paused"])
def test_a_stopped_sandbox_is_started_with_a_notice(state: str) -> None:
    had, port = claimed(get=[found(state), found("started")], start=[None])
    assert port.asked == ["get", "start", "get"]
    assert "started again" in (had.notice or "")


@pytest.mark.parametrize(
    "state", ["starting", "creating", "stopping", "restoring", "archiving", "resizing", "unknown"]
)
def test_a_state_change_is_waited_for(state: str) -> None:
    had, _ = claimed(get=[found(state), found(state), found("started")])
    assert had.info.state == "started"


def test_a_state_change_by_another_process_is_waited_for() -> None:
    had, port = claimed(
        get=[found("stopped"), found("starting"), found("started")], start=[BUSY], create=[None]
    )
    assert had.notice is None
    assert "create" not in port.asked


def test_a_sandbox_being_destroyed_is_replaced() -> None:
    had, _ = claimed(get=[found("destroying"), found("destroyed"), None], create=[found("started", "new")])
    assert (had.info.id, had.created) == ("new", True)


def test_a_recoverable_sandbox_is_recovered() -> None:
    had, port = claimed(get=[found("error", recoverable=True), found("started")], recover=[None])
    assert "recovered" in (had.notice or "")
    assert "delete" not in port.asked


@pytest.mark.parametrize("state", ["error", "build_failed"])
def test_a_failed_sandbox_is_replaced_with_a_notice(state: str) -> None:
    had, _ = claimed(get=[found(state), None], delete=[None], create=[found("started", "new")])
    assert (had.info.id, had.created) == ("new", True)
    assert "replaced" in (had.notice or "")


def test_a_recovery_that_is_refused_ends_in_a_replacement() -> None:
    had, port = claimed(
        get=[found("error", recoverable=True), found("error", recoverable=True), None],
        recover=[PortFault(FaultKind.REFUSED, "not recoverable")],
        delete=[None],
        create=[found("started", "new")],
    )
    assert had.info.id == "new"
    assert port.asked.count("recover") == 1


@pytest.mark.parametrize(
    "fault",
    [
        PortFault(FaultKind.THROTTLED, "later"),
        PortFault(FaultKind.DROPPED, "later"),
        PortFault(FaultKind.REFUSED, "No available runners", status=400),
    ],
    ids=lambda fault: fault.kind.name,
)
def test_a_recovery_after_a_temporary_fault_is_tried_again(fault: PortFault) -> None:
    had, port = claimed(
        get=[found("error", recoverable=True), found("error", recoverable=True), found("started")],
        recover=[fault, None],
    )
    assert port.asked == ["get", "recover", "get", "recover", "get"]
    assert "recovered" in (had.notice or "")


def test_failing_new_sandboxes_are_deleted_and_retried_a_few_times() -> None:
    port = ScriptedPort(get=[None, found("build_failed")], create=[found("build_failed")], delete=[None])
    with pytest.raises(ProvisionError) as caught:
        run_sync(get_or_create(port, SPEC))
    assert caught.value.code == "create_failed"
    assert port.asked == ["get", "create", "get", "delete"]


def test_the_rest_of_a_refused_create_is_deleted() -> None:
    failed = PortFault(FaultKind.REFUSED, "entered error state")
    port = ScriptedPort(get=[None, found("error")], create=[failed], delete=[None])
    with pytest.raises(ProvisionError):
        run_sync(get_or_create(port, SPEC))
    assert port.asked == ["get", "create", "get", "delete"]
    port = ScriptedPort(get=[None, found("error", labels={})], create=[failed])
    with pytest.raises(ProvisionError):
        run_sync(get_or_create(port, SPEC))
    assert "delete" not in port.asked


TAKEN = PortFault(FaultKind.NAME_TAKEN, "Sandbox with name x already exists")


@pytest.mark.parametrize(
    "answers",
    [
        {"get": [None], "create": [TAKEN]},
        {"get": [found("stopped")], "start": [None]},
        {"get": [found("error", recoverable=True)], "recover": [None], "delete": [None]},
        {"get": [found("error")], "delete": [None]},
    ],
    ids=["a taken name that nobody sees", "stops again", "fails again", "stays although deleted"],
)
def test_a_stuck_state_change_times_out(answers: dict[str, list[Any]]) -> None:
    port = ScriptedPort(**answers)
    with pytest.raises(ProvisionError) as caught:
        run_sync(get_or_create(port, SPEC))
    assert caught.value.retryable or caught.value.code == "create_refused"
    assert WITHIN_S - 10 < port.slept_s <= WITHIN_S


def test_a_start_beyond_the_quota_is_not_waited_for() -> None:
    port = ScriptedPort(
        get=[found("stopped")], start=[PortFault(FaultKind.REFUSED, "Total CPU limit exceeded", status=400)]
    )
    with pytest.raises(ProvisionError) as caught:
        run_sync(get_or_create(port, SPEC))
    assert (caught.value.code, port.slept_s) == ("quota", 0.0)
    assert "could not be started: Total CPU limit exceeded" in caught.value.message


def test_a_stuck_sandbox_is_reported() -> None:
    error = refused(get=[found("stopping")])
    assert (error.code, error.retryable) == ("stuck", True)
    assert "sandboxes release" in error.message
    assert error.context["state"] == "stopping"


@pytest.mark.parametrize(
    "labels", [{}, {**SPEC.labels, "managed-by": "x"}, {**SPEC.labels, "namespace": "y"}]
)
def test_a_foreign_sandbox_is_not_changed(labels: dict[str, str]) -> None:
    error = refused(get=[found("stopped", labels=labels)])
    assert error.code == "name_taken"
    with pytest.raises(ProvisionError, match="its labels differ"):
        run_sync(find(ScriptedPort(get=[found("started", labels=labels)]), SPEC))


def test_a_sandbox_of_another_configuration_is_reported_and_kept() -> None:
    other = {**SPEC.labels, "config-hash": "other"}
    error = refused(get=[found("started", labels=other)])
    assert error.code == "config_changed"
    assert "release" in error.message
    assert run_sync(find(ScriptedPort(get=[found("started", labels=other)]), SPEC)) is not None


def test_a_refusal_is_the_error_of_its_cause() -> None:
    key = refused(get=[PortFault(FaultKind.UNAUTHORIZED, "Invalid credentials")])
    assert key.code == "unauthorized"
    assert "could not be looked up: Invalid credentials" in key.message
    quota = PortFault(FaultKind.REFUSED, "Total CPU limit exceeded", status=400)
    assert refused(get=[None], create=[quota]).code == "quota"
    runner = PortFault(FaultKind.REFUSED, "No available runners", status=400)
    assert refused(get=[None], create=[runner]).code == "no_runner"


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_a_name_is_dns_safe(namespace: str) -> None:
    name = sandbox_name(namespace, "bucket")
    assert len(name) <= 63
    assert name.replace("-", "").isalnum()
    assert name == name.lower()
    assert not name.startswith("-")
    assert name == sandbox_name(namespace, "bucket")
    assert name != sandbox_name(namespace, "other")
    assert name != sandbox_name(namespace)


def test_the_config_hash_covers_immutable_settings_and_no_secret() -> None:
    def hashed(**settings: Any) -> str:
        return config_hash(SandboxConfig.model_validate({"persistent": True, **settings}), "bucket")

    same = [
        {"envVars": {"TOKEN": "secret"}}, {"onCreate": "secret"}, {"permissionMode": "edit"}, {"timeout": 5},
        {"options": {"apiKey": "secret"}}, {"lifecycle": {"idleTimeoutSeconds": 60}},
        {"options": {"labels": {"team": "ml"}}},
    ]  # fmt: skip
    assert {hashed(**settings) for settings in same} == {hashed()}
    different = [
        {"options": {"snapshot": "a"}}, {"options": {"image": "a"}}, {"options": {"target": "eu"}},
        {"options": {"workspaceRoot": "/w"}}, {"network": {"mode": "deny-all"}},
        {"options": {"user": "agent"}}, {"options": {"image": "a", "resources": {"cpu": 2}}},
        {"options": {"image": "a", "resources": {"diskGiB": 2}}},
    ]  # fmt: skip
    assert len({hashed(), *(hashed(**settings) for settings in different)}) == 9


def test_the_specification_follows_the_mode_and_the_prefix_of_s3() -> None:
    def made(**options: Any) -> tuple[str, str]:
        where = {"mountAwsS3Buckets": True, "workspaceBucketName": "agents", "awsRegion": "eu-central-1"}
        keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
        config = SandboxConfig.model_validate(
            {"persistent": True, "envVars": keys, "options": {**where, **options}}
        )
        spec = specification(config, "demo", s3_workspace(config, "demo"), unique="x")
        return spec.name, spec.labels["config-hash"]

    # Sandboxes of the first release are found again.
    assert made() == ("ldw-demo-6833d2f9c2c8", "356fb9b32034")
    assert made(s3Mode="mount", workspacePrefix="sandbox/{namespace}/") == made()
    name, hashed = made(s3Mode="sync")
    assert name == made()[0]
    assert hashed != made()[1]
    # These can change in an existing sandbox.
    assert made(s3Mode="sync", syncIgnore=["a"], syncLimitBytes=5) == (name, hashed)
    # Another prefix has other files.
    assert made(workspacePrefix="{namespace}/")[0] != made()[0]


LABELLED = specification(
    SandboxConfig.model_validate(
        {
            "persistent": True,
            "options": {
                "image": "python:3.12",
                "resources": {"cpu": 2, "diskGiB": 8},
                "user": "agent",
                "labels": {"team": "ml"},
            },
        }
    ),
    "demo",
    None,
    unique="x",
)


def test_size_user_and_labels_are_part_of_the_specification() -> None:
    assert LABELLED.resources == Resources(cpu=2, memory_gib=None, disk_gib=8)
    assert LABELLED.user == "agent"
    assert {name: LABELLED.labels[name] for name in ("team", "namespace")} == {
        "team": "ml",
        "namespace": "demo",
    }
    assert (SPEC.resources, SPEC.user) == (None, None)


def labelled(labels: dict[str, str], *answers: Any) -> ScriptedPort:
    known = found("started", labels={**LABELLED.labels, "team": "other", **labels})
    port = ScriptedPort(get=[known], set_labels=list(answers))
    assert run_sync(get_or_create(port, LABELLED)).info is known
    return port


def test_labels_are_added_to_an_existing_sandbox_and_others_are_kept() -> None:
    port = labelled({"dashboard": "mine"}, None)
    assert port.asked == ["get", "set_labels"]
    assert port.labels == {**LABELLED.labels, "dashboard": "mine"}
    assert labelled({"team": "ml", "more": ""}).asked == ["get"]


def test_labels_that_cannot_be_added_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    labelled({}, PortFault(FaultKind.FORBIDDEN, "Access denied"))
    assert "labels of sandbox" in caplog.text
    assert "Access denied" in caplog.text


def test_lifetimes_are_whole_minutes_rounded_up() -> None:
    def spec(**lifecycle: int) -> Any:
        config = SandboxConfig.model_validate({"persistent": True, "lifecycle": lifecycle})
        return specification(config, "demo", None, unique="x")

    assert (SPEC.auto_stop_minutes, SPEC.auto_delete_minutes) == (15, 7 * 24 * 60)
    assert (SPEC.auto_archive_minutes, SPEC.ttl_minutes) == (0, None)
    short = spec(idleTimeoutSeconds=1, maxLifetimeSeconds=61)
    assert (short.auto_stop_minutes, short.auto_delete_minutes, short.ttl_minutes) == (1, 2, 2)
    assert spec(idleTimeoutSeconds=61).ttl_minutes is None


def test_an_ephemeral_sandbox_has_a_random_name_and_a_lifetime() -> None:
    config = SandboxConfig()
    item, other = (specification(config, "demo", None, unique=unique) for unique in ("a", "b"))
    assert item.name != other.name
    assert (item.auto_delete_minutes, item.ttl_minutes) == (0, 24 * 60)
    assert item.labels["lifetime"] == "ephemeral"


@pytest.mark.parametrize(
    ("network", "options", "rules"),
    [
        (None, {}, None),
        ({"mode": "allow-all"}, {}, NetworkRules(block_all=False)),
        ({"mode": "deny-all"}, {}, NetworkRules(block_all=True)),
        (
            {"mode": "restricted", "allowCidrs": ["10.0.0.0/8", "192.0.2.1"], "allowDomains": ["a.org"]},
            {},
            NetworkRules(block_all=False, allow_cidrs="10.0.0.0/8,192.0.2.1/32"),
        ),
        (
            {"mode": "restricted", "allowDomains": ["a.org", "*.b.org"]},
            {"enforceDomainAllowList": True},
            NetworkRules(block_all=False, allow_domains="a.org,*.b.org"),
        ),
    ],
)
def test_the_network_in_daytonas_terms(
    network: Any, options: dict[str, Any], rules: NetworkRules | None
) -> None:
    config = SandboxConfig.model_validate({"network": network, "options": options})
    assert network_rules(config) == rules


def test_domains_alone_are_not_taken_for_no_restriction() -> None:
    config = SandboxConfig.model_validate({"network": {"mode": "restricted", "allowDomains": ["a.org"]}})
    with pytest.raises(ConfigError, match="enforceDomainAllowList") as caught:
        network_rules(config)
    assert caught.value.code == "nothing_allowed"
