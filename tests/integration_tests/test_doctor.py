"""``doctor``: each check over a real server, and made to fail for real."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from typer.testing import CliRunner

from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._session.diagnosis import account, storage
from langchain_daytona_ws._session.diagnosis import sandbox as sandbox_checks
from langchain_daytona_ws.cli.app import app
from langchain_daytona_ws.local import Fault, LocalDaytona
from langchain_daytona_ws.local.s3 import LocalS3
from tests.integration_tests.conftest import config_for
from tests.integration_tests.s3 import KEYS, ROLE, Bucket, bucket, host_keys, s3_options
from tests.integration_tests.test_cli import PROGRAM, environment
from tests.sample import sample

__all__ = ["bucket", "host_keys"]  # fixtures

ALL = ["configuration", *account.CHECKS, *storage.CHECKS, *sandbox_checks.CHECKS]
OF_S3 = {*storage.CHECKS, "mount-s3", "fuse"}
SECRETS = (KEYS["AWS_SECRET_ACCESS_KEY"], "a-secret-of-the-host", "top-secret-value")


@dataclass(frozen=True)
class Report:
    exit_code: int
    checks: dict[str, dict[str, str]]
    stderr: str

    def status(self, name: str) -> str:
        return self.checks[name]["status"]

    def failed(self) -> list[str]:
        return [name for name in self.checks if self.status(name) == "failed"]

    def message(self, name: str) -> str:
        return self.checks[name]["found"] + " " + self.checks[name]["remedy"]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("DAYTONA_", "AWS_", "SANDBOX_MOUNT_")) or name.endswith("_BUCKET_NAME"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


def invoke(server: LocalDaytona, *arguments: str, **settings: Any) -> Any:
    """Run it over a configuration on standard input; nothing secret is shown, and nothing is left."""
    options = {"apiKey": server.api_key, "apiUrl": server.api_url, **settings.pop("options", {})}
    document = json.dumps({**settings, "options": options})
    result = CliRunner().invoke(
        app, ["doctor", "--config", "-", *arguments], input=document, env={"COLUMNS": "200"}
    )
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for secret in (*SECRETS, options["apiKey"] or "-", server.api_key):
        assert secret not in result.output
    assert "Traceback" not in result.output
    return result


def doctor(server: LocalDaytona, *arguments: str, **settings: Any) -> Report:
    result = invoke(server, "--json", *arguments, **settings)
    document = json.loads(result.stdout)
    assert set(document) == {"ok", "namespace", "checks"}
    for item in document["checks"]:
        assert set(item) == {"check", "status", "found", "remedy", "code"}
    checks: dict[str, dict[str, str]] = {}
    for item in document["checks"]:
        checks.setdefault(item["check"], item)  # other warnings of an area follow
    report = Report(result.exit_code, checks, result.stderr)
    assert document["ok"] == (report.failed() == []) == (result.exit_code == 0)
    return report


class Checked:
    """One namespace of a bucket on S3, and the diagnosis of it."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.server = bucket.server

    def keys(self, *arguments: str, **options: Any) -> Report:
        return self._doctor(arguments, options, envVars={**KEYS, "MINE": "top-secret-value"})

    def role(self, *arguments: str, **options: Any) -> Report:
        by = {"mountRoleArn": ROLE, "stsEndpoint": self.server.s3_endpoint}
        return self._doctor(arguments, {**by, **options})

    def _doctor(self, arguments: tuple[str, ...], options: dict[str, Any], **settings: Any) -> Report:
        where = s3_options(self.server, self.bucket.name, **options)
        report = doctor(
            self.server, "--namespace", self.bucket.namespace, *arguments, options=where, **settings
        )
        assert self.server.sandboxes == []
        return report


@pytest.fixture
def checked(bucket: Bucket) -> Iterator[Checked]:
    bucket.put("mine.txt", b"mine")
    yield Checked(bucket)
    bucket.server.s3.deny = ()
    bucket.server.s3.accept_renames = False
    assert bucket.paths() == ["mine.txt"]


class TestAllIsWell:
    def test_without_s3(self, server: LocalDaytona) -> None:
        report = doctor(server)
        assert (report.exit_code, report.failed()) == (0, [])
        assert list(report.checks) == ALL
        for name in ALL:
            expected = "skipped" if name in (*OF_S3, "snapshot", "persistent", "sync") else "ok"
            assert report.status(name) == expected, report.checks[name]
        assert server.sandboxes == []
        assert server.count("create") == 1

    @pytest.mark.usefixtures("host_keys")
    def test_with_a_role(self, checked: Checked) -> None:
        report = checked.role(snapshot="fuse-s3")
        assert (report.exit_code, report.failed()) == (0, [])
        expected = dict.fromkeys(ALL, "ok") | {
            "persistent": "skipped", "s3-skills": "skipped", "sync": "skipped", "user": "warning",
        }  # fmt: skip
        assert {name: report.status(name) for name in report.checks} == expected
        assert "read from S3" in report.message("workspace")
        assert "60 min" in report.message("s3-credentials") or "59 min" in report.message("s3-credentials")
        for message in ("prevents accidents only", "session policy", "expiry", "--user"):
            assert message in report.message("user")

    @pytest.mark.usefixtures("host_keys")
    @pytest.mark.parametrize("prefix", ["{namespace}/", "team-a/{namespace}/files/"])
    @pytest.mark.one_in(2)
    def test_with_another_prefix(self, checked: Checked, prefix: str) -> None:
        report = checked.role(snapshot="fuse-s3", workspacePrefix=prefix)
        assert (report.exit_code, report.failed()) == (0, [])
        where = f"s3://agents/{prefix.replace('{namespace}', checked.bucket.namespace)}"
        assert where in report.message("configuration")
        assert f"{where} in us-east-1 can be listed; it is empty" in report.message("s3-list")
        assert report.status("s3-boundary") == "ok"
        assert "read from S3" in report.message("workspace")

    @pytest.mark.usefixtures("host_keys")
    def test_a_synchronised_workspace_needs_nothing_of_a_mount(self, checked: Checked) -> None:
        checked.server.s3.accept_renames = True
        report = checked.role(s3Mode="sync")
        assert (report.exit_code, report.failed()) == (0, [])
        assert report.status("sync") == "ok"
        for fact in (
            "checks the conditions of writes and deletions",
            "a listing takes",
            "GiB of its disk are free",
        ):
            assert fact in report.message("sync")
        for check in ("snapshot", "s3-new-file", "s3-renames", "mount-s3", "fuse"):
            assert report.status(check) == "skipped"
        assert "synchronised; a file that a command wrote was read from S3" in report.message("workspace")
        assert "options.s3Mode is sync" in report.message("s3-renames")
        assert report.status("s3-write") == report.status("s3-boundary") == "ok"

    @pytest.mark.full
    def test_static_keys_that_reach_more_are_a_warning(self, checked: Checked) -> None:
        report = checked.keys()
        assert report.failed() == []
        assert report.status("s3-boundary") == "warning"
        assert "can be listed" in report.message("s3-boundary")
        assert report.status("snapshot") == "warning"
        assert "s3-snapshot" in report.message("snapshot")

    def test_a_table_for_people(self, server: LocalDaytona) -> None:
        result = invoke(server)
        assert result.exit_code == 0
        for name in ALL:
            assert re.search(rf"^{name} +│ (ok|skipped)", result.stdout, re.MULTILINE), result.stdout

    def test_no_sandbox(self, server: LocalDaytona) -> None:
        report = doctor(server, "--no-sandbox")
        assert report.exit_code == 0
        assert {report.status(name) for name in sandbox_checks.CHECKS} == {"skipped"}
        assert server.count("create") == server.count("execute") == 0

    def test_the_environment_is_the_configuration_when_there_is_no_file(
        self, server: LocalDaytona, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DAYTONA_API_KEY", server.api_key)
        monkeypatch.setenv("DAYTONA_API_URL", server.api_url)
        result = CliRunner().invoke(app, ["doctor", "--no-sandbox"], env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output

    def test_a_persistent_workspaces_own_sandbox_is_left_alone(self, server: LocalDaytona) -> None:
        # A hook that a sandbox of doctor's own would fail over.
        settings = {"persistent": True, "onCreate": "test ! -e /tmp/x && touch /tmp/x"}
        report = doctor(server, **settings)
        assert report.failed() == []
        assert "no sandbox ldw-default-" in report.message("persistent")
        assert (server.count("create"), server.sandboxes) == (1, [])
        with WorkspaceSession(config_for(server, persistent=True), namespace="default") as session:
            session.run("touch /tmp/x")
        [before] = server.sandboxes
        report = doctor(server, **settings)
        assert report.failed() == []
        assert f"{before.name}, which is started" in report.message("persistent")
        assert [(item.id, item.last_activity_at) for item in server.sandboxes] == [
            (before.id, before.last_activity_at)
        ]

    def test_a_persistent_sandbox_of_another_configuration(self, server: LocalDaytona) -> None:
        with WorkspaceSession(config_for(server, persistent=True), namespace="default") as session:
            session.run("true")
        [before] = server.sandboxes
        report = doctor(server, persistent=True, options={"workspaceRoot": "/mnt/elsewhere"})
        assert (report.exit_code, report.failed()) == (1, ["persistent"])
        assert report.checks["persistent"]["code"] == "config_changed"
        assert f"sandboxes release {before.name}" in report.message("persistent")
        assert report.status("workspace") == "ok"
        assert [item.id for item in server.sandboxes] == [before.id]


class TestTheConfiguration:
    @pytest.mark.parametrize(
        ("document", "message"),
        [("{", "is not JSON"), ('{"optoins": {}}', "did you mean options"), ("[]", "object of settings")],
    )
    def test_that_cannot_be_read(self, document: str, message: str) -> None:
        result = CliRunner().invoke(app, ["doctor", "--json", "--config", "-"], input=document)
        report = json.loads(result.stdout)
        assert result.exit_code == 2
        assert message in report["checks"][0]["found"]
        assert [item["check"] for item in report["checks"]] == ALL
        assert {item["status"] for item in report["checks"][1:]} == {"skipped"}

    def test_no_such_file(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["doctor", "--json", "--config", str(tmp_path / "none.json")])
        assert result.exit_code == 2
        assert "cannot be read: No such file" in json.loads(result.stdout)["checks"][0]["found"]

    def test_a_file(self, server: LocalDaytona, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        inner = {"options": {"apiKey": server.api_key, "apiUrl": server.api_url}}
        path.write_text(json.dumps({"name": "mine", "config": inner}))
        result = CliRunner().invoke(app, ["doctor", "--json", "--no-sandbox", "--config", str(path)])
        assert result.exit_code == 0
        assert json.loads(result.stdout)["checks"][0]["found"].startswith("mine; ")

    def test_every_problem_is_named(self) -> None:
        document = json.dumps({"options": {"mountAwsS3Buckets": True}})
        result = CliRunner().invoke(
            app, ["doctor", "--json", "--namespace", "a/b", "--config", "-"], input=document
        )
        assert result.exit_code == 2
        failed = [item for item in json.loads(result.stdout)["checks"] if item["status"] == "failed"]
        assert [item["code"] for item in failed] == ["namespace", "api_key_missing", "bucket_missing"]
        assert {item["check"] for item in failed} == {"configuration"}

    def test_what_the_network_setting_means_for_s3_is_a_warning(self, checked: Checked) -> None:
        options = s3_options(checked.server, checked.bucket.name)
        result = invoke(
            checked.server,
            "--no-sandbox",
            "--json",
            options=options,
            envVars=KEYS,
            network={"mode": "deny-all"},
        )
        assert result.exit_code == 0
        [well, caution] = json.loads(result.stdout)["checks"][:2]
        assert (well["check"], caution["check"]) == ("configuration", "configuration")
        assert (well["status"], caution["status"]) == ("ok", "warning")
        assert checked.server.s3_endpoint in caution["found"]

    @pytest.mark.parametrize("with_sandbox", [True, False])
    def test_invalid_settings_are_reported_without_a_request(
        self, server: LocalDaytona, with_sandbox: bool
    ) -> None:
        network = {"mode": "restricted", "allowDomains": ["example.org"]}
        report = doctor(server, *([] if with_sandbox else ["--no-sandbox"]), network=network)
        assert report.exit_code == 2
        assert report.checks["configuration"]["code"] == "nothing_allowed"
        assert server.requests == []

    def test_an_unknown_option_is_a_wrong_call(self) -> None:
        assert CliRunner().invoke(app, ["doctor", "--no-such"]).exit_code == 2


class TestTheAccount:
    def test_a_wrong_key(self, server: LocalDaytona) -> None:
        report = doctor(server, options={"apiKey": "wrong-key-of-mine"})
        assert (report.exit_code, report.failed()) == (1, ["api"])
        assert report.checks["api"]["code"] == "unauthorized"
        assert "DAYTONA_API_KEY" in report.message("api")
        assert {report.status(name) for name in ("snapshot", *sandbox_checks.CHECKS)} == {"skipped"}

    def test_no_connection(self, server: LocalDaytona) -> None:
        report = doctor(server, options={"apiUrl": "http://127.0.0.1:1/api"})
        assert report.checks["api"]["code"] == "unreachable"
        assert "options.apiUrl" in report.message("api")

    def test_another_organization_is_seen_when_a_sandbox_is_created(self, server: LocalDaytona) -> None:
        report = doctor(server, options={"organizationId": "another"})
        assert report.failed() == ["sandbox"]
        assert report.checks["sandbox"]["code"] == "organization_mismatch"
        assert "checked when a sandbox is created" in report.message("api")
        assert server.sandboxes == []

    def test_another_organization_is_seen_by_the_key(self, server: LocalDaytona) -> None:
        _answer_for_the_key(server)
        report = doctor(server, options={"organizationId": "another"})
        assert report.failed() == ["api"]
        assert report.checks["api"]["code"] == "organization_mismatch"
        assert server.count("create") == 0

    def test_a_key_that_may_not_create_sandboxes(self, server: LocalDaytona) -> None:
        _answer_for_the_key(server, permissions=["write:snapshots", "delete:sandboxes"])
        report = doctor(server)
        assert report.checks["api"]["code"] == "permission_missing"
        assert "write:sandboxes" in report.message("api")
        assert "delete:sandboxes" not in report.message("api")

    def test_a_key_that_ends_soon(self, server: LocalDaytona) -> None:
        _answer_for_the_key(server, expiresAt=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        report = doctor(server, "--no-sandbox")
        assert (report.status("api"), report.exit_code) == ("warning", 0)

    def test_a_key_that_is_well(self, server: LocalDaytona) -> None:
        _answer_for_the_key(server)
        report = doctor(server, "--no-sandbox", options={"organizationId": "ours"})
        assert report.status("api") == "ok"
        assert "organization ours" in report.message("api")

    def test_a_missing_snapshot(self, server: LocalDaytona) -> None:
        report = doctor(server, options={"snapshot": "no-such"})
        assert (report.exit_code, report.failed()) == (1, ["snapshot"])
        assert "spelling" in report.message("snapshot")
        assert server.count("create") == 0

    def test_a_snapshot_that_is_building(self, server: LocalDaytona) -> None:
        server.faults.add(Fault("stuck", path=r"/snapshots$"))
        variables = {
            "DAYTONA_API_URL": server.api_url,
            "DAYTONA_API_KEY": server.api_key,
            "DAYTONA_S3_SNAPSHOT_BASE_IMAGE": "node:22",
            "DAYTONA_S3_SNAPSHOT_NAME": "mine",
        }
        CliRunner().invoke(app, ["s3-snapshot", "--timeout", "1"], env=variables)
        report = doctor(server, options={"snapshot": "mine"})
        assert report.checks["snapshot"]["code"] == "snapshot_not_ready"
        assert "building" in report.message("snapshot")

    def test_an_image_is_not_looked_for(self, server: LocalDaytona) -> None:
        report = doctor(server, "--no-sandbox", options={"image": "node:22"})
        assert report.status("snapshot") == "skipped"


@pytest.mark.usefixtures("host_keys")
class TestCredentials:
    def test_this_machine_has_none(self, checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        report = checked.role()
        assert report.failed() == ["s3-credentials"]
        assert report.checks["s3-credentials"]["code"] == "host_credentials_missing"
        # The rest of the sandbox is still checked.
        assert report.status("workspace") == "skipped"
        assert report.status("mount-s3") == report.status("node") == "ok"

    def test_this_machines_have_expired(self, checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
        given = _assumed(checked.server)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["SecretAccessKey"])
        monkeypatch.setenv("AWS_SESSION_TOKEN", given["SessionToken"])
        checked.server.s3.expire_credentials()
        report = checked.role("--no-sandbox")
        assert report.checks["s3-credentials"]["code"] == "host_credentials_expired"
        assert given["SessionToken"] not in str(report)

    def test_keys_with_an_end_that_nobody_knows(self, checked: Checked) -> None:
        given = {**KEYS, "AWS_SESSION_TOKEN": "a-token-of-the-workspace"}
        options = s3_options(checked.server, checked.bucket.name)
        report = doctor(checked.server, "--no-sandbox", options=options, envVars=given)
        assert report.status("s3-credentials") == "warning"
        assert "a-token-of-the-workspace" not in str(report)

    def test_credentials_that_no_policy_holds_back(self, checked: Checked) -> None:
        """One S3 does not know the other STS's credentials, and allows them everything."""
        with LocalS3() as other:
            report = checked.role(stsEndpoint=other.endpoint)
        assert report.failed() == ["s3-boundary"]
        assert report.checks["s3-boundary"]["code"] == "no_boundary"


class TestTheBucket:
    def test_a_denied_prefix(self, checked: Checked) -> None:
        checked.server.s3.deny = (f"agents/sandbox/{checked.bucket.namespace}/",)
        report = checked.keys()
        assert report.failed() == ["s3-list", "workspace"]
        assert report.checks["s3-list"]["code"] == "s3_denied"
        assert report.checks["workspace"]["code"] == "mount_denied"
        assert "s3:ListBucket" in report.message("s3-list")
        assert report.status("s3-write") == "skipped"
        assert report.status("git") == "ok"

    def test_objects_that_may_not_be_written(self, checked: Checked) -> None:
        checked.server.s3.deny = (f"agents/sandbox/{checked.bucket.namespace}/.langchain",)
        report = checked.keys("--no-sandbox")
        assert report.checks["s3-write"]["code"] == "s3_denied"
        assert "s3:PutObject" in report.message("s3-write")
        assert report.checks["s3-new-file"]["code"] == "listing_too_narrow"
        assert "StringLike" in report.message("s3-new-file")

    def test_the_wrong_region(self, checked: Checked) -> None:
        name = f"region-{checked.bucket.namespace}"
        checked.server.make_bucket(name, region="eu-central-1")
        report = checked.keys("--no-sandbox", workspaceBucketName=name, awsRegion="us-east-1")
        assert report.checks["s3-list"]["code"] == "s3_region"
        assert "eu-central-1" in report.message("s3-list")
        assert "options.awsRegion" in report.message("s3-list")

    def test_no_such_bucket(self, checked: Checked) -> None:
        report = checked.keys("--no-sandbox", workspaceBucketName="no-such-bucket")
        assert report.checks["s3-list"]["code"] == "s3_no_bucket"

    def test_no_connection(self, checked: Checked) -> None:
        report = checked.keys("--no-sandbox", s3Endpoint="http://127.0.0.1:9")
        assert report.checks["s3-clock"]["code"] == "s3_unreachable"
        assert report.checks["s3-list"]["code"] == "s3_unreachable"

    @pytest.mark.full
    def test_a_missing_key_is_forbidden(self, checked: Checked) -> None:
        checked.server.s3.head_403 = True
        report = checked.keys()
        assert report.failed() == ["s3-new-file", "workspace"]
        assert report.checks["s3-new-file"]["code"] == "missing_is_forbidden"
        for message in ("EIO", "s3:ListBucket without a condition", "workspace_file"):
            assert message in report.message("s3-new-file")
        assert "Input/output error" in report.message("workspace")

    @pytest.mark.usefixtures("host_keys")
    def test_a_missing_key_is_forbidden_to_a_role(self, checked: Checked) -> None:
        checked.server.s3.head_403 = True
        report = checked.role("--no-sandbox")
        assert report.failed() == ["s3-new-file"]
        assert "no setting removes it" in report.message("s3-new-file")

    def test_a_store_that_accepts_renames(self, checked: Checked) -> None:
        assert checked.keys("--no-sandbox").status("s3-renames") == "ok"
        checked.server.s3.accept_renames = True
        report = checked.keys()
        assert report.failed() == ["s3-renames"]
        assert report.checks["s3-renames"]["code"] == "renames_lose_files"
        assert (report.status("sandbox"), report.status("workspace")) == ("ok", "skipped")
        for message in ("mv", "os.replace", "empty files", "answer 501"):
            assert message in report.message("s3-renames")

    @pytest.mark.full
    def test_skills(self, checked: Checked) -> None:
        skills = checked.server.make_bucket(f"skills-{checked.bucket.namespace}")
        assert checked.keys("--no-sandbox", skillsBucketName=skills).status("s3-skills") == "warning"
        checked.bucket.client.put_object(Bucket=skills, Key="how/to.md", Body=b"# How")
        report = checked.keys(skillsBucketName=skills)
        assert report.failed() == []
        assert report.status("s3-skills") == "ok"
        checked.server.s3.deny = (f"{skills}/how",)
        report = checked.keys("--no-sandbox", skillsBucketName=skills)
        assert report.failed() == ["s3-skills"]
        report = checked.keys("--no-sandbox", skillsBucketName="no-such-skills")
        assert report.checks["s3-skills"]["code"] == "s3_no_bucket"


class TestClocks:
    @pytest.mark.parametrize(
        ("ahead_s", "status"), [(0, "ok"), (-30, "ok"), (120, "warning"), (-120, "warning"), (600, "failed")]
    )
    def test_s3s(self, server: LocalDaytona, ahead_s: int, status: str) -> None:
        with _s3_with_a_clock(ahead_s) as endpoint:
            options = {"mountAwsS3Buckets": True, "workspaceBucketName": "agents", "s3Endpoint": endpoint}
            report = doctor(server, "--no-sandbox", options=options, envVars=KEYS)
        assert report.status("s3-clock") == status
        if status != "ok":
            assert "NTP" in report.message("s3-clock")
        assert report.checks["s3-list"]["code"] == "s3_denied"

    def test_it_is_asked_unsigned(self, checked: Checked) -> None:
        checked.server.s3.clear_requests()
        checked.keys("--no-sandbox")
        assert checked.server.s3.requests[0].access_key == ""


class TestTheSandbox:
    def test_no_runner(self, server: LocalDaytona) -> None:
        server.faults.add(
            Fault("status", action="create", status=400, body=b'{"message":"Region not found"}')
        )
        report = doctor(server)
        assert report.failed() == ["sandbox"]
        assert report.checks["sandbox"]["code"] == "region_not_found"
        assert {report.status(name) for name in sandbox_checks.CHECKS[1:]} == {"skipped"}

    def test_no_mount_s3(self, server: LocalDaytona) -> None:
        with LocalS3() as s3:
            s3.make_bucket("agents")
            options = {"mountAwsS3Buckets": True, "workspaceBucketName": "agents", "s3Endpoint": s3.endpoint}
            report = doctor(server, options=options, envVars=KEYS)
        assert report.checks["workspace"]["code"] == "mount_no_mount_s3"
        assert report.checks["mount-s3"]["code"] == "missing"
        assert "s3-snapshot" in report.message("mount-s3")
        assert report.status("python") == "ok"
        assert server.sandboxes == []

    def test_that_cannot_be_deleted(self, server: LocalDaytona) -> None:
        server.faults.add(Fault("status", action="delete", status=403, times=None))
        report = doctor(server)
        assert (report.exit_code, report.failed()) == (1, ["cleanup"])
        assert server.sandboxes[0].id in report.message("cleanup")

    def test_that_is_lost_in_between(self, server: LocalDaytona) -> None:
        server.faults.add(Fault("lost", action="execute", skip=1, times=None))
        report = doctor(server)
        assert report.failed() == ["bash"]
        assert server.sandboxes == []

    @pytest.mark.parametrize("number", sample([signal.SIGINT, signal.SIGTERM], signal.SIGINT))
    def test_a_signal_deletes_it(self, server: LocalDaytona, tmp_path: Path, number: signal.Signals) -> None:
        server.faults.add(Fault("latency", action="execute", delay_s=60))
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"options": {"apiKey": server.api_key, "apiUrl": server.api_url}}))
        started = subprocess.Popen(
            [*PROGRAM, "doctor", "--config", str(path)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _until(lambda: server.count("execute") == 1)
        started.send_signal(number)
        output, errors = started.communicate(timeout=180)
        assert started.returncode == 128 + number
        assert "Traceback" not in errors
        assert output == ""
        assert server.sandboxes == []


def _until(happens: Callable[[], bool]) -> None:
    waiting, deadline = threading.Event(), time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline
        waiting.wait(0.05)


def _answer_for_the_key(server: LocalDaytona, **more: Any) -> None:
    reported = {
        "name": "mine", "value": "dtn_***", "createdAt": "2026-01-01T00:00:00Z", "lastUsedAt": None,
        "expiresAt": None, "userId": "me", "organizationId": "ours",
        "permissions": ["write:sandboxes", "delete:sandboxes"], **more,
    }  # fmt: skip
    headers = {"content-type": "application/json"}
    server.faults.add(
        Fault(
            "status",
            path=r"/api-keys/current$",
            status=200,
            headers=headers,
            body=json.dumps(reported).encode(),
        )
    )


def _assumed(server: LocalDaytona) -> dict[str, str]:
    sts = boto3.client(
        "sts",
        endpoint_url=server.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIAFIRST",
        aws_secret_access_key="first",
        config=Config(proxies={}),
    )
    given: dict[str, str] = sts.assume_role(RoleArn=ROLE, RoleSessionName="host")["Credentials"]
    sts.close()
    return given


@contextmanager
def _s3_with_a_clock(ahead_s: int) -> Iterator[str]:
    """Serve an S3 that denies everything, by a clock of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            text = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        do_GET = do_HEAD = answer  # noqa: N815 - the names that the library calls

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + ahead_s, usegmt=True)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.daemon_threads = True
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{serving.server_address[1]}"
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()
