"""Stream files between this process and a sandbox, and hash uploads while they are sent.

Downloads use the daemon's endpoint for one file: its answer is the content alone. In the answer for several files,
daemon 0.190 separates them by a fixed text, which a file can contain.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from time import monotonic
from typing import Any

import aiohttp
import httpx
import urllib3
from daytona import DaytonaError
from daytona.internal.shared_session import http_session_of

from langchain_daytona_ws._adapters.sdk import CONNECT_TIMEOUT_S, TRANSFER_TIMEOUT_S

PIECE_BYTES = 1 << 20
MESSAGE_BYTES = 4096
Write = Callable[[bytes], object]


class HashedUpload(io.BytesIO):
    """The content of an upload, which is hashed while the HTTP client reads it from start to end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = data
        self._digest = hashlib.sha256()
        self._hashed = 0

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        piece = super().read(size)
        if start == self._hashed:  # a client may seek, to find out the length
            self._digest.update(piece)
            self._hashed += len(piece)
        return piece

    @property
    def sha256(self) -> str:
        if self._hashed != len(self._data):
            return hashlib.sha256(self._data).hexdigest()
        return self._digest.hexdigest()


def upload(fs: Any, files: Sequence[tuple[str, HashedUpload]]) -> None:
    """Upload files in one request, as ``fs.upload_files`` of the SDK does.

    Args:
        fs: The SDK's file system of a sandbox.
        files: Absolute paths, and the content of each.
    """
    _, url, headers, *_ = fs._api_client._upload_files_serialize(None, None, None, None)
    headers.pop("Content-Type", None)
    sent = fs._http_client.stream(
        "POST",
        url,
        data={f"files[{number}].path": path for number, (path, _) in enumerate(files)},
        files={f"files[{number}].file": file for number, file in enumerate(files)},
        headers=headers,
        timeout=TRANSFER_TIMEOUT_S,
    )
    with sent as answer:
        if not answer.is_success:
            raise _refused(answer.status_code, answer.read())
        # The status says that the files are stored; reading the rest only keeps the connection.
        with contextlib.suppress(httpx.HTTPError):
            answer.read()


async def aupload(fs: Any, files: Sequence[tuple[str, HashedUpload]]) -> None:
    """Upload files, as `upload` does."""
    _, url, headers, *_ = fs._api_client._upload_files_serialize(None, None, None, None)
    headers.pop("Content-Type", None)
    form = aiohttp.FormData()
    for number, (path, content) in enumerate(files):
        form.add_field(f"files[{number}].path", path)
        form.add_field(
            f"files[{number}].file", content, filename=path, content_type="application/octet-stream"
        )
    limits = aiohttp.ClientTimeout(total=TRANSFER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
    session = http_session_of(fs._api_client.api_client)
    async with session.post(url, data=form, headers=headers, timeout=limits) as answer:
        if not answer.ok:
            raise _refused(answer.status, await answer.content.read(MESSAGE_BYTES))


def download(fs: Any, path: str, write: Write) -> None:
    """Pass the pieces of a file to ``write``.

    Args:
        fs: The SDK's file system of a sandbox.
        path: The absolute path of the file.
        write: Called with each piece, in order; its errors end the download.
    """
    until = monotonic() + TRANSFER_TIMEOUT_S
    with _answer(fs, path) as answer:
        if answer.status != 200:
            raise _refused(answer.status, answer.read(MESSAGE_BYTES))
        while piece := answer.read1(PIECE_BYTES):
            write(piece)
            if monotonic() > until:
                raise urllib3.exceptions.ProtocolError("The file had not ended when the time was up.")


@contextlib.contextmanager
def _answer(fs: Any, path: str) -> Iterator[urllib3.BaseHTTPResponse]:
    method, url, headers, *_ = fs._api_client._download_file_serialize(path, None, None, None, None)
    pools = fs._api_client.api_client.rest_client.pool_manager
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=TRANSFER_TIMEOUT_S)
    answer = pools.request(method, url, headers=headers, timeout=timeout, preload_content=False)
    try:
        yield answer
    except BaseException:
        answer.close()  # the rest must not be read as the next answer
        raise
    else:
        answer.release_conn()


async def adownload(fs: Any, path: str, write: Write) -> None:
    """Pass the pieces of a file to ``write``, as `download` does."""
    async with _aanswer(fs, path) as answer:
        if answer.status != 200:
            raise _refused(answer.status, await answer.content.read(MESSAGE_BYTES))
        async for piece in answer.content.iter_any():
            write(piece)


@contextlib.asynccontextmanager
async def _aanswer(fs: Any, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
    method, url, headers, *_ = fs._api_client._download_file_serialize(path, None, None, None, None)
    limits = aiohttp.ClientTimeout(total=TRANSFER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
    session = http_session_of(fs._api_client.api_client)
    async with session.request(method, url, headers=headers, timeout=limits) as answer:
        yield answer


def _refused(status: int, body: bytes) -> DaytonaError:
    """Return the error of a refused transfer; the daemon's message may be missing."""
    return DaytonaError(f"{status}: {body[:MESSAGE_BYTES].decode('utf-8', 'replace')}", status_code=status)
