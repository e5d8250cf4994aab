"""The session policy, which limits credentials to one workspace, and the session's name."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from langchain_daytona_ws._core.s3.workspace import S3Workspace

# Maximum length of RoleSessionName (STS API, AssumeRole). A namespace has only characters that STS allows in the name.
SESSION_NAME_LENGTH = 64

# For messages about denied access; ``{prefix}`` is the prefix of the workspace.
PERMISSIONS_REMEDY = (
    "The role (options.mountRoleArn) or the keys in envVars need s3:ListBucket on the bucket and s3:GetObject, "
    "s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on {prefix}*; the bucket's own policy must not deny "
    "it. With options.skillsBucketName, also s3:ListBucket and s3:GetObject on that bucket."
)


def session_policy(workspace: S3Workspace) -> str:
    """Return the session policy of a workspace as minified JSON.

    The role's own policies must allow the same actions: IAM grants only what both allow.

    The prefix ends with "/", because "sandbox/a" would also allow a listing of "sandbox/a2/". mount-s3 and this package
    list with this "/". A prefix has no character that is a wildcard or a variable in a policy.
    """
    partition = workspace.role.arn.split(":")[1] if workspace.role else "aws"
    bucket = f"arn:{partition}:s3:::{workspace.workspace.bucket}"
    objects = f"{workspace.workspace.prefix}*"
    statements = [
        _allow(
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            f"{bucket}/{objects}",
        ),
        {
            **_allow("s3:ListBucket", bucket),
            # This condition also refuses a listing without a prefix.
            "Condition": {"StringLike": {"s3:prefix": objects}},
        },
    ]
    if workspace.skills:
        skills = f"arn:{partition}:s3:::{workspace.skills.bucket}"
        statements.append(_allow(["s3:ListBucket", "s3:GetObject"], [skills, f"{skills}/*"]))
    if workspace.kms_key_arn:
        # When a mount completes an upload, S3 decrypts the parts, so writing needs both permissions.
        statements.append(_allow(["kms:Decrypt", "kms:GenerateDataKey"], workspace.kms_key_arn))
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def session_name(workspace: S3Workspace) -> str:
    """Return the session's name for the account's logs. It contains the namespace, or its beginning and a hash."""
    namespace = workspace.workspace.directory.rpartition("/")[2]
    name = f"ldw-{namespace}"
    if len(name) <= SESSION_NAME_LENGTH:
        return name
    tail = hashlib.sha256(namespace.encode()).hexdigest()[:12]
    return f"{name[: SESSION_NAME_LENGTH - len(tail) - 1]}-{tail}"


def _allow(actions: str | list[str], resources: str | list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}
