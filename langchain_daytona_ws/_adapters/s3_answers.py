"""Take what is used out of S3's answers, which may hold anything. Pure; what makes no sense is a ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_daytona_ws._core.store import KeyPage, ObjectInfo

LONGEST_PAGE = 1000
_LONGEST_TOKEN = 4096


def page(answer: Mapping[str, Any], prefix: str, workspace_prefix: str) -> KeyPage:
    """Read a listing of keys below ``prefix``; its keys are given relative to the workspace's."""

    def relative(key: object) -> str:
        whole = text(key)
        if not whole.startswith(prefix):
            raise ValueError("a key that was not asked for")
        return whole[len(workspace_prefix) :]

    objects = [described(relative(one["Key"]), one, "Size") for one in answer.get("Contents", [])]
    prefixes = [relative(one["Prefix"]) for one in answer.get("CommonPrefixes", [])]
    if len(objects) + len(prefixes) > LONGEST_PAGE:
        raise ValueError("too many keys")
    more = text(answer.get("NextContinuationToken")) if answer.get("IsTruncated") else None
    if more is not None and len(more) > _LONGEST_TOKEN:
        raise ValueError("a token that is none")
    return KeyPage(tuple(objects), tuple(prefixes), more)


def described(key: str, answer: Mapping[str, Any], size_field: str) -> ObjectInfo:
    """Read what an answer says of one object."""
    size = answer[size_field]
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 62:
        raise ValueError("a size that is none")
    # In milliseconds, since S3 gives whole seconds and others may give more.
    modified_ns = int(answer["LastModified"].timestamp() * 1000) * 1_000_000
    if abs(modified_ns) >= 1 << 62:
        raise ValueError("a date that is none")
    return ObjectInfo(key, size, modified_ns, text(answer["ETag"]))


def metadata(answer: Mapping[str, Any]) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in answer.get("Metadata", {}).items()}


def text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a field is missing")
    return value
