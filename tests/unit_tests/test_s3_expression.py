"""Expressions that RE2 runs find the lines that ripgrep finds; all others are left to ripgrep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._core.s3 import expression
from langchain_daytona_ws._core.s3.expression import Expression, NeedsRipgrepError

PIECES = st.sampled_from(
    ["a", "b", "B", "é", "1", "_", " ", ".", "-", r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"\b", r"\B", "^", "$",
     "(", ")", "|", "*", "+", "?", "{2}", "{1,3}", "[ab]", "[^ab]", "[a-c]", "[^a-c_]", r"[\w-]", r"[^\s]", r"[\d.]",
     "[]a]", "[^]]", "(?:", "(?i)", "(?i:", r"\.", r"\(", r"\t", r"\x61", r"\x{e9}", r"\pL", r"\p{Lu}", r"\PN",
     "[[:alpha:]]", "}", "]", "{", "[", "\\", r"\-", "ſ", r"\n", r"\z", "&&", "[a&b]", "[a--b]", "[a-]", "[-a]", "\t",
     r"\_", r"\/", r"\#", r"[\#\&-]", r"\~", r"[\:]"]
)  # fmt: skip
PATTERNS = st.lists(PIECES, min_size=1, max_size=6).map("".join)
LINES = st.lists(
    st.text("abcABC12_ .-(]é漢K\t\r\xa0—🙂ſK\u200d", max_size=12).map(str.encode)
    | st.sampled_from([b"", b"\xff", b"a\xffb", b"\xc3", b"foo bar", b"caf\xc3\xa9", b"x" * 300]),
    max_size=8,
)


def found(pattern: str, data: bytes, *, ignore_case: bool = False) -> list[tuple[int, bytes]]:
    wanted = Expression(pattern, ignore_case=ignore_case)
    return [(number, data[start:end]) for number, start, end, _ in wanted.lines(data, lambda: None)]


def found_by_ripgrep(
    location: Path, pattern: str, data: bytes, *, ignore_case: bool
) -> list[tuple[int, bytes]] | None:
    """Return what ripgrep finds, None when it refuses the pattern."""
    (location / "data").write_bytes(data)
    options = ["--no-config", "--color=never", "-n", "-a", "--no-mmap", *(["-i"] if ignore_case else [])]
    done = subprocess.run(
        ["rg", *options, "-e", pattern, "--", "data"], cwd=location, capture_output=True, check=False
    )
    if done.returncode == 2:
        return None
    rows = [row.partition(b":") for row in done.stdout.split(b"\n")[:-1]]
    return [(int(number), line) for number, _, line in rows]


@settings(
    max_examples=300,
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
    except NeedsRipgrepError:
        event("left to ripgrep")
        return
    there = found_by_ripgrep(tmp_path, pattern, data, ignore_case=ignore_case)
    event(f"found {bool(here)}")
    assert here == there


@pytest.mark.parametrize(
    "pattern",
    [
        "", "plain text", r"def \w+\(", r"^\s*import\b", r"TODO|FIXME", r"[A-Z]{2,}-\d+", r"(?i)error",
        r"\bfoo\b.*\bbar\b",
        r"\.py$", r"(get|set)_[a-z]+", "naïve", r"[^\s,;]+@", r"\$\{[^}]*\}", r"\p{Greek}+",
    ],
)  # fmt: skip
def test_usual_ones_need_no_sandbox(pattern: str) -> None:
    Expression(pattern, ignore_case=False)


@pytest.mark.parametrize(
    "pattern",
    [
        "(", "[", "a{2", "x{,3}", r"\1", r"(?=a)", r"(?<=a)b", r"\n", r"a\x0ab", r"\z", r"\A", r"\<a",
        "(?s)a.b", "(?x) a", "[a&&b]", "a(?i)*", "a(?i)(?i){2}",
        "[[a]]", r"[\S\s]", r"\b*", r"\Qa\E", r"\C", "a{1001}", "\\", r"[a-\d]", r"\u0041", "(?P<a",
        r"\_", r"\/", r"[\:]", "\ud800", "(?i)\\p{Bad}",
    ],
)  # fmt: skip
def test_ambiguous_expressions_are_left_to_ripgrep(pattern: str) -> None:
    with pytest.raises(NeedsRipgrepError):
        Expression(pattern, ignore_case=False)


@pytest.fixture
def without_re2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)


LITERALS = st.lists(
    st.sampled_from([*"aBkKsSx1é_ -", r"\.", r"\(", r"\x61", r"\t", "]", "}", "ſ", "漢"]),
    min_size=1,
    max_size=3,
).map("".join)


@settings(
    max_examples=200,
)
@given(LITERALS, LINES, st.booleans())
@example("k", ["\u212a".encode(), b"K"], True)
@example("s", ["ſ".encode(), b"\xc5"], True)
@example("é", ["é".encode()], False)
def test_literal_patterns_need_no_re2(
    tmp_path: Path, without_re2: None, pattern: str, lines: list[bytes], ignore_case: bool
) -> None:
    data = b"\n".join(lines)
    try:
        here = found(pattern, data, ignore_case=ignore_case)
    except NeedsRipgrepError:
        assert ignore_case, "only the case of characters beyond ASCII is left to ripgrep"
        return
    assert here == found_by_ripgrep(tmp_path, pattern, data, ignore_case=ignore_case)


@pytest.mark.parametrize("pattern", ["a.b", "^a", "a|b", "[ab]", r"\bword\b", "a{2}", r"\d"])
def test_without_re2_all_others_are_left_to_ripgrep(without_re2: None, pattern: str) -> None:
    with pytest.raises(NeedsRipgrepError):
        Expression(pattern, ignore_case=False)


def test_words_beyond_ascii_are_left_to_ripgrep_where_it_matters() -> None:
    assert found(r"\bone\b", "one — two\nnone\n".encode()) == [(1, "one — two".encode())]
    assert found(r"\bone\b", "é\none\n".encode()) == [(2, b"one")]
    with pytest.raises(NeedsRipgrepError):
        found(r"\bone\b", "éone\n".encode())


@pytest.mark.parametrize(
    "pattern", ["(a|aa)*c", "(.*)*(.*)*(.*)*x", "(x+x+)+y", r"(\w{0,50}\d){3}", "(a|b|ab|ba){990}c"]
)
def test_hostile_expressions_are_bounded(pattern: str) -> None:
    """The clock is read often enough for any pattern: the time between two readings is short."""
    data = (b"ab" * 250 + b"x" * 499 + b"\n") * 10
    polls: list[None] = []
    wanted = Expression(pattern, ignore_case=False)
    for _ in wanted.lines(data, lambda: polls.append(None)):
        pass
    assert len(polls) >= len(data) // (wanted._piece_bytes + 1001)
    assert wanted._piece_bytes * wanted._exact.programsize <= expression.PIECE_WORK
    one_line = b"a" * (wanted._piece_bytes + wanted._longest_line_bytes + 2)
    with pytest.raises(NeedsRipgrepError):
        next(wanted.lines(one_line, lambda: None), None)


def test_lines_in_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression, "PIECE_BYTES", 7)
    data = b"".join(b"%d %s\n" % (n, b"x" * (n % 20)) for n in range(300)) + b"last 7"
    wanted = [(n + 1, line) for n, line in enumerate(data.split(b"\n")) if b"7" in line]
    assert found("7", data) == wanted
    assert len(found("$", data)) == 301
    assert found("^", b"a\n\nb\n") == [(1, b"a"), (2, b""), (3, b"b")]
