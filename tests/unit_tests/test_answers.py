"""Limits for answers of the sync client."""

from __future__ import annotations

import gzip
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import urllib3

from langchain_daytona_ws._adapters import answers


def test_an_answer_after_retries_has_the_whole_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """urllib3 repeats a request within `send`, each attempt with the whole time-out."""
    now = [0.0]
    monkeypatch.setattr(answers, "monotonic", lambda: now[0])

    def send(*_: Any, _request_timeout: tuple[float, float]) -> SimpleNamespace:
        now[0] += _request_timeout[1] + 1  # the first attempt
        return SimpleNamespace(response=urllib3.HTTPResponse(BytesIO(b"answer"), preload_content=False))

    api = SimpleNamespace(rest_client=SimpleNamespace(request=send))
    answers.limit_answers(api)
    assert api.rest_client.request("GET", "/", _request_timeout=10.0).data == b"answer"


def test_a_compressed_answer_to_an_upload_is_not_expanded() -> None:
    body = gzip.compress(bytes(answers.LONGEST_ANSWER_BYTES + 1))
    answer = httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(body))
    with httpx.Client(transport=httpx.MockTransport(lambda _: answer)) as client:
        answers.limit_transfers(client)
        received = client.get("http://127.0.0.1/")
    assert received.content == body
    assert received.request.headers["Accept-Encoding"] == "identity"
