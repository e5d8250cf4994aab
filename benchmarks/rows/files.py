"""Row: reading, writing and editing files."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
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
from langchain_daytona_ws._core.files.operations import MAX_BYTES
from langchain_daytona_ws.deepagents import WorkspaceBackend

NAME = "files"
MIB = 1 << 20
SIZES = {"1 KiB": 1 << 10, "1 MiB": MIB, "50 MiB": 50 * MIB}
BUCKET = "bench-files"
LINE = "{:07d} the quick brown fox jumps over the lazy dog, and on\n"
MARK = "state-{:012d}"
PAGED = "a page of it, as a model reads; the SDK transfers the whole file"
SMALL_FILES = 500
OURS, EDITED = "written.txt", "edited.txt"
# (operation, size) → limit of its time ÷ the time of the quoted baseline.
REACHES = {
    ("files.read", "1 KiB"): 0.22,
    ("files.write", "1 KiB"): 0.22,
    ("files.edit", "1 KiB"): 0.22,
    ("backend.download_files", "50 MiB"): 1.1,
    ("backend.upload_files", "50 MiB"): 1.2,
    ("files.read", "1 MiB on S3"): 1.15,
}

Operations = dict[str, Callable[[], object]]


def run(bench: Bench) -> Iterator[Result]:
    with (
        served() as server,
        clients.raw(server) as daytona,
        clients.session(server) as session,
        tempfile.TemporaryDirectory() as host,
    ):
        sandbox = daytona.create()
        for size, count in SIZES.items():
            bench.report(size)
            rounds = bench.times(20, 2) if count <= MIB else bench.times(5, 1)
            yield from _of_size(Contents(count), size, Contenders(session, sandbox, count), rounds)
        bench.report("files of this machine")
        contenders = Contenders(session, sandbox, SIZES["50 MiB"])
        yield from _of_host(contenders, Path(host), bench.times(5, 1))
        sandbox.delete()
    yield from _on_s3(bench)


class Contents:
    """Texts of `count` bytes. Each begins with a different mark."""

    def __init__(self, count: int) -> None:
        lines = (LINE.format(number) for number in range(count // len(LINE.format(0)) + 1))
        self.count = count
        self._rest = "".join(lines)[len(MARK.format(0)) : count]
        self._number = itertools.count()

    def new(self) -> str:
        return self.with_mark(next(self._number))

    def with_mark(self, number: int) -> str:
        return MARK.format(number) + self._rest


class Marks:
    """Edits of one file: each replaces the file's mark by the next mark."""

    def __init__(self) -> None:
        self._number = 0

    def change(self) -> tuple[str, str]:
        self._number += 1
        return MARK.format(self._number - 1), MARK.format(self._number)


class Contenders:
    """Operations of all contenders on files of one size. Failures raise: a quick error must not count as fast."""

    def __init__(self, session: WorkspaceSession, sandbox: Sandbox, count: int) -> None:
        self.session = session
        self.backend = WorkspaceBackend(session=session)
        self.sandbox = sandbox
        self.peer = clients.peer(sandbox)
        self.raw = f"/tmp/raw-{count}"  # noqa: S108 - in a sandbox
        self.raw_edited = f"{self.raw}-edited"
        self.theirs = f"/tmp/peer-{count}"  # noqa: S108

    def put(self, contents: Contents) -> None:
        for name in (OURS, EDITED):
            path = f"{self.session.root}/{name}"
            _succeeded(*self.backend.upload_files([(path, contents.with_mark(0).encode())]))

    def shell(self, command: str) -> None:
        result = self.session.run(command)
        if result.exit_code != 0:
            raise RuntimeError(f"{command}: {result.output}")

    def edit_by_transfer(self, marks: Marks) -> None:
        old, new = marks.change()
        data = self.sandbox.fs.download_file(self.raw_edited)
        self.sandbox.fs.upload_file(data.replace(old.encode(), new.encode()), self.raw_edited)


def _succeeded(*answers: Any) -> None:
    for answer in answers:
        if answer.error is not None:
            raise RuntimeError(answer.error)


def _of_size(contents: Contents, size: str, contenders: Contenders, rounds: int) -> Iterator[Result]:
    for path in (contenders.raw, contenders.raw_edited, contenders.theirs):
        contenders.sandbox.fs.upload_file(contents.with_mark(0).encode(), path)
    contenders.put(contents)
    own = _tools(contenders, contents) if contents.count <= MAX_BYTES else _through_commands(contenders)
    marks = Marks()
    samples = interleaved(
        {
            **own,
            "fs.download_file": lambda: contenders.sandbox.fs.download_file(contenders.raw),
            "fs.upload_file": lambda: contenders.sandbox.fs.upload_file(
                contents.new().encode(), contenders.raw
            ),
            "download, replace, upload": lambda: contenders.edit_by_transfer(marks),
            **_transfers(contenders, contents),
            **_peers(contenders, contents),
        },
        rounds,
        warm_up=1,
    )
    read, *write, edit = own
    yield _result(samples, read, "BaseSandbox.read", size)
    yield _result(samples, read, "fs.download_file", size, PAGED)
    for name in write:
        yield _result(samples, name, "BaseSandbox.write", size)
        yield _result(samples, name, "fs.upload_file", size)
    yield _result(samples, edit, "BaseSandbox.edit", size)
    yield _result(samples, edit, "download, replace, upload", size)
    for name in ("download", "upload"):
        yield _result(samples, f"backend.{name}_files", f"BaseSandbox.{name}_files", size)
        yield _result(samples, f"backend.{name}_files", f"fs.{name}_file", size)


def _tools(contenders: Contenders, contents: Contents) -> Operations:
    files, marks = contenders.session.files, Marks()
    return {
        "files.read": lambda: files.read(OURS),
        "files.write": lambda: files.write(OURS, contents.new(), overwrite=True),
        "files.edit": lambda: files.edit(EDITED, *marks.change()),
    }


def _through_commands(contenders: Contenders) -> Operations:
    """Return a model's operations on a file that is too large for files.read, write and edit."""
    marks = Marks()
    return {
        "session.run head": lambda: contenders.shell(f"head -n 2000 {OURS}"),
        "session.run sed": lambda: contenders.shell("sed -i s/{}/{}/ {}".format(*marks.change(), EDITED)),
    }


def _transfers(contenders: Contenders, contents: Contents) -> Operations:
    path = f"{contenders.session.root}/{OURS}"
    return {
        "backend.download_files": lambda: _succeeded(*contenders.backend.download_files([path])),
        "backend.upload_files": lambda: _succeeded(
            *contenders.backend.upload_files([(path, contents.new().encode())])
        ),
    }


def _peers(contenders: Contenders, contents: Contents) -> Operations:
    peer, marks = contenders.peer, Marks()
    written, edited = f"{contenders.theirs}-written", contenders.theirs
    return {
        "BaseSandbox.read": lambda: _succeeded(peer.read(edited)),
        "BaseSandbox.write": lambda: _succeeded(peer.write(written, contents.new())),
        "BaseSandbox.edit": lambda: _succeeded(peer.edit(edited, *marks.change())),
        "BaseSandbox.download_files": lambda: _succeeded(*peer.download_files([edited])),
        "BaseSandbox.upload_files": lambda: _succeeded(
            *peer.upload_files([(written, contents.new().encode())])
        ),
    }


def _result(samples: Samples, ours: str, baseline: str, size: str, note: str = "") -> Result:
    quoted = baseline.startswith("Base") and (size == "50 MiB" or not ours.startswith("backend"))
    reach = REACHES.get((ours, size)) if quoted else None
    return compared(
        NAME, samples, ours, baseline, what=f"{ours}, {size}", note=note, reach=reach, quoted=quoted
    )


def _of_host(contenders: Contenders, host: Path, rounds: int) -> Iterator[Result]:
    """Transfer files of this machine: one of 50 MiB, and a directory of small ones."""
    large, many, back = host / "large", host / "many", host / "back"
    large.write_text(Contents(SIZES["50 MiB"]).new())
    many.mkdir()
    small = Contents(SIZES["1 KiB"])
    for number in range(SMALL_FILES):
        (many / f"{number}.txt").write_text(small.with_mark(number))
    files, peer, theirs = contenders.session.files, contenders.peer, f"{contenders.theirs}-host"
    names = [f"{theirs}-many/{path.name}" for path in sorted(many.iterdir())]

    def read_many() -> list[tuple[str, bytes]]:
        return [(name, path.read_bytes()) for name, path in zip(names, sorted(many.iterdir()), strict=True)]

    def write_many(answers: Sequence[Any]) -> None:
        back.mkdir(exist_ok=True)
        for answer in answers:
            (back / answer.path.rpartition("/")[2]).write_bytes(answer.content)

    # Upload first, because the order of the contenders changes: a download may run before the uploads.
    files.upload(host, ".")
    contenders.sandbox.fs.upload_file(str(large), theirs)
    _succeeded(*peer.upload_files(read_many()))
    samples = interleaved(
        {
            "files.upload": lambda: files.upload(large, "large"),
            "files.download": lambda: files.download("large", host / "ours"),
            "fs.upload_file": lambda: contenders.sandbox.fs.upload_file(str(large), theirs),
            "fs.download_file": lambda: contenders.sandbox.fs.download_file(theirs, str(host / "theirs")),
            "BaseSandbox.upload_files": lambda: _succeeded(
                *peer.upload_files([(theirs, large.read_bytes())])
            ),
            "BaseSandbox.download_files": lambda: (host / "theirs").write_bytes(
                peer.download_files([theirs])[0].content or b""
            ),
            "files.upload of many": lambda: files.upload(many, "many"),
            "files.download of many": lambda: files.download("many", host / "copies"),
            "BaseSandbox.upload_files of many": lambda: _succeeded(*peer.upload_files(read_many())),
            "BaseSandbox.download_files of many": lambda: write_many(peer.download_files(names)),
        },
        rounds,
        warm_up=1,
    )
    for name in ("upload", "download"):
        yield _result(samples, f"files.{name}", f"BaseSandbox.{name}_files", "50 MiB file")
        yield _result(samples, f"files.{name}", f"fs.{name}_file", "50 MiB file")
        yield compared(
            NAME,
            samples,
            f"files.{name} of many",
            f"BaseSandbox.{name}_files of many",
            what=f"files.{name}, {SMALL_FILES} files of 1 KiB",
        )


def _on_s3(bench: Bench) -> Iterator[Result]:
    """Read directly from S3, without a sandbox."""
    with served(s3=True) as server, clients.session(server, bucket=BUCKET) as session:
        server.make_bucket(BUCKET)
        with closing(_s3(server)) as s3:
            for size, count in list(SIZES.items())[:2]:
                yield _read_on_s3(session, s3, size, Contents(count), bench.times(30, 3))
        created = server.requests().get("create", 0)
    yield figure(NAME, "sandboxes created for the reads on S3", created, "", reach=0, quoted=True)


def _read_on_s3(session: WorkspaceSession, s3: Any, size: str, contents: Contents, rounds: int) -> Result:
    path, key = f"{contents.count}.txt", f"sandbox/{session.namespace}/{contents.count}.txt"
    s3.put_object(Bucket=BUCKET, Key=key, Body=contents.new().encode())
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
    size = f"{size} on S3"
    reach = REACHES.get(("files.read", size))
    return compared(
        NAME, samples, "files.read", baseline, what=f"files.read, {size}", reach=reach, quoted=True
    )


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
