"""The report of a synchronisation: the numbers of transferred files, and the problems for the model or the user."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

NAMES_MAX = 10
NAME_CHARS = 300
PENDING = "pending"
NO_ANSWER = "no_answer"  # the sandbox did not answer, or the call to it failed
LOST = "lost"  # the sandbox is gone
# Failure → its text for the model. Most failures are codes of the resident, the process that synchronises.
_FAILURES = {
    "unreachable": "S3 could not be reached",
    "unavailable": "S3 did not answer, or is overloaded",
    "deadline": "it took too long",
    "denied": "S3 denied access",
    "expired": "the credentials have expired",
    "signature": "S3 does not accept the credentials' signature",
    "no_bucket": "the bucket does not exist",
    "wrong_region": "the bucket is in another region",
    "disk_full": "the machine's disk is full",
    "local": "a file could not be read or written",
    "changed": "another writer replaced an object meanwhile",
    "absent": "the process that saves them had ended",
    "unconditional": "the storage does not protect files from being overwritten",
    "archived": "S3 has an archived object of the same name",
    "configuration": "it was made with another configuration",
    NO_ANSWER: "the machine did not answer",
    PENDING: "it takes longer than a call may last",
}


@dataclass(frozen=True, slots=True)
class SyncReport:
    """The result of the synchronisation before and after a call.

    Tuples have at most ten entries; in the report of several synchronisations (`merged`) they may have more. The counts
    include the entries that are left out.

    Attributes:
        pulled: Number of files copied from S3 to the sandbox.
        pushed: Number of files copied from the sandbox to S3.
        deleted: Number of objects deleted from S3, because their files were deleted in the sandbox.
        removed: Number of files deleted in the sandbox, because another writer had deleted them in S3.
        conflicts: For each file that was changed in the sandbox and by another writer: its path, and the path of the
            copy with the sandbox's version.
        conflict_count: Number of conflicts.
        restored: For each file that exists again, because its deletion in the sandbox was not applied to S3: the path,
            and the reason.
        restored_count: Number of restored files.
        skipped: For each file that cannot be saved to S3, or object that cannot be a file: the path, and the reason.
        skipped_count: Number of skipped files and objects.
        unpushed: Names of files that are not in S3 yet.
        unpushed_count: Number of files that are not in S3 yet; -1 if the number is unknown.
        failure: Code of the failure; ``"pending"`` if the push still continues; ``""`` if there was none.
        detail: The error message of S3 or of the failed call, for the engineer.
        duration_s: Seconds that the synchronisation took in the sandbox.
        round_trip_s: Seconds that the last page of a listing took.
        free_bytes: Free space on the workspace's disk.
        conditional_delete: True if the store checks the condition of a deletion (If-Match); False if not or unknown.
    """

    pulled: int = 0
    pushed: int = 0
    deleted: int = 0
    removed: int = 0
    conflicts: tuple[tuple[str, str], ...] = ()
    conflict_count: int = 0
    restored: tuple[tuple[str, str], ...] = ()
    restored_count: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    skipped_count: int = 0
    unpushed: tuple[str, ...] = ()
    unpushed_count: int = 0
    failure: str = ""
    detail: str = ""
    duration_s: float = 0.0
    round_trip_s: float = 0.0
    free_bytes: int = 0
    conditional_delete: bool = False

    @property
    def is_pending(self) -> bool:
        """Whether the push still continues in the sandbox."""
        return self.failure == PENDING

    @property
    def is_saved(self) -> bool:
        """Whether all files are in S3, except skipped files, which cannot be saved to S3."""
        return self.unpushed_count == 0

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices for the model about conflicts, restored or skipped files, many deletions and failures."""
        found = list(_conflict_notices(self.conflicts))
        unnamed = self.conflict_count - len(self.conflicts)
        if unnamed > 0:
            found.append(
                f"conflict: {unnamed:,} more files were changed here and by another writer. They are theirs now: find "
                "yours with `find . -name '*.conflict-*'`, merge them, then delete the copies"
            )
        found += [f"{path} is here again: {reason}" for path, reason in self.restored]
        unnamed = self.restored_count - len(self.restored)
        if unnamed > 0:
            found.append(f"{unnamed:,} more files are here again for such reasons: list the directory")
        if self.skipped:
            names = "; ".join(f"{path}: {reason}" for path, reason in self.skipped[:NAMES_MAX])
            unnamed = max(self.skipped_count, len(self.skipped)) - len(self.skipped[:NAMES_MAX])
            found.append(f"not synchronised with S3: {names}{f'; and {unnamed:,} more' if unnamed else ''}")
        if self.removed >= _MANY:
            found.append(f"{self.removed:,} files were removed here because another writer deleted them")
        if self.deleted >= _MANY and self.pushed < self.deleted:  # otherwise files were renamed
            found.append(f"{self.deleted:,} files were deleted from the workspace")
        if self.failure == LOST:
            found.append(f"{self.unpushed_text} lost: the machine has ended before they were saved")
        elif self.failure:
            if self.unpushed_count:
                found.append(
                    f"{self.unpushed_text} only on this machine so far: {self.cause}. The next call saves them"
                )
            else:
                found.append(f"changes of other writers may be missing here: {self.cause}")
        return tuple(found)

    @property
    def cause(self) -> str:
        """The failure as a part of a sentence."""
        return _FAILURES.get(self.failure, "it failed")

    @property
    def unpushed_text(self) -> str:
        """The beginning of a sentence about the unpushed files, up to its verb."""
        names = f" ({', '.join(self.unpushed)})" if self.unpushed else ""
        if self.unpushed_count == 1:
            return f"1 changed file{names} is"
        return (
            f"{self.unpushed_count:,} changed files{names} are"
            if self.unpushed_count > 0
            else "changed files may be"
        )

    def merged(self, later: SyncReport) -> SyncReport:
        """Return one report for this synchronisation and a later one.

        ``duration_s`` and all counts except ``unpushed_count`` are added. Conflicts, restored files and skipped files
        of both are kept. All other fields are those of the later report.
        """
        return replace(
            later,
            pulled=self.pulled + later.pulled,
            pushed=self.pushed + later.pushed,
            deleted=self.deleted + later.deleted,
            removed=self.removed + later.removed,
            conflicts=self.conflicts + later.conflicts,
            conflict_count=self.conflict_count + later.conflict_count,
            restored=self.restored + later.restored,
            restored_count=self.restored_count + later.restored_count,
            skipped=self.skipped + later.skipped,
            skipped_count=self.skipped_count + later.skipped_count,
            duration_s=self.duration_s + later.duration_s,
        )


_MANY = 100
# Files that commands of Git write, and its logs: conflict copies of them need no merge.
_GIT_BOOKKEEPING = r"(^|/)(index|COMMIT_EDITMSG|ORIG_HEAD|FETCH_HEAD)$|(^|/)logs/"


def _conflict_notices(conflicts: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Yield one notice per file; for the files of `_GIT_BOOKKEEPING`, one notice per repository."""
    copies: dict[str, list[str]] = {}
    for path, copy in conflicts:
        before, git, inside = f"/{path}".rpartition("/.git/")
        repository = before.lstrip("/") or "the workspace"
        if git and re.search(_GIT_BOOKKEEPING, inside):
            copies.setdefault(repository, []).append(copy)
        elif git and inside.startswith("refs/heads/"):
            branch = copy.rpartition(".git/refs/heads/")[2]
            yield (
                f"conflict: another writer committed in {repository} on the same branch. The branch is theirs now, "
                f"and your commits are on {branch}. Commit all files first (`git add -A && git commit`), then `git "
                f"merge {branch}` and `git branch -D {branch}`"
            )
        else:
            hint = ". For a Git reference, `git merge` the commit that the copy names" if git else ""
            yield (
                f"conflict: {path} was changed here and by another writer. It is theirs now, and yours is {copy}: "
                f"merge what you need into {path}, then delete {copy}{hint}"
            )
    for repository, names in copies.items():
        yield (
            f"conflict: another writer used Git in {repository}. These copies hold nothing to merge: delete "
            f"{', '.join(names)}"
        )


def read_time(value: object) -> float:
    """Return a time of the sandbox's clock from an answer, which may be forged; 0 if it is missing or malformed."""
    return value if isinstance(value, float) and math.isfinite(value) else 0.0


def read_report(text: object) -> SyncReport:
    """Return the report in the field ``sync`` of a guest's answer, which may be forged.

    If the field is not a JSON object, the report has the failure ``unreadable``. An invalid value in the object is
    replaced by 0 or by an empty value.
    """
    try:
        values = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return SyncReport(failure="unreadable", unpushed_count=-1)
    failure = _line(values.get("failure", ""))
    is_unknown = failure in ("absent", PENDING) or values.get("unpushed_count") == -1
    return SyncReport(
        pulled=_count(values, "pulled"),
        pushed=_count(values, "pushed"),
        deleted=_count(values, "removed_there"),
        removed=_count(values, "removed_here"),
        conflicts=_pairs(values, "conflicts"),
        conflict_count=_total(values, "conflicts"),
        restored=_pairs(values, "restored"),
        restored_count=_total(values, "restored"),
        skipped=_pairs(values, "skipped"),
        skipped_count=_total(values, "skipped"),
        unpushed=tuple(_line(name) for name in _list(values, "unpushed")),
        unpushed_count=-1 if is_unknown else _count(values, "unpushed_count"),
        failure=failure,
        detail=_line(values.get("detail", "")),
        duration_s=_seconds(values.get("seconds")),
        round_trip_s=_seconds(values.get("round_trip_s")),
        free_bytes=_count(values, "free_bytes"),
        conditional_delete=values.get("conditional_delete") is True,
    )


def _count(values: Mapping[str, object], name: str) -> int:
    value = values.get(name, 0)
    return value if type(value) is int and 0 <= value < 10**18 else 0


def _seconds(value: object) -> float:
    return value if isinstance(value, float) and 0 <= value < 10**6 else 0.0


def _list(values: Mapping[str, object], name: str) -> list[object]:
    found = values.get(name)
    return found[:NAMES_MAX] if isinstance(found, list) else []


def _pairs(values: Mapping[str, object], name: str) -> tuple[tuple[str, str], ...]:
    pairs = [pair for pair in _list(values, name) if isinstance(pair, list) and len(pair) == 2]
    return tuple((_line(first), _line(second)) for first, second in pairs)


def _total(values: Mapping[str, object], name: str) -> int:
    return max(_count(values, f"{name}_count"), len(_pairs(values, name)))


def _line(value: object) -> str:
    """Return a text as one printable line of at most `NAME_CHARS`; ``""`` for a value that is not a text."""
    text = value if isinstance(value, str) else ""
    return "".join(char if char.isprintable() else "?" for char in text[:NAME_CHARS])
