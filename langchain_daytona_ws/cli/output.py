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
# Longer words may be broken in a table.
LONG_WORD = 12


def print_json(document: object) -> None:
    typer.echo(json.dumps(document, indent=2))


def printable(text: str) -> str:
    """Return text without terminal control characters; line breaks are kept."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table, or a list on a terminal that is too narrow for it; cells are plain text, without rich markup."""
    cells = [[Text(printable(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows]
    console = Console(highlight=False)
    if not (console.is_terminal or os.environ.get("COLUMNS")):
        console.width = WIDTH
    if console.width < _least_width(columns, cells):
        _print_list(console, columns, cells)
        return
    first, *others = columns
    table = Table(Column(first, no_wrap=True), *others, show_edge=False, pad_edge=False)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _least_width(columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> int:
    """Return the width at which the first column is whole, and the others break no word of up to LONG_WORD."""
    first, *others = zip(columns, *([cell.plain for cell in row] for row in rows), strict=True)
    longest = (max(len(word) for cell in column for word in cell.split()) for column in others)
    return max(map(len, first)) + sum(len(" │ ") + min(length, LONG_WORD) for length in longest)


def _print_list(console: Console, columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
    width = max(map(len, columns)) + len(": ")
    for number, row in enumerate(rows):
        if number:
            console.print()
        for column, cell in zip(columns, row, strict=True):
            console.print(Text.assemble(f"{column}:".ljust(width), cell), soft_wrap=True)
