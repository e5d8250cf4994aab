"""Limits and defaults that the tools describe. This module imports nothing, since the tools must be built fast."""

# Rows of a result, if the caller passes no limit.
LIST_LIMIT = 1000
GLOB_LIMIT = 200
GREP_LIMIT = 250

JOB_DEFAULT_S = 3600.0
JOB_MAX_S = 24 * 3600.0
TAIL_LINES_MAX = 10_000  # of a job's log
OFFSET_MAX = 1 << 52  # in a job's log
