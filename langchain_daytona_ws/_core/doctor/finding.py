"""The result of one check of a diagnosis, with its remedy; and the finding about a clock."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace

from langchain_daytona_ws._core.ports import PortFault
from langchain_daytona_ws._core.sandbox.remedies import remedy_for
from langchain_daytona_ws.errors import WorkspaceError

# Shorter values occur in any text by chance.
SHORTEST_SECRET = 6
WITHHELD = "(withheld)"
CONFIGURATION = "configuration"  # name of the first check
CLOCK_WARN_OVER_S = 60.0
# S3 refuses requests that are 15 minutes off, STS requests that are 5 minutes off (AWS, Signature Version 4).
CLOCK_FAIL_OVER_S = 300.0


class Status(enum.StrEnum):
    """The status of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: Name of the check; stable, for scripts.
        status: The status.
        found: The result. The message of an error contains its remedies.
        remedy: The remedy; ``""`` if none is needed, or if ``found`` contains it.
        code: Code of the error, if an error was raised.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""
    code: str = ""

    def without(self, secrets: Iterable[str]) -> Finding:
        """Return the finding with every secret removed: a sandbox may print its secrets."""
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
    """Return the finding for an error, whose message contains the remedies."""
    return Finding(check, Status.FAILED, error.message, code=error.code)


def faulty(check: str, tried: str, fault: PortFault) -> Finding:
    """Return the finding for a failed request to Daytona.

    Args:
        check: Name of the check.
        tried: The failed operation, as the beginning of a sentence.
        fault: The failure.
    """
    code, remedy = remedy_for(fault)
    return failed(check, f"{tried}: {fault.message}", remedy, code)


def skipped(found: str, *checks: str) -> list[Finding]:
    return [Finding(check, Status.SKIPPED, found) for check in checks]


def any_failed(findings: Iterable[Finding]) -> bool:
    return any(finding.status is Status.FAILED for finding in findings)


def off_by_s(clock_s: float, before_s: float, after_s: float, *, resolution_s: float = 1.0) -> float:
    """Return the minimum difference of a clock to this machine's clock, in seconds; positive if it is ahead.

    Args:
        clock_s: Unix time of the clock.
        before_s: Unix time on this machine before the request.
        after_s: Unix time on this machine after the answer.
        resolution_s: The clock is rounded down to a multiple of this.
    """
    if clock_s > after_s:
        return clock_s - after_s
    return min(clock_s + resolution_s - before_s, 0.0)


def judge_clock(check: str, whose: str, off_s: float, remedy: str) -> Finding:
    """Return the finding for a clock that differs from this machine's clock.

    Args:
        check: Name of the check.
        whose: The owner of the clock, such as ``"S3's"``.
        off_s: Seconds ahead of this machine's clock; see `off_by_s`.
        remedy: The clock to correct.
    """
    if abs(off_s) < 1.5:
        return ok(check, f"{whose} clock agrees with this machine's")
    found = f"{whose} clock is {abs(off_s):,.0f} s {'ahead of' if off_s > 0 else 'behind'} this machine's"
    if abs(off_s) > CLOCK_FAIL_OVER_S:
        return failed(check, found, remedy, "clock")
    return ok(check, found) if abs(off_s) <= CLOCK_WARN_OVER_S else warning(check, found, remedy)
