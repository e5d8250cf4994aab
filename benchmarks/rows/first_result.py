"""Row: the first result, without an existing client, connection or sandbox."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator
from contextlib import ExitStack

from daytona import Sandbox

from benchmarks import clients
from benchmarks.bench import Bench, Row
from benchmarks.measure import Samples, Spread, combined, interleaved
from benchmarks.result import Result, compared
from benchmarks.served import Served, served

NAME = "first result"
COMMAND = "echo hello"
OURS, RAW = "new session, session.run", "new client, create, exec"
MOUNTED = f"{OURS}, S3 mounted"
MOUNT = "mount-s3's start, by the SDK"
BUCKET = "bench"

WHOLE_NOTE = "the difference is the start of the wrapper in the sandbox"
MOUNT_NOTE = (
    "the time of an empty exec is subtracted; the rest is the start of the mounter's program, and its check that the "
    "mount is the right one"
)


def run(bench: Bench) -> Iterator[Result]:
    with served(s3=True) as server:
        server.make_bucket(BUCKET)
        with Starts(server) as starts, clients.raw(server) as daytona:
            sandbox = daytona.create()
            samples = interleaved(
                {
                    OURS: starts.ours,
                    RAW: starts.raw,
                    MOUNTED: starts.mounted,
                    MOUNT: lambda: starts.mount_by_hand(sandbox),
                    "exec": lambda: sandbox.process.exec(COMMAND),
                },
                bench.times(25, 3),
                warm_up=1,
                tidy=starts.end,
            )
    yield compared(NAME, samples, OURS, RAW, reach=1.15, quoted=True, note=WHOLE_NOTE)
    yield compared(NAME, samples, MOUNTED, RAW, quoted=True)
    yield _added_by_mount(samples)


def _added_by_mount(samples: Samples) -> Result:
    """Compare the time that the mount adds with the time that mount-s3 needs until the directory is usable."""
    added = combined(samples, lambda mounted, plain: mounted - plain, MOUNTED, OURS)
    alone = combined(samples, lambda mount, command: mount - command, MOUNT, "exec")
    return Result(
        NAME,
        "what the mount adds",
        MOUNT,
        Spread(added.median / alone.median, added.low / alone.median, added.high / alone.median, added.count),
        reach=1.15,
        medians={"added, ms": added.median * 1000, f"{MOUNT}, ms": alone.median * 1000},
        note=MOUNT_NOTE,
        quoted=True,
    )


class Starts:
    """Starts contenders without an existing client or sandbox. `end` is not timed."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._started = ExitStack()

    def __enter__(self) -> Starts:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._started.close()

    def ours(self) -> None:
        self._started.enter_context(clients.session(self._server)).run(COMMAND)

    def mounted(self) -> None:
        self._started.enter_context(clients.session(self._server, bucket=BUCKET)).run(COMMAND)

    def raw(self) -> None:
        daytona = self._started.enter_context(clients.raw(self._server))
        sandbox = daytona.create()
        self._started.callback(sandbox.delete)
        sandbox.process.exec(COMMAND)

    def mount_by_hand(self, sandbox: Sandbox) -> None:
        """Mount a prefix in a raw sandbox as the documentation of mount-s3 describes."""
        folder = f"/mnt/{secrets.token_hex(4)}"
        keys = " ".join(f"{name}={shlex.quote(value)}" for name, value in clients.KEYS.items())
        endpoint = f"--endpoint-url {self._server.s3_endpoint} --force-path-style --region us-east-1"
        flags = f"--prefix sandbox{folder}/ --allow-delete --allow-overwrite --allow-other"
        mount = f"mkdir {folder} && env {keys} setsid mount-s3 {BUCKET} {folder} {endpoint} {flags}"
        _succeed(sandbox, f"{mount} && ls {folder}")
        self._started.callback(_succeed, sandbox, f"umount {folder}")


def _succeed(sandbox: Sandbox, command: str) -> None:
    answer = sandbox.process.exec(command)
    if answer.exit_code != 0:
        raise RuntimeError(f"{command}: {answer.result}")


ROW = Row(NAME, "the first command of a new session, with what it needs created", run)
