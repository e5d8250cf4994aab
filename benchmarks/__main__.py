"""Measure all rows, or some, against the local Daytona: ``make bench``, ``python -m benchmarks --help``."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.result import Result

BUSY = 1.0

app = typer.Typer(add_completion=False)


@app.command()
def main(
    only: Annotated[list[str] | None, typer.Option(help="Only this row; may be given again.")] = None,
    quick: Annotated[bool, typer.Option(help="A tenth of the work, to see that all runs.")] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Where to write the results; a whole run: results.json.")
    ] = None,
    readme: Annotated[bool, typer.Option(help="Only put what results.json says into the README.")] = False,
) -> None:
    """Measure this library beside the SDK, langchain-daytona and Deep Agents, on a local Daytona."""
    if readme:
        report.renew()
        return
    from benchmarks.rows import ROWS  # it imports all contenders

    names = {row.name for row in ROWS}
    unknown = set(only or ()) - names
    if unknown:
        raise typer.BadParameter(f"no row {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}")
    console = Console(width=None if os.isatty(1) else 160)
    prepare()
    load = os.getloadavg()[0]
    if load > BUSY:
        console.print(
            f"Something else is running here (load {load:.1f}): the figures will be worth little.",
            style="red",
        )
    began = time.monotonic()
    results: list[Result] = []
    for row in ROWS:
        if only and row.name not in only:
            continue
        console.print(f"[bold]{row.name}[/bold]: {row.about}")
        at = time.monotonic()
        results += row.run(Bench(quick, lambda what: console.print(f"  {what}", style="dim")))
        console.print(f"  {time.monotonic() - at:.0f} s", style="dim")
    took_s = time.monotonic() - began
    console.print(report.table(results))
    console.print(f"{took_s:.0f} s")
    if json_path is None and not (only or quick):
        json_path = report.RESULTS
    if json_path is not None:
        json_path.write_text(report.as_json(results, took_s=took_s, load=load), "utf-8")
        console.print(f"written: {json_path}")


def prepare() -> None:
    """Have room for hundreds of connections, and let nothing of the surroundings take part."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for name in [name for name in os.environ if name.startswith(("DAYTONA_", "AWS_"))]:
        del os.environ[name]
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"


if __name__ == "__main__":
    app()
