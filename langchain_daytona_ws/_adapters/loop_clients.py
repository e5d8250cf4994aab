"""Share one SDK client among all sessions of an account on an event loop.

Each client reads the system's certificates twice: 60 ms and 1.7 MB (measured), too much for hundreds of sessions.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from daytona import AsyncDaytona, DaytonaConfig

from langchain_daytona_ws._adapters.answers import abound_answers
from langchain_daytona_ws._adapters.proxies import check_async_proxy
from langchain_daytona_ws._adapters.sdk import Account, client_config, making_a_client, tracing_is_wanted


class Client(AsyncDaytona):
    """The SDK's client, but it ignores .env files (see `tracing_is_wanted`)."""

    def __init__(self, config: DaytonaConfig) -> None:
        super().__init__(config)
        for api in (self._api_client, self._toolbox_api_client):
            abound_answers(api)

    def _init_otel(self, sdk_version: str) -> None:
        if tracing_is_wanted():
            super()._init_otel(sdk_version)


@dataclass(slots=True)
class _Shared:
    making: asyncio.Task[AsyncDaytona]
    users: int = 0


# An entry is used on its own loop only; entries of closed loops may be removed from any thread.
_shared: dict[tuple[asyncio.AbstractEventLoop, Account], _Shared] = {}


async def join(account: Account) -> AsyncDaytona:
    """Return this loop's client; each caller must `leave`."""
    for key in list(_shared):  # a copy, since other threads add and remove loops
        if key[0].is_closed():
            _shared.pop(key, None)
    key = (asyncio.get_running_loop(), account)
    shared = _shared.get(key)
    if shared is None:
        making = asyncio.create_task(asyncio.to_thread(_new_client, account))  # it reads files
        shared = _shared[key] = _Shared(making)
    shared.users += 1
    try:
        return await asyncio.shield(shared.making)
    except BaseException:
        await leave(account)
        raise


async def leave(account: Account) -> None:
    """Release this loop's client; the last user closes its connections."""
    key = (asyncio.get_running_loop(), account)
    shared = _shared[key]
    shared.users -= 1
    if shared.users:
        return
    del _shared[key]
    if not shared.making.done():
        shared.making.cancel()
    elif not shared.making.cancelled() and shared.making.exception() is None:
        await shared.making.result().close()  # type: ignore[no-untyped-call]


def _new_client(account: Account) -> AsyncDaytona:
    with making_a_client():
        check_async_proxy(account.api_url)
        client = Client(client_config(account))
    client._target = account.target
    return client
