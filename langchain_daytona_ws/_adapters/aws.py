"""Credentials for one workspace: keys of the configuration, or a role's credentials for the workspace's prefix only.

No secret may reach a log or a traceback. A traceback may show the variables of its frames, so only functions that hold
no secret raise errors to the caller of this module. Errors are not chained to botocore's errors, which may quote
responses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from langchain_daytona_ws._adapters.aws_errors import host_refused, refused, unusable
from langchain_daytona_ws._adapters.boto_calls import without_debug_log
from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._adapters.s3_bucket import descriptions
from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws._core.s3.policy import session_name, session_policy
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._core.s3.workspace import MountRole, S3Workspace
from langchain_daytona_ws.errors import CredentialsRefused

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_sts import STSClient

logger = logging.getLogger("langchain_daytona_ws")

# Every role allows this life (IAM API: MaxSessionDuration is at least 3,600). It is also the maximum that AWS allows if
# this machine's own credentials are those of another role.
LIFE_S = 3600
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 10
ATTEMPTS = 3
# A warning is logged above this percentage of AWS's size limit for policy and session tags together: the tags may
# become longer.
PACKED_WARNING_PERCENT = 90
LONGEST_FIELD = 16 * 1024  # maximum number of characters of a key or token
# Later expiry dates are cut to this one, in the year 5138: the mounter accepts no later date, and Python formats no
# date after the year 9999.
LAST_DATE_S = 99_999_999_999.0


class GivenKeys:
    """Keys of the configuration: the `CredentialsPort` of both runtimes."""

    def __init__(self, keys: Credentials) -> None:
        self._keys = keys

    async def fetch(self) -> Credentials:
        return self._keys


class AssumedRole:
    """A role's short-lived credentials: the `CredentialsPort` of the sync runtime.

    The role is assumed with this machine's own credentials, as boto3 finds them. They are used for nothing else.
    """

    def __init__(self, workspace: S3Workspace, clock: Clock = SYSTEM_CLOCK) -> None:
        if workspace.role is None:
            raise ValueError("this workspace has no role to assume")
        self._role = workspace.role
        self._policy = session_policy(workspace)
        self._name = session_name(workspace)
        self._clock = clock

    async def fetch(self) -> Credentials:
        return self.assume()

    def assume(self) -> Credentials:
        """Assume the role, and return its credentials. This blocks.

        Raises:
            CredentialsRefused: This machine has no usable credentials, the role was not assumed, or the role's
                credentials are unusable. The message names the remedies.
        """
        outcome = self._outcome()
        if isinstance(outcome, CredentialsRefused):
            raise outcome
        return outcome

    def _outcome(self) -> Credentials | CredentialsRefused:
        failures = _failures()
        try:
            session = _session()
            found = _host_credentials_work(session)
        except failures as error:
            return host_refused(error)
        if not found:
            return host_refused(None)
        try:
            with closing(_client(session, self._role)) as sts:
                return without_debug_log(lambda: self._checked(sts.assume_role(**self._request())))
        except failures as error:
            return refused(error, self._role, reason=_reason(error, session, failures))

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = {
            "RoleArn": self._role.arn,
            "RoleSessionName": self._name,
            "Policy": self._policy,
            "DurationSeconds": LIFE_S,
        }
        if self._role.external_id is not None:
            request["ExternalId"] = self._role.external_id
        return request

    def _checked(self, answer: Mapping[str, Any]) -> Credentials | CredentialsRefused:
        """Return the credentials of a response, or an error if the response is unusable."""
        given = answer.get("Credentials") or {}
        for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"):
            if not _fits_a_header(given.get(name)):
                return unusable(f"its {name} is missing or malformed", self._role)
        expiration = given.get("Expiration")
        if expiration is None:
            return unusable("its Expiration is missing", self._role)
        expires_at = min(expiration.timestamp(), LAST_DATE_S)
        life_s = expires_at - self._clock.time()
        if life_s <= 0:
            return unusable("they have expired already; is this machine's clock right?", self._role)
        packed = answer.get("PackedPolicySize") or 0
        if packed > PACKED_WARNING_PERCENT:
            logger.warning(
                "The session policy for %s takes %d %% of what AWS allows (PackedPolicySize); above 100 %% the role "
                "can no longer be assumed. Session tags count too.",
                self._role.arn,
                packed,
            )
        return Credentials(
            given["AccessKeyId"],
            given["SecretAccessKey"],
            given["SessionToken"],
            expires_at=expires_at,
            life_s=life_s,
        )


class AsyncAssumedRole(AssumedRole):
    """The `CredentialsPort` of the async runtime. Importing and calling boto3 blocks, so a thread does both."""

    async def fetch(self) -> Credentials:
        return await asyncio.to_thread(self.assume)


def _session() -> Session:
    """Return a new session: boto3's default session is not thread-safe."""
    import botocore.session
    from boto3.session import Session

    inner = botocore.session.get_session()
    inner.register_component("data_loader", descriptions())
    # Older releases of botocore use the global endpoint, which is in one region only.
    inner.set_config_variable("sts_regional_endpoints", "regional")
    return Session(botocore_session=inner)


def _client(session: Session, role: MountRole) -> STSClient:
    from botocore.config import Config

    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
        # AWS_ENDPOINT_URL is for this machine's other programs. It may name another service, and may lack https.
        "ignore_configured_endpoint_urls": True,
    }
    client: STSClient = session.client(
        "sts", region_name=role.region, endpoint_url=role.endpoint, config=Config(**settings)
    )
    return client


def _failures() -> tuple[type[Exception], ...]:
    """Return the exceptions that calls of boto3 raise: its own, and those that malformed responses or files cause."""
    # Imported here because the import takes a third of a second.
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    unintended = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
    return (BotoCoreError, ClientError, Boto3Error, ResponseParserError, *unintended)


def _host_credentials_work(session: Session) -> bool:
    """Return whether this machine has AWS credentials. Renew them if they end soon."""
    found = without_debug_log(session.get_credentials)
    return found is not None and bool(without_debug_log(found.get_frozen_credentials).access_key)


def _reason(error: Exception, session: Session, failures: tuple[type[Exception], ...]) -> str:
    """Return the service's message; ``""`` if it quotes this machine's secrets, as it may for a wrong signature.

    If these secrets cannot be read, the message cannot be checked: then also return ``""``.
    """
    response = getattr(error, "response", None) or {}  # None without an answer
    text = str(response.get("Error", {}).get("Message", ""))
    try:
        host = session.get_credentials()
        keys = host.get_frozen_credentials() if host else None
    except failures:
        return ""
    if keys and any(secret and secret in text for secret in (keys.secret_key, keys.token)):
        return ""
    return text


def _fits_a_header(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_FIELD
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )
