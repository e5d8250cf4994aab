"""Signed requests to one S3 bucket from the sandbox, on connections that stay open, with a common deadline.

This module is part of the resident, the process that synchronises a working copy with its prefix (``sync_resident``).
"""

from __future__ import annotations

import binascii
import errno
import hashlib
import hmac
import http.client
import os
import ssl
import threading
import time
from urllib.parse import quote, urlsplit

from langchain_daytona_ws._guest.sync_answers import (
    ObjectProperties,
    Page,
    S3Error,
    etag_of,
    text_of,
    unix_time,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Spec = dict[str, Any]
    Headers = dict[str, str]

PAGE_KEYS = 1000
PAUSES_S = (0.0, 0.1, 0.4, 1.2)
UNREACHABLE_TRIES = 2
CONNECT_S = 5.0
TIMEOUT_S = 20.0
BLOCK_BYTES = 256 * 1024
ONE_SEND_BYTES = 16 * 1024
ERROR_BYTES = 64 * 1024
EXPIRED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId")
# After one of these errors the synchronisation sends no further request, because the others would probably fail too.
GENERAL = (
    "denied",
    "expired",
    "signature",
    "no_bucket",
    "wrong_region",
    "unreachable",
    "unavailable",
    "deadline",
)

_OF_CODE = {
    "NoSuchBucket": "no_bucket",
    "SignatureDoesNotMatch": "signature",
    "InvalidObjectState": "archived",
    "SlowDown": "unavailable",
    "RequestTimeout": "unavailable",
}
_OF_STATUS = {
    401: "denied",
    403: "denied",
    404: "missing",
    409: "conflict",  # ConditionalRequestConflict: try again (S3 API)
    412: "changed",
    429: "unavailable",
    500: "unavailable",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
OVERDUE = "the time for synchronising is over"


class LocalError(Exception):
    """A local file could not be read or written during a request."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.errno = error.errno


class Slice:
    """A part of an open file as the body of a request."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        self._fd = fd
        self._at = start
        self._left = size
        self.digest = hashlib.md5()  # noqa: S324 - S3's ETag is an MD5

    def read(self, size: int = -1) -> bytes:
        try:
            data = os.pread(self._fd, min(self._left, BLOCK_BYTES if size < 0 else size), self._at)
        except OSError as error:
            raise LocalError(error) from None
        if not data and self._left:
            raise LocalError(OSError(errno.EIO, "the file became shorter while it was read"))
        self._at += len(data)
        self._left -= len(data)
        self.digest.update(data)
        return data


class _Connection(http.client.HTTPConnection):
    """A connection that sends small content together with the headers: a second packet would take more time."""

    _unsent: bytes | None = None  # data of the current request that is not sent yet

    def request(self, *args: Any, **settings: Any) -> None:
        self._unsent = b""
        try:
            super().request(*args, **settings)
        finally:
            unsent, self._unsent = self._unsent, None
        if unsent:
            super().send(unsent)

    def send(self, data: Any) -> None:
        if self._unsent is not None and len(self._unsent) + len(data) <= ONE_SEND_BYTES:
            self._unsent += data
            return
        unsent, self._unsent = self._unsent, None
        if unsent:
            super().send(unsent)
        super().send(data)


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    pass


class Bucket:
    """One bucket. Every method raises only S3Error and LocalError.

    Args:
        spec: ``bucket``, ``region`` and ``endpoint`` (None for AWS).
        credentials: ``key``, ``secret`` and ``token``.
    """

    def __init__(self, spec: Spec, credentials: dict[str, str | None]) -> None:
        self._region = spec["region"]
        self._credentials = credentials
        self._local = threading.local()
        self._skew_s = 0.0
        self._signing_keys: dict[str, bytes] = {}
        self._failure: S3Error | None = None
        self._deadline = 0.0
        self.round_trip_s = 0.0  # time that the last page of a listing took
        bucket, endpoint = spec["bucket"], spec["endpoint"]
        if endpoint is None:
            suffix = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
            # A certificate for *.s3.<region> does not cover a bucket with a dot.
            dotted = "." in bucket
            host = "s3.%s.%s" % (self._region, suffix)
            self._base = "/" + bucket if dotted else ""
            endpoint = "https://%s" % (host if dotted else "%s.%s" % (bucket, host))
        else:
            self._base = "/" + bucket
        url = urlsplit(endpoint)
        self._host, self._port, self._netloc = url.hostname or "", url.port, url.netloc
        self._base = url.path.rstrip("/") + self._base
        self._tls = ssl.create_default_context() if url.scheme.lower() == "https" else None

    def begin(self, deadline: float) -> None:
        """Start one synchronisation: forget the last failure, and set the deadline (monotonic clock)."""
        self._failure = None
        self._deadline = deadline

    def page(self, prefix: str, after: str) -> Page:
        """Return up to 1,000 keys below ``prefix`` that follow the key ``after``."""
        query = {"encoding-type": "url", "list-type": "2", "max-keys": str(PAGE_KEYS), "prefix": prefix}
        if after:
            query["start-after"] = after
        began = time.monotonic()
        page = Page(self._request("GET", "", query)[1], prefix)
        self.round_trip_s = time.monotonic() - began
        return page

    def head(self, key: str) -> ObjectProperties | None:
        """Return an object's properties; None if it does not exist."""
        try:
            return ObjectProperties(self._request("HEAD", key)[0])
        except S3Error as error:
            if error.code == "missing":
                return None
            raise

    def get(
        self, key: str, write: Callable[[bytes], object], part: tuple[int, int, str] | None = None
    ) -> ObjectProperties:
        """Read an object.

        Args:
            key: The object.
            write: Receives the content in order. After a fault, it receives an empty piece and all content again.
            part: First byte, end (excluded) and ETag of a part; None for the whole object.

        Raises:
            S3Error: ``missing``, or ``changed`` if a part was requested and the object has another ETag.
        """
        headers = {} if part is None else {"range": "bytes=%d-%d" % (part[0], part[1] - 1)}
        if part is not None and part[2]:
            headers["if-match"] = '"%s"' % part[2]
        found = ObjectProperties(self._request("GET", key, headers=headers, write=write)[0])
        if part is not None and not found.range.startswith("bytes %d-" % part[0]):
            raise S3Error("unavailable", "S3 ignores the range of a request")
        return found

    def put(
        self, key: str, body: bytes | Callable[[], Slice], size: int, headers: Headers
    ) -> tuple[str, float]:
        """Store an object; return its ETag and the time of the change in Unix seconds.

        Raises:
            S3Error: ``changed`` or ``missing`` if the condition in ``headers`` does not hold.
        """
        answer = self._request("PUT", key, headers={**headers, "content-length": str(size)}, body=body)[0]
        return etag_of(answer), unix_time(answer["Date"])

    def begin_parts(self, key: str, headers: Headers) -> str:
        upload = text_of(self._request("POST", key, {"uploads": ""}, headers)[1], "UploadId")
        if not upload:
            raise S3Error("unavailable", "the answer has no id of an upload")
        return upload

    def put_part(self, key: str, upload: str, number: int, body: Callable[[], Slice], size: int) -> str:
        query = {"partNumber": str(number), "uploadId": upload}
        answer = self._request("PUT", key, query, {"content-length": str(size)}, body)[0]
        return etag_of(answer)

    def end_parts(self, key: str, upload: str, etags: list[str], headers: Headers) -> tuple[str, float]:
        """Join the parts to an object; return its ETag and the time of the change in Unix seconds."""
        parts = "".join(
            "<Part><PartNumber>%d</PartNumber><ETag>&quot;%s&quot;</ETag></Part>" % (number, etag)
            for number, etag in enumerate(etags, 1)
        )
        body = ("<CompleteMultipartUpload>%s</CompleteMultipartUpload>" % parts).encode()
        headers = {**headers, "content-length": str(len(body))}
        try:
            answer, text = self._request("POST", key, {"uploadId": upload}, headers, body)
        except S3Error as error:
            # S3 does not know the upload: an earlier attempt has completed it, and the answer was lost. After "changed"
            # the caller compares the object.
            if error.code != "missing":
                raise
            raise S3Error("changed", error.detail) from None
        etag = text_of(text, "ETag").strip('"')
        if not etag:  # S3 may answer 200 and report the failure in the body (S3 API)
            code = text_of(text, "Code")
            if code in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise S3Error("changed", code)
            raise S3Error("unavailable", code or "the upload was not completed")
        return etag, unix_time(answer["Date"])

    def abort_parts(self, key: str, upload: str) -> None:
        self._request("DELETE", key, {"uploadId": upload})

    def delete(self, key: str, etag: str | None) -> None:
        """Delete an object; with ``etag``, only if the object has this ETag.

        Raises:
            S3Error: ``changed`` if the object has another ETag.
        """
        self._request("DELETE", key, headers={} if etag is None else {"if-match": '"%s"' % etag})

    # --- one request ---

    def _request(
        self,
        method: str,
        key: str,
        query: dict[str, str] | None = None,
        headers: Headers | None = None,
        body: bytes | Callable[[], Slice] = b"",
        *,
        write: Callable[[bytes], object] | None = None,
    ) -> tuple[http.client.HTTPMessage, bytes]:
        """Send a request, in up to ``len(PAUSES_S)`` attempts. Return the headers and the content of the answer; if
        ``write`` is given, it receives the content.
        """
        path = quote("%s/%s" % (self._base, key), safe="/~")
        pairs = sorted((query or {}).items())
        text = "&".join("%s=%s" % (name, quote(value, safe="")) for name, value in pairs)
        error, failures = S3Error("unavailable", ""), 0
        for pause_s in PAUSES_S:
            self._wait(pause_s)
            signed = self._signed(method, path, text, headers or {})
            try:
                response = self._exchange(method, path + (text and "?" + text), body, signed)
                if response.status < 300:
                    return response.headers, self._content(response, write)
                error = self._refusal(response)
                if error.code not in ("unavailable", "conflict", "skewed"):
                    break
            except (OSError, http.client.HTTPException) as fault:
                self._connection().close()
                if write is not None:
                    _write(write, b"")
                if time.monotonic() > self._deadline:
                    error = S3Error("deadline", OVERDUE)
                    break
                error = S3Error("unreachable", "%s: %s" % (type(fault).__name__, fault))
                failures += 1
                if isinstance(fault, ssl.SSLCertVerificationError) or failures == UNREACHABLE_TRIES:
                    break
            except ValueError as fault:  # a header or an answer that HTTP does not allow
                self._connection().close()
                raise S3Error("refused", str(fault)) from None
            except BaseException:  # a part of a request or an answer may be left on the connection
                self._connection().close()
                raise
        if error.code == "conflict":
            error = S3Error("changed", error.detail)
        elif error.code == "skewed":
            error = S3Error("signature", error.detail)
        raise self._fail(error)

    def _wait(self, pause_s: float) -> None:
        """Wait before an attempt. After the deadline, or after an error that concerns all requests, raise the error."""
        if self._failure is not None:
            raise self._failure
        if time.monotonic() + pause_s > self._deadline:
            raise self._fail(S3Error("deadline", OVERDUE))
        if pause_s:  # a sleep of zero seconds costs 0.3 ms
            time.sleep(pause_s)

    def _fail(self, error: S3Error) -> S3Error:
        """Return the error. If it concerns all requests, record it, so that no further request is sent."""
        if error.code in GENERAL:
            self._failure = error
        return error

    def _exchange(
        self, method: str, target: str, body: bytes | Callable[[], Slice], headers: Headers
    ) -> http.client.HTTPResponse:
        """Send one request on this thread's connection. Send it again if the store has closed the idle connection."""
        connection = self._connection()
        was_open = connection.sock is not None
        try:
            return self._sent(connection, method, target, body, headers)
        except ConnectionError:  # http.client.RemoteDisconnected is one
            if not was_open:
                raise
        connection.close()
        return self._sent(connection, method, target, body, headers)

    def _sent(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        body: bytes | Callable[[], Slice],
        headers: Headers,
    ) -> http.client.HTTPResponse:
        left_s = max(self._deadline - time.monotonic(), 0.001)
        if connection.sock is None:
            connection.timeout = min(CONNECT_S, left_s)
            connection.connect()
        timeout_s = min(TIMEOUT_S, left_s)
        if connection.sock is not None and connection.sock.gettimeout() != timeout_s:
            connection.sock.settimeout(timeout_s)
        try:
            connection.request(method, target, body() if callable(body) else body, headers)
        except ConnectionError as error:
            # The store may have refused the request before it read the body.
            try:
                return connection.getresponse()
            except (OSError, http.client.HTTPException):
                raise error from None
        return connection.getresponse()

    def _content(self, response: http.client.HTTPResponse, write: Callable[[bytes], object] | None) -> bytes:
        pieces: list[bytes] = []
        while True:
            piece = response.read1(BLOCK_BYTES)
            if not piece:
                break
            if write is None:
                pieces.append(piece)
            else:
                _write(write, piece)
            if time.monotonic() > self._deadline:
                raise TimeoutError("the answer takes too long")
        if response.length:  # with `read1`, http.client does not report a body that ends early
            raise http.client.IncompleteRead(b"")
        response.read()  # ends the answer, so that the connection can be used again
        return b"".join(pieces)

    def _connection(self) -> http.client.HTTPConnection:
        """Return this thread's connection, which may not be open."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            settings: dict[str, Any] = {"timeout": CONNECT_S, "blocksize": BLOCK_BYTES}
            if self._tls is None:
                connection = _Connection(self._host, self._port, **settings)
            else:
                connection = _TlsConnection(self._host, self._port, context=self._tls, **settings)
            self._local.connection = connection
        return connection

    def _signed(self, method: str, path: str, query: str, headers: Headers) -> Headers:
        """Add the headers of Signature Version 4 (S3 API) to a copy of the headers, and return it.

        The body is not signed: TLS protects it if the endpoint uses https.
        """
        headers = dict(headers)
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + self._skew_s))
        headers["host"] = self._netloc
        headers["x-amz-date"] = at
        headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
        token = self._credentials["token"]
        if token:
            headers["x-amz-security-token"] = token
        names = sorted(headers)
        canonical = "\n".join(
            [method, path, query]
            + ["%s:%s" % (name, headers[name].strip()) for name in names]
            + ["", ";".join(names), "UNSIGNED-PAYLOAD"]
        )
        scope = "%s/%s/s3/aws4_request" % (at[:8], self._region)
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = "AWS4-HMAC-SHA256\n%s\n%s\n%s" % (at, scope, digest)
        signature = hmac.new(self._signing_key(at[:8]), text.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
            self._credentials["key"], scope, ";".join(names), signature,
        )  # fmt: skip
        return headers

    def _signing_key(self, day: str) -> bytes:
        if day not in self._signing_keys:
            key = ("AWS4%s" % self._credentials["secret"]).encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._signing_keys = {day: key}
        return self._signing_keys[day]

    def _refusal(self, response: http.client.HTTPResponse) -> S3Error:
        text = response.read(ERROR_BYTES)
        if not response.isclosed():
            self._connection().close()
        status, code = response.status, text_of(text, "Code")
        detail = " ".join(("%d %s %s" % (status, code, text_of(text, "Message"))).split())[:300]
        if code == "RequestTimeTooSkewed":
            date = unix_time(response.headers["Date"])
            if date:
                self._skew_s = date - time.time()
            return S3Error("skewed", detail)
        if code in EXPIRED or (code == "AccessDenied" and "expired" in detail.lower()):
            return S3Error("expired", detail)
        region = response.headers["x-amz-bucket-region"] or text_of(text, "Region")
        if status in (301, 307, 400) and region and region != self._region:
            return S3Error("wrong_region", "the bucket is in %s" % region[:40])
        kind = _OF_CODE.get(code) or _OF_STATUS.get(status)
        if kind is None:
            kind = "unavailable" if status < 400 else "refused"  # a redirect comes from a proxy
        return S3Error(kind, detail)


def _write(write: Callable[[bytes], object], piece: bytes) -> None:
    try:
        write(piece)
    except OSError as error:
        raise LocalError(error) from None


def content_md5(data: bytes) -> str:
    return binascii.b2a_base64(hashlib.md5(data).digest(), newline=False).decode("ascii")  # noqa: S324 - S3 API
