"""Run the tests that use mount-s3, S3 or STS, and the faults, on the original programs; print the differences.

If a test fails here and passes in `make test`, the local program differs from the original.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass

import pytest

from tests.real import ACCESS_KEY, ENDPOINT, MOUNT_S3, SECRET_KEY
from tests.real.differences import DIFFERENCES

MOUNTS = [
    "tests/integration_tests/local/test_mount_s3.py",
    "tests/integration_tests/local/test_mount_table.py",
    "tests/integration_tests/local/test_mount_start.py",
    "tests/integration_tests/local/test_mount_credentials.py",
    "tests/integration_tests/local/test_mount_hints.py",
    "tests/integration_tests/test_s3_mount.py",
    "tests/integration_tests/test_s3_rotation.py",
    "tests/integration_tests/test_mount_helper.py",
]
STORES = [
    "tests/integration_tests/test_credentials.py",
    "tests/integration_tests/test_s3_files.py",
    "tests/integration_tests/test_s3_session.py",
    "tests/integration_tests/test_s3_synced_files.py",
    "tests/integration_tests/test_sync.py",
]
FAULTS = "tests/faults/test_faults.py"
SHOWN_CHARS = 300  # of an error message


@dataclass(frozen=True)
class Difference:
    """A test that passes on the local program and fails on the original."""

    test: str
    seen: str
    why: str


class Collector:
    """Records the outcome of every test."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}
        self.passed = 0
        self.skipped = 0

    def pytest_sessionstart(self) -> None:
        # Imported here, since pytest rewrites modules at import. In other processes `tests/__init__.py` applies it.
        from tests.real import stand_in

        stand_in.apply()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash else report.longreprtext
            self.failed.setdefault(report.nodeid, " ".join(text.split())[:SHOWN_CHARS])
        elif report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.passed += 1


def main() -> int:
    """Run the tests; return 0 if a test passed and every difference is explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.real", description=__doc__)
    parser.add_argument("--mount-s3", help="path of the original mount-s3")
    parser.add_argument(
        "--s3-endpoint", help="URL of a store with S3 and STS; the tests empty the buckets that they create"
    )
    parser.add_argument(
        "--workers", default="2", help="number of parallel tests; with --s3-endpoint always 1"
    )
    options, more = parser.parse_known_args()
    if not options.mount_s3 and not options.s3_endpoint:
        parser.error("give MOUNT_S3=path, S3_ENDPOINT=url or both")
    os.environ["NO_PROXY"] = "127.0.0.1,localhost,::1"
    if options.mount_s3:
        os.environ[MOUNT_S3] = os.path.abspath(options.mount_s3)
    if options.s3_endpoint:
        os.environ[ENDPOINT] = options.s3_endpoint
        os.environ[ACCESS_KEY] = os.environ.get("S3_ACCESS_KEY", "")
        os.environ[SECRET_KEY] = os.environ.get("S3_SECRET_KEY", "")
    files = [argument for argument in more if not argument.startswith("-")]
    flags = [argument for argument in more if argument.startswith("-")]
    collector = Collector()
    workers = ["-n", "0"] if options.s3_endpoint else ["-n", options.workers]
    pytest.main(
        ["-q", "--tb=no", "-p", "no:cacheprovider", *workers, *flags, *(files or [*MOUNTS, *STORES, FAULTS])],
        plugins=[collector],
    )
    found = [Difference(test, seen, why_of(test)) for test, seen in sorted(collector.failed.items())]
    sys.stdout.write(table(found) + f"\n\n{collector.passed} tests equal, {len(found)} differences, ")
    sys.stdout.write(
        f"{sum(not difference.why for difference in found)} of them unexplained, {collector.skipped} skipped\n"
    )
    return 1 if not collector.passed or any(not difference.why for difference in found) else 0


def why_of(test: str) -> str:
    """Return the explanation of a known difference, for the test itself or for all of its parameters."""
    name = re.sub(r"\[.*\]$", "", test)
    return next((why for end, why in DIFFERENCES.items() if test.endswith(end) or name.endswith(end)), "")


def table(found: list[Difference]) -> str:
    """Return the differences as a Markdown table."""
    rows = ["| test | result on the original | reason |", "|---|---|---|"]
    rows += [
        f"| {difference.test.rpartition('/')[2]} | {difference.seen.replace('|', chr(92) + '|')} "
        f"| {difference.why or 'unexplained'} |"
        for difference in found
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
