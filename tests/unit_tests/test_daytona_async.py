"""Sessions of one account on one event loop share a client, which the last of them closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from daytona import AsyncDaytona

from langchain_daytona_ws._adapters import daytona_async
from langchain_daytona_ws._adapters.daytona_async import AsyncDaytonaPort
from langchain_daytona_ws._adapters.sdk import Account

ACCOUNT = Account(api_key="one", api_url="http://127.0.0.1:1/api", target=None)
OTHER = Account(api_key="two", api_url="http://127.0.0.1:1/api", target=None)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[AsyncDaytona]:
    """List the clients that are closed."""
    seen: list[AsyncDaytona] = []
    real = AsyncDaytona.close

    async def close(self: Any) -> None:
        seen.append(self)
        await real(self)

    monkeypatch.setattr(AsyncDaytona, "close", close)
    return seen


async def client_of(port: AsyncDaytonaPort) -> AsyncDaytona:
    return (await port._current()).client


def test_a_client_is_shared_and_closed_by_its_last_port(closed: list[AsyncDaytona]) -> None:
    async def main() -> None:
        ports = [AsyncDaytonaPort(ACCOUNT) for _ in range(3)]
        # Concurrently, and one of them twice: no second client may be created meanwhile.
        first, *others = await asyncio.gather(*(client_of(port) for port in [*ports, ports[0]]))
        assert all(item is first for item in others)
        await ports[0].aclose()
        await ports[1].aclose()
        assert closed == []
        assert await client_of(AsyncDaytonaPort(ACCOUNT)) is first
        await ports[2].aclose()
        assert closed == []

    asyncio.run(main())
    # The last port was not closed: the end of the loop did it.
    assert len(closed) == 1
    assert daytona_async._shared == {}


def test_after_the_last_has_left_there_is_a_new_one(closed: list[AsyncDaytona]) -> None:
    async def main() -> None:
        port = AsyncDaytonaPort(ACCOUNT)
        first = await client_of(port)
        await port.aclose()
        assert closed == [first]
        assert await client_of(port) is not first
        await port.aclose()

    asyncio.run(main())
    assert len(closed) == 2


def test_accounts_and_loops_have_their_own(closed: list[AsyncDaytona]) -> None:
    port = AsyncDaytonaPort(ACCOUNT)

    async def main() -> tuple[AsyncDaytona, AsyncDaytona]:
        return await client_of(port), await client_of(AsyncDaytonaPort(OTHER))

    made = {*asyncio.run(main()), *asyncio.run(main())}
    assert len(made) == 4
    assert set(closed) == made


def test_a_cancelled_caller_closes_no_shared_client(closed: list[AsyncDaytona]) -> None:
    async def main() -> None:
        ports = [AsyncDaytonaPort(ACCOUNT) for _ in range(2)]
        first, second = (asyncio.create_task(client_of(port)) for port in ports)
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        client = await second
        assert closed == []
        await ports[1].aclose()
        assert closed == [client]
        assert daytona_async._shared == {}

    asyncio.run(main())


def test_a_failure_is_everybodys_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        ports = [AsyncDaytonaPort(ACCOUNT) for _ in range(2)]
        with monkeypatch.context() as broken:
            broken.setattr(daytona_async, "_new_client", lambda account: 1 / 0)
            failures = await asyncio.gather(*(client_of(port) for port in ports), return_exceptions=True)
            assert [type(item) for item in failures] == [ZeroDivisionError, ZeroDivisionError]
        assert isinstance(await client_of(ports[0]), AsyncDaytona)
        await ports[0].aclose()
        assert daytona_async._shared == {}

    asyncio.run(main())


def test_a_loop_that_was_closed_without_a_word_is_let_go(closed: list[AsyncDaytona]) -> None:
    port = AsyncDaytonaPort(ACCOUNT)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client_of(port))
    loop.close()

    async def main() -> None:
        await client_of(port)
        assert len(daytona_async._shared) == 1
        await port.aclose()

    asyncio.run(main())
    assert daytona_async._shared == {}


class Seen:
    """A closed loop that calls a function when its state is checked.

    Args:
        happens: The function.
    """

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = happens

    def is_closed(self) -> bool:
        self._happens()
        return True


def test_loops_of_other_threads_may_come_and_go_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    port, shared = AsyncDaytonaPort(ACCOUNT), dict[Any, Any]()
    loops: dict[Any, Any] = port._loops
    monkeypatch.setattr(daytona_async, "_shared", shared)

    def come_and_go() -> None:
        new = Seen(list)
        loops[new] = shared[new, ACCOUNT] = None
        loops.pop(last, None)
        shared.pop((last, ACCOUNT), None)

    first, last = Seen(come_and_go), Seen(list)
    for item in (first, last):
        loops[item] = shared[item, ACCOUNT] = None

    async def main() -> None:
        await client_of(port)
        assert first not in loops
        assert (first, ACCOUNT) not in shared
        await port.aclose()

    asyncio.run(main())
