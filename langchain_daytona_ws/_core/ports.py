"""What the core needs of the world, and the words in which the world answers."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to create; intervals in minutes, as the Daytona API has them."""

    name: str
    snapshot: str | None = None
    image: Any = None  # a reference, or a daytona.Image
    target: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    auto_stop_minutes: int | None = None
    auto_archive_minutes: int | None = None
    auto_delete_minutes: int | None = None
    ttl_minutes: int | None = None
    network: NetworkRules | None = None  # None: the organization's default


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """What a sandbox may reach, in the Daytona API's terms; None is not sent."""

    block_all: bool | None = None
    allow_cidrs: str | None = None  # separated by commas
    allow_domains: str | None = None


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """One sandbox as the control plane describes it."""

    id: str
    name: str
    state: str
    organization_id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    recoverable: bool = False  # of one in error


@dataclass(frozen=True, slots=True)
class ExecReply:
    """The daemon's answer to one execute request."""

    exit_code: int
    output: str


class FaultKind(enum.Enum):
    """Why a request did not end well, by what may be done about it."""

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
    """A request did not end well. Raised by the adapters only, and translated by the core.

    Args:
        kind: What may be done about it.
        message: What the API or the transport said, with no secret in it.
        status: HTTP status, where there was one.
        retry_after_s: What the answer's Retry-After asked for, in seconds.
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
        """Whether the same request may succeed if it is sent again a little later."""
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
    """Work that goes on beside its starter's: in a thread of its own on the sync side, in a task on the async one.

    The work calls `pause` and `abandonable`; its starter `end` or `cancel`, after which the work does nothing more.
    """

    async def pause(self, seconds: float) -> bool:
        """Wait, in that work; return False at once when it is to end."""
        ...

    async def abandonable(self, request: Awaitable[T]) -> T:
        """Await, in that work, a request that its starter may leave behind: then this does not return."""
        ...

    async def end(self) -> None:
        """Tell it to end, and wait for that; for a request that is abandonable, only a moment."""
        ...

    async def cancel(self) -> None:
        """Do as `end` does, and cut short whatever it waits for, where that can be done."""
        ...


class SandboxPort(Protocol):
    """Daytona's API. The sync implementation's coroutines never suspend. All raise only PortFault."""

    async def create(self, spec: SandboxSpec, *, timeout_s: float) -> SandboxInfo: ...

    async def get(self, id_or_name: str) -> SandboxInfo | None:
        """Return None when the control plane says that there is no such sandbox."""
        ...

    async def start(self, sandbox_id: str, *, timeout_s: float) -> None: ...

    async def stop(self, sandbox_id: str, *, timeout_s: float) -> None: ...

    async def recover(self, sandbox_id: str, *, timeout_s: float) -> None:
        """Bring back one in a recoverable error."""
        ...

    async def set_autostop(self, sandbox_id: str, minutes: int) -> None:
        """Set after how long without a request the sandbox is stopped; repeatable."""
        ...

    async def delete(self, id_or_name: str) -> None:
        """Ask for deletion; one that is gone already is no fault."""
        ...

    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply: ...

    async def ping(self, sandbox_id: str) -> None:
        """Return when the sandbox's daemon answers a request that changes nothing."""
        ...

    async def upload(self, sandbox_id: str, path: str, data: bytes) -> None: ...

    async def download(self, sandbox_id: str, path: str, *, limit_bytes: int) -> bytes:
        """Return a file, or so much of it that it is seen to be over the limit."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def now(self) -> float:
        """Return seconds on a clock that only goes forward."""
        ...

    async def finish(self, work: Coroutine[Any, Any, None], *, within_s: float) -> bool:
        """Run clean-up to its end although the caller is being cancelled; False when it took too long."""
        ...

    def background(self, work: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> BackgroundTask:
        """Begin work that goes on beside the caller's. It must not raise."""
        ...
