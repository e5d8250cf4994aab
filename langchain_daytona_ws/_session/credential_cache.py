"""The workspace's credentials: fetched once for all threads and event loops, and again before they expire."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from langchain_daytona_ws._core.s3.store import Credentials, CredentialsPort
from langchain_daytona_ws._session.single_flight import Once, SingleFlight
from langchain_daytona_ws.errors import CredentialsRefused

logger = logging.getLogger("langchain_daytona_ws")

# Share of the credentials' whole life: credentials that never live as long as is needed are not fetched for each call.
SHARE_OF_LIFE = 0.9
# Credentials that cannot be replaced are used while they live at least this long: a request needs time to arrive.
LAST_USE_S = 60.0
# Back-off after a failed refresh: otherwise each call would wait for one more refusal.
PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class _Held:
    credentials: Credentials
    life_s: float | None  # when they were fetched
    kept_until: float = 0.0  # Unix time until which no refresh is tried

    def remaining_s(self, now: float) -> float:
        expires_at = self.credentials.expires_at
        return float("inf") if expires_at is None else expires_at - now

    def will_do(self, now: float, min_life_s: float) -> bool:
        if now < self.kept_until:
            return self.remaining_s(now) >= LAST_USE_S
        return self.life_s is None or self.remaining_s(now) >= min(min_life_s, SHARE_OF_LIFE * self.life_s)


class CredentialCache:
    """Keep the current credentials of a workspace for all runtimes of a session.

    Args:
        now: Returns Unix time in seconds.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._flight: SingleFlight[_Held] = SingleFlight("fetching credentials", "credentials")
        self._latest: _Held | None = None

    async def get(self, once: Once, port: CredentialsPort, min_life_s: float) -> Credentials:
        """Return credentials that live long enough; fetch them if the kept ones do not.

        Args:
            once: How the runtime waits.
            port: Where the runtime fetches credentials.
            min_life_s: For how many seconds they are needed. If that is more than nine tenths of their whole life,
                nine tenths suffice. If no others can be fetched, ones that live for another minute suffice.

        Raises:
            CredentialsRefused: There are none.
        """
        held = self._flight.value
        if held is not None and not held.will_do(self._now(), min_life_s):
            self._flight.forget(held)
        return (await once(self._flight, lambda: self._fetched(port))).credentials

    def forget(self, credentials: Credentials) -> None:
        """Drop credentials that S3 called expired or invalid; credentials fetched since are kept."""
        held, latest = self._flight.value, self._latest
        # The fallback first: the next fetch must not return it.
        if latest is not None and latest.credentials == credentials:
            self._latest = None
        if held is not None and held.credentials == credentials:
            self._flight.forget(held)

    async def _fetched(self, port: CredentialsPort) -> _Held:
        try:
            credentials = await port.fetch()
        except CredentialsRefused as error:
            kept, now = self._latest, self._now()
            if kept is None or kept.remaining_s(now) < LAST_USE_S:
                raise
            logger.warning(
                "The workspace's credentials could not be renewed; those in use end in %.0f s. %s",
                kept.remaining_s(now),
                error.message,
            )
            return replace(kept, kept_until=now + PAUSE_S)
        expires_at = credentials.expires_at
        held = _Held(credentials, None if expires_at is None else expires_at - self._now())
        self._latest = held
        return held
