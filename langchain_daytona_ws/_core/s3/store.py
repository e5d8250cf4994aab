"""What the core needs of S3 and of whoever gives out credentials for it, and the words in which they answer."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys for one workspace's prefix. ``expires_at`` is Unix time in seconds; None when it is not known."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None


class CredentialsPort(Protocol):
    """Whoever gives out credentials. The sync implementation never suspends."""

    async def fetch(self) -> Credentials:
        """Return fresh ones.

        Raises:
            CredentialsRefused: With what was tried, what was answered and every remedy.
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
    """An object with its content; ``data`` is None when that is larger than was asked for."""

    info: ObjectInfo
    data: bytes | None = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Part of a listing: objects and, with a delimiter, the prefixes that end in it; both in key order."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    more: str | None  # the token of the next page


class StoreFaultKind(enum.Enum):
    """Why S3 did not do what it was asked, by what may be done about it."""

    MISSING = "there is no such object"
    DENIED = "403 access denied"
    CHANGED = "412 or 409 the object is not as the condition says"
    EXPIRED = "the credentials have expired or are not valid"
    PASSING = "throttled or not available; nothing was done"
    UNKNOWN = "the connection was lost after sending; it may have been done"
    REFUSED = "refused for good"


class StoreFault(Exception):
    """S3 did not do what it was asked. Raised by the adapters only, and translated by the core.

    Args:
        kind: What may be done about it.
        message: What S3 or the transport said, with no secret in it.
        code: S3's own error code, such as ``NoSuchBucket``; ``""`` when there is none.
        region: Where the bucket is, when it was asked for in another region.
        status: HTTP status, where there was one.
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


class ObjectStorePort(Protocol):
    """The bucket below the workspace's prefix, and nothing else. All raise only StoreFault.

    Keys are relative to the prefix. Reading calls are retried by the implementation; changes are sent once,
    since only the caller can tell whether one that was lost took effect.
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
        """List keys that begin with ``prefix``, in UTF-8 order; ``more`` is the token of an earlier page."""
        ...

    async def get(self, key: str, *, max_bytes: int) -> StoredObject:
        """Get an object; of one over ``max_bytes`` the content is not transferred."""
        ...

    async def get_many(
        self, keys: Sequence[str], *, max_bytes: int, within_s: float
    ) -> Sequence[StoredObject | StoreFault | None]:
        """Get several at a time; None for those that the time did not reach to."""
        ...

    async def put(
        self, key: str, data: bytes, *, if_match: str | None, metadata: Mapping[str, str]
    ) -> ObjectInfo:
        """Write over the object that has the ETag ``if_match``, or with None one that must not exist yet."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is no fault."""
        ...

    async def offload(self, work: Callable[[], T]) -> T:
        """Do what computes for long where it holds up nobody else."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def now(self) -> float:
        """Return seconds on a clock that only goes forward."""
        ...
