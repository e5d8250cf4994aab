"""Several writers of one prefix, with killed synchronisations and outages: no content is lost, all copies are equal.

`make faults` runs at least 1,500 calls; see `tests/faults/sync_hunt.py`.
"""

from __future__ import annotations

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from langchain_daytona_ws.local import LocalDaytona
from tests.sync_engine.memory_s3 import MemoryS3
from tests.sync_engine.world import (
    COMMANDS,
    FAILURES,
    OTHER_WRITERS,
    PREFIX,
    SYNCHRONISATIONS,
    Workers,
    World,
)

NUMBERS = strategies.integers(0, 999)
COPIES = strategies.integers(0, 2)
quick = settings(
    stateful_step_count=16,
)


class Writers(RuleBasedStateMachine):
    """Working copies, their agents and other writers in any order; subclasses make the world."""

    world: World

    @rule(action=strategies.sampled_from(SYNCHRONISATIONS), which=COPIES, first=NUMBERS, second=NUMBERS)
    def synchronise(self, action: str, which: int, first: int, second: int) -> None:
        self.world.step(action, which, first, second)

    @rule(action=strategies.sampled_from(FAILURES), which=COPIES, first=NUMBERS, second=NUMBERS)
    def fail(self, action: str, which: int, first: int, second: int) -> None:
        self.world.step(action, which, first, second)

    @rule(action=strategies.sampled_from(COMMANDS), which=COPIES, first=NUMBERS, second=NUMBERS)
    def run_command(self, action: str, which: int, first: int, second: int) -> None:
        self.world.step(action, which, first, second)

    @rule(action=strategies.sampled_from(OTHER_WRITERS), first=NUMBERS, second=NUMBERS)
    def write_elsewhere(self, action: str, first: int, second: int) -> None:
        self.world.step(action, 0, first, second)

    def teardown(self) -> None:
        try:
            self.world.check()
        finally:
            self.world.close()


def test_no_content_is_lost(memory_s3: MemoryS3, workers: Workers) -> None:
    class OnMemoryS3(Writers):
        @initialize(random_etags=strategies.booleans(), honours_delete=strategies.booleans())
        def begin(self, random_etags: bool, honours_delete: bool) -> None:
            memory_s3.reset()
            memory_s3.random_etags, memory_s3.honours_delete = random_etags, honours_delete
            self.world = World(workers, memory_s3.endpoint, memory_s3)

    run_state_machine_as_test(OnMemoryS3, settings=settings(quick, max_examples=15))


def test_no_content_is_lost_on_the_local_s3(s3_server: LocalDaytona, workers: Workers) -> None:
    class OnLocalS3(Writers):
        @initialize()
        def begin(self) -> None:
            self.world = World(workers, s3_server.s3_endpoint, None)
            for key in self.world.objects():
                self.world.client.delete_object(Bucket="agents", Key=PREFIX + key)

    run_state_machine_as_test(OnLocalS3, settings=settings(quick, max_examples=3))
