"""The result of one check of a diagnosis, with its remedy."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace

from langchain_daytona_ws._core.ports import PortFault
from langchain_daytona_ws._core.sandbox.remedies import remedy_for
from langchain_daytona_ws.errors import WorkspaceError

# Shorter secrets are not withheld, because they may occur in any text by chance.
SHORTEST_SECRET = 6
WITHHELD = "(withheld)"
CONFIGURATION = "configuration"  # name of the first check


class Status(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: Name of the check; stable, for scripts.
        found: The result in words. If this is the message of a `WorkspaceError`, it also contains the remedy.
        remedy: The remedy; ``""`` if none is needed, or if ``found`` contains it.
        code: Code of the failure; ``""`` if there is none.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""
    code: str = ""

    def without(self, secrets: Iterable[str]) -> Finding:
        """Return the finding without these secrets, because a sandbox may print them."""
        found, remedy = self.found, self.remedy
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= SHORTEST_SECRET:
                found, remedy = found.replace(secret, WITHHELD), remedy.replace(secret, WITHHELD)
        return replace(self, found=found, remedy=remedy)


def ok(check: str, found: str) -> Finding:
    return Finding(check, Status.OK, found)


def warning(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Status.WARNING, found, remedy)


def failed(check: str, found: str, remedy: str, code: str = "") -> Finding:
    return Finding(check, Status.FAILED, found, remedy, code)


def from_error(check: str, error: WorkspaceError) -> Finding:
    return Finding(check, Status.FAILED, error.message, code=error.code)


def from_fault(check: str, failure: str, fault: PortFault) -> Finding:
    """Return the finding for a failed request to Daytona. ``failure`` is a clause before the fault's message."""
    code, remedy = remedy_for(fault)
    return failed(check, f"{failure}: {fault.message}", remedy, code)


def skipped(found: str, *checks: str) -> list[Finding]:
    return [Finding(check, Status.SKIPPED, found) for check in checks]


def any_failed(findings: Iterable[Finding]) -> bool:
    return any(finding.status is Status.FAILED for finding in findings)
