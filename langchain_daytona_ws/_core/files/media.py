"""Check images and PDF documents before a model receives them. Pure.

A model's provider refuses an invalid image with an error that ends the graph. So this module checks the dimensions and
the end of the file. It does not decode the pixels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from langchain_daytona_ws._guest.media import GIF, JPEG, MIME_TYPES, PDF, PNG, WEBP, media_kind

MEDIA_BYTES = 3_750_000  # 5 MB as base64, the smallest limit of the common providers
MAX_SIDE_PIXELS = 8000  # the smallest limit of the common providers

_Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a PDF document. ``width`` and ``height`` are in pixels; a document has None."""

    kind: str  # a key of MIME_TYPES, such as "PNG image"
    width: int | None = None
    height: int | None = None

    @property
    def mime_type(self) -> str:
        return MIME_TYPES[self.kind]

    @property
    def is_image(self) -> bool:
        return self.kind != PDF


def media_of(data: bytes) -> Media | None:
    """Return the description of a complete file; None if the file is damaged or of another kind."""
    kind = media_kind(data)
    if kind == PDF:
        return Media(PDF) if b"%%EOF" in data[-2048:] else None
    measure = {PNG: _png, JPEG: _jpeg, GIF: _gif, WEBP: _webp}.get(kind)
    try:
        size = measure(data) if measure is not None else None
    except (struct.error, IndexError):
        size = None
    return None if size is None or 0 in size else Media(kind, *size)


def _png(data: bytes) -> _Size | None:
    """Return the size in the header, the first chunk; None if the first or the last chunk is missing."""
    if data[12:16] != b"IHDR" or b"IEND\xaeB`\x82" not in data[-1024:]:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> _Size | None:
    if b";" not in data[-64:]:  # the trailer
        return None
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _webp(data: bytes) -> _Size | None:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        return None
    chunk = data[12:16]
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L" and data[20] == 0x2F:
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def _jpeg(data: bytes) -> _Size | None:
    """Search the segments for the frame header, and return its size; None if the header or end marker is missing."""
    if b"\xff\xd9" not in data[-1024:]:
        return None
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker in (0xD8, 0xD9, 0xDA):
            return None
        at += 2 + (
            0 if marker == 0x01 or 0xD0 <= marker <= 0xD7 else struct.unpack_from(">H", data, at + 2)[0]
        )
    return None
