"""Rendering a terminal's output: progress bars, cursor moves, scrolling, and hostile sequences."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._core.commands.screen import render

LIMIT = 1_000_000


def shown(text: str, columns: int = 80, rows: int = 24, limit: int = LIMIT) -> str:
    return render(text, columns, rows, limit_chars=limit)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("", ""),
        ("a\r\nb\r\n", "a\nb"),
        ("a\nb", "a\n b"),
        ("\x1b[1;31mred\x1b[0m \x1b[38;5;9mx\x1b[m", "red x"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("10%\r50%\r100%\r\ndone", "100%\ndone"),
        ("long text\rshort", "shorttext"),
        ("long text\r\x1b[Kshort", "short"),
        ("abc\b\bX", "aXc"),
        ("a\tb\t\tc", "a       b               c"),
        ("one\r\ntwo\r\n\x1b[2A\x1b[2KONE\r\n\x1b[2KTWO\r\n", "ONE\nTWO"),
        ("\x1b[3;5Hx\x1b[Hy", "y\n\n    x"),
        ("abcdef\x1b[3D\x1b[P\x1b[2@", "abc  ef"),
        ("abcdef\x1b[4G\x1b[2X", "abc  f"),
        ("a\r\nb\r\nc\x1b[2;1H\x1b[L", "a\n\nb\nc"),
        ("a\r\nb\r\nc\x1b[1;1H\x1b[M", "b\nc"),
        ("ab\x1b7cd\x1b8X", "abXd"),
        ("-\x1b[5b", "------"),
        ("before\r\n\x1b[?1049h\x1b[Hfull screen\x1b[?1049lafter", "before\nafter"),
        ("before\r\n\x1b[?1049h\x1b[Hfull screen", "before\n\nfull screen"),
        ("old\x1b[2J\x1b[Hnew", "old\nnew"),
        ("old\x1b[2J\x1b[3J\x1b[Hnew", "old\nnew"),
        ("old\r\n\x1b[3Jnew", "old\nnew"),
        ("a\x1b[1mb\x1b", "ab"),
        ("a\x1b[12;", "a12;"),
        ("a\x1b]unfinished", "aunfinished"),
        ("\x1b(Ba\x0e\x0fb\x07", "ab"),
        ("日本語\r\x1b[2C世", "日世語"),
        ("e\u0301x", "e\u0301x"),
        ("a\r\n\r\n\r\n\r\n\r\n\r\nb", "a\n\n\nb"),
    ],
)
def test_a_person_would_read(output: str, text: str) -> None:
    assert shown(output) == text


def test_lines_that_scroll_out_stay_and_wrapped_lines_are_whole() -> None:
    lines = [f"line {number} {'x' * number}|" for number in range(300)]
    assert shown("\r\n".join(lines)) == "\n".join(lines)
    assert shown("y" * LIMIT, columns=20, rows=5) == "y" * LIMIT
    assert shown("日" * 50, columns=21, rows=5) == "日" * 50


def test_a_progress_bar_after_many_lines_is_one_line() -> None:
    assert shown("line\r\n" * 42_000 + "10%\r20%\r30%").endswith("\nline\n30%")


def test_the_scrolling_region_keeps_a_status_line() -> None:
    text = "\x1b[24;1Hstatus\x1b[1;23r\x1b[1;1H" + "".join(f"{n}\r\n" for n in range(100))
    assert shown(text).splitlines()[-1] == "status"
    assert [line for line in shown(text).splitlines() if line.isdigit()] == [str(n) for n in range(100)]


def test_the_text_is_limited() -> None:
    text = shown("\x1b[80Gx\r\n" * 1000, limit=500)
    assert len(text) < 600
    assert "80,499 characters of the screen left out" in text


HOSTILE = {
    "erase": "x\x1b[2J",
    "alternate": "\x1b[?1049h\x1b[?1049l",
    "strings": "\x1b]",
    "long strings": "\x1b]" + "a" * 4000,
    "scroll": "\x1b[99S",
    "repeat": "a\x1b[9999b",
    "far": "\x1b[500Gx\r\n",
    "insert": "\x1b[99L",
    "huge numbers": f"\x1b[{'9' * 150}A",
    "lines": "\n",
    "marks": "\u0301",
    "parameters": "\x1b[" + "1;" * 90,
    "shift": "x\x1b[1G\x1b[@",
    "reverse": "\x1bM",
}


@pytest.mark.parametrize("part", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.one_in(3)
def test_hostile_output_is_bounded_in_time_and_memory(part: str) -> None:
    began = time.process_time()
    text = shown((part * 262_144)[:262_144], limit=65_536)
    assert len(text) <= 65_536 + 100
    assert time.process_time() - began < 10


@given(st.text(st.sampled_from("a日\u0301\x1b[]0159;?hlmJKHAr\r\n\t\b\x07 "), max_size=300))
def test_any_output_has_a_text_without_control_codes(output: str) -> None:
    text = shown(output, columns=20, rows=5)
    assert not set(text) & set("\x1b\r\b\x07\t")


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=60), max_size=40))
def test_plain_text_is_unchanged(lines: list[str]) -> None:
    kept = "\n".join(lines).rstrip()
    assert shown("\r\n".join(lines), columns=20, rows=5).split() == kept.split()
