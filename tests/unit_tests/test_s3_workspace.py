"""The S3 workspace that a configuration asks for, and what is refused for want of something."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._core.s3.workspace import Mount, MountRole, S3Workspace, s3_workspace
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import ConfigError

SECRET = "s3cr3t/t0p+key"
ROLE = "arn:aws:iam::123456789012:role/sandbox-s3mount"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
BUCKET = {"mountAwsS3Buckets": True, "workspaceBucketName": "agents", "awsRegion": "eu-central-1"}


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, socket_disabled: None) -> None:
    for variable in (
        "FILESYSTEM_BUCKET_NAME",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "SKILLS_BUCKET_NAME",
        "SANDBOX_MOUNT_ROLE_ARN",
        "SANDBOX_MOUNT_ROLE_EXTERNAL_ID",
        "SANDBOX_MOUNT_STS_REGION",
    ):
        monkeypatch.delenv(variable, raising=False)


def settled(options: dict[str, Any], env_vars: dict[str, str] | None = None) -> S3Workspace | None:
    config = SandboxConfig.model_validate({"options": options, "envVars": env_vars or {}})
    return s3_workspace(config, "demo")


def made(options: dict[str, Any], env_vars: dict[str, str] | None = None) -> S3Workspace:
    workspace = settled(options, env_vars)
    assert workspace is not None
    return workspace


def refused(options: dict[str, Any], env_vars: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        settled(options, env_vars)
    error = caught.value
    frames = [
        frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename != __file__
    ]
    assert frames
    assert SECRET not in f"{error}{error!r}{vars(error)}{[frame.f_locals for frame in frames]}"
    assert "agents" not in error.for_model
    return error


def test_a_configuration_without_s3_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILESYSTEM_BUCKET_NAME", "agents")
    monkeypatch.setenv("SANDBOX_MOUNT_ROLE_ARN", ROLE)
    assert settled({}) is None
    assert settled({"mountAwsS3Buckets": False, "workspaceBucketName": "agents"}, KEYS) is None


def test_a_workspace_of_a_role() -> None:
    workspace = made({**BUCKET, "mountRoleArn": ROLE}, KEYS)
    assert workspace == S3Workspace(
        region="eu-central-1",
        endpoint=None,
        workspace=Mount("agents", "sandbox/demo/", "/mnt/workspaces/demo"),
        skills=None,
        kms_key_arn=None,
        role=MountRole(ROLE, None, "eu-central-1", None),
        keys=None,
    )
    assert workspace.mounts == (workspace.workspace,)


def test_a_workspace_with_everything() -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd"
    workspace = made(
        {
            **BUCKET,
            "workspaceRoot": "/srv/work/",
            "s3Endpoint": "https://s3.example.com/",
            "skillsBucketName": "skills",
            "skillsMountPath": "/opt/skills",
            "mountRoleArn": ROLE,
            "mountRoleExternalId": "partner",
            "stsRegion": "eu-west-1",
            "stsEndpoint": "https://sts.example.com",
            "kmsKeyArn": key,
        }
    )
    assert workspace.endpoint == "https://s3.example.com"
    assert workspace.mounts == (
        Mount("agents", "sandbox/demo/", "/srv/work/demo"),
        Mount("skills", "", "/opt/skills", read_only=True),
    )
    assert workspace.role == MountRole(ROLE, "partner", "eu-west-1", "https://sts.example.com")
    assert workspace.kms_key_arn == key


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("{namespace}/", "demo/"),
        ("team=a/{namespace}/files/", "team=a/demo/files/"),
        ("demo/{namespace}/", "demo/demo/"),
    ],
)
def test_the_prefix_follows_the_configuration(given: str, prefix: str) -> None:
    workspace = made({**BUCKET, "workspacePrefix": given}, KEYS)
    assert workspace.workspace == Mount("agents", prefix, "/mnt/workspaces/demo")


def test_a_workspace_that_is_synchronised() -> None:
    workspace = made({**BUCKET, "s3Mode": "sync", "syncIgnore": ["*.o"], "syncLimitBytes": 5}, KEYS)
    assert (workspace.mode, workspace.sync_ignore, workspace.sync_limit_bytes) == ("sync", ("*.o",), 5)
    default = made(BUCKET, KEYS)
    assert (default.mode, default.sync_ignore, default.sync_limit_bytes) == ("mount", (), None)


def test_a_workspace_of_given_keys_does_not_show_them() -> None:
    workspace = made(BUCKET, {**KEYS, "AWS_SESSION_TOKEN": f"token-{SECRET}"})
    assert workspace.role is None
    assert workspace.keys == Credentials("AKIAEXAMPLE", SECRET, f"token-{SECRET}", None)
    assert SECRET not in f"{workspace!r}{workspace.keys!r}"
    without = made(BUCKET, {**KEYS, "AWS_SESSION_TOKEN": ""})
    assert without.keys == Credentials("AKIAEXAMPLE", SECRET)


def test_all_of_it_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILESYSTEM_BUCKET_NAME", "agents")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("SKILLS_BUCKET_NAME", "skills")
    monkeypatch.setenv("SANDBOX_MOUNT_ROLE_ARN", ROLE)
    monkeypatch.setenv("SANDBOX_MOUNT_STS_REGION", "eu-west-1")
    workspace = made({"mountAwsS3Buckets": True})
    assert workspace == made(
        {**BUCKET, "skillsBucketName": "skills", "mountRoleArn": ROLE, "stsRegion": "eu-west-1"}
    )


def test_only_an_endpoint_stands_in_for_a_region() -> None:
    somewhere = {"mountAwsS3Buckets": True, "workspaceBucketName": "agents"}
    assert made({**somewhere, "s3Endpoint": "http://minio:9000"}, KEYS).region == "us-east-1"
    assert made({**BUCKET, "s3Endpoint": "http://minio:9000"}, KEYS).region == "eu-central-1"
    error = refused(somewhere, KEYS)
    assert error.code == "region_missing"
    for remedy in ("options.awsRegion", "AWS_REGION", "AWS_DEFAULT_REGION"):
        assert remedy in str(error)


def test_no_bucket() -> None:
    error = refused({"mountAwsS3Buckets": True, "awsRegion": "eu-central-1"}, KEYS)
    assert error.code == "bucket_missing"
    assert error.context["paths"] == ["options.workspaceBucketName"]
    assert "set options.workspaceBucketName" in str(error)
    assert "FILESYSTEM_BUCKET_NAME" in str(error)


@pytest.mark.parametrize(
    "env_vars",
    [
        {},
        {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"},
        {"AWS_SECRET_ACCESS_KEY": SECRET},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": SECRET},
    ],
)
def test_missing_credentials_are_an_error(env_vars: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # This machine's own keys are no substitute.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHOST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    error = refused(BUCKET, env_vars)
    assert error.code == "credentials_missing"
    for remedy in (
        "options.mountRoleArn",
        "SANDBOX_MOUNT_ROLE_ARN",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "in envVars",
    ):
        assert remedy in str(error)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("bad", [f"{SECRET}\n", f"{SECRET} x", f"{SECRET}\x7f", f"{SECRET}é"])
def test_a_key_that_no_request_could_carry_is_named_and_not_shown(name: str, bad: str) -> None:
    error = refused(BUCKET, {**KEYS, name: bad})
    assert error.code == "credentials_malformed"
    assert error.context["paths"] == [f"envVars.{name}"]
    assert made({**BUCKET, "mountRoleArn": ROLE}, {name: bad}).keys is None


def test_skills_in_the_bucket_of_the_workspaces_would_show_all_of_them() -> None:
    error = refused({**BUCKET, "skillsBucketName": "agents"}, KEYS)
    assert error.code == "skills_bucket"
    assert "every workspace could read all workspaces" in str(error)
    assert "SKILLS_BUCKET_NAME" in str(error)


@pytest.mark.parametrize("namespace", ["", "..", "a/b", "*", "a?", "${aws:userid}", "a\n"])
def test_an_invalid_namespace_has_no_prefix(namespace: str) -> None:
    config = SandboxConfig.model_validate({"options": BUCKET, "envVars": KEYS})
    with pytest.raises(ConfigError, match=r"^namespace: "):
        s3_workspace(config, namespace)
