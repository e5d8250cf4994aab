"""Reading, writing and editing files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import boto3
from botocore.config import Config
from daytona import Sandbox

from benchmarks import clients
from benchmarks.bench import Bench, Row
from benchmarks.measure import Samples, interleaved
from benchmarks.result import Result, compared, figure
from benchmarks.served import Served, served
from langchain_daytona_ws import WorkspaceSession
from langchain_daytona_ws._core.files import MAX_BYTES

NAME = "files"
MIB = 1 << 20
SIZES = {"1 KiB": 1 << 10, "1 MiB": MIB, "50 MiB": 50 * MIB}
BUCKET = "bench-files"
LINE = "{:07d} the quick brown fox jumps over the lazy dog, and on\n"
MARK = "state-{:012d}"
PAGED = "a page of it, as a model reads; the SDK transfers the whole file"
REFUSED = "over 10 MiB, which files.read, files.write and files.edit refuse: through session.run"


def run(bench: Bench) -> Iterator[Result]:
    with served() as server, clients.raw(server) as daytona, clients.session(server) as session:
        sandbox = daytona.create()
        for size, count in SIZES.items():
            bench.tell(size)
            rounds = bench.times(20, 2) if count <= MIB else bench.times(5, 1)
            yield from _of_size(Contents(count), size, Contenders(session, sandbox), rounds)
        sandbox.delete()
    yield from _on_s3(bench)


class Contents:
    """Text of so many bytes, of which each copy begins with another mark."""

    def __init__(self, count: int) -> None:
        lines = (LINE.format(number) for number in range(count // len(LINE.format(0)) + 1))
        self.count = count
        self._rest = "".join(lines)[len(MARK.format(0)) : count]
        self._number = itertools.count()

    def another(self) -> str:
        return self.with_mark(next(self._number))

    def with_mark(self, number: int) -> str:
        return MARK.format(number) + self._rest


class Marks:
    """The edits of one file, each of which changes its mark to the next."""

    def __init__(self) -> None:
        self._number = 0

    def change(self) -> tuple[str, str]:
        self._number += 1
        return MARK.format(self._number - 1), MARK.format(self._number)


class Contenders:
    """The ways to a file in a sandbox. What goes wrong raises: a quick error must not count as quick work."""

    def __init__(self, session: WorkspaceSession, sandbox: Sandbox) -> None:
        self.session = session
        self.sandbox = sandbox
        self.peer = clients.peer(sandbox)

    def shell(self, command: str) -> None:
        result = self.session.run(command)
        if result.exit_code != 0:
            raise RuntimeError(f"{command}: {result.output}")

    def transferred_edit(self, path: str, marks: Marks) -> None:
        old, new = marks.change()
        data = self.sandbox.fs.download_file(path)
        self.sandbox.fs.upload_file(data.replace(old.encode(), new.encode()), path)


def _succeeded(answer: Any) -> None:
    if answer.error is not None:
        raise RuntimeError(answer.error)


def _of_size(contents: Contents, size: str, ways: Contenders, rounds: int) -> Iterator[Result]:
    session, files, peer = ways.session, ways.session.files, ways.peer
    ours, raw, theirs = f"{contents.count}.txt", f"/tmp/raw-{contents.count}", f"/tmp/peer-{contents.count}"  # noqa: S108
    mine, raws, peers = Marks(), Marks(), Marks()
    start = contents.with_mark(0)
    for path in (raw, theirs, raw + "-edit", theirs + "-edit"):
        ways.sandbox.fs.upload_file(start.encode(), path)
    within = contents.count <= MAX_BYTES
    note = "" if within else REFUSED
    if within:
        session.files.write(ours, start)
        session.files.write(f"edit-{ours}", start)
    else:
        # The same lines, made in the sandbox.
        ways.shell(f"yes {LINE.format(0).strip()!r} | head -c {contents.count} > {ours}")
        ways.shell(f"(printf {MARK.format(0)}; tail -c +{len(MARK.format(0)) + 1} {ours}) > edit-{ours}")

    def transfer() -> None:
        ways.sandbox.fs.upload_file(contents.another().encode(), raw)

    def edit_by_shell() -> None:
        old, new = mine.change()
        ways.shell(f"sed -i s/{old}/{new}/ edit-{ours}")

    samples = interleaved(
        {
            "files.read": (lambda: files.read(ours))
            if within
            else lambda: ways.shell(f"head -n 2000 {ours}"),
            "fs.download_file": lambda: ways.sandbox.fs.download_file(raw),
            "BaseSandbox.read": lambda: _succeeded(peer.read(theirs)),
            "files.write": (lambda: files.write(ours, contents.another(), overwrite=True))
            if within
            else lambda: ways.shell(f"cat edit-{ours} > {ours}"),
            "fs.upload_file": transfer,
            "BaseSandbox.write": lambda: _succeeded(peer.write(theirs, contents.another())),
            "files.edit": (lambda: files.edit(f"edit-{ours}", *mine.change())) if within else edit_by_shell,
            "download, replace, upload": lambda: ways.transferred_edit(raw + "-edit", raws),
            "BaseSandbox.edit": lambda: _succeeded(peer.edit(theirs + "-edit", *peers.change())),
        },
        rounds,
        warm_up=1,
    )
    for op, by_sdk in (
        ("read", "fs.download_file"),
        ("write", "fs.upload_file"),
        ("edit", "download, replace, upload"),
    ):
        yield _found(samples, f"files.{op}", by_sdk, size, note or (PAGED if op == "read" else ""))
        yield _found(samples, f"files.{op}", f"BaseSandbox.{op}", size, note)


def _found(samples: Samples, ours: str, baseline: str, size: str, note: str) -> Result:
    return compared(
        NAME, samples, ours, baseline, note=note, quoted=baseline.startswith("Base"), what=f"{ours}, {size}"
    )


def _on_s3(bench: Bench) -> Iterator[Result]:
    """Read directly from S3: no sandbox is made."""
    with served(s3=True) as server, clients.session(server, bucket=BUCKET) as session:
        server.make_bucket(BUCKET)
        with closing(_s3(server)) as s3:
            for size, count in list(SIZES.items())[:2]:
                yield _read_on_s3(session, s3, size, Contents(count), bench.times(30, 3))
        created = server.requests().get("create", 0)
    yield figure(NAME, "sandboxes created for the reads on S3", created, "", reach=0, quoted=True)


def _read_on_s3(session: WorkspaceSession, s3: Any, size: str, contents: Contents, rounds: int) -> Result:
    path, key = f"{contents.count}.txt", f"sandbox/{session.namespace}/{contents.count}.txt"
    s3.put_object(Bucket=BUCKET, Key=key, Body=contents.another().encode())
    baseline = "boto3 get_object"

    def get() -> object:
        return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    samples = interleaved(
        {
            "files.read": lambda: session.files.read(path),
            baseline: get,
        },
        rounds,
    )
    return compared(NAME, samples, "files.read", baseline, what=f"files.read, {size} on S3", quoted=True)


def _s3(server: Served) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=clients.KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=clients.KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}),
    )


ROW = Row(NAME, "read, write and edit of 1 KiB, 1 MiB and 50 MiB", run)
