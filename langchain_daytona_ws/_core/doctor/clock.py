"""How far two clocks may be apart."""

from __future__ import annotations

from langchain_daytona_ws._core.doctor.finding import Finding, failed, ok, warning

WARN_OVER_S = 60.0
# S3 refuses requests that are 15 minutes off, STS ones that are 5 (AWS, Signature Version 4).
FAIL_OVER_S = 300.0


def off_by_s(clock_s: float, before_s: float, after_s: float, *, resolution_s: float = 1.0) -> float:
    """Return by how much at least a clock is off: what it told between two looks at ours; above 0 when it is ahead.

    Args:
        told_s: Unix time that it told.
        before_s: Ours before it was asked.
        after_s: Ours after the answer.
        resolution_s: It told the time cut off to a multiple of this.
    """
    if clock_s > after_s:
        return clock_s - after_s
    return min(clock_s + resolution_s - before_s, 0.0)


def judge_clock(check: str, whose: str, off_s: float, remedy: str) -> Finding:
    """Judge a clock by how many seconds it is ahead of this machine's.

    Args:
        check: Name of the check.
        whose: Whose clock it is, as ``"S3's"``.
        off_s: See `off_by_s`.
        remedy: Which clock to set right.
    """
    if abs(off_s) < 1.5:
        return ok(check, f"{whose} clock agrees with this machine's")
    found = f"{whose} clock is {abs(off_s):,.0f} s {'ahead of' if off_s > 0 else 'behind'} this machine's"
    if abs(off_s) > FAIL_OVER_S:
        return failed(check, found, remedy, "clock")
    return ok(check, found) if abs(off_s) <= WARN_OVER_S else warning(check, found, remedy)
