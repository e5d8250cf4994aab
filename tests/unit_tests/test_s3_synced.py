"""File operations on the objects of a synchronised workspace: attributes, symlinks and ignored paths."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._core.files.operations import FileOperations
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.files import S3Files
from langchain_daytona_ws._core.s3.metadata import MARKS_ENTRY, is_symlink
from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind
from langchain_daytona_ws._core.s3.synced import SyncedFiles, SyncedObjects
from langchain_daytona_ws._guest import files
from langchain_daytona_ws._guest.ignore import Ignore
from langchain_daytona_ws.errors import (
    FileError,
    FileMissing,
    FileUnsuitable,
    OutcomeUnknown,
    PathRefused,
    WorkspaceError,
    WriteConflict,
)

from .bucket import Kept, MemoryBucket
from .guest import guest_operations

ROOT = "/mnt/workspaces/demo"
NOW_S = 1764471600.25
NOW = "1764471600250000000ns"
LINK = {"file-permissions": "0120777"}
UNKNOWN = StoreFault(StoreFaultKind.UNKNOWN, "the connection was lost")


def session(bucket: MemoryBucket, *patterns: str, root: str = ROOT) -> FileOperations:
    ignore = Ignore(list(patterns))
    objects = SyncedObjects(bucket, ignore, lambda: NOW_S)
    backend = SyncedFiles(S3Files(objects), objects, ignore, root=root, where="s3://tenants/demo/")
    return FileOperations(backend, root=root)


def put(bucket: MemoryBucket, key: str, data: str | bytes = b"x", **metadata: str) -> None:
    raw = data.encode() if isinstance(data, str) else data
    named = {name.replace("_", "-"): value for name, value in metadata.items()}
    bucket.objects[key] = Kept(raw, named, 1)


def link(bucket: MemoryBucket, key: str, target: str | bytes) -> None:
    put(bucket, key, target, file_permissions="0120777")


def refusal(kind: type[WorkspaceError], call: Awaitable[object]) -> WorkspaceError:
    async def run() -> None:
        await call

    with pytest.raises(kind) as caught:
        run_sync(run())
    assert type(caught.value) is kind
    assert "tenants" not in caught.value.for_model
    assert ROOT not in caught.value.for_model
    return caught.value


def metadata(bucket: MemoryBucket, key: str) -> dict[str, str]:
    return {name: value for name, value in bucket.objects[key].metadata.items() if name != MARKS_ENTRY}


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def ops(bucket: MemoryBucket) -> FileOperations:
    return session(bucket)


class TestAttributes:
    def test_a_new_file_has_the_usual_permissions_and_the_time(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        run_sync(ops.write("a", "x"))
        assert metadata(bucket, "a") == {"file-permissions": "0100644", "file-mtime": NOW}

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_write_keeps_permissions_and_owner(
        self, bucket: MemoryBucket, ops: FileOperations, overwrite: bool
    ) -> None:
        old = {"file_permissions": "0100755", "file_owner": "1000", "file_group": "1000"}
        put(bucket, "a.sh", "one", **old, file_mtime="5ns", mine="x")
        if not overwrite:
            run_sync(ops.read("a.sh"))
        bucket.requests.clear()
        run_sync(ops.write("a.sh", "two", overwrite=overwrite))
        assert [operation for operation, _ in bucket.requests] == ["get", "put"]
        expected = {"file-permissions": "0100755", "file-owner": "1000", "file-group": "1000"}
        assert metadata(bucket, "a.sh") == {**expected, "file-mtime": NOW}

    def test_an_edit_keeps_them_and_sets_the_time(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        put(bucket, "a.sh", "one", file_permissions="0755", file_mtime=NOW.replace("25", "24"))
        run_sync(ops.edit("a.sh", "one", "two"))
        assert metadata(bucket, "a.sh") == {"file-permissions": "0755", "file-mtime": NOW}
        assert bucket.data()["a.sh"] == b"two"

    @pytest.mark.parametrize(
        "permissions", ["", "rwx", "0100999", "-1", "1" * 100, "0040755", "0010644", "0x1ff", "٠١٠٠٦٤٤"]
    )
    def test_permissions_that_no_file_has_are_replaced(
        self, bucket: MemoryBucket, ops: FileOperations, permissions: str
    ) -> None:
        put(bucket, "a", "one", file_permissions=permissions, file_owner="x", file_group="-1")
        run_sync(ops.edit("a", "one", "two"))
        assert metadata(bucket, "a") == {"file-permissions": "0100644", "file-mtime": NOW}

    def test_a_mounted_workspace_keeps_permissions_and_drops_the_old_time(self, bucket: MemoryBucket) -> None:
        put(bucket, "a.sh", "one", file_permissions="0100755", file_mtime="5ns")
        run_sync(FileOperations(S3Files(bucket), root=ROOT).edit("a.sh", "one", "two"))
        assert metadata(bucket, "a.sh") == {"file-permissions": "0100755"}

    def test_only_a_symlinks_permissions_mean_a_symlink(self) -> None:
        for permissions in ("0120777", "120777", "00120777"):
            assert is_symlink({"file-permissions": permissions})
        for permissions in ("0100777", "0777", "", "0120888", "0140777", "01207770", "symlink"):
            assert not is_symlink({"file-permissions": permissions})
        assert not is_symlink({})


class TestSymlinks:
    @pytest.mark.parametrize(
        "target", ["real/a.txt", "./real//a.txt", f"{ROOT}/real/a.txt", "real/../real/a.txt"]
    )
    def test_a_file_is_read_written_and_edited_through_one(
        self, bucket: MemoryBucket, ops: FileOperations, target: str
    ) -> None:
        put(bucket, "real/a.txt", "one", file_permissions="0100600")
        link(bucket, "l", target)
        assert "one" in run_sync(ops.read("l")).body
        run_sync(ops.write("l", "two"))
        run_sync(ops.edit("l", "two", "three"))
        assert bucket.data() == {"real/a.txt": b"three", "l": target.encode()}
        assert metadata(bucket, "l") == LINK
        assert metadata(bucket, "real/a.txt") == {"file-permissions": "0100600", "file-mtime": NOW}

    def test_a_file_that_was_not_read_is_not_overwritten_through_one(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        put(bucket, "a", "theirs")
        link(bucket, "l", "a")
        assert refusal(WriteConflict, ops.write("l", "mine")).code == "exists_unread"
        assert bucket.data()["a"] == b"theirs"

    def test_a_dangling_one_is_missing_and_can_be_written(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        link(bucket, "sub/l", "../new/b")
        refusal(FileMissing, ops.read("sub/l"))
        run_sync(ops.write("sub/l", "x"))
        assert bucket.data() == {"sub/l": b"../new/b", "new/b": b"x"}

    def test_directories_are_found_through_one(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        put(bucket, "real/dir/a.txt", "one")
        link(bucket, "l", "real/dir")
        link(bucket, "real/up", "..")
        assert "one" in run_sync(ops.read("l/a.txt")).body
        run_sync(ops.write("l/new.txt", "two"))
        run_sync(ops.write("real/up/top.txt", "three"))
        assert bucket.data()["real/dir/new.txt"] == b"two"
        assert bucket.data()["top.txt"] == b"three"
        assert [entry.name for entry in run_sync(ops.list("l")).entries] == ["a.txt", "new.txt"]
        assert run_sync(ops.glob("*.txt", path="l")).total == 2
        assert len(run_sync(ops.grep("one", path="l")).rows) == 1
        assert refusal(FileUnsuitable, ops.read("l")).code == "is_directory"
        run_sync(ops.delete("l/a.txt"))
        assert "real/dir/a.txt" not in bucket.data()

    def test_the_directory_above_is_the_targets(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        put(bucket, "real/deep/x", "")
        put(bucket, "real/a", "right")
        put(bucket, "a", "wrong")
        link(bucket, "d", "real/deep")
        link(bucket, "l", "d/../a")
        assert "right" in run_sync(ops.read("l")).body

    def test_one_that_is_followed_on_the_way_is_deleted(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        put(bucket, "a", "one")
        link(bucket, "l", ".")
        assert run_sync(ops.delete("l/l")).path == "l/l"
        assert list(bucket.data()) == ["a"]

    def test_deleting_one_leaves_its_target(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        put(bucket, "a", "one")
        link(bucket, "l", "a")
        run_sync(ops.delete("l"))
        assert list(bucket.data()) == ["a"]

    @pytest.mark.parametrize(
        "target", ["/etc/passwd", "../x", "./../../x", "/", "/mnt/workspaces/demo2/x", f"{ROOT}/../x", ".."]
    )
    @pytest.mark.parametrize("path", ["l", "l/x"])
    def test_a_target_outside_is_refused(
        self, bucket: MemoryBucket, ops: FileOperations, target: str, path: str
    ) -> None:
        link(bucket, "l", target)
        for call in (ops.read(path), ops.write(path, "x"), ops.edit(path, "x", "y")):
            error = refusal(PathRefused, call)
            assert error.code == "outside"
            assert error.message.startswith(f"{path} leads out of the workspace")
        assert list(bucket.data()) == ["l"]

    def test_a_link_to_the_workspace_itself(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        put(bucket, "a", "one")
        for target in (".", ROOT, f"{ROOT}/"):
            link(bucket, "l", target)
            assert refusal(FileUnsuitable, ops.read("l")).code == "is_directory"
            assert "one" in run_sync(ops.read("l/l/a")).body
            assert run_sync(ops.list("l")).total == 2

    def test_loops_end(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        link(bucket, "a", "b")
        link(bucket, "b", "a")
        link(bucket, "deep", "deep/x")
        link(bucket, "up", "x/../up")
        put(bucket, "x/y", "")
        for path in ("a", "b/x", "deep", "up"):
            assert refusal(PathRefused, ops.read(path)).code == "loop"
        assert len(bucket.requests) < 40

    def test_as_many_as_linux_follows(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        put(bucket, "l0", "end")
        for number in range(41):
            link(bucket, f"l{number + 1}", f"l{number}")
        assert "end" in run_sync(ops.read("l40")).body
        assert refusal(PathRefused, ops.read("l41")).code == "loop"

    @pytest.mark.parametrize("target", [b"", b"\xff", b"a\0b", b"a" * 4096])
    def test_what_is_no_target(self, bucket: MemoryBucket, ops: FileOperations, target: bytes) -> None:
        link(bucket, "l", target)
        for call in (ops.read("l"), ops.write("l", "x"), ops.read("l/x")):
            assert refusal(FileUnsuitable, call).code == "not_regular"

    def test_a_target_that_no_key_can_be(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        link(bucket, "l", "a" * 256)
        assert refusal(PathRefused, ops.read("l")).code == "bad_path"

    def test_searches_do_not_follow_and_find_no_target(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        put(bucket, "a", "needle\n")
        link(bucket, "l", "needle")
        link(bucket, "k", "a")
        assert [row.path for row in run_sync(ops.grep("needle")).rows] == ["a"]
        assert len(run_sync(ops.grep("needle", path="k", output_mode="content")).rows) == 1
        assert run_sync(ops.grep("nothing", path="k")).rows == ()

    def test_a_usual_read_is_one_request_and_a_followed_one_two(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        put(bucket, "a", "one")
        link(bucket, "l", "a")
        for path, count in (("a", 1), ("l", 2)):
            bucket.requests.clear()
            run_sync(ops.read(path))
            assert len(bucket.requests) == count

    def test_a_symlink_that_replaced_the_file_of_a_doubtful_write(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        put(bucket, "a", "one")
        run_sync(ops.read("a"))

        def replaced() -> None:
            link(bucket, "a", "b")

        bucket.script = {"put": [("lost", UNKNOWN)], "get": [None, replaced]}
        refusal(OutcomeUnknown, ops.write("a", "two"))
        assert "b" not in bucket.data()

    def test_a_failing_store_is_reported(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        link(bucket, "l", "a")
        passing = StoreFault(StoreFaultKind.PASSING, "SlowDown", code="SlowDown", status=503)
        bucket.script["get"] = [None, passing]
        assert refusal(FileError, ops.read("l")).code == "s3_throttled"

    def test_in_a_mounted_workspace_it_is_a_file(self, bucket: MemoryBucket) -> None:
        link(bucket, "l", "a")
        assert run_sync(FileOperations(S3Files(bucket), root=ROOT).read("l")).body.endswith("a")


class TestIgnored:
    def test_an_ignored_path_is_in_the_sandbox_only(self, bucket: MemoryBucket) -> None:
        ops = session(bucket, "build/", "*.log", "!keep.log")
        put(bucket, "build/a.o", "left by another program")
        for path in ("build/a.o", "x/build/y", "a.log", "x/a.log"):
            calls = [ops.read(path), ops.write(path, "x"), ops.edit(path, "x", "y"), ops.delete(path)]
            for call in calls:
                error = refusal(FileUnsuitable, call)
                assert error.code == "sandbox_only"
                assert "on the machine only" in error.message
                assert "bash" in error.message
        for call in (
            ops.list("build"),
            ops.glob("*", path="build"),
            ops.grep("x", path="build"),
            ops.read("sub/build"),
            ops.delete("sub/build"),
        ):
            assert refusal(FileUnsuitable, call).code == "sandbox_only"
        run_sync(ops.write("keep.log", "x"))
        assert set(bucket.data()) == {"build/a.o", "keep.log"}

    def test_ignored_objects_are_not_listed_or_found(self, bucket: MemoryBucket) -> None:
        ops = session(bucket, "build/", "*.log")
        for key in ("a.log", "a.txt", "build/a.txt", "sub/a.log", "sub/build/", "sub/b.txt"):
            put(bucket, key, "needle\n")
        assert [entry.name for entry in run_sync(ops.list(".")).entries] == ["sub", "a.txt"]
        assert [entry.name for entry in run_sync(ops.list("sub")).entries] == ["b.txt"]
        assert {entry.name for entry in run_sync(ops.glob("**/*")).entries} == {"a.txt", "sub/b.txt"}
        assert {row.path for row in run_sync(ops.grep("needle")).rows} == {"a.txt", "sub/b.txt"}

    def test_a_symlink_to_an_ignored_path(self, bucket: MemoryBucket) -> None:
        ops = session(bucket, "build/")
        link(bucket, "l", "build/a.o")
        assert refusal(FileUnsuitable, ops.write("l", "x")).code == "sandbox_only"

    def test_a_file_may_have_the_name_of_an_ignored_directory(self, bucket: MemoryBucket) -> None:
        ops = session(bucket, "build/")
        run_sync(ops.write("build", "x"))
        assert run_sync(ops.read("build")).path == "build"


# --- the same outcomes as on the disk ---

NAMES = ["a", "b", "c"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
TARGETS = st.one_of(
    PATHS,
    st.lists(st.sampled_from([*NAMES, "..", "."]), min_size=1, max_size=4).map("/".join),
    PATHS.map(lambda path: f"@/{path}"),
    st.sampled_from(["@", "/etc/hostname", "/", "@/..", "@x/a"]),
)
ENTRIES = st.one_of(
    st.tuples(st.just("file"), PATHS, st.sampled_from(["one", "two"])),
    st.tuples(st.just("link"), PATHS, TARGETS),
)
CALLS = st.one_of(
    st.tuples(st.just("read"), PATHS),
    st.tuples(st.just("write"), PATHS, st.booleans()),
    st.tuples(st.just("edit"), PATHS),
    st.tuples(st.just("delete"), PATHS),
)


def made(root: Path, entry: tuple[str, str, str]) -> None:
    """Make a file or symlink on the disk, if nothing is in its way."""
    kind, name, text = entry
    path = root / name
    real = os.path.realpath(path.parent)
    if os.path.lexists(path) or not f"{real}/".startswith(f"{root}/"):
        return
    try:
        os.makedirs(real, exist_ok=True)
        if kind == "file":
            path.write_text(text)
        else:
            os.symlink(text.replace("@", str(root)), path)
    except (FileExistsError, NotADirectoryError, OSError):
        return


def as_objects(root: Path) -> dict[str, Kept]:
    """Return the objects that the synchronisation makes of a directory."""
    found = {}
    for directory, _, _ in os.walk(root):
        with os.scandir(directory) as entries:
            for entry in entries:
                key = os.path.relpath(entry.path, root)
                if entry.is_symlink():
                    found[key] = Kept(os.readlink(entry.path).encode(), LINK, 1)
                elif entry.is_file():
                    found[key] = Kept(Path(entry.path).read_bytes(), {}, 1)
    return found


def without_empty_directories(root: Path) -> None:
    for directory, _, _ in os.walk(root, topdown=False):
        if directory != str(root) and not os.listdir(directory):
            os.rmdir(directory)


def called(call: tuple[Any, ...]) -> Callable[[FileOperations], Awaitable[object]]:
    name, path, *rest = call
    match name:
        case "write":
            return lambda ops: ops.write(path, "new", overwrite=rest[0])
        case "edit":
            return lambda ops: ops.edit(path, "one", "three")
        case _:
            return lambda ops: getattr(ops, name)(path)


def outcome(call: tuple[Any, ...], ops: FileOperations) -> object:
    async def run() -> object:
        return await called(call)(ops)

    try:
        result: dict[str, Any] = asdict(run_sync(run()))  # type: ignore[call-overload]
    except WorkspaceError as error:
        return type(error), error.code
    return {name: value for name, value in result.items() if name not in ("mtime_ns", "kind")}


async def guest(entry: str, request: dict[str, Any]) -> Any:
    assert entry == "files"
    return json.loads(json.dumps(files.main(request)))


@settings(max_examples=250)
@given(st.lists(ENTRIES, min_size=2, max_size=8), st.lists(CALLS, min_size=1, max_size=6))
@example([("file", "a", "one"), ("link", "b", "a")], [("edit", "b"), ("read", "b"), ("delete", "b")])
@example([("file", "a/b", "one"), ("link", "c", "@/a")], [("write", "c/c", False), ("edit", "c/b")])
@pytest.mark.full
def test_the_same_operations_have_the_same_outcomes_on_the_disk(
    entries: list[tuple[str, str, str]], calls: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(os.path.realpath(directory)) / "w"
        root.mkdir()
        for entry in entries:
            made(root, entry)
        without_empty_directories(root)
        bucket = MemoryBucket(as_objects(root), page=3)
        on_s3 = session(bucket, root=str(root))
        on_disk = guest_operations(guest, root=str(root), suggests_similar=False)
        for call in calls:
            first, second = outcome(call, on_s3), outcome(call, on_disk)
            event(f"{call[0]} {first[1] if isinstance(first, tuple) else 'done'}")
            without_empty_directories(root)
            if call[0] == "write" and first == (FileMissing, "missing"):
                return  # the guest makes the missing directory before a ".."
            assert first == second, call
            kept = {key: (kept.data, is_symlink(kept.metadata)) for key, kept in bucket.objects.items()}
            on_the_disk = as_objects(root)
            assert kept == {k: (o.data, is_symlink(o.metadata)) for k, o in on_the_disk.items()}
