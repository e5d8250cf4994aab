"""``kill -9`` of the host during its work: no acknowledged change is lost, and no sandbox stays."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from langchain_daytona_ws.local import Fault, LocalDaytona, ManualClock
from tests.integration_tests import claimants, victims
from tests.integration_tests.conftest import config_for
from tests.integration_tests.s3 import KEYS, Bucket, s3_options

# Of each kind of sandbox. `KILLED_HOST_POINTS=20 make test ARGS="-k killed_host"` for a longer run.
POINTS = int(os.environ.get("KILLED_HOST_POINTS", "5"))
SEED = 375  # of which the first points leave something behind
HELD_S = 0.4
WITHIN_S = 90.0
LIFECYCLE = {"idleTimeoutSeconds": 60, "maxLifetimeSeconds": 3600}


@dataclass(frozen=True)
class Point:
    """When the host is killed.

    Attributes:
        request: In its how manyth request to Daytona, from 1.
        during: Before the server has done it, after that and before the answer has come, or some time into it.
        after_s: How long after the request has arrived.
    """

    request: int
    during: Literal["latency", "slow_body", "as it goes"]
    after_s: float


@pytest.fixture
def clocked() -> Iterator[LocalDaytona]:
    with LocalDaytona(clock=ManualClock(), s3=True) as server:
        server.make_bucket("agents")
        yield server


@pytest.mark.full
@pytest.mark.timeout(180)
@pytest.mark.parametrize("persistent", [False, True], ids=["ephemeral", "persistent"])
def test_a_killed_host_leaves_its_files_and_no_sandbox(clocked: LocalDaytona, persistent: bool) -> None:
    settings: dict[str, Any] = {"persistent": True, "lifecycle": LIFECYCLE} if persistent else {}
    config = config_for(clocked, envVars=KEYS, options=s3_options(clocked, "agents"), **settings)

    written = Victim(clocked, config).live()
    assert len(written) == 2 * victims.COMMANDS
    asked = [request.action for request in clocked.requests]
    assert {"create", "execute"} <= set(asked)
    left_behind: list[str] = []
    for point in chosen(len(asked)):
        victim = Victim(clocked, config)
        written = victim.die_at(point)
        states = [sandbox.state for sandbox in clocked.sandboxes]
        left_behind += states
        advance_past_every_limit(clocked)
        assert clocked.sandboxes == [], (point, states)
        missing = [path for path in written if victim.bucket.get(path) != f"{path}\n".encode()]
        assert missing == [], point
        victim.bucket.client.close()
    assert any(left_behind), "no kill came at a time at which it could leave anything"


def chosen(requests: int) -> list[Point]:
    """Choose the points: no request a second time before each had its turn, from the last one down."""
    draw = random.Random(SEED)
    kinds: tuple[Any, ...] = ("latency", "slow_body", "as it goes")
    return [
        Point(requests - number % requests, draw.choice(kinds), draw.uniform(0, HELD_S / 2))
        for number in range(POINTS)
    ]


def advance_past_every_limit(server: LocalDaytona) -> None:
    server.clock.advance(15 * 60 + 1)  # stopped, and an ephemeral one deleted with that
    server.clock.advance(LIFECYCLE["maxLifetimeSeconds"] + 1)


class Victim:
    """A process with a workspace of its own."""

    def __init__(self, server: LocalDaytona, config: dict[str, Any]) -> None:
        self.bucket = Bucket(server)
        self._server = server
        context = claimants.forkserver()
        self._pipe, telling = multiprocessing.Pipe(duplex=False)
        arguments = (config, self.bucket.namespace, telling)
        self._process = context.Process(target=victims.work, args=arguments)
        server.clear_requests()
        self._process.start()
        telling.close()

    def live(self) -> list[str]:
        """Wait for its end; return the files that it has written."""
        self._process.join(WITHIN_S)
        assert self._process.exitcode == 0
        advance_past_every_limit(self._server)
        self.bucket.client.close()
        return [path for path in self._received() if path]

    def die_at(self, point: Point) -> list[str]:
        """Kill it, and return what it had said it had written."""
        if point.during != "as it goes":
            self._server.faults.add(Fault(point.during, skip=point.request - 1, delay_s=HELD_S))
        assert within(lambda: len(self._server.requests) >= point.request)
        time.sleep(point.after_s)
        self._process.kill()
        self._process.join(WITHIN_S)
        # Where its last request is not held, it may be quicker.
        assert self._process.exitcode in ((-9, 0) if point.during == "as it goes" else (-9,))
        # What was held is done, or given up, before the time is moved on.
        assert within(lambda: all(request.status is not None for request in self._server.requests))
        self._server.faults.clear()
        return [path for path in self._received() if path]

    def _received(self) -> list[str]:
        received: list[str] = []
        while True:
            try:
                received.append(self._pipe.recv())
            except EOFError:
                self._pipe.close()
                return received


def within(seen: Callable[[], bool]) -> bool:
    until = time.monotonic() + WITHIN_S
    while not seen():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True
