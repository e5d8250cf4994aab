"""The programs that sandboxes keep in files, by the digests of these files."""

from __future__ import annotations

import re

from langchain_daytona_ws._core.guest_rpc.payload import Program

MISSING_MAX = 3  # misses in a row; then the sandbox is assumed to keep no files

_DIGEST = re.compile(r"[0-9a-f]{64}")


class KeptPrograms:
    """The digests that a session has learned from answers to its own calls; shared by its clients and threads.

    Nothing in a sandbox is trusted: the guest uses a file only if its content has the digest that the host sends.
    """

    def __init__(self) -> None:
        self._digests: dict[tuple[str, Program], str] = {}
        self._missing: dict[str, int] = {}

    def digest(self, sandbox_id: str, program: Program) -> str:
        """Return the digest of a program's file; "" to send its source."""
        return self._digests.get((sandbox_id, program), "")

    def learn(self, sandbox_id: str, program: Program, digest: object) -> None:
        """Record the digest in the answer to a call that brought the source; ignore an invalid one."""
        if (
            isinstance(digest, str)
            and _DIGEST.fullmatch(digest)
            and self._missing.get(sandbox_id, 0) < MISSING_MAX
        ):
            self._digests[sandbox_id, program] = digest

    def found(self, sandbox_id: str) -> None:
        """Record that the sandbox had a program."""
        self._missing.pop(sandbox_id, None)

    def missing(self, sandbox_id: str, program: Program) -> None:
        """Record that the sandbox did not have a program."""
        self._missing[sandbox_id] = self._missing.get(sandbox_id, 0) + 1
        self.forget(sandbox_id, program)

    def forget(self, sandbox_id: str, program: Program) -> None:
        """Send the source with the next request."""
        self._digests.pop((sandbox_id, program), None)
