"""`LocalS3`: starts and controls the process that serves S3 and STS."""

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
from dataclasses import asdict, dataclass
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
    """A request to S3 or STS. `service` is "s3" or "sts".

    `status` is None while the request is open, or if a fault closed the connection.
    """

    method: str
    service: str
    bucket: str
    key: str
    query: dict[str, str]
    access_key: str
    status: int | None


class LocalS3:
    """S3 and STS on a loopback port. Moto answers the requests, or an S3-compatible store, such as MinIO.

    With moto, each LocalS3 has its own buckets. The time is always that of the machine's clock, not of a `ManualClock`.

    Any access keys are accepted without a check. Exception: for keys that this server's AssumeRole has issued, their
    expiry and session policy apply. With moto, the source of a copy is not checked, and DeleteObjects needs ``s3:*``.

    Args:
        head_403: See the property `head_403`.
        store: A store that answers all requests instead of moto. Its buckets outlive this server. It checks the keys of
            presigned requests.
    """

    def __init__(self, *, head_403: bool = False, store: S3Store | None = None) -> None:
        self._store = store
        self._initial: dict[str, Any] = {
            "head_403": head_403,
            "credential_lifetime_s": None,
            "deny": [],
            "deny_role": False,
            "accept_renames": False,
            "list_missing_buckets": False,
            "list_fractions": False,
        }
        self._settings = dict(self._initial)
        self._control_path = f"/_local/{secrets.token_hex(16)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    # --- start and stop ---

    def start(self) -> Self:
        """Start the server and return at once; requests wait until moto is loaded. With `head_403`, wait for moto.

        Raises:
            S3Unavailable: a dependency is not installed.
        """
        for module in ("moto", "flask", "flask_cors") if self._store is None else ("werkzeug",):
            if importlib.util.find_spec(module) is None:
                raise S3Unavailable(
                    f"s3=True needs the package {module}: install the extra `local` "
                    "(pip install 'langchain-daytona-ws[local]')"
                )
        with socket.create_server((HOST, 0), backlog=256) as server_socket:
            self._port = server_socket.getsockname()[1]
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__name__}.serve", str(server_socket.fileno()), self._control_path],
                pass_fds=(server_socket.fileno(),),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **(self._store.to_environment() if self._store else {})},
            )
        if self._settings["head_403"]:
            self._send_settings()
        return self

    def stop(self) -> None:
        """Stop the server; buckets in moto are deleted."""
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

    # --- buckets ---

    @property
    def endpoint(self) -> str:
        """The URL of S3 and STS, valid on the host and in sandboxes that have a network."""
        return f"http://{HOST}:{self._port}"

    def make_bucket(self, name: str, region: str = DEFAULT_REGION) -> str:
        """Create a bucket and return its name; with a store, the bucket may exist already.

        Requests signed for another region are refused.

        Raises:
            RuntimeError: this S3 is not running.
            ValueError: S3 refused to create the bucket.
        """
        body = b""
        if region != DEFAULT_REGION:
            body = (
                b"<CreateBucketConfiguration><LocationConstraint>"
                + region.encode()
                + b"</LocationConstraint></CreateBucketConfiguration>"
            )
        # Only a store needs a signature: `Forward` replaces this unsigned header by a signed one.
        scope = (
            {"Authorization": f"Credential=owner/19700101/{region}/s3/aws4_request,"} if self._store else {}
        )
        status, answer = self._request("PUT", f"/{name}", body, scope)
        if status != 200 and not (self._store and b"BucketAlreadyOwnedByYou" in answer):
            raise ValueError(f"the bucket {name!r} was not created: {answer.decode(errors='replace')}")
        self._send_control(bucket=name, region=region)
        return name

    # --- inspection ---

    @property
    def requests(self) -> list[S3Request]:
        """The requests since the start or the last clear, in order of arrival; at most the last 20,000."""
        return [S3Request(**fields) for fields in self._send_control(journal=True)]

    def clear_requests(self) -> None:
        """Delete the recorded requests."""
        self._send_control(clear=True)

    # --- outside interference ---

    @property
    def head_403(self) -> bool:
        """True: HEAD and GET of a missing key return 403, as in S3 if the caller may list only some prefixes.

        The original mount-s3 turns the 403 into EIO, so no file can be created on the mount.
        """
        return bool(self._settings["head_403"])

    @head_403.setter
    def head_403(self, value: bool) -> None:
        self._settings["head_403"] = value
        self._send_settings()

    @property
    def credential_lifetime_s(self) -> float | None:
        """The lifetime of credentials from later AssumeRole calls, in seconds; None: the requested duration."""
        lifetime: float | None = self._settings["credential_lifetime_s"]
        return lifetime

    @credential_lifetime_s.setter
    def credential_lifetime_s(self, value: float | None) -> None:
        self._settings["credential_lifetime_s"] = value
        self._send_settings()

    @property
    def deny(self) -> tuple[str, ...]:
        """Requests get AccessDenied if their `bucket/key` begins with one of these texts.

        In a listing, the listed prefix counts as the key. The keys in the body of DeleteObjects are not checked.
        """
        return tuple(self._settings["deny"])

    @deny.setter
    def deny(self, value: tuple[str, ...]) -> None:
        self._settings["deny"] = list(value)
        self._send_settings()

    @property
    def deny_role(self) -> bool:
        """True: all requests to STS get AccessDenied."""
        return bool(self._settings["deny_role"])

    @deny_role.setter
    def deny_role(self, value: bool) -> None:
        self._settings["deny_role"] = value
        self._send_settings()

    @property
    def accept_renames(self) -> bool:
        """True: RenameObject returns 200 and creates an empty object, as in MinIO and moto. False: it returns 501.

        Amazon S3 returns 501 for all buckets except directory buckets. mount-s3 treats the 200 as a success.
        """
        return bool(self._settings["accept_renames"])

    @accept_renames.setter
    def accept_renames(self, value: bool) -> None:
        self._settings["accept_renames"] = value
        self._send_settings()

    @property
    def list_missing_buckets(self) -> bool:
        """True: a listing with max-keys=0 in a missing bucket returns 200, as in MinIO.

        mount-s3 checks the bucket by such a listing. So it mounts the missing bucket, and then all operations fail
        with EIO.
        """
        return bool(self._settings["list_missing_buckets"])

    @list_missing_buckets.setter
    def list_missing_buckets(self, value: bool) -> None:
        self._settings["list_missing_buckets"] = value
        self._send_settings()

    @property
    def list_fractions(self) -> bool:
        """True: LastModified in a listing has milliseconds, as in MinIO; HEAD and GET return whole seconds.

        mount-s3 shows the time of the listing, and another time once the file is opened. So tar reports that each file
        has changed.
        """
        return bool(self._settings["list_fractions"])

    @list_fractions.setter
    def list_fractions(self, value: bool) -> None:
        self._settings["list_fractions"] = value
        self._send_settings()

    def add_fault(self, fault: S3Fault) -> None:
        """Inject a fault. If several apply to a request, the first added is used.

        Raises:
            RuntimeError: this S3 is not running.
            ValueError: the service is unknown.
        """
        if fault.service not in SERVICES:
            raise ValueError(f"service must be one of {', '.join(SERVICES)}, not {fault.service!r}")
        self._send_control(fault=asdict(fault))

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._send_control(clear_faults=True)

    def expire_credentials(self) -> None:
        """Expire all credentials that AssumeRole has issued, before their stated expiry."""
        self._send_control(expire=True)

    def reset(self) -> None:
        """Restore the initial settings, remove all faults and recorded requests. Buckets and credentials stay."""
        self._settings = dict(self._initial)
        self._send_control(settings=self._settings, clear_faults=True, clear=True)

    # --- internals ---

    def _send_settings(self) -> None:
        if self._process is not None:
            self._send_control(settings=self._settings)

    def _send_control(self, **message: Any) -> Any:
        _, answer = self._request("POST", self._control_path, json.dumps(message).encode())
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
