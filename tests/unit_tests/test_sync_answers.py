"""The answers of S3 to the working copy, of any content: listings and the properties of objects."""

from __future__ import annotations

import http.client
import time
from email.message import Message
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, strategies

from langchain_daytona_ws._guest.sync_answers import ObjectProperties, Page, S3Error, unix_time

OBJECTS = strategies.lists(
    strategies.tuples(
        strategies.text(strategies.characters(codec="utf-8", min_codepoint=1), min_size=1, max_size=10),
        strategies.text("0123456789abcdef-", min_size=1, max_size=34),
        strategies.integers(0, 10**13),
    ),
    max_size=5,
)


def listing(
    objects: list[tuple[str, str, int]], prefix: str, *, encoded: bool, has_more: bool = False
) -> bytes:
    contents = "".join(
        f"<Contents><Key>{quote_plus(prefix + key) if encoded else escape(prefix + key)}</Key><ETag>&quot;{etag}"
        f"&quot;</ETag><Size>{size}</Size><LastModified>2026-11-30T04:05:06.000Z</LastModified>"
        "<Owner><ID>1</ID></Owner></Contents>"
        for key, etag, size in objects
    )
    encoding = "<EncodingType>url</EncodingType>" if encoded else ""
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<KeyCount>{len(objects)}</KeyCount>{encoding}<IsTruncated>{str(has_more).lower()}</IsTruncated>"
        f"{contents}</ListBucketResult>"
    ).encode()


@given(OBJECTS, strategies.sampled_from(["p/", "sandbox/ä b/"]), strategies.booleans())
def test_pages_contain_all_objects(objects: list[tuple[str, str, int]], prefix: str, has_more: bool) -> None:
    page = Page(listing(objects, prefix, encoded=True, has_more=has_more), prefix)
    known = [(key, etag, size, "2026-11-30T04:05:06.000Z") for key, etag, size in objects]
    assert page.objects() == known
    assert page.has_more is has_more


def test_a_store_that_does_not_encode_keys_is_understood() -> None:
    page = Page(listing([("a+b%20c & d", "e", 1)], "p/", encoded=False), "p/")
    assert [key for key, *_ in page.objects()] == ["a+b%20c & d"]


@given(strategies.binary(max_size=300) | strategies.text(max_size=100).map(str.encode))
def test_other_answers_are_no_pages(text: bytes) -> None:
    with pytest.raises(S3Error):
        Page(text, "p/")


@given(strategies.data())
def test_a_page_that_is_cut_or_changed_is_refused_or_the_same(data: strategies.DataObject) -> None:
    whole = listing([("a", "e", 1), ("b", "e", 2), ("c", "e", 3)], "p/", encoded=True)
    start = data.draw(strategies.integers(0, len(whole) - 1))
    end = data.draw(strategies.integers(start, len(whole)))
    try:
        found = Page(whole[:start] + whole[end:], "p/").objects()
    except S3Error:
        return
    assert len(found) == 3 or start == end or b"KeyCount" not in whole[:start] + whole[end:]


def test_entities_of_a_hostile_listing_are_not_expanded() -> None:
    bomb = b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">%s]>' % b"".join(
        b'<!ENTITY %c "%s">' % (ord("a") + number, b"&%c;" % (ord("a") + number - 1) * 20)
        for number in range(1, 9)
    )
    began = time.monotonic()
    with pytest.raises(S3Error):
        Page(bomb + b"<ListBucketResult><IsTruncated>&i;</IsTruncated></ListBucketResult>", "p/")
    assert time.monotonic() - began < 10


TEXTS = strategies.text(strategies.characters(codec="latin-1"), max_size=30)


@given(
    strategies.dictionaries(
        strategies.sampled_from(
            [
                "ETag",
                "Content-Length",
                "Content-Range",
                "Last-Modified",
                "x-amz-meta-file-permissions",
                "x-amz-meta-file-mtime",
            ]
        ),
        TEXTS | strategies.integers().map(str) | strategies.from_regex("[0-7]{1,9}", fullmatch=True),
    )
)
def test_any_headers_are_properties(headers: dict[str, str]) -> None:
    message: Message = http.client.HTTPMessage()
    for name, text in headers.items():
        message[name] = text.replace("\n", "").replace("\r", "")
    if not message["ETag"]:
        with pytest.raises(S3Error):
            ObjectProperties(message)  # type: ignore[arg-type]
        return
    found = ObjectProperties(message)  # type: ignore[arg-type]
    assert 0 <= found.size < 10**18
    assert 0 <= found.mode < 1 << 21
    assert found.mtime_ns is None or 0 <= found.mtime_ns < 10**19
    assert unix_time(found.modified) < 10**12


@pytest.mark.parametrize(
    ("text", "mode"),
    [("0100755", 0o100755), ("0644", 0o100644), ("0120777", 0o120777), ("", 0), ("9", 0), ("-1", 0)],
)
def test_modes_of_other_services(text: str, mode: int) -> None:
    message = http.client.HTTPMessage()
    message["ETag"] = '"0"'
    message["x-amz-meta-file-permissions"] = text
    assert ObjectProperties(message).mode == mode
