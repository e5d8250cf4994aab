"""Credentials for one workspace: those of a role, cut down to the workspace's prefix, or those that were given.

Nothing secret is shown. What holds a secret stays in functions that do not raise, since a traceback may be shown with
the variables of its frames; and an error is made anew instead of being raised from botocore's, which may quote answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from langchain_daytona_ws._adapters.aws_errors import host_refused, refused, unusable
from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._adapters.quiet import unlogged
from langchain_daytona_ws._core.policy import session_name, session_policy
from langchain_daytona_ws._core.sources import Clock
from langchain_daytona_ws._core.store import Credentials
from langchain_daytona_ws._core.workspace import MountRole, S3Workspace
from langchain_daytona_ws.errors import CredentialsRefused

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_sts import STSClient

logger = logging.getLogger("langchain_daytona_ws")

# AWS's own maximum where the role is assumed with another role's credentials; every role allows it (IAM API,
# MaxSessionDuration: at least 3,600).
LIFE_S = 3600
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 10
ATTEMPTS = 3
# A policy that just fits today may not fit tomorrow: AWS packs it together with the session's tags.
PACKED_WARNING_PERCENT = 90
LONGEST_FIELD = 16 * 1024
# What is to last for ever ends in the year 5138: the mounter takes no later date, and Python shows none after 9999.
LAST_DATE_S = 99_999_999_999.0


class GivenKeys:
    """The keys that the configuration brought along; both sides' implementation of CredentialsPort."""

    def __init__(self, keys: Credentials) -> None:
        self._keys = keys

    async def fetch(self) -> Credentials:
        return self._keys


class AssumedRole:
    """A role's short-lived credentials; the sync side's implementation of CredentialsPort.

    The role is assumed with this machine's own credentials, wherever boto3 finds them. They go to STS and nowhere else.

    Args:
        workspace: What the credentials are for. It has a role.
        clock: By which they must not have ended.
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
        """Assume the role. This blocks.

        Raises:
            CredentialsRefused: With what was tried, what was answered and every remedy.
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
            with closing(_client(session, self._role)) as sts, unlogged():
                return self._checked(sts.assume_role(**self._request()))
        except failures as error:
            return refused(error, self._role, said=_said(error, session, failures))

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
        """Take the credentials out of an answer, which may hold anything."""
        given = answer.get("Credentials") or {}
        for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"):
            if not _fits_a_header(given.get(name)):
                return unusable(f"its {name} is missing or malformed", self._role)
        expiration = given.get("Expiration")
        if expiration is None:
            return unusable("its Expiration is missing", self._role)
        expires_at = min(expiration.timestamp(), LAST_DATE_S)
        if expires_at <= self._clock.time():
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
            given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], expires_at=expires_at
        )


class AsyncAssumedRole(AssumedRole):
    """The async side's implementation: boto3 blocks, and so does importing it."""

    async def fetch(self) -> Credentials:
        return await asyncio.to_thread(self.assume)


def _session() -> Session:
    """Make a session of its own: boto3's default one is not safe to share between threads."""
    import botocore.session
    from boto3.session import Session

    inner = botocore.session.get_session()
    # Older releases of botocore ask the global endpoint, which is in one region only.
    inner.set_config_variable("sts_regional_endpoints", "regional")
    return Session(botocore_session=inner)


def _client(session: Session, role: MountRole) -> STSClient:
    from botocore.config import Config

    from langchain_daytona_ws._adapters.aws_answers import bound_answers

    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
        # AWS_ENDPOINT_URL is for the host's own programs: it was not held to https, and may name another S3.
        "ignore_configured_endpoint_urls": True,
    }
    client: STSClient = session.client(
        "sts", region_name=role.region, endpoint_url=role.endpoint, config=Config(**settings)
    )
    bound_answers(client)
    return client


def _failures() -> tuple[type[Exception], ...]:
    """Return all that boto3 lets out: its own errors, and what a malformed answer or file makes its code stumble on."""
    # Imported here, in whichever thread may block: boto3 takes a third of a second.
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    stumbles = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
    return (BotoCoreError, ClientError, Boto3Error, ResponseParserError, *stumbles)


def _host_credentials_work(session: Session) -> bool:
    """Look for this machine's own credentials, and renew them where they are short-lived; say whether there are any."""
    with unlogged():
        found = session.get_credentials()
        return found is not None and bool(found.get_frozen_credentials().access_key)


def _said(error: Exception, session: Session, failures: tuple[type[Exception], ...]) -> str:
    """Return what the service wrote, unless it quotes this machine's keys, as a refused signature may."""
    text = str(getattr(error, "response", {}).get("Error", {}).get("Message", ""))
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
