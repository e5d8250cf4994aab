"""Measure all or some rows on the local Daytona: ``make bench``, ``python -m benchmarks --help``."""

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
from benchmarks.picture import PICTURE
from benchmarks.result import Result

BUSY = 1.0

app = typer.Typer(add_completion=False)


@app.command()
def main(
    only: Annotated[list[str] | None, typer.Option(help="Only this row; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option(help="A tenth of the work, to check that every row runs.")] = False,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", help="File for the results; default for a whole run: results.json."),
    ] = None,
    merge: Annotated[
        bool, typer.Option(help="Replace these rows in results.json, and write their date next to them.")
    ] = False,
    docs: Annotated[
        bool,
        typer.Option(
            help="Only write the results of results.json into docs/benchmarks.md and docs/images/parts.svg."
        ),
    ] = False,
) -> None:
    """Compare this library with the SDK, langchain-daytona and Deep Agents, on a local Daytona."""
    if docs:
        report.renew()
        return
    from benchmarks.rows import ROWS  # imports all contenders

    names = {row.name for row in ROWS}
    unknown = set(only or ()) - names
    if unknown:
        raise typer.BadParameter(f"no row {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}")
    if merge and quick:
        raise typer.BadParameter("the figures of --quick are not reliable: they are not merged")
    console = Console(width=None if os.isatty(1) else 160)
    prepare()
    load = os.getloadavg()[0]
    if load > BUSY:
        console.print(
            f"Other programs are running here (load {load:.1f}): the figures will not be reliable.",
            style="red",
        )
    began = time.monotonic()
    results: list[Result] = []
    for row in ROWS:
        if only and row.name not in only:
            continue
        console.print(f"[bold]{row.name}[/bold]: {row.about}")
        at = time.monotonic()
        results += row.run(Bench(quick, lambda text: console.print(f"  {text}", style="dim")))
        console.print(f"  {time.monotonic() - at:.0f} s", style="dim")
    took_s = time.monotonic() - began
    console.print(report.table(results))
    console.print(f"{took_s:.0f} s")
    if json_path is None and (merge or not (only or quick)):
        json_path = report.RESULTS
    if json_path is not None:
        earlier = json_path.read_text("utf-8") if merge else ""
        json_path.write_text(report.as_json(results, took_s=took_s, load=load, earlier=earlier), "utf-8")
        console.print(f"written: {json_path}")
        if json_path == report.RESULTS:
            report.renew()
            console.print(f"written: {report.PAGE}, {PICTURE}")


def prepare() -> None:
    """Allow hundreds of connections, and remove settings of this machine from the environment."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for name in [name for name in os.environ if name.startswith(("DAYTONA_", "AWS_"))]:
        del os.environ[name]
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"


if __name__ == "__main__":
    app()
