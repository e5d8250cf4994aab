"""The name, labels and lifetime of a workspace's sandbox."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from langchain_daytona_ws._core.ports import Resources, SandboxSpec
from langchain_daytona_ws._core.sandbox.network import network_rules
from langchain_daytona_ws.config import LifecycleConfig, SandboxConfig, SandboxOptions

if TYPE_CHECKING:
    from langchain_daytona_ws._core.s3.workspace import S3Workspace

MANAGED_BY = "langchain-daytona-ws"
# Daytona stops an ephemeral sandbox (of one session) after this time without requests, and then deletes it at once
# (auto-delete 0).
EPHEMERAL_STOP_MINUTES = 15
# Daytona destroys an ephemeral sandbox at this age, in any state (Daytona API, ttlMinutes).
EPHEMERAL_TTL_MINUTES = 24 * 60
# Label of a sandbox with a synchronised workspace. The value is a hash of the location in S3 and the directory.
SYNC_LABEL = "sync-location"


def sandbox_name(namespace: str, *identity: str) -> str:
    """Return the name of a workspace's persistent sandbox: DNS-safe, at most 63 characters, the same on every host.

    Args:
        namespace: The workspace's name. The sandbox's name contains a part of it.
        identity: Bucket, endpoint and prefix, which distinguish workspaces of the same name.
    """
    return _name(namespace, _hash(json.dumps([namespace, *identity])))


def _name(namespace: str, end: str) -> str:
    letters = "".join(c if c.isalnum() else "-" for c in namespace.lower())
    return "-".join(part for part in ("ldw", letters[:30].strip("-"), end) if part)


def config_hash(config: SandboxConfig, *location: str) -> str:
    """Return a hash of the settings that cannot change in an existing sandbox. The hash depends on no secret.

    Args:
        config: The configuration. envVars, labels, hooks, lifecycle and the account are not part of the hash.
        location: The location of the workspace's files, and how commands access them.
    """
    options = config.options
    image = options.image
    parts: list[object] = [
        options.snapshot,
        image if image is None or isinstance(image, str) else image.dockerfile(),
        options.target,
        options.workspace_root,
        None if config.network is None else config.network.model_dump(mode="json"),
        *location,
    ]
    # Added only if they are set: otherwise the hashes of existing sandboxes would change.
    if options.resources is not None:
        parts.append(["resources", options.resources.model_dump(mode="json")])
    if options.user is not None:
        parts.append(["user", options.user])
    return _hash(json.dumps(parts))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def specification(
    config: SandboxConfig, namespace: str, workspace: S3Workspace | None, *, unique: str
) -> SandboxSpec:
    """Return the specification of a workspace's sandbox.

    ``workspace`` is None if files are on the sandbox's own disk. ``unique`` is a suffix that makes the name of an
    ephemeral sandbox unique; it is not used for a persistent sandbox.
    """
    options, keep = config.options, config.persistent
    location = _location(config, workspace)
    access: tuple[str, ...] = ()
    labels = {
        **options.labels,
        "managed-by": MANAGED_BY,
        "namespace": namespace,
        "lifetime": "persistent" if keep else "ephemeral",
    }
    if workspace is not None and workspace.mode == "sync":
        access = ("s3Mode=sync",)
        labels[SYNC_LABEL] = sync_location(workspace)
    spec = SandboxSpec(
        name=sandbox_name(namespace, *location) if keep else _name(namespace, unique),
        snapshot=options.snapshot,
        image=options.image,
        resources=_resources(options),
        user=options.user,
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
    return replace(
        _persistent(spec, config), labels={**labels, "config-hash": config_hash(config, *location, *access)}
    )


def _resources(options: SandboxOptions) -> Resources | None:
    size = options.resources
    return None if size is None else Resources(size.cpu, size.memory_gib, size.disk_gib)


def sync_location(workspace: S3Workspace) -> str:
    """Return the value of `SYNC_LABEL`. `release` and `recover` push to S3 only from a sandbox with this value."""
    where = workspace.workspace
    return _hash(json.dumps([workspace.endpoint, where.bucket, where.prefix, where.directory]))


def _location(config: SandboxConfig, workspace: S3Workspace | None) -> tuple[str, ...]:
    """Return bucket and endpoint of an S3 workspace, and the configured prefix if it is not the default."""
    if workspace is None:
        return ()
    prefix, default = config.options.workspace_prefix, SandboxOptions.model_fields["workspace_prefix"].default
    return (
        workspace.workspace.bucket,
        workspace.endpoint or "",
        *(() if prefix == default else (prefix,)),
    )


def _persistent(spec: SandboxSpec, config: SandboxConfig) -> SandboxSpec:
    """Return a specification with the intervals of a persistent sandbox, in whole minutes (Daytona API).

    Daytona never deletes archived sandboxes, so a sandbox should be archived as late as possible: the interval 0 means
    the longest that Daytona allows. A stopped sandbox is deleted after ``maxLifetimeSeconds`` or its default. If the
    configuration sets this key, the sandbox is also destroyed at that age, in any state.
    """
    given = config.lifecycle or LifecycleConfig()
    is_age_limited = "max_lifetime_seconds" in given.model_fields_set
    return replace(
        spec,
        auto_stop_minutes=_minutes(given.idle_timeout_seconds),
        auto_archive_minutes=0,
        auto_delete_minutes=_minutes(given.max_lifetime_seconds),
        ttl_minutes=_minutes(given.max_lifetime_seconds) if is_age_limited else None,
    )


def _minutes(seconds: int) -> int:
    return max(1, -(-seconds // 60))
