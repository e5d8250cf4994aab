"""Requests to a store that stands in for moto are signed as botocore signs them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from langchain_daytona_ws.local import S3Store
from langchain_daytona_ws.local.s3 import forward
from langchain_daytona_ws.local.s3.forward import Forward

STORE = S3Store("http://127.0.0.1:9000", "AKIASTORE", "the-secret")
CLAIMED = "AWS4-HMAC-SHA256 Credential=AKIAANY/20200101/eu-central-1/s3/aws4_request, SignedHeaders=host"
STAMP = "20261129T120000Z"


class _AsSent(SigV4Auth):
    """Signs a path as it stands, as for S3."""

    def _normalize_url_path(self, path: str) -> str:
        return path


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/agents?list-type=2&prefix=sandbox%2Fdemo%2F&delimiter=%2F&start-after=", {}),
        ("PUT", "/agents/sandbox/demo/a%20b%2B%C3%A9.txt", {"x-amz-meta-x": "a  b"}),
        ("PUT", "/agents/a?renameObject", {"x-amz-rename-source": "/agents/b"}),
        ("DELETE", "/agents/a?uploadId=1~2", {}),
    ],
)
def test_as_botocore_does(
    method: str, target: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward.time, "strftime", lambda *_: STAMP)
    given = {
        "host": "127.0.0.1:5",
        "authorization": CLAIMED,
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        **headers,
    }
    signed = Forward(STORE)._sign(method, target, given, b"")
    request: Any = AWSRequest(method, f"http://127.0.0.1:5{target}")
    for name, value in signed.items():
        if name.startswith("x-amz-"):
            request.headers[name] = value
    request.context["timestamp"] = STAMP
    auth = _AsSent(Credentials(STORE.access_key, STORE.secret_key), "s3", "eu-central-1")
    right = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert signed["authorization"].endswith(f"Signature={right}")
    assert "Credential=AKIASTORE/20261129/eu-central-1/s3/aws4_request" in signed["authorization"]


def test_a_store_that_cannot_be_reached_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def refused(_address: object, timeout_s: float, *_: object, **__: object) -> None:
        waited.append(timeout_s)
        raise TimeoutError("timed out")

    monkeypatch.setattr(forward.http.client.socket, "create_connection", refused)
    started: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/agents"}
    (content,) = Forward(STORE)(environ, lambda status, _headers: started.append(status))
    assert (waited, started) == ([forward.CONNECT_S], ["503 Service Unavailable"])
    assert b"http://127.0.0.1:9000 did not answer: TimeoutError" in content


def test_its_secret_is_not_shown() -> None:
    assert "the-secret" not in repr(STORE)
