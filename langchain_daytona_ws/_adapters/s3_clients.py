"""boto3's S3 clients for one bucket: two for each set of credentials, without this machine's AWS settings.

Importing this module imports boto3, which takes a third of a second: import it in functions only.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import botocore.loaders
import botocore.session
from boto3.session import Session
from botocore.config import Config
from botocore.utils import parse_timestamp

from langchain_daytona_ws._adapters.boto_calls import boto_call
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._core.s3.workspace import S3Workspace

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
READ_ATTEMPTS = 4
POOL = 16
# boto3's service descriptions are slow to load; all sessions share them.
DESCRIPTIONS = botocore.loaders.create_loader()
_creating = threading.Lock()  # boto3 sessions are not thread-safe
# While set, PutObject is sent as RenameObject with this source key, as mount-s3 does: older boto3 lacks the operation.
rename_source: ContextVar[str | None] = ContextVar("langchain_daytona_ws_rename_source", default=None)
# Requests may still be open with the previous credentials.
KEPT_SETS = 2


@dataclass(frozen=True, slots=True)
class Clients:
    """Two clients with the same credentials: ``reads`` retries, ``changes`` sends each request once."""

    reads: S3Client
    changes: S3Client

    def close(self) -> None:
        self.reads.close()
        self.changes.close()


class ClientSets:
    """Creates clients on first use; thread-safe.

    Args:
        workspace: The bucket, the region and the endpoint.
    """

    def __init__(self, workspace: S3Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._sets: dict[Credentials, Clients] = {}

    def using(self, credentials: Credentials) -> Clients:
        """Return the clients for these credentials; clients of older credentials are closed."""
        with self._lock:
            clients = self._sets.pop(credentials, None) or self._made(credentials)
            self._sets[credentials] = clients  # the latest is last
            while len(self._sets) > KEPT_SETS:
                self._sets.pop(next(iter(self._sets))).close()
            return clients

    def close(self) -> None:
        """Close all connections. Later requests open new ones."""
        with self._lock:
            while self._sets:
                self._sets.popitem()[1].close()

    def _made(self, credentials: Credentials) -> Clients:
        with _creating, boto_call():
            session = _session()
            return Clients(
                self._client(session, credentials, READ_ATTEMPTS), self._client(session, credentials, 1)
            )

    def _client(self, session: Session, credentials: Credentials, attempts: int) -> S3Client:
        workspace = self._workspace
        client: S3Client = session.client(
            "s3",
            region_name=workspace.region,
            endpoint_url=workspace.endpoint,
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            aws_session_token=credentials.session_token,
            config=Config(**_settings(workspace.endpoint, attempts)),
        )
        client.meta.events.register("before-call.s3", _stay_in_the_region)
        client.meta.events.register("before-call.s3.PutObject", _as_rename)
        client.meta.events.register("after-call.s3", _masking(credentials))
        return client


@functools.cache
def _session() -> Session:
    """Return the session of all clients. Callers hold `_creating`.

    It reads no profile: a broken profile on this machine must not affect it.
    """
    # Each tuple: name in the configuration file, environment variables, default, conversion.
    inner = botocore.session.Session(
        {
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    inner.register_component("data_loader", DESCRIPTIONS)
    inner.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_date)
    return Session(botocore_session=inner)


def read_date(text: str) -> datetime:
    """Return a date of a response. botocore's own parser is slow, so it only reads what Python's parsers cannot."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(text)
        except ValueError:
            continue
        if date.tzinfo is not None:
            return date
    found: datetime = parse_timestamp(text)
    return found


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


def _as_rename(params: dict[str, Any], **_: object) -> None:
    source = rename_source.get()
    if source is not None:
        params["url"] += "?renameObject"
        params["headers"]["x-amz-rename-source"] = quote(source)


def _stay_in_the_region(context: dict[str, Any], **_: object) -> None:
    """Disable botocore's redirect to another region: mount-s3 does not redirect, so report a wrong region."""
    redirect = context.get("s3_redirect")
    if isinstance(redirect, dict):
        redirect["redirected"] = True
