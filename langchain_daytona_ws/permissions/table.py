"""The table of actions that need approval in each permission mode."""

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
        ("preview_url", "open"): _RUNS_COMMANDS,
    }
)
"""(tool, action) → the modes in which the action needs approval."""


def needs_approval(mode: PermissionMode, tool: str, action: str) -> bool:
    """Return whether an action needs approval.

    Args:
        mode: ``"ask"``, ``"edit"`` or ``"bypass"`` (nothing needs approval). Any other value acts like ``"ask"``.
        tool: Name of the tool, such as ``"bash"``.
        action: ``"run"``, ``"write"`` … An unknown action needs approval.
    """
    if mode == "bypass":
        return False
    asks = ASKS.get((tool, action))
    return asks is None or (mode if mode in {"ask", "edit"} else "ask") in asks
