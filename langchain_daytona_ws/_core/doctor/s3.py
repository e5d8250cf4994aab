"""Findings about an S3 workspace, from the answers of S3."""

from __future__ import annotations

from langchain_daytona_ws._core.doctor.finding import Finding, failed, ok, warning
from langchain_daytona_ws._core.mount.rename_probe import (
    LOSES_FILES,
    LOSES_FILES_REMEDY,
    UNKNOWN_REMEDY,
    Probed,
    Renames,
)

_HEAD = (
    "S3 answers 403 to a HEAD of a key that is missing, so that mount-s3 answers EIO: bash cannot create new files in "
    "the workspace"
)
# Without permission to list a key, S3 answers 403 if the key is missing (S3 API, HeadObject). The policy in mount-s3's
# documentation gives this permission. So a 403 is caused by a narrower condition on s3:prefix, or by a service that is
# not AWS S3.
_NARROW = (
    "s3:ListBucket is allowed for the prefix itself and not for the keys below it: in every policy that applies (the "
    "role's or the keys' own, the bucket's, the organization's) the condition has to be StringLike, with s3:prefix "
    'ending in "/*", and s3:GetObject has to be allowed there.'
)
_UNAFFECTED = "workspace_file is not affected while options.fileAccess is s3, the default."
_SERVICE = (
    "The credentials may list below the prefix, but this service takes no condition on s3:prefix for a HEAD. "
)
_SERVICE_ROLE = (
    f"{_SERVICE}The session policy has one, since it keeps workspaces apart, and no setting removes it. {_UNAFFECTED} "
    "For bash to create files, use keys in envVars in place of options.mountRoleArn, that may s3:ListBucket without a "
    "condition; they list the whole bucket, so give each tenant one of its own."
)
_SERVICE_KEYS = (
    f"{_SERVICE}Allow the keys s3:ListBucket without a condition; they then list the whole bucket, so give each tenant "
    f"one of its own. {_UNAFFECTED}"
)


def given_keys(*, has_token: bool) -> Finding:
    if has_token:
        return warning(
            "s3-credentials",
            "the keys in envVars have a session token, so they expire at an unknown time",
            "They are not renewed: the workspace stops when they expire. Use options.mountRoleArn for a workspace that "
            "keeps working.",
        )
    return ok("s3-credentials", "the keys in envVars are used; they do not expire")


def content_differs() -> Finding:
    return failed(
        "s3-write",
        "S3 did not return the content that had just been written",
        "A proxy or the service changes or caches objects: check any proxy, and options.s3Endpoint.",
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


def missing_is_forbidden(*, lists_below: bool, has_role: bool) -> Finding:
    """Return the finding for a 403 answer to a HEAD of a missing key.

    Args:
        lists_below: True if S3 allows listing the keys that begin with the missing key.
        has_role: True for credentials of a role, which the session policy limits; False for keys from envVars.
    """
    if not lists_below:
        return failed("s3-new-file", _HEAD, _NARROW, "listing_too_narrow")
    return failed("s3-new-file", _HEAD, _SERVICE_ROLE if has_role else _SERVICE_KEYS, "missing_is_forbidden")


def unexpected_object() -> Finding:
    return failed(
        "s3-new-file",
        "S3 reports an object that was never written",
        "A proxy or the service invents answers: check any proxy, and options.s3Endpoint.",
        "inconsistent",
    )


def renames(probed: Probed, endpoint: str) -> Finding:
    """Return the finding for a store's answer to renaming an object that does not exist."""
    left = f" The empty object {probed.left} was left below the prefix: delete it." if probed.left else ""
    if probed.renames is Renames.ACCEPTED:
        return failed(
            "s3-renames",
            LOSES_FILES.format(endpoint=endpoint),
            LOSES_FILES_REMEDY + left,
            "renames_lose_files",
        )
    if probed.renames is Renames.REFUSED:
        return ok("s3-renames", f"the store refuses RenameObject, as mount-s3 needs ({probed.detail})")
    if probed.renames is Renames.NOT_TESTED:
        return warning(
            "s3-renames",
            f"the store refuses these credentials, so it is unknown whether it loses renamed files ({probed.detail})",
            "Allow s3:PutObject below the prefix, and try again.",
        )
    return failed(
        "s3-renames",
        f"it is unknown whether the store loses renamed files ({probed.detail}), so it is not mounted",
        UNKNOWN_REMEDY + left,
        "renames_unknown",
    )


def boundary(reached: str | None, *, has_role: bool) -> Finding:
    """Return the finding for access to another namespace's prefix.

    Args:
        reached: The access that succeeded, ``listed`` or ``read``; None if all access was refused.
        has_role: As in `missing_is_forbidden`.
    """
    if has_role and reached is None:
        return ok("s3-boundary", "another namespace's prefix is refused")
    if has_role:
        return failed(
            "s3-boundary",
            f"another namespace's prefix could be {reached} with the role's credentials",
            "Either this service ignores session policies, or the bucket's policy grants the session itself (as "
            "a principal arn:aws:sts::…:assumed-role/…), which no session policy limits. Until that is corrected, "
            "every workspace in the bucket is open to every agent.",
            "no_boundary",
        )
    access = "is refused" if reached is None else f"can be {reached}"
    return warning(
        "s3-boundary",
        "the keys in envVars are not limited to the workspace, and every command can read them; another namespace's "
        f"prefix {access}",
        "Use options.mountRoleArn, whose credentials are limited to the workspace, or keys with a policy that is "
        "limited to it.",
    )
