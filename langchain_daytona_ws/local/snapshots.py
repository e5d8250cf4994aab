"""Snapshots. A sandbox from any snapshot sees the host's programs: no image is built or used."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import ApiError
from .faults import Fault, find_fault
from .record import timestamp

GENERAL = ("default", "fuse-s3")
# Field of a snapshot → field of the create request.
_SIZES = {"cpu": "cpu", "gpu": "gpu", "mem": "memory", "disk": "disk"}
FROM_LINE = re.compile(r"^[^\S\n]*FROM\s+\S", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class _Change:
    """A future change of a snapshot, due at a time of the server's clock. `state` is None for a deletion."""

    due: float
    state: str | None
    error_reason: str | None = None


class Snapshots:
    """Snapshots by name and id. Due changes are applied at the next request."""

    def __init__(self, now: float) -> None:
        self._by_name: dict[str, dict[str, Any]] = {}
        self._changes: dict[str, _Change] = {}
        self.clear(now)

    def clear(self, now: float) -> None:
        """Delete all snapshots except the general ones."""
        self._by_name.clear()
        self._changes.clear()
        for name in GENERAL:
            self._add(name, None, general=True, now=now)

    def require(self, name: str, now: float) -> None:
        """If no active snapshot has this name or id, raise the API's 400."""
        snapshot = self._find(name, now)
        if snapshot is None:
            raise ApiError(400, f"Snapshot {name} not found. Did you add it through the Daytona Dashboard?")
        if snapshot["state"] != "active":
            raise ApiError(400, f"Snapshot {name} is {snapshot['state']}")

    def get(self, id_or_name: str, now: float) -> dict[str, Any]:
        snapshot = self._find(id_or_name, now)
        if snapshot is None:
            raise ApiError(404, f"Snapshot with ID or name {id_or_name} not found")
        return snapshot

    def create(self, body: dict[str, Any], now: float, faults: Iterable[Fault] = ()) -> dict[str, Any]:
        """Add a snapshot. With a Dockerfile its state is `building`; `faults` decide how and when the build ends."""
        name = body.get("name")
        if not isinstance(name, str) or not name:
            raise ApiError(400, "name should not be empty")
        if self._find(name, now) is not None:
            raise ApiError(409, f"Snapshot with name {name} already exists")
        build_info = body.get("buildInfo")
        if build_info is not None:
            require_dockerfile(build_info)
        snapshot = self._add(name, body.get("imageName"), general=False, now=now)
        snapshot |= {key: body[field] for key, field in _SIZES.items() if body.get(field) is not None}
        if body.get("regionId") is not None:
            snapshot["regionIds"] = [body["regionId"]]
        if build_info is not None:
            snapshot["state"] = "building"
            snapshot["buildInfo"] = {
                **build_info,
                "createdAt": snapshot["createdAt"],
                "updatedAt": snapshot["updatedAt"],
                "snapshotRef": f"local/{name}",
            }
            failing = find_fault(faults, "fail") is not None
            end = ("build_failed", "failed on demand") if failing else ("active", None)
            self._changes[snapshot["id"]] = _Change(_due(now, faults), *end)
        return dict(snapshot)

    def delete(self, identifier: str, now: float, faults: Iterable[Fault] = ()) -> None:
        snapshot = self.get(identifier, now)
        if snapshot["general"]:
            raise ApiError(403, "You cannot delete a general snapshot")
        snapshot["state"] = "removing"
        self._changes[snapshot["id"]] = _Change(_due(now, faults), None)

    def log(self, identifier: str, now: float) -> list[str]:
        """Return the current lines of the build's log."""
        snapshot = self.get(identifier, now)
        if "buildInfo" not in snapshot:
            return []
        steps = snapshot["buildInfo"]["dockerfileContent"].replace("\\\n", "").splitlines()
        lines = ["(the local Daytona runs no Dockerfile: sandboxes see this machine's own programs)"]
        lines += [f"not run: {step}" for step in steps if step.strip() and not step.startswith("#")]
        return lines + ([] if snapshot["state"] == "building" else [f"the build ended: {snapshot['state']}"])

    def page(self, page: int, limit: int, now: float) -> dict[str, Any]:
        """Return page number `page` (from 1) of the list, with at most `limit` snapshots."""
        self._apply_due(now)
        snapshots = list(self._by_name.values())
        pages = max(1, -(-len(snapshots) // limit))
        return {
            "items": snapshots[(page - 1) * limit : page * limit],
            "total": len(snapshots),
            "page": page,
            "totalPages": pages,
        }

    def _apply_due(self, now: float) -> None:
        for snapshot in list(self._by_name.values()):
            change = self._changes.get(snapshot["id"])
            if change is None or change.due > now:
                continue
            del self._changes[snapshot["id"]]
            if change.state is None:
                del self._by_name[snapshot["name"]]
            else:
                snapshot |= {
                    "state": change.state,
                    "errorReason": change.error_reason,
                    "updatedAt": timestamp(now),
                }

    def _find(self, id_or_name: str, now: float) -> dict[str, Any] | None:
        self._apply_due(now)
        by_id = next((other for other in self._by_name.values() if other["id"] == id_or_name), None)
        return self._by_name.get(id_or_name, by_id)

    def _add(self, name: str, image: str | None, *, general: bool, now: float) -> dict[str, Any]:
        snapshot: dict[str, Any] = {
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
        self._by_name[name] = snapshot
        return snapshot


def _due(now: float, faults: Iterable[Fault]) -> float:
    if find_fault(faults, "stuck"):
        return math.inf
    pending = find_fault(faults, "pending")
    return now + (pending.delay_s if pending else 0.0)


def require_dockerfile(build_info: Any) -> None:
    """If `build_info` has no Dockerfile with a FROM line, raise the API's 400. The Dockerfile is not built."""
    content = build_info.get("dockerfileContent") if isinstance(build_info, dict) else None
    if not isinstance(content, str) or FROM_LINE.search(content) is None:
        raise ApiError(400, "Invalid Dockerfile: a FROM instruction is required")
