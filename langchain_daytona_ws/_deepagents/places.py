"""Where a path of Deep Agents is: in the workspace, in what the agent puts aside, or anywhere else. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_daytona_ws._core.paths import workspace_path

ASIDE = ("/large_tool_results", "/conversation_history", "/blobs")
"""Where Deep Agents itself puts what is too long for the model, unless `CompositeBackend` says otherwise."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file or directory of the sandbox.

    Args:
        path: Its absolute path.
        within: The same from the workspace directory, ``"."`` for that itself; None when it is outside.
    """

    path: str
    within: str | None

    @property
    def name(self) -> str:
        """The path as the file operations take it."""
        return self.path if self.within is None else self.within

    @property
    def is_aside(self) -> bool:
        """Whether Deep Agents keeps there what it puts aside."""
        return self.within is None and any(self.path.startswith(f"{directory}/") for directory in ASIDE)

    def below(self, name: str) -> str:
        """Return the absolute path of a name in this directory."""
        # What is not UTF-8 can neither be sent to a model nor asked for.
        return f"{self.path.rstrip('/')}/{name}".encode("utf-8", "replace").decode()


def place_of(path: str, root: str) -> Place:
    """Return where a path is; a relative one is taken from the workspace directory ``root``.

    Raises:
        PathRefused: It is no path.
    """
    relative = workspace_path(path if path.startswith("/") or not path else f"{root}/{path}", "/")
    full = "/" if relative == "." else f"/{relative}"
    if full == root:
        return Place(full, ".")
    return Place(full, full.removeprefix(f"{root}/") if full.startswith(f"{root}/") else None)
