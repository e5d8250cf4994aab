"""Credentials, found where the original looks for them and refreshed when it refreshes them."""

from __future__ import annotations

import os
from typing import Any

from botocore.credentials import RefreshableCredentials
from botocore.session import Session

REFRESH_BEFORE_S = 5 * 60
# botocore looks in places that the original's runtime knows nothing of.
_UNKNOWN_SOURCES = ("ec2-credentials-file", "boto-config")


def session(profile: str | None) -> Session:
    """Return a session that finds credentials in the environment, the profile, web identity, a container or IMDS.

    Those with an expiry are replaced five minutes before it. When that fails, the ones at hand are not used
    although they would still do: every request fails until a refresh succeeds.
    """
    # Static keys from the environment are never refreshed, whatever is said there of their expiry.
    os.environ.pop("AWS_CREDENTIAL_EXPIRATION", None)
    made = Session(profile=profile)
    resolver = made.get_component("credential_provider")
    for provider in list(resolver.providers):
        if provider.METHOD in _UNKNOWN_SOURCES:
            resolver.providers.remove(provider)
    timeouts: Any = RefreshableCredentials
    timeouts._advisory_refresh_timeout = timeouts._mandatory_refresh_timeout = REFRESH_BEFORE_S
    return made
