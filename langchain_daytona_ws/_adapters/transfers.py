"""Stream files between this process and a sandbox, and hash uploads while they are sent.

Downloads use the daemon's endpoint for one file, whose answer is the content alone. The endpoint for several files is
not used: daemon 0.190 separates the files by a fixed text, which a file can contain.

A transfer has no total time limit. A sync upload fails if no bytes move for 60 seconds; every other transfer fails if
it is too slow, see `Pace`. After an upload, the answer may take 600 seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from time import monotonic
from typing import Any

import aiohttp
import httpx
import urllib3
from daytona import DaytonaError
from daytona.internal.shared_session import http_session_of

from langchain_daytona_ws._adapters.sdk import CONNECT_TIMEOUT_S, TRANSFER_TIMEOUT_S
from langchain_daytona_ws._core.ports import BytesSource, OnBytes, UploadSource

PIECE_BYTES = 1 << 20
SENT_BYTES = 1 << 20
QUICK_BYTES = 64 << 10  # content in memory up to this size is hashed on the event loop
MESSAGE_BYTES = 4096
STALL_S = 60.0
LEAST_BYTES = 64 << 10
Write = Callable[[bytes], object]


class Pace:
    """The time limit of a transfer: 60 seconds, renewed after each 64 KiB."""

    def __init__(self) -> None:
        self._count = 0
        self._until = monotonic() + STALL_S

    def moved(self, count: int) -> bool:
        """Record transferred bytes; return whether they renewed the limit."""
        self._count += count
        if self._count < LEAST_BYTES:
            return False
        self._count, self._until = 0, monotonic() + STALL_S
        return True

    @property
    def is_too_slow(self) -> bool:
        return monotonic() > self._until


class Upload:
    """The ``multipart/form-data`` body of an upload request. Each file is hashed while it is sent.

    Args:
        files: Absolute paths in the sandbox, and the content of each.
    """

    def __init__(self, files: Sequence[tuple[str, UploadSource]]) -> None:
        boundary = secrets.token_hex(16)
        # Each path comes before its file (Daytona API).
        self._parts = [(_head(boundary, number, path), source) for number, (path, source) in enumerate(files)]
        self._end = f"--{boundary}--\r\n".encode()
        self.length = sum(len(head) + source.size_bytes + 2 for head, source in self._parts) + len(self._end)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.is_quick = sum(source.size_bytes for _, source in self._parts) <= QUICK_BYTES and all(
            isinstance(source, BytesSource) for _, source in self._parts
        )
        self.hashes: list[str] = []
        self.failure: Exception | None = None  # the error of reading a content

    def pieces(self) -> Iterator[tuple[bytes, int]]:
        """Yield pieces of the body, each with its number of content bytes. Small pieces are joined."""
        joined, count = bytearray(), 0
        for piece, content_count in self._parts_of_body():
            if not joined and len(piece) == SENT_BYTES:
                yield piece, content_count
                continue
            joined += piece
            count += content_count
            if len(joined) >= SENT_BYTES:
                yield bytes(joined), count
                joined, count = bytearray(), 0
        yield bytes(joined), count

    def _parts_of_body(self) -> Iterator[tuple[bytes, int]]:
        for head, source in self._parts:
            yield head, 0
            try:
                yield from self._content(source)
            except Exception as error:
                self.failure = error
                raise
            yield b"\r\n", 0
        yield self._end, 0

    def _content(self, source: UploadSource) -> Iterator[tuple[bytes, int]]:
        digest, left = hashlib.sha256(), source.size_bytes
        with source.open() as file:
            while left:
                piece = file.read(min(SENT_BYTES, left))
                digest.update(piece)
                left -= len(piece)
                yield piece, len(piece)
        self.hashes.append(digest.hexdigest())


def _head(boundary: str, number: int, path: str) -> bytes:
    """Return the part with the path, and the header of the part with the file. The path must not contain quotes."""
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files[{number}].path"\r\n\r\n{path}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="files[{number}].file"; filename="{path}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()


def _request(fs: Any, body: Upload) -> tuple[str, dict[str, str]]:
    _, url, headers, *_ = fs._api_client._upload_files_serialize(None, None, None, None)
    own = {"Content-Type": body.content_type, "Content-Length": str(body.length)}
    return url, {**headers, **own}


def upload(
    fs: Any, files: Sequence[tuple[str, UploadSource]], on_bytes: OnBytes | None = None
) -> Sequence[str]:
    """Upload files in one request, as ``fs.upload_files`` of the SDK does.

    Args:
        fs: The SDK's file system of a sandbox.
        files: Absolute paths, and the content of each.
        on_bytes: Called with the size of each sent piece of content.

    Returns:
        The SHA-256 of each content.
    """
    body = Upload(files)
    url, headers = _request(fs, body)

    def sent() -> Iterator[bytes]:
        for piece, count in body.pieces():
            yield piece
            if count and on_bytes is not None:
                on_bytes(count)

    # The answer may take longer than a write, because a gateway may receive all files before it forwards them.
    limits = httpx.Timeout(TRANSFER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, write=STALL_S)
    with fs._http_client.stream("POST", url, content=sent(), headers=headers, timeout=limits) as answer:
        if not answer.is_success:
            raise _refused(answer.status_code, answer.read())
        # The status shows that the files are stored. Read the rest only to keep the connection open.
        with contextlib.suppress(httpx.HTTPError):
            answer.read()
    return body.hashes


async def aupload(
    fs: Any, files: Sequence[tuple[str, UploadSource]], on_bytes: OnBytes | None = None
) -> Sequence[str]:
    """Upload files, as `upload` does; ``on_bytes`` is called on the event loop."""
    body = Upload(files)
    url, headers = _request(fs, body)
    loop, pace, pieces = asyncio.get_running_loop(), Pace(), body.pieces()

    async def sent() -> AsyncIterator[bytes]:
        end = (b"", 0)
        while True:
            entry = next(pieces, end) if body.is_quick else await asyncio.to_thread(next, pieces, end)
            if entry is end:
                limit.reschedule(loop.time() + TRANSFER_TIMEOUT_S)
                return
            piece, count = entry
            for start in range(0, len(piece), LEAST_BYTES):
                part = piece[start : start + LEAST_BYTES]
                yield part
                if pace.moved(len(part)):
                    limit.reschedule(loop.time() + STALL_S)
            if count and on_bytes is not None:
                on_bytes(count)

    session = http_session_of(fs._api_client.api_client)
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    try:
        async with (
            asyncio.timeout(STALL_S) as limit,
            session.post(url, data=sent(), headers=headers, timeout=limits) as answer,
        ):
            if not answer.ok:
                raise _refused(answer.status, await answer.content.read(MESSAGE_BYTES))
    except aiohttp.ClientError:
        if body.failure is not None:  # aiohttp reports it as a failed connection
            raise body.failure from None
        raise
    return body.hashes


def download(fs: Any, path: str, write: Write, on_bytes: OnBytes | None = None) -> None:
    """Pass the pieces of a file to ``write``.

    Args:
        fs: The SDK's file system of a sandbox.
        path: The absolute path of the file.
        write: Called with each piece, in order; its errors end the download.
        on_bytes: Called with the size of each written piece.
    """
    pace = Pace()
    with _answer(fs, path) as answer:
        if answer.status != 200:
            raise _refused(answer.status, answer.read(MESSAGE_BYTES))
        while piece := answer.read1(PIECE_BYTES):
            write(piece)
            if on_bytes is not None:
                on_bytes(len(piece))
            if not pace.moved(len(piece)) and pace.is_too_slow:
                raise urllib3.exceptions.ProtocolError("The download was too slow.")


@contextlib.contextmanager
def _answer(fs: Any, path: str) -> Iterator[urllib3.BaseHTTPResponse]:
    method, url, headers, *_ = fs._api_client._download_file_serialize(path, None, None, None, None)
    pools = fs._api_client.api_client.rest_client.pool_manager
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=STALL_S)
    answer = pools.request(method, url, headers=headers, timeout=timeout, preload_content=False)
    try:
        yield answer
    except BaseException:
        answer.close()  # an open connection would deliver the unread rest as the next answer
        raise
    else:
        answer.release_conn()


async def adownload(fs: Any, path: str, write: Write, on_bytes: OnBytes | None = None) -> None:
    """Download a file as `download` does. Pieces are joined, and ``write`` runs in a thread."""
    method, url, headers, *_ = fs._api_client._download_file_serialize(path, None, None, None, None)
    session = http_session_of(fs._api_client.api_client)
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    loop, pace = asyncio.get_running_loop(), Pace()
    async with (
        asyncio.timeout(STALL_S) as limit,
        session.request(method, url, headers=headers, timeout=limits) as answer,
    ):
        if answer.status != 200:
            raise _refused(answer.status, await answer.content.read(MESSAGE_BYTES))
        async for piece in _large_pieces(answer, lambda: limit.reschedule(loop.time() + STALL_S), pace):
            await asyncio.to_thread(write, piece)
            if on_bytes is not None:
                on_bytes(len(piece))


async def _large_pieces(
    answer: aiohttp.ClientResponse, renew: Callable[[], None], pace: Pace
) -> AsyncIterator[bytes]:
    """Join the pieces that arrive, because starting a thread costs more than writing a small piece."""
    joined = bytearray()
    async for piece in answer.content.iter_any():
        joined += piece
        if pace.moved(len(piece)):
            renew()
        if len(joined) >= PIECE_BYTES:
            yield bytes(joined)
            joined.clear()
    if joined:
        yield bytes(joined)


def _refused(status: int, body: bytes) -> DaytonaError:
    """Return the error of a refused transfer. ``body`` is the daemon's message, or empty."""
    return DaytonaError(f"{status}: {body[:MESSAGE_BYTES].decode('utf-8', 'replace')}", status_code=status)
