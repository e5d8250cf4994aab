"""A local Daytona for each worker, Hypothesis's profiles, and the choice of what ``make test`` leaves out.

Hypothesis draws the same examples in every run; others, and in ``tests/hostile`` twenty times as many, on a hunt.
A hunt is ``pytest --hypothesis-profile hunt``.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from langchain_daytona_ws.local import LocalDaytona

QUICK = {Path(__file__).parent / name for name in ("unit_tests", "cassettes")}

# Without time limits: a busy machine may be slow at any example. A fixture may be used by all examples of a test.
COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("hunt", **COMMON)
settings.register_profile("steady", derandomize=True, **COMMON)
settings.load_profile("steady")

# Programs that the tests start inherit an ignored SIGINT, as `nohup make test &` leaves it, and Ctrl-C cannot end them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests use no TLS, or their own authority. aiohttp (at import) and each SDK client load the trusted certificates: 30 ms
# for the system's. `authority.pem` has one certificate, whose key was deleted.
os.environ.setdefault("SSL_CERT_FILE", str(Path(__file__).parent / "authority.pem"))

RUNTIMES = {"sync", "async"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark one test of each sync and async pair as `full`, which ``make test`` leaves out; the name chooses which.

    Sync and async calls run the same coroutines, so either test finds a fault in them. If the tested code differs, the
    tests are marked `sync_and_async`, and both run. In the unit tests and cassettes, both tests of a pair run.
    """
    pairs: dict[tuple[str, int], dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        callspec = getattr(item, "callspec", None)
        if (
            callspec is None
            or item.get_closest_marker("sync_and_async")
            or QUICK.intersection(item.path.parents)
        ):
            continue
        parts = callspec.id.split("-")
        # A kind of workspace is also named "sync": its tests have no counterpart with "async" at that position.
        for position, part in enumerate(parts):
            if part in RUNTIMES:
                rest = "-".join((*parts[:position], *parts[position + 1 :]))
                pairs[f"{item.nodeid.partition('[')[0]}[{rest}]", position][part] = item
    for (name, _), pair in pairs.items():
        if pair.keys() == RUNTIMES:
            left_out = sorted(RUNTIMES)[zlib.crc32(name.encode()) % 2]
            pair[left_out].add_marker(pytest.mark.full)
    _leave_out_repetitions(items)


def _leave_out_repetitions(items: list[pytest.Item]) -> None:
    """Mark the repetitions of a test that is marked `one_in(count)` as `full`, except one in `count`."""
    seen: dict[str, int] = defaultdict(int)
    for item in items:
        marker = item.get_closest_marker("one_in")
        if marker is not None and not item.get_closest_marker("full"):
            name = item.nodeid.partition("[")[0]
            if seen[name] % marker.args[0]:
                item.add_marker(pytest.mark.full)
            seen[name] += 1


def pytest_collectstart() -> None:
    """Collect no garbage while the modules of the tests are imported: a full collection takes half a second."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Exempt the modules of all tests from garbage collection."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_conversations_of_other_tests() -> Iterator[None]:
    """Forget the threads of a test: others use the same names and ids for new ones."""
    yield
    conversations = sys.modules.get("langchain_daytona_ws._session.conversations")
    if conversations is not None:
        conversations._conversations.clear()


@pytest.fixture(scope="session")
def worker_server() -> Iterator[LocalDaytona]:
    """Yield this worker's server. Tests use `server`, which resets it."""
    from langchain_daytona_ws.local import LocalDaytona

    with LocalDaytona() as running:
        yield running


@pytest.fixture(scope="session")
def worker_s3_server() -> Iterator[LocalDaytona]:
    """Yield this worker's server with S3, which takes two seconds to start. Tests use `s3_server`, which resets it."""
    from langchain_daytona_ws.local import LocalDaytona

    with LocalDaytona(s3=True) as running:
        yield running


def _ready(server: LocalDaytona) -> LocalDaytona:
    """Reset the server for a test. Restart it where an earlier test, which has failed for it, stopped or blocked it."""
    try:
        server.reset()
    except (RuntimeError, TimeoutError):
        server.stop()
        server.start()
    return server


@pytest.fixture(autouse=True)
def _no_sandbox_is_deleted_later() -> Iterator[None]:
    """Prevent requests during later tests: wait for unreferenced sessions, forget those that the test has left open."""
    process_end = sys.modules.get("langchain_daytona_ws._session.process_end")
    of_the_module = set() if process_end is None else {*process_end._open}
    yield
    process_end = sys.modules.get("langchain_daytona_ws._session.process_end")
    if process_end is None:
        return
    until = time.monotonic() + 60
    while not process_end._unreferenced.empty() or any(
        "-unreferenced" in thread.name for thread in threading.enumerate()
    ):
        assert time.monotonic() < until
        time.sleep(0.005)
    for sandbox in {*process_end._open} - of_the_module:
        process_end.remove(sandbox)


@pytest.fixture
def server(worker_server: LocalDaytona) -> Iterator[LocalDaytona]:
    """Yield a local Daytona without sandboxes, requests or faults of other tests."""
    yield _ready(worker_server)
    worker_server.reset()


@pytest.fixture(scope="module")
def s3_server(worker_s3_server: LocalDaytona) -> Iterator[LocalDaytona]:
    """Yield a local Daytona with S3 and a bucket "agents", reset after other modules except for objects."""
    _ready(worker_s3_server).make_bucket("agents")
    yield worker_s3_server
    worker_s3_server.reset()
