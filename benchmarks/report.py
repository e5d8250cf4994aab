"""Write the results as a table for the terminal, as JSON, and as the block of docs/benchmarks.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.picture import PICTURE, draw
from benchmarks.result import Result, read

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
PACKAGES = ("langchain-daytona-ws", "daytona", "langchain-daytona", "deepagents", "langchain-core")


def table(results: Iterable[Result]) -> Table:
    drawn = Table(title="÷ is a ratio of medians' rounds; quartiles in brackets", title_justify="left")
    for name in ("row", "what", "÷", "ratio", "target", "", "medians, note"):
        drawn.add_column(name, justify="right" if name in ("ratio", "target") else "left", overflow="fold")
    last = ""
    for result in results:
        if last not in ("", result.row):
            drawn.add_section()
        drawn.add_row(
            result.row if result.row != last else "",
            result.what,
            result.baseline,
            f"{value_of(result)}\n[dim]({_number(result.value.low)} to {_number(result.value.high)})[/dim]",
            "" if result.reach is None else f"{result.limit_sign} {_number(result.reach)}",
            _verdict(result),
            "\n".join(
                [*(f"{name}: {_number(value)}" for name, value in result.medians.items()), result.note]
            ).strip(),
        )
        last = result.row
    return drawn


def _verdict(result: Result) -> str:
    if result.reached is None:
        return ""
    return "[green]reached[/green]" if result.reached else f"[red]{_missed(result)}[/red]"


def _missed(result: Result) -> str:
    return f"missed by {(result.excess or 0) * 100:.0f} %"


def value_of(result: Result) -> str:
    """Format the figure with its unit."""
    unit = result.unit if result.unit in ("×", "") else f" {result.unit}"
    return f"{_number(result.value.median)}{unit}"


def _number(value: float) -> str:
    if value and abs(value) < 0.095:
        return f"{value:.3f}"
    if abs(value) < 100:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}"


def as_json(results: Sequence[Result], *, took_s: float, load: float, earlier: str = "") -> str:
    """Return JSON of the results, with the machine, the versions and the date.

    Args:
        results: The results of this run.
        took_s: The run's duration in seconds.
        load: The load average before the run: other programs distort the figures.
        earlier: JSON of an earlier run, in which this run's rows replace its rows. ``later_runs`` then has the date,
            machine and versions of these rows. "" for a whole run.
    """
    run = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "took_s": round(took_s),
        "machine": {**hardware(), "load_before": round(load, 2)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    found = [result.as_json() for result in results]
    document: dict[str, Any] = {**run, "results": found}
    if earlier:
        document = json.loads(earlier)
        rows = {result.row: run for result in results}
        kept = [result for result in document["results"] if result["row"] not in rows]
        order = [result["row"] for result in [*document["results"], *found]]
        document["later_runs"] = {**document.get("later_runs", {}), **rows}
        document["results"] = sorted([*kept, *found], key=lambda result: order.index(result["row"]))
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def hardware() -> dict[str, Any]:
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def page_block(document: dict[str, Any]) -> str:
    """Return the block of docs/benchmarks.md about ``results.json``, with its markers."""
    versions = document["versions"]
    setup = f"{document['machine']['cores']} cores, Python {versions['python']}, {document['date']}"
    packages = ", ".join(f"{name} {versions[name]}" for name in ("langchain-daytona", "daytona"))
    rows = [
        f"| {result.row} | {result.what} | {result.baseline} | {value_of(result)} | {_absolute(result)} "
        f"| {_reach(result)} |"
        for result in map(read, document["results"])
        if result.quoted
    ]
    later = "".join(
        f" Row *{row}*: {run['date']}, load {run['machine']['load_before']:.1f} before."
        for row, run in document.get("later_runs", {}).items()
    )
    return "\n".join(
        [
            BEGIN,
            f"Medians ({setup}; {packages}).{later}",
            "",
            "| row | what | ÷ | result | medians | target |",
            "|---|---|---|---|---|---|",
            *rows,
            END,
        ]
    )


def _reach(result: Result) -> str:
    if result.reach is None:
        return ""
    return f"{result.limit_sign} {_number(result.reach)}" + ("" if result.reached else f", {_missed(result)}")


def _absolute(result: Result) -> str:
    medians, unit = result.absolute
    return f"{' / '.join(map(_number, medians))} {unit}" if medians else ""


def renew(page: Path = PAGE, results: Path = RESULTS, picture: Path = PICTURE) -> None:
    """Write the block of these results into docs/benchmarks.md, and draw the picture of the parts of a command.

    Raises:
        ValueError: The page has no markers.
    """
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} and {END}, the markers of the block")
    document = json.loads(results.read_text("utf-8"))
    page.write_text(before + page_block(document) + after, "utf-8")
    picture.write_text(draw(document), "utf-8")
