"""Proxies of the process environment, for the SDK's sync client as aiohttp uses them for the async one.

The SDK's generated sync client gives urllib3 no proxy, while its file transfers (httpx) and its async client (aiohttp)
read HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.util import make_headers, parse_url

from langchain_daytona_ws.errors import ConfigError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^/]", re.ASCII | re.IGNORECASE)


def check_proxies() -> None:
    """Refuse a proxy without a scheme: httpx takes ``host:port`` for http://, aiohttp takes ``host:`` for a scheme.

    Raises:
        ConfigError: ``code="client"``. The value is not quoted, since it may hold a password.
    """
    for scheme, address in getproxies().items():
        if scheme in ("http", "https", "all") and not _ADDRESS.match(address):
            raise ConfigError(
                f"{scheme.upper()}_PROXY (or {scheme}_proxy) in the environment has no scheme. Write it as "
                "http://host:port, or unset it; NO_PROXY names the hosts that need no proxy.",
                code="client",
                op="connect",
                for_model="The machine that runs this agent is set up wrongly. Nothing ran. Tell the user.",
            )


def environment_proxies() -> dict[str, str]:
    """Return the proxies for http and https; aiohttp has no ALL_PROXY either."""
    return {scheme: address for scheme, address in getproxies().items() if scheme in ("http", "https")}


class ProxiedPools(urllib3.PoolManager):
    """Connections that go through the environment's proxies where these apply.

    Args:
        direct: Whose settings all connections get.
        proxies: From scheme to address.
    """

    def __init__(self, direct: urllib3.PoolManager, proxies: Mapping[str, str]) -> None:
        super().__init__(**direct.connection_pool_kw)
        self._proxied = {
            scheme: _through(address, direct.connection_pool_kw) for scheme, address in proxies.items()
        }

    def urlopen(self, method: str, url: str, redirect: bool = True, **named: Any) -> Any:  # type: ignore[override]
        """Send a request, as `urllib3.PoolManager.urlopen` does."""
        parts = urlsplit(url)
        through = self._proxied.get(parts.scheme)
        if through is None or _needs_none(parts.hostname or ""):
            return super().urlopen(method, url, redirect=redirect, **named)
        return through.urlopen(method, url, redirect=redirect, **named)

    def clear(self) -> None:
        """Close all connections."""
        super().clear()
        for through in self._proxied.values():
            through.clear()


def _through(address: str, settings: Mapping[str, Any]) -> urllib3.PoolManager:
    parts = parse_url(address)
    if parts.scheme not in ("http", "https"):
        from urllib3.contrib.socks import SOCKSProxyManager

        return SOCKSProxyManager(address, **settings)
    headers = make_headers(proxy_basic_auth=parts.auth) if parts.auth else None
    return urllib3.ProxyManager(address, proxy_headers=headers, **settings)


def _needs_none(host: str) -> bool:
    """Say whether a host is reached directly: this machine itself, or what NO_PROXY names."""
    return host in ("localhost", "::1") or host.startswith("127.") or bool(proxy_bypass(host))
