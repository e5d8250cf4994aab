"""An S3 in memory, for tests of the working copy: fast, and with any fault that a test describes as a function.

It has what the engine needs: conditional PUT, DELETE and completion of an upload, listings, parts, metadata, ranges.
`test_memory_s3.py` compares it with the local S3.
"""

from __future__ import annotations

import bisect
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

SKEW_S = 15 * 60
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass
class Stored:
    data: bytes
    etag: str
    modified: int
    metadata: dict[str, str]


@dataclass
class Request:
    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """An answer; of a body that is `cut`, only the first bytes are sent, each after `pause_s`."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    pause_s: float = 0.0


DROPPED = Answer(0)  # the connection is closed without a byte
Intercept = Callable[[Request, Callable[[], Answer]], Answer | None]


def error(status: int, code: str, message: str = "", **headers: str) -> Answer:
    text = f"{XML}<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, text.encode(), {name.replace("_", "-"): value for name, value in headers.items()})


class MemoryS3:
    """An S3 on a loopback port.

    Attributes:
        intercept: Answers a request in place of this S3; returns None to leave the request alone.
        random_etags: Whether an ETag is not an MD5 and differs with each PUT, as with SSE-KMS.
        honours_delete: Whether the condition of a DELETE is checked; MinIO does not.
        ahead_s: How far the clock of the store is ahead.
    """

    def __init__(self) -> None:
        self.intercept: Intercept | None = None
        self.random_etags = False
        self.honours_delete = True
        self.ahead_s = 0.0
        self.requests: list[Request] = []
        self.objects: dict[str, Stored] = {}
        self._keys: list[str] = []
        self._uploads: dict[str, tuple[str, dict[str, str], dict[int, bytes]]] = {}
        self._count = 0
        self._lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"store": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> MemoryS3:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def reset(self) -> None:
        """Delete all objects and faults."""
        with self._lock:
            self.intercept, self.random_etags, self.honours_delete, self.ahead_s = None, False, True, 0.0
            self.objects, self._keys, self._uploads, self.requests = {}, [], {}, []

    # --- requests ---

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        intercept = self.intercept
        answered = intercept(request, lambda: self.serve(request)) if intercept else None
        return self.serve(request) if answered is None else answered

    def serve(self, request: Request) -> Answer:
        """Answer a request without faults."""
        with self._lock:
            at = request.headers.get("x-amz-date")
            if at:
                sent_s = time.mktime(time.strptime(at, "%Y%m%dT%H%M%SZ")) - time.timezone
                if abs(sent_s - time.time() - self.ahead_s) > SKEW_S:
                    return error(403, "RequestTimeTooSkewed", "The difference is too large.")
            if not request.key:
                return self._list(request) if request.method == "GET" else Answer(200)
            method = {
                "GET": self._get, "HEAD": self._get, "PUT": self._put, "DELETE": self._delete,
                "POST": self._post,
            }[request.method]  # fmt: skip
            return method(request)

    def put(self, key: str, data: bytes, metadata: dict[str, str] | None = None, etag: str = "") -> Stored:
        """Store an object without a request."""
        with self._lock:
            self._count += 1
            salt = b"%d" % self._count if self.random_etags else b""
            etag = etag or hashlib.md5(salt + data).hexdigest()
            if key not in self.objects:
                bisect.insort(self._keys, key)
            self.objects[key] = Stored(data, etag, int(time.time() + self.ahead_s), dict(metadata or {}))
            return self.objects[key]

    def remove(self, key: str) -> None:
        """Delete an object without a request."""
        with self._lock:
            if self.objects.pop(key, None) is not None:
                self._keys.remove(key)

    def _refused(self, request: Request, *, missing: int = 404) -> Answer | None:
        stored = self.objects.get(request.key)
        wanted = request.headers.get("if-match")
        if wanted is not None:
            if stored is None:
                return error(missing, "NoSuchKey" if missing == 404 else "PreconditionFailed")
            if wanted.strip('"') not in (stored.etag, "*"):
                return error(412, "PreconditionFailed")
        if request.headers.get("if-none-match") == "*" and stored is not None:
            return error(412, "PreconditionFailed")
        return None

    def _get(self, request: Request) -> Answer:
        stored = self.objects.get(request.key)
        if stored is None:
            return error(404, "NoSuchKey")
        refused = self._refused(request)
        if refused is not None:
            return refused
        headers = {
            "ETag": f'"{stored.etag}"',
            "Last-Modified": formatdate(stored.modified, usegmt=True),
            "Content-Type": "binary/octet-stream",
            **{f"x-amz-meta-{name}": value for name, value in stored.metadata.items()},
        }
        wanted = request.headers.get("range")
        if wanted is None:
            return Answer(200, stored.data, headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(stored.data)) + 1, len(stored.data))
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(stored.data)}"
        return Answer(206, stored.data[start:end], headers)

    def _put(self, request: Request) -> Answer:
        if "uploadId" in request.query:
            upload = self._uploads.get(request.query["uploadId"])
            if upload is None:
                return error(404, "NoSuchUpload")
            upload[2][int(request.query["partNumber"])] = request.body
            return Answer(200, headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})
        if len(request.key.encode()) > 1024:
            return error(400, "KeyTooLongError")
        refused = self._refused(request)
        if refused is not None:
            return refused
        return Answer(
            200, headers={"ETag": f'"{self.put(request.key, request.body, _metadata(request)).etag}"'}
        )

    def _delete(self, request: Request) -> Answer:
        if "uploadId" in request.query:
            found = self._uploads.pop(request.query["uploadId"], None)
            return Answer(204) if found else error(404, "NoSuchUpload")
        refused = self._refused(request, missing=412) if self.honours_delete else None
        if refused is not None:
            return refused
        self.remove(request.key)
        return Answer(204)

    def _post(self, request: Request) -> Answer:
        if "uploads" in request.query:
            self._count += 1
            upload = f"upload-{self._count}"
            self._uploads[upload] = (request.key, _metadata(request), {})
            return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
        found = self._uploads.get(request.query["uploadId"])
        if found is None:
            return error(404, "NoSuchUpload")
        refused = self._refused(request)
        if refused is not None:
            return refused
        key, metadata, parts = found
        numbers = [
            int(element.text or "")
            for element in ElementTree.fromstring(request.body).iter()
            if element.tag.rpartition("}")[2] == "PartNumber"
        ]
        digests = b"".join(hashlib.md5(parts[number]).digest() for number in numbers)
        etag = f"{hashlib.md5(digests).hexdigest()}-{len(numbers)}"
        if self.random_etags:
            self._count += 1
            etag = f"{hashlib.md5(b'%d' % self._count).hexdigest()}-{len(numbers)}"
        self.put(key, b"".join(parts[number] for number in numbers), metadata, etag)
        del self._uploads[request.query["uploadId"]]
        return _xml("CompleteMultipartUploadResult", f"<ETag>&quot;{etag}&quot;</ETag>")

    def _list(self, request: Request) -> Answer:
        query = request.query
        prefix = query.get("prefix", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        start = max(bisect.bisect_right(self._keys, after), bisect.bisect_left(self._keys, prefix))
        encoded = query.get("encoding-type") == "url"
        found: list[str] = []
        has_more, limit = False, int(query.get("max-keys", "1000"))
        for key in self._keys[start:]:
            if not key.startswith(prefix):
                break
            if len(found) == limit:
                has_more = True
                break
            found.append(key)
        contents = "".join(_listed(key, self.objects[key], encoded=encoded) for key in found)
        token = f"<NextContinuationToken>{escape(found[-1])}</NextContinuationToken>" if has_more else ""
        frame = (
            f"<Name>{request.bucket}</Name><Prefix>{quote(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
            f"<MaxKeys>{limit}</MaxKeys>{'<EncodingType>url</EncodingType>' if encoded else ''}"
            f"<IsTruncated>{str(has_more).lower()}</IsTruncated>{token}"
        )
        return _xml("ListBucketResult", frame + contents)


def _metadata(request: Request) -> dict[str, str]:
    start = "x-amz-meta-"
    return {name[len(start) :]: text for name, text in request.headers.items() if name.startswith(start)}


def _xml(name: str, content: str) -> Answer:
    return Answer(
        200, f"{XML}<{name} {NAMESPACE}>{content}</{name}>".encode(), {"Content-Type": "application/xml"}
    )


def _listed(key: str, stored: Stored, *, encoded: bool) -> str:
    modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stored.modified))
    return (
        f"<Contents><Key>{quote(key) if encoded else escape(key)}</Key><LastModified>{modified}</LastModified>"
        f"<ETag>&quot;{stored.etag}&quot;</ETag><Size>{len(stored.data)}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that are killed."""


class _Handler(BaseHTTPRequestHandler):
    store: MemoryS3
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path)[1:].partition("/")
        headers = {name.lower(): text for name, text in self.headers.items()}
        size = int(headers.get("content-length", "0"))
        body = self.rfile.read(size) if size else b""
        if len(body) < size:  # the client was killed
            self.close_connection = True
            return
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        answer = self.store.answer(Request(self.command, bucket, key, query, headers, body))
        if answer is DROPPED:
            self.close_connection = True
            return
        content = answer.body
        lines = [
            f"HTTP/1.1 {answer.status} OK",
            f"Date: {formatdate(time.time() + self.store.ahead_s, usegmt=True)}",
        ]
        lines += [f"{name}: {text}" for name, text in answer.headers.items()]
        if answer.status != 204 and "Transfer-Encoding" not in answer.headers:
            lines.append(f"Content-Length: {len(content)}")
        if self.command == "HEAD":
            content = b""
        if answer.cut is not None:
            content, self.close_connection = content[: answer.cut], True
        self.wfile.write("\r\n".join([*lines, "", ""]).encode())
        if answer.pause_s:
            for byte in content:
                time.sleep(answer.pause_s)
                self.wfile.write(bytes([byte]))
        else:
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Log nothing."""
