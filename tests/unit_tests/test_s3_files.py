"""File operations over a bucket in memory: how many requests, what others do meanwhile, and answers that are lost."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langchain_daytona_ws._core.files import rendering as render
from langchain_daytona_ws._core.files.models import EditQuery
from langchain_daytona_ws._core.files.operations import FileOperations
from langchain_daytona_ws._core.id_factory import random_id
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3 import metadata
from langchain_daytona_ws._core.s3.errors import LARGEST_PUT_BYTES
from langchain_daytona_ws._core.s3.files import REMEMBERED_CALLS, Answers, S3Files
from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind
from langchain_daytona_ws._guest.match import Segment
from langchain_daytona_ws.errors import (
    EditRefused,
    FileError,
    FileMissing,
    FileUnsuitable,
    OutcomeUnknown,
    WorkspaceError,
    WriteConflict,
)

from .bucket import Kept, MemoryBucket

UNKNOWN = StoreFault(StoreFaultKind.UNKNOWN, "the connection was lost")
PASSING = StoreFault(StoreFaultKind.PASSING, "SlowDown", code="SlowDown", status=503)
DENIED = StoreFault(StoreFaultKind.DENIED, "AccessDenied: s3://tenants/x", code="AccessDenied", status=403)
CONFLICT = StoreFault(StoreFaultKind.CHANGED, "ConditionalRequestConflict", status=409)
LOST = ("lost", UNKNOWN)


def session(
    bucket: MemoryBucket, made: Answers | None = None, key: str | None = None, **options: Any
) -> FileOperations:
    """Make a session; with a key, each of its changes is sent under it."""
    files = S3Files(bucket, where="s3://tenants/sandbox/demo/", answers=made)
    return FileOperations(files, root="/mnt/demo", new_key=lambda: key or random_id(), **options)


def refusal(kind: type[WorkspaceError], call: Awaitable[object]) -> WorkspaceError:
    async def run() -> None:
        await call

    with pytest.raises(kind) as caught:
        run_sync(run())
    assert type(caught.value) is kind
    assert "tenants" not in caught.value.for_model
    return caught.value


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def ops(bucket: MemoryBucket) -> FileOperations:
    return session(bucket)


class TestRequests:
    """How many requests the usual cases take."""

    def taken(self, bucket: MemoryBucket, call: Awaitable[object]) -> list[str]:
        async def run() -> None:
            await call

        bucket.requests.clear()
        run_sync(run())
        return [operation for operation, _ in bucket.requests]

    def test_a_read_is_one_request(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        bucket.put_by_others("src/a")
        assert self.taken(bucket, ops.read("src/a")) == ["get"]

    def test_an_edit_is_two_requests(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        bucket.put_by_others("src/a", "one")
        assert self.taken(bucket, ops.edit("src/a", "one", "two")) == ["get", "put"]

    def test_a_write_over_a_read_file_is_two_requests(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        bucket.put_by_others("a", "one")
        run_sync(ops.read("a"))
        assert self.taken(bucket, ops.write("a", "three")) == ["get", "put"]

    @pytest.mark.parametrize("path", ["src/b", "b"])
    def test_a_new_file_is_two_requests(self, bucket: MemoryBucket, ops: FileOperations, path: str) -> None:
        bucket.put_by_others("src/z")
        assert self.taken(bucket, ops.write(path, "x")) == ["list", "put"]

    def test_a_new_file_behind_all_others_is_three_requests(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        bucket.put_by_others("src/a")
        assert self.taken(bucket, ops.write("src/z", "x")) == ["list", "list", "put"]

    def test_deep_new_directories_are_found_by_halving(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        assert len(self.taken(bucket, ops.write("/".join("d" * 400), "x"))) <= 12

    def test_a_list_is_one_request(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        bucket.put_by_others("src/a")
        assert self.taken(bucket, ops.list("src")) == ["list"]

    def test_large_content_needs_no_staging(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        assert self.taken(bucket, ops.write("big", b"x" * (1 << 20))) == ["list", "put"]


READS: dict[str, Callable[[FileOperations], Awaitable[object]]] = {
    "list": lambda ops: ops.list("src"),
    "list of a missing directory": lambda ops: ops.list("source"),
    "list of a file": lambda ops: ops.list("src/d01/f001.py"),
    "glob": lambda ops: ops.glob("**/f02*"),
    "glob that matches nothing": lambda ops: ops.glob("src/[d]99/*"),
    "glob with several readings": lambda ops: ops.glob("*.ts,*.tsx", path="src"),
    "glob in a missing directory": lambda ops: ops.glob("*.py", path="source"),
    "glob in a file": lambda ops: ops.glob("*.py", path="src/d01/f001.py"),
    "grep": lambda ops: ops.grep("x", path="src/d01"),
    "grep in a file": lambda ops: ops.grep("x", path="src/d01/f001.py"),
    "grep in a missing directory": lambda ops: ops.grep("x", path="source/d01"),
    "similar names": lambda ops: ops.read("Src/D01/f001.py"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_no_operation_lists_a_page_twice(
    bucket: MemoryBucket, read: Callable[[FileOperations], Awaitable[object]]
) -> None:
    bucket.page = 7
    for n in range(60):
        bucket.put_by_others(f"src/d{n % 5:02}/f{n:03}.py")

    async def run() -> None:
        with contextlib.suppress(FileError):
            await read(session(bucket))

    run_sync(run())
    assert len(bucket.listed) == len(set(bucket.listed)) > 0


def test_a_key_that_the_store_cannot_hold_is_refused_and_not_busy(
    bucket: MemoryBucket, ops: FileOperations
) -> None:
    missing = StoreFault(StoreFaultKind.MISSING, "HTTP 404", status=404)
    bucket.script["put"] = [missing] * 2
    assert refusal(FileError, ops.write("a\nb", "x")).code == "s3_refused"
    assert bucket.asked("put") == [("put", "a\nb")]


@pytest.mark.parametrize("forbidding", [False, True])
class TestLocations:
    def test_a_missing_key_is_missing_whatever_get_answers(
        self, bucket: MemoryBucket, forbidding: bool
    ) -> None:
        bucket.forbidding = forbidding
        bucket.put_by_others("a.txt")
        bucket.put_by_others("dir/x")
        bucket.put_by_others("ab")
        ops = session(bucket)
        refusal(FileMissing, ops.read("a"))
        refusal(FileMissing, ops.read("none/a"))
        refusal(FileMissing, ops.edit("a", "x", "y"))
        refusal(FileMissing, ops.delete("a"))
        refusal(FileMissing, ops.list("a"))
        refusal(FileMissing, ops.glob("*", path="a"))
        refusal(FileMissing, ops.grep("x", path="a"))
        assert refusal(FileUnsuitable, ops.read("a.txt/b")).code == "not_a_directory"
        assert refusal(FileUnsuitable, ops.read("dir")).code == "is_directory"
        assert run_sync(ops.write("a", "x", overwrite=True)).created

    def test_a_key_beside_keys_below_it_is_a_directory(self, bucket: MemoryBucket, forbidding: bool) -> None:
        bucket.forbidding = forbidding
        for key in ("d", "d.b", "d-", "d/x", "é", "é/x"):
            bucket.put_by_others(key)
        ops = session(bucket)
        assert render.listing(run_sync(ops.list())).split("\n") == ["d/", "é/", "d-  1 byte", "d.b  1 byte"]
        assert sorted(e.name for e in run_sync(ops.glob("*")).entries) == ["d-", "d.b"]
        assert [e.name for e in run_sync(ops.glob("*/")).entries] == ["d", "é"]
        assert [row.path for row in run_sync(ops.grep("x")).rows] == ["d-", "d.b", "d/x", "é/x"]
        assert refusal(FileUnsuitable, ops.write("d", "new")).code == "is_directory"
        assert refusal(FileUnsuitable, ops.delete("d")).code == "not_empty"
        assert run_sync(ops.write("d/y", "new")).created

    def test_hidden_keys_are_not_shown(self, bucket: MemoryBucket, forbidding: bool) -> None:
        bucket.forbidding = forbidding
        for key in ("a//b", "a/../c", "a/./d", "e\0f", "g" * 256, "h/", "/i", "j/" + "k" * 256, "a/ok"):
            bucket.put_by_others(key)
        ops = session(bucket)
        assert render.listing(run_sync(ops.list())).split("\n") == ["a/", "h/", "j/"]
        assert render.listing(run_sync(ops.list("a"))) == "ok  1 byte"
        assert render.listing(run_sync(ops.list("h"))) == "[The directory is empty.]"
        assert [e.name for e in run_sync(ops.glob("**")).entries] == ["a/ok"]
        assert sorted(e.name for e in run_sync(ops.glob("**/")).entries) == ["a", "h", "j"]
        assert [row.path for row in run_sync(ops.grep("x")).rows] == ["a/ok"]

    def test_a_listed_file_that_is_denied_is_an_error(self, bucket: MemoryBucket, forbidding: bool) -> None:
        bucket.forbidding = forbidding
        bucket.put_by_others("a")
        bucket.script["get"] = [DENIED]
        assert refusal(FileError, session(bucket).read("a")).code == "s3_denied"

    def test_deleting_an_empty_directory_deletes_its_marker(
        self, bucket: MemoryBucket, forbidding: bool
    ) -> None:
        bucket.forbidding = forbidding
        bucket.put_by_others("d/", b"")
        ops = session(bucket)
        assert refusal(FileUnsuitable, ops.write("d", "x")).code == "is_directory"
        assert render.deleted(run_sync(ops.delete("d"))) == "Deleted the empty directory d."
        assert bucket.objects == {}


class TestOtherWriters:
    """Changes by other writers between two requests."""

    def meanwhile(self, bucket: MemoryBucket, key: str, *contents: str | None) -> None:
        """Apply these changes by other writers before our puts, one before each."""

        def change(content: str | None) -> Callable[[], None]:
            return lambda: (
                bucket.objects.pop(key) and None if content is None else bucket.put_by_others(key, content)
            )

        bucket.script["put"] = [change(content) for content in contents]

    def test_an_edit_is_applied_to_the_present_content(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        bucket.put_by_others("a", "one two")
        self.meanwhile(bucket, "a", "one 2", "one 3")
        assert run_sync(ops.edit("a", "one", "1")).count == 1
        assert bucket.data()["a"] == b"1 3"

    def test_an_edit_whose_text_is_gone_is_refused(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        bucket.put_by_others("a", "one two")
        self.meanwhile(bucket, "a", "other")
        assert refusal(EditRefused, ops.edit("a", "one", "1")).code == "not_found"
        assert bucket.data()["a"] == b"other"

    def test_an_edit_of_a_deleted_file_is_refused(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        bucket.put_by_others("a", "one")
        self.meanwhile(bucket, "a", None)
        refusal(FileMissing, ops.edit("a", "one", "1"))

    def test_an_edit_that_always_conflicts_is_given_up(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        bucket.put_by_others("a", "one")
        self.meanwhile(bucket, "a", *(f"one {n}" for n in range(200)))
        error = refusal(WriteConflict, ops.edit("a", "one", "1"))
        assert (error.code, "Read it again" in error.message) == ("changed", True)
        assert bucket.clock_s < 1100

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_write_over_a_changed_file_is_refused(
        self, bucket: MemoryBucket, ops: FileOperations, overwrite: bool
    ) -> None:
        bucket.put_by_others("a", "one")
        run_sync(ops.read("a"))
        self.meanwhile(bucket, "a", "theirs")
        assert refusal(WriteConflict, ops.write("a", "mine", overwrite=overwrite)).code == "changed"
        assert bucket.data()["a"] == b"theirs"

    def test_a_new_file_that_another_writer_created_is_refused(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        self.meanwhile(bucket, "a", "theirs", "mine")
        assert refusal(WriteConflict, ops.write("a", "mine")).code == "exists_unread"
        bucket.objects.clear()
        assert run_sync(ops.write("a", "mine")).unchanged

    def test_a_write_repeats_after_a_conflict(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        bucket.script["put"] = [CONFLICT]
        assert run_sync(ops.write("a", "mine")).created
        bucket.script["put"] = [CONFLICT]
        assert not run_sync(ops.write("a", "mine, later")).created
        bucket.script["put"] = [CONFLICT] * 3
        error = refusal(WriteConflict, ops.write("b", "mine"))
        assert (error.code, error.retryable) == ("busy", True)

    def test_a_large_file_is_recognised_by_its_hash(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        large = b"x" * (11 << 20)
        assert run_sync(ops.write("a", large)).created
        assert not run_sync(ops.write("a", "small")).unchanged
        run_sync(ops.write("a", large))
        bucket.put_by_others("a", large + b"!")
        assert refusal(WriteConflict, ops.write("a", "small")).code == "changed"

    def test_content_that_is_too_large_is_not_sent(
        self, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("langchain_daytona_ws._core.s3.files.LARGEST_PUT_BYTES", 10)
        error = refusal(FileError, session(bucket).write("a", "x" * 11))
        assert (error.code, bucket.requests) == ("too_large", [])
        assert LARGEST_PUT_BYTES == 5_000_000_000


class TestLostAnswers:
    @pytest.mark.parametrize(
        "faults", [[UNKNOWN], [LOST], [UNKNOWN, LOST], [PASSING, UNKNOWN, PASSING, LOST]]
    )
    def test_a_change_whose_answer_is_lost_is_made_once(
        self, bucket: MemoryBucket, ops: FileOperations, faults: list[object]
    ) -> None:
        bucket.script["put"] = list(faults)
        assert run_sync(ops.write("new", "one")).created
        bucket.script["put"] = list(faults)
        result = run_sync(ops.edit("new", "one", "one one"))
        assert (result.count, result.lines) == (1, (1,))
        bucket.script["put"] = list(faults)
        assert not run_sync(ops.write("new", "two", overwrite=True)).created
        assert bucket.data() == {"new": b"two"}
        bucket.script["delete"] = list(faults)
        run_sync(ops.delete("new"))
        assert bucket.data() == {}
        assert not any(bucket.script.values())

    def test_a_lost_change_is_found_below_a_later_change(self, bucket: MemoryBucket) -> None:
        """The marks of earlier calls are carried along by later ones."""
        bucket.put_by_others("a", "one two")
        other = session(bucket)

        def edit_by_another() -> None:
            run_sync(other.edit("a", "two", "2"))

        bucket.script = {"put": [LOST], "get": [None, edit_by_another]}
        assert run_sync(session(bucket).edit("a", "one", "one one")).count == 1
        assert bucket.data()["a"] == b"one one 2"

    def test_a_change_that_was_not_made_is_repeated_after_another(self, bucket: MemoryBucket) -> None:
        other = session(bucket)
        run_sync(other.write("a", "one two"))
        bucket.script = {
            "put": [UNKNOWN],
            "get": [None, lambda: run_sync(other.edit("a", "two", "2")) and None],
        }
        assert run_sync(session(bucket).edit("a", "one", "one one")).count == 1
        assert bucket.data()["a"] == b"one one 2"

    @pytest.mark.parametrize("event", [UNKNOWN, LOST])
    def test_a_lost_change_below_a_foreign_write_is_unknown(
        self, bucket: MemoryBucket, ops: FileOperations, event: object
    ) -> None:
        """Bash overwrote the object, and with it the idempotency keys."""
        bucket.put_by_others("a", "one")
        bucket.script = {"put": [event], "get": [None, lambda: bucket.put_by_others("a", "bash")]}
        error = refusal(OutcomeUnknown, ops.edit("a", "one", "1"))
        assert "Read the file" in error.for_model
        bucket.script = {
            "delete": [UNKNOWN],
            "list": [None, None, lambda: bucket.put_by_others("a", "again")],
        }
        refusal(OutcomeUnknown, ops.delete("a"))

    def test_a_lost_change_is_not_repeated_over_equal_content_of_another_writer(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        """The other writer restored the file after the change: its ETag is the old one again."""

        def restore() -> None:
            bucket.put_by_others("a", "one")

        restore()
        bucket.script = {"put": [LOST], "get": [None, restore]}
        refusal(OutcomeUnknown, ops.edit("a", "one", "1"))
        assert bucket.data() == {"a": b"one"}
        bucket.script = {"delete": [LOST], "list": [None, None, restore]}
        refusal(OutcomeUnknown, ops.delete("a"))
        assert bucket.data() == {"a": b"one"}

    @given(
        st.lists(st.sampled_from(["", "UNKNOWN", "LOST", "PASSING", "CONFLICT", "ours", "bash"]), max_size=8),
        st.lists(st.sampled_from(["", "UNKNOWN", "PASSING", "ours", "bash", "bash ours"]), max_size=8),
        st.booleans(),
    )
    @example(["LOST"], ["", "bash ours"], False)
    @example(["UNKNOWN", "LOST"], ["", "", "ours"], True)
    def test_no_edit_is_made_twice(self, puts: list[str], gets: list[str], ours_before: bool) -> None:
        """Lost answers and concurrent changes: a repeated edit would add a second A."""
        bucket = MemoryBucket()
        bucket.put_by_others("a", "A\n")
        if ours_before:
            run_sync(session(bucket).edit("a", "A", "A."))
        other = session(bucket)

        def event(name: str) -> object:
            faults = {"UNKNOWN": UNKNOWN, "LOST": LOST, "PASSING": PASSING, "CONFLICT": CONFLICT, "": None}
            return faults[name] if name in faults else lambda: meanwhile(name.split())

        def meanwhile(writers: list[str]) -> None:
            for item in writers:
                data = bucket.data()["a"].decode()
                if item == "bash":
                    bucket.put_by_others("a", data + "b")
                else:
                    with contextlib.suppress(FileError, OutcomeUnknown):
                        run_sync(other.edit("a", "\n", "o\n"))

        bucket.script = {"put": [event(name) for name in puts], "get": [event(name) for name in gets]}
        times = {0, 1}
        try:
            run_sync(session(bucket).edit("a", "A", "AA"))
            times = {1}
        except FileError:
            times = {0}
        except OutcomeUnknown:
            assert {"UNKNOWN", "LOST"} & set(puts), "it is never said without need"
        assert bucket.data()["a"].count(b"A") - 1 in times

    @pytest.mark.parametrize("fault", [UNKNOWN, PASSING])
    def test_a_change_is_retried_a_limited_time(
        self, bucket: MemoryBucket, ops: FileOperations, fault: StoreFault
    ) -> None:
        bucket.put_by_others("a", "one")
        for operation, call in (("put", ops.edit("a", "one", "1")), ("delete", ops.delete("a"))):
            bucket.script[operation] = [fault] * 1000
            began = bucket.clock_s
            if fault is UNKNOWN:
                refusal(OutcomeUnknown, call)
            else:
                error = refusal(FileError, call)
                assert (error.code, error.retryable) == ("s3_throttled", True)
            assert 45 <= bucket.clock_s - began < 60
        assert bucket.data() == {"a": b"one"}

    def test_a_lost_change_of_an_unreadable_object_is_unknown(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        bucket.put_by_others("a", "one")
        bucket.script = {"put": [LOST], "get": [None, DENIED]}
        refusal(OutcomeUnknown, ops.edit("a", "one", "1"))
        assert bucket.data() == {"a": b"1"}

    def test_a_lost_change_is_searched_for_until_it_is_readable(
        self, bucket: MemoryBucket, ops: FileOperations
    ) -> None:
        bucket.put_by_others("a", "one")
        bucket.script = {"put": [LOST], "get": [None, PASSING, PASSING, None]}
        assert run_sync(ops.edit("a", "one", "one one")).count == 1
        assert bucket.data() == {"a": b"one one"}


AGAIN = "[this call was made before: this is its recorded result, and nothing was done again]"


class TestRepeatedCalls:
    """A graph's node that runs again sends its call again, under the same key."""

    def test_a_repetition_in_the_same_process_returns_the_recorded_result(self, bucket: MemoryBucket) -> None:
        made: Answers = Answers()
        item, again = session(bucket, made, "call1"), session(bucket, made, "call1")
        first: Any = run_sync(item.write("a", "x\n"))
        written = run_sync(again.write("a", "x\n"))
        assert (first.from_record, written) == (False, replace(first, from_record=True))
        assert render.written(written).splitlines() == [AGAIN, "Created a (2 bytes)."]
        item, again = session(bucket, made, "call2"), session(bucket, made, "call2")
        first = run_sync(item.edit("a", "x", "x x"))
        edited = run_sync(again.edit("a", "x", "x x"))
        assert (first.from_record, edited) == (False, replace(first, from_record=True))
        assert render.edited(edited) == f"{AGAIN}\n{render.edited(first)}"
        assert bucket.data() == {"a": b"x x\n"}
        item, again = session(bucket, made, "call3"), session(bucket, made, "call3")
        first = run_sync(item.delete("a"))
        deleted = run_sync(again.delete("a"))
        assert (first.from_record, deleted) == (False, replace(first, from_record=True))
        assert render.deleted(deleted).splitlines() == [AGAIN, "Deleted a."]

    def test_a_repetition_in_another_process_finds_the_mark(self, bucket: MemoryBucket) -> None:
        run_sync(session(bucket, key="call1").write("a", "x y\n"))
        run_sync(session(bucket, key="call2").edit("a", "x", "x x"))
        assert run_sync(session(bucket, key="call1").write("a", "x y\n")).created
        again = run_sync(session(bucket, key="call2").edit("a", "x", "x x"))
        assert (again.count, again.lines, again.snippet) == (1, (), "")
        assert render.edited(again) == "Edited a: 1 replacement."
        run_sync(session(bucket, key="call3").write("a", "z", overwrite=True))
        written = run_sync(session(bucket, key="call3").write("a", "z", overwrite=True))
        assert (written.created, written.unchanged) == (False, False)
        assert bucket.data() == {"a": b"z"}

    def test_a_repeated_edit_is_no_read_of_the_file(self, bucket: MemoryBucket) -> None:
        bucket.put_by_others("a", "x")
        run_sync(session(bucket, key="call1").edit("a", "x", "x x"))
        seen: dict[str, str] = {}
        ops = session(bucket, key="call1", read_hashes=seen)
        run_sync(ops.edit("a", "x", "x x"))
        assert seen == {}
        ops = FileOperations(S3Files(bucket), root="/mnt/demo", read_hashes=seen)
        assert refusal(WriteConflict, ops.write("a", "all mine")).code == "exists_unread"

    def test_an_object_has_the_marks_of_the_latest_calls(self, bucket: MemoryBucket) -> None:
        bucket.put_by_others("a", "0")
        for n in range(20):
            run_sync(session(bucket, key=f"call{n}").edit("a", str(n), str(n + 1)))
        kept = bucket.objects["a"].metadata
        assert metadata.mark_of(kept, "call4") is not None
        assert metadata.mark_of(kept, "call3") is None
        assert len(metadata.MARKS_ENTRY) + len(kept[metadata.MARKS_ENTRY]) < 2048, "S3's limit for metadata"

    def test_the_number_of_recorded_results_is_limited(self, bucket: MemoryBucket) -> None:
        made: Answers = Answers()
        for n in range(REMEMBERED_CALLS + 5):
            run_sync(session(bucket, made, f"call{n}").write("a", str(n), overwrite=True))
        assert len(made) == REMEMBERED_CALLS
        assert "call4" not in made

    def test_refusals_are_not_recorded(self, bucket: MemoryBucket) -> None:
        made: Answers = Answers()
        refusal(FileMissing, session(bucket, made, "call1").edit("a", "x", "y"))
        bucket.put_by_others("a", "x")
        assert run_sync(session(bucket, made, "call1").edit("a", "x", "y")).count == 1


class TestMarks:
    @given(st.text() | st.text("0123456789abcdefcw,e", max_size=600))
    def test_any_text_is_read_as_marks(self, value: str) -> None:
        found = metadata.marks_in({metadata.MARKS_ENTRY: value})
        assert len(found) <= metadata.MAX_MARKS
        written = metadata.with_mark({metadata.MARKS_ENTRY: value}, metadata.Mark("0" * 16, "c"))[
            metadata.MARKS_ENTRY
        ]
        assert written.isascii()
        assert len(written) < 512
        assert metadata.marks_in({metadata.MARKS_ENTRY: written})[0] == metadata.Mark("0" * 16, "c")

    def test_forged_marks_do_no_harm(self, bucket: MemoryBucket) -> None:
        forged = {metadata.MARKS_ENTRY: "not a mark," + "f" * 16 + "e99999999,," + "1" * 16 + "e7"}
        bucket.objects["a"] = Kept(b"one", forged, 0)
        assert run_sync(session(bucket).edit("a", "one", "1")).count == 1
        assert bucket.objects["a"].metadata[metadata.MARKS_ENTRY].endswith("," + "1" * 16 + "e7")


class TestTree:
    def test_a_listing_of_several_pages_is_complete(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        bucket.page = 3
        for n in range(20):
            bucket.put_by_others(f"d{n:02}/x")
            bucket.put_by_others(f"f{n:02}")
        listing = run_sync(ops.list())
        assert (listing.total, listing.more) == (40, False)
        assert [entry.name for entry in listing.entries][18:22] == ["d18", "d19", "f00", "f01"]
        shown = run_sync(ops.list(limit=5))
        assert (len(shown.entries), shown.total, shown.more) == (5, 40, True)
        assert run_sync(ops.glob("**", limit=100)).total == 40

    def test_a_glob_returns_the_newest_first(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        for name in "bca":
            bucket.put_by_others(name)
        assert [entry.name for entry in run_sync(ops.glob("*")).entries] == ["a", "c", "b"]

    def test_dependency_directories_are_skipped(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        bucket.page = 10
        for n in range(1000):
            bucket.put_by_others(f"node_modules/m{n:03}/x.py")
            bucket.put_by_others(f"src/deep/f{n:03}.txt")
        bucket.put_by_others("node_modules/~~~~/x.py")
        bucket.put_by_others("node_modules0")
        bucket.put_by_others("z.py")
        found = run_sync(ops.glob("**/x.py"))
        assert (found.entries, found.skipped) == ((), ("node_modules",))
        bucket.requests.clear()
        assert [entry.name for entry in run_sync(ops.glob("*.py")).entries] == ["z.py"]
        assert len(bucket.requests) <= 5
        bucket.requests.clear()
        assert [entry.name for entry in run_sync(ops.glob("node_m*")).entries] == ["node_modules0"]
        assert bucket.requests[0] == ("list", "node_m")

    def test_a_slow_listing_ends_in_time(self, bucket: MemoryBucket, ops: FileOperations) -> None:
        bucket.page = 1
        for n in range(30):
            bucket.put_by_others(f"f{n:02}")

        def slow() -> None:
            bucket.clock_s += 5

        bucket.script["list"] = [slow] * 100
        found = run_sync(ops.glob("*"))
        assert (found.timed_out, found.more, 0 < found.total < 10) == (True, True, True)
        listing = run_sync(ops.list())
        assert (listing.more, 0 < listing.total < 10) == (True, True)

    def test_a_slow_pattern_ends_in_time(
        self, bucket: MemoryBucket, ops: FileOperations, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The deadline is checked within a page of keys too."""

        def slow(_segment: object, _name: str) -> bool:
            bucket.clock_s += 5
            return True

        monkeypatch.setattr(Segment, "matches", slow)
        for n in range(30):
            bucket.put_by_others(f"f{n:02}")
        found = run_sync(ops.glob("*"))
        assert (found.timed_out, found.more, 0 < found.total < 10) == (True, True, True)


@pytest.mark.parametrize("kind", list(StoreFaultKind))
@pytest.mark.parametrize("operation", ["get", "list", "put", "delete"])
def test_every_fault_becomes_an_error_of_this_package(
    bucket: MemoryBucket, kind: StoreFaultKind, operation: str
) -> None:
    """Any fault of S3 at any request: a result or a WorkspaceError."""
    calls: list[Callable[[FileOperations], Awaitable[object]]] = [
        lambda ops: ops.read("a"),
        lambda ops: ops.write("b", "x"),
        lambda ops: ops.write("a", "x", overwrite=True),
        lambda ops: ops.edit("a", "one", "1"),
        lambda ops: ops.delete("a"),
        lambda ops: ops.list(),
        lambda ops: ops.glob("*"),
        lambda ops: ops.grep("x"),
    ]
    for call in calls:
        for before in range(3):
            bucket.objects.clear()
            bucket.put_by_others("a", "one")
            bucket.script = {operation: [None] * before + [StoreFault(kind, "s3://tenants says no")] * 1000}
            with contextlib.suppress(FileError, OutcomeUnknown):
                run_sync(as_coroutine(call(session(bucket))))
            assert len(bucket.objects) <= 2


async def as_coroutine(call: Awaitable[object]) -> object:
    return await call


def test_a_file_that_outgrew_the_limit_is_a_conflict(bucket: MemoryBucket) -> None:
    run_sync(session(bucket, key="call1").write("a", "x"))
    query = EditQuery("x", "y", replace_all=False, exact=False, max_bytes=10)
    assert run_sync(S3Files(bucket).edit("a", query, key="call2")).count == 1
    grown = bucket.objects["a"]
    bucket.objects["a"] = Kept(b"y" * 100, grown.metadata, 0)
    error = refusal(WriteConflict, S3Files(bucket).edit("a", query, key="call2"))
    assert error.code == "changed"


def test_heavy_work_is_offloaded(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    offloaded: list[object] = []
    real = bucket.offload

    async def offload(work: Callable[[], Any]) -> Any:
        offloaded.append(work)
        return await real(work)

    monkeypatch.setattr(bucket, "offload", offload)
    file = S3Files(bucket)
    for size, most in ((10, 0), (2 << 20, 1)):
        bucket.put_by_others("a", b"x\n" * (size // 2))
        found = run_sync(file.read("a", offset=1, limit=9, limit_bytes=99, max_bytes=10 << 20))
        assert found.sha256 == hashlib.sha256(bucket.data()["a"]).hexdigest()
        assert len(offloaded) == most
    bucket.put_by_others("a", b"small")
    run_sync(file.edit("a", EditQuery("small", "x", False, False, 10 << 20), key="call"))
    assert len(offloaded) == 2


def test_a_path_with_backslashes_is_not_called_missing_if_that_is_unknown(
    bucket: MemoryBucket, ops: FileOperations
) -> None:
    bucket.put_by_others("docs\\a")
    bucket.script["list"] = [DENIED] * 9
    assert refusal(FileError, ops.write("docs\\a", "x", overwrite=True)).code == "s3_denied"
