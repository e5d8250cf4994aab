"""One workspace's prefix of a bucket over boto3: a client for each set of credentials, its requests and their answers.

boto3 is imported on first use: that takes a third of a second.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
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

    from langchain_daytona_ws._adapters.s3_transfers import ObjectTransfer

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
READ_ATTEMPTS = 4
POOL = 16
# A connection may close within a body; boto3 does not retry that.
BODY_ATTEMPTS = 3
BODY_PAUSE_S = 0.2
PIECE_BYTES = 256 << 10
LONGEST_PAGE = 1000
LONGEST_TOKEN = 4096
AT_A_TIME = 8
# Requests may still be open with the previous credentials.
KEPT_CLIENTS = 2

_creating = threading.Lock()  # boto3 sessions are not thread-safe


class Bucket:
    """One workspace's prefix of a bucket. Creates a client for each set of credentials on first use; thread-safe.

    Args:
        workspace: The bucket, the prefix, the region and the endpoint.
        clock: The clock for pauses between attempts.
    """

    def __init__(self, workspace: S3Workspace, clock: Clock = SYSTEM_CLOCK) -> None:
        if not workspace.workspace.prefix.endswith("/"):
            raise ValueError("the prefix of a workspace ends with a slash")
        self._workspace = workspace
        self.clock = clock
        self._lock = threading.Lock()
        self._clients: dict[Credentials, BucketClient] = {}

    def using(self, credentials: Credentials) -> BucketClient:
        """Return the client for these credentials; clients of older credentials are closed."""
        with self._lock:
            client = self._clients.pop(credentials, None) or self._made(credentials)
            self._clients[credentials] = client  # the latest is last
            while len(self._clients) > KEPT_CLIENTS:
                self._clients.pop(next(iter(self._clients))).close()
            return client

    def close(self) -> None:
        """Close all connections. Later requests open new ones."""
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()

    def _made(self, credentials: Credentials) -> BucketClient:
        return boto_call(lambda: BucketClient(self._workspace, credentials, self.clock.sleep))


class BucketClient:
    """The requests to a workspace's prefix with one set of credentials; thread-safe.

    Every method blocks, and raises what boto3 raises: call it within `boto_call`. ``reads`` retries; ``changes`` sends
    each request once.

    Args:
        workspace: The workspace. All requests stay below its prefix.
        credentials: The credentials.
        sleep: Waits for seconds.
    """

    def __init__(
        self, workspace: S3Workspace, credentials: Credentials, sleep: Callable[[float], None]
    ) -> None:
        self._bucket = workspace.workspace.bucket
        self._prefix = workspace.workspace.prefix
        self._sleep = sleep
        self._new_client = functools.partial(_client, workspace, credentials)
        self.reads = self._new_client(READ_ATTEMPTS)
        self.changes = self._new_client(1)

    def close(self) -> None:
        self.reads.close()
        self.changes.close()

    def list_page(self, request: PageRequest, max_keys: int = LONGEST_PAGE) -> KeyPage:
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
        return _page(self.reads.list_objects_v2(**query), prefix, self._prefix)

    def list_pages(self, requests: Sequence[PageRequest]) -> list[KeyPage | StoreFault]:
        with _threads(len(requests)) as pool:
            return list(pool.map(lambda request: _or_fault(lambda: self.list_page(request)), requests))

    def get(self, key: str, max_bytes: int) -> StoredObject:
        target = self._target(key)
        attempt = 1
        while True:
            answer = self.reads.get_object(**target)
            with closing(answer["Body"]):
                stored = described_whole(key, answer)
                if stored.info.size_bytes > max_bytes:  # with 0, only the description is wanted
                    return replace(stored, head=answer["Body"].read(HEAD_BYTES) if max_bytes else b"")
                try:
                    return with_content(stored, answer["Body"])
                except Exception:
                    if attempt == BODY_ATTEMPTS:
                        raise
            self._sleep(BODY_PAUSE_S * 2 ** (attempt - 1))
            attempt += 1

    def get_many(
        self, keys: Sequence[str], max_bytes: int, within_s: float
    ) -> list[StoredObject | StoreFault | None]:
        pool = _threads(len(keys))
        try:
            futures = [pool.submit(_or_fault, functools.partial(self.get, key, max_bytes)) for key in keys]
            wait(futures, timeout=within_s)
            return [future.result() if future.done() else None for future in futures]
        finally:
            # Requests already sent end by their own time-outs.
            pool.shutdown(wait=False, cancel_futures=True)

    def put(self, key: str, data: bytes, if_match: str | None, metadata: Mapping[str, str]) -> ObjectInfo:
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_match is None else {"IfMatch": if_match}
        answer = self.changes.put_object(**self._target(key), **condition, Body=data, Metadata=dict(metadata))
        return ObjectInfo(key, len(data), 0, required_text(answer["ETag"]))

    def delete(self, key: str) -> None:
        self.changes.delete_object(**self._target(key))

    def rename(self, source: str, target: str) -> None:
        """Send the request by which mount-s3 renames an object; older releases of boto3 lack the operation."""
        renamed = quote(self._target(source)["Key"])

        def as_rename(params: dict[str, Any], **_: object) -> None:
            params["url"] += "?renameObject"
            params["headers"]["x-amz-rename-source"] = renamed

        # The handler is for this request only.
        with closing(self._new_client(1)) as client:
            client.meta.events.register("before-call.s3.PutObject", as_rename)
            client.put_object(**self._target(target), Body=b"")

    def transfer(self, key: str) -> ObjectTransfer:
        """Return the transfer of one object's content in pieces."""
        from langchain_daytona_ws._adapters.s3_transfers import ObjectTransfer

        return ObjectTransfer(self, self._target(key), key=key, sleep=self._sleep)

    def _target(self, key: str) -> dict[str, Any]:
        """Return bucket and key of a request; refuse keys that a proxy could resolve to another prefix."""
        if not key or key.startswith("/") or {".", ".."} & set(key.split("/")):
            raise StoreFault(StoreFaultKind.REFUSED, "the key could lead out of the workspace")
        return {"Bucket": self._bucket, "Key": self._prefix + key}


# --- answers: malformed answers raise ValueError, which `boto_call` translates ---


def _page(answer: Mapping[str, Any], prefix: str, workspace_prefix: str) -> KeyPage:
    """Read a listing of keys below ``prefix``; the returned keys are relative to the workspace's prefix."""

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
    """Read one object's description."""
    size = answer[size_field]
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 62:
        raise ValueError("the size is invalid")
    # In milliseconds: S3 reports whole seconds, other stores may report fractions.
    modified_ns = int(answer["LastModified"].timestamp() * 1000) * 1_000_000
    if abs(modified_ns) >= 1 << 62:
        raise ValueError("the date is out of range")
    return ObjectInfo(key, size, modified_ns, required_text(answer["ETag"]))


def described_whole(key: str, answer: Mapping[str, Any]) -> StoredObject:
    """Read the description of an object from the answer that has its whole content."""
    if answer["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.OK:
        raise ValueError("not the whole object")
    return StoredObject(described(key, answer, "ContentLength"), None, metadata_of(answer))


def with_content(stored: StoredObject, body: Any) -> StoredObject:
    """Read a content; hash its pieces and count their line feeds while the next pieces arrive.

    Raises:
        StoreFault: The content has another size than its description.
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


# --- clients and threads ---


def _or_fault(work: Callable[[], T]) -> T | StoreFault:
    """Return the result of a request that runs in a thread of its own, or its fault."""
    try:
        return boto_call(work)
    except StoreFault as fault:
        return fault


def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(AT_A_TIME, max(count, 1)), "langchain-daytona-ws-s3")


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
    """Return the session of all clients. Callers hold `_creating`.

    It reads no profile: a broken profile on this machine must not affect it.
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
    """Return the loader of boto3's service descriptions: they are slow to load, so all sessions share them."""
    import botocore.loaders

    return botocore.loaders.create_loader()


def _forget_parent() -> None:
    """Replace the lock and the session, which a thread of the parent process may have held at the fork."""
    global _creating  # noqa: PLW0603
    _creating = threading.Lock()
    _session.cache_clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)


def _settings(endpoint: str | None, attempts: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "max_pool_connections": POOL,
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
    """Return a date of a response. botocore's own parser is slow, so it only reads what Python's parsers cannot."""
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
    """Disable botocore's redirect to another region: mount-s3 does not redirect, so report a wrong region."""
    redirect = context.get("s3_redirect")
    if isinstance(redirect, dict):
        redirect["redirected"] = True


def _masking(credentials: Credentials) -> Callable[..., None]:
    """Return a handler that masks the credentials in errors: a gateway may quote the request."""
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
