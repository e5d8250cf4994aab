"""Requests to one workspace's prefix of a bucket, over boto3. Each set of credentials has its own clients.

boto3 is imported on first use, because the import takes a third of a second.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from langchain_daytona_ws._adapters.boto_calls import boto_call
from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws._core.s3.store import (
    Credentials,
    KeyPage,
    ObjectInfo,
    PageRequest,
    StoredObject,
    StoreFault,
    StoreFaultKind,
)
from langchain_daytona_ws._core.s3.workspace import S3Workspace
from langchain_daytona_ws._guest.media import HEAD_BYTES

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
READ_ATTEMPTS = 4
POOL_SIZE = 16
# boto3 does not retry if a connection closes before the end of a body.
BODY_ATTEMPTS = 3
BODY_PAUSE_S = 0.2
PIECE_BYTES = 256 << 10
LONGEST_PAGE = 1000
LONGEST_TOKEN = 4096
CONCURRENCY = 8
# Two, because requests with the previous credentials may still be open.
KEPT_CLIENTS = 2

_creating = threading.Lock()  # boto3 sessions are not thread-safe


@dataclass(frozen=True, slots=True)
class Clients:
    """Two clients with the same credentials: ``reads`` retries requests, ``changes`` sends each request once."""

    reads: S3Client
    changes: S3Client

    def close(self) -> None:
        self.reads.close()
        self.changes.close()


class _Opened:
    """The clients of one process. Processes that share a connection could read each other's answers."""

    def __init__(self) -> None:
        self.made_in = os.getpid()
        self.lock = threading.Lock()
        self.clients: dict[Credentials, Clients] = {}


class Bucket:
    """One workspace's prefix of a bucket; thread-safe. Every method blocks, and raises only StoreFault.

    Args:
        workspace: The workspace. All requests stay below its prefix.
        clock: For pauses between attempts.
    """

    def __init__(self, workspace: S3Workspace, clock: Clock = SYSTEM_CLOCK) -> None:
        self._workspace = workspace
        self.clock = clock
        self._bucket = workspace.workspace.bucket
        self._prefix = workspace.workspace.prefix
        if not self._prefix.endswith("/"):
            raise ValueError("the prefix of a workspace ends with a slash")
        self._opened = _Opened()

    def clients(self, credentials: Credentials) -> Clients:
        """Return the clients for these credentials. Keep the clients of the previous credentials; close older ones."""
        if self._opened.made_in != os.getpid():
            self._opened = _Opened()
        opened = self._opened
        with opened.lock:
            clients = opened.clients.pop(credentials, None) or self._made(credentials)
            opened.clients[credentials] = clients  # the latest clients are last
            while len(opened.clients) > KEPT_CLIENTS:
                opened.clients.pop(next(iter(opened.clients))).close()
            return clients

    def close(self) -> None:
        """Close all connections that this process has opened. Later requests open new ones."""
        if self._opened.made_in != os.getpid():
            return
        with self._opened.lock:
            while self._opened.clients:
                self._opened.clients.popitem()[1].close()

    @boto_call()
    def _made(self, credentials: Credentials) -> Clients:
        return Clients(
            _client(self._workspace, credentials, READ_ATTEMPTS), _client(self._workspace, credentials, 1)
        )

    @boto_call()
    def list_page(
        self, credentials: Credentials, request: PageRequest, max_keys: int = LONGEST_PAGE
    ) -> KeyPage:
        prefix = self._prefix + request.prefix
        query: dict[str, Any] = {
            "Bucket": self._bucket, "Prefix": prefix, "MaxKeys": min(max_keys, LONGEST_PAGE),
        }  # fmt: skip
        if request.delimiter:
            query["Delimiter"] = "/"
        if request.more is not None:
            query["ContinuationToken"] = request.more
        elif request.start_after:
            query["StartAfter"] = self._prefix + request.start_after
        answer = self.clients(credentials).reads.list_objects_v2(**query)
        return _page(answer, prefix, self._prefix)

    def list_pages(
        self, credentials: Credentials, requests: Sequence[PageRequest]
    ) -> list[KeyPage | StoreFault]:
        def page_or_fault(request: PageRequest) -> KeyPage | StoreFault:
            try:
                return self.list_page(credentials, request)
            except StoreFault as fault:
                return fault

        with _threads(len(requests)) as pool:
            return list(pool.map(page_or_fault, requests))

    @boto_call()
    def get(self, credentials: Credentials, key: str, max_bytes: int) -> StoredObject:
        reads, target = self.clients(credentials).reads, self.target(key)
        attempt = 1
        while True:
            answer = reads.get_object(**target)
            with closing(answer["Body"]):
                stored = described_whole(key, answer)
                if stored.info.size_bytes > max_bytes:  # max_bytes=0 requests only the description
                    return replace(stored, head=answer["Body"].read(HEAD_BYTES) if max_bytes else b"")
                try:
                    return _with_content(stored, answer["Body"])
                except Exception:
                    if attempt == BODY_ATTEMPTS:
                        raise
            self.clock.sleep(BODY_PAUSE_S * 2 ** (attempt - 1))
            attempt += 1

    def get_many(
        self, credentials: Credentials, keys: Sequence[str], max_bytes: int, within_s: float
    ) -> list[StoredObject | StoreFault | None]:
        def get_or_fault(key: str) -> StoredObject | StoreFault:
            try:
                return self.get(credentials, key, max_bytes)
            except StoreFault as fault:
                return fault

        pool = _threads(len(keys))
        try:
            futures = [pool.submit(get_or_fault, key) for key in keys]
            wait(futures, timeout=within_s)
            return [future.result() if future.done() else None for future in futures]
        finally:
            # Do not wait for requests that were sent: they end by their own time-outs.
            pool.shutdown(wait=False, cancel_futures=True)

    @boto_call(changes=True)
    def put(
        self,
        credentials: Credentials,
        key: str,
        data: bytes,
        *,
        if_match: str | None,
        metadata: Mapping[str, str],
    ) -> ObjectInfo:
        answer = self.clients(credentials).changes.put_object(
            **self.target(key), **condition(if_match), Body=data, Metadata=dict(metadata)
        )
        return ObjectInfo(key, len(data), 0, required_text(answer["ETag"]))

    @boto_call(changes=True)
    def delete(self, credentials: Credentials, key: str) -> None:
        self.clients(credentials).changes.delete_object(**self.target(key))

    @boto_call(changes=True)
    def rename(self, credentials: Credentials, source: str, target: str) -> None:
        """Send RenameObject, as mount-s3 does to rename an object.

        The request is made from a PutObject, because older releases of boto3 lack RenameObject.
        """
        renamed = quote(self.target(source)["Key"])

        def as_rename(params: dict[str, Any], **_: object) -> None:
            params["url"] += "?renameObject"
            params["headers"]["x-amz-rename-source"] = renamed

        # A separate client, because the handler must change this request only.
        with closing(_client(self._workspace, credentials, 1)) as client:
            client.meta.events.register("before-call.s3.PutObject", as_rename)
            client.put_object(**self.target(target), Body=b"")

    def target(self, key: str) -> dict[str, Any]:
        """Return bucket and key of a request. Refuse a key that a proxy could resolve to another prefix."""
        if not key or key.startswith("/") or {".", ".."} & set(key.split("/")):
            raise StoreFault(StoreFaultKind.REFUSED, "the key could lead out of the workspace")
        return {"Bucket": self._bucket, "Key": self._prefix + key}


def condition(if_match: str | None) -> dict[str, Any]:
    """Return the condition of a write: the object has this ETag; with None, the object does not exist."""
    return {"IfNoneMatch": "*"} if if_match is None else {"IfMatch": if_match}


def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(CONCURRENCY, max(count, 1)), "langchain-daytona-ws-s3")


# --- answers: malformed answers raise errors such as ValueError, which `boto_call` translates ---


def _page(answer: Mapping[str, Any], prefix: str, workspace_prefix: str) -> KeyPage:
    """Read a listing of keys below ``prefix``. The returned keys are relative to ``workspace_prefix``."""

    def relative(key: object) -> str:
        whole = required_text(key)
        if not whole.startswith(prefix):
            raise ValueError("a key outside the requested prefix")
        return whole[len(workspace_prefix) :]

    objects = [described(relative(entry["Key"]), entry, "Size") for entry in answer.get("Contents", [])]
    prefixes = [relative(entry["Prefix"]) for entry in answer.get("CommonPrefixes", [])]
    if len(objects) + len(prefixes) > LONGEST_PAGE:
        raise ValueError("too many keys")
    more = required_text(answer.get("NextContinuationToken")) if answer.get("IsTruncated") else None
    if more is not None and len(more) > LONGEST_TOKEN:
        raise ValueError("the token is too long")
    return KeyPage(tuple(objects), tuple(prefixes), more)


def described(key: str, answer: Mapping[str, Any], size_field: str) -> ObjectInfo:
    size = answer[size_field]
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 62:
        raise ValueError("the size is invalid")
    # Cut to milliseconds: S3 reports whole seconds, other stores may report fractions.
    modified_ns = int(answer["LastModified"].timestamp() * 1000) * 1_000_000
    if abs(modified_ns) >= 1 << 62:
        raise ValueError("the date is out of range")
    return ObjectInfo(key, size, modified_ns, required_text(answer["ETag"]))


def described_whole(key: str, answer: Mapping[str, Any]) -> StoredObject:
    """Read an object's description from an answer, which must contain the whole content."""
    if answer["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.OK:
        raise ValueError("not the whole object")
    return StoredObject(described(key, answer, "ContentLength"), None, metadata_of(answer))


def _with_content(stored: StoredObject, body: Any) -> StoredObject:
    """Read the content; hash it and count its line feeds while it arrives.

    Raises:
        StoreFault: The content has another size than ``stored`` describes.
        Exception: botocore or urllib3 could not read the content.
    """
    size = stored.info.size_bytes
    digest, pieces, count, newlines = hashlib.sha256(), list[bytes](), 0, 0
    # Reading to the end makes botocore verify the checksum, if the response has one.
    while count <= size and (piece := body.read(min(PIECE_BYTES, size - count + 1))):
        digest.update(piece)
        newlines += piece.count(b"\n")
        pieces.append(piece)
        count += len(piece)
    if count != size:
        raise StoreFault(StoreFaultKind.PASSING, f"the answer ended after {count} of {size} bytes")
    return replace(stored, data=b"".join(pieces), sha256=digest.hexdigest(), newlines=newlines)


def metadata_of(answer: Mapping[str, Any]) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in answer.get("Metadata", {}).items()}


def required_text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a field is missing")
    return value


# --- clients of boto3 ---


def _client(workspace: S3Workspace, credentials: Credentials, attempts: int) -> S3Client:
    from botocore.config import Config

    with _creating:
        client: S3Client = _session().client(
            "s3",
            region_name=workspace.region,
            endpoint_url=workspace.endpoint,
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            aws_session_token=credentials.session_token,
            config=Config(**_settings(workspace.endpoint, attempts)),
        )
    client.meta.events.register("before-call.s3", _without_redirect)
    client.meta.events.register("after-call.s3", _masking(credentials))
    return client


@functools.cache
def _session() -> Session:
    """Return boto3's session, which all clients share. Callers must hold `_creating`.

    The session reads no profile, because a broken profile on this machine must not affect it.
    """
    import botocore.session
    from boto3.session import Session

    # Each tuple: name in the configuration file, environment variables, default, conversion.
    inner = botocore.session.Session(
        {
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    inner.register_component("data_loader", descriptions())
    inner.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_date)
    return Session(botocore_session=inner)


@functools.cache
def descriptions() -> Loader:
    """Return the loader of boto3's service descriptions. All sessions share it, because loading is slow."""
    import botocore.loaders

    return botocore.loaders.create_loader()


def _forget_parent() -> None:
    """Replace the lock and the session: a thread of the parent process may have used them at the fork."""
    global _creating  # noqa: PLW0603
    _creating = threading.Lock()
    _session.cache_clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)


def _settings(endpoint: str | None, attempts: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "max_pool_connections": POOL_SIZE,
        "retries": {"mode": "standard", "total_max_attempts": attempts},
        "ignore_configured_endpoint_urls": True,
        "signature_version": "s3v4",
    }
    if endpoint is not None:
        settings["s3"] = {"addressing_style": "path"}
        # Many S3-compatible services do not support the newer checksums.
        settings["request_checksum_calculation"] = "when_required"
        settings["response_checksum_validation"] = "when_required"
        if _is_loopback(urlsplit(endpoint).hostname or ""):
            settings["proxies"] = {}  # a proxy cannot reach this host
    return settings


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def read_date(text: str) -> datetime:
    """Parse a date of a response. botocore's parser is slow, so it is used only for dates that Python cannot parse."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(text)
        except ValueError:
            continue
        if date.tzinfo is not None:
            return date
    from botocore.utils import parse_timestamp

    found: datetime = parse_timestamp(text)
    return found


def _without_redirect(context: dict[str, Any], **_: object) -> None:
    """Disable botocore's redirect to another region: a wrong region must fail here, as it fails in mount-s3."""
    redirect = context.get("s3_redirect")
    if isinstance(redirect, dict):
        redirect["redirected"] = True


def _masking(credentials: Credentials) -> Callable[..., None]:
    """Return a handler that masks the secret key and the token in errors: a gateway may quote the request."""
    secrets = [secret for secret in (credentials.secret_access_key, credentials.session_token) if secret]

    def masked(value: object) -> object:
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, "***")
        return value

    def mask(parsed: dict[str, Any], **_: object) -> None:
        error = parsed.get("Error")
        if isinstance(error, dict):
            parsed["Error"] = {name: masked(value) for name, value in error.items()}

    return mask
