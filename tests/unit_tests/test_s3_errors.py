"""The errors for failures of S3: code, remedy, and what the model reads."""

from __future__ import annotations

import pytest

from langchain_daytona_ws._core.s3 import errors
from langchain_daytona_ws._core.s3.errors import store_error
from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind
from langchain_daytona_ws.errors import PathRefused

# Kind of the fault, error code of S3, code of our error, part of the remedy.
ERRORS = [
    ("DENIED", "AccessDenied", "s3_denied", "s3:ListBucket"),
    ("REFUSED", "NoSuchBucket", "s3_no_bucket", "workspaceBucketName"),
    (
        "REFUSED",
        "PermanentRedirect",
        "s3_region",
        "The bucket is in eu-west-1. Set options.awsRegion",
    ),
    ("REFUSED", "AuthorizationHeaderMalformed", "s3_region", "options.awsRegion"),
    ("REFUSED", "IllegalLocationConstraintException", "s3_region", "options.awsRegion"),
    ("REFUSED", "RequestExpired", "s3_clock", "NTP"),
    ("REFUSED", "RequestTimeTooSkewed", "s3_clock", "NTP"),
    ("REFUSED", "SignatureDoesNotMatch", "s3_signature", "AWS_SECRET_ACCESS_KEY"),
    ("REFUSED", "InvalidObjectState", "s3_archived", "Restore"),
    ("REFUSED", "KMS.DisabledException", "s3_kms_denied", "kms:Decrypt"),
    ("REFUSED", "Certificate", "s3_certificate", "AWS_CA_BUNDLE"),
    ("REFUSED", "Odd", "s3_refused", "message of S3"),
    ("EXPIRED", "ExpiredToken", "s3_credentials", "mountRoleArn"),
    ("PASSING", "SlowDown", "s3_throttled", "later"),
    ("PASSING", "", "s3_unreachable", "network"),
    ("UNKNOWN", "", "s3_unreachable", "network"),
    ("MISSING", "", "s3_refused", "message of S3"),
    ("CHANGED", "", "s3_refused", "message of S3"),
]


def test_every_code_with_a_message_has_a_row() -> None:
    assert set(errors._BY_CODE) <= {code for _, code, _, _ in ERRORS}


@pytest.mark.parametrize(("kind", "code", "expected", "remedy"), ERRORS)
def test_an_error_names_its_remedy(kind: str, code: str, expected: str, remedy: str) -> None:
    region = "eu-west-1" if code == "PermanentRedirect" else ""
    fault = StoreFault(
        StoreFaultKind[kind], "it said no", code=code, region=region, status=503 if code else None
    )
    error = store_error(fault, "read", "s3://tenants/sandbox/demo/")
    assert (error.code, error.op, remedy in error.message) == (expected, "read", True)
    assert error.message.startswith("read in s3://tenants/sandbox/demo/ failed: it said no.")
    assert "tenants" not in error.for_model
    assert error.retryable is (kind in ("PASSING", "UNKNOWN"))


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_server_error_is_not_called_throttling(status: int) -> None:
    fault = StoreFault(StoreFaultKind.PASSING, "Internal Server Error", code="500", status=status)
    error = store_error(fault, "read", "")
    assert (error.code, error.retryable) == ("s3_unavailable", True)
    assert "overloaded" not in error.for_model


def test_a_denial_by_kms_has_its_own_error() -> None:
    message = "AccessDenied: role x is not authorized to perform: kms:Decrypt on resource arn:aws:kms:..."
    fault = StoreFault(StoreFaultKind.DENIED, message, code="AccessDenied", status=403)
    assert store_error(fault, "read", "").code == "s3_kms_denied"


def test_a_key_that_is_too_long() -> None:
    fault = StoreFault(StoreFaultKind.REFUSED, "too long", code="KeyTooLongError", status=400)
    assert isinstance(store_error(fault, "write", ""), PathRefused)
