"""A proxy between boto3 and the local S3, which forges answers of S3 and STS as drawn by hypothesis."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hypothesis import strategies as st

from langchain_daytona_ws.local import LocalS3

SECRET_KEY = "pl4nted-secret-of-aws"
TOKEN = "pl4nted-session-token"
LARGEST_BYTES = 4 << 20
_LEAF = re.compile(rb"<([A-Za-z]+)>([^<]*)</\1>")


@dataclass(frozen=True)
class Response:
    """An answer."""

    status: int
    headers: dict[str, bytes]
    body: bytes
    cut: bool = False  # the connection is closed within the body


Change = Callable[[Response], Response]


@dataclass(frozen=True)
class Forgery:
    """Forged answers to some requests of a call.

    Args:
        at: The numbers of these requests; None for all.
        changes: The changes of the answer, in their order.
        passed_on: Whether S3 gets the request. If not, an empty answer is changed.
        only: The methods whose answers are forged.
    """

    at: frozenset[int] | None
    changes: tuple[Change, ...]
    passed_on: bool = True
    only: str = "GET PUT DELETE POST"

    def matches(self, number: int, method: str) -> bool:
        return (self.at is None or number in self.at) and method in self.only


@dataclass
class Request:
    """A request, and the status of its answer."""

    method: str
    path: str
    query: dict[str, str]
    status: int = 0
    passed_on: bool = True


class ForgingS3:
    """The proxy. ``requests`` are the requests since the last call of `forge`.

    Args:
        s3: The real S3.
    """

    def __init__(self, s3: LocalS3) -> None:
        self._s3 = urlsplit(s3.endpoint).netloc
        self._forgeries: tuple[Forgery, ...] = ()
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Callable[[], None]:
                if not name.startswith("do_"):
                    raise AttributeError(name)
                return self._answer

            def _answer(self) -> None:
                with contextlib.suppress(OSError):  # the client has closed the connection
                    proxy._answer(self)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> ForgingS3:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def forge(self, *forgeries: Forgery) -> None:
        """Forge answers like this from now on; without arguments, pass on the real ones."""
        with self._lock:
            self._forgeries, self.requests = forgeries, []

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        where = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(where.query, True).items()}
        received = Request(request.command, unquote(where.path), query)
        with self._lock:
            number = len(self.requests)
            matching = [forgery for forgery in self._forgeries if forgery.matches(number, request.command)]
            self.requests.append(received)
        received.passed_on = all(forgery.passed_on for forgery in matching)
        answer = self._real(request, body) if received.passed_on else Response(200, {}, b"")
        for forgery in matching:
            for change in forgery.changes:
                answer = change(answer)
        received.status = answer.status
        request.close_connection = bool(matching)
        request.wfile.write(encoded(answer, closes=request.close_connection))

    def _real(self, request: BaseHTTPRequestHandler, body: bytes) -> Response:
        connection = http.client.HTTPConnection(self._s3, timeout=30)
        with contextlib.closing(connection):
            passed = {name: value for name, value in request.headers.items() if name.lower() != "expect"}
            connection.request(request.command, request.path, body, passed)
            answer = connection.getresponse()
            headers = {name.lower(): value.encode("latin-1") for name, value in answer.getheaders()}
            return Response(answer.status, headers, answer.read())


def encoded(answer: Response, *, closes: bool) -> bytes:
    """Return an answer's bytes on the wire.

    Args:
        answer: The answer.
        closes: Whether the connection is closed afterwards. A client that does not know it may lose its next request.
    """
    headers = dict(answer.headers)
    for name in ("connection", "date", "transfer-encoding"):
        headers.pop(name, None)
    headers.setdefault("content-length", str(len(answer.body)).encode())
    lines = [b"HTTP/1.1 %d As It Is" % answer.status]
    lines += [name.encode() + b": " + value for name, value in headers.items()]
    lines += [b"connection: close"] if closes else []
    body = answer.body[: len(answer.body) // 2] if answer.cut else answer.body
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# --- changes of answers, as pure functions ---


@dataclass(frozen=True)
class Repeated:
    """A long text in short notation: each piece with its number of repetitions."""

    pieces: tuple[tuple[bytes, int], ...]

    def __bytes__(self) -> bytes:
        return b"".join(piece * times for piece, times in self.pieces)


@dataclass(frozen=True)
class Replace:
    """Replace status, a header or the body. None keeps the part; a header's value None removes it."""

    status: int | None = None
    header: tuple[str, bytes | None] | None = None
    body: bytes | Repeated | None = None
    cut: bool = False

    def __call__(self, answer: Response) -> Response:
        headers = dict(answer.headers)
        body = answer.body if self.body is None else bytes(self.body)
        if self.body is not None:
            headers.pop("content-length", None)
        if self.header is not None:
            name, value = self.header
            headers.pop(name, None)
            if value is not None:
                headers[name] = value
        return Response(self.status or answer.status, headers, body, self.cut or answer.cut)


@dataclass(frozen=True)
class Element:
    """Change an XML element: replace its text, remove it (``times`` 0), or repeat it."""

    number: int
    text: bytes | Repeated | None
    times: int = 1

    def __call__(self, answer: Response) -> Response:
        leaves = list(_LEAF.finditer(answer.body))
        if not leaves:
            return answer
        leaf = leaves[self.number % len(leaves)]
        text = leaf[2] if self.text is None else bytes(self.text)
        element = b"<%s>%s</%s>" % (leaf[1], text, leaf[1])
        times = min(self.times, LARGEST_BYTES // len(element))
        body = answer.body[: leaf.start()] + element * times + answer.body[leaf.end() :]
        headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
        return Response(answer.status, headers, body, answer.cut)


@dataclass(frozen=True)
class ElementText:
    """Replace the text of all elements of one name."""

    name: bytes
    text: bytes

    def __call__(self, answer: Response) -> Response:
        body = re.sub(rb"(?<=<%s>)[^<]*" % self.name, self.text, answer.body)
        return Replace(body=body)(answer)


def error_of(code: bytes, message: bytes, more: bytes = b"") -> bytes:
    """Return an error document that is valid for S3 and STS."""
    inner = b"<Code>%s</Code><Message>%s</Message>%s" % (code, message, more)
    return b"<Error>%s<Error>%s</Error></Error>" % (inner, inner)


VALUES: list[bytes | Repeated] = [
    b"",
    b"0",
    b"-1",
    Repeated(((b"1", 400),)),
    b"nan",
    b"inf",
    b"true",
    b"999999999999999",
    b"22222222222",
    b"9999-12-31T23:59:59-12:00",
    b"0001-01-01T00:00:00+14:00",
    b"1999-12-31T23:59:59",
    b"2999-12-31T23:59:59",
    b"tomorrow",
    b"../../../etc/passwd",
    b"/etc/passwd",
    b"a/../../b",
    b"%00",
    b"%2e%2e%2f%2e%2e%2fx",
    b"sandbox/forgeries/../theirs/x",
    b"sandbox/forgeries/%0A%1b%5B2J",
    b"sandbox/forgeries/%ED%A0%80",
    b"sandbox/forgeries//",
    b"\xff\xfe\x00",
    "\u202e".encode(),
    b"&#27;[2J",
    Repeated(((b"x", 300_000),)),
]
# In error texts only: names of files are always shown.
SECRETS = [SECRET_KEY.encode(), TOKEN.encode(), b"token %s in 'agents'" % TOKEN.encode()]
CODES = [
    "NoSuchKey", "NoSuchBucket", "AccessDenied", "PreconditionFailed", "ExpiredToken", "SlowDown", "InternalError",
    "PermanentRedirect", "KMS.DisabledException", "RequestTimeout", "OperationAborted", "InvalidObjectState",
    "KeyTooLongError", "SignatureDoesNotMatch", "PackedPolicyTooLarge", "",
]  # fmt: skip
HEADERS = [
    "etag", "content-length", "content-range", "last-modified", "content-type", "content-encoding",
    "transfer-encoding", "x-amz-error-message", "x-amz-error-code", "x-amz-meta-langchain-daytona-ws-calls",
    "x-amz-missing-meta", "x-amz-bucket-region", "x-amz-checksum-crc32", "x-amz-delete-marker", "x-amz-retry-after",
    "location", "expires", "date",
]  # fmt: skip
STATUSES = [
    200, 201, 204, 206, 300, 301, 304, 307, 400, 403, 404, 405, 409, 412, 416, 418, 429, 500, 501, 503, 599, 999,
]  # fmt: skip

values: st.SearchStrategy[bytes | Repeated] = st.sampled_from(VALUES) | st.binary(max_size=20)
errors = st.builds(
    error_of,
    st.sampled_from([code.encode() for code in CODES]) | st.binary(max_size=20),
    st.sampled_from(SECRETS) | st.binary(max_size=20),
)
trees = st.sampled_from(
    [
        Repeated(((b"<a>", 200_000),)),
        Repeated(((b"<Error>", 1), (b"<Message>", 50_000), (b"</Message>", 50_000), (b"</Error>", 1))),
        Repeated(((b"<Error><Message>", 1), (b"m", 3_000_000), (b"</Message></Error>", 1))),
        Repeated(((b"<ListBucketResult>", 1), (b"<Contents/>", 20_000), (b"</ListBucketResult>", 1))),
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        b"</ListBucketResult>",
        b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;">'
        b'<!ENTITY e "&d;&d;&d;&d;&d;&d;"><!ENTITY f "&e;&e;&e;&e;&e;">]><Error><Code>&f;&f;&f;</Code></Error>',
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><Error><Code>A</Code><Message>&b;</Message></Error>',
        b"<html><body>" + TOKEN.encode() + b"</body></html>",
        Repeated(((b"x = 1\n", 100_000),)),
    ]
)
bodies = errors | trees | st.binary(max_size=200)
headers = (
    st.none()
    | st.sampled_from(SECRETS)
    | st.binary(max_size=20).map(lambda text: re.sub(rb"[\r\n]", b" ", text))
)
headers |= st.sampled_from([value for value in VALUES if isinstance(value, bytes)])
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(Replace, status=st.sampled_from(STATUSES)),
    st.builds(Replace, status=st.sampled_from(STATUSES), body=errors),
    st.builds(Replace, body=bodies),
    st.builds(Replace, status=st.sampled_from(STATUSES), body=bodies),
    st.builds(Replace, header=st.tuples(st.sampled_from(HEADERS), headers)),
    st.builds(Replace, cut=st.just(True)),
    st.builds(Element, st.integers(0, 20), values),
    st.builds(Element, st.integers(0, 20), st.none(), st.sampled_from([0, 2, 1500])),
)


def forgeries(**fixed: Any) -> st.SearchStrategy[Forgery]:
    """Draw forged answers for some of the first requests, or for all."""
    drawn: dict[str, Any] = {
        "at": st.none() | st.frozensets(st.integers(0, 4), min_size=1, max_size=3),
        "changes": st.lists(changes, min_size=1, max_size=2).map(tuple),
        "passed_on": st.booleans(),
    }
    return st.builds(Forgery, **{**drawn, **fixed})
