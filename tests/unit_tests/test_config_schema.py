"""The published JSON Schema: it takes what the parser takes, and says enough to write the manual from."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import ConfigError

# Copied from the source document, section "Configuration".
SOURCE_EXAMPLE = """
{
"name": "daytona",
"config": {
"provider": "daytona",
"permissionMode": "ask",
"options": {
"apiKey": "...",
"organizationId": "...",
"apiUrl": "https://app.daytona.io/api",
"target": "default",
"snapshot": "fuse-s3",
"workspaceRoot": "/mnt/workspaces",
"mountAwsS3Buckets": true
}
}
}
"""
# Copied from the source document, section "AWS S3 Workspace Mount": these two stand in `options`.
SOURCE_OVERRIDES = """
{
"workspaceBucketName": "my-workspace-bucket",
"awsRegion": "eu-central-1"
}
"""

SCHEMA = SandboxConfig.model_json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, socket_disabled: None) -> None:
    for schema in settings("SandboxOptions").values():
        named = schema.get("x-env", [])
        for variable in [named] if isinstance(named, str) else named:
            monkeypatch.delenv(variable, raising=False)


def settings(model: str) -> dict[str, Any]:
    properties: dict[str, Any] = SCHEMA["$defs"][model]["properties"]
    return properties


def test_it_is_a_schema_and_plain_json() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def test_the_source_documents_example_is_valid_and_read() -> None:
    document = json.loads(SOURCE_EXAMPLE)
    VALIDATOR.validate(document)
    VALIDATOR.validate(document["config"])
    config = SandboxConfig.model_validate(document)
    assert config.name == "daytona"
    assert config.options.snapshot == "fuse-s3"
    assert config.options.mount_aws_s3_buckets
    assert config.require_api_key().get_secret_value() == "..."

    document["config"]["options"] |= json.loads(SOURCE_OVERRIDES)
    VALIDATOR.validate(document)
    assert SandboxConfig.model_validate_json(json.dumps(document)).options.aws_region == "eu-central-1"


GOOD: list[dict[str, Any]] = [
    {},
    {"config": {}},
    {"name": "x", "config": {"timeout": 600}},
    {"timeout": 1, "outputLimitBytes": 1024, "permissionMode": "bypass"},
    {"envVars": {"A_1": "x", "_": ""}, "network": None, "lifecycle": None},
    {"network": {"mode": "allow-all"}},
    {"network": {"mode": "deny-all", "allowCidrs": []}},
    {"network": {"mode": "restricted", "allowCidrs": ["10.0.0.0/8"]}},
    {"network": {"mode": "restricted", "allowDomains": ["pypi.org"]}},
    {"persistent": True, "lifecycle": {"idleTimeoutSeconds": 1, "maxLifetimeSeconds": 2_592_000}},
    {"onCreate": "make", "onResume": ["a", "b"]},
    {"options": {"image": "python:3.12", "snapshot": None, "apiUrl": "http://127.0.0.1:3986/api"}},
    {"options": {"image": "python:3.12", "resources": {"cpu": 1}, "user": "a.b", "labels": {"a/b": "ö"}}},
    {"options": {"image": "x", "resources": {"memoryGiB": 4096, "diskGiB": 1, "cpu": None}}},
    {"options": {"resources": None, "user": None, "labels": {}}},
    {"options": {"apiUrl": "http://[::1]/", "s3Endpoint": "http://minio:9000", "apiKey": None}},
    {"options": {"mountRoleArn": "arn:aws-cn:iam::123456789012:role/a/b", "mountRoleExternalId": "a:b/c"}},
    {"options": {"stsEndpoint": "http://127.0.0.1:9000", "stsRegion": "eu-west-1", "fileAccess": "sandbox"}},
    {"options": {"mountAwsS3Buckets": True, "s3Mode": "sync"}},
    {
        "options": {
            "mountAwsS3Buckets": True,
            "s3Mode": "sync",
            "syncIgnore": ["*.log", " a"],
            "syncLimitBytes": 1,
            "workspacePrefix": "{namespace}/",
        }
    },
    {
        "options": {
            "s3Mode": "mount",
            "syncIgnore": [],
            "syncLimitBytes": None,
            "workspacePrefix": "a.b/{namespace}/-c/",
        }
    },
    {"options": {"stsEndpoint": None, "kmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/mrk-1a"}},
]

BAD: list[Any] = [
    None,
    [],
    {"config": None},
    {"config": {}, "provider": "daytona"},
    {"name": 5, "config": {}},
    {"bogus": 1},
    {"options": {"snapshto": "x"}},
    {"network": {"mode": "deny-all", "bogus": 1}},
    {"lifecycle": {"bogus": 1}},
    {"provider": "lambda"},
    {"permissionMode": "Ask"},
    {"timeout": 0},
    {"timeout": 601},
    {"timeout": "60"},
    {"timeout": 1.5},
    {"timeout": True},
    {"outputLimitBytes": 1023},
    {"outputLimitBytes": 262_145},
    {"envVars": {"A B": "x"}},
    {"envVars": {"A": 1}},
    {"envVars": {"LANGCHAIN_DAYTONA_WS_A": "x"}},
    {"persistent": "yes"},
    {"network": {}},
    {"network": {"mode": "restricted"}},
    {"network": {"mode": "restricted", "allowCidrs": []}},
    {"network": {"mode": "deny-all", "allowCidrs": ["10.0.0.0/8"]}},
    {"lifecycle": {"idleTimeoutSeconds": 0}},
    {"lifecycle": {"maxLifetimeSeconds": 2_592_001}},
    {"onCreate": ""},
    {"onResume": []},
    {"onResume": ["a", " "]},
    {"options": None},
    {"options": {"apiKey": ""}},
    {"options": {"apiUrl": "http://app.daytona.io/api"}},
    {"options": {"apiUrl": "ftp://app.daytona.io"}},
    {"options": {"apiUrl": None}},
    {"options": {"target": ""}},
    {"options": {"image": {}}},
    {"options": {"snapshot": "a", "image": "b"}},
    {"options": {"resources": {"cpu": 1}}},
    {"options": {"snapshot": "s", "resources": {"cpu": 1}}},
    *(
        {"options": {"image": "x", "resources": bad}}
        for bad in ({}, {"cpu": 0}, {"cpu": 513}, {"memoryGiB": 0.5}, {"diskGiB": True}, {"disk": 1}, 5)
    ),
    *({"options": {"user": bad}} for bad in ("", "1", "a b", "a" * 33)),
    *(
        {"options": {"labels": bad}}
        for bad in (None, {"managed-by": "x"}, {"a b": "x"}, {"a": "x" * 256}, {"a": 1}, {"a" * 64: ""})
    ),
    {"options": {"workspaceRoot": "relative"}},
    {"options": {"workspaceBucketName": "s3://x"}},
    {"options": {"awsRegion": "eu central"}},
    {"options": {"mountRoleArn": "arn:aws:iam::123456789012:user/x"}},
    {"options": {"mountRoleExternalId": "a b"}},
    {"options": {"stsRegion": ""}},
    {"options": {"stsEndpoint": "http://sts.example.com"}},
    {"options": {"kmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:alias/x"}},
    {"options": {"fileAccess": "S3"}},
    {"options": {"mountAwsS3Buckets": 1}},
    {"options": {"s3Mode": "sync"}},
    {"options": {"s3Mode": "sync", "mountAwsS3Buckets": False}},
    {"options": {"mountAwsS3Buckets": True, "syncIgnore": ["a"]}},
    {"options": {"mountAwsS3Buckets": True, "s3Mode": "mount", "syncLimitBytes": 5}},
    *(
        {"options": {"mountAwsS3Buckets": True, "s3Mode": "sync", **more}}
        for more in (
            {"syncIgnore": [""]},
            {"syncIgnore": [" "]},
            {"syncIgnore": ["a\nb"]},
            {"syncIgnore": ["\0"]},
            {"syncIgnore": ["a" * 1001]},
            {"syncIgnore": ["a"] * 201},
            {"syncLimitBytes": 0},
            {"syncLimitBytes": 2**53},
            {"syncLimitBytes": True},
        )
    ),
    *(
        {"options": {"workspacePrefix": bad}}
        for bad in (
            None, "", "a/", "{namespace}", "a{namespace}/", "/{namespace}/", "-a/{namespace}/",
            "{namespace}/{namespace}/", "a//{namespace}/", "{namespace}/../", "./{namespace}/",
            "*/{namespace}/", "é/{namespace}/", "{namespace}/\n/", "a" * 116 + "/{namespace}/",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("document", GOOD, ids=repr)
def test_schema_and_parser_take_the_same(document: dict[str, Any]) -> None:
    VALIDATOR.validate(document)
    SandboxConfig.model_validate(document)


@pytest.mark.parametrize("document", BAD, ids=repr)
def test_schema_and_parser_refuse_the_same(document: Any) -> None:
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(ConfigError):
        SandboxConfig.model_validate(document)


def test_what_is_dumped_is_valid_again() -> None:
    for document in GOOD:
        config = SandboxConfig.model_validate(document)
        if not config.env_vars:
            VALIDATOR.validate(config.model_dump(by_alias=True, mode="json"))
        VALIDATOR.validate(config.model_dump(by_alias=True, mode="json", exclude_unset=True))


@pytest.mark.parametrize(("title", "definition"), SCHEMA["$defs"].items(), ids=SCHEMA["$defs"])
def test_objects_are_closed_and_described(title: str, definition: dict[str, Any]) -> None:
    assert definition["additionalProperties"] is False
    assert definition["description"].endswith(".")
    assert definition["title"] == title
    for key, schema in definition["properties"].items():
        assert "_" not in key
        if "$ref" not in schema:
            assert schema["description"].endswith("."), key
        assert definition.get("required", []) == [
            key for key in definition["properties"] if key in ("mode", "config")
        ]


def test_defaults_ranges_units_and_variables_are_published() -> None:
    timeout = settings("SandboxConfig")["timeout"]
    assert (timeout["default"], timeout["minimum"], timeout["maximum"]) == (120, 1, 600)
    assert "Seconds" in timeout["description"]
    limit = settings("SandboxConfig")["outputLimitBytes"]
    assert (limit["default"], limit["minimum"], limit["maximum"]) == (65_536, 1024, 262_144)
    assert "bytes" in limit["description"]
    assert settings("LifecycleConfig")["idleTimeoutSeconds"]["default"] == 900
    assert settings("LifecycleConfig")["maxLifetimeSeconds"]["default"] == 604_800
    assert settings("SandboxConfig")["permissionMode"]["enum"] == ["ask", "edit", "bypass"]
    assert settings("SandboxOptions")["apiUrl"]["default"] == "https://app.daytona.io/api"
    assert settings("SandboxOptions")["workspaceRoot"]["default"] == "/mnt/workspaces"
    assert settings("SandboxOptions")["skillsMountPath"]["default"] == "/mnt/skills"
    assert {
        key: schema["x-env"] for key, schema in settings("SandboxOptions").items() if "x-env" in schema
    } == {
        "apiKey": "DAYTONA_API_KEY",
        "organizationId": "DAYTONA_ORGANIZATION_ID",
        "apiUrl": "DAYTONA_API_URL",
        "target": "DAYTONA_TARGET",
        "workspaceBucketName": "FILESYSTEM_BUCKET_NAME",
        "awsRegion": ["AWS_REGION", "AWS_DEFAULT_REGION"],
        "skillsBucketName": "SKILLS_BUCKET_NAME",
        "mountRoleArn": "SANDBOX_MOUNT_ROLE_ARN",
        "mountRoleExternalId": "SANDBOX_MOUNT_ROLE_EXTERNAL_ID",
        "stsRegion": "SANDBOX_MOUNT_STS_REGION",
    }
    image = settings("SandboxOptions")["image"]["anyOf"]
    assert [kind["type"] for kind in image] == ["string", "null"]


def test_secrets_are_marked_write_only() -> None:
    assert settings("SandboxOptions")["apiKey"]["anyOf"][0]["writeOnly"] is True
    assert settings("SandboxConfig")["envVars"]["additionalProperties"]["writeOnly"] is True


def test_pydantics_arguments_are_passed_on() -> None:
    moved = SandboxConfig.model_json_schema(ref_template="#/components/schemas/{model}")
    assert moved == SandboxConfig.model_json_schema(True, "#/components/schemas/{model}")
    assert moved["anyOf"][1] == {"$ref": "#/components/schemas/SandboxConfig"}
