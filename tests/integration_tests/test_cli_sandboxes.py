"""``sandboxes``: which sandboxes are listed, deleted and kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._adapters import inventory
from langchain_daytona_ws._core.sandbox import inventory as core_inventory
from langchain_daytona_ws.cli.app import app
from langchain_daytona_ws.local import Fault, LocalDaytona
from tests.integration_tests.conftest import config_for
from tests.integration_tests.local.mounted import connected

DAY_S = 24 * 3600.0


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DAYTONA_"):
            monkeypatch.delenv(name)


def invoke(server: LocalDaytona, *arguments: str, answer: str | None = None, **variables: str) -> Any:
    account = {"DAYTONA_API_URL": server.api_url, "DAYTONA_API_KEY": server.api_key}
    result = CliRunner().invoke(
        app, ["sandboxes", *arguments], env={"COLUMNS": "250", **account, **variables}, input=answer
    )
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert server.api_key not in result.output
    return result


def reported(server: LocalDaytona, *arguments: str, **variables: str) -> Any:
    result = invoke(server, *arguments, "--json", **variables)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@contextmanager
def working(server: LocalDaytona, *namespaces: str) -> Iterator[list[str]]:
    """Return the ids of running sandboxes of sessions in these namespaces."""
    config = config_for(server, options={"labels": {"team": "ml"}})
    sessions = [WorkspaceSession(config, namespace=namespace) for namespace in namespaces]
    try:
        for session in sessions:
            session.run("true")
        yield [str(session.sandbox_id) for session in sessions]
    finally:
        for session in sessions:
            session.close()


def age(server: LocalDaytona, sandbox_id: str, seconds: float, **more: Any) -> None:
    """Set the time since a sandbox's last use."""
    record = server._active.fleet.get(sandbox_id)
    record.last_activity_at -= seconds
    for name, value in more.items():
        setattr(record, name, value)


def leave(server: LocalDaytona, sandbox_id: str, seconds: float) -> None:
    """Stop a sandbox, and set the time since its last use."""
    age(server, sandbox_id, seconds, auto_stop_interval=0, auto_delete_interval=-1)
    server.stop_sandbox(sandbox_id)


def foreign(server: LocalDaytona) -> str:
    with connected(server) as daytona:
        return str(daytona.create().id)


class TestList:
    def test_none(self, server: LocalDaytona) -> None:
        assert invoke(server, "list").stdout == "There are no sandboxes.\n"
        assert reported(server, "list") == {"sandboxes": []}

    def test_sandboxes_of_all_namespaces_or_one(self, server: LocalDaytona) -> None:
        other = foreign(server)
        with working(server, "one", "two") as (first, second):
            listed = reported(server, "list")["sandboxes"]
            assert [item["id"] for item in listed] == [first, second]
            assert other not in str(listed)
            assert reported(server, "list", "--all-namespaces")["sandboxes"] == listed
            assert [item["id"] for item in reported(server, "list", "--namespace", "two")["sandboxes"]] == [
                second
            ]
            [first_report, _] = listed
            assert first_report["namespace"] == "one"
            assert first_report["state"] == "started"
            assert first_report["lifetime"] == "ephemeral"
            assert first_report["created_at"].endswith("Z")
            assert (first_report["auto_stop_minutes"], first_report["auto_delete_minutes"]) == (15, 0)
            assert (first_report["cpu"], first_report["memory_gib"], first_report["disk_gib"]) == (1, 1, 3)
            assert (first_report["user"], first_report["labels"]) == ("daytona", {"team": "ml"})
            table = invoke(server, "list").stdout
        for message in (
            first_report["name"],
            "one",
            "started",
            "ephemeral",
            "15 min",
            "when stopped",
            "ago",
            "1 CPU, 1+3 GiB",
            "daytona",
            "team=ml",
        ):
            assert message in table

    def test_all_pages(self, server: LocalDaytona, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inventory, "PAGE", 1)
        with working(server, "one", "two", "three") as made:
            assert [item["id"] for item in reported(server, "list")["sandboxes"]] == made
        assert server.count("list") == 3

    def test_both_options_are_a_wrong_call(self, server: LocalDaytona) -> None:
        assert invoke(server, "list", "--all-namespaces", "--namespace", "n").exit_code == 2

    def test_a_wrong_key(self, server: LocalDaytona) -> None:
        result = invoke(server, "list", DAYTONA_API_KEY="wrong-key-of-mine")
        assert result.exit_code == 1
        assert "DAYTONA_API_KEY" in result.stderr
        assert "wrong-key-of-mine" not in result.stderr
        assert "Traceback" not in result.output

    def test_no_key(self, server: LocalDaytona) -> None:
        assert invoke(server, "list", DAYTONA_API_KEY="").exit_code == 2


class TestRelease:
    @pytest.mark.parametrize("by", ["name", "id"])
    def test_one_and_only_that(self, server: LocalDaytona, by: str) -> None:
        with working(server, "one", "two"):
            [first, second] = reported(server, "list")["sandboxes"]
            result = invoke(server, "release", first[by])
            assert (result.exit_code, result.stdout) == (0, f"Deleted {first['name']}.\n")
            assert [item.id for item in server.sandboxes] == [second["id"]]
            assert reported(server, "release", second["id"]) == {"released": second}
        assert server.sandboxes == []

    def test_an_unknown_name(self, server: LocalDaytona) -> None:
        result = invoke(server, "release", "no-such")
        assert result.exit_code == 1
        assert "no sandbox no-such" in result.stderr

    def test_a_foreign_sandbox_is_refused(self, server: LocalDaytona) -> None:
        other = foreign(server)
        result = invoke(server, "release", other)
        assert result.exit_code == 1
        assert "not made by this library" in result.stderr
        assert [item.id for item in server.sandboxes] == [other]

    def test_a_state_change_is_waited_for(self, server: LocalDaytona) -> None:
        with working(server, "one") as [sandbox]:
            server.faults.add(Fault("status", action="delete", status=409, times=2))
            assert invoke(server, "release", sandbox).exit_code == 0
            assert server.sandboxes == []

    def test_it_returns_when_it_is_gone(self, server: LocalDaytona) -> None:
        with working(server, "one") as [sandbox]:
            server.faults.add(Fault("pending", action="delete", delay_s=1.5))
            assert invoke(server, "release", sandbox).exit_code == 0
            assert server.sandboxes == []

    def test_a_sandbox_that_cannot_be_deleted(
        self, server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(core_inventory, "DELETE_WITHIN_S", 1.0)
        with working(server, "one") as [sandbox]:
            server.faults.add(Fault("stuck", action="delete"))
            result = invoke(server, "release", sandbox)
            assert result.exit_code == 1
            assert "it is destroying" in result.stderr
            server.destroy_sandbox(sandbox)


class TestPrune:
    def test_unused_sandboxes_are_pruned(self, server: LocalDaytona) -> None:
        other = foreign(server)
        age(server, other, 30 * DAY_S, auto_stop_interval=0)
        with working(server, "old", "new", "older") as (old, new, older):
            leave(server, old, 8 * DAY_S)
            leave(server, older, 9 * DAY_S)
            leave(server, new, 6 * DAY_S)
            dry = reported(server, "prune", "--older-than", "7d", "--dry-run")
            assert [item["id"] for item in dry["would_delete"]] == [old, older]
            assert len(server.sandboxes) == 4
            pruned = reported(server, "prune", "--older-than", "7d", "--yes")
            assert [item["id"] for item in pruned["deleted"]] == [old, older]
            assert pruned["failed"] == []
            assert sorted(item.id for item in server.sandboxes) == sorted([other, new])
            assert reported(server, "prune", "--older-than", "7d", "--yes") == {"deleted": [], "failed": []}

    def test_a_running_sandbox_is_kept_until_its_auto_stop(self, server: LocalDaytona) -> None:
        with working(server, "job") as [sandbox]:
            # As a background job of up to six hours leaves it.
            age(server, sandbox, 3 * 3600, auto_stop_interval=6 * 60)
            assert reported(server, "prune", "--older-than", "1h", "--dry-run") == {"would_delete": []}

    def test_a_running_sandbox_without_auto_stop_is_kept_and_named(self, server: LocalDaytona) -> None:
        with working(server, "old", "new") as (old, new):
            age(server, old, 30 * DAY_S, auto_stop_interval=0)
            age(server, new, 6 * DAY_S, auto_stop_interval=0)
            name = server.sandboxes[0].name
            result = invoke(server, "prune", "--older-than", "7d", "--yes")
            assert (result.exit_code, result.stdout) == (0, "There are no sandboxes.\n")
            assert f"may be in use: {name}. Each" in result.stderr
            assert len(server.sandboxes) == 2

    def test_of_one_namespace(self, server: LocalDaytona) -> None:
        with working(server, "one", "two") as (first, second):
            for sandbox in (first, second):
                leave(server, sandbox, 8 * DAY_S)
            pruned = reported(server, "prune", "--older-than", "7d", "--namespace", "two", "--yes")
            assert [item["id"] for item in pruned["deleted"]] == [second]

    @pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("", 1)])
    def test_it_asks(self, server: LocalDaytona, answer: str, left: int) -> None:
        with working(server, "one") as [sandbox]:
            leave(server, sandbox, 8 * DAY_S)
            result = invoke(server, "prune", "--older-than", "7d", answer=answer)
            assert "Delete 1?" in result.stderr
            assert (result.exit_code == 0) == (left == 0)
            assert len(server.sandboxes) == left

    def test_a_sandbox_that_is_used_meanwhile_is_kept(
        self, server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with working(server, "one") as [sandbox]:
            leave(server, sandbox, 8 * DAY_S)

            def use(*_: object, **__: object) -> bool:
                age(server, sandbox, -8 * DAY_S)
                return True

            monkeypatch.setattr("typer.confirm", use)
            result = invoke(server, "prune", "--older-than", "7d")
            assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "Deleted 0 of 1.")
            assert len(server.sandboxes) == 1

    def test_failed_deletions_are_reported(self, server: LocalDaytona) -> None:
        with working(server, "one", "two") as (first, second):
            for sandbox in (first, second):
                leave(server, sandbox, 8 * DAY_S)
            server.faults.add(Fault("status", action="delete", status=403))
            result = invoke(server, "prune", "--older-than", "7d", "--yes", "--json")
            assert result.exit_code == 1
            pruned = json.loads(result.stdout)
            assert [item["id"] for item in pruned["failed"]] == [first]
            assert [item["id"] for item in pruned["deleted"]] == [second]
            assert first in result.stderr

    @pytest.mark.parametrize(
        "arguments",
        [("--older-than", "week"), ("--older-than", "7"), (), ("--older-than", "1d", "--json")],
    )
    def test_wrong_calls(self, server: LocalDaytona, arguments: tuple[str, ...]) -> None:
        assert invoke(server, "prune", *arguments).exit_code == 2
        assert server.requests == []
