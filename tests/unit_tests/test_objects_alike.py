"""Files on S3 behave as files in a sandbox do: the same operations over a bucket and over the real guest."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.files import FileOps
from langchain_daytona_ws._core.objects.guest import ObjectFiles
from langchain_daytona_ws._core.objects.search import BeyondBounds
from langchain_daytona_ws._guest import files, search, tree
from langchain_daytona_ws.errors import WorkspaceError

from .bucket import MemoryBucket

GUESTS = {"files": files.main, "tree": tree.main, "search": search.main}
NAMES = ["a", "a.b", "a-", "b", "é", "node_modules", "A", "{x}", "a b", ".h"]
# A few paths again and again, so that operations meet.
PATHS = st.one_of(
    st.sampled_from(["a", "a/b", "a.b", "a-/a", "b/a", "a/b/a", "node_modules/a", "b/node_modules/a"]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join),
)
TEXTS = st.sampled_from(
    [
        "",
        "one\n",
        "one\r\ntwo\r\n",
        "two one two",
        "b\0n",
        "\0\0one",
        "one\n" * 30 + "two \0 one\n",
        "y" * 900 + "one\n",
        "é ünï\n\n",
        "word_1 word\n" * 5,
        "x" * 3000 + "\none",
    ]
)
GLOBS = st.sampled_from(
    [
        "*",
        "**",
        "**/*",
        "a*",
        "*/",
        "**/",
        "a/*",
        "a/**",
        "**/a",
        "{a,b}/*",
        "node_modules/**",
        "**/[ab]",
        "[!a]",
        "a/b/*",
    ]
)
PATTERNS = st.sampled_from(
    [
        "one",
        "^one$",
        r"\bone\b",
        r"\w+",
        "^$",
        "x{3}",
        "[^o]n",
        "ONE",
        r"\s",
        r"w\w*_\d",
        "(one|two)",
        "zz",
        r"[é\d]",
        ".",
    ]
)
WRITES = st.tuples(st.just("write"), PATHS, TEXTS, st.booleans())
ACTIONS = st.one_of(
    WRITES,
    st.tuples(
        st.just("edit"), PATHS, st.sampled_from(["one", "word", "two\n", "x"]), st.sampled_from(["1", "", "a\nb"]),
        st.booleans(),
    ),
    st.tuples(st.just("read"), PATHS, st.integers(1, 3)),
    st.tuples(st.just("delete"), PATHS),
    st.tuples(st.just("list"), PATHS | st.just(".")),
    st.tuples(st.just("glob"), GLOBS, PATHS | st.just(".")),
    st.tuples(
        st.just("grep"), PATTERNS, PATHS | st.just("."),
        st.none() | st.sampled_from(["a*", "!a", "*.b", "a/*", "node_modules/", "a/**"]),
        st.sampled_from(["files_with_matches", "content", "count"]), st.integers(0, 2), st.booleans(),
        st.sampled_from([2, 100]),
    ),
)  # fmt: skip


class Twins:
    """The same files in a bucket and in a directory, each behind its guest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bucket = MemoryBucket(page=3)
        self.objects = FileOps(ObjectFiles(self.bucket), None, root="/mnt/demo")
        self.disk = FileOps(self._guest, None, root=str(root))

    async def _guest(self, entry: str, request: dict[str, Any]) -> Any:
        return json.loads(json.dumps(GUESTS[entry](request)))

    def both(self, call: Callable[[FileOps], Awaitable[object]]) -> tuple[object, object]:
        try:
            on_s3 = outcome(call, self.objects)
        except BeyondBounds:
            on_s3 = None
        on_disk = outcome(call, self.disk)
        self._vanish()
        return on_s3, on_disk

    def _vanish(self) -> None:
        """Remove directories without files, which on S3 are none."""
        for place, _, _ in os.walk(self.root, topdown=False):
            if place != str(self.root) and not os.listdir(place):
                os.rmdir(place)


def outcome(call: Callable[[FileOps], Awaitable[object]], ops: FileOps) -> object:
    async def run() -> object:
        return await call(ops)

    try:
        result: dict[str, Any] = asdict(drive(run()))  # type: ignore[call-overload]
    except WorkspaceError as error:
        return type(error), error.code, error.message, error.for_model, error.retryable
    result.pop("mtime_ns", None)
    for entry in result.get("entries", ()):
        del entry["mtime_ns"]
    if "pattern" in result and "entries" in result:  # newest first, but S3's seconds are the test's
        result["entries"] = sorted(result["entries"], key=lambda entry: str(entry["name"]))
        result["skipped"] = sorted(result["skipped"])
    return result


def performed(action: tuple[Any, ...]) -> Callable[[FileOps], Awaitable[object]]:
    name, *rest = action
    match name:
        case "write":
            return lambda ops: ops.write(rest[0], rest[1], overwrite=rest[2])
        case "edit":
            return lambda ops: ops.edit(rest[0], rest[1], rest[2], replace_all=rest[3])
        case "read":
            return lambda ops: ops.read(rest[0], offset=rest[1])
        case "glob":
            return lambda ops: ops.glob(rest[0], path=rest[1])
        case "grep":
            pattern, path, glob, mode, around, ignore, limit = rest
            return lambda ops: ops.grep(
                pattern, path=path, glob=glob, output_mode=mode, before=around, after=around,
                ignore_case=ignore, limit=limit,
            )  # fmt: skip
        case _:
            return lambda ops: getattr(ops, name)(rest[0])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(WRITES, min_size=3, max_size=6), st.lists(ACTIONS, min_size=4, max_size=12))
@example(
    [("write", "node_modules", "one\n", False), ("write", "a", "one\n", False)],
    [
        ("grep", "one", ".", "node_modules/", "content", 0, False, 100),
        ("grep", "one", ".", "a/**", "content", 0, False, 100),
    ],
)
def test_the_same_operations_have_the_same_outcomes(
    writes: list[tuple[Any, ...]], actions: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        twins = Twins(Path(directory))
        for action in [*writes, *actions]:
            on_s3, on_disk = twins.both(performed(action))
            event(
                f"{action[0]} {on_s3[1] if isinstance(on_s3, tuple) else 'sandbox' if on_s3 is None else 'done'}"
            )
            assert on_s3 is None or on_s3 == on_disk, action
        there = {
            str(path.relative_to(twins.root)): path.read_bytes()
            for path in twins.root.rglob("*")
            if path.is_file()
        }
        assert twins.bucket.data() == there
