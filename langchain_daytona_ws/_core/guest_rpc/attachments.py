"""The interface of attachments, which add fields to calls to the guest, such as mount credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.ports import SandboxPort
from langchain_daytona_ws.errors import WorkspaceError

OnProgress = Callable[[str], Awaitable[None]]

# Maximum number of times that an attachment sends a request: without credentials; if the guest needs them, with cached
# credentials; if it refuses these, with new ones. Requests that are repeated during a long pull do not count.
SENDS_MAX = 3


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """A request to the guest.

    Args:
        entry: The guest module whose ``main`` is called.
        fields: The fields of the request that ``main`` receives.
        life_s: Seconds for which processes of the request use the workspace. Credentials must stay valid as long.
        on_progress: Receives lines about long preparations in the sandbox; None to report no progress.
        secret: Bytes for the guest; None if there is no secret. They are not sent in environment variables, which other
            processes of the sandbox's user can read.
    """

    port: SandboxPort
    sandbox_id: str
    entry: str
    fields: Mapping[str, object] = field(repr=False)
    life_s: float
    on_progress: OnProgress | None = field(default=None, repr=False)
    secret: bytes | None = field(default=None, repr=False)

    def extended(self, fields: Mapping[str, object], *, secret: bytes | None = None) -> GuestRequest:
        """Return a copy of this request with further fields and, if ``secret`` is not None, another secret."""
        return replace(
            self, fields={**self.fields, **fields}, secret=self.secret if secret is None else secret
        )


Send: TypeAlias = Callable[[GuestRequest], Awaitable[Answer]]


class Attachment(Protocol):
    """Adds fields to calls to the guest, such as the specification of a mount. Polls are sent without attachments."""

    @property
    def margin_s(self) -> float:
        """Additional seconds that the guest may need because of this attachment."""
        ...

    async def send(self, send: Send, request: GuestRequest) -> Answer:
        """Add the fields to a request, send it, and return its answer.

        If the guest refuses the request before anything runs, for example because credentials are missing, the
        attachment may send the request again. The answer that the argument ``send`` returns is unchecked.
        """
        ...

    def error(self, code: str, detail: str) -> WorkspaceError | None:
        """Return the error for a set-up failure of the guest; None if the code does not belong to this attachment."""
        ...
