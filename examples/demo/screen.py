"""The demo's terminal output, and its prompt for approvals."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.status import Status
from rich.syntax import Syntax
from rich.text import Text

from langchain_daytona_ws import PermissionDecision, PermissionRequest


class Screen:
    """Shows the agent's work, and asks the user for approvals.

    With `yes`, everything is allowed; the requests are still shown. By default `read_line` reads from the terminal.
    """

    longest_result = 12  # lines

    def __init__(
        self, console: Console, *, yes: bool, read_line: Callable[[], Awaitable[str]] | None = None
    ) -> None:
        self.console = console
        self.asked = 0
        self.denied = 0
        self._yes = yes
        self._read_line = read_line or _line
        self._started = time.monotonic()
        self._busy: Status | None = None

    def title(self, text: str) -> None:
        self.idle()
        self.console.rule(Text(text, style="bold"), align="left")

    def note(self, text: str, style: str = "dim") -> None:
        self.idle()
        self.console.print(Text(printable(text), style=style))

    def busy(self, text: str) -> None:
        """Show a spinner with this text until the next output."""
        self.idle()
        self._busy = self.console.status(Text(printable(text), style="dim"))
        self._busy.start()

    def idle(self) -> None:
        if self._busy is not None:
            self._busy.stop()
            self._busy = None

    def message(self, message: AIMessage | ToolMessage) -> None:
        """Show the model's text and calls, or a tool's result."""
        self.idle()
        if isinstance(message, ToolMessage):
            style = "red" if message.status == "error" else "dim"
            shown = Text(_excerpt(str(message.text), self.longest_result), style)
            self.console.print(shown, no_wrap=True, overflow="ellipsis")
            self.console.print()
            self.busy("thinking")
            return
        if text := printable(str(message.text)).strip():
            self.console.print(Text(text))
        for call in message.tool_calls:
            self.console.print(Text("▶ ", style="bold cyan").append(printable(_brief(call)), style="cyan"))
            self.busy(call["name"])

    async def approve(self, request: PermissionRequest) -> PermissionDecision:
        """Ask the user about a request; this is the session's approver."""
        self.idle()
        self.asked += 1
        prefixes = request.suggested_prefixes
        shown: list[RenderableType] = [Text(request.summary, style="bold")]
        if request.diff:
            shown.append(Syntax(request.diff, "diff", word_wrap=True, background_color="default"))
        self.console.print(
            Panel(Group(*shown), title="May the agent do this?", title_align="left", border_style="yellow")
        )
        if self._yes:
            self.console.print(Text("Allowed: --yes", style="yellow"))
        else:
            decision = await self._ask(prefixes)
            if decision.kind == "deny":
                self.denied += 1
                return decision
            if decision.kind == "allow_always":
                self.busy(request.tool)
                return decision
        self.busy(request.tool)
        return PermissionDecision.allow()

    async def _ask(self, prefixes: tuple[str, ...]) -> PermissionDecision:
        always = f", a = always allow `{'`, `'.join(prefixes)}`" if prefixes else ""
        while True:
            self.console.print(Text(f"y = yes, n = no{always}: ", style="yellow"), end="")
            match (await self._read_line()).strip().lower():
                case "y" | "yes":
                    return PermissionDecision.allow()
                case "a" | "always" if prefixes:
                    return PermissionDecision.allow_always("prefix")
                case "n" | "no" | "\x04":
                    return PermissionDecision.deny("The person at the terminal said no.")

    def seconds(self) -> str:
        return f"{time.monotonic() - self._started:.0f} s"


async def _line() -> str:
    """Read a line from the terminal on the running loop; a reading thread would survive Ctrl-C."""
    loop = asyncio.get_running_loop()
    got: asyncio.Future[str] = loop.create_future()
    descriptor = sys.stdin.fileno()

    def read() -> None:
        text = os.read(descriptor, 4096)
        if not got.done():
            got.set_result(text.decode(errors="replace") if text else "\x04")

    loop.add_reader(descriptor, read)
    try:
        return await got
    finally:
        loop.remove_reader(descriptor)


def printable(text: str) -> str:
    """Escape the unprintable characters of a model's or a command's text, except line feeds; expand tabs."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text.expandtabs()
    )


def _brief(call: Mapping[str, Any]) -> str:
    arguments = call["args"]
    if call["name"] == "bash":
        return f"bash: {arguments.get('command', '')}"
    named = [str(arguments[key]) for key in ("pattern", "path") if arguments.get(key)]
    return f"{call['name']}: {arguments.get('action', '')} {' in '.join(named)}"


def _excerpt(text: str, longest: int) -> str:
    lines = printable(text).splitlines()
    left_out = len(lines) - longest
    if left_out > 0:
        lines = [f"… {left_out} more lines above", *lines[-longest:]]
    return "\n".join(f"  {line}" for line in lines)
