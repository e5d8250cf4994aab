"""Claim the one sandbox of a workspace: find it and bring it to life, or create it.

A sandbox's name is unique in its organization (Daytona API: 409 for a second one), so creating it under a name that
follows from the workspace is the claim. Whoever loses that race uses the winner's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from langchain_daytona_ws._core.ports import FaultKind, PortFault, SandboxInfo, SandboxPort, SandboxSpec
from langchain_daytona_ws._core.sandbox import lifecycle
from langchain_daytona_ws._core.sandbox.remedies import NO_RUNNER, create_error
from langchain_daytona_ws._core.sandbox.reservation import MANAGED_BY
from langchain_daytona_ws.errors import ProvisionError

logger = logging.getLogger("langchain_daytona_ws")

CLAIM_WITHIN_S = 300.0
# Sending the same create again, or looking whether somebody else's has come through.
FIRST_PAUSE_S = 0.3
LONGEST_PAUSE_S = 5.0

_LEAVING = {"destroyed", "destroying"}
_SLEEPING = {"stopped", "paused", "archived"}
_FAILED = {"error", "build_failed"}
# A refused change is mostly one that is being made already; of these nobody need wait for the end.
_FOR_GOOD = {"quota", "organization_suspended", "api_key_expired"}

RESTARTED_NOTICE = (
    "The machine had been stopped, and was started again: files and packages on it are there, processes are "
    "not"
)
RECOVERED_NOTICE = (
    "The machine had failed, and was recovered: files on it are there, as far as they were saved; processes are "
    "not"
)
REPLACED_NOTICE = (
    "The machine had failed for good, and was replaced: what was on its own disk, packages and processes are "
    "gone"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """The sandbox that was had, and what the next result should say about it."""

    info: SandboxInfo
    created: bool = False
    notice: str | None = None


async def claim(port: SandboxPort, spec: SandboxSpec, *, reached_before: bool = True) -> Claim:
    """Find the sandbox of this name and bring it to life, or create it.

    Args:
        port: The API.
        spec: With the name and the labels, by which a sandbox that is there is known for ours.
        reached_before: As in `lifecycle.provision`.

    Raises:
        ProvisionError: None could be had: refused by Daytona, somebody else's under this name (``name_taken``), made
            from another configuration (``config_changed``), or in the midst of a change for too long (``stuck``).
    """
    search = _Search(port, spec, reached=reached_before)
    while True:
        found = await search.look()
        if found is None:
            made = await search.create()
            if made is not None and made.state == "started":
                return Claim(made, created=True, notice=search.notice)
            continue  # it is on its way, or somebody else was faster
        if found.state in _LEAVING:
            await search.pause(found)  # its name is free in a moment
            continue
        check_ours(found, spec)
        if found.state == "started":
            return Claim(found, created=search.created == found.id, notice=search.notice)
        if found.state in _SLEEPING:
            await search.wake(found)
        elif found.state in _FAILED:
            await search.mend(found)
        else:
            await search.pause(found)


async def find(port: SandboxPort, spec: SandboxSpec) -> SandboxInfo | None:
    """Look for the workspace's sandbox, from whatever configuration it was made; None when there is none.

    Raises:
        ProvisionError: There is one of this name that is not this library's (``name_taken``), or Daytona refused.
    """
    found = await _Search(port, spec).look()
    if found is None or found.state in _LEAVING:
        return None
    check_ours(
        found, replace(spec, labels={**spec.labels, "config-hash": found.labels.get("config-hash", "")})
    )
    return found


def check_ours(found: SandboxInfo, spec: SandboxSpec) -> None:
    """Refuse a sandbox that is not this library's, or was made from something else.

    Raises:
        ProvisionError: With every remedy.
    """
    if not _is_ours(found, spec):
        raise ProvisionError(
            f"The sandbox {found.name} ({found.id}) has the name of this workspace's, and not its labels. Delete or "
            "rename it in the Daytona dashboard, or use another namespace.",
            code="name_taken",
            op="claim",
            context={"sandbox_id": found.id},
            for_model=_FOR_MODEL,
        )
    if found.labels.get("config-hash") != spec.labels["config-hash"]:
        raise ProvisionError(
            f"The workspace's sandbox {found.name} ({found.id}) was made from another configuration (snapshot, image, "
            "target, workspaceRoot, network or buckets). Use that configuration, or delete the sandbox, and what is on "
            f"its own disk with it: session.release(), or `langchain-daytona-ws sandboxes release {found.name}`.",
            code="config_changed",
            op="claim",
            context={"sandbox_id": found.id},
            for_model=_FOR_MODEL,
        )


def _is_ours(found: SandboxInfo, spec: SandboxSpec) -> bool:
    expected = {"managed-by": MANAGED_BY, "namespace": spec.labels["namespace"]}
    return all(found.labels.get(name) == value for name, value in expected.items())


_FOR_MODEL = "The workspace's machine cannot be used: it is set up differently. Nothing ran. Tell the user."


class _Search:
    """What one claim has done so far."""

    def __init__(self, port: SandboxPort, spec: SandboxSpec, *, reached: bool = True) -> None:
        self.notice: str | None = None
        self.created = ""  # id of one that was made here and is still on its way
        self._tried: set[str] = set()  # what was done to whom: doing it again must not go on without a pause
        self._port = port
        self._spec = spec
        self._began = port.now()
        self._reached = reached
        self._pause_s = FIRST_PAUSE_S

    async def look(self) -> SandboxInfo | None:
        return await self._asked(lambda: self._port.get(self._spec.name))

    async def create(self) -> SandboxInfo | None:
        """Create it; None when it has to be looked for, since another may have, or the answer was lost."""
        try:
            made = await self._port.create(self._spec, timeout_s=lifecycle.CREATE_CALL_S)
        except PortFault as fault:
            if fault.kind is not FaultKind.NAME_TAKEN:
                if not fault.passing and not NO_RUNNER.search(fault.message):
                    await self._clear_away()
                    raise create_error(fault, nothing_created=True) from None
                await self.pause(None, fault)
            elif self._again("taken"):
                # Whoever has the name is not to be seen: a look may be answered from before it was taken.
                await self.pause(None, fault)
            return None
        self.created = made.id
        return made

    async def _clear_away(self) -> None:
        """Delete what a refused create may have left: nobody else would, since only what is stopped is auto-deleted."""
        try:
            left = await self._port.get(self._spec.name)
        except PortFault as fault:
            logger.warning("looking for sandbox %s after a failed create: %s", self._spec.name, fault)
            return
        if left is not None and left.state in _FAILED and _is_ours(left, self._spec):
            await lifecycle.discard_quietly(self._port, left.id)

    async def wake(self, found: SandboxInfo) -> None:
        if self._again(f"start {found.id}"):
            await self.pause(found)
        if await self._changed(found, lambda: self._port.start(found.id, timeout_s=lifecycle.START_WITHIN_S)):
            self.notice = self.notice or RESTARTED_NOTICE

    async def mend(self, found: SandboxInfo) -> None:
        """Recover it where Daytona can; otherwise it is of no use to anybody, and a new one takes its place.

        Raises:
            ProvisionError: It is the one that was made here: another would end alike.
        """
        if found.recoverable and not self._again(f"recover {found.id}"):
            if await self._changed(
                found, lambda: self._port.recover(found.id, timeout_s=lifecycle.START_WITHIN_S)
            ):
                self.notice = RECOVERED_NOTICE
            return
        if found.id == self.created:
            await lifecycle.discard_quietly(self._port, found.id)
            raise lifecycle.failed_to_start(found)
        if self._again(f"delete {found.id}"):
            await self.pause(found)
        logger.warning(
            "sandbox %s is in state %s for good: it is deleted and made anew", found.id, found.state
        )
        if await self._changed(found, lambda: self._port.delete(found.id)):
            self.notice = REPLACED_NOTICE

    def _again(self, deed: str) -> bool:
        """Take note of a deed; return whether it had been done before."""
        again = deed in self._tried
        self._tried.add(deed)
        return again

    async def _changed(self, found: SandboxInfo, change: Callable[[], Awaitable[None]]) -> bool:
        """Ask for a change of state; False when somebody else's is in progress, or the answer was lost."""
        try:
            await change()
        except PortFault as fault:
            error = create_error(fault, nothing_created=True)
            may_pass = fault.kind in (FaultKind.NOT_FOUND, FaultKind.REFUSED) and error.code not in _FOR_GOOD
            if not fault.passing and not may_pass:
                raise error from None
            await self.pause(found, fault)
            return False
        return True

    async def _asked(self, question: Callable[[], Awaitable[SandboxInfo | None]]) -> SandboxInfo | None:
        while True:
            try:
                return await question()
            except PortFault as fault:
                if not fault.passing:
                    raise create_error(fault, nothing_created=True) from None
                await self.pause(None, fault)

    async def pause(self, found: SandboxInfo | None, fault: PortFault | None = None) -> None:
        """Wait a little longer each time.

        Raises:
            ProvisionError: The time is up.
        """
        self._reached |= fault is None or fault.kind is not FaultKind.NOT_SENT
        within_s = CLAIM_WITHIN_S if self._reached else lifecycle.FIRST_REACH_S
        pause_s = max(self._pause_s, (fault.retry_after_s or 0.0) if fault else 0.0)
        if self._port.now() + pause_s > self._began + within_s:
            if fault is not None:
                raise create_error(fault, nothing_created=True)
            raise self._stuck(found)
        await self._port.sleep(pause_s)
        self._pause_s = min(self._pause_s * 1.5, LONGEST_PAUSE_S)

    def _stuck(self, found: SandboxInfo | None) -> ProvisionError:
        state = found.state if found else "unknown"
        return ProvisionError(
            f"The workspace's sandbox {self._spec.name} has been in state {state!r} for {CLAIM_WITHIN_S:.0f} s. Wait, "
            "look at it in the Daytona dashboard, or delete it, and what is on its own disk with it: "
            f"session.release(), or `langchain-daytona-ws sandboxes release {self._spec.name}`.",
            code="stuck",
            op="claim",
            retryable=True,
            context={"sandbox_id": found.id if found else None, "state": state},
            for_model="The workspace's machine is not ready. Nothing ran. Try again later, or tell the user.",
        )
