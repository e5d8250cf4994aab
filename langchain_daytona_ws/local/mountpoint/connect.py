"""Connects to S3, and checks at once that the prefix can be listed.

Credentials come from the same sources as in the original, and are refreshed at the same times.
"""

from __future__ import annotations

import argparse
import datetime
import os
from typing import Any

from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import ProcessProvider, RefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.session import Session

from .arguments import VERSION
from .bucket import REQUEST_ERRORS, status

CONNECTIONS = 16
REFRESH_BEFORE_S = 5 * 60  # before the expiry of credentials
# How long credentials without an expiry are used before the credential process runs again.
NO_EXPIRY_LIFETIME_S = 15 * 60
# Sources that botocore reads and the original does not.
_UNSUPPORTED_SOURCES = ("ec2-credentials-file", "boto-config")


class MountFailed(Exception):
    """The mount failed. The text has the original's format: the error, then its causes."""

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
    """S3 did not answer."""


def connect(options: argparse.Namespace) -> Any:
    """Return a client that can list the prefix. If no region is configured, the client uses the bucket's region.

    Raises:
        MountFailed: the client could not be created, or the listing failed.
        Unreachable: S3 did not answer the first request.
    """
    configured = options.region or os.environ.get("AWS_REGION")
    region = configured or "us-east-1"
    try:
        client = _create_client(options, region)
    except (BotoCoreError, ValueError) as error:
        raise MountFailed("Failed to create S3 client", str(error)) from error
    try:
        _list(client, options)
    except (NoConnection, HTTPClientError) as error:
        raise Unreachable from error
    except REQUEST_ERRORS as error:
        required = _required_region(error)
        if required is None or configured:
            raise _connect_error(options.bucket, region, error) from error
    else:
        return client
    client = _create_client(options, required)
    try:
        _list(client, options)
    except REQUEST_ERRORS as error:
        raise _connect_error(options.bucket, required, error) from error
    return client


def _create_client(options: argparse.Namespace, region: str) -> Any:
    session = _session(options.profile)
    config = Config(
        region_name=region,
        signature_version=UNSIGNED if options.no_sign_request else None,
        s3={
            "addressing_style": "path" if options.force_path_style else "auto",
            "use_accelerate_endpoint": options.transfer_acceleration,
        },
        use_dualstack_endpoint=options.dual_stack or None,
        # The original sends CRC32C, which the standard library lacks. Stores accept uploads without a checksum.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=CONNECTIONS,
        user_agent_extra=f"mountpoint-s3/{VERSION}",
    )
    client = session.create_client("s3", endpoint_url=options.endpoint_url, config=config)
    # The original follows no redirect to another region. botocore follows none if the request is marked as redirected.
    client.meta.events.register_last("before-parameter-build.s3", _disable_redirects)
    return client


def _disable_redirects(context: dict[str, Any], **_: Any) -> None:
    context.setdefault("s3_redirect", {})["redirected"] = True


def _list(client: Any, options: argparse.Namespace) -> None:
    client.list_objects_v2(Bucket=options.bucket, Prefix=options.prefix, MaxKeys=0)


def _required_region(error: Exception) -> str | None:
    if not isinstance(error, ClientError):
        return None
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = headers.get("x-amz-bucket-region")
    return region if status(error) in (301, 307, 400) else None


def _connect_error(bucket: str, region: str, error: Exception) -> MountFailed:
    first = f"initial ListObjectsV2 failed for bucket {bucket} in region {region}"
    return MountFailed("Failed to create S3 client", first, *_reason(error))


def _reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, (NoCredentialsError, CredentialRetrievalError)):
        return "Client error", "No signing credentials available, see CRT debug logs"
    if not isinstance(error, ClientError):
        return "Client error", f"Unknown CRT error: {error}"
    fields = error.response.get("Error", {})
    code, message = fields.get("Code", ""), fields.get("Message", "")
    required = _required_region(error)
    if required:
        return "Client error", f"Wrong region (expecting {required})"
    if code == "NoSuchBucket":
        return "Service error", "The bucket does not exist"
    if status(error) == 403 or code in ("ExpiredToken", "InvalidToken", "InvalidAccessKeyId"):
        return "Client error", f"Forbidden: {message}"
    return "Client error", f"Unknown response error: {code}: {message}"


def _session(profile: str | None) -> Session:
    """Return a session with credentials from the environment, the profile, web identity, a container or IMDS.

    In the last five minutes before the expiry, each request runs the credential process again, until the process
    returns a later expiry. If the process fails, the request fails too, although the old credentials are still valid
    (as in the original).
    """
    # Static keys from the environment are never refreshed, even if this variable names their expiry.
    os.environ.pop("AWS_CREDENTIAL_EXPIRATION", None)
    new_session = Session(profile=profile)
    resolver = new_session.get_component("credential_provider")
    for provider in list(resolver.providers):
        if provider.METHOD in _UNSUPPORTED_SOURCES:
            resolver.providers.remove(provider)
        if isinstance(provider, ProcessProvider):
            _set_missing_expiry(provider)
    timeouts: Any = RefreshableCredentials
    timeouts._advisory_refresh_timeout = timeouts._mandatory_refresh_timeout = REFRESH_BEFORE_S
    return new_session


def _set_missing_expiry(process: Any) -> None:
    """Make the provider refresh credentials without an expiry too."""
    retrieve = process._retrieve_credentials_using

    def with_expiry(command: str) -> Any:
        result = retrieve(command)
        if result.get("expiry_time") is None:
            lifetime = datetime.timedelta(seconds=NO_EXPIRY_LIFETIME_S + REFRESH_BEFORE_S)
            result["expiry_time"] = (datetime.datetime.now(datetime.UTC) + lifetime).isoformat()
        return result

    process._retrieve_credentials_using = with_expiry
