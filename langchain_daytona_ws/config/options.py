"""The options: account, where the sandbox comes from, where the workspace is mounted."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from langchain_daytona_ws.config import keys
from langchain_daytona_ws.config.addresses import LOOPBACK_OR_HTTPS, ApiUrl, S3Url, StsUrl
from langchain_daytona_ws.config.base import ConfigModel
from langchain_daytona_ws.config.problems import Problem, config_error, problems_of
from langchain_daytona_ws.config.values import (
    ApiKey,
    Bucket,
    Directory,
    ExternalId,
    Flag,
    Image,
    KmsKeyArn,
    Line,
    Region,
    RoleArn,
)


class SandboxOptions(ConfigModel):
    """Daytona and S3: account, where the sandbox comes from, where the workspace is mounted."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "properties": {"snapshot": {"type": "string"}, "image": {"type": "string"}},
                "required": ["snapshot", "image"],
            }
        }
    )

    api_key: ApiKey | None = Field(
        default=None,
        description="Daytona API key. Needed for the first request, not for reading the configuration.",
        json_schema_extra={keys.ENV: "DAYTONA_API_KEY"},
    )
    organization_id: Line | None = Field(
        default=None,
        description=(
            "Daytona organization. An API key belongs to one already; "
            "a created sandbox that belongs to another is an error."
        ),
        json_schema_extra={keys.ENV: "DAYTONA_ORGANIZATION_ID"},
    )
    api_url: ApiUrl = Field(
        default="https://app.daytona.io/api",
        description="Daytona API: an https URL, or plain http to a loopback address.",
        json_schema_extra={
            keys.ENV: "DAYTONA_API_URL",
            "format": "uri",
            "pattern": LOOPBACK_OR_HTTPS,
        },
    )
    target: Line | None = Field(
        default=None,
        description="Daytona region, sent as written. Leave it out for the organization's default.",
        json_schema_extra={keys.ENV: "DAYTONA_TARGET"},
    )
    snapshot: Line | None = Field(
        default=None,
        description="Daytona snapshot to start from; not together with `image`. Neither: Daytona's default.",
    )
    image: Image | None = Field(
        default=None,
        description=(
            "Docker/OCI image to create the sandbox from, in Python also a `daytona.Image`; "
            "not together with `snapshot`."
        ),
    )
    workspace_root: Directory = Field(
        default="/mnt/workspaces",
        description="Absolute directory in the sandbox under which each namespace has its workspace.",
        json_schema_extra={"pattern": "^/"},
    )
    mount_aws_s3_buckets: Flag = Field(
        default=False,
        description=(
            "Mount the S3 prefix `sandbox/<namespace>/` as the workspace; "
            "otherwise the workspace is on the sandbox's own disk."
        ),
    )
    workspace_bucket_name: Bucket | None = Field(
        default=None,
        description="S3 bucket of the workspaces.",
        json_schema_extra={keys.ENV: "FILESYSTEM_BUCKET_NAME"},
    )
    aws_region: Region | None = Field(
        default=None,
        description="AWS region of the buckets.",
        json_schema_extra={keys.ENV: ["AWS_REGION", "AWS_DEFAULT_REGION"]},
    )
    s3_endpoint: S3Url | None = Field(
        default=None,
        description="URL of an S3-compatible service, used with path-style addresses. Leave it out for AWS.",
        json_schema_extra={"format": "uri"},
    )
    skills_bucket_name: Bucket | None = Field(
        default=None,
        description="S3 bucket with skills, mounted read-only.",
        json_schema_extra={keys.ENV: "SKILLS_BUCKET_NAME"},
    )
    skills_mount_path: Directory = Field(
        default="/mnt/skills",
        description=(
            "Absolute directory in the sandbox where the skills bucket is mounted; "
            "neither above nor below `workspaceRoot`."
        ),
        json_schema_extra={"pattern": "^/"},
    )
    file_access: Literal["s3", "sandbox"] = Field(
        default="s3",
        description=(
            "How `workspace_file` reaches an S3 workspace: `s3` = directly, without a sandbox, and no change of "
            "another agent is overwritten unseen; `sandbox` = through the mount, without that guarantee."
        ),
    )
    mount_role_arn: RoleArn | None = Field(
        default=None,
        description=(
            "IAM role whose credentials, cut down to this workspace's prefix, are used for S3. "
            "Left out: the AWS keys in `envVars`."
        ),
        json_schema_extra={keys.ENV: "SANDBOX_MOUNT_ROLE_ARN"},
    )
    mount_role_external_id: ExternalId | None = Field(
        default=None,
        description="External id that the role's trust policy asks for.",
        json_schema_extra={keys.ENV: "SANDBOX_MOUNT_ROLE_EXTERNAL_ID"},
    )
    sts_region: Region | None = Field(
        default=None,
        description="AWS region of STS, where the role is assumed. Default: `awsRegion`.",
        json_schema_extra={keys.ENV: "SANDBOX_MOUNT_STS_REGION"},
    )
    sts_endpoint: StsUrl | None = Field(
        default=None,
        description=(
            "URL of an STS-compatible service: https, or plain http to a loopback address. Leave it out for AWS."
        ),
        json_schema_extra={"format": "uri", "pattern": LOOPBACK_OR_HTTPS},
    )
    enforce_domain_allow_list: Flag = Field(
        default=False,
        description="Let Daytona enforce `network.allowDomains` (at most 10). Otherwise they are ignored.",
    )
    kms_key_arn: KmsKeyArn | None = Field(
        default=None,
        description="KMS key of a workspace bucket encrypted with SSE-KMS, to be allowed in the credentials.",
    )

    @classmethod
    def _conflicts(cls, given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if given.get("snapshot") is not None and given.get("image") is not None:
            yield (
                "image",
                "can't be given together with snapshot: a sandbox is made from one of them; leave one out",
            )
        # A bucket that the environment names for other programs is no reason to refuse a workspace without S3.
        mounted = given.get("mountAwsS3Buckets") is True and given.get("skillsBucketName") is not None
        usual = cls.model_fields["skills_mount_path"].default
        skills = given.get("skillsMountPath", usual)
        if mounted or skills != usual:
            workspaces = given.get("workspaceRoot", cls.model_fields["workspace_root"].default)
            if isinstance(workspaces, str) and isinstance(skills, str) and _overlap(workspaces, skills):
                yield (
                    "skillsMountPath",
                    "and workspaceRoot overlap; give two directories of which neither lies in the other",
                )

    def __getstate__(self) -> dict[Any, Any]:
        """Leave the API key out of a pickle."""
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "api_key": None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Take the API key from ``DAYTONA_API_KEY`` of the process that unpickles."""
        super().__setstate__({**state, "__dict__": {**state["__dict__"], "api_key": _key_of_this_process()}})


def _key_of_this_process() -> SecretStr | None:
    found = keys.from_environment(SandboxOptions.model_fields["api_key"])
    if found is None:
        return None
    variable, key = found
    try:
        return TypeAdapter(ApiKey).validate_python(key)
    except ValidationError as error:
        text = problems_of(error)[0].text
    text += f"; it comes from the environment variable {variable}: correct that"
    raise config_error(SandboxOptions.__name__, [Problem(("apiKey",), text)])


def _overlap(one: str, other: str) -> bool:
    shorter, longer = sorted((f"{posixpath.normpath(path)}/" for path in (one, other)), key=len)
    return longer.startswith(shorter)
