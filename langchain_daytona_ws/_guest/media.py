"""Recognise PNG, JPEG, GIF and WebP images and PDF documents by their content. Pure; used by host and guest."""

from __future__ import annotations

HEAD_BYTES = 32  # enough to recognise the kind

PNG, JPEG, GIF, WEBP, PDF = "PNG image", "JPEG image", "GIF image", "WebP image", "PDF document"
MIME_TYPES = {
    PNG: "image/png",
    JPEG: "image/jpeg",
    GIF: "image/gif",
    WEBP: "image/webp",
    PDF: "application/pdf",
}


def media_kind(head: bytes) -> str:
    """Return the kind of content by its first bytes: one of MIME_TYPES, or ``""`` for any other content."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    return PDF if head.startswith(b"%PDF-") else ""
