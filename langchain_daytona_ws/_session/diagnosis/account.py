"""Check the Daytona account: the API, its key, the snapshot, and the persistent sandbox."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.inventory import Inventory, KeyInfo
from langchain_daytona_ws._adapters.sdk import account_of
from langchain_daytona_ws._adapters.snapshots import Snapshots
from langchain_daytona_ws._core.doctor.finding import (
    Finding,
    Status,
    failed,
    from_error,
    from_fault,
    ok,
    skipped,
    warning,
)
from langchain_daytona_ws._core.ports import PortFault
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.sandbox.get_or_create import check_ours
from langchain_daytona_ws._core.sandbox.inventory import managed_labels
from langchain_daytona_ws._session.account import persistent_spec
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import ProvisionError

NEEDED_FOR_A_SANDBOX = ("api", "snapshot")
CHECKS = (*NEEDED_FOR_A_SANDBOX, "persistent")
NEEDED_PERMISSIONS = ("write:sandboxes", "delete:sandboxes")
_S3_SNAPSHOT = (
    "Build a snapshot that can mount S3 with `langchain-daytona-ws s3-snapshot`, name it in options.snapshot."
)
WARN_BEFORE_KEY_ENDS_S = 7 * 24 * 3600.0


def account_findings(config: SandboxConfig, namespace: str) -> Iterator[Finding]:
    """Check the account; nothing is created."""
    account = account_of(config)
    api = _api(config, Inventory(account))
    yield api
    if api.status is Status.FAILED:
        yield from skipped("the API is not usable", *CHECKS[1:])
        return
    yield _snapshot(config, Snapshots(account))
    yield _persistent(config, namespace, SyncDaytonaPort(account))


def _api(config: SandboxConfig, inventory: Inventory) -> Finding:
    url = config.options.api_url
    try:
        sandboxes = list(islice(inventory.sandboxes(managed_labels(None)), 1))
        key = inventory.key()
    except PortFault as fault:
        return from_fault("api", f"{url} did not answer as expected", fault)
    organization = (key.organization_id if key else None) or next(
        (sandbox.organization_id for sandbox in sandboxes), None
    )
    wanted = config.options.organization_id
    if wanted is not None and organization is not None and wanted != organization:
        return failed(
            "api",
            f"the API key belongs to organization {organization}, but options.organizationId (or "
            f"DAYTONA_ORGANIZATION_ID) says {wanted}",
            "Use a key of that organization, or correct or omit organizationId.",
            "organization_mismatch",
        )
    found = f"{url} accepts the key"
    if wanted is not None and organization is None:
        found += "; its organization is checked when a sandbox is created"
    elif organization is not None:
        found += f" of organization {organization}"
    return ok("api", found) if key is None else _key(key, found)


def _key(key: KeyInfo, found: str) -> Finding:
    missing = [permission for permission in NEEDED_PERMISSIONS if permission not in key.permissions]
    if missing:
        return failed(
            "api",
            f"{found}, which lacks the permission {' and '.join(missing)}",
            "Make an API key with these permissions, and set options.apiKey or DAYTONA_API_KEY.",
            "permission_missing",
        )
    if key.expires_at is not None and key.expires_at.timestamp() - time.time() < WARN_BEFORE_KEY_ENDS_S:
        return warning(
            "api", f"{found}, which ends at {key.expires_at:%Y-%m-%d %H:%M} UTC", "Make a new API key."
        )
    return ok("api", found)


def _snapshot(config: SandboxConfig, snapshots: Snapshots) -> Finding:
    options = config.options
    if options.image is not None:
        return skipped("sandboxes are made from options.image", "snapshot")[0]
    where = "the organization's default region" if options.target is None else options.target
    if options.snapshot is None:
        found = f"no snapshot is named: Daytona's default is used, in {where}"
        if not options.mount_aws_s3_buckets or options.s3_mode == "sync":
            return skipped(found, "snapshot")[0]
        return warning("snapshot", f"{found}; Daytona's default has no mount-s3", _S3_SNAPSHOT)
    try:
        snapshot = snapshots.find(options.snapshot)
    except PortFault as fault:
        return from_fault("snapshot", f"the search for the snapshot {options.snapshot} failed", fault)
    if snapshot is None:
        return failed(
            "snapshot",
            f"there is no snapshot {options.snapshot}",
            f"Check options.snapshot for a spelling mistake. {_S3_SNAPSHOT}",
            "snapshot_not_found",
        )
    if snapshot.state != "active":
        reason = f", {snapshot.error_reason}" if snapshot.error_reason else ""
        return failed(
            "snapshot",
            f"the snapshot {snapshot.name} is {snapshot.state}{reason}",
            "Wait until it is active, activate it in the Daytona dashboard, or build it again, for S3 with "
            "`langchain-daytona-ws s3-snapshot --replace`.",
            "snapshot_not_ready",
        )
    return ok("snapshot", f"{snapshot.name} is active; to be used in {where}")


def _persistent(config: SandboxConfig, namespace: str, port: SyncDaytonaPort) -> Finding:
    """Check that the workspace's persistent sandbox, if it exists, belongs to the workspace."""
    if not config.persistent:
        return skipped("the configuration is not persistent", "persistent")[0]
    spec = persistent_spec(config, namespace)
    try:
        found = run_sync(port.get(spec.name))
    except PortFault as fault:
        return from_fault("persistent", f"the search for the sandbox {spec.name} failed", fault)
    if found is None:
        return ok("persistent", f"there is no sandbox {spec.name} yet: the first command creates it")
    try:
        check_ours(found, spec)
    except ProvisionError as error:
        return from_error("persistent", error)
    return ok("persistent", f"the workspace has the sandbox {spec.name}, which is {found.state}")
