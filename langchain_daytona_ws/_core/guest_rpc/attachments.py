"""The protocol of attachments: parts that a workspace adds to each guest request, such as mount credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.ports import SandboxPort
from langchain_daytona_ws.errors import WorkspaceError

OnProgress = Callable[[str], Awaitable[None]]

SENDS_MAX = 3  # by an attachment: without credentials, with credentials, with new credentials


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """A request to the guest.

    Args:
        port: The Daytona API.
        sandbox_id: The sandbox that the request is sent to.
        entry: The guest module.
        fields: The fields of the request.
        life_s: Seconds for which processes of the request will use the workspace.
        on_progress: Receives lines about long preparations in the sandbox; None without a listener.
        secret: Bytes that are sent so that no other process can read them; None without a secret.
    """

    port: SandboxPort
    sandbox_id: str
    entry: str
    fields: Mapping[str, object] = field(repr=False)
    life_s: float
    on_progress: OnProgress | None = field(default=None, repr=False)
    secret: bytes | None = field(default=None, repr=False)

    def extended(self, fields: Mapping[str, object], *, secret: bytes | None = None) -> GuestRequest:
        """Return this request with further fields, and with a secret if one is given."""
        return replace(
            self, fields={**self.fields, **fields}, secret=self.secret if secret is None else secret
        )


Send: TypeAlias = Callable[[GuestRequest], Awaitable[Answer]]


class Attachment(Protocol):
    """A part of each request to the guest, such as the specification of the workspace's mounts."""

    @property
    def margin_s(self) -> float:
        """Seconds that the attachment may take in the sandbox, in addition to the request's own time."""
        ...

    async def send(self, send: Send, request: GuestRequest) -> Answer:
        """Send a request with this part, and return its answer.

        The request may be sent again if nothing of it ran, for example with credentials that the sandbox lacked.

        Args:
            send: Sends the request; it returns the answer unchecked.
            request: The request without this part.
        """
        ...

    def error(self, code: str, detail: str) -> WorkspaceError | None:
        """Return the error for a failed set-up that the guest reported; None if another part of the guest failed."""
        ...
