"""Connects to S3, and makes sure at once that the prefix may be listed."""

from __future__ import annotations

import argparse
import os
from typing import Any

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnection

from . import credentials
from .arguments import VERSION
from .bucket import FAILURES, status

CONNECTIONS = 16


class Failed(Exception):
    """The mount cannot be made. Written as the original writes it, with what caused it below."""

    def __init__(self, message: str, *causes: str) -> None:
        super().__init__(message)
        self.causes = causes

    def __str__(self) -> str:
        text = f"Error: {self.args[0]}"
        if not self.causes:
            return text
        numbered = len(self.causes) > 1
        lines = [
            f"    {number}: {cause}" if numbered else f"    {cause}"
            for number, cause in enumerate(self.causes)
        ]
        return "\n".join([text, "", "Caused by:", *lines])


class Unreachable(Exception):
    """S3 gave no answer."""


def client(options: argparse.Namespace) -> Any:
    """Return a client that has listed the prefix, in the bucket's region if none was asked for.

    Raises:
        Failed: S3 refuses.
        Unreachable: S3 gave no answer.
    """
    chosen = options.region or os.environ.get("AWS_REGION")
    region = chosen or "us-east-1"
    try:
        made = _make(options, region)
    except (BotoCoreError, ValueError) as error:
        raise Failed("Failed to create S3 client", str(error)) from error
    try:
        _list(made, options)
    except (NoConnection, HTTPClientError) as error:
        raise Unreachable from error
    except FAILURES as error:
        actual = _other_region(error)
        if actual is None or chosen:
            raise _refused(options.bucket, region, error) from error
    else:
        return made
    made = _make(options, actual)
    try:
        _list(made, options)
    except FAILURES as error:
        raise _refused(options.bucket, actual, error) from error
    return made


def _make(options: argparse.Namespace, region: str) -> Any:
    session = credentials.session(options.profile)
    config = Config(
        region_name=region,
        signature_version=UNSIGNED if options.no_sign_request else None,
        s3={
            "addressing_style": "path" if options.force_path_style else "auto",
            "use_accelerate_endpoint": options.transfer_acceleration,
        },
        use_dualstack_endpoint=options.dual_stack or None,
        # The original's CRC32C is not at hand in plain Python; without a checksum no store refuses an upload.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=CONNECTIONS,
        user_agent_extra=f"mountpoint-s3/{VERSION}",
    )
    made = session.create_client("s3", endpoint_url=options.endpoint_url, config=config)
    # The original follows no redirect to another region, so botocore is told that it has done so already.
    made.meta.events.register_last("before-parameter-build.s3", _follow_nothing)
    return made


def _follow_nothing(context: dict[str, Any], **_: Any) -> None:
    context.setdefault("s3_redirect", {})["redirected"] = True


def _list(made: Any, options: argparse.Namespace) -> None:
    made.list_objects_v2(Bucket=options.bucket, Prefix=options.prefix, MaxKeys=0)


def _other_region(error: Exception) -> str | None:
    if not isinstance(error, ClientError):
        return None
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    found: str | None = headers.get("x-amz-bucket-region")
    return found if status(error) in (301, 307, 400) else None


def _refused(bucket: str, region: str, error: Exception) -> Failed:
    first = f"initial ListObjectsV2 failed for bucket {bucket} in region {region}"
    return Failed("Failed to create S3 client", first, *_reason(error))


def _reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, (NoCredentialsError, CredentialRetrievalError)):
        return "Client error", "No signing credentials available, see CRT debug logs"
    if not isinstance(error, ClientError):
        return "Client error", f"Unknown CRT error: {error}"
    told = error.response.get("Error", {})
    code, message = told.get("Code", ""), told.get("Message", "")
    actual = _other_region(error)
    if actual:
        return "Client error", f"Wrong region (expecting {actual})"
    if code == "NoSuchBucket":
        return "Service error", "The bucket does not exist"
    if status(error) == 403 or code in ("ExpiredToken", "InvalidToken", "InvalidAccessKeyId"):
        return "Client error", f"Forbidden: {message}"
    return "Client error", f"Unknown response error: {code}: {message}"
