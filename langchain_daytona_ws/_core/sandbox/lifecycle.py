"""A sandbox's life: created once, found again, confirmed gone, deleted for certain."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable

from langchain_daytona_ws._core.guest_rpc.errors import untrusted
from langchain_daytona_ws._core.ports import FaultKind, PortFault, SandboxInfo, SandboxPort, SandboxSpec
from langchain_daytona_ws._core.sandbox.remedies import NO_RUNNER, create_error
from langchain_daytona_ws.errors import ProvisionError, SandboxUnavailable

logger = logging.getLogger("langchain_daytona_ws")

CREATE_CALL_S = 60.0
RETRY_CREATE_S = 45.0
# Where no request of the session has reached Daytona yet, its address is more likely wrong than Daytona down.
FIRST_REACH_S = 5.0
START_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
REVIVE_WITHIN_S = 60.0
DELETE_WITHIN_S = 60.0
POLL_S = 1.0
BAD_GATEWAY = 502
# A request that was cut off on our side may be carried out a little later.
LINGER_S = (0.0, 0.5, 2.0, 5.0)
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0

_READY = {"started"}
_SLEEPING = {"stopped", "paused"}
_ON_THE_WAY = {
    "creating", "restoring", "starting", "pending_build", "building_snapshot", "pulling_snapshot", "resuming",
    "resizing", "snapshotting", "forking", "unknown",
}  # fmt: skip
_GONE = {"destroyed", "destroying"}
_BEYOND_USE = {"error", "build_failed", "archived"}


async def provision(
    port: SandboxPort,
    spec: SandboxSpec,
    *,
    organization_id: str | None,
    left: Callable[[str], object] = lambda _: None,
    reached_before: bool = True,
) -> SandboxInfo:
    """Create a sandbox that is started, or leave none behind.

    The name in the spec is ours alone, so whatever became of a request whose answer was lost can be found and
    used, or deleted, by it.

    Args:
        port: The API.
        spec: What to create.
        organization_id: Where it has to be; None for anywhere.
        left: Is told the name of what may have been left behind all the same, Daytona not being reachable.
        reached_before: Whether the session has had an answer of Daytona's; without one, no connection is an error soon.

    Raises:
        ProvisionError: None could be had; ``code`` says why, the message what to do.
    """
    try:
        info = await _create(port, spec, reached=reached_before)
        if info.state not in _READY:
            info = await _wait_until_started(port, info)
    except GeneratorExit:
        raise
    except BaseException as error:
        if not (isinstance(error, ProvisionError) and error.context.get("nothing_created")):
            await port.finish(_sweep(port, spec.name, left), within_s=DELETE_WITHIN_S)
        raise
    await check_organization(port, info, organization_id, made_here=True)
    return info


async def check_organization(
    port: SandboxPort, info: SandboxInfo, organization_id: str | None, *, made_here: bool
) -> None:
    """Refuse a sandbox in another organization than the configuration says, and delete it if it was made here.

    Raises:
        ProvisionError: ``code="organization_mismatch"``.
    """
    if organization_id is None or info.organization_id == organization_id:
        return
    if made_here:
        await discard_quietly(port, info.id)
    raise ProvisionError(
        f"The API key belongs to organization {info.organization_id}, but options.organizationId (or "
        f"DAYTONA_ORGANIZATION_ID) says {organization_id}.{' The sandbox was deleted again.' if made_here else ''} "
        "Use a key of that organization, or correct or omit organizationId.",
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
        if last.kind in (FaultKind.NAME_TAKEN, FaultKind.DROPPED, FaultKind.UNREADABLE):
            maybe_created = True
            found = await _look(port, spec.name)
            if found is not None:
                return found
        elif not last.passing and not NO_RUNNER.search(last.message):
            raise create_error(last, nothing_created=not maybe_created)
        reached |= last.kind is not FaultKind.NOT_SENT
        pause_s = max(pause_s, last.retry_after_s or 0.0)
        if port.now() + pause_s > began + (RETRY_CREATE_S if reached else FIRST_REACH_S):
            raise create_error(last, nothing_created=not maybe_created)
        await port.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


async def _look(port: SandboxPort, name: str) -> SandboxInfo | None:
    """Look for a sandbox; a passing fault counts as not seen, since the caller tries again anyway."""
    try:
        return await port.get(name)
    except PortFault as fault:
        if fault.passing:
            return None
        raise create_error(fault, nothing_created=False) from None


async def _wait_until_started(port: SandboxPort, info: SandboxInfo) -> SandboxInfo:
    until = port.now() + START_WITHIN_S
    while port.now() < until:
        found = await _look(port, info.id)
        if found is not None and found.state in _READY:
            return found
        if found is not None and found.state not in _ON_THE_WAY:
            raise failed_to_start(found)
        await port.sleep(POLL_S)
    raise ProvisionError(
        f"The new sandbox {info.id} was not started after {START_WITHIN_S:.0f} s. It is deleted, at the latest at the "
        "end of its time to live, if Daytona does not let go of it before. Try again, and see Daytona's status page if "
        "it happens again.",
        code="create_timeout",
        op="create",
        retryable=True,
        context={"sandbox_id": info.id},
        for_model="No machine could be started in time. Try again later, or tell the user.",
    )


def failed_to_start(found: SandboxInfo) -> ProvisionError:
    """Say what became of a sandbox that was just made."""
    return ProvisionError(
        f"The new sandbox {found.id} went to state {found.state!r} instead of started. It was deleted. Try "
        "again, and look at the snapshot or image if it happens again.",
        code="create_failed",
        op="create",
        retryable=True,
        context={"sandbox_id": found.id, "state": found.state},
        for_model="No machine could be started. Try again later, or tell the user.",
    )


class Revival(enum.Enum):
    """What became of a sandbox that did not answer."""

    READY = "it can be sent to"
    RESTARTED = "it was stopped, and has been started, here or by another session"
    GONE = "it is confirmed gone"
    BEYOND_USE = "it is there, and of no use as it is"


async def revive(port: SandboxPort, info: SandboxInfo) -> Revival:
    """Ask the control plane about a sandbox, and start it if it is only stopped.

    Raises:
        SandboxUnavailable: The control plane did not say.
    """
    until, fault, was_down = port.now() + REVIVE_WITHIN_S, None, False
    while port.now() < until:
        try:
            found = await port.get(info.id)
            if found is None or found.state in _GONE:
                return Revival.GONE
            if found.state in _BEYOND_USE:
                return Revival.BEYOND_USE
            fault = None
            if found.state in _READY:
                return Revival.RESTARTED if was_down else Revival.READY
            was_down = True
            if found.state in _SLEEPING:
                await port.start(info.id, timeout_s=START_WITHIN_S)
                return Revival.RESTARTED
        except PortFault as said:
            fault = said
            if fault.kind is FaultKind.UNTRUSTED:
                raise untrusted(fault) from None
            if not fault.passing and fault.kind is not FaultKind.REFUSED:
                break
        await port.sleep(POLL_S)
    what = fault.message if fault else "it stays in a state change"
    raise SandboxUnavailable(
        f"The sandbox {info.id} does not answer, and Daytona's control plane was no help: {what}. Check the API "
        "key, options.apiUrl, the network and Daytona's status, then try again.",
        op="get",
        retryable=True,
        context={"sandbox_id": info.id, "status": fault.status if fault else None},
        for_model="The machine cannot be reached now. Try again later, or tell the user.",
    ) from None


async def restart(port: SandboxPort, info: SandboxInfo) -> Revival:
    """Stop a sandbox that is started and does not answer, and start it again. Its disk stays as it is.

    Raises:
        SandboxUnavailable: The control plane did not say what became of it.
    """
    try:
        await port.stop(info.id, timeout_s=STOP_WITHIN_S)
    except PortFault as fault:
        # Another session may be doing the same: the control plane knows how far that is.
        logger.warning("stopping sandbox %s, which does not answer: %s", info.id, fault)
    return await revive(port, info)


async def answers(port: SandboxPort, info: SandboxInfo) -> bool:
    """Return False if Daytona's gateway reports that it cannot reach the sandbox's daemon."""
    try:
        await port.ping(info.id)
    except PortFault as fault:
        return fault.status != BAD_GATEWAY
    return True


async def discard(port: SandboxPort, id_or_name: str) -> None:
    """Delete a sandbox for certain; one that is gone already is fine.

    Raises:
        SandboxUnavailable: It could not be deleted within a minute; its auto-stop and TTL will end it.
    """
    until, pause_s = port.now() + DELETE_WITHIN_S, FIRST_PAUSE_S
    while True:
        try:
            return await port.delete(id_or_name)
        except PortFault as fault:
            # Deletion during a state change answers 409 (Daytona API), so it is asked again.
            if not fault.passing or port.now() >= until:
                raise not_deleted(id_or_name, fault.message) from fault
            asked_s = max(pause_s, fault.retry_after_s or 0.0)
        await port.sleep(min(asked_s, max(until - port.now(), 0.0)))
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


def not_deleted(sandbox_id: str, why: str) -> SandboxUnavailable:
    """Say that a sandbox is still there, and what will become of it."""
    return SandboxUnavailable(
        f"The sandbox {sandbox_id} could not be deleted: {why}. Close the session again, or delete it in the "
        "Daytona dashboard; an ephemeral one is deleted by itself after 15 minutes without a request.",
        code="not_deleted",
        op="delete",
        retryable=True,
        context={"sandbox_id": sandbox_id},
        for_model="The machine could not be deleted. Tell the user.",
    )


async def discard_quietly(port: SandboxPort, id_or_name: str) -> None:
    """Delete a sandbox where another error is being raised already: what goes wrong is logged."""
    try:
        await discard(port, id_or_name)
    except SandboxUnavailable as error:
        logger.warning("%s", error)


async def _sweep(port: SandboxPort, name: str, left: Callable[[str], object]) -> None:
    """Delete what a create that nobody waited for may have made, or may still make."""
    looked = False
    for pause_s in LINGER_S:
        await port.sleep(pause_s)
        try:
            found = await port.get(name)
        except PortFault as fault:
            logger.warning("looking for sandbox %s after a failed start: %s", name, fault)
            looked = False
            continue
        looked = True
        if found is not None:
            try:
                await discard(port, found.id)
            except SandboxUnavailable as error:
                logger.warning("%s", error)
                left(name)
            return
    if not looked:
        left(name)
