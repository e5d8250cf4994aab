"""The gate: a WSGI application that gets all requests, and passes them to moto or a store.

The gate adds faults, a journal, and behaviour of Amazon S3 and STS that moto and stores lack.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

from .faults import Application, Environ, S3Fault, S3Faults, StartResponse, answer_with_fault
from .forward import HAS_ISSUED_KEY
from .policy import Policy

JOURNAL_LENGTH = 20_000
MAX_POLICY_LENGTH = 2048
MAX_KEY_BYTES = 1024
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass
class Settings:
    """Settings that `LocalS3` can change at any time; its properties explain them."""

    head_403: bool = False
    credential_lifetime_s: float | None = None
    deny: tuple[str, ...] = ()
    deny_role: bool = False
    accept_renames: bool = False
    list_missing_buckets: bool = False
    list_fractions: bool = False


@dataclass(frozen=True)
class _Session:
    """Credentials that AssumeRole has issued."""

    expires_at: float
    policy: Policy | None


class S3Error(Exception):
    def __init__(
        self,
        status: str,
        code: str,
        message: str,
        extra_xml: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.extra_xml = extra_xml
        self.headers = headers or {}


class Request:
    def __init__(self, environ: Environ) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        self.bucket, _, self.key = path.lstrip("/").partition("/")
        self.query = {
            name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", ""), True).items()
        }
        scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        presigned = unquote(self.query.get("X-Amz-Credential", "")).split("/")
        self.access_key, self.region, self.service = scope.groups() if scope else ("", "", "s3")
        if scope is None and len(presigned) == 5:
            self.access_key, _, self.region, self.service, _ = presigned

    @property
    def is_rename(self) -> bool:
        return self.method == "PUT" and "renameObject" in self.query

    @property
    def action(self) -> str:
        """The required permission, such as s3:GetObject."""
        if not self.key:
            return {"GET": "s3:ListBucket", "HEAD": "s3:ListBucket", "PUT": "s3:CreateBucket"}.get(
                self.method, "s3:*"
            )
        if self.method == "DELETE" and "uploadId" in self.query:
            return "s3:AbortMultipartUpload"
        return {
            "GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "POST": "s3:PutObject",
            "DELETE": "s3:DeleteObject",
        }.get(self.method, "s3:*")  # fmt: skip

    def allowed_by(self, policy: Policy) -> bool:
        resource = f"arn:aws:s3:::{self.bucket}" + (f"/{self.key}" if self.key else "")
        context = {} if self.key else {"s3:prefix": self.query.get("prefix", "")}
        return policy.allows(self.action, resource, context)


class Gate:
    """Passes requests to the backend, except if Amazon S3, the settings or a fault require another answer.

    Args:
        backend: moto's application, or `Forward` for a store.
        control_path: The path of `LocalS3`'s control requests, which change the settings.
        is_moto: True: the backend is moto, and the gate adds what moto lacks: session policies, conditions of
            CompleteMultipartUpload, and access keys that never repeat. False: a store, which has these itself.
    """

    def __init__(self, backend: Application, control_path: str, *, is_moto: bool = True) -> None:
        self._backend = backend
        self._is_moto = is_moto
        self._control_path = control_path
        self._settings = Settings()
        self._faults = S3Faults()
        self._sessions: dict[str, _Session] = {}
        self._regions: dict[str, str] = {}
        self._journal: deque[dict[str, Any]] = deque(maxlen=JOURNAL_LENGTH)
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == self._control_path:
            return self._handle_control(environ, start_response)
        request = Request(environ)
        entry: dict[str, Any] = {
            "method": request.method, "service": request.service, "bucket": request.bucket, "key": request.key,
            "query": request.query, "access_key": request.access_key, "status": None,
        }  # fmt: skip
        self._journal.append(entry)

        def start(status: str, headers: list[tuple[str, str]], *arguments: Any) -> Any:
            entry["status"] = int(status[:3])
            return start_response(status, headers, *arguments)

        fault = self._faults.take(request.service, request.method)
        if fault is not None:
            return answer_with_fault(
                fault, lambda *arguments: self._answer(request, *arguments), environ, start, _drain
            )
        return self._answer(request, environ, start)

    def _answer(self, request: Request, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        environ[HAS_ISSUED_KEY] = request.access_key in self._sessions
        try:
            if request.service == "sts":
                return self._sts(request, environ, start)
            self._check(request, environ)
        except S3Error as error:
            return _error_response(error, request, environ, start)
        if request.method in ("PUT", "POST", "DELETE") and request.key:
            try:
                return self._write(request, environ, start)
            except S3Error as error:
                return _error_response(error, request, environ, start)
        if request.method in ("GET", "HEAD") and request.key and self._settings.head_403:
            return self._hide_missing(request, environ, start)
        lists = request.method == "GET" and not request.key
        if lists and request.query.get("max-keys") == "0" and self._settings.list_missing_buckets:
            return _no_keys(request, start)
        if lists and (self._settings.list_fractions or request.query.get("encoding-type") == "url"):
            return self._list(request, environ, start)
        return self._backend(environ, start)

    # --- S3 ---

    def _check(self, request: Request, environ: Environ) -> None:
        session = self._sessions.get(request.access_key)
        if session is not None and session.expires_at <= time.time():
            raise S3Error("400 Bad Request", "ExpiredToken", "The provided token has expired.")
        if len(request.key.encode(errors="replace")) > MAX_KEY_BYTES:
            raise S3Error("400 Bad Request", "KeyTooLongError", "Your key is too long")
        region = self._regions.get(request.bucket)
        if region and request.region and region != request.region:
            message = (
                f"The authorization header is malformed; the region '{request.region}' is wrong; "
                f"expecting '{region}'"
            )
            raise S3Error(
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                message,
                f"<Region>{region}</Region>",
                {"x-amz-bucket-region": region},  # mount-s3 reads only this header
            )
        path = f"{request.bucket}/{request.key or request.query.get('prefix', '')}"
        denied = any(path.startswith(prefix) for prefix in self._settings.deny)
        if denied or (session is not None and session.policy and not request.allowed_by(session.policy)):
            raise S3Error("403 Forbidden", "AccessDenied", "Access Denied")
        # moto does not support renameObject: it treats the request as a PUT of an empty object.
        if request.is_rename and not self._has_bucket(request.bucket, environ):
            raise S3Error("404 Not Found", "NoSuchBucket", "The specified bucket does not exist")
        if request.is_rename and not self._settings.accept_renames:
            message = "A header you provided implies functionality that is not implemented"
            raise S3Error("501 Not Implemented", "NotImplemented", message)

    def _has_bucket(self, bucket: str, environ: Environ) -> bool:
        statuses: list[str] = []
        head_environ = {
            **environ, "REQUEST_METHOD": "HEAD", "PATH_INFO": f"/{bucket}", "RAW_URI": f"/{bucket}",
            "REQUEST_URI": f"/{bucket}", "QUERY_STRING": "", "CONTENT_LENGTH": "0", "wsgi.input": io.BytesIO(),
        }  # fmt: skip
        for _ in self._backend(head_environ, lambda status, *_: statuses.append(status)):
            pass
        return not statuses[0].startswith("404")

    def _write(self, request: Request, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Write one object at a time, because moto's check of a condition and its write are not atomic."""
        body = b"".join(_body(environ))
        environ["wsgi.input"] = io.BytesIO(body)
        # The body is complete now, even if the client sent it in chunks.
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        with self._write_lock:
            if self._is_moto and request.method == "POST" and "HTTP_IF_MATCH" in environ:
                self._check_match(request, environ)
            return list(self._backend(environ, start))

    def _check_match(self, request: Request, environ: Environ) -> None:
        """Check the condition of CompleteMultipartUpload, which moto ignores."""
        head: list[Any] = []
        head_environ = {
            **environ, "REQUEST_METHOD": "HEAD", "QUERY_STRING": "", "CONTENT_LENGTH": "0", "wsgi.input": io.BytesIO(),
        }  # fmt: skip
        head_environ.pop("HTTP_IF_MATCH")
        for _ in self._backend(head_environ, lambda *arguments: head.extend(arguments)):
            pass
        if str(head[0]).startswith("404"):
            raise S3Error("404 Not Found", "NoSuchKey", "The specified key does not exist.")
        etag = next((value for name, value in head[1] if name.lower() == "etag"), "")
        if etag.strip('"') != environ["HTTP_IF_MATCH"].strip('"'):
            raise S3Error(
                "412 Precondition Failed",
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
            )

    def _list(self, request: Request, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Encode <StartAfter> in a listing: moto leaves control characters in it, which XML forbids.

        With `LocalS3.list_fractions`, add milliseconds to the times.
        """
        head: list[Any] = []
        answer = b"".join(self._backend(environ, lambda *arguments: head.extend(arguments)))
        if request.query.get("encoding-type") == "url":
            after = request.query.get("start-after", "")
            raw, encoded = (
                f"<StartAfter>{value}</StartAfter>".encode()
                for value in (escape(after), quote(after, safe="/"))
            )
            answer = answer.replace(raw, encoded, 1)
        if self._settings.list_fractions:
            answer = re.sub(rb"(?:\.\d+)?Z</LastModified>", b".123Z</LastModified>", answer)
        headers = [(name, value) for name, value in head[1] if name.lower() != "content-length"]
        start(head[0], [*headers, ("Content-Length", str(len(answer)))])
        return [answer]

    def _hide_missing(self, request: Request, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Return 403 for a missing key (`LocalS3.head_403`)."""
        head: list[Any] = []
        answer = list(self._backend(environ, lambda *arguments: head.extend(arguments)))
        if not head[0].startswith("404") or any(b"NoSuchBucket" in piece for piece in answer):
            start(*head)
            return answer
        return _error_response(
            S3Error("403 Forbidden", "AccessDenied", "Access Denied"), request, environ, start
        )

    # --- STS ---

    def _sts(self, request: Request, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        form = {name: values[0] for name, values in parse_qs(body.decode(), True).items()}
        session = self._sessions.get(request.access_key)
        if session is not None and session.expires_at <= time.time():
            raise S3Error(
                "403 Forbidden", "ExpiredToken", "The security token included in the request is expired"
            )
        if self._settings.deny_role:
            message = "User is not authorized to perform: sts:AssumeRole"
            raise S3Error("403 Forbidden", "AccessDenied", message)
        if not form.get("Action", "").startswith("AssumeRole"):
            return self._backend(environ, start)
        policy, packed_percent = self._session_policy(form.get("Policy"))
        head: list[Any] = []
        # moto ignores the policy of AssumeRole: keep it with the credentials, so that `_check` can enforce it.
        answer = b"".join(self._backend(environ, lambda *arguments: head.extend(arguments))).decode()
        if str(head[0]).startswith("200"):
            answer = self._issue_credentials(
                answer, float(form.get("DurationSeconds", 3600)), policy, packed_percent
            )
        headers = [(name, value) for name, value in head[1] if name.lower() != "content-length"]
        start(head[0], [*headers, ("Content-Length", str(len(answer.encode())))])
        return [answer.encode()]

    def _session_policy(self, text: str | None) -> tuple[Policy | None, int]:
        if text is None:
            return None, 0
        packed_percent = -(-len(text) * 100 // MAX_POLICY_LENGTH)
        if len(text) > MAX_POLICY_LENGTH:
            raise S3Error(
                "400 Bad Request",
                "PackedPolicyTooLarge",
                f"Serialized token too large for session. Packed policy consumes {packed_percent}% of allotted space, "
                "please use smaller policy.",
            )
        try:
            return Policy(text), packed_percent
        except (ValueError, AttributeError):
            raise S3Error(
                "400 Bad Request", "MalformedPolicyDocument", "This policy contains invalid Json"
            ) from None

    def _issue_credentials(
        self, answer: str, lifetime: float, policy: Policy | None, packed_percent: int
    ) -> str:
        if self._settings.credential_lifetime_s is not None:
            lifetime = self._settings.credential_lifetime_s
        expires_at = time.time() + lifetime
        match = re.search("<AccessKeyId>(.*?)</AccessKeyId>", answer)
        if match is None:
            return answer
        # Replace moto's keys: they differ in few letters only, and a repeated key would make an expired session valid.
        key = f"ASIA{secrets.token_hex(8).upper()}" if self._is_moto else match[1]
        with self._lock:
            self._sessions[key] = _Session(expires_at, policy if self._is_moto else None)
        answer = answer.replace(match[0], f"<AccessKeyId>{key}</AccessKeyId>")
        stamp = time.strftime(TIME_FORMAT, time.gmtime(expires_at))
        answer = re.sub("<Expiration>.*?</Expiration>", f"<Expiration>{stamp}</Expiration>", answer)
        return re.sub(
            r"<PackedPolicySize>\d+</PackedPolicySize>",
            f"<PackedPolicySize>{packed_percent}</PackedPolicySize>",
            answer,
        )

    # --- control requests ---

    def _handle_control(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        body = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"{}")
        answer: Any = None
        if "settings" in body:
            self._settings = Settings(**{**body["settings"], "deny": tuple(body["settings"]["deny"])})
        if "fault" in body:
            self._faults.add(S3Fault(**body["fault"]))
        if body.get("clear_faults"):
            self._faults.clear()
        if "region" in body:
            self._regions[body["bucket"]] = body["region"]
        if body.get("expire"):
            with self._lock:
                self._sessions = {
                    key: _Session(0.0, session.policy) for key, session in self._sessions.items()
                }
        if body.get("journal"):
            answer = list(self._journal)
        if body.get("clear"):
            self._journal.clear()
        content = json.dumps(answer).encode()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
        return [content]


def _no_keys(request: Request, start: StartResponse) -> Iterable[bytes]:
    """Return an empty listing, also for a missing bucket."""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{escape(request.bucket)}</Name><Prefix>{escape(request.query.get('prefix', ''))}</Prefix>"
        "<KeyCount>0</KeyCount><MaxKeys>0</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
    ).encode()
    start("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
    return [text]


def _error_response(
    error: S3Error, request: Request, environ: Environ, start: StartResponse
) -> Iterable[bytes]:
    _drain(environ)
    inner = f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>{error.extra_xml}"
    number = f"<RequestId>{secrets.token_hex(8)}</RequestId>"
    if request.service == "sts":
        text = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error>{number}</ErrorResponse>"
    else:
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}{number}</Error>'
    headers = [
        ("Content-Type", "application/xml"),
        ("Content-Length", str(len(text))),
        *error.headers.items(),
    ]
    start(error.status, headers)
    return [] if request.method == "HEAD" else [text.encode()]


def _drain(environ: Environ) -> None:
    """Read the body: unread bytes would be parsed as the connection's next request."""
    for _ in _body(environ):
        pass


def _body(environ: Environ) -> Iterator[bytes]:
    stream = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated"):
        while piece := stream.read(1 << 20):
            yield piece
        return
    remaining = int(environ.get("CONTENT_LENGTH") or 0)
    while remaining > 0 and (piece := stream.read(min(remaining, 1 << 20))):
        remaining -= len(piece)
        yield piece
