"""The workspace's credentials: fetched once for all threads and loops, and anew before they end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.store import Credentials, CredentialsPort
from langchain_daytona_ws._session.once import SingleFlight, WouldDeadlock
from langchain_daytona_ws.errors import CredentialsRefused

logger = logging.getLogger("langchain_daytona_ws")

# Of the life that credentials had at first: ones that never live as long as is wanted are not fetched for each call.
SHARE_OF_LIFE = 0.9
# What cannot be replaced is used while it lives this long, which a request made with it needs to arrive.
LAST_USE_S = 60.0
# For so long nobody is asked again who has just refused: otherwise each call would wait for one more refusal.
PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class _Held:
    credentials: Credentials
    life_s: float | None  # when they were fetched
    kept_until: float = 0.0  # Unix time; others were not to be had, and are not asked for before

    def remaining_s(self, now: float) -> float:
        expires_at = self.credentials.expires_at
        return float("inf") if expires_at is None else expires_at - now

    def will_do(self, now: float, min_life_s: float) -> bool:
        if now < self.kept_until:
            return self.remaining_s(now) >= LAST_USE_S
        return self.life_s is None or self.remaining_s(now) >= min(min_life_s, SHARE_OF_LIFE * self.life_s)


class Keyring:
    """Hand out current credentials to both faces of a session.

    Args:
        port: Where the sync face fetches them.
        aport: Where the async face does. Both faces share what either fetched.
        now: Unix time in seconds.
    """

    def __init__(
        self, port: CredentialsPort, aport: CredentialsPort, *, now: Callable[[], float] = time.time
    ) -> None:
        self._port = port
        self._aport = aport
        self._now = now
        self._flight: SingleFlight[_Held] = SingleFlight()
        self._latest: _Held | None = None

    def get(self, min_life_s: float) -> Credentials:
        """Return credentials that live long enough, fetching them if need be.

        Args:
            min_life_s: For how many seconds they are needed. If that is more than nine tenths of what they live at
                all, nine tenths will do. When no others are to be had, ones that live for another minute will.

        Raises:
            CredentialsRefused: There are none.
        """
        self._drop_unless_they_do(min_life_s)
        try:
            return self._flight.get(lambda: drive(self._fetched(self._port))).credentials
        except WouldDeadlock:
            raise CredentialsRefused(
                "A sync call from the thread of an event loop that is just fetching credentials would block both for "
                "ever. Use the a-form of this method, or call it from another thread.",
                code="would_deadlock",
                op="credentials",
                retryable=True,
                for_model="The workspace is being prepared. Nothing was done. Try again.",
            ) from None

    async def get_here(self, min_life_s: float) -> Credentials:
        """Do as `get` does, for the coroutines of the sync face; never suspends."""
        return self.get(min_life_s)

    async def aget(self, min_life_s: float) -> Credentials:
        """Do as `get` does, without holding up the event loop."""
        self._drop_unless_they_do(min_life_s)
        return (await self._flight.aget(lambda: self._fetched(self._aport))).credentials

    def forget(self, credentials: Credentials) -> None:
        """Drop credentials that S3 called expired or invalid; ones that came since are kept."""
        held, latest = self._flight.value, self._latest
        # The fallback first: whoever fetches next must not be given it.
        if latest is not None and latest.credentials == credentials:
            self._latest = None
        if held is not None and held.credentials == credentials:
            self._flight.forget(held)

    def _drop_unless_they_do(self, min_life_s: float) -> None:
        held = self._flight.value
        if held is not None and not held.will_do(self._now(), min_life_s):
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
