"""Which actions ask in which mode."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from langchain_daytona_ws.config import PermissionMode

_READS: frozenset[str] = frozenset()
_CHANGES_FILES = frozenset({"ask"})
_RUNS_COMMANDS = frozenset({"ask", "edit"})

ASKS: Mapping[tuple[str, str], frozenset[str]] = MappingProxyType(
    {
        ("workspace_file", "read"): _READS,
        ("workspace_file", "list"): _READS,
        ("workspace_file", "glob"): _READS,
        ("workspace_file", "grep"): _READS,
        ("workspace_file", "write"): _CHANGES_FILES,
        ("workspace_file", "edit"): _CHANGES_FILES,
        ("workspace_file", "delete"): _CHANGES_FILES,
        ("bash", "run"): _RUNS_COMMANDS,
        ("bash_job", "status"): _READS,
        ("bash_job", "logs"): _READS,
        ("bash_job", "list"): _READS,
        ("bash_job", "stop"): _RUNS_COMMANDS,
    }
)
"""(tool, action) → the modes in which it asks."""


def needs_approval(mode: PermissionMode, tool: str, action: str) -> bool:
    """Say whether an action has to be approved first.

    Args:
        mode: ``"ask"``, ``"edit"`` or ``"bypass"``, which never asks. Any other value acts like ``"ask"``.
        tool: The tool's name, such as ``"bash"``.
        action: What it would do: ``"run"``, ``"write"`` … One that is not in the table asks.
    """
    if mode == "bypass":
        return False
    asks = ASKS.get((tool, action))
    return asks is None or (mode if mode in {"ask", "edit"} else "ask") in asks
