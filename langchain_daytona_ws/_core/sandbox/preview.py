"""Signed links to ports of the sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from langchain_daytona_ws._core.ports import PortFault, SandboxInfo, SandboxPort
from langchain_daytona_ws._core.sandbox import lifecycle
from langchain_daytona_ws._core.sandbox.remedies import remedy_for
from langchain_daytona_ws.errors import CommandRefused, SandboxError, SandboxUnavailable

# Daytona makes links for these ports only (Daytona's documentation). It may use other ports itself: 22222 is its web
# terminal.
PORTS = range(3000, 10_000)
EXPIRES_S = 3600
EXPIRES_MAX_S = 24 * 3600  # assumed: Daytona's limit
TRIES = 4
FIRST_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class PreviewUrl:
    """A link to a server in the sandbox. Anyone with the link can use the server.

    Attributes:
        url: The link, which contains a secret token. The ``repr`` of this object does not show it.
        port: The port in the sandbox.
        expires_at: Time of expiry, in Unix seconds on the host's clock.
        sandbox_id: The sandbox.
    """

    url: str = field(repr=False)
    port: int
    expires_at: float
    sandbox_id: str


def check_preview(port: int, expires_s: float) -> None:
    """Check the arguments before any request or approval.

    Raises:
        CommandRefused: The port is not from 3000 to 9999, or the time is not a whole number from 1 to 86,400.
    """
    if isinstance(port, bool) or not isinstance(port, int) or port not in PORTS:
        raise CommandRefused(
            f"The port must be a whole number from {PORTS[0]} to {PORTS[-1]}: Daytona makes preview links for these "
            "ports only. Let the server listen on one of them.",
            code="preview_port",
            op="preview",
        )
    if isinstance(expires_s, bool) or not 1 <= expires_s <= EXPIRES_MAX_S or expires_s != int(expires_s):
        raise CommandRefused(
            f"A preview link ends after a whole number of seconds from 1 to {EXPIRES_MAX_S:,}.",
            code="preview_time",
            op="preview",
        )


async def preview_url(
    api: SandboxPort,
    sandbox: lifecycle.SandboxRecord,
    acquire: Callable[[], Awaitable[SandboxInfo]],
    port: int,
    *,
    expires_s: float,
    may_exist: bool,
    now: Callable[[], float],
) -> PreviewUrl:
    """Start the sandbox if it is stopped, then return a signed link to a port.

    Args:
        api: The API.
        sandbox: The state of the session's sandbox.
        acquire: Returns the sandbox. If a persistent sandbox is stopped, starts it first.
        port: The port.
        expires_s: Seconds after which the link expires, a whole number.
        may_exist: False if the sandbox cannot exist yet. Then the call is refused, because no server can be running.
        now: Returns the Unix time in seconds.

    Raises:
        CommandRefused: An argument is invalid, or there is no sandbox yet (``code="no_server"``).
        SandboxError: Daytona refused or could not be reached, or the sandbox is gone or cannot be used.
        ProvisionError: As ``acquire`` raises.
    """
    check_preview(port, expires_s)
    if not may_exist:
        raise CommandRefused(
            "There is no sandbox yet, so no server runs in it. Start the server first, for example with "
            "session.jobs.start().",
            code="no_server",
            op="preview",
            for_model="No server runs yet. Start it first: bash with background: true.",
        )
    info, starts = await acquire(), sandbox.starts
    revival = await lifecycle.revive(api, info)
    if revival is lifecycle.Revival.RESTARTED:
        sandbox.record_restart(starts)
    elif revival is lifecycle.Revival.GONE:
        sandbox.record_loss(info)
        raise _lost(info, "sandbox_gone", "is gone")
    elif revival is lifecycle.Revival.UNUSABLE:
        sandbox.record_failure(info)
        raise _lost(info, "sandbox_failed", "has failed")
    pause_s = FIRST_PAUSE_S
    for tries_left in reversed(range(TRIES)):
        began = now()
        try:
            url = await api.preview_url(info.id, port, expires_s=int(expires_s))
        except PortFault as fault:
            if not tries_left or not fault.passing:
                raise _refused(fault, port, info) from None
            await api.sleep(max(pause_s, min(fault.retry_after_s or 0.0, 5.0)))
            pause_s *= 2
        else:
            return PreviewUrl(url, port, began + expires_s, info.id)
    raise AssertionError("the last try returns or raises")


def _refused(fault: PortFault, port: int, info: SandboxInfo) -> SandboxError:
    code, remedy = remedy_for(fault)
    return SandboxError(
        f"No preview link for port {port} could be made: {fault.message}. {remedy}",
        code=code,
        op="preview",
        retryable=fault.passing,
        context={"sandbox_id": info.id, "status": fault.status},
        for_model="The preview link could not be made. Tell the user.",
    )


def _lost(info: SandboxInfo, code: str, event: str) -> SandboxUnavailable:
    return SandboxUnavailable(
        f"The sandbox {info.id} {event}, and with it the server. Start the server again.",
        code=code,
        op="preview",
        context={"sandbox_id": info.id},
        for_model=f"The machine {event}, and the server with it. Start the server again with bash.",
    )
