"""The interfaces to S3 and to the source of its credentials, with their results and faults."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from langchain_daytona_ws._core.ports import OnBytes, UploadSource

T = TypeVar("T")

# Seconds for which credentials must be valid after a call. Background processes keep writing, and mount-s3 requests new
# credentials five minutes before the present ones end.
SPARE_LIFE_S = 600.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """Access keys for one workspace's prefix.

    Attributes:
        expires_at: Unix time in seconds; None if unknown.
        life_s: Seconds from the issue of the credentials to `expires_at`; None if unknown.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    life_s: float | None = None


def expiry_text(credentials: Credentials) -> str | None:
    """Return the time at which credentials expire, for a message; None if the time is unknown."""
    if credentials.expires_at is None:
        return None
    return datetime.datetime.fromtimestamp(credentials.expires_at, datetime.UTC).strftime("%H:%M UTC")


CredentialSource = Callable[[float], Awaitable[Credentials]]
"""Returns credentials that are valid for at least the given seconds."""


class CredentialsPort(Protocol):
    """The source of credentials. Coroutines of the sync implementation never suspend."""

    async def fetch(self) -> Credentials:
        """Return new credentials.

        Raises:
            CredentialsRefused: No credentials were issued. The message has the request, the answer and every remedy.
        """
        ...


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object; its key is relative to the workspace's prefix."""

    key: str
    size_bytes: int
    modified_ns: int
    etag: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object with its content, or with ``data=None`` if the content is larger than the requested limit.

    Attributes:
        sha256: The hash of the content; "" if ``data`` is None.
        newlines: The number of line feeds in the content; None if they were not counted.
        head: The first bytes of content that is larger than the limit; empty if the limit is 0.
    """

    info: ObjectInfo
    data: bytes | None = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    sha256: str = field(default="", compare=False)
    newlines: int | None = field(default=None, compare=False)
    head: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of a listing: objects and, with a delimiter, prefixes that end with it; both in key order."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    more: str | None  # the token of the next page; None if this page is the last
    is_filtered: bool = False  # keys of ignored files were left out


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The arguments of `ObjectStorePort.list_page`."""

    prefix: str
    delimiter: bool
    start_after: str
    more: str | None


class StoreFaultKind(enum.Enum):
    """The kinds of failed S3 requests: one for each way to handle them."""

    MISSING = "the object does not exist"
    DENIED = "403 access denied"
    CHANGED = "412 or 409 the condition on the object failed"
    EXPIRED = "the credentials have expired or are not valid"
    PASSING = "throttled or not available; nothing was done"
    UNKNOWN = "the connection was lost after sending; the change may have been applied"
    REFUSED = "refused permanently"


class StoreFault(Exception):
    """A failed S3 request. The core translates it to an error of this package.

    Args:
        message: The message of S3 or of the transport, without secrets.
        code: The error code of S3, such as ``NoSuchBucket``; ``""`` if S3 sent no code.
        region: The bucket's region if the request went to another region; otherwise ``""``.
        status: HTTP status; None without a response.
    """

    def __init__(
        self,
        kind: StoreFaultKind,
        message: str,
        *,
        code: str = "",
        region: str = "",
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.code = code
        self.region = region
        self.status = status


class SymlinkFound(Exception):
    """Raised when a symlink of a synchronised workspace is read. ``target`` is ``""`` if it was not read."""

    def __init__(self, key: str, target: str) -> None:
        super().__init__(key)
        self.key = key
        self.target = target


class ObjectSink(Protocol):
    """Receives the content of an object."""

    def restart(self) -> None:
        """Discard what was received."""

    def write(self, piece: bytes) -> object:
        """Receive the next piece. This may block."""


class ObjectStorePort(Protocol):
    """The bucket below the workspace's prefix. Keys are relative to the prefix.

    The adapter, which implements this port, retries reads. It does not repeat a change that may have been applied: if
    the answer is lost, the core finds out whether the change was applied.

    The methods raise StoreFault, CredentialsRefused, and errors of the functions that are passed to them.
    `SyncedObjects` also raises SymlinkFound, and RefusedError for a symlink without a usable target.
    """

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: bool = False,
        max_keys: int = 1000,
        start_after: str = "",
        more: str | None = None,
    ) -> KeyPage:
        """List keys that begin with ``prefix``, sorted by UTF-8 bytes; ``more`` is the token of an earlier page."""
        ...

    async def list_pages(self, requests: Sequence[PageRequest]) -> Sequence[KeyPage | StoreFault]:
        """List several pages in parallel. The result has a fault for each page that could not be listed."""
        ...

    async def get(self, key: str, *, max_bytes: int) -> StoredObject:
        """Read an object. If its content is over ``max_bytes``, return the description without the content."""
        ...

    async def get_many(
        self, keys: Sequence[str], *, max_bytes: int, within_s: float
    ) -> Sequence[StoredObject | StoreFault | None]:
        """Read several objects in parallel. The result has None for objects that were not read within ``within_s``."""
        ...

    async def put(
        self, key: str, data: bytes, *, if_match: str | None, metadata: Mapping[str, str]
    ) -> ObjectInfo:
        """Replace the object if its ETag is ``if_match``. With ``if_match=None``, create it if the key is free."""
        ...

    async def receive(
        self,
        key: str,
        sink: ObjectSink,
        *,
        check: Callable[[StoredObject], None],
        on_bytes: OnBytes | None = None,
    ) -> StoredObject:
        """Pass an object's content to ``sink`` in pieces; return its description.

        After a lost connection, the download continues where it ended, if the object is still the same. If the whole
        content has arrived with a wrong checksum, the download starts again.

        ``check`` is called with the description before any content is received. Errors of ``check`` and ``sink`` end
        the request. ``on_bytes`` is called with the size of each received piece, in the caller's thread or event loop.
        Before an error is raised or the download starts again, it is called with minus the total of these sizes.
        """
        ...

    async def send(
        self,
        key: str,
        source: UploadSource,
        *,
        if_match: str | None,
        metadata: Mapping[str, str],
        is_executable: bool = False,
        on_bytes: OnBytes | None = None,
    ) -> str:
        """Upload content of any size, large content in parts; return its SHA-256.

        ``if_match`` is the condition of `put`. ``on_bytes`` is called as in `receive`. ``is_executable`` is used only
        if the store keeps file attributes.
        """
        ...

    async def gather(self, works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        """Run several coroutines, a limited number at a time. Wait for all, then raise the first error, if any."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; a missing object is not a fault."""
        ...

    async def offload(self, work: Callable[[], T]) -> T:
        """Run CPU-bound work outside the event loop."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def now(self) -> float:
        """Return seconds of a monotonic clock."""
        ...
