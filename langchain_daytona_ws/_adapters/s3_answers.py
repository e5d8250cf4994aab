"""Read S3's responses, error responses too.

The functions that read a response raise ValueError if it is malformed; `boto_call` turns it into a StoreFault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from langchain_daytona_ws._core.s3.store import KeyPage, ObjectInfo, StoredObject, StoreFault, StoreFaultKind

LONGEST_PAGE = 1000
_LONGEST_TOKEN = 4096
MESSAGE_LIMIT = 500

_BY_CODE = {
    "NoSuchKey": StoreFaultKind.MISSING,
    "NoSuchBucket": StoreFaultKind.REFUSED,
    "PreconditionFailed": StoreFaultKind.CHANGED,
    "ConditionalRequestConflict": StoreFaultKind.CHANGED,
    "AccessDenied": StoreFaultKind.DENIED,
    "AllAccessDisabled": StoreFaultKind.DENIED,
    "AccountProblem": StoreFaultKind.DENIED,
    "ExpiredToken": StoreFaultKind.EXPIRED,
    "InvalidToken": StoreFaultKind.EXPIRED,
    "InvalidAccessKeyId": StoreFaultKind.EXPIRED,
    "TokenRefreshRequired": StoreFaultKind.EXPIRED,
    "RequestTimeTooSkewed": StoreFaultKind.REFUSED,
    "SignatureDoesNotMatch": StoreFaultKind.REFUSED,
    "InvalidObjectState": StoreFaultKind.REFUSED,
    # S3 stopped waiting for the request's body, or refused it: nothing was changed.
    "RequestTimeout": StoreFaultKind.PASSING,
    "SlowDown": StoreFaultKind.PASSING,
    "ServiceUnavailable": StoreFaultKind.PASSING,
    "Throttling": StoreFaultKind.PASSING,
    "ThrottlingException": StoreFaultKind.PASSING,
    "TooManyRequests": StoreFaultKind.PASSING,
    "OperationAborted": StoreFaultKind.CHANGED,
}
_BY_STATUS = {
    403: StoreFaultKind.DENIED,
    404: StoreFaultKind.MISSING,
    409: StoreFaultKind.CHANGED,
    412: StoreFaultKind.CHANGED,
    429: StoreFaultKind.PASSING,
    503: StoreFaultKind.PASSING,
}
_REGION = re.compile(r"expecting '([a-z0-9-]{1,40})'", re.ASCII)
_REGION_NAME = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)


def page(answer: Mapping[str, Any], prefix: str, workspace_prefix: str) -> KeyPage:
    """Read a listing of keys below ``prefix``; the returned keys are relative to the workspace's prefix."""

    def relative(key: object) -> str:
        whole = text(key)
        if not whole.startswith(prefix):
            raise ValueError("a key outside the requested prefix")
        return whole[len(workspace_prefix) :]

    objects = [described(relative(entry["Key"]), entry, "Size") for entry in answer.get("Contents", [])]
    prefixes = [relative(entry["Prefix"]) for entry in answer.get("CommonPrefixes", [])]
    if len(objects) + len(prefixes) > LONGEST_PAGE:
        raise ValueError("too many keys")
    more = text(answer.get("NextContinuationToken")) if answer.get("IsTruncated") else None
    if more is not None and len(more) > _LONGEST_TOKEN:
        raise ValueError("the token is too long")
    return KeyPage(tuple(objects), tuple(prefixes), more)


def described(key: str, answer: Mapping[str, Any], size_field: str) -> ObjectInfo:
    """Read one object's description."""
    size = answer[size_field]
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 62:
        raise ValueError("the size is invalid")
    # In milliseconds: S3 reports whole seconds, other stores may report fractions.
    modified_ns = int(answer["LastModified"].timestamp() * 1000) * 1_000_000
    if abs(modified_ns) >= 1 << 62:
        raise ValueError("the date is out of range")
    return ObjectInfo(key, size, modified_ns, text(answer["ETag"]))


def rest(key: str, answer: Mapping[str, Any], start: int) -> tuple[int, StoredObject]:
    """Read the answer with an object's content from ``start``; return the length of that content."""
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    info = described(key, answer, "ContentLength")
    length = info.size_bytes
    if start:
        if status != HTTPStatus.PARTIAL_CONTENT or answer.get("ContentRange") != (
            f"bytes {start}-{start + length - 1}/{start + length}"
        ):
            raise ValueError("not the requested part")
        info = replace(info, size_bytes=start + length)
    elif status != HTTPStatus.OK:
        raise ValueError("not the whole object")
    return length, StoredObject(info, None, metadata(answer))


def part(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts of an uploaded part that completes the upload: its ETag, and its checksum if S3 sent one."""
    checksum = answer.get("ChecksumCRC32")
    found = {"ETag": text(answer["ETag"])}
    return {**found, "ChecksumCRC32": text(checksum)} if checksum is not None else found


def metadata(answer: Mapping[str, Any]) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in answer.get("Metadata", {}).items()}


def text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a field is missing")
    return value


def client_fault(response: Any, *, lost: StoreFaultKind) -> StoreFault:
    """Translate an error response.

    Args:
        response: The response as botocore parsed it.
        lost: The kind for a response that leaves the outcome open.
    """
    details = response.get("Error", {})
    about = response.get("ResponseMetadata", {})
    code, message = _string_or_empty(details, "Code"), _string_or_empty(details, "Message")
    status = about.get("HTTPStatusCode")
    status = status if isinstance(status, int) else None
    kind = _BY_CODE.get(code)
    if kind is None and code.startswith("KMS."):
        kind = StoreFaultKind.REFUSED
    if kind is None:
        kind = _BY_STATUS.get(status or 0)
    if kind is None:
        kind = StoreFaultKind.REFUSED if status is not None and 300 <= status < 500 else lost
    label = code if code and not code.isdigit() else f"HTTP {status}"
    return StoreFault(
        kind,
        clean(f"{label}: {message}" if message else label),
        code=code[:100],
        region=_region(details, about, message),
        status=status,
    )


def _string_or_empty(details: Any, name: str) -> str:
    """Return a text field, ``""`` if it is missing or a structure."""
    value = details.get(name)
    return value if isinstance(value, str) else ""


def _region(details: Any, about: Any, message: str) -> str:
    headers = about.get("HTTPHeaders", {})
    region = str(details.get("Region") or headers.get("x-amz-bucket-region") or "")
    found = _REGION.search(message)
    if not _REGION_NAME.fullmatch(region):
        region = found[1] if found else ""
    redirected = details.get("Code") in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301")
    return region if redirected else ""


def clean(text: str) -> str:
    """Return the text as one printable line of bounded length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MESSAGE_LIMIT]).split())
    return line if len(line) <= MESSAGE_LIMIT else line[:MESSAGE_LIMIT] + "…"
