"""Build the errors of this package for failures of S3. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind
from langchain_daytona_ws.errors import FileError, OutcomeUnknown, PathRefused, WorkspaceError

# Limit of one request (S3 API, PutObject: 5 GB).
LARGEST_PUT_BYTES = 5 * 1000**3

_INFORM_USER = "Nothing was done. Tell the user."
_TRY_LATER = "Nothing was done. Try again later, or tell the user."


@dataclass(frozen=True, slots=True)
class _Message:
    code: str
    remedy: str  # for the engineer; the end of the message
    for_model: str
    retryable: bool = False


_DENIED = _Message(
    "s3_denied",
    "The credentials, or a policy of the bucket, the account or the network, do not allow it. The role needs "
    "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on the keys below the prefix, and "
    "s3:ListBucket on the bucket for this prefix. Check the role's own policy, the bucket's policy, and service "
    "control or endpoint policies.",
    f"The workspace's storage denies access. {_INFORM_USER}",
)
_KMS = _Message(
    "s3_kms_denied",
    "The bucket is encrypted with a KMS key that the credentials cannot use. Set options.kmsKeyArn to that key, allow "
    "kms:Decrypt and kms:GenerateDataKey on it in the role's policy and in the key's, and check that the key is "
    "enabled.",
    f"The workspace's storage cannot be decrypted. {_INFORM_USER}",
)
_CREDENTIALS = _Message(
    "s3_credentials",
    "S3 treats the credentials as expired or unknown, also newly fetched ones. Check options.mountRoleArn, or replace "
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in envVars; and check this machine's clock.",
    f"The workspace's storage does not accept its credentials. {_INFORM_USER}",
)
_UNREACHABLE = _Message(
    "s3_unreachable",
    "Check the network, DNS, any proxy, options.awsRegion and options.s3Endpoint.",
    f"The workspace's storage cannot be reached now. {_TRY_LATER}",
    retryable=True,
)
_THROTTLED = _Message(
    "s3_throttled",
    "S3 asks for fewer requests, or is not available now: try again later, or spread the sessions' work.",
    f"The workspace's storage is overloaded now. {_TRY_LATER}",
    retryable=True,
)
_FAILING = _Message(
    "s3_unavailable",
    "S3, or a proxy, answers with a server error: try again later, and check any proxy and options.s3Endpoint.",
    f"The workspace's storage fails now. {_TRY_LATER}",
    retryable=True,
)
_REFUSED = _Message(
    "s3_refused",
    "See the message of S3.",
    f"The workspace's storage refused this. {_INFORM_USER}",
)
_NO_BUCKET = _Message(
    "s3_no_bucket",
    "The bucket does not exist. Check options.workspaceBucketName (FILESYSTEM_BUCKET_NAME), options.awsRegion and "
    "options.s3Endpoint, or create the bucket.",
    f"The workspace's storage does not exist. {_INFORM_USER}",
)
_REGION = _Message(
    "s3_region",
    "Set options.awsRegion (or AWS_REGION, before the configuration is read) to the bucket's region.",
    f"The workspace's storage is set up for the wrong region. {_INFORM_USER}",
)
_CLOCK = _Message(
    "s3_clock",
    "This machine's clock is too far off for S3: correct it, preferably with NTP.",
    f"This machine's clock is wrong, so the workspace's storage refuses it. {_INFORM_USER}",
)
_SIGNATURE = _Message(
    "s3_signature",
    "The secret key does not belong to the access key, or a proxy changes requests. Check "
    "AWS_SECRET_ACCESS_KEY in envVars, any proxy, and options.s3Endpoint.",
    f"The workspace's storage does not accept its credentials. {_INFORM_USER}",
)
_CERTIFICATE = _Message(
    "s3_certificate",
    "The certificate of the endpoint, or of a proxy, is not trusted here: set AWS_CA_BUNDLE to a file with "
    "the authority's certificate, or check options.s3Endpoint.",
    f"The workspace's storage cannot be reached safely. {_INFORM_USER}",
)
_ARCHIVED = _Message(
    "s3_archived",
    "The object was moved to an archive class. Restore it, or exempt the prefix from the bucket's lifecycle rules.",
    f"The file's content was archived and cannot be read. {_INFORM_USER}",
)
_BY_CODE = {
    "NoSuchBucket": _NO_BUCKET,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "SignatureDoesNotMatch": _SIGNATURE,
    "InvalidObjectState": _ARCHIVED,
    "Certificate": _CERTIFICATE,
}
_BY_KIND = {
    StoreFaultKind.DENIED: _DENIED,
    StoreFaultKind.EXPIRED: _CREDENTIALS,
    StoreFaultKind.UNKNOWN: _UNREACHABLE,
    StoreFaultKind.PASSING: _UNREACHABLE,
}


def store_error(fault: StoreFault, op: str, where: str) -> WorkspaceError:
    """Return the error for a file operation that failed on S3 and changed nothing.

    ``where`` is the bucket and the prefix, for the engineer; ``""`` omits them.
    """
    if fault.code == "KeyTooLongError":
        return PathRefused("The path is longer than the workspace's storage allows.", code="path_too_long")
    message = _message_for(fault)
    region = f" The bucket is in {fault.region}." if fault.region else ""
    location = f" in {where}" if where else ""
    return FileError(
        f"{op}{location} failed: {fault.message}.{region} {message.remedy}",
        code=message.code,
        op=op,
        context={"s3_code": fault.code, "status": fault.status},
        retryable=message.retryable,
        for_model=message.for_model,
    )


def _message_for(fault: StoreFault) -> _Message:
    if fault.code in _BY_CODE:
        return _BY_CODE[fault.code]
    if fault.code.startswith("KMS.") or (
        fault.kind is StoreFaultKind.DENIED and "kms" in fault.message.lower()
    ):
        return _KMS
    if fault.kind is StoreFaultKind.PASSING and fault.status is not None:
        return _FAILING if fault.status in (500, 502, 504) else _THROTTLED
    return _BY_KIND.get(fault.kind, _REFUSED)


def outcome_unknown(op: str, reason: str) -> OutcomeUnknown:
    """Return the error for a change that may have been applied."""
    return OutcomeUnknown(
        f"The {op} was sent to S3 and its outcome is unknown: {reason}. It was not sent again if that could have "
        "applied it twice. Check the network and any proxy.",
        op=op,
        for_model="The outcome of this change is unknown: it may have been applied. Read the file before you go on.",
    )


def too_large(size_bytes: int) -> FileError:
    return FileError(
        f"The content has {size_bytes:,} bytes, over the limit of {LARGEST_PUT_BYTES:,}.",
        code="too_large",
        op="write",
    )
