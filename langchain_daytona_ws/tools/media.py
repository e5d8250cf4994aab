"""Show images and PDF documents to a model that accepts them in tool messages."""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Collection
from typing import Any, Literal, TypeAlias

from langchain_daytona_ws._core.files.media import Media
from langchain_daytona_ws._core.files.models import FileContent
from langchain_daytona_ws._core.paths import shown, shown_name
from langchain_daytona_ws._guest.media import PDF

MediaKind: TypeAlias = Literal["image", "pdf"]
KINDS: frozenset[MediaKind] = frozenset({"image", "pdf"})
# Keys of a model's profile in langchain-core.
_PROFILE_KEYS: dict[MediaKind, str] = {"image": "image_tool_message", "pdf": "pdf_tool_message"}


def accepted_kinds(media: Any) -> frozenset[MediaKind]:
    """Return the kinds of files that a model accepts in a tool message.

    Args:
        media: True for all kinds, False for none, the kinds themselves, or the chat model, whose profile lists them.

    Raises:
        ValueError: It has another type, or a kind is unknown.
    """
    if isinstance(media, bool):
        return KINDS if media else frozenset()
    if isinstance(media, Collection) and not isinstance(media, str):
        if unknown := [kind for kind in media if kind not in KINDS]:
            raise ValueError(f"media has {unknown[0]!r}; the kinds are 'image' and 'pdf'")
        return frozenset(media)
    while hasattr(media, "bound"):  # a model with bound arguments
        media = media.bound
    if isinstance(media, str) or not hasattr(media, "invoke"):
        raise ValueError("media must be True, False, a list of 'image' and 'pdf', or the chat model itself")
    profile = getattr(media, "profile", None) or {}  # early releases of langchain-core have no profiles
    return frozenset(kind for kind, key in _PROFILE_KEYS.items() if profile.get(key))


def is_accepted(kind: str, kinds: Collection[MediaKind]) -> bool:
    """Return whether a model accepts files such as a ``PNG image``."""
    return ("pdf" if kind == PDF else "image") in kinds


def content_blocks(media: Media, content: FileContent) -> list[dict[str, Any]]:
    """Return LangChain's standard content blocks: a description, and the file."""
    pixels = f", {media.width}x{media.height} pixels" if media.width is not None else ""
    description = f"{shown(content.path)}: {media.kind}{pixels}, {len(content.data):,} bytes."
    block: dict[str, Any] = {
        "type": "image" if media.is_image else "file",
        "base64": base64.b64encode(content.data).decode("ascii"),
        "mime_type": media.mime_type,
    }
    if not media.is_image:
        block["extras"] = {"filename": shown_name(posixpath.basename(content.path))}  # OpenAI needs a name
    return [{"type": "text", "text": description}, block]


def artifact(media: Media, content: FileContent) -> dict[str, Any]:
    """Return the facts about the file, without its content."""
    return {
        "path": content.path,
        "kind": media.kind,
        "mime_type": media.mime_type,
        "width": media.width,
        "height": media.height,
        "size_bytes": len(content.data),
        "sha256": content.sha256,
    }
