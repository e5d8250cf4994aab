"""The specification of the fault matrix: the allowed outcomes of every cell, in one table.

Each line is a fault, its outcome at any step, and then the steps with another outcome. A cell must end in one of the
outcomes that are separated by "/":

- ``ok``: recovered; the result is as without the fault;
- ``result``: it took effect once, and its own result reports the failure;
- ``cancelled``, ``died``: as in the name of the fault;
- the code of the error that is raised, or shown to the model;
- ``-`` and a reason: there is no such cell.

For every outcome: nothing takes effect twice, no acknowledged change is missing, an error other than `OutcomeUnknown`
means that nothing was changed, the session is usable afterwards, and nothing leaks.
"""

from __future__ import annotations

import functools

REASONS = {
    "-steady": "the local S3 is reachable or not; a retry there is as after a dropped connection",
    "-later": "same as at the next step, which is the first to use it",
    "-before": "there is no mount or disk before the sandbox exists",
    "-nobox": "requests go directly to S3, without a sandbox",
    "-write": "same as a small write: a model's call is the same",
    "-asked": "checked once, before the first mount; a store does not change during a session",
    "-unasked": "closing needs no approval",
    "-owned": "closing needs no storage",
    "-gone": "the step's own request deletes the sandbox",
}
LABELS = {"ok": "recovered", "result": "result", "cancelled": "cancelled", "died": "died"}

TABLE = """
refused for 3 s         ok               s3write,s3edit=-steady
refused for good        sandbox_unavailable/outcome_unknown  create,claim=unreachable close=not_deleted s3write,s3edit=s3_unreachable
dropped before          ok
dropped before, always  outcome_unknown  create,claim=unreachable upload=sandbox_unavailable close=not_deleted
dropped after           ok
dropped after, always   outcome_unknown  claim=unreachable create,close,s3write,s3edit=ok upload=sandbox_unavailable
done, then down         outcome_unknown  create,claim=unreachable upload=sandbox_unavailable close=not_deleted s3write,s3edit=-steady
429                     ok
429 Retry-After         ok
429 always              sandbox_unavailable  create,claim=throttled close=not_deleted s3write,s3edit=s3_throttled
502 empty               ok
502 always              outcome_unknown  create,claim=unreachable upload=sandbox_unavailable close=not_deleted
503                     ok
503 always              sandbox_unavailable  create,claim=unavailable close=not_deleted s3write,s3edit=s3_throttled
504                     ok
504 always              outcome_unknown  create,claim=unreachable upload=sandbox_unavailable close=not_deleted
slow answer             ok
no answer in time       ok
late request            ok
truncated               ok
truncated always        outcome_unknown  create,upload,close,s3write,s3edit=ok claim=unreachable
malformed               ok
malformed always        outcome_unknown  create,upload,close,s3write,s3edit=ok claim=unreadable
stopped                 ok               s3write,s3edit=-nobox
deleted                 ok               edit=missing s3write,s3edit=-nobox
in error                ok               edit=missing s3write,s3edit=-nobox
stuck                   sandbox_unavailable  create=create_timeout claim=stuck close=not_deleted s3write,s3edit=-nobox
daemon dead             lost_while_running  claim,upload,close=ok s3write,s3edit=-nobox
credentials expired     ok               first=-later close=-owned
STS refuses             role_denied      first=-later close=-owned
S3 refuses              mount_denied     first=-later close=-owned s3write,s3edit=s3_denied
store accepts renames   -asked           create,claim,mount=mount_renames_lose_files close=-owned s3write,s3edit=ok
credentials revoked early  ok            first=-later close=-owned
mount daemon killed     ok               create,first=-before s3write,s3edit=-nobox
mount daemon hung       ok               create,first=-before s3write,s3edit=-nobox
disk full               result           create=-before mount=mount_credentials write=write_failed edit=ok upload=disk_full job=state_directory close=ok s3write,s3edit=-nobox
host killed             died             s3write,s3edit=-steady
host killed, done       died
cancelled               cancelled
approver raises         approver_error   upload=-write close=-unasked
approver hangs          approval_timeout  upload=-write close=-unasked
"""  # noqa: E501 - a table

# After these the sandbox is unusable until its time to live ends.
UNUSABLE = {
    ("stuck", step)
    for step in ("create", "claim", "mount", "first", "warm", "write", "upload", "edit", "job", "close")
}


@functools.cache
def _table() -> dict[tuple[str, str], frozenset[str]]:
    from tests.faults.faults import FAULT_CASES
    from tests.faults.steps import STEPS

    table: dict[tuple[str, str], frozenset[str]] = {}
    for line in TABLE.strip().splitlines():
        name = max((fault for fault in FAULT_CASES if line.startswith(f"{fault} ")), key=len)
        default, *overrides = line[len(name) :].split()
        table |= {(name, step): frozenset(default.split("/")) for step in STEPS}
        for override in overrides:
            steps, _, outcome = override.partition("=")
            table |= {(name, step): frozenset(outcome.split("/")) for step in steps.split(",")}
    if set(table) != {(fault, step) for fault in FAULT_CASES for step in STEPS}:
        raise ValueError("the table lacks a cell")
    return table


def reason(step: str, fault: str) -> str | None:
    """Return why the cell does not exist, None if it exists."""
    (first, *_) = _table()[fault, step]
    return first if first.startswith("-") else None


def allowed(step: str, fault: str) -> frozenset[str]:
    """Return the allowed outcomes."""
    return _table()[fault, step]


def stays_unusable(step: str, fault: str) -> bool:
    """Return whether the sandbox is unusable after the fault, until its time to live ends."""
    return (fault, step) in UNUSABLE
