"""Credentials, found where the original looks for them and refreshed when it refreshes them."""

from __future__ import annotations

import datetime
import os
from typing import Any

from botocore.credentials import ProcessProvider, RefreshableCredentials
from botocore.session import Session

REFRESH_BEFORE_S = 5 * 60
# How long credentials of a process that names no end are used before it is asked again.
WITHOUT_END_S = 15 * 60
# botocore looks in places that the original's runtime knows nothing of.
_UNKNOWN_SOURCES = ("ec2-credentials-file", "boto-config")


def session(profile: str | None) -> Session:
    """Return a session that finds credentials in the environment, the profile, web identity, a container or IMDS.

    Those with an expiry are replaced five minutes before it: the process is run again at every request until it
    names a later one. When that fails, the ones at hand are not used although they would still do: every request
    fails until a refresh succeeds.
    """
    # Static keys from the environment are never refreshed, whatever is said there of their expiry.
    os.environ.pop("AWS_CREDENTIAL_EXPIRATION", None)
    made = Session(profile=profile)
    resolver = made.get_component("credential_provider")
    for provider in list(resolver.providers):
        if provider.METHOD in _UNKNOWN_SOURCES:
            resolver.providers.remove(provider)
        if isinstance(provider, ProcessProvider):
            _end_after_a_while(provider)
    timeouts: Any = RefreshableCredentials
    timeouts._advisory_refresh_timeout = timeouts._mandatory_refresh_timeout = REFRESH_BEFORE_S
    return made


def _end_after_a_while(process: Any) -> None:
    """Let credentials without an end be asked for again too."""
    retrieve = process._retrieve_credentials_using

    def retrieved(command: str) -> Any:
        given = retrieve(command)
        if given.get("expiry_time") is None:
            until = datetime.timedelta(seconds=WITHOUT_END_S + REFRESH_BEFORE_S)
            given["expiry_time"] = (datetime.datetime.now(datetime.UTC) + until).isoformat()
        return given

    process._retrieve_credentials_using = retrieved
