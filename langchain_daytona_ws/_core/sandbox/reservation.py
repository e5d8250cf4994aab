"""What sandbox a workspace gets: its name, labels and lifetime. With a persistent one, the same from every host."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from langchain_daytona_ws._core.ports import SandboxSpec
from langchain_daytona_ws._core.s3.workspace import S3Workspace
from langchain_daytona_ws._core.sandbox.network import network_rules
from langchain_daytona_ws.config import LifecycleConfig, SandboxConfig

MANAGED_BY = "langchain-daytona-ws"
# An ephemeral sandbox that nobody talks to is stopped, and stopping it deletes it (auto-delete 0).
EPHEMERAL_STOP_MINUTES = 15
# Whatever happens, it is destroyed at this age (Daytona API, ttlMinutes).
EPHEMERAL_TTL_MINUTES = 24 * 60


def sandbox_name(namespace: str, *identity: str) -> str:
    """Return the name of a workspace's sandbox: DNS-safe, at most 63 characters, the same from every host.

    Args:
        namespace: The workspace's name; shown in part.
        identity: What else tells it from workspaces of the same name: bucket and endpoint.
    """
    return _name(namespace, _hash(json.dumps([namespace, *identity])))


def _name(namespace: str, end: str) -> str:
    letters = "".join(c if c.isalnum() else "-" for c in namespace.lower())
    return "-".join(part for part in ("ldw", letters[:30].strip("-"), end) if part)


def config_hash(config: SandboxConfig, *places: str) -> str:
    """Name what the sandbox was made from: another hash is another machine. No secret goes into it.

    Args:
        config: The configuration; of envVars, hooks and the account nothing is taken.
        places: Where the workspace's files are.
    """
    options = config.options
    image = options.image
    parts = [
        options.snapshot,
        image if image is None or isinstance(image, str) else image.dockerfile(),
        options.target,
        options.workspace_root,
        None if config.network is None else config.network.model_dump(mode="json"),
        *places,
    ]
    return _hash(json.dumps(parts))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def specification(
    config: SandboxConfig, namespace: str, workspace: S3Workspace | None, *, unique: str
) -> SandboxSpec:
    """Say what sandbox to create for a workspace.

    Args:
        config: The configuration.
        namespace: The workspace's name.
        workspace: Where the workspace's files are, if that is not the sandbox's own disk.
        unique: Ends the name of an ephemeral one. A persistent one's follows from the workspace alone.
    """
    options, keep = config.options, config.persistent
    places = (workspace.workspace.bucket, workspace.endpoint or "") if workspace else ()
    labels = {
        "managed-by": MANAGED_BY,
        "namespace": namespace,
        "lifetime": "persistent" if keep else "ephemeral",
    }
    spec = SandboxSpec(
        name=sandbox_name(namespace, *places) if keep else _name(namespace, unique),
        snapshot=options.snapshot,
        image=options.image,
        target=options.target,
        env=config.plain_env_vars(),
        labels=labels,
        network=network_rules(config),
    )
    if not keep:
        return replace(
            spec,
            auto_stop_minutes=EPHEMERAL_STOP_MINUTES,
            auto_delete_minutes=0,
            ttl_minutes=EPHEMERAL_TTL_MINUTES,
        )
    return replace(_lasting(spec, config), labels={**labels, "config-hash": config_hash(config, *places)})


def _lasting(spec: SandboxSpec, config: SandboxConfig) -> SandboxSpec:
    """Give a specification the life of a persistent sandbox, in whole minutes (Daytona API).

    It is never archived before it is deleted: archived ones were never auto-deleted. When ``maxLifetimeSeconds`` was
    given, it also holds as the age at which the sandbox is destroyed in any state.
    """
    given = config.lifecycle or LifecycleConfig()
    hard = "max_lifetime_seconds" in given.model_fields_set
    return replace(
        spec,
        auto_stop_minutes=_minutes(given.idle_timeout_seconds),
        auto_archive_minutes=0,
        auto_delete_minutes=_minutes(given.max_lifetime_seconds),
        ttl_minutes=_minutes(given.max_lifetime_seconds) if hard else None,
    )


def _minutes(seconds: int) -> int:
    return max(1, -(-seconds // 60))
