"""Output for people and for programs. What comes from elsewhere cannot steer the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

# Where nobody says how wide it is, as in a pipe: lines that are not broken can be searched.
WIDTH = 200


def print_json(document: object) -> None:
    """Print one JSON document, of ASCII only."""
    typer.echo(json.dumps(document, indent=2))


def printable(text: str) -> str:
    """Return text without what a terminal would obey; lines are kept."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table whose cells are taken as they are, without markup."""
    first, *others = columns
    table = Table(Column(first, no_wrap=True), *others, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in row))
    console = Console(highlight=False)
    if not (console.is_terminal or os.environ.get("COLUMNS")):
        console.width = WIDTH
    console.print(table)
