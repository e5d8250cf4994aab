"""Where a path of Deep Agents is: in the workspace, in what the agent puts aside, or anywhere else. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from langchain_daytona_ws._core.paths import workspace_path
from langchain_daytona_ws.errors import ConfigError, PathRefused

_ASIDE = ("large_tool_results", "conversation_history", "blobs")


def aside(artifacts_root: str) -> tuple[str, ...]:
    """Return the directories where Deep Agents itself puts what is too long for the model.

    Raises:
        ConfigError: The root is no absolute path.
    """
    if not artifacts_root.startswith("/") or ".." in artifacts_root.split("/"):
        raise ConfigError(
            f"artifacts_root must be an absolute path without '..', such as '/tmp/agent', not {artifacts_root!r}",
            code="artifacts_root",
        )
    return tuple(f"{artifacts_root.rstrip('/')}/{name}" for name in _ASIDE)


@dataclass(frozen=True, slots=True)
class Place:
    """A file or directory of the sandbox.

    Args:
        path: Its absolute path.
        within: The same from the workspace directory, ``"."`` for that itself; None when it is outside.
        is_aside: Whether Deep Agents keeps there what it puts aside.
    """

    path: str
    within: str | None
    is_aside: bool = False

    @property
    def name(self) -> str:
        """The path as the file operations take it."""
        return self.path if self.within is None else self.within

    def below(self, name: str) -> str:
        """Return the absolute path of a name in this directory."""
        # What is not UTF-8 can neither be sent to a model nor asked for.
        return f"{self.path.rstrip('/')}/{name}".encode("utf-8", "replace").decode()


def place_of(path: str, root: str, aside: Collection[str] = ()) -> Place:
    """Return where a path is; a relative one is taken from the workspace directory ``root``.

    Args:
        path: As Deep Agents has it.
        root: The workspace directory.
        aside: The directories where Deep Agents puts something aside.

    Raises:
        PathRefused: It is no path.
    """
    if any("\ud800" <= char <= "\udfff" for char in path):
        raise PathRefused("The path is not valid Unicode text.", code="path_not_unicode")
    relative = workspace_path(path if path.startswith("/") or not path else f"{root}/{path}", "/")
    full = "/" if relative == "." else f"/{relative}"
    within = full.removeprefix(f"{root}/") if full.startswith(f"{root}/") else None
    is_aside = any(full.startswith(f"{directory}/") for directory in aside)
    return Place(full, "." if full == root else within, is_aside)
