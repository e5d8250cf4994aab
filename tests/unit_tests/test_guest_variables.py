"""The guest reads its request from environment variables, which no program inherits."""

from __future__ import annotations

import subprocess
import sys

from langchain_daytona_ws._core.guest_rpc.payload import ENV_PREFIX, guest_source

TAKING = """
print(take(b"REQUEST", 2), unpack(take(b"SOURCE", 1)))
import os
os.execvp("env", ["env"])
"""


def test_a_value_is_joined_and_no_program_inherits_it() -> None:
    variables = {
        "PATH": "/usr/bin:/bin",
        "KEPT": "1",
        f"{ENV_PREFIX}REQUEST0": "ab",
        f"{ENV_PREFIX}REQUEST1": "ć",
        f"{ENV_PREFIX}SOURCE0": "eJxLLC5OzMwBAAi4An4=",
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-u", "-c", guest_source("variables") + TAKING],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    taken, *inherited = done.stdout.splitlines()
    assert taken == f"{'abć'.encode()!r} {b'assail'!r}"
    assert "KEPT=1" in inherited
    assert not [line for line in inherited if line.startswith(ENV_PREFIX)]
