"""Limit the size and the time of Daytona's responses.

Most responses come from a process in the sandbox, which the agent can replace. The SDK reads each response to its end
into memory. Its sync client has no time limit for the whole response: urllib3's time-outs apply to single reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any, cast

import aiohttp
import httpx
import urllib3

from langchain_daytona_ws._adapters.sdk import CONNECT_TIMEOUT_S, TRANSFER_TIMEOUT_S

# The largest answers are a batch of files (4 MiB in all), a command's output of 1 MiB, and a listing of 5,000 names.
# The guest's JSON is a string in Daytona's JSON, so its text is escaped twice.
LONGEST_ANSWER_BYTES = 32 << 20
PIECE_BYTES = 1 << 20


def limit_answers(api: Any) -> None:
    """Limit the bodies of a sync client's responses to 32 MiB, and to the request's time-out if it has one.

    Args:
        api: The ``ApiClient`` of a generated client of the SDK. It has no public hook for reading responses.
    """
    rest = api.rest_client
    send = rest.request

    def request(*given: Any, _request_timeout: float | None = None, **named: Any) -> Any:
        connect_s = (
            CONNECT_TIMEOUT_S if _request_timeout is None else min(CONNECT_TIMEOUT_S, _request_timeout)
        )
        try:
            answer = send(*given, _request_timeout=(connect_s, _request_timeout), **named)
        finally:
            del given, named  # a traceback could show their API key
        # The limit begins here, because `send` may have repeated the request, each time with the whole time-out.
        until = None if _request_timeout is None else monotonic() + _request_timeout
        answer.data = _read_all(answer.response, until)
        return answer

    rest.request = request


def _read_all(response: urllib3.HTTPResponse, until: float | None) -> bytes:
    data = bytearray()
    try:
        while piece := response.read1(PIECE_BYTES):
            data += piece
            if len(data) > LONGEST_ANSWER_BYTES:
                raise urllib3.exceptions.ProtocolError(_TOO_LONG)
            if until is not None and monotonic() > until:
                raise urllib3.exceptions.ProtocolError(_TOO_LATE)
    except BaseException:
        response.close()  # an open connection would deliver the unread rest as the next response
        raise
    return bytes(data)


def limit_async_answers(api: Any) -> None:
    """Limit an async client's responses to 32 MiB; aiohttp enforces the time-out itself."""
    rest = api.rest_client
    send = rest.request

    async def request(*given: Any, _request_timeout: float | None = None, **named: Any) -> Any:
        limits = aiohttp.ClientTimeout(total=_request_timeout, sock_connect=CONNECT_TIMEOUT_S)
        try:
            answer = await send(*given, _request_timeout=limits, **named)
        finally:
            del given, named
        answer.data = await _read_all_async(answer.response)
        return answer

    rest.request = request


async def _read_all_async(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    try:
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > LONGEST_ANSWER_BYTES:
                raise aiohttp.ClientPayloadError(_TOO_LONG)
    except BaseException:
        response.close()
        raise
    return bytes(data)


def limit_transfers(client: httpx.Client) -> None:
    """Limit the sync upload client's responses to 32 MiB and 600 seconds: httpx's time-outs apply to single reads."""

    def bound(answer: httpx.Response) -> None:
        # httpx would decompress the body after the limit: a short body could fill the memory.
        answer.headers.pop("Content-Encoding", None)
        answer.stream = _Bounded(
            cast("httpx.SyncByteStream", answer.stream), monotonic() + TRANSFER_TIMEOUT_S
        )

    client.headers["Accept-Encoding"] = "identity"
    client.event_hooks = {**client.event_hooks, "response": [bound]}


class _Bounded(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if size > LONGEST_ANSWER_BYTES:
                raise httpx.ReadError(_TOO_LONG)
            if monotonic() > self._until:
                raise httpx.ReadTimeout(_TOO_LATE)
            yield piece

    def close(self) -> None:
        self._stream.close()


_TOO_LATE = "The answer did not end within the time limit."
_TOO_LONG = "The answer is larger than the limit."
