"""Get the persistent sandbox of a workspace: find and start it, or create it.

The workspace determines the name of its sandbox. The name is unique in the organization (Daytona API: a second create
answers 409). If several sessions create the sandbox at the same time, one succeeds, and all use its sandbox.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable
from dataclasses import replace
from typing import NamedTuple

from langchain_daytona_ws._core.ports import FaultKind, PortFault, SandboxInfo, SandboxPort, SandboxSpec
from langchain_daytona_ws._core.sandbox import lifecycle
from langchain_daytona_ws._core.sandbox.remedies import NO_RUNNER, create_error
from langchain_daytona_ws._core.sandbox.specification import MANAGED_BY
from langchain_daytona_ws.errors import ProvisionError

logger = logging.getLogger("langchain_daytona_ws")

WITHIN_S = 300.0
# Pauses before a request is repeated.
FIRST_PAUSE_S = 0.3
LONGEST_PAUSE_S = 5.0

_DELETING = {"destroyed", "destroying"}
_SLEEPING = {"stopped", "paused", "archived"}
_FAILED = {"error", "build_failed"}
# A refused start or deletion is tried again later, because it is usually in progress already. For these causes, waiting
# does not help.
_PERMANENT = {"quota", "organization_suspended", "api_key_expired"}

RESTARTED_NOTICE = (
    "The machine had been stopped, and was started again: "
    "files and packages on it are there, processes are not"
)
RECOVERED_NOTICE = (
    "The machine had failed, and was recovered: "
    "files on it are there, as far as they were saved; processes are not"
)
REPLACED_NOTICE = (
    "The machine had failed for good, and was replaced: "
    "what was on its own disk, packages and processes are gone"
)


class Acquired(NamedTuple):
    """A started sandbox."""

    info: SandboxInfo
    created: bool = False  # True if this call created the sandbox, and got the answer of the create
    notice: str | None = None  # text for the next result, such as "the machine was restarted"


async def get_or_create(port: SandboxPort, spec: SandboxSpec, *, reached_before: bool = True) -> Acquired:
    """Find the sandbox of this name and start it, or create it. The labels show whether an existing one can be used.

    For ``reached_before``, see `lifecycle.provision`.

    Raises:
        ProvisionError: Daytona refused a request or could not be reached. Other codes: ``create_failed``: the new
            sandbox did not start. ``stuck``: the sandbox did not leave its state in time. ``name_taken``: the name
            belongs to a sandbox that this package did not create for this workspace. ``config_changed``: the sandbox
            was created with another configuration.
    """
    search = _Search(port, spec, reached=reached_before)
    while True:
        found = await search.get()
        if found is None:
            made = await search.create()
            if made is not None and made.state == "started":
                return Acquired(made, created=True, notice=search.notice)
            continue  # the sandbox is not started yet, or the search must be repeated
        if found.state in _DELETING:
            await search.pause(found)  # the name is free when the deletion is complete
            continue
        check_ours(found, spec)
        if found.state == "started":
            await search.update_labels(found)
            return Acquired(found, created=search.created_id == found.id, notice=search.notice)
        if found.state in _SLEEPING:
            await search.start(found)
        elif found.state in _FAILED:
            await search.repair(found)
        else:
            await search.pause(found)


async def find(port: SandboxPort, spec: SandboxSpec) -> SandboxInfo | None:
    """Return the workspace's sandbox, even if it was created with another configuration.

    Return None if there is no sandbox, or if the sandbox is being deleted.

    Raises:
        ProvisionError: Daytona refused the request or could not be reached; or ``name_taken``, as in `get_or_create`.
    """
    found = await _Search(port, spec).get()
    if found is None or found.state in _DELETING:
        return None
    check_ours(
        found, replace(spec, labels={**spec.labels, "config-hash": found.labels.get("config-hash", "")})
    )
    return found


def check_ours(found: SandboxInfo, spec: SandboxSpec) -> None:
    """Raise ``name_taken`` or ``config_changed`` (see `get_or_create`) if the session must not use the sandbox."""
    if not _is_ours(found, spec):
        raise ProvisionError(
            f"A sandbox named {found.name} ({found.id}) exists but was not created by this package for this workspace "
            "(its labels differ). Delete or rename it in the Daytona dashboard, or use another namespace.",
            code="name_taken",
            op="get_or_create",
            context={"sandbox_id": found.id},
            for_model=_FOR_MODEL,
        )
    if found.labels.get("config-hash") != spec.labels["config-hash"]:
        raise ProvisionError(
            f"The workspace's sandbox {found.name} ({found.id}) was made from another configuration (snapshot, image, "
            "resources, user, target, workspaceRoot, network, s3Mode or buckets). Use that configuration, or delete "
            "the sandbox, and what is on its own disk with it: session.release(), or `langchain-daytona-ws sandboxes "
            f"release {found.name}`.",
            code="config_changed",
            op="get_or_create",
            context={"sandbox_id": found.id},
            for_model=_FOR_MODEL,
        )


def _is_ours(found: SandboxInfo, spec: SandboxSpec) -> bool:
    expected = {"managed-by": MANAGED_BY, "namespace": spec.labels["namespace"]}
    return all(found.labels.get(name) == value for name, value in expected.items())


_FOR_MODEL = "The workspace's machine cannot be used: it is set up differently. Nothing ran. Tell the user."


class _Search:
    """The requests and the progress of one call of `get_or_create`."""

    def __init__(self, port: SandboxPort, spec: SandboxSpec, *, reached: bool = True) -> None:
        self.notice: str | None = None
        self.created_id = ""  # "" if this search created no sandbox, or the answer of its create was lost
        self._tried: set[str] = set()  # requested changes: wait before one is repeated
        self._port = port
        self._spec = spec
        self._began = port.now()
        self._reached = reached
        self._pause_s = FIRST_PAUSE_S

    async def get(self) -> SandboxInfo | None:
        """Return the sandbox of this name; None if there is none. After a temporary fault, wait and try again."""
        while True:
            try:
                return await self._port.get(self._spec.name)
            except PortFault as fault:
                if not fault.passing:
                    problem = f"The workspace's sandbox {self._spec.name} could not be looked up:"
                    raise create_error(fault, nothing_created=True, problem=problem) from None
                await self.pause(None, fault)

    async def create(self) -> SandboxInfo | None:
        """Create the sandbox and return it.

        Return None to search for the sandbox again: the name is taken, the answer was lost, or the create may succeed
        later.
        """
        try:
            made = await self._port.create(self._spec, timeout_s=lifecycle.CREATE_CALL_S)
        except PortFault as fault:
            if fault.kind is not FaultKind.NAME_TAKEN:
                if not fault.passing and not re.search(NO_RUNNER, fault.message):
                    await self._delete_failed()
                    raise create_error(fault, nothing_created=True) from None
                await self.pause(None, fault)
            elif self._again("taken"):
                # A sandbox of this name exists, but was not found: wait.
                await self.pause(None, fault)
            return None
        self.created_id = made.id
        return made

    async def _delete_failed(self) -> None:
        """Delete a failed sandbox that a refused create left behind. Daytona auto-deletes only stopped sandboxes."""
        try:
            left = await self._port.get(self._spec.name)
        except PortFault as fault:
            logger.warning("could not check sandbox %s after a failed create: %s", self._spec.name, fault)
            return
        if left is not None and left.state in _FAILED and _is_ours(left, self._spec):
            await lifecycle.discard_quietly(self._port, left.id)

    async def update_labels(self, found: SandboxInfo) -> None:
        """Add the labels of the configuration to an existing sandbox; log a failure.

        Daytona can only replace all labels, and without a condition. If two sessions add labels at the same time, the
        labels of one may be lost.
        """
        if found.id == self.created_id or self._spec.labels.items() <= found.labels.items():
            return
        try:
            await self._port.set_labels(found.id, {**found.labels, **self._spec.labels})
        except PortFault as fault:
            logger.warning("the labels of sandbox %s were not updated: %s", found.name, fault)

    async def start(self, found: SandboxInfo) -> None:
        if self._again(f"start {found.id}"):
            await self.pause(found)
        start = self._port.start(found.id, timeout_s=lifecycle.START_WITHIN_S)
        if await self._fault_of(start, found) is None:
            self.notice = self.notice or RESTARTED_NOTICE

    async def repair(self, found: SandboxInfo) -> None:
        """Recover a failed sandbox once if Daytona can. Otherwise, or if the recovery is refused or the sandbox fails
        again, delete it, so that a new sandbox replaces it.

        Raises:
            ProvisionError: Daytona refused the change for good, or the time limit of the search is reached. Or this
                search created the failed sandbox: another new sandbox would probably fail too.
        """
        recovery = f"recover {found.id}"
        if found.recoverable and not self._again(recovery):
            fault = await self._fault_of(
                self._port.recover(found.id, timeout_s=lifecycle.START_WITHIN_S), found
            )
            if fault is None:
                self.notice = RECOVERED_NOTICE
            elif fault.passing or re.search(NO_RUNNER, fault.message):
                self._tried.discard(recovery)  # it may still succeed: the sandbox must not be deleted
            return
        if found.id == self.created_id:
            await lifecycle.discard_quietly(self._port, found.id)
            raise lifecycle.failed_to_start(found)
        if self._again(f"delete {found.id}"):
            await self.pause(found)
        logger.warning(
            "sandbox %s is in state %s permanently: it is deleted and replaced", found.id, found.state
        )
        if await self._fault_of(self._port.delete(found.id), found) is None:
            self.notice = REPLACED_NOTICE

    def _again(self, change: str) -> bool:
        """Record that a change is requested. Return True if it was requested before."""
        again = change in self._tried
        self._tried.add(change)
        return again

    async def _fault_of(self, change: Awaitable[None], found: SandboxInfo) -> PortFault | None:
        """Request a state change. Return the fault, after a pause, if it is refused for now or the answer is lost."""
        try:
            await change
        except PortFault as fault:
            error = self._start_error(found, fault)
            may_pass = fault.kind in (FaultKind.NOT_FOUND, FaultKind.REFUSED) and error.code not in _PERMANENT
            if not fault.passing and not may_pass:
                raise error from None
            await self.pause(found, fault)
            return fault
        return None

    async def pause(self, found: SandboxInfo | None, fault: PortFault | None = None) -> None:
        """Wait before the next request, each time longer.

        Raises:
            ProvisionError: The time limit of the search is reached.
        """
        self._reached |= fault is None or fault.kind is not FaultKind.NOT_SENT
        within_s = WITHIN_S if self._reached else lifecycle.FIRST_REACH_S
        pause_s = max(self._pause_s, (fault.retry_after_s or 0.0) if fault else 0.0)
        if self._port.now() + pause_s > self._began + within_s:
            if fault is None:
                raise self._stuck(found)
            raise (
                create_error(fault, nothing_created=True)
                if found is None
                else self._start_error(found, fault)
            )
        await self._port.sleep(pause_s)
        self._pause_s = min(self._pause_s * 1.5, LONGEST_PAUSE_S)

    @staticmethod
    def _start_error(found: SandboxInfo, fault: PortFault) -> ProvisionError:
        problem = f"The workspace's sandbox {found.name} could not be started:"
        return create_error(fault, nothing_created=True, problem=problem)

    def _stuck(self, found: SandboxInfo | None) -> ProvisionError:
        state = found.state if found else "unknown"
        return ProvisionError(
            f"The workspace's sandbox {self._spec.name} has been in state {state!r} for {WITHIN_S:.0f} s. Wait, "
            "check it in the Daytona dashboard, or delete it, and what is on its own disk with it: "
            f"session.release(), or `langchain-daytona-ws sandboxes release {self._spec.name}`.",
            code="stuck",
            op="get_or_create",
            retryable=True,
            context={"sandbox_id": found.id if found else None, "state": state},
            for_model="The workspace's machine is not ready. Nothing ran. Try again later, or tell the user.",
        )
