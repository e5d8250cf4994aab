"""Row: a command in a warm sandbox (it runs, and has stored the guest program), and the parts of its time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

from daytona import AsyncSandbox, Sandbox

from benchmarks import clients
from benchmarks.bench import Bench, Row
from benchmarks.measure import Samples, Spread, ainterleaved, combined, interleaved
from benchmarks.result import Result, compared, figure
from benchmarks.served import Served, served
from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._core.answer import read_frame
from langchain_daytona_ws._core.commands.run import run_command
from langchain_daytona_ws._core.guest_rpc.payload import GuestCall, guest_call
from langchain_daytona_ws._core.run_sync import run_sync

NAME = "warm command"
COMMAND = "echo hello"
RAW, PEER = "sandbox.process.exec", "langchain-daytona execute"
SAME = "the same request, sent by the SDK"
CARRIED = "sandbox.process.exec, carrying the same variables"
PYTHON = "sandbox.process.exec of python3"
TIMEOUT_S = 170

CLIENT_NOTE = (
    "(raw + ours − the same request sent by the SDK) ÷ raw: the time that the library adds in the client's process; "
    "the two figures below have the time of its program in the sandbox"
)

WHOLE_NOTE = (
    "the wrapper bounds time and output and runs a call once only: it starts Python, loads its program and then "
    "starts bash, where the SDK starts a shell alone"
)


def run(bench: Bench) -> Iterator[Result]:
    rounds = bench.times(200, 10)
    with served() as server:
        yield from _sync(server, rounds)
        yield from asyncio.run(_async(server, rounds))


def _sync(server: Served, rounds: int) -> Iterator[Result]:
    with clients.raw(server) as daytona, clients.session(server) as session:
        sandbox = daytona.create()
        session.run(COMMAND)
        peer = clients.peer(sandbox)
        yield from _requests(server, session, sandbox, peer)
        first = next(requests_of(COMMAND))
        answer = sandbox.process.exec(first.script, env=first.env, timeout=TIMEOUT_S)
        calls = requests_of(COMMAND, kept_in(answer.result, first))
        environment = next(calls).env
        samples = interleaved(
            {
                "session.run": lambda: session.run(COMMAND),
                RAW: lambda: sandbox.process.exec(COMMAND),
                PEER: lambda: peer.execute(COMMAND),
                SAME: lambda: send(sandbox, next(calls)),
                CARRIED: lambda: sandbox.process.exec(COMMAND, env=environment),
                PYTHON: lambda: sandbox.process.exec(f"exec python3 -I -S -c 'print({COMMAND!r})'"),
            },
            rounds,
        )
        sandbox.delete()
    yield from _results(samples, "session.run", RAW, reach=4.0)
    yield compared(NAME, samples, "session.run", PEER, reach=0.13, quoted=True)
    yield figure(NAME, "bytes of a warm request", _bytes(next(calls)), "bytes", reach=2048, quoted=True)
    for part, label in ((CARRIED, "its variables"), (PYTHON, "the start of Python")):
        added = combined(samples, lambda whole, raw: (whole - raw) * 1000, part, RAW)
        yield figure(NAME, f"session.run, in the wrapper: {label}", added, "ms", note=f"{part} − raw")


def _bytes(call: GuestCall) -> int:
    """Return the size of a request: its script, and its variables, which carry the command."""
    return len(call.script) + sum(len(name) + len(value) for name, value in call.env.items())


def _results(samples: Samples, ours: str, raw: str, *, reach: float | None = None) -> Iterator[Result]:
    yield compared(NAME, samples, ours, raw, note=WHOLE_NOTE, reach=reach, quoted=True)
    added = combined(samples, lambda mine, same: mine - same, ours, SAME)
    base = Spread.of(samples[raw]).median
    # Differences of one round, because the start of Python in the sandbox varies by more than the client adds.
    client = Spread(1 + added.median / base, 1 + added.low / base, 1 + added.high / base, count=added.count)
    medians = {"added, ms": added.median * 1000, f"{raw}, ms": base * 1000}
    yield Result(
        NAME, f"{ours}, client side", raw, client, reach=1.15, medians=medians, note=CLIENT_NOTE, quoted=True
    )
    inside = combined(samples, lambda same, plain: (same - plain) * 1000, SAME, raw)
    yield figure(NAME, f"{ours}, the wrapper in the sandbox", inside, "ms", note="the same request − raw")


def _requests(server: Served, session: WorkspaceSession, sandbox: Sandbox, peer: Any) -> Iterator[Result]:
    commands = 5
    for name, run_once, reach in (
        ("session.run", lambda: session.run(COMMAND), 1.0),
        (PEER, lambda: peer.execute(COMMAND), None),
    ):
        server.requests()
        for _ in range(commands):
            run_once()
        each = sum(server.requests().values()) / commands
        yield Result(NAME, f"requests a command, {name}", RAW, Spread.of([each]), reach=reach, quoted=True)


async def _async(server: Served, rounds: int) -> list[Result]:
    async with clients.araw(server) as daytona, clients.session(server) as session:
        sandbox = await daytona.create()
        await session.arun(COMMAND)
        first = next(requests_of(COMMAND))
        answer = await sandbox.process.exec(first.script, env=first.env, timeout=TIMEOUT_S)
        calls = requests_of(COMMAND, kept_in(answer.result, first))
        raw = f"async {RAW}"
        samples = await ainterleaved(
            {
                "session.arun": lambda: session.arun(COMMAND),
                raw: lambda: sandbox.process.exec(COMMAND),
                SAME: lambda: asend(sandbox, next(calls)),
            },
            rounds,
        )
        await sandbox.delete()
    return list(_results(samples, "session.arun", raw))


def send(sandbox: Sandbox, call: GuestCall) -> None:
    sandbox.process.exec(call.script, env=call.env, timeout=TIMEOUT_S)


async def asend(sandbox: AsyncSandbox, call: GuestCall) -> None:
    await sandbox.process.exec(call.script, env=call.env, timeout=TIMEOUT_S)


def kept_in(output: str, call: GuestCall) -> str:
    """Return the digest of the guest program that the sandbox has stored during this call."""
    return str(read_frame(output, call.nonce, 0)["program"])


def kept_by(session: WorkspaceSession) -> str:
    """Return the digest of the guest program for commands that the session's sandbox has stored."""
    return session._state.programs.call(session.sandbox_id or "", "command", {}, "").digest


def requests_of(command: str, digest: str = "") -> Iterator[GuestCall]:
    """Yield endlessly the requests that sessions would send for a command; each is a separate call.

    `digest` is the digest of the guest program that the sandbox has stored; "" for none.
    """
    while True:
        client = _CapturingClient(digest)
        try:
            work = run_command(
                client,  # type: ignore[arg-type]  # it has the methods used here
                "/mnt/workspaces/bench", command, timeout_s=120, limit_bytes=65536, key=None,
            )  # fmt: skip
            run_sync(work)
        except _Captured as captured:
            yield captured.call


class _Captured(Exception):
    def __init__(self, call: GuestCall) -> None:
        self.call = call


class _CapturingClient:
    def __init__(self, digest: str) -> None:
        self._digest = digest
        self.variables = dict[str, str]()

    def new_key(self) -> str:
        return secrets.token_hex(16)

    async def call(self, entry: str, request: dict[str, object], **_: object) -> None:
        raise _Captured(guest_call(entry, request, self.new_key(), digest=self._digest))


ROW = Row(NAME, "a command in an existing sandbox", run)
