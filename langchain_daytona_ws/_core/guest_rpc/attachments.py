"""The protocol of attachments: parts that a workspace adds to each guest request, such as mount credentials."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from langchain_daytona_ws._core.ports import SandboxPort
from langchain_daytona_ws.errors import WorkspaceError

OnProgress = Callable[[str], Awaitable[None]]


class Resend(enum.Enum):
    """Whether a request, of which nothing ran, must be sent again."""

    NO = "no"
    NOW = "now"  # with data that the sandbox lacked
    WAIT = "wait"  # the sandbox is still preparing; it limits this itself


@dataclass(slots=True)
class GuestRequest:
    """A request to the guest for its attachments; it may be sent several times.

    Args:
        port: The Daytona API.
        sandbox_id: The sandbox that the request is sent to.
        entry: The guest module.
        fields: The request without the fields of attachments.
        life_s: Seconds for which processes of the request will use the workspace.
        is_refreshed: Whether new credentials were fetched for this request.
        since: When it was first sent, on the port's clock.
        on_progress: Receives lines about long preparations in the sandbox; None without a listener.
    """

    port: SandboxPort
    sandbox_id: str
    entry: str
    fields: Mapping[str, object] = field(repr=False)
    life_s: float
    is_refreshed: bool = False
    since: float = 0.0
    on_progress: OnProgress | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Payload:
    """The data that one attachment adds to one request.

    Args:
        fields: Fields of the request.
        secret: Bytes that are sent so that no other process can read them; None without a secret.
    """

    fields: Mapping[str, object]
    secret: bytes | None = field(default=None, repr=False)


P = TypeVar("P", bound=Payload)


class Attachment(Protocol[P]):
    """A part of each request to the guest, such as the specification of the workspace's mounts."""

    @property
    def margin_s(self) -> float:
        """Seconds that the attachment may take in the sandbox, in addition to the request's own time."""
        ...

    async def prepare(self, life_s: float) -> None:
        """Fetch data that requests need, before a sandbox is created.

        Raises:
            WorkspaceError: No request can succeed.
        """
        ...

    async def attach(self, request: GuestRequest) -> P:
        """Return the data for the request that is sent now."""
        ...

    async def on_answer(self, request: GuestRequest, payload: P, answer: Mapping[str, object]) -> Resend:
        """Record an answer; return whether the request did not run and must be sent again."""
        ...

    def error(self, code: str, detail: str) -> WorkspaceError | None:
        """Return the error for a failed set-up that the guest reported; None if another part of the guest failed."""
        ...
