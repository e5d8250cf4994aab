"""The requests of the working copy: signatures as botocore makes them, answers of any content, and deadlines."""

from __future__ import annotations

import http.client
import time
from email.message import Message
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, strategies

from langchain_daytona_ws._guest import sync_s3
from langchain_daytona_ws._guest.sync_s3 import Bucket, Found, Page, S3Error
from langchain_daytona_ws._guest.sync_tree import KEY_BYTES

# Loading Unicode tables and certificates takes time that the examples are not about.
AT = time.struct_time((2026, 11, 30, 4, 5, 6, 0, 334, 0))
STAMP = "20261130T040506Z"


def bucket(**spec: Any) -> Bucket:
    return Bucket(
        {"bucket": "agents", "region": "us-east-1", "endpoint": None, **spec},
        {"key": "AKIAEXAMPLE", "secret": "secret/+=", "token": spec.get("token")},
    )


class _Auth(SigV4Auth):
    """Signs as S3 requires: the path is encoded once, and the body is not signed."""

    def _normalize_url_path(self, path: str) -> str:
        return path

    def payload(self, request: AWSRequest) -> str:
        return "UNSIGNED-PAYLOAD"


def signed_by_botocore(method: str, url: str, headers: dict[str, str], token: str | None, region: str) -> str:
    request = AWSRequest(method, url, headers={**headers, "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    request.context["timestamp"] = STAMP
    auth = _Auth(Credentials("AKIAEXAMPLE", "secret/+=", token), "s3", region)
    request.headers["X-Amz-Date"] = STAMP
    if token:
        request.headers["X-Amz-Security-Token"] = token
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return str(auth.signature(text, request))


KEYS = strategies.text(strategies.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
PLAIN = strategies.text("abc019-_.~ /+=&%", max_size=12)
HEADERS = strategies.dictionaries(
    strategies.sampled_from(["if-match", "if-none-match", "range", "x-amz-meta-file-mtime", "content-md5"]),
    strategies.text('abc019-=/"*', min_size=1, max_size=12),
)
QUERIES = strategies.dictionaries(
    strategies.sampled_from(["uploads", "uploadId", "partNumber", "prefix", "start-after", "encoding-type"]),
    KEYS | PLAIN,
)


@given(
    key=KEYS,
    query=QUERIES,
    headers=HEADERS,
    method=strategies.sampled_from(["GET", "PUT", "HEAD", "POST", "DELETE"]),
    token=strategies.none() | strategies.text("abcXYZ0/+=", min_size=1, max_size=20),
    region=strategies.sampled_from(["us-east-1", "cn-north-1"]),
    endpoint=strategies.sampled_from([None, "http://127.0.0.1:9000", "https://s3.example.com/base/"]),
)
def test_signatures_are_those_of_botocore(
    *,
    key: str,
    query: dict[str, str],
    headers: dict[str, str],
    method: str,
    token: str | None,
    region: str,
    endpoint: str | None,
) -> None:
    sent: dict[str, str] = {}

    def exchange(method: str, target: str, body: object, signed: dict[str, str]) -> Any:
        sent.update(signed, target=target)
        raise S3Error("refused", "")

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(sync_s3.ssl, "create_default_context", lambda: None)
        s3 = bucket(region=region, endpoint=endpoint, token=token)
        s3.begin(time.monotonic() + 100)
        patches.setattr(s3, "_exchange", exchange)
        patches.setattr(sync_s3.time, "gmtime", lambda _: AT)
        with pytest.raises(S3Error):
            s3._request(method, key, query, headers)
    target = sent.pop("target")
    assert unquote(target.partition("?")[0]).endswith("/" + key)
    url = f"{'http' if endpoint == 'http://127.0.0.1:9000' else 'https'}://{sent['host']}{target}"
    known = signed_by_botocore(method, url, {**headers, "host": sent["host"]}, token, region)
    assert sent["authorization"].rpartition("Signature=")[2] == known
    assert all(name in sent["authorization"] for name in headers)


@pytest.mark.parametrize(
    ("spec", "host", "base"),
    [
        ({}, "agents.s3.us-east-1.amazonaws.com", ""),
        ({"region": "cn-north-1"}, "agents.s3.cn-north-1.amazonaws.com.cn", ""),
        ({"bucket": "a.b"}, "s3.us-east-1.amazonaws.com", "/a.b"),
        ({"endpoint": "http://store:9000"}, "store", "/agents"),
        ({"endpoint": "https://store/base/"}, "store", "/base/agents"),
    ],
)
def test_the_address_of_a_bucket(spec: dict[str, Any], host: str, base: str) -> None:
    s3 = bucket(**spec)
    assert (s3._host, s3._base) == (host, base)


# --- answers ---

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
    from urllib.parse import quote_plus
    from xml.sax.saxutils import escape

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
            Found(message)  # type: ignore[arg-type]
        return
    found = Found(message)  # type: ignore[arg-type]
    assert 0 <= found.size < 10**18
    assert 0 <= found.mode < 1 << 21
    assert found.mtime_ns is None or 0 <= found.mtime_ns < 10**19
    assert sync_s3.unix_time(found.modified) < 10**12


@pytest.mark.parametrize(
    ("text", "mode"),
    [("0100755", 0o100755), ("0644", 0o100644), ("0120777", 0o120777), ("", 0), ("9", 0), ("-1", 0)],
)
def test_modes_of_other_services(text: str, mode: int) -> None:
    message = http.client.HTTPMessage()
    message["ETag"] = '"0"'
    message["x-amz-meta-file-permissions"] = text
    assert Found(message).mode == mode


def test_no_request_starts_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = bucket()
    monkeypatch.setattr(s3, "_exchange", lambda *_: pytest.fail("it was sent"))
    s3.begin(time.monotonic() - 1)
    for _ in range(2):
        with pytest.raises(S3Error) as caught:
            s3.head("a")
        assert caught.value.code == "deadline"


def test_the_longest_key_is_that_of_s3() -> None:
    assert KEY_BYTES == 1024


@pytest.mark.parametrize(("size", "sends"), [(0, 1), (5, 1), (sync_s3.ONE_SEND_BYTES, 2), (1 << 20, 2)])
def test_small_content_is_sent_together_with_the_headers(size: int, sends: int) -> None:
    sent: list[bytes] = []
    connection = sync_s3._Connection("s3.example.com")
    connection.sock = SimpleNamespace(sendall=sent.append, close=lambda: None)
    content = bytes(size)
    connection.request("PUT", "/a", content, {"content-length": str(size)})
    assert len(sent) == sends
    head, _, body = b"".join(sent).partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /a HTTP/1.1\r\n")
    assert body == content
