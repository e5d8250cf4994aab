"""Validate URLs, IP ranges and domains; each error names a remedy."""

from __future__ import annotations

import ipaddress
import re
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from langchain_daytona_ws.config.problems import refusal

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = rf"(\*\.)?({_LABEL}\.)*{_LABEL}"


def url(value: str, *, sends: str | None, example: str) -> str:
    """Accept an http(s) URL without credentials, query and fragment; return it without final slashes.

    Args:
        value: The URL. No error quotes it, because it may contain a password.
        sends: Description of the secret in requests to this URL; plain http is then refused, except to loopback
            addresses. None: requests contain no secret, and plain http is accepted.
        example: A valid URL, for the error message.
    """
    # urlsplit silently removes some of these characters, and parses others differently from HTTP clients.
    if not value.isascii() or not value.isprintable() or " " in value or "\\" in value:
        raise refusal(f"contains a character that is invalid in a URL; example: {example}")
    try:
        parts = urlsplit(value)
        host, port_is_valid = parts.hostname, parts.port != 0
    except ValueError:
        host, port_is_valid = None, False
    if not host or not port_is_valid:
        raise refusal(f"is not a URL with a host (and a valid port, if any); example: {example}")
    if parts.scheme not in ("http", "https"):
        raise refusal(f"must start with https://; example: {example}")
    if "@" in parts.netloc:
        raise refusal(f"must not contain a user name or password; example: {example}")
    if "?" in value or "#" in value:
        raise refusal(f"must not contain a query or fragment; example: {example}")
    if parts.scheme == "http" and sends is not None and not _is_loopback(host):
        raise refusal(
            f"is plain http to another host, so {sends} would be sent unencrypted; "
            "use https:// (plain http is accepted for localhost, 127.0.0.0/8 and [::1])"
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
    """Accept an IPv4 range, and return it normalised. Daytona documents that its allow list accepts IPv4 only."""
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        network = None
    if network is None or "%" in value:
        raise refusal("is not a CIDR range; example: 203.0.113.0/24")
    if network.version == 6:
        raise refusal("is IPv6, and Daytona's allow list accepts IPv4 only; example: 203.0.113.0/24")
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise refusal(f'has bits set outside its mask; did you mean "{network}"?') from None
    return str(network)


def domain(value: str) -> str:
    """Accept a host name, or ``*.`` and a host name; return it in lower case."""
    name = value.lower()
    if not re.fullmatch(_DOMAIN, name) or len(name) > 253:
        raise refusal(
            'is not a domain; use a name such as "pypi.org" or "*.example.com", '
            "without scheme, port and path; write non-ASCII names in punycode"
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
"""Pattern for the JSON Schema. Values are validated by the functions above, which also raise the errors."""

Cidr = Annotated[str, AfterValidator(cidr)]
Domain = Annotated[str, AfterValidator(domain)]
