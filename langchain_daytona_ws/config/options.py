"""The model of ``options``: Daytona and S3 settings."""

# No `from __future__ import annotations`: pydantic would evaluate the text of each annotation.

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

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
    IgnorePatterns,
    Image,
    KmsKeyArn,
    Labels,
    Line,
    Region,
    RoleArn,
    User,
    WholeNumber,
    WorkspacePrefix,
    normal_path,
)


class SandboxResources(ConfigModel):
    """Size of the sandbox. For a value that is not given, Daytona's default applies.

    Daytona refuses a size above the organization's limits, by default 4 CPU cores, 8 GiB of memory and 10 GiB of disk.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    cpu: Annotated[int, WholeNumber(1, 512, "CPU cores")] | None = Field(
        default=None, description="CPU cores. Daytona's default: 1."
    )
    memory_gib: Annotated[int, WholeNumber(1, 4096, "GiB")] | None = Field(
        default=None, description="Memory, in GiB. Daytona's default: 1."
    )
    disk_gib: Annotated[int, WholeNumber(1, 65_536, "GiB")] | None = Field(
        default=None, description="Disk, in GiB. Daytona's default: 3."
    )


class SandboxOptions(ConfigModel):
    """Daytona and S3 settings: account, source of the sandbox, mount directories."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "properties": {"snapshot": {"type": "string"}, "image": {"type": "string"}},
                "required": ["snapshot", "image"],
            },
            "dependentSchemas": {
                "resources": {
                    "anyOf": [
                        {"properties": {"resources": {"type": "null"}}},
                        {"properties": {"image": {"type": "string"}}, "required": ["image"]},
                    ]
                }
            },
            "if": {"properties": {"s3Mode": {"const": "sync"}}, "required": ["s3Mode"]},
            "then": {"properties": {"mountAwsS3Buckets": {"const": True}}, "required": ["mountAwsS3Buckets"]},
            "else": {"properties": {"syncIgnore": {"maxItems": 0}, "syncLimitBytes": {"type": "null"}}},
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
            "Id of the Daytona organization. It is an error if the API key belongs to another organization."
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
        description=(
            "Daytona snapshot to start from; not together with `image`. Without both, Daytona's default "
            "snapshot is used."
        ),
    )
    image: Image | None = Field(
        default=None,
        description=(
            "Docker/OCI image to create the sandbox from, in Python also a `daytona.Image`; "
            "not together with `snapshot`."
        ),
    )
    resources: SandboxResources | None = Field(
        default=None,
        description="Size of the sandbox. Only with `image`: a snapshot has its own size.",
    )
    user: User | None = Field(
        default=None,
        description=(
            "User in the sandbox that commands run as. The image must have this user. Default: the user of "
            "the image."
        ),
    )
    labels: Labels = Field(
        default_factory=dict,
        description=(
            "Labels of the sandbox in Daytona: names and their values, which are not secret. They are added to a "
            "persistent sandbox that exists already. The names of this package's own labels are reserved."
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
            "`true` = keep the workspace in S3, below `workspacePrefix`; `false` = keep it on the sandbox's "
            "own disk, where it is lost with the sandbox."
        ),
    )
    s3_mode: Literal["mount", "sync"] = Field(
        default="mount",
        description=(
            "How commands access an S3 workspace: `mount` = through mount-s3, which the snapshot must "
            "contain; `sync` = as a copy on the sandbox's disk, which is synchronised with S3 before and "
            "after each command."
        ),
    )
    sync_ignore: IgnorePatterns = Field(
        default=(),
        description=(
            "gitignore patterns of files that stay in the sandbox: they are neither saved to S3 nor read from it. "
            "Only with `s3Mode` `sync`."
        ),
    )
    sync_limit_bytes: Annotated[int, WholeNumber(1, 2**53 - 1, "bytes")] | None = Field(
        default=None,
        description=(
            "Maximum total size of the files that are downloaded before a command. If they are larger, the "
            "command does not run. Default: half of the sandbox's free disk. Only with `s3Mode` `sync`."
        ),
    )
    workspace_prefix: WorkspacePrefix = Field(
        default="sandbox/{namespace}/",
        description="Prefix of a workspace in the bucket; `{namespace}` is replaced by the workspace's name.",
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
        description="S3 bucket with skills, which are read-only in the sandbox.",
        json_schema_extra={keys.ENV: "SKILLS_BUCKET_NAME"},
    )
    skills_mount_path: Directory = Field(
        default="/mnt/skills",
        description=(
            "Absolute directory in the sandbox with the content of the skills bucket; "
            "neither above nor below `workspaceRoot`."
        ),
        json_schema_extra={"pattern": "^/"},
    )
    file_access: Literal["s3", "sandbox"] = Field(
        default="s3",
        description=(
            "How `workspace_file` accesses an S3 workspace: `s3` = directly, without a sandbox; a write never"
            " overwrites a change of another agent that was not read. `sandbox` = in the sandbox; with "
            "`s3Mode` `mount`, a write may overwrite such a change."
        ),
    )
    mount_role_arn: RoleArn | None = Field(
        default=None,
        description=(
            "IAM role for S3; its credentials are restricted to the prefix of the workspace. "
            "Default: the AWS keys in `envVars`."
        ),
        json_schema_extra={keys.ENV: "SANDBOX_MOUNT_ROLE_ARN"},
    )
    mount_role_external_id: ExternalId | None = Field(
        default=None,
        description="External id that the role's trust policy requires.",
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
        description=(
            "Enforce `network.allowDomains` (at most 10) in Daytona. By default, the domains are ignored."
        ),
    )
    kms_key_arn: KmsKeyArn | None = Field(
        default=None,
        description=(
            "ARN of the KMS key of a workspace bucket that is encrypted with SSE-KMS. The credentials allow "
            "the use of this key."
        ),
    )

    @classmethod
    def _conflicts(cls, given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if given.get("snapshot") is not None and given.get("image") is not None:
            yield (
                "image",
                "can't be combined with snapshot: a sandbox is created from one of them; leave the other out",
            )
        resources = given.get("resources")
        if resources is not None and given.get("image") is None:
            yield (
                "resources",
                "is for sandboxes from an image: a snapshot has its own size; set options.image, or build a snapshot "
                "of this size and leave resources out",
            )
        if resources in ({}, SandboxResources()):
            yield "resources", "names no size; give cpu, memoryGiB or diskGiB, or leave it out"
        if given.get("s3Mode") == "sync":
            if given.get("mountAwsS3Buckets") is not True:
                yield (
                    "s3Mode",
                    '"sync" needs a workspace in S3: set options.mountAwsS3Buckets to true, or leave s3Mode out',
                )
        else:
            for key in ("syncIgnore", "syncLimitBytes"):
                if given.get(key):
                    yield key, 'is for the s3Mode "sync" only; set options.s3Mode to "sync", or leave it out'
        # Without S3, ignore a skills bucket: its name may be in the environment for other programs.
        mounted = given.get("mountAwsS3Buckets") is True and given.get("skillsBucketName") is not None
        default = cls.model_fields["skills_mount_path"].default
        skills = given.get("skillsMountPath", default)
        if mounted or skills != default:
            workspaces = given.get("workspaceRoot", cls.model_fields["workspace_root"].default)
            if isinstance(workspaces, str) and isinstance(skills, str) and _overlap(workspaces, skills):
                yield (
                    "skillsMountPath",
                    "overlaps with workspaceRoot; use two directories, neither below the other",
                )

    def __getstate__(self) -> dict[Any, Any]:
        """Return the state for a pickle, without the API key."""
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "api_key": None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Restore a pickled object; read the API key from the environment variable ``DAYTONA_API_KEY``."""
        super().__setstate__({**state, "__dict__": {**state["__dict__"], "api_key": _key_from_environment()}})


def _key_from_environment() -> SecretStr | None:
    found = keys.from_environment(SandboxOptions.model_fields["api_key"])
    if found is None:
        return None
    variable, key = found
    try:
        return TypeAdapter(ApiKey).validate_python(key)
    except ValidationError as error:
        text = problems_of(error)[0].text
    text += f"; it comes from the environment variable {variable}: correct its value"
    raise config_error(SandboxOptions.__name__, [Problem(("apiKey",), text)])


def _overlap(first: str, second: str) -> bool:
    shorter, longer = sorted((f"{normal_path(path)}/" for path in (first, second)), key=len)
    return longer.startswith(shorter)
