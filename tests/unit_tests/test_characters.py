"""Bytes cut into texts of whole characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._core.commands.characters import Chunks, whole_end, whole_start

PIECES = st.lists(st.binary(max_size=9) | st.text(max_size=5).map(str.encode), max_size=12)


class TestChunks:
    @given(pieces=PIECES)
    def test_the_texts_together_are_the_output(self, pieces: list[bytes]) -> None:
        chunks = Chunks(1000)
        text = "".join([*(chunks.feed(piece) for piece in pieces), chunks.end()])
        assert text == b"".join(pieces).decode("utf-8", "replace")
        assert chunks.size_bytes == sum(map(len, pieces))

    @given(pieces=PIECES, limit=st.integers(0, 40))
    def test_no_more_than_the_limit_is_taken(self, pieces: list[bytes], limit: int) -> None:
        chunks, texts, whole = Chunks(limit), [], b"".join(pieces)
        for piece in pieces:
            texts.append(chunks.feed(piece))
            if chunks.is_full:
                break
        assert chunks.is_full is (len(whole) > limit)
        text = "".join([*texts, chunks.end()])
        expected = whole[:limit].decode("utf-8", "replace")
        if chunks.is_full:
            # A character that the limit cuts through is left out.
            assert expected.startswith(text)
            assert len(expected) - len(text) <= 3
        else:
            assert text == expected
        assert chunks.size_bytes == min(len(whole), limit)

    def test_one_byte_beyond_the_limit_is_read(self) -> None:
        chunks = Chunks(3)
        assert chunks.room_bytes == 4
        assert chunks.feed(b"abc") == "abc"
        assert not chunks.is_full
        assert chunks.room_bytes == 1
        assert chunks.feed(b"d") == ""
        assert chunks.is_full


@given(text=st.text(max_size=20), at=st.integers(0, 80))
def test_a_cut_through_a_character_leaves_it_out(text: str, at: int) -> None:
    data = text.encode()
    first, last = whole_end(data[:at]).decode(), whole_start(data[at:]).decode()
    assert text.startswith(first)
    assert text.endswith(last)
    assert len(text) - len(first) - len(last) <= 1


def test_invalid_utf_8_is_kept() -> None:
    assert whole_end(b"a\x80") == b"a\x80"
    assert whole_start(b"\x80\x80\x80\x80a") == b"\x80a"
