"""Where the workspace's files live in S3, settled from the configuration; and who may reach them."""

from __future__ import annotations

from dataclasses import dataclass, field

from langchain_daytona_ws._core.store import Credentials
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.config.problems import FOR_MODEL
from langchain_daytona_ws.errors import ConfigError

# What S3-compatible services call the region that they do not have.
ENDPOINT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Mount:
    """One prefix of a bucket, and the directory of the sandbox where it is mounted."""

    bucket: str
    prefix: str  # "" for the whole bucket, otherwise it ends with "/"
    directory: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class MountRole:
    """The role whose short-lived credentials reach nothing but this workspace (and read the skills)."""

    arn: str
    external_id: str | None
    region: str  # of STS
    endpoint: str | None  # of STS; None for AWS


@dataclass(frozen=True, slots=True)
class S3Workspace:
    """A workspace that is a prefix of a bucket. Exactly one of ``role`` and ``keys`` is there."""

    region: str
    endpoint: str | None
    workspace: Mount
    skills: Mount | None
    kms_key_arn: str | None
    role: MountRole | None
    keys: Credentials | None = field(repr=False)

    @property
    def mounts(self) -> tuple[Mount, ...]:
        return (self.workspace,) if self.skills is None else (self.workspace, self.skills)


def s3_workspace(config: SandboxConfig, namespace: str) -> S3Workspace | None:
    """Settle the S3 workspace that a configuration asks for; None when it asks for none.

    Raises:
        ConfigError: There is no bucket, no region or nobody to give credentials; with every remedy.
    """
    options = config.options
    if not options.mount_aws_s3_buckets:
        return None
    if options.workspace_bucket_name is None:
        raise _missing(
            "options.workspaceBucketName",
            "options.mountAwsS3Buckets needs a bucket; set options.workspaceBucketName, or the environment "
            "variable FILESYSTEM_BUCKET_NAME before the configuration is read",
            "bucket_missing",
        )
    region = options.aws_region or (ENDPOINT_REGION if options.s3_endpoint else None)
    if region is None:
        raise _missing(
            "options.awsRegion",
            "options.mountAwsS3Buckets needs the bucket's region; set options.awsRegion, or the environment "
            "variable AWS_REGION or AWS_DEFAULT_REGION before the configuration is read",
            "region_missing",
        )
    skills = options.skills_bucket_name
    role = options.mount_role_arn
    return S3Workspace(
        region=region,
        endpoint=options.s3_endpoint,
        workspace=Mount(
            options.workspace_bucket_name,
            f"sandbox/{namespace}/",
            f"{options.workspace_root}/{namespace}",
        ),
        skills=None if skills is None else Mount(skills, "", options.skills_mount_path, read_only=True),
        kms_key_arn=options.kms_key_arn,
        role=None
        if role is None
        else MountRole(
            role, options.mount_role_external_id, options.sts_region or region, options.sts_endpoint
        ),
        keys=None if role is not None else _given_keys(config),
    )


def _given_keys(config: SandboxConfig) -> Credentials:
    given = {name: value.get_secret_value() for name, value in config.env_vars.items()}
    key, secret = given.get("AWS_ACCESS_KEY_ID"), given.get("AWS_SECRET_ACCESS_KEY")
    if key and secret:
        return Credentials(key, secret, given.get("AWS_SESSION_TOKEN") or None)
    raise _missing(
        "options.mountRoleArn",
        "options.mountAwsS3Buckets needs credentials for the bucket; set options.mountRoleArn (or the environment "
        "variable SANDBOX_MOUNT_ROLE_ARN) to a role that may be assumed with this machine's own credentials, or "
        "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if they have one) in envVars, "
        "which every command in the sandbox can read. This machine's own credentials are never sent there",
        "credentials_missing",
    )


def _missing(path: str, problem: str, code: str) -> ConfigError:
    return ConfigError(
        f"{path}: {problem}.", code=code, op="validate", context={"paths": [path]}, for_model=FOR_MODEL
    )
