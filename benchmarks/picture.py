"""Draw the parts of a command's time as stacked bars, from results.json."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

ROW = "parts of a command"
PARTS = ("client", "network", "shell", "Python", "guest", "command")
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "parts.svg"

# Colours by Okabe and Ito, which colour-blind readers can distinguish.
_COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#999999")
_WIDTH, _LEFT, _RIGHT = 800, 16, 70
_BAR, _STEP, _TOP = 22, 54, 74
_FONT = "font-family='system-ui, sans-serif' font-size='13' fill='#222'"


def bars(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the medians in milliseconds: the label of each bar → part → time."""
    found: dict[str, dict[str, float]] = {}
    for result in document["results"]:
        if result["row"] == ROW:
            label, _, part = result["what"].rpartition(": ")
            found.setdefault(label, {})[part] = max(result["value"]["median"], 0.0)
    return found


def draw(document: Mapping[str, Any]) -> str:
    """Return the picture as SVG."""
    found = bars(document)
    longest = max((sum(parts.values()) for parts in found.values()), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    height = _TOP + _STEP * len(found)
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}' role='img'>",
        "<title>Parts of the time of one command, in milliseconds</title>",
        f"<rect width='{_WIDTH}' height='{height}' fill='#fff'/>",
        f"<text x='{_LEFT}' y='24' {_FONT}>One command, echo hello: medians in milliseconds</text>",
        *_legend(),
    ]
    for number, (label, parts) in enumerate(found.items()):
        lines += _bar(label, parts, _TOP + _STEP * number, scale)
    return "\n".join([*lines, "</svg>", ""])


def _legend() -> list[str]:
    lines = []
    for number, (part, colour) in enumerate(zip(PARTS, _COLOURS, strict=True)):
        x = _LEFT + number * 100
        lines.append(f"<rect x='{x}' y='36' width='14' height='14' fill='{colour}'/>")
        lines.append(f"<text x='{x + 20}' y='48' {_FONT}>{part}</text>")
    return lines


def _bar(label: str, parts: Mapping[str, float], top: int, scale: float) -> list[str]:
    lines = [f"<text x='{_LEFT}' y='{top + 12}' {_FONT}>{escape(label)}</text>"]
    x = float(_LEFT)
    for part, colour in zip(PARTS, _COLOURS, strict=True):
        width = parts.get(part, 0.0) * scale
        if width:
            lines.append(
                f"<rect x='{x:.1f}' y='{top + 18}' width='{width:.1f}' height='{_BAR}' fill='{colour}'>"
                f"<title>{part}: {parts[part]:.1f} ms</title></rect>"
            )
        x += width
    total = sum(parts.values())
    lines.append(f"<text x='{x + 8:.1f}' y='{top + 18 + _BAR - 6}' {_FONT}>{total:.1f} ms</text>")
    return lines
