"""Print results; text from the sandbox can't control the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

# Width of tables if the output is a pipe and COLUMNS is not set: wide, so that lines can be searched.
WIDTH = 200


def print_json(document: object) -> None:
    typer.echo(json.dumps(document, indent=2))


def printable(text: str) -> str:
    """Return text without terminal control characters; line breaks are kept."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table; cells are plain text, without rich markup."""
    first, *others = columns
    table = Table(Column(first, no_wrap=True), *others, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in row))
    console = Console(highlight=False)
    if not (console.is_terminal or os.environ.get("COLUMNS")):
        console.width = WIDTH
    console.print(table)
