"""An S3 in memory, in its own process. It is fast, so that the measured client takes most of the time.

It supports listings, ranges, parts, user metadata, and conditional GET, PUT, DELETE and completion of an upload.
Signatures are not checked. Answers can be delayed, as by a network; delayed requests do not wait for each other.
"""

from __future__ import annotations

import asyncio
import bisect
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import cast
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

import uvloop

PAGE_KEYS = 1000
METADATA = "x-amz-meta-"
BACKLOG = 256
ONE_WRITE_BYTES = 1 << 20
STOP_S = 10.0

Headers = dict[str, str]
Answer = tuple[int, Headers, bytes | bytearray | memoryview]


@contextmanager
def memory_s3() -> Iterator[MemoryS3]:
    """Start an empty S3, and stop it at the end."""
    argv = [sys.executable, "-m", "benchmarks.memory_s3"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield MemoryS3(process)
    finally:
        process.communicate(timeout=STOP_S)


class MemoryS3:
    """Controls the process. All bucket names exist."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.endpoint = f"http://127.0.0.1:{self._read()}"

    def latency(self, seconds: float) -> None:
        """Delay every answer by these seconds; 0 for no delay."""
        assert self._process.stdin is not None  # noqa: S101 - created with a pipe
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the S3 in memory ended; see its output above")
        return line.strip()


@dataclass(slots=True)
class Stored:
    """An object, with its entry in a listing."""

    data: bytes | bytearray
    etag: str
    headers: Headers  # metadata, date and ETag, in the form of an answer
    listed: str


@dataclass(slots=True)
class Request:
    """One request; header names are in lower case."""

    method: str
    name: str  # "bucket/key", "bucket/" or "bucket"
    query: Headers
    headers: Headers
    body: bytes | bytearray


class Store:
    """The objects, and the answers to requests."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self._objects: dict[str, Stored] = {}
        self._names: list[str] = []  # sorted, if `_is_sorted`
        self._is_sorted = True
        self._uploads: dict[str, tuple[Headers, dict[int, bytes | bytearray]]] = {}
        self._count = 0

    def answer(self, request: Request) -> Answer:
        bucket, _, key = request.name.partition("/")
        if not key:
            return self._list(bucket, request.query) if request.method == "GET" else (200, {}, b"")
        match request.method:
            case "GET" | "HEAD":
                return self._get(request)
            case "PUT" if "partNumber" in request.query:
                return self._put_part(request)
            case "PUT":
                etag = hashlib.md5(request.body).hexdigest()  # noqa: S324 - the ETag of S3
                return self._store(request, request.body, etag, _metadata(request)) or _tagged(etag)
            case "DELETE" if "uploadId" in request.query:
                self._uploads.pop(request.query["uploadId"], None)
                return 204, {}, b""
            case "DELETE":
                return self._delete(request)
            case "POST" if "uploads" in request.query:
                self._count += 1
                self._uploads[str(self._count)] = (_metadata(request), {})
                return _xml("InitiateMultipartUploadResult", f"<UploadId>{self._count}</UploadId>")
            case "POST":
                return self._complete(request)
        return _refusal(501, "NotImplemented")

    def _refused(self, request: Request) -> Answer | None:
        """Return an error answer if the request's condition does not hold."""
        stored = self._objects.get(request.name)
        wanted = request.headers.get("if-match")
        if wanted is not None and stored is None:
            return _refusal(404, "NoSuchKey")
        if wanted is not None and stored is not None and wanted.strip('"') != stored.etag:
            return _refusal(412, "PreconditionFailed")
        if "if-none-match" in request.headers and stored is not None:
            return _refusal(412, "PreconditionFailed")
        return None

    def _get(self, request: Request) -> Answer:
        stored = self._objects.get(request.name)
        if stored is None:
            return _refusal(404, "NoSuchKey")
        refused = self._refused(request)
        if refused is not None:
            return refused
        wanted = request.headers.get("range")
        if wanted is None:
            return 200, stored.headers, stored.data
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, size = int(first), len(stored.data)
        end = min(int(last or size) + 1, size)
        headers = {**stored.headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        return 206, headers, memoryview(stored.data)[start:end]

    def _store(
        self, request: Request, data: bytes | bytearray, etag: str, metadata: Headers
    ) -> Answer | None:
        refused = self._refused(request)
        if refused is not None:
            return refused
        name, (listed_at, date) = request.name, _dates(int(time.time()))
        if name not in self._objects:
            self._is_sorted = self._is_sorted and (not self._names or name > self._names[-1])
            self._names.append(name)
        self._objects[name] = Stored(
            data,
            etag,
            {"ETag": f'"{etag}"', "Last-Modified": date, **metadata},
            f"<LastModified>{listed_at}</LastModified><ETag>&quot;{etag}&quot;</ETag><Size>{len(data)}</Size>",
        )
        return None

    def _delete(self, request: Request) -> Answer:
        refused = self._refused(request)
        if refused is not None:
            return refused
        if self._objects.pop(request.name, None) is not None:
            self._sort()
            del self._names[bisect.bisect_left(self._names, request.name)]
        return 204, {}, b""

    def _put_part(self, request: Request) -> Answer:
        if request.query["uploadId"] not in self._uploads:
            return _refusal(404, "NoSuchUpload")
        self._uploads[request.query["uploadId"]][1][int(request.query["partNumber"])] = request.body
        return _tagged(hashlib.md5(request.body).hexdigest())  # noqa: S324

    def _complete(self, request: Request) -> Answer:
        """Join all parts of an upload; the list of parts in the request is not read."""
        if request.query["uploadId"] not in self._uploads:
            return _refusal(404, "NoSuchUpload")
        metadata, found = self._uploads[request.query["uploadId"]]
        parts = [found[number] for number in sorted(found)]
        digests = b"".join(hashlib.md5(part).digest() for part in parts)  # noqa: S324
        etag = f"{hashlib.md5(digests).hexdigest()}-{len(parts)}"  # noqa: S324
        refused = self._store(request, b"".join(parts), etag, metadata)
        if refused is not None:
            return refused
        del self._uploads[request.query["uploadId"]]
        return _xml("CompleteMultipartUploadResult", f"<ETag>&quot;{etag}&quot;</ETag>")

    def _list(self, bucket: str, query: Headers) -> Answer:
        self._sort()
        prefix, is_encoded = query.get("prefix", ""), query.get("encoding-type") == "url"
        after = query.get("continuation-token") or query.get("start-after", "")
        start = max(
            bisect.bisect_left(self._names, f"{bucket}/{prefix}"),
            bisect.bisect_right(self._names, f"{bucket}/{after}"),
        )
        end = bisect.bisect_left(self._names, f"{bucket}/{prefix}\U0010ffff")
        limit = min(int(query.get("max-keys", PAGE_KEYS)), PAGE_KEYS)
        names = self._names[start : min(end, start + limit)]
        skipped = len(bucket) + 1
        contents = "".join(
            f"<Contents><Key>{quote(name[skipped:]) if is_encoded else escape(name[skipped:])}</Key>"
            f"{self._objects[name].listed}<StorageClass>STANDARD</StorageClass></Contents>"
            for name in names
        )
        more = start + limit < end
        token = (
            f"<NextContinuationToken>{escape(names[-1][skipped:])}</NextContinuationToken>" if more else ""
        )
        return _xml(
            "ListBucketResult",
            f"<Name>{bucket}</Name><Prefix>{quote(prefix)}</Prefix><KeyCount>{len(names)}</KeyCount>"
            f"<MaxKeys>{limit}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}",
        )

    def _sort(self) -> None:
        if not self._is_sorted:
            self._names.sort()
            self._is_sorted = True


@lru_cache(maxsize=2)
def _dates(now_s: int) -> tuple[str, str]:
    """Return a time in the formats of a listing and of a header."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now_s)), formatdate(now_s, usegmt=True)


def _metadata(request: Request) -> Headers:
    return {name: text for name, text in request.headers.items() if name.startswith(METADATA)}


def _tagged(etag: str) -> Answer:
    return 200, {"ETag": f'"{etag}"'}, b""


def _refusal(status: int, code: str) -> Answer:
    return status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def _xml(name: str, content: str) -> Answer:
    text = f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{content}</{name}>'
    return 200, {"Content-Type": "application/xml"}, text.encode()


class Connection(asyncio.Protocol):
    """One connection. Its client sends each request after the previous answer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._received = bytearray()
        self._request: Request | None = None  # set while its body is not complete
        self._missing = 0  # size of its body in bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=1 << 30)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._request is None:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            self._request, self._received = _parsed(head.decode("latin-1")), rest
            self._missing = int(self._request.headers.get("content-length", 0))
            if "expect" in self._request.headers and len(rest) < self._missing:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self._received) < self._missing:
            return
        request, self._request = self._request, None
        request.body, self._received = self._received, bytearray()
        answer = self._store.answer(request)
        if self._store.delay_s:
            loop = asyncio.get_running_loop()
            loop.call_later(self._store.delay_s, self._send, request.method, answer)
        else:
            self._send(request.method, answer)

    def _send(self, method: str, answer: Answer) -> None:
        status, headers, body = answer
        lines = [
            f"HTTP/1.1 {status} -",
            f"Date: {_dates(int(time.time()))[1]}",
            f"Content-Length: {len(body)}",
            *(f"{name}: {text}" for name, text in headers.items()),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if method == "HEAD":
            self._transport.write(head)
        elif len(body) < ONE_WRITE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)


def _parsed(head: str) -> Request:
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    headers = {}
    for line in lines:
        name, _, text = line.partition(":")
        headers[name.lower()] = text.strip()
    pairs = parse_qsl(query, keep_blank_values=True) if query else ()
    return Request(method, unquote(path)[1:], dict(pairs), headers, b"")


def _reply(value: float) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


async def main() -> None:
    """Serve until standard input ends; each of its lines is a new delay."""
    store, loop = Store(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(store), "127.0.0.1", 0, backlog=BACKLOG)
    _reply(server.sockets[0].getsockname()[1])
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        store.delay_s = float(line)
        _reply(store.delay_s)
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
