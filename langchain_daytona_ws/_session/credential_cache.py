"""Fetch the workspace's credentials once for all threads and event loops, and again before they expire."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from langchain_daytona_ws._core.s3.store import Credentials, CredentialsPort
from langchain_daytona_ws._session.single_flight import RunOnce, SingleFlight
from langchain_daytona_ws.errors import CredentialsRefused

logger = logging.getLogger("langchain_daytona_ws")

# Credentials with at least this share of their life left are not renewed, unless S3 refused them. Otherwise a call that
# needs them for longer than their whole life would fetch new credentials each time.
SHARE_OF_LIFE = 0.9
# Credentials that cannot be renewed are used until this many seconds before they expire: a request needs time to
# arrive.
LAST_USE_S = 60.0
# Pause after a failed refresh: otherwise each call would wait for one more refusal.
REFRESH_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class _Cached:
    credentials: Credentials
    life_s: float | None  # remaining when they were fetched; None: no expiry
    no_refresh_until: float = 0.0  # Unix time until which no refresh is tried

    def remaining_s(self, now: float) -> float:
        expires_at = self.credentials.expires_at
        return float("inf") if expires_at is None else expires_at - now

    def suffices(self, now: float, min_life_s: float) -> bool:
        if now < self.no_refresh_until:
            return self.remaining_s(now) >= LAST_USE_S
        return self.life_s is None or self.remaining_s(now) >= min(min_life_s, SHARE_OF_LIFE * self.life_s)


class CredentialCache:
    """Keep the current credentials of a workspace for all runtimes of a session.

    Args:
        now: Returns Unix time in seconds.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._flight: SingleFlight[_Cached] = SingleFlight("fetching credentials", "credentials")
        self._latest: _Cached | None = None

    async def get(self, run_once: RunOnce, port: CredentialsPort, min_life_s: float) -> Credentials:
        """Return credentials that are valid for ``min_life_s`` seconds; fetch new credentials if necessary.

        Credentials with nine tenths of their life left are returned in any case. If new credentials cannot be fetched,
        the present credentials are returned if they are valid for one more minute.

        Raises:
            CredentialsRefused: No usable credentials could be fetched.
            WouldDeadlock: A sync call would wait for a fetch on the event loop of its own thread.
        """
        cached = self._flight.value
        if cached is not None:
            if cached.suffices(self._now(), min_life_s):
                return cached.credentials
            self._flight.forget(cached)
        return (await run_once(self._flight, lambda: self._fetched(port))).credentials

    def forget(self, credentials: Credentials) -> None:
        """Drop these credentials, which S3 has refused. Credentials that were fetched later are kept."""
        cached, latest = self._flight.value, self._latest
        # First drop the fallback: otherwise a fetch that fails meanwhile could return it.
        if latest is not None and latest.credentials == credentials:
            self._latest = None
        if cached is not None and cached.credentials == credentials:
            self._flight.forget(cached)

    async def _fetched(self, port: CredentialsPort) -> _Cached:
        try:
            credentials = await port.fetch()
        except CredentialsRefused as error:
            latest, now = self._latest, self._now()
            if latest is None or latest.remaining_s(now) < LAST_USE_S:
                raise
            logger.warning(
                "The workspace's credentials could not be renewed; the present credentials expire in %.0f s. %s",
                latest.remaining_s(now),
                error.message,
            )
            return replace(latest, no_refresh_until=now + REFRESH_PAUSE_S)
        expires_at = credentials.expires_at
        cached = _Cached(credentials, None if expires_at is None else expires_at - self._now())
        self._latest = cached
        return cached
