"""Processes that are killed during their work: see `test_killed_host`."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

COMMANDS = 2


def work(config: dict[str, Any], namespace: str, reported: Connection) -> None:
    """Use a workspace and close it; report each file that a finished step has written."""
    from langchain_daytona_ws import WorkspaceSession

    with WorkspaceSession(config, namespace=namespace) as session:
        for number in range(COMMANDS):
            name = f"by-command-{number}.txt"
            assert session.run(f"echo {name} > {name}; sleep 0.1").exit_code == 0
            reported.send(name)
            name = f"d/by-file-{number}.txt"
            session.files.write(name, f"{name}\n")
            reported.send(name)
    reported.send("")
