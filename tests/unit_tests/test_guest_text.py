"""Pages and edits over bytes."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._guest import edit, similar
from langchain_daytona_ws._guest.alike import (
    DASHES,
    DOUBLE_QUOTES,
    INVISIBLE,
    SINGLE_QUOTES,
    SPACES,
    name_key,
    plain,
)
from langchain_daytona_ws._guest.edit import MAX_RANGES, EditError, apply_edit, snippet
from langchain_daytona_ws._guest.text import FOOTER_BYTES, binary_kind, footer, newline_style, page


def rows(body: str) -> list[tuple[int, str]]:
    return [(int(number), text) for number, _, text in (row.partition("\t") for row in body.split("\n"))]


class TestPage:
    def test_numbers_lines(self) -> None:
        result = page(b"one\ntwo\n")
        assert result.body == "     1\tone\n     2\ttwo"
        assert (result.first, result.last, result.lines) == (1, 2, 2)

    def test_pages_and_says_how_to_go_on(self) -> None:
        data = b"".join(b"%d\n" % n for n in range(1, 11))
        result = page(data, offset=3, limit=4)
        assert rows(result.body) == [(n, str(n)) for n in range(3, 7)]
        assert footer(result.first, result.last, result.lines) == (
            "[Showing lines 3-6 of 10. Use offset=7 to continue.]"
        )
        assert footer(7, 10, 10) == "[Showing lines 7-10 of 10.]"
        assert footer(1, 10, 10) == ""

    @pytest.mark.parametrize("offset", [1, 2, 100])
    def test_past_the_end_is_empty(self, offset: int) -> None:
        result = page(b"", offset=offset)
        assert (result.body, result.first, result.lines) == ("", 0, 0)

    def test_counts_a_last_line_without_its_end(self) -> None:
        assert page(b"a\nb").lines == 2
        assert page(b"a\nb\n").lines == 2
        assert page(b"\n").body == "     1\t"

    def test_cuts_long_lines(self) -> None:
        result = page(b"x" * 2001 + b"\n" + b"y" * 2000)
        assert result.cut == 1
        first, second = result.body.split("\n")
        assert first.endswith("x... [line cut: 2000 of 2001 characters]")
        assert second == "     2\t" + "y" * 2000

    def test_shows_neither_carriage_returns_nor_a_byte_order_mark(self) -> None:
        result = page(b"\xef\xbb\xbfa\r\nb\r\n")
        assert rows(result.body) == [(1, "a"), (2, "b")]
        assert (result.newline, result.bom) == ("crlf", True)

    def test_shows_foreign_bytes_escaped(self) -> None:
        result = page(b"caf\xe9\n")
        assert rows(result.body) == [(1, "caf\\xe9")]
        assert result.lossy

    def test_shows_no_nul(self) -> None:
        assert rows(page(b"a\0b").body) == [(1, "a\\x00b")]

    def test_shows_no_terminal_escape(self) -> None:
        result = page(b"\x1b[31mred\x1b[0m")
        assert rows(result.body) == [(1, "\\x1b[31mred\\x1b[0m")]
        assert result.lossy

    @given(
        data=st.binary(max_size=2000) | st.text(alphabet="aé\r\n漢", max_size=3000).map(str.encode),
        offset=st.integers(1, 50),
        limit=st.integers(1, 50),
        limit_bytes=st.integers(400, 5000),
    )
    def test_is_bounded_and_complete(self, data: bytes, offset: int, limit: int, limit_bytes: int) -> None:
        result = page(data, offset, limit, limit_bytes)
        assert len(result.body.encode()) <= limit_bytes - FOOTER_BYTES
        shown = rows(result.body) if result.body else []
        assert [number for number, _ in shown] == list(range(result.first, result.last + 1)) or not shown
        assert len(shown) <= limit
        if offset <= result.lines:
            assert shown, "at least one line is shown, so that paging always goes on"

    @given(st.text(alphabet="ab \r\n", max_size=200).map(str.encode))
    def test_walking_the_pages_shows_every_line(self, data: bytes) -> None:
        seen: list[tuple[int, str]] = []
        offset = 1
        while offset <= page(data).lines:
            result = page(data, offset, limit=3)
            seen += rows(result.body)
            offset = result.last + 1
        lines = data.decode().split("\n")
        lines = lines[:-1] if lines[-1] == "" else lines
        assert seen == [(n, line.removesuffix("\r")) for n, line in enumerate(lines, 1)]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ""),
        (b"plain", ""),
        ("漢字 ünd €".encode(), ""),
        ("Ünïcödé ".encode("latin-1") * 50, ""),
        ("漢字".encode("shift-jis") * 50, ""),
        (b"\x1b[31mred\x1b[0m\n", ""),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "binary"),
        (bytes(range(1, 256)), "binary"),
        ("text".encode("utf-16"), "UTF-16 text"),
        ("a text of some words".encode("utf-16-le"), "UTF-16LE text"),
        ("caf\u00e9 \u20ac5, 10 \u20ac\r\n".encode("utf-16-be"), "UTF-16BE text"),
        ("text".encode("utf-32-le"), "binary"),
        (b"\1\0\2\0\0\0\0\0", "binary"),
        (b"a\0b\n1\n", ""),
        (b"a log\n" * 20 + b"torn \0 off\n", ""),
        (b"a log\n" * 20 + b"\0\0\0\0", "binary"),
        ("é\n".encode("latin-1") * 20 + b"a \0 b" * 3, "binary"),
        (b"a" * 8191 + "é".encode() + b"\0" * 9, ""),
        (b"\0" + b"a" * 8189 + "漢".encode(), ""),
    ],
)
def test_tells_binary_from_text(data: bytes, kind: str) -> None:
    assert binary_kind(data) == kind


def test_names_the_newline_style() -> None:
    assert [newline_style(d) for d in (b"", b"a\n", b"a\r\n", b"a\r\nb\n")] == ["lf", "lf", "crlf", "mixed"]


class TestEdit:
    @pytest.mark.parametrize(
        ("data", "old", "new", "expected"),
        [
            (b"a\nb\nc\n", "b", "x", b"a\nx\nc\n"),
            (b"a\r\nb\r\nc\r\n", "a\nb", "a\nx\nb", b"a\r\nx\r\nb\r\nc\r\n"),
            (b"a\r\nb\r\n", "b", "b\nc", b"a\r\nb\r\nc\r\n"),
            (b"a\r\nb", "b", "b\nc", b"a\r\nb\r\nc"),
            (b"a\nb\n", "b", "b\r\nc", b"a\nb\nc\n"),
            (b"a\r\nb\nc\r\n", "b", "x\ny", b"a\r\nx\ny\nc\r\n"),
            # Of a mixed file, lines that stay keep their own line end.
            (b"a\r\nb\nc\r\nd\n", "a\nb\nc\n", "a\nx\nc\n", b"a\r\nx\nc\r\nd\n"),
            (b"a\r\nb\nc\r\nd\n", "a\nb\nc\n", "a\nc\n", b"a\r\nc\r\nd\n"),
            (b"a\r\nb\r\n", "\n", "", None),
            (b"one\r\n", "\n", "!", b"one!"),
            # About the line ends themselves: byte by byte.
            (b"a\r\nb\n", "a\r\n", "a\n", b"a\nb\n"),
            (b"a\nb\r\n", "a\n", "a\r\n", b"a\r\nb\r\n"),
            # A byte order mark, foreign bytes and lone carriage returns stay.
            (b"\xef\xbb\xbffirst\n", "first", "1st", b"\xef\xbb\xbf1st\n"),
            (b"caf\xe9 x\0y\n", "x", "z", b"caf\xe9 z\0y\n"),
            (b"a\rb\rc", "b", "x", b"a\rx\rc"),
            ("é漢\n".encode(), "漢", "字", "é字\n".encode()),
            (b"whole", "whole", "", b""),
        ],
    )
    def test_changes_only_that(self, data: bytes, old: str, new: str, expected: bytes | None) -> None:
        if expected is None:
            with pytest.raises(EditError):
                apply_edit(data, old, new)
        else:
            assert apply_edit(data, old, new).data == expected

    def test_replaces_all_in_the_style_of_each_place(self) -> None:
        result = apply_edit(b"x\r\nx\nx", "x", "1\n2", replace_all=True)
        assert result.data == b"1\r\n2\r\n1\n2\n1\n2"
        assert result.lines == [1, 3, 5]

    @pytest.mark.parametrize(
        ("old", "new", "code"), [("", "x", "empty"), ("a", "a", "identical"), ("zzz", "x", "not_found")]
    )
    def test_refuses(self, old: str, new: str, code: str) -> None:
        with pytest.raises(EditError) as caught:
            apply_edit(b"a\n", old, new)
        assert caught.value.code == code

    def test_says_where_it_is_not_unique(self) -> None:
        with pytest.raises(EditError) as caught:
            apply_edit(b"a\r\nb\r\n\r\na\r\nb\r\n", "a\nb", "c")
        assert (caught.value.code, caught.value.facts) == ("not_unique", {"count": 2, "at": [1, 4]})

    @pytest.mark.parametrize(
        ("old", "facts"),
        [
            ("if x:\n\ty()", {"hint": "whitespace", "line": 2}),
            ("     2\tif x:\n     3\t    y()", {"hint": "line_numbers", "line": 0}),
            ("nothing like it", {"hint": "", "line": 0}),
            (" \n \n", {"hint": "", "line": 0}),
        ],
    )
    def test_guesses_what_was_meant(self, old: str, facts: dict[str, object]) -> None:
        with pytest.raises(EditError) as caught:
            apply_edit(b"start\nif x:\n    y()\n", old, "new")
        assert {name: caught.value.facts[name] for name in facts} == facts

    def test_bounds_the_result(self) -> None:
        with pytest.raises(EditError) as caught:
            apply_edit(b"a" * 1000, "a", "b" * 1000, replace_all=True, max_bytes=100_000)
        assert caught.value.code == "too_large"
        with pytest.raises(EditError) as caught:
            apply_edit(b"a" * (MAX_RANGES + 2), "a", "b", replace_all=True)
        assert caught.value.code == "too_many"

    def test_stays_quick_on_many_line_ends(self) -> None:
        data = b"a\r\n" * 50_000
        began = time.monotonic()
        result = apply_edit(data, "a\n", "b\n", replace_all=True)
        assert result.data == data.replace(b"a", b"b")
        assert time.monotonic() - began < 5

    @given(
        before=st.binary(max_size=60),
        old=st.text(alphabet="ab\n", min_size=1, max_size=8),
        new=st.text(alphabet="abc\né", max_size=8),
        after=st.binary(max_size=60),
        crlf=st.booleans(),
    )
    @settings(max_examples=500)
    def test_is_byte_exact_elsewhere(
        self, before: bytes, old: str, new: str, after: bytes, crlf: bool
    ) -> None:
        location = old.replace("\n", "\r\n" if crlf else "\n").encode()
        data = before + b"|" + location + b"|" + after
        if old == new:
            return
        try:
            result = apply_edit(data, old, new)
        except EditError as error:
            assert error.code == "not_unique"  # noqa: PT017
            return
        assert result.data.startswith(before + b"|")
        assert result.data.endswith(b"|" + after)
        assert len(result.ranges) == 1
        start, end = result.ranges[0]
        assert result.data[start:end].replace(b"\r\n", b"\n") == new.encode()

    @given(
        data=st.lists(st.sampled_from([b"a", b"b", b"\n", b"\r\n"]), max_size=40).map(b"".join),
        old=st.text(alphabet="ab\n", min_size=1, max_size=3),
        new=st.text(alphabet="xy\n", max_size=3),
    )
    @settings(max_examples=500)
    def test_agrees_with_a_regular_expression(self, data: bytes, old: str, new: str) -> None:
        if old == new:
            return
        pattern = re.compile(b"\r?\n".join(re.escape(part) for part in old.encode().split(b"\n")))
        expected = [match.span() for match in pattern.finditer(data)]
        try:
            result = apply_edit(data, old, new, replace_all=True)
        except EditError:
            assert not expected
            return
        assert len(result.ranges) == len(expected)
        unix = pattern.sub(new.encode().replace(b"\\", b"\\\\"), data).replace(b"\r\n", b"\n")
        assert result.data.replace(b"\r\n", b"\n") == unix

    @given(
        lines=st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=8),
        ends=st.lists(st.booleans(), min_size=8, max_size=8),
        at=st.integers(0, 7),
    )
    def test_keeps_the_line_ends_of_lines_that_stay(
        self, lines: list[str], ends: list[bool], at: int
    ) -> None:
        at %= len(lines)
        pieces = [line.encode() + (b"\r\n" if end else b"\n") for line, end in zip(lines, ends, strict=False)]
        old = "".join(line + "\n" for line in lines)
        changed = [*lines[:at], "new", *lines[at + 1 :]]
        expected = b"".join(
            b"new" + piece[len(lines[at]) :] if n == at else piece for n, piece in enumerate(pieces)
        )
        assert apply_edit(b"".join(pieces), old, "".join(line + "\n" for line in changed)).data == expected


def test_snippet_shows_the_changed_places() -> None:
    data = b"".join(b"line %d\n" % n for n in range(1, 101))
    result = apply_edit(data, "line 50\n", "new\nnewer\n")
    shown = rows(snippet(result))
    assert shown[0] == (47, "line 47")
    assert (50, "new") in shown
    assert (51, "newer") in shown
    assert len(shown) <= 9
    many = apply_edit(data, "line", "LINE", replace_all=True)
    assert len(snippet(many).encode()) < 5000
    assert snippet(apply_edit(b"x", "x", "")) == ""
    assert len(snippet(apply_edit(b"x", "x", "y" * 100_000))) < 5000


class TestBytesAsTheyAreShown:
    LATIN = "caf\u00e9 cr\u00e8me\nth\u00e9\n".encode("latin-1")

    @pytest.mark.parametrize(
        ("data", "old", "new", "after"),
        [
            (LATIN, r"caf\xe9 ", r"caf\xe9s ", b"caf\xe9s cr\xe8me\nth\xe9\n"),
            (LATIN, r"\xe9 cr\xe8me", r"\xe0 cr\xe9me", b"caf\xe0 cr\xe9me\nth\xe9\n"),
            (LATIN, "\\xe8me\nth", "\\xe8me\n\nth", b"caf\xe9 cr\xe8me\n\nth\xe9\n"),
            (b"caf\xe9\r\nx\r\n", "\\xe9\nx", "\\xe9\ny\nx", b"caf\xe9\r\ny\r\nx\r\n"),
            (b"a\0b", r"a\x00b", r"a\x00c", b"a\0c"),
            (b"\x1b[31mred", r"\x1b[31mred", r"\x1b[32mgreen", b"\x1b[32mgreen"),
            (b"\xe2\x82 \xe2\x82\xac", r"\xe2\x82 ", "x", b"x\xe2\x82\xac"),
            # The four characters stand there, and not the byte.
            (rb"caf\xe9", r"f\xe9", r"f\xe8", rb"caf\xe8"),
            (b"one " + rb"\xe9" + b" two \xe8", r"one \xe9", r"1 \xe9", b"1 " + rb"\xe9" + b" two \xe8"),
            (
                b"one " + rb"\xe9" + b" \xe8 x",
                r"\xe9 \xe8 x",
                r"\xe9 \xe8 y",
                b"one " + rb"\xe9" + b" \xe8 y",
            ),
        ],
    )
    def test_are_taken_back(self, data: bytes, old: str, new: str, after: bytes) -> None:
        assert apply_edit(data, old, new, exact=True).data == after

    @pytest.mark.parametrize(
        ("data", "old", "new", "after"),
        [
            (b"caf\xe9\r\nx\r\n", r"caf\xe9", "caf\\xe9\r\ny", b"caf\xe9\r\ny\r\nx\r\n"),
            (b"caf\xe9\nx\n", "\\xe9\r\nx", "\\xe9\r\ny", b"caf\xe9\ny\n"),
            ("it\u2019s\r\n".encode(), "it's", "it's\r\ny", "it\u2019s\r\ny\r\n".encode()),
            ("it\u2019s\nx\n".encode(), "it's\r\nx", "it's\r\ny", "it\u2019s\ny\n".encode()),
        ],
    )
    def test_takes_the_line_ends_of_the_place(self, data: bytes, old: str, new: str, after: bytes) -> None:
        assert apply_edit(data, old, new).data == after

    def test_stays_quick_where_one_character_is_most_of_the_text(self) -> None:
        began = time.monotonic()
        rule = "-" * 1_990
        with pytest.raises(EditError, match="not_found") as caught:
            apply_edit(f"{rule}\u2019".encode(), f"{rule}'", "+" + "- " * 900 + "'")
        assert caught.value.facts["hint"] == "alike"
        edited = apply_edit(b"\xe9" + rule.encode(), r"\xe9" + rule, r"\xe9+" + "- " * 900 + "=")
        assert edited.data == b"\xe9+" + b"- " * 900 + b"="
        assert time.monotonic() - began < 60

    def test_skips_invisible_characters_only_where_that_is_quick(self) -> None:
        with pytest.raises(EditError, match="not_found"):
            apply_edit(("=" * 500_000 + "\u200b").encode(), "=" * 3_000 + "x", "y")
        assert apply_edit("a\u200bb".encode(), "ab", "c").data == b"c"

    @pytest.mark.parametrize(("char", "unit"), [("-", "-"), ("\udc80", r"\x80")])
    def test_is_not_searched_where_its_head_is_at_too_many_places(
        self, monkeypatch: pytest.MonkeyPatch, char: str, unit: str
    ) -> None:
        monkeypatch.setattr(similar, "MAX_TRIED", 100_000)
        assert len(similar.find(char * 1000, [unit] * 100, True, 20)) == 10
        assert similar.find(char * 2000, [unit] * 100, True, 20) == []
        assert len(similar.find("x" * 2000 + char * 100, [unit] * 100, True, 20)) == 1

    @pytest.mark.parametrize(("head", "found"), [("-", 0), ("x", 1)])
    def test_short_texts_too_are_searched_only_where_that_is_quick(
        self, monkeypatch: pytest.MonkeyPatch, head: str, found: int
    ) -> None:
        monkeypatch.setattr(similar, "MAX_TRIED", 5_000)
        content = head * 1000 + "-" * 9 + "'"
        assert len(similar.find(content, ["-"] * 9 + ["'"], True, 20)) == found

    @pytest.mark.parametrize(("distance", "line_end"), [(9, b"\r\n"), (10, b"\n")])
    @pytest.mark.parametrize(("byte", "old"), [(b"a", "a"), (b"\xe9", r"\xe9")])
    def test_only_near_line_ends_are_kept(
        self, monkeypatch: pytest.MonkeyPatch, distance: int, line_end: bytes, byte: bytes, old: str
    ) -> None:
        monkeypatch.setattr(edit, "NEAR_BYTES", 10)
        data = b"\r\n" + b"-" * distance + byte
        assert apply_edit(data, old, "x\ny").data == data[:-1] + b"x" + line_end + b"y"

    def test_shown_alike_is_not_unique(self) -> None:
        data = b"\xe9 " + rb"\xe9"
        with pytest.raises(EditError, match="not_unique"):
            apply_edit(data, r"\xe9", "x")
        assert apply_edit(data, r"\xe9", r"\xe9!", replace_all=True).data == b"\xe9! " + rb"\xe9!"

    def test_a_byte_of_a_character_is_not_meant(self) -> None:
        with pytest.raises(EditError, match="not_found"):
            apply_edit("é ".encode() + b"\xff", r"\xc3\xa9", "x")

    def test_what_mixes_encodings_is_told(self) -> None:
        assert apply_edit(self.LATIN, "cr", "\u00fc cr").remarks == {"mixed": True}
        assert apply_edit(self.LATIN, "cr", r"\xfc cr").remarks == {"verbatim": True}
        assert apply_edit(self.LATIN, r"\xe9 cr", r"\xe9 \xfc cr").remarks == {}
        assert apply_edit(self.LATIN, "cr", "Cr").remarks == {}
        assert apply_edit("é ü ö".encode() + b"\xff", "é", "è").remarks == {}, "UTF-8 but for one byte"
        assert apply_edit(b"plain", "plain", "pl\u00e4in").remarks == {}

    @given(st.data())
    def test_any_shown_line_can_be_sent_back(self, data: st.DataObject) -> None:
        lines = st.lists(
            st.binary(max_size=12).map(lambda part: part.replace(b"\n", b"").replace(b"\r", b"")), max_size=4
        )
        content = b"<" + b"\n".join(data.draw(lines)) + b">"
        shown = "\n".join(text for _, text in rows(page(content).body)) if content.count(b"\t") == 0 else None
        if shown is None:
            return
        added = data.draw(st.sampled_from(["", "x", r"\xe9"]))
        try:
            made = apply_edit(content, shown, shown[:-1] + added + "x>")
        except EditError as error:
            assert error.code == "not_unique"  # noqa: PT017
            return
        assert made.data.startswith(content[:-1])
        assert made.data.endswith(b"x>")


ALIKE = [
    ("a\u00a0b c", "a b c", "a b d", "a\u00a0b d", [1, 2, "\u00a0", " "]),
    ("x\n9.41\u202fPM", "9.41 PM", "9.42 PM", "x\n9.42\u202fPM", [2, 5, "\u202f", " "]),
    (
        "say \u201chi\u201d now",
        'say "hi" now',
        'say "bye" now',
        "say \u201cbye\u201d now",
        [1, 5, "\u201c", '"'],
    ),
    ("it\u2019s on", "it's on", "it's off", "it\u2019s off", [1, 3, "\u2019", "'"]),
    ("1\u20132 and", "1-2 and", "1-3 and", "1\u20133 and", [1, 2, "\u2013", "-"]),
    ("cafe\u0301 x", "caf\u00e9 x", "caf\u00e9 y", "cafe\u0301 y", [1, 4, "e\u0301", "\u00e9"]),
    ("caf\u00e9 x", "cafe\u0301 x", "cafe\u0301 y", "caf\u00e9 y", [1, 4, "\u00e9", "e\u0301"]),
    (
        "\u1112\u1161\u11ab x",
        "\ud55c x",
        "\ud55c y",
        "\u1112\u1161\u11ab y",
        [1, 1, "\u1112\u1161\u11ab", "\ud55c"],
    ),
    ("foo\u200bbar x", "foobar x", "foobar y", "foo\u200bbar y", [1, 4, "\u200b", ""]),
    ("foobar x", "foo\u200bbar x", "foo\u200bbar y", "foobar y", [1, 4, "", "\u200b"]),
    ("a\u00a0b\r\nc d\r\n", "a b\nc d", "a b\nnew\nc e", "a\u00a0b\r\nnew\r\nc e\r\n", [1, 2, "\u00a0", " "]),
    ("\ufeffa\u00a0b", "a b", "a c", "\ufeffa\u00a0c", [1, 2, "\u00a0", " "]),
]


class TestWhatLooksAlike:
    @pytest.mark.parametrize(("before", "old", "new", "after", "difference"), ALIKE)
    def test_one_place_is_meant(
        self, before: str, old: str, new: str, after: str, difference: list[object]
    ) -> None:
        made = apply_edit(before.encode(), old, new)
        assert made.data.decode() == after
        assert list(made.differences[0]) == difference
        with pytest.raises(EditError) as caught:
            apply_edit(before.encode(), old, new, exact=True)
        assert caught.value.code == "not_found"
        assert caught.value.facts["hint"] == "alike"
        assert list(caught.value.differences[0]) == difference

    def test_bytes_beside_it_stay(self) -> None:
        made = apply_edit(b"caf\xe9\xc2\xa0b x", r"caf\xe9 b x", r"caf\xe9 b y")
        assert made.data == b"caf\xe9\xc2\xa0b y"
        assert made.differences == [(1, 5, "\u00a0", " ")]

    @pytest.mark.parametrize(
        ("data", "old", "new", "count"),
        [
            ("a\u00a0b a\u202fb", "a b", "x", 2),  # two places
            ("x \u2014 y", "-", "+", 1),  # only such a character
            ("say \u201chi\u201d", 'say "hi"', "say \u201chi\u201d", 1),  # about the characters themselves
        ],
    )
    def test_is_refused_where_it_is_not_clear(self, data: str, old: str, new: str, count: int) -> None:
        for replace_all in (True, False):
            with pytest.raises(EditError) as caught:
                apply_edit(data.encode(), old, new, replace_all)
            assert caught.value.code == "not_found"
            assert caught.value.facts["count"] == count

    def test_invisible_characters_alone_are_nowhere(self) -> None:
        with pytest.raises(EditError) as caught:
            apply_edit(b"abc", "\u200b\u2060", "x")
        assert caught.value.facts == {"hint": "", "line": 0}

    def test_line_ends_are_not_guessed_at(self) -> None:
        with pytest.raises(EditError, match="not_found"):
            apply_edit("a\u00a0b\r\n".encode(), "a b\n", "a b\r\n")

    def test_what_is_there_exactly_goes_first(self) -> None:
        made = apply_edit("a\u00a0b a b".encode(), "a b", "x")
        assert made.data.decode() == "a\u00a0b x"
        assert made.differences == []

    @pytest.mark.parametrize(
        ("data", "old", "difference"),
        [
            ("def f():\n\treturn 1\n", "def f():\n    return 1", [2, 1, "\t", " "]),
            ("if x:\n    a\n", "  a", None),
            ("a  b", "a b c", None),
            ("x = 1;y", "x = 1; y", [1, 7, "y", " "]),
            ("    a\n", "\ta\n", [1, 4, " ", "\t"]),
        ],
    )
    def test_other_whitespace_is_named(self, data: str, old: str, difference: list[object] | None) -> None:
        try:
            apply_edit(data.encode(), old, "new")
        except EditError as error:
            assert [list(each) for each in error.differences] == ([difference] if difference else [])  # noqa: PT017

    def test_takes_no_time(self) -> None:
        data = ("x = foo(a, b)  # \u00e9\u00a0\u200b\n" * 20_000).encode()
        began = time.process_time()
        for old in ("zz zz", "b" * 8_000, "a " * 4_000, "a " * 30_000, "\u200b" * 5_000 + "zz"):
            with pytest.raises(EditError):
                apply_edit(data, old, "y")
        assert time.process_time() - began < 20

    def test_names(self) -> None:
        assert (
            plain("a" + SPACES[0] + SINGLE_QUOTES[0] + DOUBLE_QUOTES[0] + DASHES[0] + INVISIBLE) == "a '\"-"
        )
        assert name_key("'My\\ File.TXT'") == name_key("my\u202ffile.txt")
        assert name_key("a.py") != name_key("b.py")
