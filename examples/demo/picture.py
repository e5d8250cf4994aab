"""Draw the picture of ask mode in the README from a real run of the demo: ``make picture``."""

from __future__ import annotations

import html
import io
import re
import sys
from pathlib import Path

from langchain_core.messages import AIMessage, ToolMessage
from rich.console import Console
from rich.text import Text

from examples.demo.__main__ import main as run_demo
from examples.demo.screen import Screen

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "ask.svg"
WIDTH = 100
TITLE = "make demo"

# Durations in the output of the tests differ between runs.
_DURATION = re.compile(r"\d+\.\d+s\b")


class PictureFailed(Exception):
    """The demo failed, so that there is nothing to draw."""


class _Recorder(Screen):
    """Answers every request with y, and records from the edit to the end of the agent's work."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, yes=False, read_line=self._answer)

    def title(self, text: str) -> None:
        if text.startswith("3."):
            self.console.record = False
        super().title(text)

    def message(self, message: AIMessage | ToolMessage) -> None:
        if isinstance(message, ToolMessage):
            self.longest_result = 5 if message.name == "bash" else Screen.longest_result
        elif any("edit" in call["args"].values() for call in message.tool_calls):
            self.console.export_text()  # clears the record
        super().message(message)

    async def _answer(self) -> str:
        self.console.print(Text("y"))
        return "y"


def texts(svg: str) -> list[str]:
    """Return the texts of a picture, in their order."""
    return [html.unescape(text) for text in re.findall(r"<text [^>]*>(.*?)</text>", svg)]


def draw() -> str:
    """Run the demo and return the picture as SVG. It is the same for each run.

    Raises:
        PictureFailed: The demo failed.
    """
    output = io.StringIO()
    console = Console(record=True, width=WIDTH, file=output, highlight=False)
    if run_demo([], console, _Recorder(console)) != 0:
        raise PictureFailed(output.getvalue())
    return _DURATION.sub("1.234s", console.export_svg(title=TITLE, unique_id="ask"))


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"{PICTURE}: drawn", file=sys.stderr)
