"""Find texts that look like secrets, also in encoded form."""

from __future__ import annotations

import binascii
import re
import zlib
from collections.abc import Iterator
from urllib.parse import unquote_plus

from tests.cassettes.normalised import SCRUBBED, UUID_START

DEEPEST = 4
_PATTERNS = {
    "an AWS access key id": re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{4,}"),
    "an AWS secret key": re.compile(
        r"(?<![A-Za-z0-9/+=])(?=[^\n]{0,39}[a-z])(?=[A-Za-z0-9/+]{0,39}[0-9])(?=[A-Za-z0-9/+]{0,39}[A-Z])"
        r"[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
    ),
    "an AWS session token": re.compile(r"(?:FwoGZXIvYXdz|FQoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9/+=]*"),
    "a Daytona key": re.compile(r"dtn_\w+"),
    "a bearer token": re.compile(r"(?i)\bbearer\s+(?!scrubbed)\S+"),
    "a JSON web token": re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),
    "a signature": re.compile(r"(?i)X-Amz-(?:Signature|Credential|Security-Token)|AWS4-HMAC-SHA256"),
    "an authorization header": re.compile(r"(?i)\bauthorization\b\W{0,8}(?!scrubbed)\w+"),
    "a credential by its name": re.compile(
        rf"(?i)(?<!/)(?:SessionToken|SecretAccessKey|AccessKeyId|session_token|secret_access_key|api_?key)"
        rf"[\"'\\]*\s*[>:=]+\s*[\"'\\]*(?!{SCRUBBED}|\s|<|[\"'])\S+"
    ),
    "an organization, sandbox or other id of an account": re.compile(
        rf"(?<![0-9a-f-])(?!{UUID_START})[0-9a-f]{{8}}-(?:[0-9a-f]{{4}}-){{3}}[0-9a-f]{{12}}"
    ),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]{2,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
}
_PACKED = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")


def leaks(text: str) -> list[str]:
    """Return the kinds of secrets that a text seems to contain, decoded repeatedly."""
    return sorted(
        {
            kind
            for decoded in _unwrapped(text, DEEPEST)
            for kind, pattern in _PATTERNS.items()
            if pattern.search(decoded)
        }
    )


def _unwrapped(text: str, depth: int) -> Iterator[str]:
    yield text
    if not depth:
        return
    if (unquoted := unquote_plus(text)) != text:
        yield from _unwrapped(unquoted, depth - 1)
    for found in _PACKED.finditer(text.replace("\\n", "\n")):  # of JSON's \n, the n would count as base64
        for data in _decoded(found[0]):
            yield from _unwrapped(data, depth - 1)


def _decoded(packed: str) -> Iterator[str]:
    """Yield the texts that a word may encode in base64, in both alphabets, compressed or not."""
    padded = packed.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = binascii.a2b_base64(padded + "=" * (-len(padded) % 4))
    except binascii.Error:
        return
    for window in (zlib.MAX_WBITS, zlib.MAX_WBITS | 16):
        try:
            data = zlib.decompressobj(window).decompress(data, 1 << 20)
            break
        except zlib.error:
            continue
    try:
        yield data.decode()
    except UnicodeDecodeError:
        return
