"""Several working copies and other writers of one prefix, and a model of the content that must not be lost.

All content is made of tokens, each written once. A token may be missing at the end only if a program has overwritten
or deleted a file, or another writer an object, that contained it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.sync_engine.memory_s3 import DROPPED, Answer, MemoryS3, Request, error

BUCKET = "agents"
PREFIX = "sandbox/ns/"
LABELS = "ABC"
NAMES = ("a", "b", "d/a", "d/b", "d/e/a", "run.sh", "d", "e", "é", "x y+z%", ".git/HEAD", ".git/objects/o")
WAIT_S = 60.0
PROJECT = Path(__file__).parents[2]
SYNCS_MAX = 8
TOKEN = re.compile(rb"<\d+>")

# Methods of `World`, of the form (copy, first, second); frequent ones several times.
SYNCHRONISATIONS = ("sync", "sync", "sync", "sync_busy", "sync_busy", "sync_both")
FAILURES = ("sync_killed", "sync_killed", "sync_failing", "restart", "lose_index")
COMMANDS = (
    "write", "write", "append", "edit", "rename", "delete", "make_directory", "remove_tree", "chmod", "symlink",
    "touch", "move_behind_link", "same_content", "open_log",
)  # fmt: skip
OTHER_WRITERS = ("put", "put", "remove")
ACTIONS = (*SYNCHRONISATIONS, *FAILURES, *COMMANDS, *OTHER_WRITERS)

Step = tuple[str, int, int, int]


def client(endpoint: str) -> Any:
    """Return a client as `workspace_file` uses it."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIAOTHER",
        aws_secret_access_key="other",
        config=Config(
            proxies={}, retries={"total_max_attempts": 1}, request_checksum_calculation="when_required"
        ),
    )


def copy_spec(directory: str, endpoint: str, label: str) -> dict[str, Any]:
    """Return the specification of a working copy in a directory."""
    return {
        "root": f"{directory}/ws", "state": f"{directory}/state", "bucket": BUCKET, "prefix": PREFIX,
        "region": "us-east-1", "endpoint": endpoint, "label": label, "ignored": [], "limit_bytes": None,
        "read_only": False,
    }  # fmt: skip


class Workers:
    """The program of `worker.py`, started by another program, such as `bwrap`, if there is a prefix."""

    def __init__(self, prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-m", "tests.sync_engine.worker"]
        # A test before this one may have changed into another directory.
        self._program = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=PROJECT)
        self._directory = tempfile.mkdtemp()
        self._count = 0

    def start(self, spec: dict[str, Any]) -> Worker:
        self._count += 1
        path = f"{self._directory}/{self._count}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(WAIT_S)
            assert self._program.stdin
            self._program.stdin.write(path + "\n")
            self._program.stdin.flush()
            return Worker(listener.accept()[0], spec)

    def stop(self) -> None:
        assert self._program.stdin
        self._program.stdin.close()
        self._program.wait()
        shutil.rmtree(self._directory)


class Worker:
    """A process with one working copy."""

    def __init__(self, connection: socket.socket, spec: dict[str, Any]) -> None:
        self._connection = connection
        connection.settimeout(WAIT_S)
        self._stream = connection.makefile("rw", encoding="utf-8")
        self._stream.write(json.dumps(spec) + "\n")

    def send(self, action: str, kill_at: int | None) -> None:
        self._stream.write(json.dumps({"action": action, "kill_at": kill_at}) + "\n")
        self._stream.flush()

    def receive(self) -> dict[str, Any] | None:
        """Return the report; None if the process was killed."""
        try:
            line = self._stream.readline()
        except ConnectionResetError:
            return None
        return json.loads(line) if line else None

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()
        self._connection.close()


class WorkingCopy:
    """A directory that is synchronised, and the programs that change it."""

    def __init__(self, workers: Workers, directory: str, endpoint: str, label: str) -> None:
        self._workers = workers
        self.spec = copy_spec(f"{directory}/{label}", endpoint, label)
        self.root: str = self.spec["root"]
        os.makedirs(self.root)
        self._worker: Worker | None = None

    def start(self, action: str, kill_at: int | None = None) -> None:
        if self._worker is None:
            self._worker = self._workers.start(self.spec)
        self._worker.send(action, kill_at)

    def finish(self) -> dict[str, Any] | None:
        assert self._worker
        report = self._worker.receive()
        if report is None:
            self.end()
        return report

    def sync(self, action: str, kill_at: int | None = None) -> dict[str, Any] | None:
        self.start(action, kill_at)
        return self.finish()

    @property
    def is_running(self) -> bool:
        return self._worker is not None

    def end(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def snapshot(self) -> dict[str, tuple[str, int, bytes]]:
        """Return kind, mode and content of all files, links and empty directories."""
        found: dict[str, tuple[str, int, bytes]] = {}
        for directory, directories, files in os.walk(self.root):
            base = os.path.relpath(directory, self.root)
            names = [name for name in directories if os.path.islink(f"{directory}/{name}")] + files
            if not names and not directories and base != ".":
                found[f"{base}/"] = ("directory", stat.S_IMODE(os.lstat(directory).st_mode) | 0o700, b"")
            for name in names:
                at = Path(directory, name)
                path = os.path.normpath(f"{base}/{name}")
                if at.is_symlink():
                    found[path] = ("link", 0, os.fsencode(os.readlink(at)))
                else:
                    found[path] = ("file", stat.S_IMODE(at.lstat().st_mode), at.read_bytes())
        return found


class World:
    """The working copies A to C of one prefix, and the steps that change it.

    Args:
        workers: Runs the working copies.
        endpoint: The S3.
        store: The S3 in memory, for outages; None for another one.
    """

    def __init__(self, workers: Workers, endpoint: str, store: MemoryS3 | None) -> None:
        self._store = store
        self.client = client(endpoint)
        self._directory = tempfile.mkdtemp()
        self.copies = [WorkingCopy(workers, self._directory, endpoint, label) for label in LABELS]
        self._tokens = 0
        self.removed: set[bytes] = set()
        self.log: list[str] = []
        self._logs: dict[str, list[io.FileIO]] = {label: [] for label in LABELS}  # open in jobs of a copy
        self._unlinked: set[int] = set()  # inodes of files that agents deleted
        self._orphans: dict[str, set[bytes]] = {label: set() for label in LABELS}
        self.calls = self.kills = self.conflicts = 0

    def close(self) -> None:
        for copy in self.copies:
            self._end_jobs(copy)
            copy.end()
        shutil.rmtree(self._directory)

    def token(self) -> bytes:
        self._tokens += 1
        return b"<%d>" % self._tokens

    # --- steps ---

    def step(self, action: str, which: int, first: int, second: int) -> None:
        """Execute one of `ACTIONS`, with numbers that choose the working copy and the details."""
        copy = self.copies[which % len(self.copies)]
        try:
            detail = getattr(self, action)(copy, first, second)
        except OSError as failure:  # the command of an agent may fail, such as `mv a a/b`
            self.removed.add(b"<%d>" % self._tokens)
            detail = f"failed: {failure.strerror}"
        if detail is not None:
            self.log.append(f"{copy.spec['label']} {action}({first}, {second}): {detail}")

    def _note(self, report: dict[str, Any] | None) -> str:
        self.calls += 1
        if report is None:
            self.kills += 1
            for copy in self.copies:
                if not copy.is_running:
                    self._end_jobs(copy)
            return "killed"
        self.conflicts += report["conflicts_count"]
        return str({name: text for name, text in report.items() if text and name != "seconds"})

    def sync(self, copy: WorkingCopy, *_: int) -> str:
        return f"{self._note(copy.sync('pull'))} {self._note(copy.sync('push'))}"

    def sync_killed(self, copy: WorkingCopy, first: int, second: int) -> str:
        """Kill the pull or the push at one of its first steps."""
        report = copy.sync("pull", second % 16 if first % 2 else None)
        if first % 2 or report is None:
            return self._note(report)
        return f"{self._note(report)} {self._note(copy.sync('push', second % 16))}"

    def sync_both(self, copy: WorkingCopy, first: int, *_: int) -> str:
        """Synchronise two working copies at the same time."""
        other = self.copies[(self.copies.index(copy) + 1) % len(self.copies)]
        texts = []
        for action in ("pull", "push") if first % 2 else ("push",):
            for started in (copy, other):
                started.start(action)
            texts += [self._note(copy.finish()), self._note(other.finish())]
        return " | ".join(texts)

    def sync_failing(self, copy: WorkingCopy, first: int, second: int) -> str | None:
        """Synchronise while S3 fails from one request on, in one of several ways."""
        if self._store is None:
            return None
        left = second % 8

        def fail(request: Request, serve: Callable[[], Answer]) -> Answer | None:
            nonlocal left
            left -= 1
            if left >= 0:
                return None
            kind = first % 5
            if kind == 0:
                return DROPPED
            if kind == 1:
                serve()
                return DROPPED
            if kind == 2:
                return error(403, "ExpiredToken")
            return error(503, "SlowDown") if left % 2 else None

        self._store.intercept = fail
        texts = [self._note(copy.sync("push"))]
        if first % 2:
            texts.append(self._note(copy.sync("pull")))
        self._store.intercept = None
        return " ".join(texts)

    def open_log(self, copy: WorkingCopy, first: int, *_: int) -> str | None:
        """Start a job that keeps a file open and appends to it."""
        at = self._existing(copy, first)
        if at is None:
            return None
        self._logs[copy.spec["label"]].append(io.FileIO(at, "ab"))
        return str(at.relative_to(copy.root))

    def _end_jobs(self, copy: WorkingCopy) -> None:
        """End the jobs of a copy whose process is killed: it forgets the files that it has replaced."""
        label = copy.spec["label"]
        for log in self._logs[label]:
            log.close()
        self._logs[label] = []
        self.removed |= self._orphans[label]

    def _write_logs(self, copy: WorkingCopy) -> list[bytes]:
        label, tokens = copy.spec["label"], []
        for log in self._logs[label]:
            tokens.append(self.token())
            self._orphans[label].add(tokens[-1])
            if os.fstat(log.fileno()).st_ino in self._unlinked:
                self.removed.add(tokens[-1])
            log.write(tokens[-1])
        return tokens

    def sync_busy(self, copy: WorkingCopy, first: int, *_: int) -> str:
        """Synchronise while jobs write."""
        texts = []
        for action in ("pull", "push"):
            copy.start(action)
            tokens = self._write_logs(copy)
            texts.append(f"{self._note(copy.finish())} {tokens}")
            if first % 2:
                self._write_logs(copy)
        return " ".join(texts)

    def _path(self, copy: WorkingCopy, number: int) -> Path:
        return Path(copy.root, NAMES[number % len(NAMES)])

    def _existing(self, copy: WorkingCopy, number: int) -> Path | None:
        found = sorted(
            Path(directory, name)
            for directory, _, names in os.walk(copy.root)
            for name in names
            if not Path(directory, name).is_symlink()
        )
        return found[number % len(found)] if found else None

    def _remove(self, at: Path) -> None:
        """Delete a file, link or directory, as the agent wants."""
        if at.is_symlink():
            at.unlink()
        elif at.is_dir():
            for directory, _, names in os.walk(at):
                for name in names:
                    if not Path(directory, name).is_symlink():
                        self.removed.update(TOKEN.findall(Path(directory, name).read_bytes()))
            self._unlinked.update(inner.lstat().st_ino for inner in at.rglob("*"))
            shutil.rmtree(at)
        elif at.exists():
            self._unlinked.add(at.lstat().st_ino)
            self.removed.update(TOKEN.findall(at.read_bytes()))
            at.unlink()

    def _make_parents(self, copy: WorkingCopy, at: Path) -> None:
        for parent in reversed(at.relative_to(copy.root).parents):
            where = Path(copy.root, parent)
            if where.is_symlink() or (where.exists() and not where.is_dir()):
                self._remove(where)
            where.mkdir(exist_ok=True)

    def write(self, copy: WorkingCopy, first: int, second: int) -> str:
        """Write a file, in place of anything that has its name."""
        at = self._path(copy, first)
        self._make_parents(copy, at)
        self._remove(at)
        token = self.token()
        at.write_bytes(token * (1 + second % 2 * 1000))
        return f"{at.relative_to(copy.root)} {token!r}"

    def append(self, copy: WorkingCopy, first: int, *_: int) -> str | None:
        at = self._existing(copy, first)
        if at is None:
            return None
        token = self.token()
        with at.open("ab") as file:
            file.write(token)
        return f"{at.relative_to(copy.root)} {token!r}"

    def edit(self, copy: WorkingCopy, first: int, *_: int) -> str | None:
        """Overwrite a file in place, with content of the same size where possible."""
        at = self._existing(copy, first)
        if at is None:
            return None
        self.removed.update(TOKEN.findall(at.read_bytes()))
        token = self.token()
        at.write_bytes(token)
        return f"{at.relative_to(copy.root)} {token!r}"

    def rename(self, copy: WorkingCopy, first: int, second: int) -> str | None:
        """Rename a file or a directory over any other one."""
        at = self._existing(copy, first)
        if at is None:
            return None
        if second % 3 == 0 and at.parent != Path(copy.root):
            at = at.parent
        target = self._path(copy, second)
        if target in (at, *at.parents) or at in target.parents:
            return None
        self._make_parents(copy, target)
        if not at.exists():
            return None
        self._remove(target)
        at.rename(target)
        return f"{at.relative_to(copy.root)} to {target.relative_to(copy.root)}"

    def delete(self, copy: WorkingCopy, first: int, *_: int) -> str | None:
        at = self._existing(copy, first)
        if at is None:
            return None
        self._remove(at)
        return str(at.relative_to(copy.root))

    def make_directory(self, copy: WorkingCopy, first: int, second: int) -> str | None:
        """Make an empty directory, in place of a file, or change its mode."""
        at = self._path(copy, first)
        self._make_parents(copy, at)
        if not at.is_dir() or at.is_symlink():
            self._remove(at)
            at.mkdir()
        at.chmod((0o755, 0o700, 0o750)[second % 3])
        return str(at.relative_to(copy.root))

    def remove_tree(self, copy: WorkingCopy, first: int, *_: int) -> str | None:
        at = Path(copy.root, ("d", "d/e", "e", ".git", "d/b")[first % 5])
        if at.is_symlink() or not at.is_dir():
            return None
        self._remove(at)
        return str(at.relative_to(copy.root))

    def chmod(self, copy: WorkingCopy, first: int, second: int) -> str | None:
        at = self._existing(copy, first)
        if at is None:
            return None
        mode = (0o644, 0o755, 0o600, 0o444)[second % 4]
        at.chmod(mode)
        return f"{at.relative_to(copy.root)} {mode:o}"

    def symlink(self, copy: WorkingCopy, first: int, second: int) -> str:
        at = self._path(copy, first)
        self._make_parents(copy, at)
        self._remove(at)
        at.symlink_to(NAMES[second % len(NAMES)])
        return str(at.relative_to(copy.root))

    def touch(self, copy: WorkingCopy, first: int, second: int) -> str | None:
        at = self._existing(copy, first)
        if at is None:
            return None
        os.utime(at, ns=(second * 10**9, second * 10**9))
        return str(at.relative_to(copy.root))

    def same_content(self, copy: WorkingCopy, first: int, *_: int) -> str | None:
        """Write the content that two writers agree on, as formatters do."""
        at = self._path(copy, first)
        self._make_parents(copy, at)
        self._remove(at)
        at.write_bytes(b"agreed")
        return str(at.relative_to(copy.root))

    def move_behind_link(self, copy: WorkingCopy, *_: int) -> str | None:
        """Move a directory, and leave a link in its place."""
        old, new = Path(copy.root, "d"), Path(copy.root, "e")
        if old.is_symlink() or not old.is_dir() or new.is_symlink() or new.exists():
            return None
        old.rename(new)
        old.symlink_to("e")
        return "d to e"

    def restart(self, copy: WorkingCopy, *_: int) -> str:
        self._end_jobs(copy)
        copy.end()
        return ""

    def lose_index(self, copy: WorkingCopy, first: int, *_: int) -> str | None:
        if first % 3:
            return None
        self._end_jobs(copy)
        copy.end()
        Path(copy.spec["state"], "index").unlink(missing_ok=True)
        return ""

    def put(self, _: WorkingCopy, first: int, second: int) -> str | None:
        """Write an object as `workspace_file` does: it reads it first, and appends a line or overwrites it."""
        key = PREFIX + NAMES[first % len(NAMES)]
        token = self.token()
        try:
            found = self.client.get_object(Bucket=BUCKET, Key=key)
        except ClientError:
            self.client.put_object(Bucket=BUCKET, Key=key, Body=token, IfNoneMatch="*")
            return f"{key} {token!r}"
        if found["Metadata"].get("file-permissions", "").startswith("012"):
            self.removed.add(token)  # it does not write to a link
            return None
        known = found["Body"].read()
        content = known + token if second % 2 else token
        if not second % 2:
            self.removed.update(TOKEN.findall(known))
        self.client.put_object(
            Bucket=BUCKET, Key=key, Body=content, IfMatch=found["ETag"],
            Metadata={**found["Metadata"], "file-mtime": "1700000000000000000ns"},
        )  # fmt: skip
        return f"{key} {token!r}"

    def remove(self, _: WorkingCopy, first: int, *__: int) -> str | None:
        key = PREFIX + NAMES[first % len(NAMES)]
        try:
            found = self.client.get_object(Bucket=BUCKET, Key=key)
        except ClientError:
            return None
        self.removed.update(TOKEN.findall(found["Body"].read()))
        self.client.delete_object(Bucket=BUCKET, Key=key, IfMatch=found["ETag"])
        return key

    # --- the end ---

    def objects(self) -> dict[str, bytes]:
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=PREFIX).get("Contents", [])
        return {
            item["Key"][len(PREFIX) :]: self.client.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
            for item in listed
        }

    def check(self) -> None:
        """Synchronise until nothing changes; raise AssertionError if content is lost or the copies differ."""
        for _ in range(SYNCS_MAX):
            reports = []
            for copy in self.copies:
                reports += [copy.sync("pull"), copy.sync("push")]
            for report in reports:
                self.log.append(f"end {self._note(report)}")
                assert report is not None
                assert not report["failure"], self.text("a synchronisation failed")
            if not any(self._has_changed(report) for report in reports if report):
                break
        else:
            raise AssertionError(self.text("the copies do not settle"))
        first, *others = [copy.snapshot() for copy in self.copies]
        objects = self.objects()
        for copy, other in zip(self.copies[1:], others, strict=True):
            differing = {path for path in first.keys() | other.keys() if first.get(path) != other.get(path)}
            details = {path: (_shown(first.get(path)), _shown(other.get(path))) for path in sorted(differing)}
            assert not details, self.text(f"A and {copy.spec['label']} differ: {details}")
        for path, (_, _, content) in first.items():
            assert objects.get(path) == content, self.text(f"{path} is not in S3")
        everywhere = {token for content in objects.values() for token in TOKEN.findall(content)}
        written = {b"<%d>" % number for number in range(1, self._tokens + 1)}
        lost = sorted(written - self.removed - everywhere)
        assert not lost, self.text(f"lost: {lost}")
        for copy in self.copies:
            assert os.listdir(f"{copy.spec['state']}/new") == [], self.text("temporary files are left")

    @staticmethod
    def _has_changed(report: dict[str, Any]) -> bool:
        names = ("pulled", "pushed", "removed_here", "removed_there", "conflicts_count", "restored_count")
        return any(report[name] for name in names)

    def text(self, problem: str) -> str:
        return "\n".join([problem, *self.log])


def _shown(found: tuple[str, int, bytes] | None) -> str:
    return f"{found[0]} {found[1]:o} {found[2][:40]!r}" if found else "missing"


def drawn(random_steps: random.Random, count: int) -> list[Step]:
    """Draw steps for a hunt."""
    draw = random_steps.randrange
    return [(random_steps.choice(ACTIONS), draw(100), draw(1000), draw(1000)) for _ in range(count)]
