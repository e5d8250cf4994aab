"""Read S3's responses, error responses too; and the handlers by which botocore reads them.

The functions that read a response raise ValueError if it is malformed; `boto_call` turns it into a StoreFault.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from langchain_daytona_ws._core.s3.store import (
    Credentials,
    KeyPage,
    ObjectInfo,
    StoredObject,
    StoreFault,
    StoreFaultKind,
)

LONGEST_PAGE = 1000
_LONGEST_TOKEN = 4096
MESSAGE_LIMIT = 500
PIECE_BYTES = 256 << 10

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


def described_whole(key: str, answer: Mapping[str, Any]) -> StoredObject:
    """Read the description of an object from the answer that has its whole content."""
    if answer["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.OK:
        raise ValueError("not the whole object")
    return StoredObject(described(key, answer, "ContentLength"), None, metadata(answer))


def with_content(stored: StoredObject, body: Any) -> StoredObject:
    """Read a content; hash its pieces and count their line feeds while the next pieces arrive.

    Raises:
        StoreFault: The content has another size than its description.
    """
    size = stored.info.size_bytes
    digest, pieces, count, newlines = hashlib.sha256(), list[bytes](), 0, 0
    # Reading to the end makes botocore verify the checksum, if the response has one.
    while count <= size and (piece := body.read(min(PIECE_BYTES, size - count + 1))):
        digest.update(piece)
        newlines += piece.count(b"\n")
        pieces.append(piece)
        count += len(piece)
    if count != size:
        raise StoreFault(StoreFaultKind.PASSING, f"the answer ended after {count} of {size} bytes")
    return replace(stored, data=b"".join(pieces), sha256=digest.hexdigest(), newlines=newlines)


def described_rest(key: str, answer: Mapping[str, Any], start: int) -> tuple[int, StoredObject]:
    """Read the description of an object from the answer that has its content from ``start``.

    Returns:
        The length of that content, and the description of the object.
    """
    if not start:
        stored = described_whole(key, answer)
        return stored.info.size_bytes, stored
    info = described(key, answer, "ContentLength")
    length = info.size_bytes
    if answer["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.PARTIAL_CONTENT or (
        answer.get("ContentRange") != f"bytes {start}-{start + length - 1}/{start + length}"
    ):
        raise ValueError("not the requested part")
    return length, StoredObject(replace(info, size_bytes=start + length), None, metadata(answer))


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


# --- handlers of botocore ---


def read_date(text: str) -> datetime:
    """Return a date of a response. botocore's own parser is slow, so it only reads what Python's parsers cannot."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(text)
        except ValueError:
            continue
        if date.tzinfo is not None:
            return date
    from botocore.utils import parse_timestamp

    found: datetime = parse_timestamp(text)
    return found


def without_redirect(context: dict[str, Any], **_: object) -> None:
    """Disable botocore's redirect to another region: mount-s3 does not redirect, so report a wrong region."""
    redirect = context.get("s3_redirect")
    if isinstance(redirect, dict):
        redirect["redirected"] = True


def masking(credentials: Credentials) -> Callable[..., None]:
    """Return a handler that masks the credentials in errors: a gateway may quote the request."""
    secrets = [secret for secret in (credentials.secret_access_key, credentials.session_token) if secret]

    def masked(value: object) -> object:
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, "***")
        return value

    def mask(parsed: dict[str, Any], **_: object) -> None:
        error = parsed.get("Error")
        if isinstance(error, dict):
            parsed["Error"] = {name: masked(value) for name, value in error.items()}

    return mask


# --- error responses ---


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
