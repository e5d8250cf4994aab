"""Expressions that RE2 runs find the lines that ripgrep finds; all others are left to ripgrep."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._core.objects import expression
from langchain_daytona_ws._core.objects.expression import Expression, NotAlikeError

PIECES = st.sampled_from(
    ["a", "b", "B", "é", "1", "_", " ", ".", "-", r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"\b", r"\B", "^", "$", "(", ")", "|",
     "*", "+", "?", "{2}", "{1,3}", "[ab]", "[^ab]", "[a-c]", "[^a-c_]", r"[\w-]", r"[^\s]", r"[\d.]", "[]a]", "[^]]", "(?:", "(?i)",
     "(?i:", r"\.", r"\(", r"\t", r"\x61", r"\x{e9}", r"\pL", r"\p{Lu}", r"\PN", "[[:alpha:]]", "}", "]", "{", "[", "\\", r"\-", "ſ",
     r"\n", r"\z", "&&", "[a&b]", "[a--b]", "[a-]", "[-a]", "\t", "K"]
)  # fmt: skip
PATTERNS = st.lists(PIECES, min_size=1, max_size=6).map("".join)
LINES = st.lists(
    st.text("abcABC12_ .-(]é漢K\t\r\xa0—🙂ſK\u200d", max_size=12).map(str.encode)
    | st.sampled_from([b"", b"\xff", b"a\xffb", b"\xc3", b"foo bar", b"caf\xc3\xa9", b"x" * 300]),
    max_size=8,
)


def found(pattern: str, data: bytes, *, ignore_case: bool = False) -> list[tuple[int, bytes]]:
    wanted = Expression(pattern, ignore_case=ignore_case)
    return [(number, data[start:end]) for number, start, end in wanted.lines(data, lambda: None)]


def found_by_ripgrep(
    place: Path, pattern: str, data: bytes, *, ignore_case: bool
) -> list[tuple[int, bytes]] | None:
    """Return what ripgrep finds, None when it refuses the pattern."""
    (place / "data").write_bytes(data)
    options = ["--no-config", "--color=never", "-n", "-a", "--no-mmap", *(["-i"] if ignore_case else [])]
    done = subprocess.run(
        ["rg", *options, "-e", pattern, "--", "data"], cwd=place, capture_output=True, check=False
    )
    if done.returncode == 2:
        return None
    rows = [row.partition(b":") for row in done.stdout.split(b"\n")[:-1]]
    return [(int(number), line) for number, _, line in rows]


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(PATTERNS, LINES, st.booleans(), st.booleans())
@example(r"\bcafé\b", ["café".encode()], False, False)
@example(r"(a|b)*$", [b"", b"c"], False, True)
@example(r"[^a]", [b"a", b"\xff"], False, True)
def test_the_same_lines_as_ripgrep(
    tmp_path: Path, pattern: str, lines: list[bytes], ignore_case: bool, ends: bool
) -> None:
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    try:
        here = found(pattern, data, ignore_case=ignore_case)
    except NotAlikeError:
        event("left to ripgrep")
        return
    there = found_by_ripgrep(tmp_path, pattern, data, ignore_case=ignore_case)
    event(f"found {bool(here)}")
    assert here == there
