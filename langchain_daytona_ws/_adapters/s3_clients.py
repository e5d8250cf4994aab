"""boto3's S3 clients for one bucket: two for each set of credentials, and nothing of this machine's own settings.

Imports boto3, which takes a third of a second: import this where that holds up nobody.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import botocore.loaders
import botocore.session
from boto3.session import Session
from botocore.config import Config

from langchain_daytona_ws._adapters.aws_answers import bound_answers
from langchain_daytona_ws._core.store import Credentials
from langchain_daytona_ws._core.workspace import S3Workspace

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
READ_ATTEMPTS = 4
POOL = 16
# boto3's descriptions of S3 take long to read; all sessions share them.
_DESCRIPTIONS = botocore.loaders.create_loader()
# Inside, PutObject is the request by which mount-s3 renames this key: older releases of boto3 have no operation for it.
rename_source: ContextVar[str | None] = ContextVar("langchain_daytona_ws_rename_source", default=None)
# Requests may still be on their way with the credentials before the present ones.
KEPT_SETS = 2


@dataclass(frozen=True, slots=True)
class Clients:
    """Clients with the same credentials: one that tries again, one that sends each request once."""

    reads: S3Client
    changes: S3Client

    def close(self) -> None:
        self.reads.close()
        self.changes.close()


class ClientSets:
    """Makes clients when they are first needed, for all threads.

    Args:
        workspace: Which bucket, region and endpoint.
    """

    def __init__(self, workspace: S3Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._sets: dict[Credentials, Clients] = {}

    def using(self, credentials: Credentials) -> Clients:
        """Return the clients that use these credentials; older ones are closed."""
        with self._lock:
            clients = self._sets.pop(credentials, None) or self._made(credentials)
            self._sets[credentials] = clients  # the latest is last
            while len(self._sets) > KEPT_SETS:
                self._sets.pop(next(iter(self._sets))).close()
            return clients

    def close(self) -> None:
        """Close all connections. What is asked for afterwards opens new ones."""
        with self._lock:
            while self._sets:
                self._sets.popitem()[1].close()

    def _made(self, credentials: Credentials) -> Clients:
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
        bound_answers(client)
        return client


def _session() -> Session:
    """Make a session that reads no profile: a broken one on this machine must not matter here."""
    # Of each: its name in the configuration file, its environment variables, its default, its conversion.
    inner = botocore.session.Session(
        {
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    inner.register_component("data_loader", _DESCRIPTIONS)
    return Session(botocore_session=inner)


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
        # Many services that resemble S3 do not know the newer checksums.
        settings["request_checksum_calculation"] = "when_required"
        settings["response_checksum_validation"] = "when_required"
        if _is_loopback(urlsplit(endpoint).hostname or ""):
            settings["proxies"] = {}  # none could reach it
    return settings


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _masking(credentials: Credentials) -> Callable[..., None]:
    """Return what takes the credentials out of an error that quotes them, as a gateway may quote a request."""
    secrets = [one for one in (credentials.secret_access_key, credentials.session_token) if one]

    def masked(value: object) -> object:
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, "***")
        return value

    def mask(parsed: dict[str, Any], **_: object) -> None:
        said = parsed.get("Error")
        if isinstance(said, dict):
            parsed["Error"] = {name: masked(value) for name, value in said.items()}

    return mask


def _as_rename(params: dict[str, Any], **_: object) -> None:
    source = rename_source.get()
    if source is not None:
        params["url"] += "?renameObject"
        params["headers"]["x-amz-rename-source"] = quote(source)


def _stay_in_the_region(context: dict[str, Any], **_: object) -> None:
    """Keep botocore from asking again elsewhere: a mount would not, so the wrong region has to be told at once."""
    redirect = context.get("s3_redirect")
    if isinstance(redirect, dict):
        redirect["redirected"] = True
