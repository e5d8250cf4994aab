"""The account's sandboxes, for the command line: list them, and delete one so that it is known to be gone."""

from __future__ import annotations

from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.inventory import Inventory
from langchain_daytona_ws._adapters.sdk import account_of
from langchain_daytona_ws._core.ports import PortFault, SandboxSpec
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.workspace import s3_workspace
from langchain_daytona_ws._core.sandbox.prune import SandboxSummary, ours, remove
from langchain_daytona_ws._core.sandbox.remedies import remedy_for
from langchain_daytona_ws._core.sandbox.reservation import specification
from langchain_daytona_ws.config import SandboxConfig, validate_namespace
from langchain_daytona_ws.errors import SandboxError


def persistent_spec(config: SandboxConfig, namespace: str) -> SandboxSpec:
    """Return the name and the labels of a persistent workspace's sandbox, with all that it would be made from.

    Raises:
        ConfigError: The namespace is none, or the S3 workspace is not settled.
    """
    namespace = validate_namespace(namespace)
    return specification(config, namespace, s3_workspace(config, namespace), unique="")


class AccountSandboxes:
    """The sandboxes that this library made in one account; all methods block.

    Args:
        config: Whose account.

    Raises:
        ConfigError: There is no API key.
    """

    def __init__(self, config: SandboxConfig) -> None:
        account = account_of(config)
        self._inventory = Inventory(account)
        self._port = SyncDaytonaPort(account)

    def all(self, namespace: str | None) -> list[SandboxSummary]:
        """Return them, of one namespace or (None) of all, oldest first.

        Raises:
            SandboxError: Daytona did not answer as it should.
        """
        try:
            found = list(self._inventory.sandboxes(ours(namespace)))
        except PortFault as fault:
            raise _error("The sandboxes could not be listed", fault) from fault
        return sorted(found, key=lambda one: (one.created_at or 0.0, one.name))

    def find(self, id_or_name: str) -> SandboxSummary | None:
        """Return one sandbox, whoever made it; None when there is none.

        Raises:
            SandboxError: Daytona did not answer as it should.
        """
        try:
            return self._inventory.sandbox(id_or_name)
        except PortFault as fault:
            raise _error(f"The sandbox {id_or_name} could not be looked for", fault) from fault

    def remove(self, sandbox: SandboxSummary) -> None:
        """Delete one, and return when it is gone.

        Raises:
            SandboxUnavailable: It could not be deleted, or is still there a minute later.
        """
        run_sync(remove(self._port, sandbox.id))


def _error(tried: str, fault: PortFault) -> SandboxError:
    code, remedy = remedy_for(fault)
    return SandboxError(f"{tried}: {fault.message}. {remedy}", code=code, op="list", retryable=fault.passing)
