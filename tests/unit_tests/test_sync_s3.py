"""The requests of the working copy: signatures as botocore makes them, and deadlines."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, strategies

from langchain_daytona_ws._guest import sync_s3
from langchain_daytona_ws._guest.sync_answers import S3Error
from langchain_daytona_ws._guest.sync_s3 import Bucket
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
