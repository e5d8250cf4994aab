"""The sync and async clients of Daytona's API. Importing the SDK takes a second, so each is created on first use."""

from __future__ import annotations

import asyncio
import threading
from importlib import import_module
from typing import TYPE_CHECKING

from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws.config import SandboxConfig

if TYPE_CHECKING:
    from langchain_daytona_ws._adapters.daytona_async import AsyncDaytonaPort
    from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
    from langchain_daytona_ws._adapters.sdk import Account


class DaytonaClients:
    """The sync and the async client of one Daytona account, each created on first use.

    Args:
        config: The configuration with the API's address and key.
        clock: The session's time.
    """

    def __init__(self, config: SandboxConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._sync: SyncDaytonaPort | None = None
        self._async: AsyncDaytonaPort | None = None

    def sync_port(self) -> SyncDaytonaPort:
        """Return the sync port, for all threads."""
        from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort

        with self._lock:
            if self._sync is None:
                self._sync = SyncDaytonaPort(self.account(), self._clock)
            return self._sync

    async def async_port(self) -> AsyncDaytonaPort:
        """Return the async port, for all event loops."""
        if self._async is None:
            # Importing and reading files would block the event loop for a second.
            await asyncio.to_thread(import_module, "langchain_daytona_ws._adapters.daytona_async")
            from langchain_daytona_ws._core.guest_rpc.payload import load_guest

            await asyncio.to_thread(load_guest)
        from langchain_daytona_ws._adapters.daytona_async import AsyncDaytonaPort

        with self._lock:
            if self._async is None:
                self._async = AsyncDaytonaPort(self.account(), self._clock)
            return self._async

    def account(self) -> Account:
        """Return the Daytona account."""
        from langchain_daytona_ws._adapters.sdk import account_of

        return account_of(self._config)

    def close(self) -> None:
        """Close the sync port's connections."""
        if self._sync is not None:
            self._sync.close()

    async def aclose(self) -> None:
        """Close the sync port's connections, as `close` does, and this loop's connections."""
        self.close()
        if self._async is not None:
            await self._async.aclose()
