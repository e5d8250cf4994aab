"""The session policy: what the credentials of one workspace may do, and nothing else; and the session's name."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from langchain_daytona_ws._core.s3.workspace import S3Workspace

# STS API, AssumeRole, RoleSessionName: 2 to 64 characters, among them all that a namespace may have.
SESSION_NAME_LENGTH = 64


def session_policy(workspace: S3Workspace) -> str:
    """Write the session policy of a workspace as minified JSON.

    Allowed are its objects, listing below its prefix, reading and listing the skills, and with SSE-KMS the use of
    the key. What a role's own policies do not allow as well stays denied (IAM: an intersection).

    The prefixes of listings end in "/" or go on behind it, as mount-s3 and this package send them: "sandbox/a"
    would also list "sandbox/a2/". A namespace has no character that a policy reads as a wildcard or a variable.

    Args:
        workspace: Its role's ARN names the partition, for the ARNs of the buckets.
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
            # A request without a prefix has no such key in its context, and does not meet the condition.
            "Condition": {"StringLike": {"s3:prefix": objects}},
        },
    ]
    if workspace.skills:
        skills = f"arn:{partition}:s3:::{workspace.skills.bucket}"
        statements.append(_allow(["s3:ListBucket", "s3:GetObject"], [skills, f"{skills}/*"]))
    if workspace.kms_key_arn:
        # A mount's parts of uploads are decrypted when the upload completes, so writing takes both.
        statements.append(_allow(["kms:Decrypt", "kms:GenerateDataKey"], workspace.kms_key_arn))
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def session_name(workspace: S3Workspace) -> str:
    """Name the session, for the account's own logs, after the namespace; distinct also where that is too long."""
    namespace = workspace.workspace.prefix.rstrip("/").rpartition("/")[2]
    name = f"ldw-{namespace}"
    if len(name) <= SESSION_NAME_LENGTH:
        return name
    tail = hashlib.sha256(namespace.encode()).hexdigest()[:12]
    return f"{name[: SESSION_NAME_LENGTH - len(tail) - 1]}-{tail}"


def _allow(actions: str | list[str], resources: str | list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}
