"""A policy evaluator that is not ours: the npm package iam-simulate, which knows AWS's actions and condition keys.

No Python package that runs on the supported Pythons evaluates conditions. It is a tool of the tests: run as a program
of its own, under its own licence (AGPL), and no part of what is distributed. ``python -m tests.policy_evaluator``
installs it into the virtual environment, with the Node that the extra ``dev`` brings.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
PROGRAMS = Path(sys.prefix, "bin")
ACCOUNT = "123456789012"
INSTALL_TIMEOUT_S = 110


def installed() -> Path:
    """Return the folder with the packages of the lock file, installing them when it is not there."""
    lock = (HERE / "package-lock.json").read_bytes()
    folder = Path(sys.prefix, f"policy-evaluator-{hashlib.sha256(lock).hexdigest()[:12]}")
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=sys.prefix) as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, new)
        subprocess.run(
            [PROGRAMS / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"],
            cwd=new,
            env={**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"},
            check=True,
            timeout=INSTALL_TIMEOUT_S,
        )
        try:
            new.rename(folder)
        except OSError:
            assert folder.exists(), "somebody else installed it meanwhile"
    return folder


@dataclass(frozen=True)
class Request:
    """A request: an action on a resource, with the condition keys that the service would set."""

    action: str
    resource: str
    context: dict[str, str] = field(default_factory=dict)


class Evaluator:
    """Runs the evaluator until it is closed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [PROGRAMS / "node", HERE / "evaluate.cjs"],
            env={"NODE_PATH": str(installed() / "node_modules")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def allowed(
        self, policy: str, requests: Sequence[Request], *, resource_policy: dict[str, Any] | None = None
    ) -> list[bool]:
        """Return for each request whether the session policy allows it to a role with all permissions."""
        questions = [
            {
                "policy": json.loads(policy),
                "account": ACCOUNT,
                "action": request.action,
                "resource": request.resource,
                "context": request.context,
                "resourcePolicy": resource_policy,
            }
            for request in requests
        ]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(questions) + "\n")
        self._process.stdin.flush()
        answers = json.loads(self._process.stdout.readline())
        for request, answer in zip(requests, answers, strict=True):
            # An unknown action, or a condition key that the action does not have, would prove nothing.
            assert answer.get("ignored") == [], (request, answer)
        return [answer["result"] == "Allowed" for answer in answers]

    def close(self) -> None:
        # It ends when its input does.
        with self._process:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
