"""List, find and delete the account's sandboxes, for the command line."""

from __future__ import annotations

from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.inventory import Inventory
from langchain_daytona_ws._adapters.sdk import account_of
from langchain_daytona_ws._core.ports import PortFault, SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.workspace import s3_workspace
from langchain_daytona_ws._core.sandbox.inventory import SandboxSummary, managed_labels, remove
from langchain_daytona_ws._core.sandbox.remedies import remedy_for
from langchain_daytona_ws._core.sandbox.specification import SYNC_LABEL, specification, sync_location
from langchain_daytona_ws.config import SandboxConfig, validate_namespace
from langchain_daytona_ws.errors import ConfigError, SandboxError


def persistent_spec(config: SandboxConfig, namespace: str) -> SandboxSpec:
    """Return the specification of a persistent workspace's sandbox, with its name and labels.

    Raises:
        ConfigError: The namespace or the S3 workspace is invalid.
    """
    namespace = validate_namespace(namespace)
    return specification(config, namespace, s3_workspace(config, namespace), unique="")


class AccountSandboxes:
    """The sandboxes that this package created in one account. All methods block.

    Raises:
        ConfigError: There is no API key.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        account = account_of(config)
        self._inventory = Inventory(account)
        self._port = SyncDaytonaPort(account)

    def all(self, namespace: str | None) -> list[SandboxSummary]:
        """Return the sandboxes of a namespace (None: of all namespaces), oldest first.

        Raises:
            SandboxError: The request to Daytona failed.
        """
        try:
            found = list(self._inventory.sandboxes(managed_labels(namespace)))
        except PortFault as fault:
            raise _error("The sandboxes could not be listed", fault) from fault
        return sorted(found, key=lambda sandbox: (sandbox.created_at or 0.0, sandbox.name))

    def find(self, id_or_name: str) -> SandboxSummary | None:
        """Return a sandbox, even if this package did not create it; None if it does not exist.

        Raises:
            SandboxError: The request to Daytona failed.
        """
        try:
            return self._inventory.sandbox(id_or_name)
        except PortFault as fault:
            raise _error(f"The sandbox {id_or_name} could not be read", fault) from fault

    def check_recoverable(self, sandbox: SandboxSummary) -> None:
        """Refuse a sandbox whose files cannot be saved in S3 with this configuration.

        Raises:
            ConfigError: The configuration has another S3 workspace or none, or its S3 workspace is not synchronised.
            SandboxError: The workspace of the sandbox is not synchronised (``code="not_synchronised"``).
        """
        label = sandbox.labels.get(SYNC_LABEL)
        if label is None:
            raise SandboxError(
                f"The workspace of the sandbox {sandbox.name} is not synchronised with S3 (options.s3Mode: sync), "
                "so there is nothing to recover.",
                code="not_synchronised",
                op="recover",
            )
        workspace = s3_workspace(self._config, sandbox.labels.get("namespace", ""))
        if workspace is None or workspace.mode != "sync" or sync_location(workspace) != label:
            raise ConfigError(
                f"The sandbox {sandbox.name} was made with another S3 workspace. Pass the configuration of its session "
                "with --config: options.s3Mode, workspaceBucketName, workspacePrefix, workspaceRoot and s3Endpoint "
                "must be the same.",
                code="other_workspace",
                op="recover",
            )

    def remove(self, sandbox: SandboxSummary) -> None:
        """Delete a sandbox, and wait until it is gone.

        Raises:
            SandboxUnavailable: The sandbox could not be deleted, or still exists a minute later.
        """
        run_sync(remove(self._port, sandbox.id))


def _error(problem: str, fault: PortFault) -> SandboxError:
    code, remedy = remedy_for(fault)
    return SandboxError(
        f"{problem}: {fault.message}. {remedy}", code=code, op="list", retryable=fault.passing
    )
