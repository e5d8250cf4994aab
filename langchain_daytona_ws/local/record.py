"""The record of a sandbox, and its form in the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .isolation import ProcessTree

UNLISTED_FIELDS = ("env", "volumes", "buildInfo")


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch in the format of the API."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class SandboxRecord:
    """The record of a sandbox. Intervals are in minutes, times in seconds since the epoch.

    The value 0 disables auto_stop_interval and ttl_minutes; -1 disables auto_delete_interval.
    If auto_delete_interval is 0, a stop destroys the sandbox. If auto_archive_interval is 0, the longest interval holds
    (Daytona SDK): 30 days (assumed).
    """

    id: str
    organization_id: str
    name: str
    folder: Path
    created_at: float
    last_activity_at: float
    updated_at: float
    state: str = "creating"
    desired_state: str = "started"
    # True during a state change: requests for another state change are refused.
    changing: bool = False
    error_reason: str | None = None
    snapshot: str | None = "default"
    build_info: dict[str, Any] | None = None
    user: str = "daytona"
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    public: bool = False
    target: str = "local"
    cpu: int = 1
    memory: int = 1
    disk: int = 3
    volumes: list[dict[str, Any]] = field(default_factory=list)
    network_block_all: bool = False
    auto_stop_interval: int = 15
    auto_archive_interval: int = 7 * 24 * 60
    auto_delete_interval: int = -1
    ttl_minutes: int = 0
    stopped_at: float | None = None
    open_requests: int = 0
    processes: ProcessTree | None = None

    @property
    def destroy_at(self) -> float | None:
        return self.created_at + self.ttl_minutes * 60 if self.ttl_minutes > 0 else None

    def dto(self, toolbox_url: str) -> dict[str, Any]:
        """Return the sandbox in the format of the API."""
        fields = {
            "id": self.id,
            "organizationId": self.organization_id,
            "name": self.name,
            "snapshot": self.snapshot,
            "user": self.user,
            "env": self.env,
            "labels": self.labels,
            "public": self.public,
            "networkBlockAll": self.network_block_all,
            "kvm": False,
            "target": self.target,
            "cpu": self.cpu,
            "gpu": 0,
            "memory": self.memory,
            "disk": self.disk,
            "state": self.state,
            "desiredState": self.desired_state,
            "errorReason": self.error_reason,
            "backupState": "None",
            "autoStopInterval": self.auto_stop_interval,
            "autoArchiveInterval": self.auto_archive_interval,
            "autoDeleteInterval": self.auto_delete_interval,
            "autoDestroyAt": None if self.destroy_at is None else timestamp(self.destroy_at),
            "volumes": self.volumes,
            "buildInfo": self.build_info,
            "createdAt": timestamp(self.created_at),
            "updatedAt": timestamp(self.updated_at),
            "lastActivityAt": timestamp(self.last_activity_at),
            "toolboxProxyUrl": toolbox_url,
        }
        return {key: value for key, value in fields.items() if value is not None}

    def list_item(self, toolbox_url: str) -> dict[str, Any]:
        """Return the shorter form of the sandbox that listings contain."""
        return {key: value for key, value in self.dto(toolbox_url).items() if key not in UNLISTED_FIELDS}
