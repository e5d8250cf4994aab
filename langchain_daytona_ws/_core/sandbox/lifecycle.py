"""Create, check, restart and delete a sandbox. Retries of a create do not create a second sandbox."""

from __future__ import annotations

import enum
import logging
import re
from collections.abc import Callable
from typing import Protocol

from langchain_daytona_ws._core.guest_rpc.errors import untrusted
from langchain_daytona_ws._core.ports import FaultKind, PortFault, SandboxInfo, SandboxPort, SandboxSpec
from langchain_daytona_ws._core.sandbox.remedies import NO_RUNNER, create_error
from langchain_daytona_ws.errors import ConfigError, ProvisionError, SandboxUnavailable

logger = logging.getLogger("langchain_daytona_ws")

CREATE_CALL_S = 60.0
RETRY_CREATE_S = 45.0
# Limit of the retries if Daytona has never answered this session: then the address is probably wrong.
FIRST_REACH_S = 5.0
START_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
REVIVE_WITHIN_S = 60.0
DELETE_WITHIN_S = 60.0
POLL_S = 1.0
BAD_GATEWAY = 502
# Pauses before each check for the sandbox of an aborted create, which may still appear.
LINGER_S = (0.0, 0.5, 2.0, 5.0)
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0

_READY = {"started"}
_SLEEPING = {"stopped", "paused"}
_STARTING = {
    "creating", "restoring", "starting", "pending_build", "building_snapshot", "pulling_snapshot", "resuming",
    "resizing", "snapshotting", "forking", "unknown",
}  # fmt: skip
_GONE = {"destroyed", "destroying"}
_UNUSABLE = {"error", "build_failed", "archived"}


async def provision(
    port: SandboxPort,
    spec: SandboxSpec,
    *,
    organization_id: str | None,
    on_left: Callable[[str], object] = lambda _: None,
    on_gone: Callable[[str], object] = lambda _: None,
    reached_before: bool = True,
) -> SandboxInfo:
    """Create a sandbox, and return it when it is started. After a failure, delete the sandbox if it was created.

    If the answer to the request is lost, the sandbox is found by the name in the spec, which must be unique.

    Args:
        port: The API.
        spec: The sandbox to create.
        organization_id: The organization that the sandbox must belong to; None for any organization.
        on_left: Called with the sandbox's name after a failure, if the sandbox may exist: before it is deleted, because
            the deletion may be interrupted.
        on_gone: Called with the sandbox's name when it was deleted, or did not appear.
        reached_before: False if Daytona has never answered this session: then a failed connection is retried for 5
            seconds only.

    Raises:
        ProvisionError: No sandbox was created or started, or it is in another organization. ``code`` names the cause,
            the message a remedy.
    """
    try:
        info = await _create(port, spec, reached=reached_before)
        if info.state not in _READY:
            info = await _wait_until_started(port, info)
        check_organization(info, organization_id)
    except BaseException as error:
        # `ConfigError`: there is no client, so no request was sent.
        nothing_created = isinstance(error, ProvisionError) and error.context.get("nothing_created")
        if not (nothing_created or isinstance(error, ConfigError)):
            on_left(spec.name)
            if not isinstance(error, GeneratorExit):  # the event loop was closed: no request is possible
                await port.finish(sweep(port, spec.name, on_gone), within_s=DELETE_WITHIN_S)
        raise
    return info


def check_organization(info: SandboxInfo, organization_id: str | None) -> None:
    """Raise ``organization_mismatch`` if a sandbox is in another organization."""
    if organization_id is None or info.organization_id == organization_id:
        return
    raise ProvisionError(
        f"The API key belongs to organization {info.organization_id}, but options.organizationId (or "
        f"DAYTONA_ORGANIZATION_ID) says {organization_id}. Use a key of that organization, or correct or omit "
        "organizationId.",
        code="organization_mismatch",
        op="create",
        for_model="No machine could be had: the account is set up wrongly. Tell the user.",
    )


async def _create(port: SandboxPort, spec: SandboxSpec, *, reached: bool) -> SandboxInfo:
    pause_s, maybe_created, began = FIRST_PAUSE_S, False, port.now()
    while True:
        try:
            return await port.create(spec, timeout_s=CREATE_CALL_S)
        except PortFault as fault:
            last = fault
        # Without an HTTP status, the SDK gave up itself, for example because the new sandbox is in an error state.
        maybe_created |= last.status is None and last.kind is FaultKind.REFUSED
        if last.kind in (FaultKind.NAME_TAKEN, FaultKind.DROPPED, FaultKind.UNREADABLE):
            maybe_created = True
            found = await _find(port, spec.name)
            if found is not None:
                return found
        elif not last.passing and not re.search(NO_RUNNER, last.message):
            raise create_error(last, nothing_created=not maybe_created)
        reached |= last.kind is not FaultKind.NOT_SENT
        pause_s = max(pause_s, last.retry_after_s or 0.0)
        if port.now() + pause_s > began + (RETRY_CREATE_S if reached else FIRST_REACH_S):
            raise create_error(last, nothing_created=not maybe_created)
        await port.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


async def _find(port: SandboxPort, name: str) -> SandboxInfo | None:
    """Return a sandbox; None if it does not exist, or after a temporary fault. After None, all callers try again."""
    try:
        return await port.get(name)
    except PortFault as fault:
        if fault.passing:
            return None
        raise create_error(fault, nothing_created=False) from None


async def _wait_until_started(port: SandboxPort, info: SandboxInfo) -> SandboxInfo:
    until = port.now() + START_WITHIN_S
    while port.now() < until:
        found = await _find(port, info.id)
        if found is not None and found.state in _READY:
            return found
        if found is not None and found.state not in _STARTING:
            raise failed_to_start(found)
        await port.sleep(POLL_S)
    raise ProvisionError(
        f"The new sandbox {info.id} was not started after {START_WITHIN_S:.0f} s. It is deleted, at the latest at the "
        "end of its time to live. Try again, and see Daytona's status page if it happens again.",
        code="create_timeout",
        op="create",
        retryable=True,
        context={"sandbox_id": info.id},
        for_model="No machine could be started in time. Try again later, or tell the user.",
    )


def failed_to_start(found: SandboxInfo) -> ProvisionError:
    return ProvisionError(
        f"The new sandbox {found.id} went to state {found.state!r} instead of started. Try again, and "
        "check the snapshot or image if it happens again.",
        code="create_failed",
        op="create",
        retryable=True,
        context={"sandbox_id": found.id, "state": found.state},
        for_model="No machine could be started. Try again later, or tell the user.",
    )


class SandboxRecord(Protocol):
    """The known state of a session's sandbox."""

    @property
    def is_persistent(self) -> bool:
        """Whether the sandbox still exists, with its disk, after a stop."""
        ...

    @property
    def starts(self) -> int:
        """Number of known starts. Read it before a request, and pass it to `record_restart` afterwards."""
        ...

    def record_loss(self, info: SandboxInfo) -> None:
        """Record that the sandbox is gone."""

    def record_failure(self, info: SandboxInfo) -> None:
        """Record that the sandbox still exists, but cannot be used."""

    def record_restart(self, since: int) -> None:
        """Record a restart if ``starts`` is still ``since``; otherwise another call has recorded it already."""


class Revival(enum.Enum):
    """The state of a sandbox that did not answer, according to the control plane (Daytona's central API)."""

    READY = "it is started"
    RESTARTED = "it was stopped, and has been started, here or by another session"
    GONE = "it is confirmed gone"
    UNUSABLE = "it exists, and cannot be used"


async def revive(port: SandboxPort, info: SandboxInfo, *, starts: bool = True) -> Revival:
    """Read a sandbox's state from the control plane, start the sandbox if it is stopped, and return the new state.

    If ``starts`` is False, return `Revival.UNUSABLE` for a stopped sandbox instead.

    Raises:
        SandboxUnavailable: The control plane returned no state, or a state change did not end in time.
    """
    until, fault, was_down = port.now() + REVIVE_WITHIN_S, None, False
    while port.now() < until:
        try:
            found = await port.get(info.id)
            if found is None or found.state in _GONE:
                return Revival.GONE
            if found.state in _UNUSABLE:
                return Revival.UNUSABLE
            fault = None
            if found.state in _READY:
                return Revival.RESTARTED if was_down else Revival.READY
            was_down = True
            if found.state in _SLEEPING and not starts:
                return Revival.UNUSABLE
            if found.state in _SLEEPING:
                await port.start(info.id, timeout_s=START_WITHIN_S)
                return Revival.RESTARTED
        except PortFault as caught:
            fault = caught
            if fault.kind is FaultKind.UNTRUSTED:
                raise untrusted(fault) from None
            if not fault.passing and fault.kind is not FaultKind.REFUSED:
                break
        await port.sleep(POLL_S)
    problem = fault.message if fault else "it stays in a state change"
    raise SandboxUnavailable(
        f"The sandbox {info.id} does not answer, and Daytona's control plane returned no state: {problem}. Check "
        "the API key, options.apiUrl, the network and Daytona's status, then try again.",
        op="get",
        retryable=True,
        context={"sandbox_id": info.id, "status": fault.status if fault else None},
        for_model="The machine cannot be reached now. Try again later, or tell the user.",
    ) from None


async def restart(port: SandboxPort, info: SandboxInfo) -> Revival:
    """Stop a persistent sandbox that is started but does not answer, then call `revive` to start it. Its disk is kept.

    An ephemeral sandbox must not be stopped: Daytona deletes it when it stops.
    """
    try:
        await port.stop(info.id, timeout_s=STOP_WITHIN_S)
    except PortFault as fault:
        # Another session may be restarting the sandbox. `revive` waits for the end of the restart.
        logger.warning("could not stop sandbox %s, which does not answer: %s", info.id, fault)
    return await revive(port, info)


async def is_reachable(port: SandboxPort, info: SandboxInfo) -> bool:
    """Return False if the gateway reports that it cannot reach the sandbox's daemon; True in all other cases."""
    try:
        await port.ping(info.id)
    except PortFault as fault:
        return fault.status != BAD_GATEWAY
    return True


async def discard(port: SandboxPort, id_or_name: str, *, within_s: float = DELETE_WITHIN_S) -> None:
    """Delete a sandbox if it still exists. After a temporary fault, repeat the request for ``within_s`` seconds.

    Raises:
        SandboxUnavailable: Daytona refused the deletion, or the sandbox could not be deleted in this time.
    """
    until, pause_s = port.now() + within_s, FIRST_PAUSE_S
    while True:
        try:
            return await port.delete(id_or_name)
        except PortFault as fault:
            # During a state change, Daytona refuses the deletion with 409: repeat it.
            if not fault.passing or port.now() >= until:
                raise not_deleted(id_or_name, fault.message) from fault
            wait_s = max(pause_s, fault.retry_after_s or 0.0)
        await port.sleep(min(wait_s, max(until - port.now(), 0.0)))
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


def not_deleted(sandbox_id: str, cause: str) -> SandboxUnavailable:
    return SandboxUnavailable(
        f"The sandbox {sandbox_id} could not be deleted: {cause}. Close the session again, or delete it in the "
        "Daytona dashboard; an ephemeral one is deleted by itself after 15 minutes without a request.",
        code="not_deleted",
        op="delete",
        retryable=True,
        context={"sandbox_id": sandbox_id},
        for_model="The machine could not be deleted. Tell the user.",
    )


async def discard_quietly(port: SandboxPort, id_or_name: str) -> bool:
    """Delete a sandbox. Log a failure and return False, because the caller already raises an error."""
    try:
        await discard(port, id_or_name)
    except SandboxUnavailable as error:
        logger.warning("%s", error)
        return False
    return True


async def sweep(port: SandboxPort, name: str, on_gone: Callable[[str], object]) -> None:
    """Delete the sandbox of a failed or aborted create, which may still appear.

    Call ``on_gone`` with the name if the sandbox was deleted, or did not appear.
    """
    is_gone = False
    for pause_s in LINGER_S:
        await port.sleep(pause_s)
        try:
            found = await port.get(name)
        except PortFault as fault:
            logger.warning("could not check sandbox %s after a failed start: %s", name, fault)
            is_gone = False
            continue
        is_gone = found is None or await discard_quietly(port, found.id)
        if found is not None:
            break
    if is_gone:
        on_gone(name)
