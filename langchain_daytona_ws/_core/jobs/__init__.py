"""Background jobs, with the limits that the tools describe."""

JOB_DEFAULT_S = 3600.0
JOB_MAX_S = 24 * 3600.0
TAIL_LINES_MAX = 10_000
OFFSET_MAX = 1 << 52
