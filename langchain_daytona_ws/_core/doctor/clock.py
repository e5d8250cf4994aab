"""Compare another clock with the clock of this machine."""

from __future__ import annotations

from langchain_daytona_ws._core.doctor.finding import Finding, failed, ok, warning

WARN_OVER_S = 60.0
# S3 refuses a difference of 15 minutes, STS a difference of 5 minutes (AWS, Signature Version 4).
FAIL_OVER_S = 300.0


def off_by_s(clock_s: float, before_s: float, after_s: float) -> float:
    """Return the smallest possible difference of a clock from this machine's, in seconds; negative if it is behind.

    Args:
        clock_s: Unix time of the clock, rounded down to a whole second.
        before_s: Unix time on this machine before the request.
        after_s: Unix time on this machine after the answer.
    """
    if clock_s > after_s:
        return clock_s - after_s
    return min(clock_s + 1.0 - before_s, 0.0)


def judge_clock(check: str, whose: str, off_s: float, remedy: str) -> Finding:
    """Return the finding for a clock from the result of `off_by_s`.

    ``whose`` is the clock's owner in the possessive form, such as ``"S3's"``.
    """
    if abs(off_s) < 1.5:
        return ok(check, f"{whose} clock agrees with this machine's")
    found = f"{whose} clock is {abs(off_s):,.0f} s {'ahead of' if off_s > 0 else 'behind'} this machine's"
    if abs(off_s) > FAIL_OVER_S:
        return failed(check, found, remedy, "clock")
    return ok(check, found) if abs(off_s) <= WARN_OVER_S else warning(check, found, remedy)
