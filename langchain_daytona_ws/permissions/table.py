"""The table of actions that need approval in each permission mode."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from langchain_daytona_ws.config import PermissionMode

_NEVER: frozenset[str] = frozenset()
_IN_ASK = frozenset({"ask"})
_IN_ASK_AND_EDIT = frozenset({"ask", "edit"})

ASKS: Mapping[tuple[str, str], frozenset[str]] = MappingProxyType(
    {
        ("workspace_file", "read"): _NEVER,
        ("workspace_file", "list"): _NEVER,
        ("workspace_file", "glob"): _NEVER,
        ("workspace_file", "grep"): _NEVER,
        ("workspace_file", "write"): _IN_ASK,
        ("workspace_file", "edit"): _IN_ASK,
        ("workspace_file", "delete"): _IN_ASK,
        ("bash", "run"): _IN_ASK_AND_EDIT,
        ("bash_job", "status"): _NEVER,
        ("bash_job", "logs"): _NEVER,
        ("bash_job", "list"): _NEVER,
        ("bash_job", "stop"): _IN_ASK_AND_EDIT,
        ("preview_url", "open"): _IN_ASK_AND_EDIT,
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
