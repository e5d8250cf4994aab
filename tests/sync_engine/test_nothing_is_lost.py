"""Random steps of several writers, with killed synchronisations and outages: no content is lost, all copies are equal.

`make faults` runs at least 1,500 calls; see `tests/faults/sync_hunt.py`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings, strategies

from langchain_daytona_ws.local import LocalDaytona
from tests.sync_engine.memory_s3 import MemoryS3
from tests.sync_engine.world import Step, Workers, World

NUMBERS = strategies.integers(0, 999)
STEPS = strategies.lists(strategies.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=8, max_size=16)
quick = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@settings(quick, max_examples=15)
@given(steps=STEPS, random_etags=strategies.booleans(), honours_delete=strategies.booleans())
def test_no_content_is_lost(
    memory_s3: MemoryS3, workers: Workers, steps: list[Step], random_etags: bool, honours_delete: bool
) -> None:
    memory_s3.reset()
    memory_s3.random_etags, memory_s3.honours_delete = random_etags, honours_delete
    world = World(workers, memory_s3.endpoint, memory_s3)
    try:
        for step in steps:
            world.step(step)
        world.check()
    finally:
        world.close()


@settings(quick, max_examples=3)
@given(steps=STEPS)
def test_no_content_is_lost_on_the_local_s3(
    s3_server: LocalDaytona, workers: Workers, steps: list[Step]
) -> None:
    world = World(workers, s3_server.s3_endpoint, None)
    for key in world.objects():
        world.client.delete_object(Bucket="agents", Key=f"sandbox/ns/{key}")
    try:
        for step in steps:
            world.step(step)
        world.check()
    finally:
        world.close()
