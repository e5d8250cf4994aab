"""Addresses: URLs, IP ranges and domains, and the remedy for each that is not acceptable."""

from __future__ import annotations

import ipaddress
import re
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from langchain_daytona_ws.config.problems import refusal

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}")


def url(value: str, *, sends: str | None, example: str) -> str:
    """Accept an http(s) URL without credentials, query and fragment; drop a final slash.

    Args:
        value: The URL. It is never quoted in a refusal, since it may carry a password.
        sends: What everyone on the way could read over plain http, which is then for loopback addresses only;
            None when plain http may go anywhere.
        example: A good one, for the refusal.
    """
    # urlsplit would silently drop some of these, and read others as HTTP clients do not.
    if not value.isascii() or not value.isprintable() or " " in value or "\\" in value:
        raise refusal(f"has a character in it that no URL has; give one such as {example}")
    try:
        parts = urlsplit(value)
        host, port_is_good = parts.hostname, parts.port != 0
    except ValueError:
        host, port_is_good = None, False
    if not host or not port_is_good:
        raise refusal(f"is no URL with a host (and a valid port, if any); give one such as {example}")
    if parts.scheme not in ("http", "https"):
        raise refusal(f"must start with https://; give one such as {example}")
    if "@" in parts.netloc:
        raise refusal(f"must hold no user name and no password; give one such as {example}")
    if "?" in value or "#" in value:
        raise refusal(f"must have no query and no fragment; give one such as {example}")
    if parts.scheme == "http" and sends is not None and not _is_loopback(host):
        raise refusal(
            f"is plain http to another machine, which would send {sends} readable to everyone on the way; "
            "use https:// (plain http is for localhost, 127.0.0.0/8 and [::1])"
        )
    return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address == ipaddress.IPv6Address("::1") or address in ipaddress.IPv4Network("127.0.0.0/8")


def cidr(value: str) -> str:
    """Accept an IPv4 range (Daytona's documentation: the allow list holds IPv4 ranges); normalise it."""
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        network = None
    if network is None or "%" in value:
        raise refusal("is no CIDR range; give one such as 203.0.113.0/24")
    if network.version == 6:
        raise refusal(
            "is IPv6, and Daytona's allow list holds IPv4 only; give a range such as 203.0.113.0/24"
        )
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise refusal(f'has bits set outside its mask; did you mean "{network}"?') from None
    return str(network)


def domain(value: str) -> str:
    """Accept a host name, or ``*.`` and one; lower it."""
    name = value.lower()
    if not _DOMAIN.fullmatch(name) or len(name) > 253:
        raise refusal(
            'is no domain; give a name such as "pypi.org" or "*.example.com", '
            "without scheme, port and path, and non-ASCII names as punycode"
        )
    return name


ApiUrl = Annotated[
    str, AfterValidator(partial(url, sends="the API key", example="https://app.daytona.io/api"))
]
S3Url = Annotated[str, AfterValidator(partial(url, sends=None, example="https://s3.example.com"))]
StsUrl = Annotated[
    str, AfterValidator(partial(url, sends="the workspace's S3 keys", example="https://sts.example.com"))
]
LOOPBACK_OR_HTTPS = (
    r"^([Hh][Tt][Tt][Pp][Ss]://|[Hh][Tt][Tt][Pp]://([Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]|127\.|\[))"
)
"""For the reader of the schema only, as all patterns: the checks above word the refusals."""

Cidr = Annotated[str, AfterValidator(cidr)]
Domain = Annotated[str, AfterValidator(domain)]
