"""Output for people and for programs. What comes from elsewhere cannot steer the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_json(document: object) -> None:
    """Print one JSON document, of ASCII only."""
    typer.echo(json.dumps(document, indent=2))


def printable(text: str) -> str:
    """Return text without what a terminal would obey; lines are kept."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table whose cells are taken as they are, without markup."""
    table = Table(*columns, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in row))
    Console(highlight=False).print(table)
