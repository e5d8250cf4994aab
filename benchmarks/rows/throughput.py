"""Row: many sessions at once in one process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from daytona import AsyncSandbox

from benchmarks import clients
from benchmarks.bench import Bench, Row
from benchmarks.measure import Spread
from benchmarks.result import Result
from benchmarks.rows.warm_command import COMMAND, asend, kept_by, requests_of
from benchmarks.served import Served, served
from langchain_daytona_ws import WorkspaceSession

NAME = "throughput"
SESSIONS = (1, 10, 100, 500)
QUICK_SESSIONS = (1, 10, 40)
THREADS = 64
AT_ONCE = 6  # sandboxes created at once: more would wait for each other
COMMANDS = 300  # of each contender, at each number of sessions
ROUNDS = 3
SANDBOX_BYTES = 24 << 20
RAW, SAME = "sandbox.process.exec", "the same requests, sent by the SDK"
REACHES = {500: 0.25}  # number of sessions → lower limit of throughput ÷ throughput of exec
LINEAR = 1.5  # quadratic growth of the CPU time would be 50
LINEAR_MEMORY = 1.1  # quadratic growth would be 5

T = TypeVar("T")
Work = Callable[[int], Awaitable[object]]


@dataclass
class Load:
    """Measurements of one contender with one number of sessions."""

    per_second: list[float]
    cpu_s: list[float]  # CPU time of this process for one command
    latencies_s: list[float]

    @property
    def p99_s(self) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def run(bench: Bench) -> Iterator[Result]:
    wanted = QUICK_SESSIONS if bench.quick else SESSIONS
    numbers = [number for number in wanted if number * SANDBOX_BYTES < _available_bytes()]
    for number in wanted[len(numbers) :]:
        bench.report(f"too little memory for {number} sandboxes: left out")
    with served() as server:
        yield from asyncio.run(_growing(server, numbers, bench))
        yield from _threads(server, bench)


async def _growing(server: Served, numbers: Sequence[int], bench: Bench) -> list[Result]:
    loads: dict[int, dict[str, Load]] = {}
    allocated: dict[int, int] = {}
    # Not resident memory: that hardly grows at first, because freed memory is used again.
    tracemalloc.start()
    async with contextlib.AsyncExitStack() as stack, clients.araw(server) as daytona:
        sessions: list[WorkspaceSession] = []
        for number in numbers:
            bench.report(f"{number} sessions")
            new = [clients.session(server) for _ in range(number - len(sessions))]
            await _limited([partial(session.arun, ":") for session in new])
            stack.push_async_callback(_limited, [session.aclose for session in new])
            sessions += new
            # Measured before the contenders run, because their connections and sandboxes would count too.
            for _ in range(2):
                await asyncio.gather(*(session.arun(":") for session in sessions))
            gc.collect()
            allocated[number] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        sandboxes = await _limited([partial(daytona.get, session.sandbox_id or "") for session in sessions])
        for number in numbers:
            bench.report(f"{number} sessions at once")
            each = max(1, bench.times(COMMANDS) // number // ROUNDS)
            loads[number] = await _alternately(_contenders(sessions, sandboxes), number, each)
    results = [
        result
        for number in numbers
        for result in _results(f"{number} sessions", loads[number], "session.arun", REACHES.get(number))
    ]
    return [*results, *_growth(loads, allocated, numbers)]


def _contenders(sessions: Sequence[WorkspaceSession], sandboxes: Sequence[AsyncSandbox]) -> dict[str, Work]:
    calls = [requests_of(COMMAND, kept_by(session)) for session in sessions]
    return {
        "session.arun": lambda i: sessions[i].arun(COMMAND),
        RAW: lambda i: sandboxes[i].process.exec(COMMAND),
        SAME: lambda i: asend(sandboxes[i], next(calls[i])),
    }


async def _limited(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def limited(work: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await work()

    return await asyncio.gather(*map(limited, works))


async def _alternately(contenders: dict[str, Work], number: int, each: int) -> dict[str, Load]:
    loads = {name: Load([], [], []) for name in contenders}
    for turn in range(-1, ROUNDS):
        for name, work in contenders.items():
            load = loads[name] if turn >= 0 else Load([], [], [])
            began, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(_sequentially(work, i, each, load) for i in range(number)))
            load.per_second.append(number * each / (time.perf_counter() - began))
            load.cpu_s.append((time.process_time() - cpu) / (number * each))
    return loads


async def _sequentially(work: Work, index: int, count: int, load: Load) -> None:
    for _ in range(count):
        began = time.perf_counter()
        await work(index)
        load.latencies_s.append(time.perf_counter() - began)


def _results(setup: str, loads: dict[str, Load], ours: str, reach: float | None = None) -> Iterator[Result]:
    mine = loads[ours]
    for baseline, quoted in ((RAW, True), (SAME, False)):
        other = loads.get(baseline)
        if other is None:
            continue
        pairs = zip(mine.per_second, other.per_second, strict=True)
        yield Result(
            NAME,
            f"commands/s, {setup}",
            baseline,
            Spread.of([rate / base for rate, base in pairs]),
            reach=reach if baseline == RAW else None,
            at_least=True,
            medians={
                "commands/s": Spread.of(mine.per_second).median,
                "p99, ms": mine.p99_s * 1000,
                "client's CPU a command, ms": Spread.of(mine.cpu_s).median * 1000,
                f"{baseline}, commands/s": Spread.of(other.per_second).median,
                f"{baseline}, p99, ms": other.p99_s * 1000,
                f"{baseline}, client's CPU a command, ms": Spread.of(other.cpu_s).median * 1000,
            },
            note="more is better; sandboxes, server and client share this machine's cores",
            quoted=quoted,
        )


def _growth(
    loads: dict[int, dict[str, Load]], allocated: dict[int, int], numbers: Sequence[int]
) -> Iterator[Result]:
    """Compare the largest number of sessions with a small one: with linear growth the cost of each stays equal."""
    if len(numbers) < 3:
        return
    few, many, most = numbers[-3:]
    costs = {number: loads[number]["session.arun"].cpu_s for number in (few, most)}
    pairs = zip(costs[most], costs[few], strict=True)
    yield Result(
        NAME,
        f"client's CPU a command, {most} sessions",
        f"{few} sessions",
        Spread.of([cost / base for cost, base in pairs]),
        reach=LINEAR,
        medians={f"{number} sessions, ms": Spread.of(cpu).median * 1000 for number, cpu in costs.items()},
        note="linear growth is 1",
        quoted=True,
    )
    later = (allocated[most] - allocated[many]) / (most - many) / 1024
    earlier = (allocated[many] - allocated[few]) / (many - few) / 1024
    yield Result(
        NAME,
        f"client's memory a session, {many} to {most}",
        f"{few} to {many}",
        Spread.of([later / earlier]),
        reach=LINEAR_MEMORY,
        medians={f"{many} to {most}, KiB": later, f"{few} to {many}, KiB": earlier},
        note="linear growth is 1; what Python has allocated and not freed (tracemalloc)",
        quoted=True,
    )


def _threads(server: Served, bench: Bench) -> Iterator[Result]:
    """Run commands of 64 sessions from as many threads, against the SDK's one client for all threads."""
    each = bench.times(4, 1)
    with clients.raw(server) as daytona, contextlib.ExitStack() as stack, ThreadPoolExecutor(THREADS) as pool:
        sessions = [clients.session(server) for _ in range(THREADS)]
        with ThreadPoolExecutor(AT_ONCE) as few:
            list(few.map(lambda session: session.run(":"), sessions))
        for session in sessions:
            stack.callback(session.close)
        sandboxes = [daytona.get(session.sandbox_id or "") for session in sessions]
        works: dict[str, Callable[[int], object]] = {
            "session.run": lambda i: sessions[i].run(COMMAND),
            RAW: lambda i: sandboxes[i].process.exec(COMMAND),
        }
        loads = {name: Load([], [], []) for name in works}
        for turn in range(-1, ROUNDS):
            for name, work in works.items():
                load = loads[name] if turn >= 0 else Load([], [], [])
                _at_once(pool, work, each, load)
        yield from _results(f"{THREADS} threads", loads, "session.run")


def _at_once(pool: ThreadPoolExecutor, work: Callable[[int], object], each: int, load: Load) -> None:
    together = threading.Barrier(THREADS)

    def run_all(index: int) -> None:
        together.wait()
        for _ in range(each):
            began = time.perf_counter()
            work(index)
            load.latencies_s.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    list(pool.map(run_all, range(THREADS)))
    load.per_second.append(THREADS * each / (time.perf_counter() - began))
    load.cpu_s.append((time.process_time() - cpu) / (THREADS * each))


def _available_bytes() -> int:
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":") for line in file)
    return int(fields["MemAvailable"].split()[0]) * 1024


ROW = Row(NAME, "1, 10, 100 and 500 async sessions in one process, and 64 threads", run)
