"""The typer application with its commands and global options."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Annotated

import typer

from langchain_daytona_ws.cli.cp import cp
from langchain_daytona_ws.cli.doctor import doctor
from langchain_daytona_ws.cli.jobs import jobs
from langchain_daytona_ws.cli.run import run
from langchain_daytona_ws.cli.s3_snapshot import s3_snapshot
from langchain_daytona_ws.cli.sandboxes import sandboxes
from langchain_daytona_ws.cli.serve import serve

app = typer.Typer(
    name="langchain-daytona-ws",
    no_args_is_help=True,
    # A traceback must not show local variables, because they may hold keys.
    pretty_exceptions_show_locals=False,
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"langchain-daytona-ws {version_of('langchain-daytona-ws')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """LangChain tools over one shared Daytona workspace."""


app.command()(doctor)
# Options after the first word of the shell command belong to it, not to `run`.
app.command(context_settings={"allow_interspersed_args": False})(run)
app.command()(cp)
app.add_typer(jobs)
app.add_typer(sandboxes)
app.command()(serve)
app.command("s3-snapshot")(s3_snapshot)
