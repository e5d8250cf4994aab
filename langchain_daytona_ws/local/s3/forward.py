"""Forwards requests to a store that replaces moto: an S3-compatible store with STS, such as MinIO.

Clients of the local S3 may use any keys, so requests with an Authorization header are signed again, with the store's
keys. Three kinds of request are not signed again: those with credentials from the store's AssumeRole, presigned and
unsigned requests. Their signature, expiry and session policy are checked by the store.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

TIMEOUT_S = 60.0
CONNECT_S = 5.0  # an unreachable store must not make each request of a test wait for a minute
# Key in the WSGI environment. Its value is True if the request is signed with credentials from AssumeRole.
HAS_ISSUED_KEY = "local_s3.has_issued_key"
# Headers that are not forwarded: they concern one connection only, or are written again.
_HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}
_SIGNED = ("host", "x-amz-content-sha256", "x-amz-date")


@dataclass(frozen=True)
class S3Store:
    """A store with S3 and STS, used instead of moto.

    Args:
        endpoint: The URL of its S3 and STS.
        access_key: An access key with all permissions, including sts:AssumeRole.
        secret_key: The secret of `access_key`.
    """

    endpoint: str
    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"S3Store(endpoint={self.endpoint!r})"

    def to_environment(self) -> dict[str, str]:
        """Return environment variables for the serving process; arguments would show in the process list."""
        return {
            "LOCAL_S3_ENDPOINT": self.endpoint,
            "LOCAL_S3_ACCESS_KEY": self.access_key,
            "LOCAL_S3_SECRET_KEY": self.secret_key,
        }

    @classmethod
    def from_environment(cls) -> S3Store | None:
        """Return the store from the variables of `to_environment`; None without them."""
        values = [os.environ.get(f"LOCAL_S3_{name}", "") for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")]
        return cls(*values) if values[0] else None


class Forward:
    def __init__(self, store: S3Store) -> None:
        self._store = store
        address = urlsplit(store.endpoint)
        self._address = address.netloc
        self._connect: Any = (
            http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        )

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        headers = {
            name[5:].lower().replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_") and name[5:].lower().replace("_", "-") not in _HOP_HEADERS
        }
        if environ.get("CONTENT_TYPE"):
            headers["content-type"] = environ["CONTENT_TYPE"]
        target = environ.get("REQUEST_URI") or environ["RAW_URI"]
        if "authorization" in headers and not environ.get(HAS_ISSUED_KEY):
            headers.pop("x-amz-security-token", None)
            headers = self._sign(environ["REQUEST_METHOD"], target, headers, body)
        connection = self._connect(self._address, timeout=CONNECT_S)
        try:
            connection.connect()
            connection.sock.settimeout(TIMEOUT_S)
            connection.putrequest(
                environ["REQUEST_METHOD"], target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in headers.items():
                connection.putheader(name, value)
            if body or environ["REQUEST_METHOD"] in ("PUT", "POST"):
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
            declared_length = (
                answer.getheader("content-length") if environ["REQUEST_METHOD"] == "HEAD" else None
            )
            answer_headers = [
                (name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_HEADERS
            ]
            answer_headers.append(("Content-Length", declared_length or str(len(content))))
        except (OSError, http.client.HTTPException) as error:
            message = escape(f"the store {self._store.endpoint} did not answer: {error!r}")
            content = f"<Error><Code>ServiceUnavailable</Code><Message>{message}</Message></Error>".encode()
            start_response("503 Service Unavailable", [("Content-Length", str(len(content)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]
        else:
            start_response(f"{answer.status} {answer.reason}", answer_headers)
            return [content]
        finally:
            connection.close()

    def _sign(self, method: str, target: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """Sign a request again (AWS Signature Version 4), for the same region and service."""
        scope = headers["authorization"].partition("Credential=")[2].partition(",")[0].split("/")
        if len(scope) != 5:
            return headers
        _, _, region, service, _ = scope
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = headers.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
        headers = {**headers, "x-amz-date": stamp, "x-amz-content-sha256": digest}
        # Amazon S3 requires a signature of all x-amz headers.
        names = sorted({*_SIGNED, *(name for name in headers if name.startswith("x-amz-"))})
        parts = urlsplit(target)
        query = "&".join(
            sorted(
                f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
                for name, value in parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True)
            )
        )
        request = "\n".join(
            [
                method,
                quote(unquote(parts.path), safe="/-_.~"),
                query,
                *(f"{name}:{' '.join(headers[name].split())}" for name in names),
                "",
                ";".join(names),
                digest,
            ]
        )
        day = stamp[:8]
        signing_scope = f"{day}/{region}/{service}/aws4_request"
        hashed = hashlib.sha256(request.encode()).hexdigest()
        key = f"AWS4{self._store.secret_key}".encode()
        for part in (
            day,
            region,
            service,
            "aws4_request",
            f"AWS4-HMAC-SHA256\n{stamp}\n{signing_scope}\n{hashed}",
        ):
            key = hmac.digest(key, part.encode(), "sha256")
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._store.access_key}/{signing_scope},SignedHeaders={';'.join(names)},"
            f"Signature={key.hex()}"
        )
        return headers
