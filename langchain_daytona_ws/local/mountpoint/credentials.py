"""Credentials, from the same sources and refreshed at the same times as the original's."""

from __future__ import annotations

import datetime
import os
from typing import Any

from botocore.credentials import ProcessProvider, RefreshableCredentials
from botocore.session import Session

REFRESH_BEFORE_S = 5 * 60
# How long credentials without an expiry are used before the credential process runs again.
NO_EXPIRY_LIFETIME_S = 15 * 60
# Sources that botocore reads and the original does not.
_UNSUPPORTED_SOURCES = ("ec2-credentials-file", "boto-config")


def session(profile: str | None) -> Session:
    """Return a session with credentials from the environment, the profile, web identity, a container or IMDS.

    Credentials are replaced five minutes before their expiry: each request runs the credential process again until
    it returns a later expiry. If that fails, requests fail until a refresh succeeds, although the old credentials
    are still valid (as the original does).
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
