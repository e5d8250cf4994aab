"""Processes that start at once and use the sandbox of one workspace: see `test_persistent`."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext
from typing import Any

# Loaded once in the server from which the processes fork, so that they really start together.
PRELOADED = ["daytona", "langchain_daytona_ws._adapters.daytona_sync", __name__]


def forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def claim_each_round(config: dict[str, Any], rounds: int, barrier: Any, reported: Any) -> None:
    """In each round, wait for all processes, run a command in the round's workspace, and report its sandbox."""
    from langchain_daytona_ws import WorkspaceSession

    for number in range(rounds):
        barrier.wait()
        with WorkspaceSession(config, namespace=f"round-{number}") as session:
            result = session.run("echo started >> /tmp/starts; cat /tmp/hook")
            reported.put((number, result.sandbox_id, result.output))
