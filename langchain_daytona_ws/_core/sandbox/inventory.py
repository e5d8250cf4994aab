"""Summaries of an account's sandboxes; selection of unused sandboxes; deletion that waits until a sandbox is gone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from langchain_daytona_ws._core.ports import PortFault, SandboxPort
from langchain_daytona_ws._core.sandbox.lifecycle import DELETE_WITHIN_S, POLL_S, discard, not_deleted
from langchain_daytona_ws._core.sandbox.specification import MANAGED_BY
from langchain_daytona_ws.config.values import RESERVED_LABELS
from langchain_daytona_ws.errors import SandboxUnavailable

_RUNNING = {"started", "starting", "creating", "restoring", "resuming"}
_DELETING = {"destroyed", "destroying"}
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_AGE = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)


@dataclass(frozen=True, slots=True)
class SandboxSummary:
    """A sandbox of a listing. Times (``_at``) are Unix seconds. None: the value is not known."""

    id: str
    name: str
    state: str
    organization_id: str
    created_at: float | None
    last_activity_at: float | None
    auto_stop_minutes: float | None
    auto_delete_minutes: float | None
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    cpu: float | None = None
    memory_gib: float | None = None
    disk_gib: float | None = None

    @property
    def is_ours(self) -> bool:
        return self.labels.get("managed-by") == MANAGED_BY

    @property
    def own_labels(self) -> dict[str, str]:
        """The labels that come from ``options.labels``, not from this package or the SDK."""
        return {name: value for name, value in self.labels.items() if name not in RESERVED_LABELS}

    @property
    def is_kept(self) -> bool:
        """True for an ephemeral sandbox that its session kept at the end, because some files are not in S3."""
        return self.labels.get("lifetime") == "ephemeral" and self.auto_delete_minutes != 0

    @property
    def used_at(self) -> float | None:
        return self.last_activity_at if self.last_activity_at is not None else self.created_at


def managed_labels(namespace: str | None) -> dict[str, str]:
    """Return the labels by which this package's sandboxes are found. ``namespace=None``: in all namespaces."""
    return {"managed-by": MANAGED_BY} | ({} if namespace is None else {"namespace": namespace})


def age_s(text: str) -> int | None:
    """Return an age such as ``7d`` in seconds (units: s, m, h, d and w); None for any other text."""
    found = _AGE.fullmatch(text)
    return int(found[1]) * _UNITS_S[found[2]] if found else None


def prunable(sandboxes: Iterable[SandboxSummary], *, now: float, older_than_s: float) -> list[SandboxSummary]:
    """Return the sandboxes of this package that have not been used for more than ``older_than_s`` seconds.

    Sandboxes that are being deleted, or whose last use is not known, are omitted. A running sandbox is omitted within
    its auto-stop interval, because a background job may run in it. A job does not count as use, but raises this
    interval. So a running sandbox without auto-stop is always omitted, see `never_stopping`.
    """
    return [sandbox for sandbox in sandboxes if _idle_s(sandbox, now) > max(older_than_s, _kept_s(sandbox))]


def never_stopping(
    sandboxes: Iterable[SandboxSummary], *, now: float, older_than_s: float
) -> list[SandboxSummary]:
    """Return the running sandboxes that `prunable` omits because they have no auto-stop, or it is not known."""
    return [
        sandbox
        for sandbox in sandboxes
        if _idle_s(sandbox, now) > older_than_s and _kept_s(sandbox) == math.inf
    ]


def _idle_s(sandbox: SandboxSummary, now: float) -> float:
    """Return the seconds since the last use; 0 if this is not known, or if the sandbox must not be deleted."""
    if not sandbox.is_ours or sandbox.state in _DELETING or sandbox.used_at is None:
        return 0.0
    return now - sandbox.used_at


def _kept_s(sandbox: SandboxSummary) -> float:
    """Return the seconds after the last use during which a background job may run in the sandbox."""
    return (sandbox.auto_stop_minutes or math.inf) * 60 if sandbox.state in _RUNNING else 0.0


async def remove(port: SandboxPort, sandbox_id: str) -> None:
    """Delete a sandbox, and wait until it is gone.

    Raises:
        SandboxUnavailable: The sandbox could not be deleted, or is not gone a minute later.
    """
    await discard(port, sandbox_id)
    until, last_state = port.now() + DELETE_WITHIN_S, "its state could not be read"
    while True:
        try:
            found = await port.get(sandbox_id)
            if found is None or found.state == "destroyed":
                return
            last_state = f"it is {found.state}"
        except PortFault as fault:
            if not fault.passing:
                raise not_deleted(sandbox_id, fault.message) from fault
            last_state = fault.message
        if port.now() >= until:
            raise SandboxUnavailable(
                f"The deletion of sandbox {sandbox_id} was accepted, but it was not gone {DELETE_WITHIN_S:.0f} s "
                f"later: {last_state}. Check again with `langchain-daytona-ws sandboxes list`, or in the Daytona "
                "dashboard.",
                code="not_gone",
                op="delete",
                retryable=True,
                context={"sandbox_id": sandbox_id},
            )
        await port.sleep(POLL_S)
