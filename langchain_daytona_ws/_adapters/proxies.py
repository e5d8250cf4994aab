"""Make the SDK's sync client use the proxies of the environment.

The SDK's async client (aiohttp) and file transfers (httpx) read HTTP_PROXY, HTTPS_PROXY and NO_PROXY; its generated
sync client (urllib3) does not. This module gives the sync client the rules of aiohttp, with two exceptions: requests to
this machine use no proxy, and SOCKS proxies can be used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.util import make_headers, parse_url

from langchain_daytona_ws.errors import ConfigError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^/]", re.ASCII | re.IGNORECASE)


def check_proxies() -> None:
    """Refuse proxy addresses that have no scheme, or whose host and port Python cannot parse.

    With such an address aiohttp would retry for minutes. The clients also read ``host:port`` differently: httpx adds
    ``http://``, aiohttp takes ``host`` for the scheme.

    Raises:
        ConfigError: ``code="client"``. The message omits the value, which may hold a password.
    """
    for scheme, address in getproxies().items():
        if scheme not in ("http", "https", "all"):
            continue
        problem = "" if _ADDRESS.match(address) else "has no scheme"
        try:
            urlsplit(address).port  # noqa: B018 - may raise ValueError
        except ValueError:
            problem = problem or "has no usable host and port"
        if problem:
            raise _unusable(scheme, problem, "Write it as http://host:port")


def check_async_proxy(url: str) -> None:
    """Refuse a proxy of another protocol than HTTP, such as SOCKS, if requests to ``url`` would use the proxy.

    The reason is that aiohttp would send HTTP to the proxy.

    Raises:
        ConfigError: ``code="client"``.
    """
    target = urlsplit(url)
    kind = urlsplit(environment_proxies().get(target.scheme, "")).scheme
    if kind not in ("", "http", "https") and not proxy_bypass(target.hostname or ""):
        remedy = "Name an http:// proxy, or use the sync methods, which can use a SOCKS proxy"
        raise _unusable(target.scheme, f"is a {kind} proxy, which async calls cannot use", remedy)


def _unusable(scheme: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"{scheme.upper()}_PROXY (or {scheme}_proxy) in the environment {problem}. {remedy}, or unset it; NO_PROXY "
        "names the hosts that need no proxy.",
        code="client",
        op="connect",
        for_model="The machine that runs this agent is set up wrongly. Nothing ran. Tell the user.",
    )


def environment_proxies() -> dict[str, str]:
    """Return the proxies for http and https. ALL_PROXY is ignored, as in aiohttp."""
    return {scheme: address for scheme, address in getproxies().items() if scheme in ("http", "https")}


class ProxiedPools(urllib3.PoolManager):
    """A pool manager that uses proxies, except for this machine and the hosts in NO_PROXY.

    Args:
        direct: The pool manager whose settings all connections copy.
        proxies: Scheme → address of its proxy.
    """

    def __init__(self, direct: urllib3.PoolManager, proxies: Mapping[str, str]) -> None:
        super().__init__(**direct.connection_pool_kw)
        self._proxied = {
            scheme: _proxy_manager(address, direct.connection_pool_kw) for scheme, address in proxies.items()
        }

    def urlopen(self, method: str, url: str, redirect: bool = True, **named: Any) -> Any:  # type: ignore[override]
        parts = urlsplit(url)
        proxied = self._proxied.get(parts.scheme)
        send = super().urlopen
        if proxied is not None and not _needs_no_proxy(parts.hostname or ""):
            send = proxied.urlopen
        try:
            return send(method, url, redirect=redirect, **named)
        finally:
            del named  # a traceback could show its API key

    def clear(self) -> None:
        super().clear()
        for proxied in self._proxied.values():
            proxied.clear()


def _proxy_manager(address: str, settings: Mapping[str, Any]) -> urllib3.PoolManager:
    parts = parse_url(address)
    if parts.scheme not in ("http", "https"):
        from urllib3.contrib.socks import SOCKSProxyManager

        return SOCKSProxyManager(address, **settings)
    # make_headers encodes as Latin-1: this sends the bytes that the URL's percent-encoding stands for.
    auth = unquote(parts.auth or "", "latin-1")
    headers = make_headers(proxy_basic_auth=auth) if auth else None
    return urllib3.ProxyManager(address, proxy_headers=headers, **settings)


def _needs_no_proxy(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.") or bool(proxy_bypass(host))
