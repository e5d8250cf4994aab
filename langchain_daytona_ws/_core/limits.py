"""Limits and defaults that several operations, or the tools' descriptions, share. Imports nothing of the package."""

from __future__ import annotations

from collections.abc import Callable

# Maximum number of rows in a result, if the caller passes no limit.
LIST_LIMIT = 1000
GLOB_LIMIT = 200
GREP_LIMIT = 250

JOB_DEFAULT_S = 3600.0
JOB_MAX_S = 24 * 3600.0
TAIL_LINES_MAX = 10_000  # last lines of a job's log
OFFSET_MAX = 1 << 52  # bytes, in a job's log
LOG_LIMIT_BYTES = 64 * 1024 * 1024  # of the log file of a command or job


def check_range(name: str, value: int, lowest: int, highest: int, error: Callable[[str], Exception]) -> None:
    """Raise ``error`` with a message if a number is out of range."""
    if isinstance(value, bool) or not lowest <= value <= highest:
        raise error(f"{name} must be from {lowest:,} to {highest:,}.")
