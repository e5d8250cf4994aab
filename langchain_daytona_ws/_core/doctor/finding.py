"""One thing that a diagnosis looked at: what was found, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace

from langchain_daytona_ws._core.ports import PortFault
from langchain_daytona_ws._core.sandbox.remedies import remedy_for
from langchain_daytona_ws.errors import WorkspaceError

# Shorter values stand in any text by chance.
SHORTEST_SECRET = 6
WITHHELD = "(withheld)"


class Status(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check ended.

    Attributes:
        check: Which one; stable, for scripts.
        status: How it ended.
        found: What was found. A refusal's own words hold its remedies.
        remedy: What to do about it; ``""`` when nothing is to be done, or ``found`` says it.
        code: Of the error, if one was raised.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""
    code: str = ""

    def without(self, secrets: Iterable[str]) -> Finding:
        """Return it with every secret taken out: a sandbox may print what it was given."""
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


def refused(check: str, error: WorkspaceError) -> Finding:
    """Make the finding of an error, whose message has the remedies in it."""
    return Finding(check, Status.FAILED, error.message, code=error.code)


def faulty(check: str, tried: str, fault: PortFault) -> Finding:
    """Make the finding of a request that Daytona did not answer well.

    Args:
        check: Name of the check.
        tried: What did not succeed, as the beginning of a sentence.
        fault: Why.
    """
    code, remedy = remedy_for(fault)
    return failed(check, f"{tried}: {fault.message}", remedy, code)


def skipped(found: str, *checks: str) -> list[Finding]:
    return [Finding(check, Status.SKIPPED, found) for check in checks]


def any_failed(findings: Iterable[Finding]) -> bool:
    return any(finding.status is Status.FAILED for finding in findings)
