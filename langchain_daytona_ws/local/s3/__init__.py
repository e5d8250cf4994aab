"""S3 and STS beside the local Daytona: the owner's end."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..errors import S3Unavailable
from .faults import SERVICES, S3Fault
from .forward import S3Store as S3Store

HOST = "127.0.0.1"
START_S = 30.0
STOP_S = 10.0
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class S3Request:
    """A request that S3 or STS got."""

    method: str
    service: str
    bucket: str
    key: str
    query: dict[str, str]
    access_key: str
    status: int | None


class LocalS3:
    """An S3 and STS of moto's on a loopback port of its own, with buckets that no other server shares.

    Requests go unchecked with any keys, except with those that its own AssumeRole gave out: these are held to
    their expiry and to the session policy that came with them. It goes by the machine's clock.

    Args:
        head_403: See the property.
        store: Passes all requests on to this one, which takes moto's place. Its buckets outlive this server.
    """

    def __init__(self, *, head_403: bool = False, store: S3Store | None = None) -> None:
        self._store = store
        self._initial: dict[str, Any] = {
            "head_403": head_403,
            "credential_lifetime_s": None,
            "deny": [],
            "deny_role": False,
            "accept_renames": False,
        }
        self._settings = dict(self._initial)
        self._control = f"/_local/{secrets.token_hex(16)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    # --- life ---

    def start(self) -> Self:
        """Start serving. Returns at once: early requests wait in the queue until moto is loaded."""
        for module in ("moto", "flask", "flask_cors") if self._store is None else ("werkzeug",):
            if importlib.util.find_spec(module) is None:
                raise S3Unavailable(
                    f"s3=True needs the package {module}: install the extra `local` "
                    "(pip install 'langchain-daytona-ws[local]')"
                )
        with socket.create_server((HOST, 0), backlog=256) as listening:
            self._port = listening.getsockname()[1]
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__name__}.serve", str(listening.fileno()), self._control],
                pass_fds=(listening.fileno(),),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **(self._store.environment() if self._store else {})},
            )
        if self._settings["head_403"]:
            self._apply()
        return self

    def stop(self) -> None:
        """Stop serving and forget all buckets."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- use ---

    @property
    def endpoint(self) -> str:
        """Where S3 and STS are, for the host and for sandboxes alike."""
        return f"http://{HOST}:{self._port}"

    def make_bucket(self, name: str, region: str = DEFAULT_REGION) -> str:
        """Make a bucket and return its name. Requests for it that are signed for another region are refused."""
        body = b""
        if region != DEFAULT_REGION:
            body = (
                b"<CreateBucketConfiguration><LocationConstraint>"
                + region.encode()
                + b"</LocationConstraint></CreateBucketConfiguration>"
            )
        # Only a store asks for a signature; it is made anew for it.
        scope = (
            {"Authorization": f"Credential=owner/19700101/{region}/s3/aws4_request,"} if self._store else {}
        )
        status, answer = self._request("PUT", f"/{name}", body, scope)
        if status != 200 and not (self._store and b"BucketAlreadyOwnedByYou" in answer):
            raise ValueError(f"no bucket {name!r} was made: {answer.decode(errors='replace')}")
        self._tell(bucket=name, region=region)
        return name

    # --- looking in ---

    @property
    def requests(self) -> list[S3Request]:
        """The requests so far, in order of arrival; of very many, the latest."""
        return [S3Request(**one) for one in self._tell(journal=True)]

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self._tell(clear=True)

    # --- interfering ---

    @property
    def head_403(self) -> bool:
        """Whether HEAD and GET of a missing key are answered with 403, as to one who may list only under a condition.

        The original mount-s3 makes EIO of it, so that no new file can be created on a mount.
        """
        return bool(self._settings["head_403"])

    @head_403.setter
    def head_403(self, value: bool) -> None:
        self._settings["head_403"] = value
        self._apply()

    @property
    def credential_lifetime_s(self) -> float | None:
        """How long credentials of AssumeRole live from now on, whatever was asked for; None: what was asked for."""
        lifetime: float | None = self._settings["credential_lifetime_s"]
        return lifetime

    @credential_lifetime_s.setter
    def credential_lifetime_s(self, value: float | None) -> None:
        self._settings["credential_lifetime_s"] = value
        self._apply()

    @property
    def deny(self) -> tuple[str, ...]:
        """What is answered with AccessDenied whoever asks: beginnings of `bucket/key` and of `bucket/prefix`."""
        return tuple(self._settings["deny"])

    @deny.setter
    def deny(self, value: tuple[str, ...]) -> None:
        self._settings["deny"] = list(value)
        self._apply()

    @property
    def deny_role(self) -> bool:
        """Whether AssumeRole is answered with AccessDenied, whoever asks."""
        return bool(self._settings["deny_role"])

    @deny_role.setter
    def deny_role(self, value: bool) -> None:
        self._settings["deny_role"] = value
        self._apply()

    @property
    def accept_renames(self) -> bool:
        """Whether RenameObject is answered as MinIO and bare moto answer it: 200, and an empty object at the new key.

        Amazon S3 answers 501 for all buckets except directory buckets. mount-s3 believes the 200.
        """
        return bool(self._settings["accept_renames"])

    @accept_renames.setter
    def accept_renames(self, value: bool) -> None:
        self._settings["accept_renames"] = value
        self._apply()

    def add_fault(self, fault: S3Fault) -> None:
        """Arm a fault. Of several that strike a request, that which was armed first does."""
        if fault.service not in SERVICES:
            raise ValueError(f"service must be one of {', '.join(SERVICES)}, not {fault.service!r}")
        self._tell(fault=fault.written())

    def clear_faults(self) -> None:
        """Disarm all faults."""
        self._tell(clear_faults=True)

    def expire_credentials(self) -> None:
        """Let all credentials that AssumeRole gave out so far expire now, earlier than they say."""
        self._tell(expire=True)

    def reset(self) -> None:
        """Restore the first settings, disarm all faults and forget the requests. Buckets and credentials stay."""
        self._settings = dict(self._initial)
        self._tell(settings=self._settings, clear_faults=True, clear=True)

    # --- inside ---

    def _apply(self) -> None:
        if self._process is not None:
            self._tell(settings=self._settings)

    def _tell(self, **what: Any) -> Any:
        _, answer = self._request("POST", self._control, json.dumps(what).encode())
        return json.loads(answer)

    def _request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        if self._process is None:
            raise RuntimeError("this S3 is not running")
        connection = http.client.HTTPConnection(HOST, self._port, timeout=START_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
