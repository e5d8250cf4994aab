"""The configuration: what it takes, what it refuses and in which words, and that no secret gets out."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from langchain_daytona_ws.config import (
    LifecycleConfig,
    NetworkConfig,
    SandboxConfig,
    SandboxOptions,
    SandboxResources,
    validate_namespace,
)
from langchain_daytona_ws.errors import ConfigError

SECRET = "dtn_s3cr3t-t0p"
VARIABLES = (
    "DAYTONA_API_KEY",
    "DAYTONA_ORGANIZATION_ID",
    "DAYTONA_API_URL",
    "DAYTONA_TARGET",
    "FILESYSTEM_BUCKET_NAME",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "SKILLS_BUCKET_NAME",
    "SANDBOX_MOUNT_ROLE_ARN",
    "SANDBOX_MOUNT_ROLE_EXTERNAL_ID",
    "SANDBOX_MOUNT_STS_REGION",
)
ROLE = "arn:aws:iam::123456789012:role/sandbox-s3mount"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, socket_disabled: None) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def everything_shown(error: BaseException) -> str:
    """All that a log, a traceback or a pickle of the error could show."""
    assert error.__cause__ is None
    assert error.__context__ is None
    facts = repr(vars(error)) + repr(pickle.dumps(error))
    return f"{error}{error!r}{''.join(traceback.format_exception(error))}{facts}"


def refused(document: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        SandboxConfig.model_validate(document)
    assert type(caught.value) is ConfigError
    assert caught.value.op == "validate"
    assert SECRET not in everything_shown(caught.value)
    return caught.value


# --- what it takes ---------------------------------------------------------------------------------------


def test_defaults() -> None:
    config = SandboxConfig()
    assert config.model_dump() == {
        "name": None,
        "provider": "daytona",
        "permission_mode": "ask",
        "env_vars": {},
        "timeout_s": 120,
        "on_timeout": "kill",
        "output_limit_bytes": 65_536,
        "network": None,
        "persistent": False,
        "lifecycle": None,
        "on_create": None,
        "on_resume": None,
        "options": {
            "api_key": None,
            "organization_id": None,
            "api_url": "https://app.daytona.io/api",
            "target": None,
            "snapshot": None,
            "image": None,
            "resources": None,
            "user": None,
            "labels": {},
            "workspace_root": "/mnt/workspaces",
            "mount_aws_s3_buckets": False,
            "s3_mode": "mount",
            "sync_ignore": (),
            "sync_limit_bytes": None,
            "workspace_prefix": "sandbox/{namespace}/",
            "workspace_bucket_name": None,
            "aws_region": None,
            "s3_endpoint": None,
            "skills_bucket_name": None,
            "skills_mount_path": "/mnt/skills",
            "file_access": "s3",
            "mount_role_arn": None,
            "mount_role_external_id": None,
            "sts_region": None,
            "sts_endpoint": None,
            "enforce_domain_allow_list": False,
            "kms_key_arn": None,
        },
    }
    assert LifecycleConfig().idle_timeout_seconds == 900
    assert LifecycleConfig().max_lifetime_seconds == 7 * 24 * 3600


CAMEL: dict[str, Any] = {
    "provider": "daytona",
    "permissionMode": "edit",
    "envVars": {"A": "1", "_b2": ""},
    "timeout": 60,
    "onTimeout": "background",
    "outputLimitBytes": 2048,
    "network": {"mode": "restricted", "allowCidrs": ["203.0.113.0/24"], "allowDomains": ["*.Example.com"]},
    "persistent": True,
    "lifecycle": {"idleTimeoutSeconds": 60, "maxLifetimeSeconds": 3600},
    "onCreate": "pip install x",
    "onResume": ["a", "b"],
    "options": {
        "apiKey": SECRET,
        "organizationId": "org",
        "apiUrl": "https://daytona.example.com/api/",
        "target": "eu",
        "image": "python:3.12",
        "resources": {"cpu": 2, "memoryGiB": 4, "diskGiB": 10},
        "user": "agent",
        "labels": {"team": "ml", "cost/centre": ""},
        "workspaceRoot": "/srv//work/./x/",
        "mountAwsS3Buckets": True,
        "s3Mode": "sync",
        "syncIgnore": ["node_modules/", "!a b"],
        "syncLimitBytes": 2**31,
        "workspacePrefix": "team-a/{namespace}/files/",
        "workspaceBucketName": "my-bucket",
        "awsRegion": "eu-central-1",
        "s3Endpoint": "http://minio.internal:9000/",
        "skillsBucketName": "skills.bucket",
        "skillsMountPath": "/mnt/skills",
        "fileAccess": "sandbox",
        "mountRoleArn": ROLE,
        "mountRoleExternalId": "partner-1",
        "stsRegion": "eu-west-1",
        "stsEndpoint": "http://127.0.0.1:9001/",
        "kmsKeyArn": KEY,
    },
}
SNAKE: dict[str, Any] = {
    "provider": "daytona",
    "permission_mode": "edit",
    "env_vars": {"A": "1", "_b2": ""},
    "timeout_s": 60,
    "on_timeout": "background",
    "output_limit_bytes": 2048,
    "network": {"mode": "restricted", "allow_cidrs": ["203.0.113.0/24"], "allow_domains": ["*.Example.com"]},
    "persistent": True,
    "lifecycle": {"idle_timeout_seconds": 60, "max_lifetime_seconds": 3600},
    "on_create": "pip install x",
    "on_resume": ["a", "b"],
    "options": {
        "api_key": SECRET,
        "organization_id": "org",
        "api_url": "https://daytona.example.com/api/",
        "target": "eu",
        "image": "python:3.12",
        "resources": {"cpu": 2, "memory_gib": 4, "disk_gib": 10},
        "user": "agent",
        "labels": {"team": "ml", "cost/centre": ""},
        "workspace_root": "/srv//work/./x/",
        "mount_aws_s3_buckets": True,
        "s3_mode": "sync",
        "sync_ignore": ("node_modules/", "!a b"),
        "sync_limit_bytes": 2**31,
        "workspace_prefix": "team-a/{namespace}/files/",
        "workspace_bucket_name": "my-bucket",
        "aws_region": "eu-central-1",
        "s3_endpoint": "http://minio.internal:9000/",
        "skills_bucket_name": "skills.bucket",
        "skills_mount_path": "/mnt/skills",
        "file_access": "sandbox",
        "mount_role_arn": ROLE,
        "mount_role_external_id": "partner-1",
        "sts_region": "eu-west-1",
        "sts_endpoint": "http://127.0.0.1:9001/",
        "kms_key_arn": KEY,
    },
}


def test_both_spellings_the_envelope_json_and_keywords_say_the_same() -> None:
    config = SandboxConfig.model_validate(CAMEL)
    assert SandboxConfig.model_validate(SNAKE) == config
    assert SandboxConfig(**SNAKE) == config
    assert SandboxConfig(**CAMEL) == config
    assert SandboxConfig.model_validate_json(json.dumps(CAMEL)) == config
    assert SandboxConfig.model_validate_json(json.dumps({"config": SNAKE}).encode()) == config
    assert SandboxConfig.model_validate({"config": CAMEL}) == config
    assert SandboxConfig.model_validate(config) is config
    named = SandboxConfig.model_validate({"name": "daytona", "config": CAMEL})
    assert named.name == "daytona"
    assert named.model_copy(update={"name": None}) == config


def test_values_are_normalised() -> None:
    config = SandboxConfig.model_validate(CAMEL)
    assert config.options.api_url == "https://daytona.example.com/api"
    assert config.options.s3_endpoint == "http://minio.internal:9000"
    assert config.options.sts_endpoint == "http://127.0.0.1:9001"
    assert config.options.workspace_root == "/srv/work/x"
    assert config.on_create == ("pip install x",)
    assert config.on_resume == ("a", "b")
    assert config.network is not None
    assert config.network.allow_domains == ("*.example.com",)
    assert NetworkConfig(mode="restricted", allow_cidrs=("198.51.100.7",)).allow_cidrs == ("198.51.100.7/32",)
    assert SandboxConfig(timeout_s=60.0).timeout_s == 60
    assert isinstance(SandboxConfig(timeout_s=60.0).timeout_s, int)


def test_null_means_not_given() -> None:
    config = SandboxConfig.model_validate({"network": None, "lifecycle": None, "options": {"target": None}})
    assert config == SandboxConfig()


def test_is_frozen() -> None:
    config = SandboxConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.timeout_s = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("api_url", "kept"),
    [
        ("http://localhost:3000/api", "http://localhost:3000/api"),
        ("HTTP://LOCALHOST/api", "HTTP://LOCALHOST/api"),
        ("http://127.9.8.7:1", "http://127.9.8.7:1"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("https://10.0.0.1/api", "https://10.0.0.1/api"),
    ],
)
def test_api_urls_that_are_taken(api_url: str, kept: str) -> None:
    assert SandboxOptions(api_url=api_url).api_url == kept


# --- the environment -------------------------------------------------------------------------------------


def test_missing_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_API_KEY", SECRET)
    monkeypatch.setenv("DAYTONA_ORGANIZATION_ID", "org-env")
    monkeypatch.setenv("DAYTONA_API_URL", "http://127.0.0.1:3986/api")
    monkeypatch.setenv("DAYTONA_TARGET", "eu")
    made = (
        SandboxConfig.from_env(),
        SandboxConfig(),
        SandboxConfig.model_validate({"name": "x", "config": {}}),
    )
    for config in made:
        assert config.require_api_key().get_secret_value() == SECRET
        assert config.options.organization_id == "org-env"
        assert config.options.api_url == "http://127.0.0.1:3986/api"
        assert config.options.target == "eu"
    explicit = SandboxConfig.model_validate(CAMEL).options
    assert (explicit.organization_id, explicit.target) == ("org", "eu")
    assert SandboxOptions(api_key="mine", target=None).api_key == SecretStr("mine")
    assert SandboxOptions(target=None).target == "eu"


def test_the_workspaces_place_in_s3_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILESYSTEM_BUCKET_NAME", "bucket-env")
    monkeypatch.setenv("SKILLS_BUCKET_NAME", "skills-env")
    monkeypatch.setenv("SANDBOX_MOUNT_ROLE_ARN", ROLE)
    monkeypatch.setenv("SANDBOX_MOUNT_ROLE_EXTERNAL_ID", "partner-env")
    monkeypatch.setenv("SANDBOX_MOUNT_STS_REGION", "us-west-2")
    for options in (SandboxConfig.from_env().options, SandboxOptions()):
        assert options.workspace_bucket_name == "bucket-env"
        assert options.skills_bucket_name == "skills-env"
        assert options.mount_role_arn == ROLE
        assert options.mount_role_external_id == "partner-env"
        assert options.sts_region == "us-west-2"
        assert not options.mount_aws_s3_buckets
    given = SandboxConfig.model_validate(CAMEL).options
    assert (given.workspace_bucket_name, given.skills_bucket_name) == ("my-bucket", "skills.bucket")
    assert (given.mount_role_external_id, given.sts_region) == ("partner-1", "eu-west-1")


@pytest.mark.parametrize(
    ("first", "second", "region"),
    [
        ("eu-west-1", "us-east-2", "eu-west-1"),
        (None, "us-east-2", "us-east-2"),
        ("", "us-east-2", "us-east-2"),
        ("eu-west-1", None, "eu-west-1"),
        ("", "", None),
    ],
)
def test_the_region_comes_from_the_first_of_two_variables_that_is_set(
    monkeypatch: pytest.MonkeyPatch, first: str | None, second: str | None, region: str | None
) -> None:
    for variable, value in (("AWS_REGION", first), ("AWS_DEFAULT_REGION", second)):
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert SandboxOptions().aws_region == region
    assert SandboxOptions(aws_region="ap-south-1").aws_region == "ap-south-1"


def test_the_invalid_one_of_two_variables_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu central")
    assert str(refused({})) == (
        "SandboxConfig: options.awsRegion: is not a region; example: eu-central-1; it comes from the "
        "environment variable AWS_DEFAULT_REGION: correct or unset that, or set options.awsRegion"
    )
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert SandboxConfig().options.aws_region == "eu-central-1"
    assert "environment variable AWS_REGION or AWS_DEFAULT_REGION" in str(
        refused({"options": {"awsRegion": ""}})
    )


def test_skills_overlap_the_workspaces_only_where_both_are_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKILLS_BUCKET_NAME", "skills-env")
    for root in ("/mnt", "/mnt/skills", "/mnt/skills/x", "//mnt/skills"):
        without = SandboxConfig.model_validate({"options": {"workspaceRoot": root}})
        assert without.options.workspace_root == root.replace("//", "/")
        assert SandboxConfig.model_validate(without.model_dump(by_alias=True)) == without
        mounted = {"workspaceRoot": root, "mountAwsS3Buckets": True}
        assert refused({"options": mounted}).context["paths"] == ["options.skillsMountPath"]
        SandboxOptions.model_validate({**mounted, "skillsMountPath": "/opt/skills"})
    monkeypatch.delenv("SKILLS_BUCKET_NAME")
    SandboxOptions.model_validate({"workspaceRoot": "/mnt", "mountAwsS3Buckets": True})


def test_environment_is_read_at_validation_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_TARGET", "eu")
    config = SandboxConfig()
    monkeypatch.setenv("DAYTONA_TARGET", "us")
    assert config.options.target == "eu"
    assert SandboxConfig().options.target == "us"


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    assert SandboxConfig().options == SandboxOptions()
    assert SandboxConfig().options.api_url == "https://app.daytona.io/api"


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_API_URL", f"http://user:{SECRET}@daytona.example.com")
    monkeypatch.setenv("DAYTONA_API_KEY", f"{SECRET}\n")
    message = str(refused({"config": {}}))
    assert "config.options.apiUrl: must not contain a user name or password" in message
    assert (
        "environment variable DAYTONA_API_URL: correct or unset that, or set config.options.apiUrl" in message
    )
    assert "config.options.apiKey: contains white space" in message
    assert "environment variable DAYTONA_API_KEY: correct or unset that" in message


def test_a_missing_api_key_is_an_error_when_it_is_needed() -> None:
    config = SandboxConfig()
    with pytest.raises(ConfigError) as caught:
        config.require_api_key()
    assert "set options.apiKey" in str(caught.value)
    assert "environment variable DAYTONA_API_KEY" in str(caught.value)
    assert caught.value.code == "api_key_missing"
    assert "DAYTONA" not in caught.value.for_model


# --- what it refuses, and in which words -----------------------------------------------------------------

SYNC = {"mountAwsS3Buckets": True, "s3Mode": "sync"}
WITH_SECRETS = {"envVars": {"TOKEN": SECRET}, "options": {"apiKey": SECRET}}

REFUSALS: list[tuple[Any, str, str]] = [
    # keys
    ({"options": {"snapshto": "x"}}, "options.snapshto", "did you mean options.snapshot?"),
    (
        {"config": {"options": {"snapshto": "x"}}},
        "config.options.snapshto",
        "did you mean config.options.snapshot?",
    ),
    ({"snapshot": "x"}, "snapshot", "did you mean options.snapshot?"),
    ({"options": {"permissionMode": "ask"}}, "options.permissionMode", "did you mean permissionMode?"),
    ({"PermissionMode": "ask"}, "PermissionMode", "did you mean permissionMode?"),
    ({"env": {}}, "env", "known keys here: name, provider, permissionMode, envVars"),
    ({"time_out": 5}, "time_out", "did you mean timeout?"),
    (
        {"persistent": True, "lifecycle": {"idleTimeout": 5}},
        "lifecycle.idleTimeout",
        "did you mean lifecycle.idleTimeoutSeconds?",
    ),
    (
        {"network": {"mode": "deny-all", "allowCIDR": []}},
        "network.allowCIDR",
        "did you mean network.allowCidrs?",
    ),
    ({3: 4}, "3", "known keys here:"),
    ({"x\ny" * 40: 1}, "x\\ny", "unknown key"),
    ({"timeout": 5, "timeout_s": 5}, "timeout", 'occurs twice, as "timeout" and as "timeout_s"; keep one'),
    ({"options": {"apiKey": SECRET, "api_key": SECRET}}, "options.apiKey", "keep one"),
    ({"name": "x", "timeout": 5, "config": {}}, "timeout", "did you mean config.timeout?"),
    ({"description": "x", "config": {}}, "description", 'the keys of an envelope are "name" and "config"'),
    ({"name": "x", "config": {"name": "y"}}, "config.name", "leave this one out"),
    # shapes
    (None, "the document", "must be an object"),
    ([WITH_SECRETS], "the document", "must be an object"),
    (SECRET, "the document", "must be an object"),
    ({"config": None}, "config", "must be an object"),
    ({"options": SECRET}, "options", "must be an object"),
    ({"network": "deny-all"}, "network", "must be an object"),
    ({"envVars": SECRET}, "envVars", "must be an object"),
    ({"persistent": "yes"}, "persistent", "must be true or false"),
    ({"options": {"mountAwsS3Buckets": 1}}, "options.mountAwsS3Buckets", "must be true or false"),
    ({"network": {"mode": "restricted", "allowCidrs": "10.0.0.0/8"}}, "network.allowCidrs", "must be a list"),
    ({"options": {"snapshot": 5}}, "options.snapshot", "must be a string"),
    ({"options": {"snapshot": "\ud800"}}, "options.snapshot", "contains a control character"),
    # provider and modes
    (
        {"provider": "lambda"},
        "provider",
        'the only provider of this package is "daytona"',
    ),
    ({"provider": None}, "provider", 'the only provider of this package is "daytona"'),
    ({"permissionMode": "Ask"}, "permissionMode", 'must be "ask", "edit" or "bypass"'),
    ({"permissionMode": None}, "permissionMode", 'must be "ask", "edit" or "bypass"'),
    ({"onTimeout": "job"}, "onTimeout", 'must be "kill" or "background"'),
    ({"name": ""}, "name", "leave it out"),
    ({"name": "", "config": {}}, "name", "leave it out"),
    # numbers
    ({"timeout": 0}, "timeout", "must be a whole number of seconds from 1 to 600; it is 0"),
    ({"timeout": 601}, "timeout", "from 1 to 600; it is 601"),
    ({"timeout": 10**5000}, "timeout", "from 1 to 600; it is far outside"),
    ({"timeout": 1.5}, "timeout", "must be a whole number of seconds"),
    ({"timeout": float("nan")}, "timeout", "must be a whole number of seconds"),
    ({"timeout": float("inf")}, "timeout", "must be a whole number of seconds"),
    ({"timeout": True}, "timeout", "must be a whole number of seconds"),
    ({"timeout": "60"}, "timeout", "written without quotes"),
    ({"outputLimitBytes": 1023}, "outputLimitBytes", "whole number of bytes from 1024 to 262144; it is 1023"),
    ({"outputLimitBytes": 262_145}, "outputLimitBytes", "from 1024 to 262144"),
    (
        {"persistent": True, "lifecycle": {"idleTimeoutSeconds": 0}},
        "lifecycle.idleTimeoutSeconds",
        "from 1 to 604800",
    ),
    (
        {"persistent": True, "lifecycle": {"maxLifetimeSeconds": 10**7}},
        "lifecycle.maxLifetimeSeconds",
        "from 1 to 2592000",
    ),
    # environment variables: the value is never shown, not even when it stands in the name
    ({"envVars": {"PORT": 8080}}, "envVars.PORT", "must be a string; write it in quotes"),
    ({"envVars": {"T": f"{SECRET}\0"}}, "envVars.T", "NUL byte or is not valid Unicode"),
    ({"envVars": {"T": f"{SECRET}\ud800"}}, "envVars.T", "is not valid Unicode"),
    ({"envVars": {"T": "**********"}}, "envVars.T", "is the mask of a secret"),
    ({"envVars": {"T": SECRET + "x" * 131_072}}, "envVars", "write it to a file instead"),
    ({"envVars": {"A B": SECRET}}, "envVars.A B", "use letters, digits and _"),
    ({"envVars": {"1A": SECRET}}, "envVars.1A", "not starting with a digit"),
    ({"envVars": {"A\n": SECRET}}, "envVars.A\\n", "use letters, digits and _"),
    ({"envVars": {"É": SECRET}}, "envVars.É", "use letters, digits and _"),
    ({"envVars": {f"T={SECRET}": "x"}}, "envVars.T=…", "use letters, digits and _"),
    (
        {"envVars": {"LANGCHAIN_DAYTONA_WS_X": "1"}},
        "envVars.LANGCHAIN_DAYTONA_WS_X",
        "reserved for this package",
    ),
    # network
    ({"network": {}}, "network.mode", "is required"),
    ({"network": {"mode": "open"}}, "network.mode", 'must be "allow-all", "deny-all" or "restricted"'),
    ({"network": {"mode": "restricted"}}, "network.mode", 'or use "deny-all"'),
    (
        {"network": {"mode": "deny-all", "allowCidrs": ["10.0.0.0/8"]}},
        "network.allowCidrs",
        "leave it out or change",
    ),
    *(
        (
            {"network": {"mode": "restricted", "allowCidrs": ["10.0.0.0/8", bad]}},
            "network.allowCidrs[1]",
            remedy,
        )
        for bad, remedy in [
            ("10.0.0.1/8", 'did you mean "10.0.0.0/8"?'),
            ("10.0.0.0/33", "example: 203.0.113.0/24"),
            ("example.com", "example: 203.0.113.0/24"),
            ("10.0.0.0/8\n", "example: "),
            ("", "example: "),
            ("2001:db8::/32", "accepts IPv4 only"),
            (7, "must be a string"),
        ]
    ),
    *(
        (
            {"network": {"mode": "restricted", "allowDomains": [bad]}},
            "network.allowDomains[0]",
            "use a name such as",
        )
        for bad in (
            "https://pypi.org",
            "pypi.org/x",
            "a..b",
            "*",
            "*.*.b",
            "-a.b",
            "é.fr",
            "a.b\n",
            "",
            "x" * 64,
        )
    ),
    # hooks
    ({"onCreate": ""}, "onCreate", "leave it out"),
    ({"onCreate": []}, "onCreate", "leave it out"),
    ({"onResume": ["a", " "]}, "onResume", "leave it out"),
    ({"onResume": ["a\0"]}, "onResume", "NUL byte or is not valid Unicode; correct it"),
    ({"onResume": {"a": 1}}, "onResume", "must be a shell command or a list of them"),
    # options
    ({"options": {"apiKey": ""}}, "options.apiKey", "set the environment variable DAYTONA_API_KEY"),
    ({"options": {"apiKey": 5}}, "options.apiKey", "set the environment variable DAYTONA_API_KEY"),
    (
        {"options": {"apiKey": f"{SECRET}\n"}},
        "options.apiKey",
        "remove it; or leave it out and set the environment",
    ),
    ({"options": {"apiKey": f"{SECRET} x"}}, "options.apiKey", "contains white space"),
    ({"options": {"apiKey": f"{SECRET}é"}}, "options.apiKey", "non-ASCII"),
    ({"options": {"apiKey": "**********"}}, "options.apiKey", "use the key itself"),
    ({"options": {"apiKey": "${DAYTONA_API_KEY}"}}, "options.apiKey", "are not expanded"),
    ({"options": {"apiKey": f'"{SECRET}"'}}, "options.apiKey", "contains a quotation mark"),
    (
        {"options": {"organizationId": " o"}},
        "options.organizationId",
        "environment variable DAYTONA_ORGANIZATION_ID",
    ),
    ({"options": {"target": "eu\n"}}, "options.target", "environment variable DAYTONA_TARGET"),
    ({"options": {"target": ""}}, "options.target", "environment variable DAYTONA_TARGET"),
    ({"options": {"snapshot": "a", "image": "b"}}, "options.image", "combined with snapshot"),
    ({"options": {"image": 5}}, "options.image", 'such as "python:3.12-slim", or in Python a daytona.Image'),
    ({"options": {"image": ""}}, "options.image", "leave it out"),
    *(
        ({"options": {"apiUrl": bad}}, "options.apiUrl", problem)
        for bad, problem in [
            ("http://app.daytona.io/api", "use https://"),
            ("http://10.0.0.1/", "use https://"),
            ("http://127.0.0.1.evil.com", "plain http is accepted for localhost, 127.0.0.0/8 and [::1]"),
            ("http://localhost.evil.com", "use https://"),
            ("http://[::2]/", "use https://"),
            ("http://[::ffff:127.0.0.1]/", "use https://"),
            ("http://127.1/", "use https://"),
            ("ftp://app.daytona.io", "must start with https://"),
            ("file:///etc/passwd", "is not a URL with a host"),
            ("app.daytona.io/api", "example: https://app.daytona.io/api"),
            (f"user:{SECRET}@app.daytona.io", "example: https://app.daytona.io/api"),
            (f"https://user:{SECRET}@app.daytona.io", "not contain a user name or password"),
            (f"http://{SECRET}@localhost", "not contain a user name or password"),
            (f"https://user:{SECRET}@app.daytona.io:x", "a valid port"),
            (f"https://user:{SECRET}@[::1", "is not a URL with a host"),
            (f"https://user:{SECRET}\u2100@daytona.io", "a character that is invalid in a URL"),
            ("https://app.daytona.io:99999/api", "a valid port"),
            ("https://app.daytona.io:0/api", "a valid port"),
            ("https://app.daytona.io/api?x=1", "not contain a query or fragment"),
            ("https://app.daytona.io/api#x", "not contain a query or fragment"),
            ("https://app.daytona.io/\napi", "a character that is invalid in a URL"),
            ("https://good\\@evil/", "a character that is invalid in a URL"),
            ("https:///api", "is not a URL with a host"),
            ("", "is not a URL with a host"),
            (None, "must be a string"),
        ]
    ),
    *(
        ({"options": {"s3Endpoint": bad}}, "options.s3Endpoint", "example: https://s3.example.com")
        for bad in (f"https://k:{SECRET}@s3.example.com", "s3://bucket", "minio:9000", "https://h/?x", "")
    ),
    *(
        ({"options": {key: bad}}, f"options.{key}", "such as /mnt/workspaces")
        for key in ("workspaceRoot", "skillsMountPath")
        for bad in (
            "",
            "relative",
            "/",
            "//",
            "/./",
            "/mnt/..",
            "/mnt/../etc",
            "/a\0b",
            "/a\n",
            "/\ud800",
            "/proc/x",
            "/dev",
            "/sys/",
            "/" + "x" * 1025,
            "~/x",
            "C:\\x",
        )
    ),
    (
        {"options": {"skillsMountPath": "/mnt/workspaces/s"}},
        "options.skillsMountPath",
        "neither below the other",
    ),
    (
        {"options": {"skillsMountPath": "/mnt//workspaces/"}},
        "options.skillsMountPath",
        "neither below the other",
    ),
    *(
        (
            {"options": {"workspaceRoot": root, "skillsBucketName": "abc", "mountAwsS3Buckets": True}},
            "options.skillsMountPath",
            "neither below the other",
        )
        for root in ("/mnt", "/mnt/skills", "/mnt/skills/x")
    ),
    *(
        ({"options": {"stsEndpoint": bad}}, "options.stsEndpoint", phrase)
        for bad, phrase in [
            ("http://sts.example.com", "so the workspace's S3 keys would be sent unencrypted"),
            ("http://10.0.0.1:9000", "use https://"),
            (f"https://k:{SECRET}@sts.example.com", "not contain a user name or password"),
            ("sts.example.com", "example: https://sts.example.com"),
            ("", "is not a URL with a host"),
        ]
    ),
    *(
        (
            {"options": {"mountRoleArn": bad}},
            "options.mountRoleArn",
            "example: arn:aws:iam::123456789012:role/",
        )
        for bad in (
            "sandbox-s3mount",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:iam::1234:role/x",
            "arn:aws:iam::123456789012:role/a*",
            f"{ROLE}\n",
        )
    ),
    (
        {"options": {"mountRoleArn": ""}},
        "options.mountRoleArn",
        "environment variable SANDBOX_MOUNT_ROLE_ARN",
    ),
    *(
        ({"options": {"mountRoleExternalId": bad}}, "options.mountRoleExternalId", "use 2 to 1,224 letters")
        for bad in ("x", "a b", "x" * 1225, "ab\n")
    ),
    ({"options": {"stsRegion": "eu central"}}, "options.stsRegion", "example: eu-central-1"),
    *(
        ({"options": {"kmsKeyArn": bad}}, "options.kmsKeyArn", "an alias is not accepted")
        for bad in (
            "1234abcd",
            "arn:aws:kms:eu-central-1:123456789012:alias/x",
            "arn:aws:kms:eu-central-1:123456789012:key/*",
            f"{KEY}\n",
            "",
        )
    ),
    *(
        ({"options": {"image": "python:3.12", "resources": bad}}, f"options.resources{at}", phrase)
        for bad, at, phrase in (
            ({}, "", "give cpu, memoryGiB or diskGiB, or leave it out"),
            ({"cpu": None}, "", "names no size"),
            ({"cpu": 0}, ".cpu", "must be a whole number of CPU cores from 1 to 512; it is 0"),
            ({"cpu": 1.5}, ".cpu", "must be a whole number"),
            ({"memoryGiB": 4097}, ".memoryGiB", "a whole number of GiB from 1 to 4096"),
            ({"diskGiB": "10"}, ".diskGiB", "written without quotes"),
            ({"cpu": 1, "disk": 10}, ".disk", "unknown key"),
            (2, "", "must be an object"),
        )
    ),
    ({"options": {"resources": {"cpu": 2}}}, "options.resources", "set options.image, or build a snapshot"),
    (
        {"options": {"snapshot": "s", "resources": {"cpu": 2}}},
        "options.resources",
        "leave resources out",
    ),
    *(
        ({"options": {"user": bad}}, "options.user", "use 1 to 32 letters")
        for bad in ("", "1000", "a b", "root:root", "-x", "x" * 33, "agent\n", "ö")
    ),
    *(
        ({"options": {"labels": bad}}, f"options.labels{at}", phrase)
        for bad, at, phrase in (
            ({"managed-by": "me"}, ".managed-by", "use another name"),
            ({"namespace": "x"}, ".namespace", "use another name"),
            ({"code-toolbox-language": "x"}, ".code-toolbox-language", "Daytona's SDK sets itself"),
            ({"": "x"}, "", "1 to 63 letters"),
            ({"a" * 64: "x"}, "", "1 to 63 letters"),
            ({"a b": "x"}, "", "1 to 63 letters"),
            ({"a": "x\n"}, ".a", "must be printable text"),
            ({"a": "x" * 256}, ".a", "at most 255 characters"),
            ({"a": 5}, ".a", "must be a string"),
            ({str(n): "" for n in range(33)}, "", "more than 32 labels"),
            ("a=b", "", "must be an object"),
        )
    ),
    ({"options": {"s3Mode": "Sync"}}, "options.s3Mode", 'must be "mount" or "sync"'),
    *(
        (
            {"options": {"s3Mode": "sync", **more}},
            "options.s3Mode",
            "set options.mountAwsS3Buckets to true, or leave",
        )
        for more in ({}, {"mountAwsS3Buckets": False}, {"syncIgnore": ["a"], "syncLimitBytes": 5})
    ),
    *(
        (
            {"options": {"mountAwsS3Buckets": True, **more}},
            f"options.{key}",
            'set options.s3Mode to "sync", or leave',
        )
        for key, more in (
            ("syncIgnore", {"syncIgnore": ["a"]}),
            ("syncLimitBytes", {"s3Mode": "mount", "syncLimitBytes": 5}),
        )
    ),
    *(
        ({"options": {**SYNC, "syncIgnore": patterns}}, f"options.syncIgnore{at}", phrase)
        for patterns, at, phrase in (
            ("*.log", "", "must be a list"),
            ([""], "[0]", "must not be empty"),
            (["a", "  "], "[1]", "must not be empty"),
            (["a\0"], "[0]", "one line of valid Unicode, without a NUL byte"),
            (["a\nb"], "[0]", "put each pattern into a string of its own"),
            (["a\r"], "[0]", "one line"),
            (["\ud800"], "[0]", "valid Unicode"),
            (["a" * 1001], "[0]", "at most 1,000 characters"),
            ([5], "[0]", "must be a string"),
            (["a"] * 201, "", "has more than 200 patterns; combine them"),
        )
    ),
    *(
        (
            {"options": {**SYNC, "syncLimitBytes": bad}},
            "options.syncLimitBytes",
            "must be a whole number of bytes",
        )
        for bad in (0, -1, 1.5, "1", True, 2**53)
    ),
    *(
        ({"options": {"workspacePrefix": bad}}, "options.workspacePrefix", phrase)
        for phrase, cases in (
            ("must be a string", [None]),
            (
                "must contain {namespace} once, as a whole part of the path, which keeps the workspaces apart; use a "
                'prefix such as "sandbox/{namespace}/"',
                [
                    "",
                    "/",
                    "sandbox/",
                    "a{namespace}/",
                    "{namespace}a/",
                    "{NAMESPACE}/",
                    "{namespace}/{namespace}/",
                ],
            ),
            (
                'must end with "/", and must not start with "/" or "-"; use a prefix such as "sandbox/{namespace}/"',
                ["{namespace}", "a/{namespace}", "/{namespace}/", "-a/{namespace}/"],
            ),
            ("is longer than 128 characters", ["a" * 116 + "/{namespace}/"]),
            (
                'has an empty part, a part "." or ".."',
                [
                    "a//{namespace}/",
                    "./{namespace}/",
                    "{namespace}/../",
                    "{namespace}/a/../b/",
                    "{namespace}//",
                ],
            ),
            (
                "or a character other than A-Z, a-z, 0-9 and _.=+,:- (others have a meaning in IAM policies)",
                [
                    "*/{namespace}/",
                    "a@b/{namespace}/",
                    "a?/{namespace}/",
                    "${aws:userid}/{namespace}/",
                    "a\n/{namespace}/",
                    "é/{namespace}/",
                ],
            ),
        )
        for bad in cases
    ),
    ({"options": {"fileAccess": "S3"}}, "options.fileAccess", 'must be "s3" or "sandbox"'),
    ({"options": {"fileAccess": None}}, "options.fileAccess", 'must be "s3" or "sandbox"'),
    *(
        ({"options": {key: bad}}, f"options.{key}", "use the name only")
        for key in ("workspaceBucketName", "skillsBucketName")
        for bad in ("", "ab", "s3://bucket", "Bucket", "a..b", "-ab", "a/b", "abc\n", "x" * 64)
    ),
    *(
        ({"options": {"awsRegion": bad}}, "options.awsRegion", "example: eu-central-1")
        for bad in ("", "a b", "x\n")
    ),
]


@pytest.mark.parametrize(
    ("document", "path", "phrase"),
    REFUSALS,
    ids=[f"{n}-{ascii(path)[1:-1]}" for n, (_, path, _) in enumerate(REFUSALS)],
)
def test_each_refusal_names_path_problem_and_remedy(document: Any, path: str, phrase: str) -> None:
    error = refused(document)
    message = str(error)
    assert message.startswith(f"SandboxConfig: {path}"), message
    assert phrase in message
    assert "\n" not in message
    assert "input_value" not in message
    assert len(error.context["paths"]) == 1  # type: ignore[arg-type]


def test_all_problems_come_at_once_and_no_secret_with_them() -> None:
    error = refused(
        {
            "name": "x",
            "config": {
                "provider": "e2b",
                "timeout": 0,
                "permissionmod": "ask",
                "envVars": {"TOKEN": SECRET, "BAD NAME": SECRET, "N": 1},
                "network": {"mode": "restricted"},
                "options": {
                    "apiKey": f"{SECRET} ",
                    "snapshot": "a",
                    "image": "b",
                    "apiUrl": f"http://{SECRET}@h",
                },
            },
        }
    )
    assert str(error).startswith("SandboxConfig has 9 problems:\n- ")
    assert sorted(error.context["paths"]) == [  # type: ignore[call-overload]
        "config.envVars.BAD NAME",
        "config.envVars.N",
        "config.network.mode",
        "config.options.apiKey",
        "config.options.apiUrl",
        "config.options.image",
        "config.permissionmod",
        "config.provider",
        "config.timeout",
    ]


def test_the_constructor_and_json_raise_the_same_error() -> None:
    document = {"timeout": 0, "options": {"apiKey": f"{SECRET} "}}
    expected = str(refused(document))
    for build in (
        lambda: SandboxConfig(**document),  # type: ignore[arg-type]
        lambda: SandboxConfig.model_validate_json(json.dumps(document)),
    ):
        with pytest.raises(ConfigError) as caught:
            build()
        assert str(caught.value) == expected
        assert SECRET not in everything_shown(caught.value)


def test_the_parts_name_paths_from_themselves() -> None:
    with pytest.raises(ConfigError, match=r"^SandboxOptions: apiky: unknown key; did you mean apiKey\?$"):
        SandboxOptions.model_validate({"apiky": SECRET})
    with pytest.raises(ConfigError, match=r"^NetworkConfig: mode: is required; add it$"):
        NetworkConfig()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        (
            f'{{"options": {{"apiKey": "{SECRET}" ',
            "is not JSON: Expecting ',' delimiter at line 1, column 41",
        ),
        (f'{{"apiKey": "{SECRET}'.encode(), "is not JSON: Unterminated string"),
        (f'{{"apiKey": "{SECRET}'.encode() + b'\xff"}', "is not JSON: byte 26 is not UTF-8"),
        ("", "is not JSON: Expecting value"),
        ('{"timeout": NaN}', "is not readable JSON"),
        ("[" * 100_000, "is not readable JSON"),
        ('{"timeout": 5, "timeout": 6}', "timeout: occurs more than once; keep one"),
        ('{"config": {"timeout": 5, "timeout": 6}}', "config.timeout: occurs more than once"),
        ('{"name": "x", "config": {"timeout": 5, "timeout": 6}}', "config.timeout: occurs more than once"),
        ('{"name": "x", "name": "y", "config": {}}', "name: occurs more than once"),
        ('{"options": {"target": "a", "target": "a"}}', "options.target: occurs more than once"),
        ('{"envVars": {"A": "a", "A": "b"}}', "envVars.A: occurs more than once"),
    ],
)
def test_invalid_json_is_refused(text: str | bytes, phrase: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SandboxConfig.model_validate_json(text)
    assert phrase in str(caught.value)
    assert SECRET not in everything_shown(caught.value)


@pytest.mark.parametrize("path", ["\0", "\ud800"])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: the path has a NUL byte or is not valid Unicode"):
        SandboxConfig.from_file(path)


def test_inside_another_model_the_error_is_pydantics_and_holds_no_input() -> None:
    class Settings(BaseModel):
        sandbox: SandboxConfig

    document = {**WITH_SECRETS, "timeout": 0, "snapshot": "x"}
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"sandbox": document})
    assert "from 1 to 600" in str(caught.value)
    assert "did you mean options.snapshot?" in str(caught.value)
    assert SECRET not in f"{caught.value}{caught.value!r}{caught.value.errors()}{caught.value.json()}"
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(SandboxConfig).validate_python(document)
    assert SECRET not in f"{caught.value}{caught.value.errors()}"
    settings = Settings.model_validate({"sandbox": {"name": "n", "config": WITH_SECRETS}})
    assert settings.sandbox.name == "n"
    assert SECRET not in repr(settings)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*CAMEL, *SNAKE, *CAMEL["options"], "name", "config", "mode", "allowCidrs"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
)


@given(document=json_values)
def test_whatever_the_document_it_is_taken_or_a_config_error(document: Any) -> None:
    try:
        config = SandboxConfig.model_validate(document)
    except ConfigError as error:
        assert error.context["paths"]  # noqa: PT017
        assert error.__context__ is None  # noqa: PT017
    else:
        assert SandboxConfig.model_validate(config.model_dump(by_alias=True)) == config


# A slash ends the part of a URL that may hold a password.
beside_a_password = st.text(st.characters(exclude_characters="/\\?#"), max_size=300)


@given(text=beside_a_password.filter(lambda text: SECRET not in text), tail=st.text(max_size=50))
def test_whatever_is_wrong_with_a_url_its_password_is_not_shown(text: str, tail: str) -> None:
    for url in (f"{text}{SECRET}@{tail}", f"https://{text}:{SECRET}@{tail}", f"{SECRET}://{text}@{tail}"):
        refused({"options": {"apiUrl": url}})


# --- images ----------------------------------------------------------------------------------------------


def test_a_daytona_image_is_taken_in_python() -> None:
    from daytona import Image

    image = Image.base("python:3.12-slim")
    config = SandboxConfig(options=SandboxOptions(image=image))
    assert config.options.image is image
    assert pickle.loads(pickle.dumps(config)).options.image.dockerfile() == image.dockerfile()
    for dump in (config.model_dump, config.model_dump_json):
        with pytest.raises(
            PydanticSerializationError, match="can't be dumped; use the name of a published image"
        ):
            dump()
    assert SandboxConfig(options={"image": "python:3.12-slim"}).options.image == "python:3.12-slim"  # type: ignore[arg-type]

    class Lookalike:
        def dockerfile(self) -> str:
            return ""

    with pytest.raises(ConfigError, match=r"in Python a daytona\.Image"):
        SandboxOptions(image=Lookalike())


def test_importing_and_validating_loads_neither_daytona_nor_boto3() -> None:
    script = (
        "import sys; from langchain_daytona_ws.config import SandboxConfig; "
        "SandboxConfig.model_validate({'options': {'image': 'x'}}); SandboxConfig.model_json_schema();"
        "\ntry: SandboxConfig.model_validate({'options': {'image': 5}})"
        "\nexcept ValueError: pass"
        "\nassert not {'daytona', 'boto3', 'botocore', 'langchain_core'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=180)


# --- secrets ---------------------------------------------------------------------------------------------


def test_no_secret_in_repr_str_and_json_dumps() -> None:
    config = SandboxConfig.model_validate(WITH_SECRETS)
    dumps = f"{config!r}{config!s}{config.model_dump()}{config.model_dump_json()}"
    assert SECRET not in dumps
    assert "TOKEN" in dumps
    assert config.plain_env_vars() == {"TOKEN": SECRET}
    assert config.require_api_key().get_secret_value() == SECRET


def test_a_masked_dump_is_not_taken_for_a_configuration() -> None:
    masked = SandboxConfig.model_validate(WITH_SECRETS).model_dump(mode="json")
    assert refused(masked).context["paths"] == ["envVars.TOKEN", "options.apiKey"]


def test_a_pickle_holds_no_key_and_takes_that_of_its_new_home(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SandboxConfig.model_validate(
        {"name": "n", "config": {"timeout": 5, "options": {**CAMEL["options"], "apiKey": SECRET}}}
    )
    pickled = pickle.dumps(config)
    assert SECRET.encode() not in pickled

    poor = pickle.loads(pickled)
    assert poor.name == "n"
    assert poor.timeout_s == 5
    with pytest.raises(ConfigError, match="DAYTONA_API_KEY"):
        poor.require_api_key()

    for variable in VARIABLES:
        monkeypatch.setenv(variable, "only the key is read again\n")
    monkeypatch.setenv("DAYTONA_API_KEY", SECRET)
    assert pickle.loads(pickled) == config
    monkeypatch.setenv("DAYTONA_API_KEY", f"{SECRET}\n")
    with pytest.raises(
        ConfigError, match=r"apiKey: contains white space.* DAYTONA_API_KEY: correct"
    ) as caught:
        pickle.loads(pickled)
    assert SECRET not in everything_shown(caught.value)


def test_a_configuration_with_variables_is_not_pickled_but_copied() -> None:
    config = SandboxConfig.model_validate(WITH_SECRETS)
    with pytest.raises(ConfigError, match=r"^envVars: .* validate the configuration again") as caught:
        pickle.dumps(config)
    assert SECRET not in everything_shown(caught.value)
    assert copy.deepcopy(config) == copy.copy(config) == config


# --- what does not go together ---------------------------------------------------------------------------


@pytest.mark.parametrize("document", [{"lifecycle": {}}, {"lifecycle": {}, "persistent": False}])
def test_a_lifecycle_is_for_a_persistent_sandbox(document: dict[str, Any]) -> None:
    assert "lifecycle: is for persistent sandboxes" in str(refused(document))
    assert SandboxConfig.model_validate({**document, "persistent": True}).lifecycle is not None


# --- the namespace ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["a", "A-b_c.9", "_", "0", "x" * 128, "a..b", "a-"])
def test_namespaces_that_are_taken(namespace: str) -> None:
    assert validate_namespace(namespace) == namespace


@pytest.mark.parametrize(
    ("namespace", "phrase"),
    [
        ("", "must not be empty"),
        ("a/b", "credentials for a parent prefix"),
        ("/", "credentials for a parent prefix"),
        (".", 'starts with "."'),
        ("..", 'starts with "."'),
        (".git", 'starts with "."'),
        ("-rf", 'starts with "-"'),
        ("a\n", "not allowed"),
        ("a b", "not allowed"),
        ("é", "not allowed"),
        ("a\0", "not allowed"),
        ("x" * 129, "is 129 characters long"),
        (None, "must be a string"),
        (b"a", "must be a string"),
    ],
)
def test_namespaces_that_are_refused(namespace: Any, phrase: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_namespace(namespace)
    assert str(caught.value).startswith("namespace: ")
    assert phrase in str(caught.value)
    assert "Use one segment of 1 to 128 letters" in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.code == "namespace"


ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


@given(st.text(max_size=140) | st.text(alphabet=sorted(ALLOWED | {"/", "\n"}), max_size=140))
def test_a_namespace_is_one_plain_segment_or_refused(text: str) -> None:
    plain = 1 <= len(text) <= 128 and set(text) <= ALLOWED and text[0] not in ".-"
    if plain:
        assert validate_namespace(text) == text
    else:
        with pytest.raises(ConfigError):
            validate_namespace(text)


@pytest.mark.parametrize("model", [SandboxConfig, SandboxOptions, SandboxResources])
def test_arguments_have_the_names_of_the_fields_for_type_checkers(model: type[BaseModel]) -> None:
    # A type checker without pydantic's plugin accepts only the alias of a field that names its alias itself.
    assert [name for name, field in model.model_fields.items() if field.alias_priority != 1] == []
