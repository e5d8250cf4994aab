"""What to say of an S3 workspace, where S3 did what it was asked and that is the finding."""

from __future__ import annotations

from langchain_daytona_ws._core.doctor.finding import Finding, failed, ok, warning

_HEAD = (
    "S3 answers 403 to a HEAD of a key that is missing, so that mount-s3 answers EIO: bash cannot create new files in "
    "the workspace"
)
# S3 (API, HeadObject) says 404 to those only who may list, and a HEAD has no prefix that a condition could be met by.
_HEAD_ANYWAY = (
    "workspace_file is not affected, as long as options.fileAccess is s3 (the default): it looks by listing. "
)
_HEAD_ROLE = (
    "The session policy allows s3:ListBucket under the condition of the prefix only, which is what keeps workspaces "
    "apart, and this S3 does not take that for a HEAD; no setting changes it while options.mountRoleArn is used. "
    f"{_HEAD_ANYWAY}For bash to create files, use keys in envVars (see s3-boundary) that may s3:ListBucket the bucket "
    "without the condition, and a bucket of its own for each tenant, since they list all of its keys."
)
_HEAD_KEYS = (
    "Allow the keys s3:ListBucket on the bucket without a condition on s3:prefix; they then list all of its keys, so "
    f"give each tenant a bucket of its own. {_HEAD_ANYWAY}"
).rstrip()


def given_keys(*, has_token: bool) -> Finding:
    """Say what is to be known of keys from envVars."""
    if has_token:
        return warning(
            "s3-credentials",
            "the keys in envVars have a session token, and so an end that nobody here knows",
            "Nothing renews them: the workspace stops when they end. Use options.mountRoleArn for a workspace that "
            "goes on.",
        )
    return ok("s3-credentials", "the keys in envVars are used; they do not end")


def not_what_was_written() -> Finding:
    return failed(
        "s3-write",
        "S3 did not give back what had just been written",
        "Something on the way changes or caches objects: check any proxy, and options.s3Endpoint.",
        "inconsistent",
    )


def condition_ignored(header: str) -> Finding:
    return failed(
        "s3-write",
        f"S3 ignores the condition {header}",
        "Without it two agents may overwrite each other's changes unseen. Use AWS S3, or a service that keeps "
        "conditional writes; with options.fileAccess sandbox there is no such guarantee anyway.",
        "condition_ignored",
    )


def missing_is_forbidden(*, has_role: bool) -> Finding:
    return failed("s3-new-file", _HEAD, _HEAD_ROLE if has_role else _HEAD_KEYS, "missing_is_forbidden")


def found_what_is_not_there() -> Finding:
    return failed(
        "s3-new-file",
        "S3 says that there is an object which nobody wrote",
        "Something on the way makes up answers: check any proxy, and options.s3Endpoint.",
        "inconsistent",
    )


def boundary(reached: str | None, *, has_role: bool) -> Finding:
    """Judge whether another namespace's prefix was out of reach.

    Args:
        reached: What could be done there: ``listed`` or ``read``; None when nothing.
        has_role: Whether the credentials are a role's, under the session policy, or keys from envVars.
    """
    if has_role and reached is None:
        return ok("s3-boundary", "another namespace's prefix is refused")
    if has_role:
        return failed(
            "s3-boundary",
            f"another namespace's prefix could be {reached} with the role's credentials",
            "Either this service does not keep session policies, or the bucket's policy grants the session itself (as "
            "a principal arn:aws:sts::…:assumed-role/…), which no session policy limits. Until that is mended, every "
            "workspace in the bucket is open to every agent.",
            "no_boundary",
        )
    seen = "is refused" if reached is None else f"can be {reached}"
    return warning(
        "s3-boundary",
        "the keys in envVars reach whatever they reach, and every command can read them; another namespace's prefix "
        f"{seen}",
        "Use options.mountRoleArn, whose credentials are cut down to the workspace, or keys whose own policy is.",
    )
