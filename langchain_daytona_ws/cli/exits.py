"""How a command ends when it cannot do what was asked: one clear message and an exit code, no traceback."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.text import Text


def ended(message: str, *, code: int = 1) -> typer.Exit:
    """Print the message on standard error; raise what this returns.

    Args:
        message: What happened, and every remedy.
        code: 1 for a failure, 2 for a wrong call.
    """
    Console(stderr=True, soft_wrap=True).print(
        Text("Error: ", style="bold red").append(message, style="default")
    )
    return typer.Exit(code)
