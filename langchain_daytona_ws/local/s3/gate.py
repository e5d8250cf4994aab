"""What stands before moto's application: what S3 and STS do and moto does not."""

from __future__ import annotations

import io
import json
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from .faults import S3Fault, S3Faults, strike
from .forward import GIVEN_OUT
from .policy import Policy

StartResponse: TypeAlias = Callable[..., Any]
Environ: TypeAlias = dict[str, Any]
Application: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

JOURNAL_LENGTH = 20_000
LONGEST_POLICY = 2048
LONGEST_KEY = 1024  # bytes
STAMP = "%Y-%m-%dT%H:%M:%SZ"


@dataclass
class Settings:
    """What the server's owner may change while it runs."""

    head_403: bool = False
    credential_lifetime_s: float | None = None
    deny: tuple[str, ...] = ()
    deny_role: bool = False
    accept_renames: bool = False


@dataclass(frozen=True)
class _Session:
    """What AssumeRole gave out."""

    expires_at: float
    policy: Policy | None


class Refused(Exception):
    def __init__(
        self, status: str, code: str, message: str, more: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.more = more
        self.headers = headers or {}


class Request:
    """A request in S3's terms."""

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
        """Return the name of the permission that it takes."""
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
    """Passes requests on to moto, except those that S3 would refuse.

    Args:
        moto: The application, or what passes requests on to a store in its place.
        control: The path that settings go to.
        holds_sessions: Whether to hold what AssumeRole gave out to its session policy, which moto does not and a store
            does by itself.
    """

    def __init__(self, moto: Application, control: str, *, holds_sessions: bool = True) -> None:
        self._moto = moto
        self._holds_sessions = holds_sessions
        self._control = control
        self._settings = Settings()
        self._faults = S3Faults()
        self._sessions: dict[str, _Session] = {}
        self._regions: dict[str, str] = {}
        self._expired_before = 0.0
        self._journal: deque[dict[str, Any]] = deque(maxlen=JOURNAL_LENGTH)
        self._lock = threading.Lock()
        self._changing = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == self._control:
            return self._controlled(environ, start_response)
        request = Request(environ)
        noted: dict[str, Any] = {
            "method": request.method, "service": request.service, "bucket": request.bucket, "key": request.key,
            "query": request.query, "access_key": request.access_key, "status": None,
        }  # fmt: skip
        self._journal.append(noted)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            noted["status"] = int(status[:3])
            return start_response(status, headers, *more)

        fault = self._faults.take(request.service, request.method)
        if fault is not None:
            return strike(fault, lambda *given: self._answer(request, *given), environ, start, _drain)
        return self._answer(request, environ, start)

    def _answer(self, request: Request, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        environ[GIVEN_OUT] = request.access_key in self._sessions
        try:
            if request.service == "sts":
                return self._sts(request, environ, start)
            self._check(request)
        except Refused as refused:
            return _refuse(refused, request, environ, start)
        if request.method in ("PUT", "POST", "DELETE") and request.key:
            return self._change(environ, start)
        if request.method in ("GET", "HEAD") and request.key and self._settings.head_403:
            return self._look(request, environ, start)
        return self._moto(environ, start)

    # --- S3 ---

    def _check(self, request: Request) -> None:
        session = self._sessions.get(request.access_key)
        if session is not None and session.expires_at <= time.time():
            raise Refused("400 Bad Request", "ExpiredToken", "The provided token has expired.")
        if len(request.key.encode(errors="replace")) > LONGEST_KEY:
            raise Refused("400 Bad Request", "KeyTooLongError", "Your key is too long")
        region = self._regions.get(request.bucket)
        if region and request.region and region != request.region:
            message = (
                f"The authorization header is malformed; the region '{request.region}' is wrong; "
                f"expecting '{region}'"
            )
            raise Refused(
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                message,
                f"<Region>{region}</Region>",
                {"x-amz-bucket-region": region},  # by which alone mount-s3 knows it
            )
        path = f"{request.bucket}/{request.key or request.query.get('prefix', '')}"
        denied = any(path.startswith(one) for one in self._settings.deny)
        if denied or (session is not None and session.policy and not request.allowed_by(session.policy)):
            raise Refused("403 Forbidden", "AccessDenied", "Access Denied")
        # moto knows no renameObject: it takes the request for one that writes an empty object.
        if request.is_rename and not self._settings.accept_renames:
            message = "A header you provided implies functionality that is not implemented"
            raise Refused("501 Not Implemented", "NotImplemented", message)

    def _change(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Let one change happen at a time: between moto's look at a condition and its change lies a gap."""
        body = b"".join(_body(environ))
        environ["wsgi.input"] = io.BytesIO(body)
        # The body is whole now, whether it came with a length or in chunks.
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        with self._changing:
            return list(self._moto(environ, start))

    def _look(self, request: Request, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Answer 403 for a missing key, as S3 does to one who may list only under a condition."""
        held: list[Any] = []
        answer = list(self._moto(environ, lambda *arguments: held.extend(arguments)))
        if not held[0].startswith("404") or any(b"NoSuchBucket" in piece for piece in answer):
            start(*held)
            return answer
        return _refuse(Refused("403 Forbidden", "AccessDenied", "Access Denied"), request, environ, start)

    # --- STS ---

    def _sts(self, request: Request, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        form = {name: values[0] for name, values in parse_qs(body.decode(), True).items()}
        session = self._sessions.get(request.access_key)
        if session is not None and session.expires_at <= time.time():
            raise Refused(
                "403 Forbidden", "ExpiredToken", "The security token included in the request is expired"
            )
        if self._settings.deny_role:
            message = "User is not authorized to perform: sts:AssumeRole"
            raise Refused("403 Forbidden", "AccessDenied", message)
        if not form.get("Action", "").startswith("AssumeRole"):
            return self._moto(environ, start)
        policy, size = self._session_policy(form.get("Policy"))
        held: list[Any] = []
        # moto's own policy check is for a federation token; this one's answer is ours.
        answer = b"".join(self._moto(environ, lambda *arguments: held.extend(arguments))).decode()
        if str(held[0]).startswith("200"):
            answer = self._give_out(answer, float(form.get("DurationSeconds", 3600)), policy, size)
        headers = [(name, value) for name, value in held[1] if name.lower() != "content-length"]
        start(held[0], [*headers, ("Content-Length", str(len(answer.encode())))])
        return [answer.encode()]

    def _session_policy(self, text: str | None) -> tuple[Policy | None, int]:
        if text is None:
            return None, 0
        packed = -(-len(text) * 100 // LONGEST_POLICY)
        if len(text) > LONGEST_POLICY:
            raise Refused(
                "400 Bad Request",
                "PackedPolicyTooLarge",
                f"Serialized token too large for session. Packed policy consumes {packed}% of allotted space, "
                "please use smaller policy.",
            )
        try:
            return Policy(text), packed
        except (ValueError, AttributeError):
            raise Refused(
                "400 Bad Request", "MalformedPolicyDocument", "This policy contains invalid Json"
            ) from None

    def _give_out(self, answer: str, lifetime: float, policy: Policy | None, size: int) -> str:
        if self._settings.credential_lifetime_s is not None:
            lifetime = self._settings.credential_lifetime_s
        expires_at = time.time() + lifetime
        found = re.search("<AccessKeyId>(.*?)</AccessKeyId>", answer)
        if found is None:
            return answer
        # moto's keys are unique only by a few letters; a key that came back would revive an expired session.
        key = f"ASIA{secrets.token_hex(8).upper()}" if self._holds_sessions else found[1]
        with self._lock:
            self._sessions[key] = _Session(expires_at, policy if self._holds_sessions else None)
        answer = answer.replace(found[0], f"<AccessKeyId>{key}</AccessKeyId>")
        stamp = time.strftime(STAMP, time.gmtime(expires_at))
        answer = re.sub("<Expiration>.*?</Expiration>", f"<Expiration>{stamp}</Expiration>", answer)
        return re.sub(
            r"<PackedPolicySize>\d+</PackedPolicySize>",
            f"<PackedPolicySize>{size}</PackedPolicySize>",
            answer,
        )

    # --- the owner's word ---

    def _controlled(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
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
                self._sessions = {key: _Session(0.0, one.policy) for key, one in self._sessions.items()}
        if body.get("journal"):
            answer = list(self._journal)
        if body.get("clear"):
            self._journal.clear()
        written = json.dumps(answer).encode()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(written)))])
        return [written]


def _refuse(refused: Refused, request: Request, environ: Environ, start: StartResponse) -> Iterable[bytes]:
    _drain(environ)
    inner = f"<Code>{refused.code}</Code><Message>{escape(refused.message)}</Message>{refused.more}"
    number = f"<RequestId>{secrets.token_hex(8)}</RequestId>"
    if request.service == "sts":
        text = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error>{number}</ErrorResponse>"
    else:
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}{number}</Error>'
    headers = [
        ("Content-Type", "application/xml"),
        ("Content-Length", str(len(text))),
        *refused.headers.items(),
    ]
    start(refused.status, headers)
    return [] if request.method == "HEAD" else [text.encode()]


def _drain(environ: Environ) -> None:
    """Read the body, which would otherwise be taken for the connection's next request."""
    for _ in _body(environ):
        pass


def _body(environ: Environ) -> Iterator[bytes]:
    stream = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated"):
        while piece := stream.read(1 << 20):
            yield piece
        return
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (piece := stream.read(min(left, 1 << 20))):
        left -= len(piece)
        yield piece
