"""Classify a path: in the workspace, in the artifact directories of Deep Agents, or elsewhere in the sandbox."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from langchain_daytona_ws._core.paths import workspace_path
from langchain_daytona_ws.errors import ConfigError, PathRefused

_ARTIFACTS = ("large_tool_results", "conversation_history", "blobs")


def artifact_directories(artifacts_root: str) -> tuple[str, ...]:
    """Return the directories in which Deep Agents itself stores long results, old messages and binary contents."""
    if not artifacts_root.startswith("/") or ".." in artifacts_root.split("/"):
        raise ConfigError(
            f"artifacts_root must be an absolute path without '..', such as '/tmp/agent', not {artifacts_root!r}",
            code="artifacts_root",
        )
    return tuple(f"{artifacts_root.rstrip('/')}/{name}" for name in _ARTIFACTS)


@dataclass(frozen=True, slots=True)
class FileLocation:
    """A file or directory of the sandbox.

    Args:
        path: The absolute path.
        relative: The path relative to the workspace directory; ``"."`` is the directory itself. None outside the
            workspace.
        is_artifact: True if the path is in an artifact directory of Deep Agents.
    """

    path: str
    relative: str | None
    is_artifact: bool = False

    @property
    def is_outside(self) -> bool:
        return self.relative is None

    @property
    def name(self) -> str:
        """The path in a permission request: in the workspace the relative path, elsewhere the absolute path."""
        return self.path if self.relative is None else self.relative

    def child(self, name: str) -> str:
        """Return the absolute path of a name in this directory."""
        # A name that is not UTF-8 can't be sent to a model, and the model can't request it.
        return f"{self.path.rstrip('/')}/{name}".encode("utf-8", "replace").decode()


def locate(path: str, root: str, artifacts: Collection[str] = ()) -> FileLocation:
    """Return the location of a path, which may be relative to ``root``, the workspace directory.

    Raises:
        PathRefused: The path is not valid.
    """
    if any("\ud800" <= char <= "\udfff" for char in path):
        raise PathRefused("The path is not valid Unicode text.", code="path_not_unicode")
    from_top = workspace_path(path if path.startswith("/") or not path else f"{root}/{path}", "/")
    full = "/" if from_top == "." else f"/{from_top}"
    below_root = full.removeprefix(f"{root}/") if full.startswith(f"{root}/") else None
    is_artifact = any(full.startswith(f"{directory}/") for directory in artifacts)
    return FileLocation(full, "." if full == root else below_root, is_artifact)
