"""The credential cache of both runtimes: when credentials are fetched, shared, kept and dropped."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._session.credential_cache import CredentialCache
from langchain_daytona_ws._session.single_flight import WouldDeadlock, once_blocking, once_on_loop
from langchain_daytona_ws.errors import CredentialsRefused

SECRET = "s3cr3t/t0p+key"
START = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


class Office:
    """Returns numbered credentials with a given lifetime; None: without expiry."""

    def __init__(self, clock: Clock, life_s: float | None = 3600) -> None:
        self.clock = clock
        self.life_s = life_s
        self.refuses = False
        self.asked = 0

    async def fetch(self) -> Credentials:
        self.asked += 1
        if self.refuses:
            raise CredentialsRefused("The role was not given.", code="role_denied")
        expires_at = None if self.life_s is None else self.clock() + self.life_s
        return Credentials(f"AKIA{self.asked}", SECRET, "token", expires_at)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def office(clock: Clock) -> Office:
    return Office(clock)


class Cache(CredentialCache):
    """A cache and the ports of the two runtimes."""

    def __init__(self, port: Office, async_port: Office, *, now: Callable[[], float]) -> None:
        super().__init__(now=now)
        self.port, self.async_port = port, async_port

    def get_blocking(self, min_life_s: float) -> Credentials:
        return run_sync(self.get(once_blocking, self.port, min_life_s))

    async def get_on_loop(self, min_life_s: float) -> Credentials:
        return await self.get(once_on_loop, self.async_port, min_life_s)


@pytest.fixture
def cache(office: Office, clock: Clock) -> Cache:
    return Cache(office, office, now=clock)


@pytest.fixture(params=["sync", "async"])
def get(request: pytest.FixtureRequest, cache: Cache) -> Callable[[float], str]:
    """Get credentials by one of the runtimes; return their access key id."""

    def by(min_life_s: float) -> str:
        if request.param == "sync":
            return cache.get_blocking(min_life_s).access_key_id
        return asyncio.run(cache.get_on_loop(min_life_s)).access_key_id

    return by


def test_they_are_fetched_once_and_again_when_they_live_too_short(
    get: Callable[[float], str], clock: Clock
) -> None:
    assert get(720) == "AKIA1"
    clock.time = START + 3600 - 720
    assert get(720) == "AKIA1"
    clock.time += 1
    assert get(600) == "AKIA1"
    assert get(720) == "AKIA2"
    assert get(600) == "AKIA2"


def test_short_lived_credentials_are_not_fetched_for_each_call(
    get: Callable[[float], str], office: Office, clock: Clock
) -> None:
    office.life_s = 10
    assert [get(1200) for _ in range(3)] == ["AKIA1"] * 3
    clock.time += 0.9
    assert get(1200) == "AKIA1"
    clock.time += 0.2
    assert get(1200) == "AKIA2"
    clock.time += 60
    assert get(0) == "AKIA3"


def test_credentials_without_expiry_are_kept(
    get: Callable[[float], str], office: Office, clock: Clock
) -> None:
    office.life_s = None
    assert get(1200) == "AKIA1"
    clock.time += 10**9
    assert get(1200) == "AKIA1"


def test_both_faces_share_them(cache: Cache, office: Office) -> None:
    assert cache.get_blocking(600) is asyncio.run(cache.get_on_loop(600)) is cache.get_blocking(600)
    assert office.asked == 1


def test_only_refused_credentials_are_dropped(get: Callable[[float], str], cache: Cache) -> None:
    cache.forget(Credentials("AKIA0", SECRET))
    assert get(600) == "AKIA1"
    first = cache.get_blocking(600)
    cache.forget(Credentials("AKIA0", SECRET))
    assert get(600) == "AKIA1"
    cache.forget(first)
    assert get(600) == "AKIA2"
    cache.forget(first)
    assert get(600) == "AKIA2"


def test_credentials_that_cannot_be_renewed_are_used_until_they_expire(
    get: Callable[[float], str], office: Office, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert get(720) == "AKIA1"
    office.refuses = True
    clock.time = START + 3600 - 300
    with caplog.at_level(logging.DEBUG):
        assert [get(720) for _ in range(3)] == ["AKIA1"] * 3
    assert office.asked == 2, "a refusal is not waited for by each call"
    (record,) = [item for item in caplog.records if item.name == "langchain_daytona_ws"]
    assert record.levelno == logging.WARNING
    assert "expire in 300 s. The role was not given." in record.getMessage()
    assert SECRET not in caplog.text

    clock.time += 31
    assert get(720) == "AKIA1"
    assert office.asked == 3
    clock.time = START + 3600 - 60
    assert get(720) == "AKIA1"
    clock.time += 0.5
    with pytest.raises(CredentialsRefused, match="The role was not given"):
        get(720)
    office.refuses = False
    assert get(720) == f"AKIA{office.asked}"


def test_refused_credentials_are_not_used_as_a_fallback(
    get: Callable[[float], str], cache: Cache, office: Office
) -> None:
    get(600)
    cache.forget(cache.get_blocking(600))
    office.refuses = True
    with pytest.raises(CredentialsRefused):
        get(600)
    office.refuses = False
    assert get(600) == f"AKIA{office.asked}"


def test_a_refusal_at_first_is_raised_and_not_kept(get: Callable[[float], str], office: Office) -> None:
    office.refuses = True
    with pytest.raises(CredentialsRefused):
        get(600)
    office.refuses = False
    assert get(600) == "AKIA2"


class Gated(Office):
    """Answers when the gate opens; once for each runtime."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.gate = threading.Event()
        self.entered = threading.Event()

    async def fetch(self) -> Credentials:
        self.entered.set()
        self.gate.wait()
        return await super().fetch()


class GatedTask(Gated):
    async def fetch(self) -> Credentials:
        return await asyncio.to_thread(asyncio.run, super().fetch())


def test_threads_and_loops_fetch_once_together(clock: Clock) -> None:
    office = Gated(clock)
    background = GatedTask(clock)
    background.gate = office.gate
    cache = Cache(office, background, now=clock)
    with ThreadPoolExecutor(8) as pool:
        running = [
            pool.submit(cache.get_blocking, 600)
            if i % 2
            else pool.submit(lambda: asyncio.run(cache.get_on_loop(600)))
            for i in range(8)
        ]
        office.gate.set()
        assert {id(item.result()) for item in running} == {id(running[0].result())}
    assert office.asked + background.asked == 1


def test_a_blocking_call_on_the_loop_that_fetches_is_refused_instead_of_hanging(clock: Clock) -> None:
    background = GatedTask(clock)
    cache = Cache(Office(clock), background, now=clock)

    async def work() -> str:
        fetching = asyncio.create_task(cache.get_on_loop(600))
        await asyncio.to_thread(background.entered.wait)
        with pytest.raises(WouldDeadlock) as caught:
            cache.get_blocking(600)
        assert caught.value.code == "would_deadlock"
        assert caught.value.retryable
        background.gate.set()
        return (await fetching).access_key_id

    assert asyncio.run(work()) == "AKIA1"
