"""A server between boto3 and the local S3 that passes on what S3 and STS say, but for lies drawn by hypothesis."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hypothesis import strategies as st

from langchain_daytona_ws.local import LocalS3

SECRET_KEY = "pl4nted-secret-of-aws"
TOKEN = "pl4nted-session-token"
# Beyond this an answer without an end is not sent on: nobody should have read so much.
ENOUGH_BYTES = 96 << 20
LARGEST_BYTES = 4 << 20  # of a body with an end
_LEAF = re.compile(rb"<([A-Za-z]+)>([^<]*)</\1>")


@dataclass(frozen=True)
class Told:
    """What is answered."""

    status: int
    headers: dict[str, bytes]
    body: bytes
    endless: bool = False  # the body again and again
    cut: bool = False  # the connection is closed in its midst


Twist = Callable[[Told], Told]


@dataclass(frozen=True)
class Lie:
    """Some of a call's requests, and what their answers become.

    Args:
        at: Which of them, by their number; None for all.
        passed_on: Whether S3 gets to see the request. If not, the twists change an empty answer.
        twists: What is changed, in turn.
        only: The methods that are lied to.
    """

    at: frozenset[int] | None
    twists: tuple[Twist, ...]
    passed_on: bool = True
    only: str = "GET PUT DELETE POST"

    def strikes(self, number: int, method: str) -> bool:
        return (self.at is None or number in self.at) and method in self.only


@dataclass
class Asked:
    """A request, and what it was told."""

    method: str
    path: str
    query: dict[str, str]
    status: int = 0
    passed_on: bool = True
    sent_bytes: int = field(default=0)


class LyingS3:
    """The server. ``asked`` are the requests since the lies were last set.

    Args:
        truth: The S3 behind it.
    """

    def __init__(self, truth: LocalS3) -> None:
        self._truth = urlsplit(truth.endpoint).netloc
        self._lies: tuple[Lie, ...] = ()
        self._lock = threading.Lock()
        self.asked: list[Asked] = []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Callable[[], None]:
                if not name.startswith("do_"):
                    raise AttributeError(name)
                return self._answer

            def _answer(self) -> None:
                with contextlib.suppress(OSError):  # whoever asked has heard enough
                    liar._answer(self)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> LyingS3:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def lie(self, *lies: Lie) -> None:
        """Lie so from now on; without lies, tell the truth."""
        with self._lock:
            self._lies, self.asked = lies, []

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        where = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(where.query, True).items()}
        asked = Asked(request.command, unquote(where.path), query)
        with self._lock:
            struck = [lie for lie in self._lies if lie.strikes(len(self.asked), request.command)]
            self.asked.append(asked)
        asked.passed_on = all(lie.passed_on for lie in struck)
        told = self._true(request, body) if asked.passed_on else Told(200, {}, b"")
        for lie in struck:
            for twist in lie.twists:
                told = twist(told)
        asked.status = told.status
        request.close_connection = bool(struck)
        for piece in written(told):
            request.wfile.write(piece)
            asked.sent_bytes += len(piece)

    def _true(self, request: BaseHTTPRequestHandler, body: bytes) -> Told:
        connection = http.client.HTTPConnection(self._truth, timeout=30)
        with contextlib.closing(connection):
            passed = {name: value for name, value in request.headers.items() if name.lower() != "expect"}
            connection.request(request.command, request.path, body, passed)
            answer = connection.getresponse()
            headers = {name.lower(): value.encode("latin-1") for name, value in answer.getheaders()}
            return Told(answer.status, headers, answer.read())


def written(told: Told) -> Iterator[bytes]:
    """Write an answer as it goes over the wire."""
    headers = dict(told.headers)
    for name in ("connection", "date", "transfer-encoding"):
        headers.pop(name, None)
    if not told.endless:
        headers.setdefault("content-length", str(len(told.body)).encode())
    lines = [b"HTTP/1.1 %d As It Is" % told.status]
    lines += [name.encode() + b": " + value for name, value in headers.items()]
    yield b"\r\n".join(lines) + b"\r\n\r\n"
    if told.endless:
        piece = (told.body or b" ") * (65536 // max(len(told.body), 1) + 1)
        for _ in range(ENOUGH_BYTES // len(piece)):
            yield piece
    else:
        yield told.body[: len(told.body) // 2] if told.cut else told.body


# --- twists: each a pure function of the true answer, made from what was drawn ---


@dataclass(frozen=True)
class Much:
    """A long text that is short to write down: each piece so many times."""

    pieces: tuple[tuple[bytes, int], ...]

    def __bytes__(self) -> bytes:
        return b"".join(piece * times for piece, times in self.pieces)


@dataclass(frozen=True)
class Says:
    """Another status, a header, a body. What is None stays; a header of None is left out."""

    status: int | None = None
    header: tuple[str, bytes | None] | None = None
    body: bytes | Much | None = None
    endless: bool = False
    cut: bool = False

    def __call__(self, told: Told) -> Told:
        headers = dict(told.headers)
        body = told.body if self.body is None else bytes(self.body)
        if self.body is not None or self.endless:
            headers.pop("content-length", None)
        if self.header is not None:
            name, value = self.header
            headers.pop(name, None)
            if value is not None:
                headers[name] = value
        return Told(
            self.status or told.status, headers, body, self.endless or told.endless, self.cut or told.cut
        )


@dataclass(frozen=True)
class Element:
    """One of the XML's elements is another one: ``text`` in it, not there at all (``times`` 0), or many of it."""

    number: int
    text: bytes | Much | None
    times: int = 1

    def __call__(self, told: Told) -> Told:
        leaves = list(_LEAF.finditer(told.body))
        if not leaves:
            return told
        leaf = leaves[self.number % len(leaves)]
        text = leaf[2] if self.text is None else bytes(self.text)
        one = b"<%s>%s</%s>" % (leaf[1], text, leaf[1])
        times = min(self.times, LARGEST_BYTES // len(one))
        body = told.body[: leaf.start()] + one * times + told.body[leaf.end() :]
        headers = {name: value for name, value in told.headers.items() if name != "content-length"}
        return Told(told.status, headers, body, told.endless, told.cut)


@dataclass(frozen=True)
class Named:
    """The text of the elements of one name is another one."""

    name: bytes
    text: bytes

    def __call__(self, told: Told) -> Told:
        body = re.sub(rb"(?<=<%s>)[^<]*" % self.name, self.text, told.body)
        return Says(body=body)(told)


def error_of(code: bytes, message: bytes, more: bytes = b"") -> bytes:
    """Write an error as S3 does, and as STS does."""
    inner = b"<Code>%s</Code><Message>%s</Message>%s" % (code, message, more)
    return b"<Error>%s<Error>%s</Error></Error>" % (inner, inner)


NASTY: list[bytes | Much] = [
    b"",
    b"0",
    b"-1",
    Much(((b"1", 400),)),
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
    b"sandbox/lies/../theirs/x",
    b"sandbox/lies/%0A%1b%5B2J",
    b"sandbox/lies/%ED%A0%80",
    b"sandbox/lies//",
    b"\xff\xfe\x00",
    "\u202e".encode(),
    b"&#27;[2J",
    Much(((b"x", 300_000),)),
]
# Where they are no file's name, which may be anything and is shown.
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

nasty: st.SearchStrategy[bytes | Much] = st.sampled_from(NASTY) | st.binary(max_size=20)
errors = st.builds(
    error_of,
    st.sampled_from([code.encode() for code in CODES]) | st.binary(max_size=20),
    st.sampled_from(SECRETS) | st.binary(max_size=20),
)
trees = st.sampled_from(
    [
        Much(((b"<a>", 200_000),)),
        Much(((b"<Error>", 1), (b"<Message>", 50_000), (b"</Message>", 50_000), (b"</Error>", 1))),
        Much(((b"<Error><Message>", 1), (b"m", 3_000_000), (b"</Message></Error>", 1))),
        Much(((b"<ListBucketResult>", 1), (b"<Contents/>", 20_000), (b"</ListBucketResult>", 1))),
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        b"</ListBucketResult>",
        b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;">'
        b'<!ENTITY e "&d;&d;&d;&d;&d;&d;"><!ENTITY f "&e;&e;&e;&e;&e;">]><Error><Code>&f;&f;&f;</Code></Error>',
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><Error><Code>A</Code><Message>&b;</Message></Error>',
        b"<html><body>" + TOKEN.encode() + b"</body></html>",
        Much(((b"x = 1\n", 100_000),)),
    ]
)
bodies = errors | trees | st.binary(max_size=200)
headers = (
    st.none()
    | st.sampled_from(SECRETS)
    | st.binary(max_size=20).map(lambda text: re.sub(rb"[\r\n]", b" ", text))
)
headers |= st.sampled_from([value for value in NASTY if isinstance(value, bytes)])
twists: st.SearchStrategy[Twist] = st.one_of(
    st.builds(Says, status=st.sampled_from(STATUSES)),
    st.builds(Says, status=st.sampled_from(STATUSES), body=errors),
    st.builds(Says, body=bodies),
    st.builds(Says, status=st.sampled_from(STATUSES), body=bodies),
    st.builds(Says, header=st.tuples(st.sampled_from(HEADERS), headers)),
    st.builds(Says, body=st.none() | st.just(b"<a>&lt;</a>"), endless=st.just(True)),
    st.builds(Says, cut=st.just(True)),
    st.builds(Element, st.integers(0, 20), nasty),
    st.builds(Element, st.integers(0, 20), st.none(), st.sampled_from([0, 2, 1500])),
)


def lies(**fixed: Any) -> st.SearchStrategy[Lie]:
    """Draw a lie about some of the first requests, or all of them."""
    drawn: dict[str, Any] = {
        "at": st.none() | st.frozensets(st.integers(0, 4), min_size=1, max_size=3),
        "twists": st.lists(twists, min_size=1, max_size=2).map(tuple),
        "passed_on": st.booleans(),
    }
    return st.builds(Lie, **{**drawn, **fixed})
