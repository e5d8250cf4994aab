"""Read S3's responses. Pure functions; a malformed response raises ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_daytona_ws._core.s3.store import KeyPage, ObjectInfo

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


def metadata(answer: Mapping[str, Any]) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in answer.get("Metadata", {}).items()}


def text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a field is missing")
    return value
