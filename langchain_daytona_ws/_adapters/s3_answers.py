"""Read S3's responses. Pure functions; a malformed response raises ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from langchain_daytona_ws._core.s3.store import KeyPage, ObjectInfo, StoredObject

LONGEST_PAGE = 1000
_LONGEST_TOKEN = 4096


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
