"""The interface of attachments. An attachment adds a part to calls to the guest, such as mount credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.ports import SandboxPort
from langchain_daytona_ws.errors import WorkspaceError

OnProgress = Callable[[str], Awaitable[None]]

# Maximum number of times that an attachment sends one request: without credentials, with the credentials that the
# session has, and with new credentials.
SENDS_MAX = 3


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """A request to the guest.

    Args:
        port: The Daytona API.
        sandbox_id: The sandbox that the request is sent to.
        entry: The guest module whose ``main`` is called.
        fields: The fields of the request.
        life_s: Seconds for which processes of the request need the workspace, and so valid credentials.
        on_progress: Receives lines about long preparations in the sandbox; None to report no progress.
        secret: Bytes that are sent outside the environment variables, which other processes of the sandbox's user can
            read; None if there is no secret.
    """

    port: SandboxPort
    sandbox_id: str
    entry: str
    fields: Mapping[str, object] = field(repr=False)
    life_s: float
    on_progress: OnProgress | None = field(default=None, repr=False)
    secret: bytes | None = field(default=None, repr=False)

    def extended(self, fields: Mapping[str, object], *, secret: bytes | None = None) -> GuestRequest:
        """Return a copy of this request with further fields; a secret that is not None replaces the present secret."""
        return replace(
            self, fields={**self.fields, **fields}, secret=self.secret if secret is None else secret
        )


Send: TypeAlias = Callable[[GuestRequest], Awaitable[Answer]]


class Attachment(Protocol):
    """Adds a part to calls to the guest, such as the specification of the workspace's mounts. Polls get no part."""

    @property
    def margin_s(self) -> float:
        """Seconds that the work for this part may take in the sandbox, in addition to the request's own time."""
        ...

    async def send(self, send: Send, request: GuestRequest) -> Answer:
        """Send a request with this part, and return its answer.

        If the guest refuses the request before anything runs, for example because it lacks credentials, the attachment
        may send the request again.

        Args:
            send: Sends a request, and returns its answer unchecked.
            request: The request without this part.
        """
        ...

    def error(self, code: str, detail: str) -> WorkspaceError | None:
        """Return the error for a failed set-up that the guest reported; None if the code is not of this attachment."""
        ...
