"""Check a sandbox's programs, user and clock by the output of one short script, and judge its first synchronisation.

Daytona's daemon runs the script in its own shell, because bash and Python may be missing. The output is untrusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from langchain_daytona_ws._core.doctor.clock import judge_clock, off_by_s
from langchain_daytona_ws._core.doctor.finding import (
    Finding,
    failed,
    ok,
    skipped,
    warning,
)
from langchain_daytona_ws._core.sync.report import SyncReport
from langchain_daytona_ws._guest.mount import HELPER

CHECKS = ("bash", "python", "node", "search", "git", "mount-s3", "fuse", "user", "sandbox-clock")
PYTHON = (3, 8)
LONGEST = 120

_SNAPSHOT = (
    "Use a snapshot or image that has it: options.snapshot, built with `langchain-daytona-ws s3-snapshot` from a base "
    "image with bash, Node and Python, or options.image."
)
_PREVENTS = (
    "hiding the S3 credentials from the agent prevents accidents only: the boundary is their session policy and their "
    "expiry"
)
_PROGRAMS = {
    "bash": "bash --version",
    "python3": "python3 -c 'import platform; print(platform.python_version())'",
    "node": "node --version",
    "rg": "rg --version",
    "grep": "grep --version || echo grep",  # BusyBox's grep has no --version
    "git": "git --version",
    "mount-s3": "mount-s3 --version",
}
_LINE = re.compile(r"([a-z0-9-]{1,20})=(.*)", re.ASCII)
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")


def facts_script(nonce: str) -> str:
    """Return the script. Each line of its output begins with the nonce, which must be letters and digits."""
    programs = [
        f'if command -v {name} >/dev/null 2>&1; then tell {name} "$( {{ {version}; }} 2>/dev/null </dev/null)"; fi'
        for name, version in _PROGRAMS.items()
    ]
    return "\n".join(
        [
            f"tell() {{ printf '%s %s=' {nonce} \"$1\"; printf '%s\\n' \"$2\" | head -n 1; }}",
            *programs,
            "if test -c /dev/fuse; then tell fuse there; fi",
            'tell uid "$(id -u)"',
            'tell user "$(id -un 2>/dev/null)"',
            "if sudo -n true >/dev/null 2>&1 </dev/null; then tell sudo general; fi",
            f"if test -x {HELPER}; then tell helper there; fi",
            'tell time "$(date +%s)"',
            "",
        ]
    )


def read_facts(printed: str, nonce: str) -> dict[str, str]:
    """Return the facts in the output: name → first text of this name."""
    facts: dict[str, str] = {}
    for line in printed.splitlines():
        found = _LINE.fullmatch(line.removeprefix(f"{nonce} ")) if line.startswith(f"{nonce} ") else None
        if found:
            text = "".join(c if c.isprintable() else " " for c in found[2][:LONGEST]).strip()
            facts.setdefault(found[1], text)
    return facts


def judge_sandbox(
    facts: Mapping[str, str], *, is_mounted: bool, before_s: float, after_s: float
) -> Iterator[Finding]:
    """Yield the findings for the facts of a sandbox.

    The script ran between ``before_s`` and ``after_s``, Unix times of this machine. ``is_mounted`` is True if the
    workspace is mounted with mount-s3.
    """
    yield _required(facts, "bash", "bash", "It runs the commands.")
    yield _python(facts)
    yield _required(facts, "node", "node", "The tool descriptions promise Node to agents.")
    yield _search(facts)
    yield _git(facts)
    if is_mounted:
        yield _required(facts, "mount-s3", "mount-s3", "It mounts the workspace.")
        yield _fuse(facts)
        yield _user(facts)
    else:
        yield from skipped("the workspace is not mounted", "mount-s3", "fuse")
        yield ok("user", f"commands run as {_name(facts)}")
    yield _clock(facts, before_s, after_s)


def judge_sync(report: SyncReport | None) -> Iterator[Finding]:
    """Yield the finding for the first synchronisation, whose report is None if the workspace is not synchronised."""
    if report is None:
        yield from skipped("the workspace is not synchronised", "sync")
        return
    facts = (
        f"a listing takes {report.round_trip_s * 1000:.0f} ms from the sandbox, {report.free_bytes / 2**30:.1f} GiB of "
        "its disk are free"
    )
    if report.failure:
        yield failed("sync", f"{report.failure}: {report.detail}", "See the S3 checks above.", report.failure)
    elif report.conditional_delete:
        yield ok("sync", f"the store checks the conditions of writes and deletions; {facts}")
    else:
        yield warning(
            "sync",
            f"the store checks the conditions of writes, but not of deletions; {facts}",
            "A file that another writer changes within the same milliseconds as it is deleted here may be lost.",
        )


def _required(facts: Mapping[str, str], check: str, program: str, why: str) -> Finding:
    if program in facts:
        return ok(check, facts[program] or program)
    return failed(check, f"the sandbox has no {program}", f"{why} {_SNAPSHOT}", "missing")


def _python(facts: Mapping[str, str]) -> Finding:
    finding = _required(facts, "python", "python3", "The workspace tools run on it.")
    version = _VERSION.match(facts.get("python3", ""))
    if "python3" not in facts or (version and (int(version[1]), int(version[2])) >= PYTHON):
        return finding
    which = facts["python3"] or "of an unknown version"
    return failed(
        "python", f"the sandbox's python3 is {which}", f"3.8 or newer is needed. {_SNAPSHOT}", "too_old"
    )


def _search(facts: Mapping[str, str]) -> Finding:
    if "rg" in facts:
        return ok("search", facts["rg"])
    if "grep" in facts:
        return warning(
            "search",
            f"no ripgrep; {facts['grep']} is used",
            "Large workspaces are searched faster with ripgrep: install it in the snapshot.",
        )
    return failed("search", "the sandbox has neither ripgrep nor grep", _SNAPSHOT, "missing")


def _git(facts: Mapping[str, str]) -> Finding:
    if "git" in facts:
        return ok("git", facts["git"])
    return warning("git", "the sandbox has no git", "Install it in the snapshot if agents are to use it.")


def _fuse(facts: Mapping[str, str]) -> Finding:
    if "fuse" in facts:
        return ok("fuse", "/dev/fuse is there")
    return failed(
        "fuse",
        "the sandbox has no /dev/fuse",
        "Use a Daytona target whose sandboxes have FUSE; a self-hosted runner must start containers with the device.",
        "missing",
    )


def _user(facts: Mapping[str, str]) -> Finding:
    name = _name(facts)
    remedy = (
        "For a user who is not root, with a mount helper that does nothing else as root, build the snapshot with "
        "`langchain-daytona-ws s3-snapshot --user NAME`."
    )
    if facts.get("uid") == "0":
        return warning("user", f"commands run as root, so {_PREVENTS}", remedy)
    if "sudo" in facts:
        return warning("user", f"commands run as {name}, who may do anything by sudo, so {_PREVENTS}", remedy)
    if "helper" in facts:
        return ok("user", f"commands run as {name}, who may mount by the helper and has no general sudo")
    return failed(
        "user", f"commands run as {name}, who cannot mount", f"{remedy} Or use root.", "cannot_mount"
    )


def _name(facts: Mapping[str, str]) -> str:
    return facts.get("user") or f"the user {facts.get('uid') or 'without a name'}"


def _clock(facts: Mapping[str, str], before_s: float, after_s: float) -> Finding:
    text = facts.get("time", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        return warning("sandbox-clock", "the sandbox does not report its time", _SNAPSHOT)
    remedy = "The clock of Daytona's runner or of this machine is wrong: compare the S3 clock above, and correct it."
    return judge_clock("sandbox-clock", "the sandbox's", off_by_s(float(text), before_s, after_s), remedy)
