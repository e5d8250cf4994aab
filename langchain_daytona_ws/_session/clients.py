"""The sync and async clients of Daytona's API, created on first use: importing the SDK takes a second."""

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
    """The sync and the async client of one Daytona account."""

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
            # In threads: importing the SDK and reading the guest program would block the event loop for a second.
            await asyncio.to_thread(import_module, "langchain_daytona_ws._adapters.daytona_async")
            from langchain_daytona_ws._core.guest_rpc.payload import load_guest

            await asyncio.to_thread(load_guest)
        from langchain_daytona_ws._adapters.daytona_async import AsyncDaytonaPort

        with self._lock:
            if self._async is None:
                self._async = AsyncDaytonaPort(self.account(), self._clock)
            return self._async

    def account(self) -> Account:
        from langchain_daytona_ws._adapters.sdk import account_of

        return account_of(self._config)

    def close(self) -> None:
        if self._sync is not None:
            self._sync.close()

    async def aclose(self) -> None:
        """Close the connections of the sync port, and the async port's connections of this loop."""
        self.close()
        if self._async is not None:
            await self._async.aclose()
