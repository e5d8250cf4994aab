"""Row: a synchronised workspace (`s3Mode: sync`) compared with a workspace on the sandbox's own disk."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
from botocore.config import Config

from benchmarks import clients, everyday
from benchmarks.bench import Bench, Row
from benchmarks.measure import Samples, Spread, combined, interleaved, interleaved_values
from benchmarks.memory_s3 import MemoryS3, memory_s3
from benchmarks.result import Result, figure
from benchmarks.served import Served, served
from langchain_daytona_ws import CommandResult, WorkspaceSession

NAME = "sync"
BUCKET = "bench-sync"
LATENCY_S = 0.025
MIB = 1 << 20
BIG_BYTES = 100 * MIB
PER_DIRECTORY = 20
SYNC, DISK = "synchronised", "on the sandbox's disk"
UNCHANGED_REACH_MS = {1000: 45.0, 10_000: 120.0}
FIRST_REACH_S = {1000: 1.0, 10_000: 7.0}
# Objects of the workspace → changed files → milliseconds.
PUSH_REACH_MS = {1000: {1: 50.0, 100: 120.0, 2000: 900.0}, 10_000: {1: 80.0}}
RESIDENT_REACH_MIB = 64.0
RESIDENT_REACH_BYTES = 1024.0

LATENCY_NOTE = f"{LATENCY_S * 1000:.0f} ms a request to S3"
PUSH_NOTE = (
    "the push alone: from the command's end to the result, without what this takes on the sandbox's disk; "
    + LATENCY_NOTE
)
BOTO3_NOTE = "boto3 without signing the content, as over https; " + LATENCY_NOTE
MAKE = "for i in $(seq 0 {last}); do d=d$((i / {each})); [ -d $d ] || mkdir $d; echo $i-$i-$i > $d/$i; done"
# The 2,000 changed files are new files, which are deleted after each push.
CHANGES = {
    1: "echo more >> d0/0",
    100: "for i in $(seq 0 99); do echo more >> d$((i / {each}))/$i; done",
    2000: "mkdir new; for i in $(seq 2000); do echo $i-$i > new/$i; done",
}
RESIDENT = (
    "for p in /proc/[0-9]*; do if grep -qx workspace-sync $p/comm 2>/dev/null; "
    "then grep -E '^Vm(HWM|RSS):' $p/status; fi; done"
)


def run(bench: Bench) -> Iterator[Result]:
    with served(s3=True) as server:
        for count in UNCHANGED_REACH_MS:
            bench.report(f"{count:,} objects")
            with memory_s3() as store:
                yield from _of_count(server, store, count, bench)
        bench.report("100 MiB")
        with memory_s3() as store:
            yield from _transfers(server, store, bench)
        bench.report(f"{len(everyday.COMMANDS)} everyday commands")
        yield from _everyday(server)


class Workspaces:
    """A synchronised workspace, and a workspace on a sandbox's own disk."""

    def __init__(self, server: Served, store: MemoryS3) -> None:
        self._server = server
        self._options = {
            "mountAwsS3Buckets": True,
            "s3Mode": "sync",
            "workspaceBucketName": BUCKET,
            "awsRegion": "us-east-1",
            "s3Endpoint": store.endpoint,
        }
        self.namespace = f"bench-{secrets.token_hex(4)}"
        self.sync, self.disk = self.new_sync(), clients.session(server)

    def new_sync(self) -> WorkspaceSession:
        """Return a session without a sandbox, for the prefix of `self.sync`."""
        config = clients.settings(self._server, options=self._options, envVars=clients.KEYS)
        return WorkspaceSession(config, namespace=self.namespace)

    def new_disk(self) -> WorkspaceSession:
        return clients.session(self._server)

    def run(self, command: str) -> None:
        """Run a command in both workspaces."""
        for session in (self.sync, self.disk):
            succeed(session, command)

    def close(self) -> None:
        self.sync.close()
        self.disk.close()


def succeed(session: WorkspaceSession, command: str) -> CommandResult:
    """Run a command. Raise if it fails or its synchronisation is incomplete: failures must not count as fast."""
    result = session.run(command, timeout_s=600)
    if result.exit_code != 0 or (result.sync is not None and result.sync.failure):
        raise RuntimeError(f"{command}: {result.output} {result.sync}")
    return result


def _of_count(server: Served, store: MemoryS3, count: int, bench: Bench) -> Iterator[Result]:
    with closing(Workspaces(server, store)) as both:
        both.run(MAKE.format(last=count - 1, each=PER_DIRECTORY))
        store.latency(LATENCY_S)
        yield from _unchanged(server, both, count, bench)
        for changed, reach in PUSH_REACH_MS[count].items():
            yield _pushed(both, count, changed, reach, bench)
        yield _first_call(both, count, bench)
        store.latency(0)
        if count == max(UNCHANGED_REACH_MS):
            yield from _memory(both, count)


def _unchanged(server: Served, both: Workspaces, count: int, bench: Bench) -> Iterator[Result]:
    samples = interleaved(
        {SYNC: lambda: succeed(both.sync, "true"), DISK: lambda: succeed(both.disk, "true")},
        bench.times(40, 5),
    )
    yield _added(
        samples, f"a warm call that changes nothing, {count:,} objects: added", UNCHANGED_REACH_MS[count],
        LATENCY_NOTE,
    )  # fmt: skip
    calls = 5
    server.requests()
    for _ in range(calls):
        succeed(both.sync, "true")
    if count == min(UNCHANGED_REACH_MS):
        each = sum(server.requests().values()) / calls
        yield figure(NAME, "requests to Daytona a warm call", each, "", reach=1.0, quoted=True)


def _added(samples: Samples, what: str, reach: float, note: str) -> Result:
    """Subtract within each round, so that slow moments of the machine cancel out."""
    added = combined(samples, lambda synchronised, alone: (synchronised - alone) * 1000, SYNC, DISK)
    medians = {f"{name}, ms": Spread.of(samples[name]).median * 1000 for name in (SYNC, DISK)}
    return figure(NAME, what, added, "ms", reach=reach, medians=medians, note=note, quoted=True)


def _pushed(both: Workspaces, count: int, changed: int, reach: float, bench: Bench) -> Result:
    command = CHANGES[changed].format(each=PER_DIRECTORY)

    def push(session: WorkspaceSession) -> Callable[[], float]:
        def seconds() -> float:
            took, result = after_end(session, command)
            if result.sync is not None and result.sync.pushed != changed:
                raise RuntimeError(f"{result.sync.pushed} files were pushed, not {changed}")
            session.run("rm -rf new")
            return took

        return seconds

    rounds = bench.times(4 if changed > 100 else 15, 2)
    samples = interleaved_values({SYNC: push(both.sync), DISK: push(both.disk)}, rounds)
    files = f"{changed:,} changed file{'s' if changed > 1 else ''}"
    return _added(samples, f"push of {files}, {count:,} objects", reach, PUSH_NOTE)


def after_end(session: WorkspaceSession, command: str) -> tuple[float, CommandResult]:
    """Run a command; return the seconds from its end to its result. The sandbox has the clock of this machine."""
    result = succeed(session, f"{command}\ndate +%s.%N")
    return time.time() - float(result.output), result


class Starts:
    """Starts sessions by their first call. `close` is not timed."""

    def __init__(self) -> None:
        self._started = ExitStack()

    def first_call(self, session: WorkspaceSession) -> None:
        succeed(self._started.enter_context(session), "true")

    def close(self) -> None:
        self._started.close()


def _first_call(both: Workspaces, count: int, bench: Bench) -> Result:
    with closing(Starts()) as starts:
        samples = interleaved(
            {
                SYNC: lambda: starts.first_call(both.new_sync()),
                DISK: lambda: starts.first_call(both.new_disk()),
            },
            bench.times(3, 1), warm_up=0, tidy=starts.close,
        )  # fmt: skip
    return figure(
        NAME, f"first call of a new sandbox, {count:,} objects", Spread.of(samples[SYNC]), "s",
        reach=FIRST_REACH_S[count], medians={f"{DISK}, s": Spread.of(samples[DISK]).median},
        note=f"with the sandbox's creation; {LATENCY_NOTE}", quoted=True,
    )  # fmt: skip


def _memory(both: Workspaces, count: int) -> Iterator[Result]:
    """Measure the memory of the resident (the process that synchronises), then again with twice as many files."""
    before = _resident_kib(both.sync)
    yield figure(
        NAME, f"peak memory of the resident, {count:,} files", before / 1024, "MiB", reach=RESIDENT_REACH_MIB,
        note="after pushing all of them and pulling changes", quoted=True,
    )  # fmt: skip
    make = MAKE.format(last=count - 1, each=PER_DIRECTORY)
    succeed(both.sync, f"mkdir more && cd more && {make}")
    after = _resident_kib(both.sync)
    yield figure(
        NAME, "peak memory of the resident: each further file", (after - before) * 1024 / count, "bytes",
        reach=RESIDENT_REACH_BYTES, quoted=True, note=f"{count:,} to {2 * count:,} files",
    )  # fmt: skip


def _resident_kib(session: WorkspaceSession) -> int:
    return int(succeed(session, RESIDENT).output.split()[1])


def _transfers(server: Served, store: MemoryS3, bench: Bench) -> Iterator[Result]:
    with (
        closing(Workspaces(server, store)) as both,
        closing(_boto3(store)) as s3,
        TemporaryDirectory() as directory,
    ):
        file, key = Path(directory, "big"), f"sandbox/{both.namespace}/big"
        file.write_bytes(os.urandom(BIG_BYTES))
        s3.upload_file(str(file), BUCKET, "theirs")
        both.run("true")
        store.latency(LATENCY_S)
        write = f"head -c {BIG_BYTES} /dev/urandom > big"

        def pull() -> float:
            with file.open("r+b") as changed:
                changed.write(os.urandom(MIB))
            s3.upload_file(str(file), BUCKET, key)
            began = time.perf_counter()
            result = succeed(both.sync, "true")
            took = time.perf_counter() - began
            if result.sync is None or result.sync.pulled != 1:
                raise RuntimeError(f"the file was not pulled: {result.sync}")
            return took

        samples = interleaved_values(
            {
                "push": lambda: after_end(both.sync, write)[0],
                "no push": lambda: after_end(both.disk, write)[0],
                "upload_file": lambda: _seconds(lambda: s3.upload_file(str(file), BUCKET, "theirs")),
                "pull": pull,
                "no pull": lambda: _seconds(lambda: succeed(both.disk, "true")),
                "download_file": lambda: _seconds(
                    lambda: s3.download_file(BUCKET, "theirs", str(Path(directory, "copy")))
                ),
            },
            bench.times(7, 2),
        )
        peak = _resident_kib(both.sync)
    for ours, baseline in (("push", "upload_file"), ("pull", "download_file")):
        yield Result(
            NAME, f"{ours} of 100 MiB", f"boto3 {baseline}",
            combined(samples, lambda it, alone, theirs: (it - alone) / theirs, ours, f"no {ours}", baseline),
            reach=1.2, note=BOTO3_NOTE, quoted=True,
            medians={f"{name}, ms": Spread.of(samples[name]).median * 1000 for name in (ours, f"no {ours}", baseline)},
        )  # fmt: skip
    yield figure(
        NAME, "peak memory of the resident, a file of 100 MiB", peak / 1024, "MiB", reach=RESIDENT_REACH_MIB,
        note="after pushes and pulls of it", quoted=True,
    )  # fmt: skip


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _boto3(store: MemoryS3) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=clients.KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=clients.KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}, s3={"payload_signing_enabled": False}),
    )


def _everyday(server: Served) -> Iterator[Result]:
    """Count the everyday commands that fail, in three kinds of workspaces."""
    server.make_bucket(BUCKET)
    mount = clients.session(server, bucket=BUCKET)
    with memory_s3() as store, closing(Workspaces(server, store)) as both, closing(mount):
        store.latency(LATENCY_S)
        for name, session in ((SYNC, both.sync), (DISK, both.disk), ("on the mount", mount)):
            succeed(session, "true")
            began = time.perf_counter()
            failing = everyday.failing(session)
            took_s = time.perf_counter() - began
            yield figure(
                NAME, f"of {len(everyday.COMMANDS)} everyday commands fail, {name}", len(failing), "",
                reach=0 if name == SYNC else None, medians={"all commands, s": took_s}, note=", ".join(failing),
                quoted=True,
            )  # fmt: skip


ROW = Row(NAME, "a synchronised workspace: unchanged calls, pushes, first call, memory, transfers", run)
