"""Errors of assuming a role, each with its remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping

from langchain_daytona_ws._core.s3.workspace import MountRole
from langchain_daytona_ws.config.problems import quoted
from langchain_daytona_ws.errors import CredentialsRefused

FOR_MODEL = (
    "The workspace's storage is not accessible: it was given no credentials. Nothing was done. Only the person who "
    "runs this agent can correct that."
)
FOR_MODEL_LATER = (
    "The workspace's storage is not accessible just now. Nothing was done. Try again later, or tell the user."
)

_OTHERWISE = (
    " Or leave options.mountRoleArn out (and unset SANDBOX_MOUNT_ROLE_ARN), and give AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY in envVars."
)
_SIGN_IN = "Renew them: sign in again, or replace the keys and the session token."
_DENIED = (
    "The role's trust policy must let this machine's identity call sts:AssumeRole, under the external id of "
    "options.mountRoleExternalId if it asks for one; that identity's own policies must allow it too. AWS "
    "gives the same answer for a role that does not exist: check options.mountRoleArn (SANDBOX_MOUNT_ROLE_ARN)."
)
_TOO_LARGE = (
    "AWS limits the size of the session policy together with the session tags of this machine's identity: use shorter "
    "names of buckets and namespace, leave out options.kmsKeyArn or the skills, or pass fewer tags."
)
_BY_CODE = {
    ("AccessDenied", "AccessDeniedException"): ("role_denied", _DENIED),
    ("PackedPolicyTooLarge", "PackedPolicyTooLargeException"): ("policy_too_large", _TOO_LARGE),
    ("MalformedPolicyDocument", "MalformedPolicyDocumentException"): (
        "policy_malformed",
        "Check the names of the buckets and options.kmsKeyArn; an S3-compatible service may not support "
        "every element of a policy.",
    ),
    ("RegionDisabledException", "RegionDisabled"): (
        "sts_region_disabled",
        "Activate STS for that region in the account settings of IAM, or set options.stsRegion "
        "(SANDBOX_MOUNT_STS_REGION) to a region where it is active.",
    ),
    ("ExpiredToken", "ExpiredTokenException"): (
        "host_credentials_expired",
        f"This machine's own AWS credentials have expired. {_SIGN_IN}",
    ),
    ("RequestExpired", "RequestTimeTooSkewed"): ("clock", "Set this machine's clock right."),
    (
        "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "InvalidAccessKeyId",
        "IncompleteSignature", "AuthFailure",
    ): (
        "host_credentials_invalid",
        "AWS does not know this machine's own credentials, or they do not belong to this service or partition. Check "
        "which ones boto3 finds (environment, AWS_PROFILE, instance role), and this machine's clock.",
    ),
    ("ValidationError", "InvalidParameterValue"): (
        "role_invalid",
        "Check options.mountRoleArn (SANDBOX_MOUNT_ROLE_ARN) and options.mountRoleExternalId.",
    ),
}  # fmt: skip
_REMEDIES = {code: remedy for codes, remedy in _BY_CODE.items() for code in codes}
_PASSING = re.compile(
    r"Throttl|TooManyRequests|RequestLimitExceeded|ServiceUnavailable|InternalFailure|SlowDown"
)
_PACKED = re.compile(r"consumes\s+(\d{1,6})\s*%", re.ASCII)


def host_refused(error: Exception | None) -> CredentialsRefused:
    """Return the error for host credentials that are missing (``error`` may be None) or cannot be read or renewed."""
    kind = type(error).__name__
    if error is None or kind in ("PartialCredentialsError", "ProfileNotFound"):
        # The texts of these two errors name a variable or a profile, and contain no secret.
        which = f" ({quoted(str(error), 200)})" if error else ""
        return _error(
            f"This machine has no AWS credentials with which to assume the role{which}. Give it some, as environment "
            f"variables, as a profile (AWS_PROFILE), by single sign-on or as an instance's role.{_OTHERWISE}",
            "host_credentials_missing",
        )
    if isinstance(error, RuntimeError):
        # botocore raises RuntimeError if the renewed credentials have expired too.
        return _error(
            f"This machine's own AWS credentials have expired. {_SIGN_IN}", "host_credentials_expired"
        )
    return _error(
        f"This machine's own AWS credentials could not be read or renewed ({kind}{_code_of(error)}). Check the "
        f"profile, the program or the service that they come from, and sign in again if need be.{_OTHERWISE}",
        "host_credentials_unusable",
        retryable=_is_connection(error),
    )


def refused(error: Exception, role: MountRole, *, reason: str) -> CredentialsRefused:
    """Return the error for a role that could not be assumed.

    Args:
        error: boto3's exception. Its text is not shown, because it may quote requests and responses.
        role: The role, with the address of the service.
        reason: The service's message, without secrets.
    """
    service = _service_code(error)
    tried = f"The role {role.arn} could not be assumed at {_service_of(role)}"
    if _is_certificate(error):
        return _error(
            f"{tried}: its certificate was not accepted. Where a proxy or a company's own authority signs it, set "
            "AWS_CA_BUNDLE to a PEM file that holds that authority's certificate and the public ones (boto3 reads "
            "neither SSL_CERT_FILE nor REQUESTS_CA_BUNDLE). Otherwise check options.stsEndpoint and this machine's "
            "clock.",
            "sts_certificate",
        )
    if _is_connection(error):
        return _error(
            f"{tried}: there was no answer ({type(error).__name__}). Check the network, any proxy, and "
            "options.stsRegion (SANDBOX_MOUNT_STS_REGION) or options.stsEndpoint.",
            "sts_unreachable",
            retryable=True,
        )
    if not service:
        return _error(
            f"{tried}: the request could not be made, or its answer not be read ({type(error).__name__}). Check "
            "options.stsRegion (SANDBOX_MOUNT_STS_REGION) and options.stsEndpoint, and the proxy if there is one.",
            "sts_unreadable",
        )
    answer = f"{tried}: {quoted(service)[1:-1]}" + (f", {quoted(reason, 400)}" if reason else "")
    facts: dict[str, object] = {"service_code": service[:60]}
    if service in _REMEDIES:
        code, remedy = _REMEDIES[service]
        packed = _PACKED.search(reason) if code == "policy_too_large" else None
        if packed:
            remedy = f"PackedPolicySize is {packed[1]} % of what is allowed. {remedy}"
            facts["packed_policy_percent"] = int(packed[1])
        return _error(f"{answer}. {remedy}", code, facts=facts)
    if _PASSING.search(service) or _status(error) >= 500:
        return _error(f"{answer}. Try again later.", "sts_unavailable", retryable=True, facts=facts)
    return _error(f"{answer}. {_DENIED}", "role_refused", facts=facts)


def unusable(problem: str, role: MountRole) -> CredentialsRefused:
    """Return the error for issued credentials that cannot be used."""
    return _error(
        f"The credentials of the role {role.arn} from {_service_of(role)} cannot be used: {problem}. Check "
        "options.stsEndpoint, any proxy, and the clock.",
        "sts_unreadable",
    )


def _error(
    message: str, code: str, *, retryable: bool = False, facts: Mapping[str, object] | None = None
) -> CredentialsRefused:
    return CredentialsRefused(
        message,
        code=code,
        op="credentials",
        context=facts,
        retryable=retryable,
        for_model=FOR_MODEL_LATER if retryable else FOR_MODEL,
    )


def _service_of(role: MountRole) -> str:
    return role.endpoint or f"STS in {role.region}"


def _service_code(error: Exception) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _code_of(error: Exception) -> str:
    service = _service_code(error)
    return f", {quoted(service)[1:-1]}" if service else ""


def _status(error: Exception) -> int:
    response = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def _is_certificate(error: Exception) -> bool:
    from botocore.exceptions import SSLError

    return isinstance(error, SSLError) and "CERTIFICATE" in str(error)


def _is_connection(error: Exception) -> bool:
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError

    return isinstance(error, NoConnection | HTTPClientError)
