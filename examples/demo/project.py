"""The demo's project: a published package, its own tests, and a planted bug."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from langchain_daytona_ws import WorkspaceSession

HERE = Path(__file__).parent
DOWNLOADS = HERE.parents[1] / ".venv" / "demo"
ARCHIVE = "source.tar.gz"

TESTS = "python3 -m unittest discover -q -s tests -t ."

# The bug: without `reversed`, object identifiers are encoded with the parts of long arcs in reverse order.
BROKEN_FILE = "pyasn1/codec/ber/encoder.py"
PUBLISHED = """\
                # Add packed Sub-Object ID to resulted Object ID
                octets.extend(reversed(res))
"""
BROKEN = """\
                # Add packed Sub-Object ID to resulted Object ID
                octets.extend(res)
"""

_RAN = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
_ENDED = re.compile(r"^(?:OK|FAILED)(?: \((.*)\))?$", re.MULTILINE)


class DemoFailed(Exception):
    """The demo failed; the message has the reason."""


@dataclass(frozen=True)
class Package:
    """The pinned package and its source archive."""

    name: str
    version: str
    archive: bytes

    @classmethod
    def pinned(cls) -> Package:
        """Return the package of ``requirements.txt``, which ``make demo`` has downloaded."""
        pin = re.search(
            r"^(\S+)==(\S+) .*?sha256:([0-9a-f]{64})", (HERE / "requirements.txt").read_text(), re.M | re.S
        )
        if pin is None:
            raise DemoFailed("requirements.txt has no pin")
        name, version, sha256 = pin.groups()
        path = DOWNLOADS / f"{name}-{version}.tar.gz"
        if not path.is_file():
            raise DemoFailed(f"{path} is missing: run the demo with `make demo`, which downloads it")
        archive = path.read_bytes()
        if hashlib.sha256(archive).hexdigest() != sha256:
            raise DemoFailed(f"{path} is not the pinned archive: remove it, and run `make demo` again")
        return cls(name, version, archive)


@dataclass(frozen=True)
class TestRun:
    """The result of a run of the package's tests."""

    __test__ = False  # not a test class of pytest

    total: int
    failed: int

    @classmethod
    def read(cls, output: str) -> TestRun | None:
        """Read unittest's summary; None if it is missing."""
        ran, ended = _RAN.search(output), _ENDED.search(output)
        if ran is None or ended is None:
            return None
        counts = dict(re.findall(r"(\w+)=(\d+)", ended[1] or ""))
        failed = sum(int(counts.get(kind, 0)) for kind in ("failures", "errors"))
        if ended[0].startswith("FAILED"):
            failed = max(failed, 1)
        return cls(int(ran[1]), failed)

    def __str__(self) -> str:
        return f"{self.failed} of {self.total} failed" if self.failed else f"{self.total} passed"


async def set_up(session: WorkspaceSession, package: Package) -> None:
    """Write the package's source into the workspace, and plant the bug."""
    await session.files.awrite(ARCHIVE, package.archive)
    # Unpacked outside the workspace: in a mounted workspace tar cannot set times and modes.
    unpacked = await session.arun(
        f'd=$(mktemp -d) && tar -xzf {ARCHIVE} -C "$d" --strip-components=1 --exclude=docs --no-same-owner && '
        f'cp -r "$d"/. . && rm -r "$d" {ARCHIVE} && python3 --version',
        timeout_s=180,
    )
    if unpacked.exit_code != 0:
        raise DemoFailed(
            f"the source could not be unpacked, or the sandbox has no python3:\n{unpacked.text[-1000:]}"
        )
    await session.files.aread(BROKEN_FILE, limit=1)
    await session.files.aedit(BROKEN_FILE, PUBLISHED, BROKEN)


async def run_tests(session: WorkspaceSession) -> TestRun:
    """Run the package's tests, independently of the agent."""
    result = await session.arun(TESTS, timeout_s=120)
    run = TestRun.read(result.output)
    if run is None:
        raise DemoFailed(f"the tests did not run:\n{result.text[-1000:]}")
    return run


async def fingerprint_of_tests(session: WorkspaceSession) -> str:
    """Return a hash of the package's test files: an agent might "repair" those instead."""
    result = await session.arun("find tests -name '*.py' -print0 | sort -z | xargs -0 sha256sum | sha256sum")
    return result.output.strip()
