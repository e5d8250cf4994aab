"""The interface through which the core uses Daytona's API, with its data types and errors."""

from __future__ import annotations

import enum
import io
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """The specification of a sandbox to create. A field with None is not sent."""

    name: str
    snapshot: str | None = None
    image: Any = None  # an image reference, or a daytona.Image
    resources: Resources | None = None  # only with an image
    user: str | None = None  # None: the user of the image
    target: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    auto_stop_minutes: int | None = None
    auto_archive_minutes: int | None = None
    auto_delete_minutes: int | None = None
    ttl_minutes: int | None = None
    network: NetworkRules | None = None  # None: the organization's default


class Resources(NamedTuple):
    """Size of a sandbox. None means Daytona's default."""

    cpu: int | None = None
    memory_gib: int | None = None
    disk_gib: int | None = None


class NetworkRules(NamedTuple):
    """Limits on a sandbox's network access, as Daytona's API defines them. A field with None is not sent."""

    block_all: bool | None = None
    allow_cidrs: str | None = None  # separated by commas
    allow_domains: str | None = None


class SandboxInfo(NamedTuple):
    """A sandbox as Daytona's control plane (its central API) describes it."""

    id: str
    name: str
    state: str
    organization_id: str
    labels: Mapping[str, str]
    recoverable: bool = False  # in an error state: whether Daytona can recover the sandbox


class ExecReply(NamedTuple):
    """The answer of Daytona's daemon in the sandbox to one execute request."""

    exit_code: int
    output: str


class Meter(Protocol):
    """Counts the bytes of a transfer."""

    def restart(self) -> None:
        """Set the count back to 0: the transfer begins, or begins again after a fault."""

    def add(self, count: int) -> None: ...


class UploadSource(Protocol):
    """The content of a file to upload. Each attempt opens the content again."""

    @property
    def size_bytes(self) -> int: ...

    def open(self) -> BinaryIO:
        """Open the content at its start.

        Opening or reading raises a `FileError` if the content is shorter than ``size_bytes``.
        """
        ...


class BytesSource:
    """Content in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)  # without a copy


OnBytes = Callable[[int], object]
"""Called with the size of each transferred piece, in bytes, in the caller's thread or event loop.

If a transfer with S3 fails, the callback is called with minus the total of these sizes.
"""


class FaultKind(enum.Enum):
    """Kinds of failed requests: one for each way to handle them."""

    NOT_SENT = "could not connect; nothing was sent"
    UNTRUSTED = "the server's certificate was not accepted; nothing was sent"
    DROPPED = "the connection, a gateway or the daemon gave up after the request was sent"
    THROTTLED = "429 too many requests"
    UNAVAILABLE = "503 not available now"
    UNAUTHORIZED = "401 the credentials were refused"
    FORBIDDEN = "403 not allowed"
    NOT_FOUND = "404 not found"
    NAME_TAKEN = "409 the name is taken"
    BUSY = "409 a state change is in progress, or another conflict"
    NOT_STARTED = "400 the sandbox is not started"
    REFUSED = "the request was refused"
    UNREADABLE = "the answer could not be understood"


class PortFault(Exception):
    """A request failed. Only adapters raise this error; the core translates it into errors of this package.

    Args:
        kind: Determines how the failure is handled.
        message: The message of the API or of the transport, without secrets.
        status: HTTP status of the answer; None if there was no answer, or it could not be read.
        retry_after_s: The answer's Retry-After header, in seconds; None if it is missing or invalid.
        sandbox_id: The sandbox that a failed create left behind; None if no sandbox is known.
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
    """Concurrent work: a thread (sync) or an asyncio task (async).

    The work calls `pause` and `abandonable`. The code that started the work calls `end` or `cancel`.
    """

    async def pause(self, seconds: float) -> bool:
        """Wait, and return True. As soon as the work must end, return False."""
        ...

    async def abandonable(self, request: Awaitable[T]) -> T:
        """Await a request, and return its result. If `end` abandons the request, raise an error that ends the work."""
        ...

    async def end(self) -> None:
        """Ask the work to end, and wait until it has ended. An `abandonable` request is abandoned after a second."""
        ...

    async def cancel(self) -> None:
        """End the work: a thread as `end` does, an asyncio task at once, by cancelling it."""
        ...


class SandboxPort(Protocol):
    """Daytona's API. Coroutines of the sync implementation never suspend.

    All requests raise PortFault, or ConfigError if this machine's settings are wrong. `upload` and `download` also pass
    on errors of the caller's own content and callbacks.
    """

    async def create(self, spec: SandboxSpec, *, timeout_s: float) -> SandboxInfo: ...

    async def get(self, id_or_name: str) -> SandboxInfo | None:
        """Return a sandbox; None if it does not exist."""
        ...

    async def start(self, sandbox_id: str, *, timeout_s: float) -> None: ...

    async def stop(self, sandbox_id: str, *, timeout_s: float) -> None: ...

    async def recover(self, sandbox_id: str, *, timeout_s: float) -> None:
        """Ask Daytona to recover a sandbox from an error state."""
        ...

    async def set_autostop(self, sandbox_id: str, minutes: int) -> None:
        """Set the minutes without a request after which Daytona stops the sandbox; idempotent."""
        ...

    async def set_autodelete(self, sandbox_id: str, minutes: int) -> None:
        """Set the minutes for which a stopped sandbox is kept before Daytona deletes it; idempotent."""
        ...

    async def preview_url(self, sandbox_id: str, port: int, *, expires_s: int) -> str:
        """Return a signed link to a port of the sandbox. The link is a secret: it needs no other password."""
        ...

    async def set_labels(self, sandbox_id: str, labels: Mapping[str, str]) -> None:
        """Replace all labels of the sandbox (Daytona API: PUT); idempotent."""
        ...

    async def delete(self, id_or_name: str) -> None:
        """Request the deletion of a sandbox; return without an error if the sandbox is gone already."""
        ...

    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply: ...

    async def ping(self, sandbox_id: str) -> None:
        """Send a request that changes nothing to the sandbox's daemon, and return when it has answered."""
        ...

    async def upload(
        self, sandbox_id: str, files: Sequence[tuple[str, UploadSource]], on_bytes: OnBytes | None = None
    ) -> list[str]:
        """Write files, and create their directories, in one request.

        Returns:
            The SHA-256 of each file, computed while the file is sent.

        Raises:
            FileError: The content of a file could not be read, or has changed.
        """
        ...

    async def download(
        self,
        sandbox_id: str,
        path: str,
        write: Callable[[bytes], object],
        on_bytes: OnBytes | None = None,
    ) -> None:
        """Download a file, and pass its pieces to ``write`` in order. ``write`` may block.

        If ``write`` raises, the download ends with this error. But a PortFault replaces an error that the SDK could
        raise too: `OSError`, `ValueError`, `TypeError`, `AttributeError`, `LookupError`.
        """
        ...

    async def version(self, sandbox_id: str, path: str) -> str:
        """Return a file's size and time of modification as one text, which shows nearly every change of the file."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def now(self) -> float:
        """Return seconds on a monotonic clock."""
        ...

    async def finish(self, work: Coroutine[Any, Any, object], *, within_s: float) -> bool:
        """Run clean-up to its end, even if the caller is cancelled.

        Returns:
            False if an async clean-up was cancelled after ``within_s`` seconds. A sync clean-up has no time limit.
        """
        ...

    def background(self, work: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> BackgroundTask:
        """Start work that runs concurrently. The work must not raise."""
        ...
