"""What is right: the specification of every cell, in one table.

Each line is a fault and what comes of it at any step, then the steps at which something else does. A cell ends in one
of the outcomes that are separated by "/":

- ``ok``: recovered, as if nothing had been;
- ``result``: it was done once, and its own result tells what went wrong;
- ``cancelled``, ``died``: as the name of the fault says;
- the code of the error that is raised, or that the model is told;
- ``-`` and a reason: there is no such cell.

Whatever the outcome: nothing is done twice, nothing that was acknowledged is missing, an error that is no
`OutcomeUnknown` means that nothing was done, the session can be used afterwards, and nothing is left behind.
"""

from __future__ import annotations

import functools

REASONS = {
    "-steady": "the local S3 is either there or not; a retry there is that of a dropped connection",
    "-later": "same as at the step after it: until then nothing uses it",
    "-before": "there is no mount, or no disk, before the sandbox is there",
    "-nobox": "S3 is asked directly: no sandbox takes part",
    "-write": "same as a small write: a model cannot tell them apart",
    "-asked": "asked once, before the first mount; a store does not change while a session lasts",
    "-unasked": "nobody is asked about closing",
    "-owned": "closing asks for no storage",
    "-gone": "nothing is there to be acted on: the sandbox is deleted by this very request",
}
WORDS = {"ok": "recovered", "result": "result", "cancelled": "cancelled", "died": "died"}

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

# After these only time, or Daytona's people, help: the sandbox stays until its time to live.
BEYOND = {
    ("stuck", step)
    for step in ("create", "claim", "mount", "first", "warm", "write", "upload", "edit", "job", "close")
}


@functools.cache
def _table() -> dict[tuple[str, str], frozenset[str]]:
    from tests.faults.mishaps import MISHAPS
    from tests.faults.steps import STEPS

    table: dict[tuple[str, str], frozenset[str]] = {}
    for line in TABLE.strip().splitlines():
        name = max((one for one in MISHAPS if line.startswith(f"{one} ")), key=len)
        default, *others = line[len(name) :].split()
        table |= {(name, step): frozenset(default.split("/")) for step in STEPS}
        for other in others:
            steps, _, outcome = other.partition("=")
            table |= {(name, step): frozenset(outcome.split("/")) for step in steps.split(",")}
    if set(table) != {(mishap, step) for mishap in MISHAPS for step in STEPS}:
        raise ValueError("the table does not say of every cell what is right")
    return table


def reason(step: str, mishap: str) -> str | None:
    """Return why there is no such cell; None where there is one."""
    (first, *_) = _table()[mishap, step]
    return first if first.startswith("-") else None


def allowed(step: str, mishap: str) -> frozenset[str]:
    """Return the outcomes that are right."""
    return _table()[mishap, step]


def is_beyond(step: str, mishap: str) -> bool:
    """Tell whether the session cannot go on with its machine, though the fault's cause is over."""
    return (mishap, step) in BEYOND


def takes_time(step: str, mishap: str) -> bool:
    """Tell whether only time ends the sandbox."""
    return (mishap, step) in BEYOND
