"""Read an account's API key and sandboxes, over the SDK's sync client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daytona import DaytonaForbiddenError, DaytonaNotFoundError, ListSandboxesQuery
from daytona._utils.errors import intercept_errors
from daytona_api_client import ApiKeyList, ApiKeysApi

from langchain_daytona_ws._adapters.daytona_sync import Client
from langchain_daytona_ws._adapters.faults import translated
from langchain_daytona_ws._adapters.sdk import REQUEST_TIMEOUT_S, Account, client_config, making_a_client
from langchain_daytona_ws._core.sandbox.inventory import SandboxSummary

PAGE = 100


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The control plane's description of the API key in use."""

    name: str
    permissions: tuple[str, ...]
    organization_id: str | None
    expires_at: datetime | None


class Inventory:
    """Read access to one account. All methods block, and raise only PortFault."""

    def __init__(self, account: Account) -> None:
        with making_a_client():
            self._client = Client(client_config(account))

    def sandboxes(self, labels: Mapping[str, str]) -> Iterator[SandboxSummary]:
        """Yield the sandboxes that have these labels, page by page."""
        query = ListSandboxesQuery(labels=dict(labels), limit=PAGE)
        with translated():
            for sandbox in self._client.list(query, request_timeout=REQUEST_TIMEOUT_S):
                yield _summary(sandbox)

    def sandbox(self, id_or_name: str) -> SandboxSummary | None:
        with translated():
            try:
                return _summary(self._client.get(id_or_name, request_timeout=REQUEST_TIMEOUT_S))
            except DaytonaNotFoundError:
                return None

    def key(self) -> KeyInfo | None:
        """Return the API key's description; None if the control plane does not support or allow the request."""
        with translated():
            try:
                found = self._current_key()
            except (DaytonaNotFoundError, DaytonaForbiddenError):
                return None
        return KeyInfo(found.name, tuple(found.permissions), found.organization_id, found.expires_at)

    @intercept_errors()
    def _current_key(self) -> ApiKeyList:
        api = ApiKeysApi(self._client._api_client)
        return api.get_current_api_key(_request_timeout=REQUEST_TIMEOUT_S)


def _summary(sandbox: Any) -> SandboxSummary:
    state = getattr(sandbox.state, "value", sandbox.state)
    return SandboxSummary(
        id=sandbox.id,
        name=sandbox.name,
        state=str(state or "unknown"),
        organization_id=sandbox.organization_id,
        created_at=_moment(sandbox.created_at),
        last_activity_at=_moment(sandbox.last_activity_at),
        auto_stop_minutes=sandbox.auto_stop_interval,
        auto_delete_minutes=sandbox.auto_delete_interval,
        labels=dict(sandbox.labels or {}),
        user=sandbox.user,
        cpu=sandbox.cpu,
        memory_gib=sandbox.memory,
        disk_gib=sandbox.disk,
    )


def _moment(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None
