"""The location of the workspace in S3, and the access to it, from the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws.config import SandboxConfig, validate_namespace
from langchain_daytona_ws.config.problems import FOR_MODEL
from langchain_daytona_ws.config.values import NAMESPACE_FIELD
from langchain_daytona_ws.errors import ConfigError

# The region name for S3-compatible services, which have no regions.
ENDPOINT_REGION = "us-east-1"

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True, slots=True)
class Mount:
    """A prefix of a bucket, and the directory in the sandbox with its files."""

    bucket: str
    prefix: str  # "" for the whole bucket, otherwise it ends with "/"
    directory: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class MountRole:
    """The role for short-lived credentials, which are limited to this workspace and to reading the skills."""

    arn: str
    external_id: str | None
    region: str  # the region of STS
    endpoint: str | None  # the URL of STS; None for the URL of AWS


@dataclass(frozen=True, slots=True)
class S3Workspace:
    """A workspace in a prefix of a bucket. Exactly one of ``role`` and ``keys`` is set.

    Args:
        region: AWS region of the buckets.
        endpoint: URL of an S3-compatible service; None for AWS.
        skills: The bucket with skills; None without skills.
        kms_key_arn: The key, if the bucket is encrypted with SSE-KMS.
        keys: Keys from envVars.
        mode: ``mount``: the prefix is mounted in the directory. ``sync``: it is synchronised with the directory.
        sync_ignore: gitignore patterns of files that are not synchronised.
        sync_limit_bytes: Largest total size of the files that one pull downloads; None for half of the free disk.
    """

    region: str
    endpoint: str | None
    workspace: Mount
    skills: Mount | None
    kms_key_arn: str | None
    role: MountRole | None
    keys: Credentials | None = field(repr=False)
    mode: Literal["mount", "sync"] = "mount"
    sync_ignore: tuple[str, ...] = ()
    sync_limit_bytes: int | None = None

    @property
    def mounts(self) -> tuple[Mount, ...]:
        return (self.workspace,) if self.skills is None else (self.workspace, self.skills)


def s3_workspace(config: SandboxConfig, namespace: str) -> S3Workspace | None:
    """Return the S3 workspace of a configuration; None if the workspace is not on S3.

    Raises:
        ConfigError: The bucket, the region or the credentials are missing. Or a key in envVars is malformed, the skills
            are in the bucket of the workspaces, or the namespace is invalid.
    """
    options = config.options
    if not options.mount_aws_s3_buckets:
        return None
    if options.workspace_bucket_name is None:
        raise _refusal(
            "options.workspaceBucketName",
            "options.mountAwsS3Buckets needs a bucket; set options.workspaceBucketName, or the environment "
            "variable FILESYSTEM_BUCKET_NAME before the configuration is read",
            "bucket_missing",
        )
    region = options.aws_region or (ENDPOINT_REGION if options.s3_endpoint else None)
    if region is None:
        raise _refusal(
            "options.awsRegion",
            "options.mountAwsS3Buckets needs the bucket's region; set options.awsRegion, or the environment "
            "variable AWS_REGION or AWS_DEFAULT_REGION before the configuration is read",
            "region_missing",
        )
    skills = options.skills_bucket_name
    if skills == options.workspace_bucket_name:
        raise _refusal(
            "options.skillsBucketName",
            "is also the bucket of the workspaces, so every workspace could read all workspaces; keep the skills in a "
            "separate bucket, or omit them (unset SKILLS_BUCKET_NAME, if it comes from there)",
            "skills_bucket",
        )
    # The prefix separates the tenants, so the namespace is always checked.
    namespace = validate_namespace(namespace)
    role = options.mount_role_arn
    return S3Workspace(
        region=region,
        endpoint=options.s3_endpoint,
        workspace=Mount(
            options.workspace_bucket_name,
            workspace_prefix(config, namespace),
            f"{options.workspace_root}/{namespace}",
        ),
        skills=None if skills is None else Mount(skills, "", options.skills_mount_path, read_only=True),
        kms_key_arn=options.kms_key_arn,
        role=None
        if role is None
        else MountRole(
            role, options.mount_role_external_id, options.sts_region or region, options.sts_endpoint
        ),
        keys=None if role is not None else _required_keys(config),
        mode=options.s3_mode,
        sync_ignore=options.sync_ignore,
        sync_limit_bytes=options.sync_limit_bytes,
    )


def workspace_prefix(config: SandboxConfig, namespace: str) -> str:
    """Return the prefix of a workspace in its bucket; it ends with ``/``."""
    return config.options.workspace_prefix.replace(NAMESPACE_FIELD, namespace)


def _required_keys(config: SandboxConfig) -> Credentials:
    malformed = _malformed_key(config)
    if malformed is not None:
        raise _refusal(
            f"envVars.{malformed}",
            "contains white space, a control or a non-ASCII character (often a final newline); remove it",
            "credentials_malformed",
        )
    keys = _env_keys(config)
    if keys is None:
        raise _refusal(
            "options.mountRoleArn",
            "options.mountAwsS3Buckets needs credentials for the bucket; set options.mountRoleArn (or the environment "
            "variable SANDBOX_MOUNT_ROLE_ARN) to a role that this machine's own credentials can assume, or "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if they have one) in envVars, "
            "which every command in the sandbox can read. This machine's own credentials are never sent there",
            "credentials_missing",
        )
    return keys


# Functions with secrets do not raise: a traceback may show the variables of its frames.


def _env_keys(config: SandboxConfig) -> Credentials | None:
    env_vars = config.plain_env_vars()
    key, secret, token = (env_vars.get(name, "") for name in _KEYS)
    return Credentials(key, secret, token or None) if key and secret else None


def _malformed_key(config: SandboxConfig) -> str | None:
    """Return the name of the first key that an HTTP header cannot contain; None if all are valid."""
    env_vars = config.plain_env_vars()
    for name in _KEYS:
        value = env_vars.get(name, "")
        if not value.isascii() or not value.isprintable() or " " in value:
            return name
    return None


def _refusal(path: str, problem: str, code: str) -> ConfigError:
    return ConfigError(
        f"{path}: {problem}.", code=code, op="validate", context={"paths": [path]}, for_model=FOR_MODEL
    )
