"""The snapshots on offer. Whatever their name, a sandbox made from one sees the host's own programs."""

from __future__ import annotations

import re
import uuid
from typing import Any

from .errors import ApiError
from .record import timestamp

GENERAL = ("default", "fuse-s3")
FROM_LINE = re.compile(r"^\s*FROM\s+\S+", re.IGNORECASE | re.MULTILINE)


class Snapshots:
    """Snapshots by name and id."""

    def __init__(self, now: float) -> None:
        self._made: dict[str, dict[str, Any]] = {}
        for name in GENERAL:
            self._add(name, None, general=True, now=now)

    def require(self, name: str) -> None:
        """Raise the API's 400 unless a snapshot is called `name`."""
        if self._find(name) is None:
            raise ApiError(400, f"Snapshot {name} not found. Did you add it through the Daytona Dashboard?")

    def get(self, id_or_name: str) -> dict[str, Any]:
        found = self._find(id_or_name)
        if found is None:
            raise ApiError(404, f"Snapshot with ID or name {id_or_name} not found")
        return found

    def create(self, body: dict[str, Any], now: float) -> dict[str, Any]:
        name = body.get("name")
        if not isinstance(name, str) or not name:
            raise ApiError(400, "name should not be empty")
        if self._find(name) is not None:
            raise ApiError(409, f"Snapshot with name {name} already exists")
        if body.get("buildInfo") is not None:
            require_dockerfile(body["buildInfo"])
        return self._add(name, body.get("imageName"), general=False, now=now)

    def delete(self, identifier: str) -> None:
        snapshot = self.get(identifier)
        if snapshot["general"]:
            raise ApiError(403, "You cannot delete a general snapshot")
        del self._made[snapshot["name"]]

    def page(self, page: int, limit: int) -> dict[str, Any]:
        """Return the `page`th group (from 1) of `limit` snapshots."""
        every = list(self._made.values())
        pages = max(1, -(-len(every) // limit))
        return {
            "items": every[(page - 1) * limit : page * limit],
            "total": len(every),
            "page": page,
            "totalPages": pages,
        }

    def _find(self, id_or_name: str) -> dict[str, Any] | None:
        by_id = next((one for one in self._made.values() if one["id"] == id_or_name), None)
        return self._made.get(id_or_name, by_id)

    def _add(self, name: str, image: str | None, *, general: bool, now: float) -> dict[str, Any]:
        made = {
            "id": str(uuid.uuid4()),
            "general": general,
            "name": name,
            "imageName": image or f"local/{name}",
            "state": "active",
            "size": 0,
            "entrypoint": None,
            "cpu": 1,
            "gpu": 0,
            "mem": 1,
            "disk": 3,
            "errorReason": None,
            "createdAt": timestamp(now),
            "updatedAt": timestamp(now),
            "lastUsedAt": None,
            "sourceSandboxId": None,
        }
        self._made[name] = made
        return made


def require_dockerfile(build_info: Any) -> None:
    """Raise the API's 400 unless `build_info` has a Dockerfile with a FROM line. Nothing is built from it."""
    content = build_info.get("dockerfileContent") if isinstance(build_info, dict) else None
    if not isinstance(content, str) or FROM_LINE.search(content) is None:
        raise ApiError(400, "Invalid Dockerfile: a FROM instruction is required")
