"""Check each fact that this package relies on against the account of the environment: ``make live``.

DAYTONA_API_KEY (and DAYTONA_API_URL, DAYTONA_TARGET) name the account. With FILESYSTEM_BUCKET_NAME,
SANDBOX_MOUNT_ROLE_ARN, AWS_REGION and credentials of boto3 that may assume the role, S3 is checked too; with a
snapshot that has mount-s3 (``--options '{"snapshot": "…"}'``) also mounts. A run takes a few minutes, at most ten.
Everything that it makes has the label ``live-check`` and is deleted at the end, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from langchain_daytona_ws import ConfigError
from tests.live import aws_facts, daytona_facts, session_facts
from tests.live.account import LABEL, S3_SANDBOXES, SANDBOXES, TTL_MINUTES, Account
from tests.live.fact import Fact, Result, results, table

LIMIT_S = 480.0  # no check begins later; clean-up ends before ten minutes are over
USUAL_MINUTES = 2
INTERRUPTED = 130


def main() -> int:
    """Check all facts; return 1 if one differs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--options", type=json.loads, default={}, help="options of the configuration, as JSON"
    )
    parser.add_argument("--json", type=Path, default=Path("build/live.json"), help="file for the results")
    parser.add_argument("--area", action="append", help="only facts of this area; may be repeated")
    chosen = parser.parse_args()
    try:
        account = Account(chosen.options)
    except ConfigError as error:
        parser.error(error.message)
    facts = _facts(account, chosen.area)
    _announce(account, facts)
    began, found, ended = time.monotonic(), list[Result](), "complete"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results(facts, account, until=began + LIMIT_S, show=lambda result: _show(result, found))
    except KeyboardInterrupt:
        ended = "interrupted"
    with _uninterrupted():
        left = account.clean_up()
    sys.stdout.write(f"\n{table(found)}\n\n")
    differences = [result for result in found if not result.equal]
    print(f"{len(found)} of {len(facts)} facts checked, {len(differences)} different; {ended}.")
    for name in left:
        print(f"NOT DELETED: {name}; delete it in the Daytona dashboard, or by its label {LABEL}.")
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(_report(account, found, ended, left), indent=1) + "\n")
    print(f"Results: {chosen.json}")
    if ended == "interrupted":
        return INTERRUPTED
    return 1 if differences or left else 0


def _facts(account: Account, areas: list[str] | None) -> list[Fact]:
    facts = [*daytona_facts.fact.all, *session_facts.fact.all]
    if account.workspace is not None:
        facts += aws_facts.fact.all
        if account.config.options.snapshot is not None:
            facts += aws_facts.MOUNTED.all
    return [fact for fact in facts if not areas or fact.area in areas]


def _announce(account: Account, facts: list[Fact]) -> None:
    host = urlsplit(account.config.options.api_url).netloc
    print(f"{len(facts)} facts of {host}, label {LABEL}={account.run}.")
    sandboxes = SANDBOXES + (0 if account.workspace is None else S3_SANDBOXES)
    print(
        f"Cost: at most {sandboxes} sandboxes of the default size for {LIMIT_S / 60:.0f} minutes, that is "
        f"{sandboxes * LIMIT_S / 60:.0f} sandbox minutes; usually about {sandboxes * USUAL_MINUTES}. They are deleted "
        f"at the end, also after Ctrl-C; if this process is killed, Daytona deletes them within {TTL_MINUTES} minutes.",
        flush=True,
    )
    if account.workspace is None:
        print("S3 is not checked: the environment names no bucket (FILESYSTEM_BUCKET_NAME) and role.")


def _show(result: Result, found: list[Result]) -> None:
    found.append(result)
    mark = "=" if result.equal else "≠"
    print(f"{mark} {result.area}: {result.fact}" + ("" if result.equal else f": {result.seen}"), flush=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C until everything is deleted."""

    def remind(*_: object) -> None:
        print("Deleting; this ends by itself.", flush=True)

    before = {number: signal.signal(number, remind) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(account: Account, found: list[Result], ended: str, left: list[str]) -> dict[str, Any]:
    return {
        "run": account.run,
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "api": urlsplit(account.config.options.api_url).netloc,
        "target": account.config.options.target,
        "snapshot": account.config.options.snapshot,
        "sdk": importlib.metadata.version("daytona"),
        "ended": ended,
        "not_deleted": left,
        "facts": [asdict(result) for result in found],
    }


if __name__ == "__main__":
    os.environ.setdefault("DAYTONA_OTEL_ENABLED", "false")
    sys.exit(main())
