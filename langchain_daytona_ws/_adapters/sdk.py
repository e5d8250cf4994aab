"""Code that both Daytona adapters share: accounts, the SDK's parameters, sandbox descriptions."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daytona import (
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    DaytonaConfig,
    Resources,
)

from langchain_daytona_ws._adapters.proxies import check_proxies
from langchain_daytona_ws._core.ports import SandboxInfo, SandboxSpec
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import ConfigError

if TYPE_CHECKING:
    from daytona import AsyncSandbox, Sandbox
    from daytona_toolbox_api_client import FileInfo
    from daytona_toolbox_api_client_async import FileInfo as AsyncFileInfo

# Time-out of control-plane requests: the SDK has none of its own. In the sync client it applies to each of up to four
# attempts of a GET, PUT or DELETE, see `daytona_sync._RETRIES`.
REQUEST_TIMEOUT_S = 30.0
TRANSFER_TIMEOUT_S = 600
# Limit for connecting. Without it, an unreachable address would use up the request's whole time-out.
CONNECT_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 10.0

_warnings_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Account:
    """Address, region and API key of a Daytona account."""

    api_key: str
    api_url: str
    target: str | None

    def __repr__(self) -> str:
        return f"Account(api_url={self.api_url!r}, target={self.target!r})"


def account_of(config: SandboxConfig) -> Account:
    """Return a configuration's Daytona account.

    Raises:
        ConfigError: The configuration has no API key.
    """
    options = config.options
    key = config.require_api_key().get_secret_value()
    return Account(api_key=key, api_url=str(options.api_url), target=options.target)


def client_config(account: Account) -> DaytonaConfig:
    return DaytonaConfig(
        api_key=account.api_key,
        api_url=account.api_url,
        target=account.target,
        connection_pool_maxsize=None,
        # Polling needs one GET; state events would need a websocket and a thread for each client.
        use_deprecated_polling=True,
    )


@contextlib.contextmanager
def making_a_client() -> Iterator[None]:
    """Raise ConfigError for each failure of the block, which creates a client of the SDK.

    Creating a client sends nothing, so a failure means a wrong setting. The SDK's warning that polling is deprecated is
    suppressed: this package polls on purpose.

    Raises:
        ConfigError: ``code="client"``.
    """
    try:
        check_proxies()
        with _warnings_lock, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Polling-only mode", category=DeprecationWarning)
            yield
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - errors of httpx and ssl, missing packages
        # Only the text about a missing package is shown: other texts may quote a proxy's password.
        reason = f": {error}" if isinstance(error, ImportError) else ""
        raise ConfigError(
            f"The Daytona SDK could not set up its connections ({type(error).__name__}{reason}). See whether the "
            "environment variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY hold addresses of proxies, "
            "SSL_CERT_FILE and SSL_CERT_DIR name certificates that are there, and, for a SOCKS proxy, that "
            "httpx[socks] is installed.",
            code="client",
            op="connect",
            for_model="The machine that runs this agent is set up wrongly. Nothing ran. Tell the user.",
        ) from None


def tracing_is_wanted() -> bool:
    """Return whether the process environment enables the SDK's tracing.

    The SDK would also read .env files in the working directory. They may be untrusted, and could send traces to another
    address. (They could also choose the region; the ports prevent this by setting the client's target.)
    """
    return "true" in (
        os.environ.get("DAYTONA_OTEL_ENABLED"),
        os.environ.get("DAYTONA_EXPERIMENTAL_OTEL_ENABLED"),
    )


def create_params(spec: SandboxSpec) -> CreateSandboxFromImageParams | CreateSandboxFromSnapshotParams:
    common: dict[str, Any] = {
        "name": spec.name,
        "os_user": spec.user,
        "env_vars": dict(spec.env),
        "labels": dict(spec.labels),
        "auto_stop_interval": spec.auto_stop_minutes,
        "auto_archive_interval": spec.auto_archive_minutes,
        "auto_delete_interval": spec.auto_delete_minutes,
        "ttl_minutes": spec.ttl_minutes,
        "target": spec.target,
    }
    if spec.network is not None:
        common["network_block_all"] = spec.network.block_all
        common["network_allow_list"] = spec.network.allow_cidrs
        common["domain_allow_list"] = spec.network.allow_domains
    if spec.image is not None:
        size = spec.resources
        resources = (
            None if size is None else Resources(cpu=size.cpu, memory=size.memory_gib, disk=size.disk_gib)
        )
        return CreateSandboxFromImageParams(image=spec.image, resources=resources, **common)
    return CreateSandboxFromSnapshotParams(snapshot=spec.snapshot, **common)


def describe(sandbox: Sandbox | AsyncSandbox) -> SandboxInfo:
    state = getattr(sandbox.state, "value", sandbox.state)
    return SandboxInfo(
        id=sandbox.id,
        name=sandbox.name,
        state=str(state or "unknown"),
        organization_id=sandbox.organization_id,
        labels=dict(sandbox.labels or {}),
        recoverable=bool(sandbox.recoverable),
    )


def version_of(found: FileInfo | AsyncFileInfo) -> str:
    """Return a text that changes when the file changes: its size and time of modification."""
    return f"{found.size} {found.mod_time}"
