"""The interface to Daytona's API that the core needs, its data, and its faults."""

from __future__ import annotations

import enum
import io
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """The sandbox to create; intervals in minutes (Daytona API)."""

    name: str
    snapshot: str | None = None
    image: Any = None  # an image reference, or a daytona.Image
    resources: Resources | None = None  # only with an image
    user: str | None = None  # None: the image's
    target: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    auto_stop_minutes: int | None = None
    auto_archive_minutes: int | None = None
    auto_delete_minutes: int | None = None
    ttl_minutes: int | None = None
    network: NetworkRules | None = None  # None: the organization's default


class Resources(NamedTuple):
    """Size of a sandbox; None: Daytona's default."""

    cpu: int | None = None
    memory_gib: int | None = None
    disk_gib: int | None = None


class NetworkRules(NamedTuple):
    """Limits on a sandbox's network access (Daytona API); a field with None is not sent."""

    block_all: bool | None = None
    allow_cidrs: str | None = None  # separated by commas
    allow_domains: str | None = None


class SandboxInfo(NamedTuple):
    """One sandbox as the control plane describes it."""

    id: str
    name: str
    state: str
    organization_id: str
    labels: Mapping[str, str]
    recoverable: bool = False  # if the state is an error


class ExecReply(NamedTuple):
    """The daemon's answer to one execute request."""

    exit_code: int
    output: str


class UploadSource(Protocol):
    """The content of a file to upload. It is opened again if the upload is repeated."""

    @property
    def size_bytes(self) -> int: ...

    def open(self) -> BinaryIO:
        """Open the content at its start. Reading raises a `FileError` if the content is no longer ``size_bytes``."""
        ...


class BytesSource:
    """Content in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)  # shares the bytes


OnBytes = Callable[[int], object]
"""Called with the number of bytes that have just been transferred, in the caller's thread."""


class FaultKind(enum.Enum):
    """Kinds of failed requests, by the possible reaction."""

    NOT_SENT = "could not connect; nothing was sent"
    UNTRUSTED = "the server's certificate was not accepted; nothing was sent"
    DROPPED = "the connection or a gateway gave up after the request was sent"
    THROTTLED = "429 too many requests"
    UNAVAILABLE = "503 not available now"
    UNAUTHORIZED = "401 the credentials were refused"
    FORBIDDEN = "403 not allowed"
    NOT_FOUND = "404 not found"
    NAME_TAKEN = "409 the name is taken"
    BUSY = "409 a state change is in progress"
    NOT_STARTED = "400 the sandbox is not started"
    REFUSED = "the request was refused"
    UNREADABLE = "the answer could not be understood"


class PortFault(Exception):
    """A request failed. Only adapters raise it, and the core translates it.

    Args:
        kind: The kind of failure.
        message: The message of the API or the transport, without secrets.
        status: HTTP status, if there was an answer.
        retry_after_s: The answer's Retry-After, in seconds.
        sandbox_id: The sandbox that a failed create left behind.
    """

    def __init__(
        self,
        kind: FaultKind,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        sandbox_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.sandbox_id = sandbox_id

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed if it is sent again after a pause."""
        return self.kind in _PASSING


_PASSING = {
    FaultKind.NOT_SENT,
    FaultKind.DROPPED,
    FaultKind.THROTTLED,
    FaultKind.UNAVAILABLE,
    FaultKind.BUSY,
    FaultKind.UNREADABLE,
}


class BackgroundTask(Protocol):
    """Work that runs concurrently with its starter: a thread in the sync runtime, a task in the async runtime.

    The work calls `pause` and `abandonable`. Its starter calls `end` or `cancel`, which stop the work.
    """

    async def pause(self, seconds: float) -> bool:
        """Wait; called by the work. Return False at once if the work must end."""
        ...

    async def abandonable(self, request: Awaitable[T]) -> T:
        """Await a request; called by the work. If the starter abandons the request, this does not return."""
        ...

    async def end(self) -> None:
        """Request the end of the work and wait for it; wait only briefly for an abandonable request."""
        ...

    async def cancel(self) -> None:
        """End the work as `end` does, and interrupt its current wait if possible."""
        ...


class SandboxPort(Protocol):
    """Daytona's API. Coroutines of the sync implementation never suspend. All methods raise only PortFault."""

    async def create(self, spec: SandboxSpec, *, timeout_s: float) -> SandboxInfo: ...

    async def get(self, id_or_name: str) -> SandboxInfo | None:
        """Return the sandbox; None if the control plane reports that it does not exist."""
        ...

    async def start(self, sandbox_id: str, *, timeout_s: float) -> None: ...

    async def stop(self, sandbox_id: str, *, timeout_s: float) -> None: ...

    async def recover(self, sandbox_id: str, *, timeout_s: float) -> None:
        """Recover a sandbox from a recoverable error."""
        ...

    async def set_autostop(self, sandbox_id: str, minutes: int) -> None:
        """Set the time without a request after which the sandbox is stopped; repeatable."""
        ...

    async def set_autodelete(self, sandbox_id: str, minutes: int) -> None:
        """Set the time for which the sandbox is stopped before it is deleted; repeatable."""
        ...

    async def preview_url(self, sandbox_id: str, port: int, *, expires_s: int) -> str:
        """Return a signed link to a port of the sandbox. The link is a secret."""
        ...

    async def set_labels(self, sandbox_id: str, labels: Mapping[str, str]) -> None:
        """Replace all labels of the sandbox (Daytona API: PUT); repeatable."""
        ...

    async def delete(self, id_or_name: str) -> None:
        """Request deletion; succeeds if the sandbox is gone already."""
        ...

    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply: ...

    async def ping(self, sandbox_id: str) -> None:
        """Send the sandbox's daemon a request that changes nothing; return if it answers."""
        ...

    async def upload(
        self, sandbox_id: str, files: Sequence[tuple[str, UploadSource]], on_bytes: OnBytes | None = None
    ) -> list[str]:
        """Write files and their directories in one request; return the hashes, computed while they are sent."""
        ...

    async def download(
        self,
        sandbox_id: str,
        path: str,
        write: Callable[[bytes], object],
        on_bytes: OnBytes | None = None,
    ) -> None:
        """Pass a file's pieces to ``write``, in order; its errors end the download. ``write`` may block."""
        ...

    async def version(self, sandbox_id: str, path: str) -> str:
        """Return a text that differs after each change of the file's content."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def now(self) -> float:
        """Return seconds on a monotonic clock."""
        ...

    async def finish(self, work: Coroutine[Any, Any, object], *, within_s: float) -> bool:
        """Run clean-up to its end even if the caller is cancelled; return False if it took too long."""
        ...

    def background(self, work: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> BackgroundTask:
        """Start work that runs concurrently. It must not raise."""
        ...
