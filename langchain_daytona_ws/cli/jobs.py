"""``jobs``: the background jobs of a persistent workspace."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_daytona_ws.cli.configuration import (
    NAMESPACE,
    ConfigOption,
    JsonOption,
    NamespaceOption,
    read_configuration,
)
from langchain_daytona_ws.cli.exits import FAILED, LOST, TIMED_OUT, WRONG_CALL, cleaning_up, ended
from langchain_daytona_ws.cli.output import print_json, print_table, printable
from langchain_daytona_ws.errors import CommandRefused, ConfigError, WorkspaceError

if TYPE_CHECKING:
    from langchain_daytona_ws._core.job_results import Job, JobLog
    from langchain_daytona_ws.session import WorkspaceSession

COLUMNS = ("job", "state", "exit code", "started", "for", "output", "command")
FOLLOW_S = 10.0
COMMAND_SHOWN = 60

jobs = typer.Typer(
    name="jobs",
    no_args_is_help=True,
    help="Start, watch and stop background jobs in a persistent workspace (--config with persistent: true).",
)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]


# What follows the command's first word is the command's.
@jobs.command(context_settings={"allow_interspersed_args": False})
def start(
    command: Annotated[
        list[str],
        typer.Argument(
            help="Behind `--`: one argument is given to bash as it is; several are one command's words."
        ),
    ],
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    max_duration: Annotated[
        int | None, typer.Option(min=1, max=86_400, help="Seconds until it is stopped. Default: 3600.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start a command as a background job, creating the workspace's sandbox if there is none, and print its id."""
    with _session(config, namespace, creates=True) as session:
        text = command[0] if len(command) == 1 else shlex.join(command)
        job = session.jobs.start(text, max_duration_s=max_duration)
    if as_json:
        print_json(_told(job))
    else:
        _remark(job)
        typer.echo(job.id)


@jobs.command("list")
def list_jobs(
    *, config: ConfigOption = None, namespace: NamespaceOption = NAMESPACE, as_json: JsonOption = False
) -> None:
    """List the jobs that are known, those that started last first."""
    with _session(config, namespace) as session:
        found = session.jobs.list()
    if as_json:
        print_json({"jobs": [_told(job) for job in found]})
    elif found:
        print_table(COLUMNS, (_row(job) for job in found))
    else:
        typer.echo("There are none.")


@jobs.command()
def status(
    job: JobArgument,
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    as_json: JsonOption = False,
) -> None:
    """Tell what a job is doing."""
    with _session(config, namespace) as session:
        found = session.jobs.status(job)
    _show(found, as_json=as_json)


@jobs.command()
def stop(
    job: JobArgument,
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    as_json: JsonOption = False,
) -> None:
    """Stop a job with all that it started: TERM, then KILL."""
    with _session(config, namespace) as session:
        found = session.jobs.stop(job)
    _show(found, as_json=as_json)


@jobs.command()
def wait(
    job: JobArgument,
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    timeout: Annotated[
        int | None, typer.Option(min=1, help="Seconds to wait. Default: until it ends.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until a job has ended, and exit with its exit code: 124 if it still runs, 125 if it was lost."""
    with _session(config, namespace) as session:
        found = session.jobs.wait(job, timeout_s=timeout)
    _show(found, as_json=as_json)
    code = TIMED_OUT if found.is_running else LOST if found.exit_code is None else found.exit_code
    raise typer.Exit(code)


@jobs.command()
def logs(
    job: JobArgument,
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    tail: Annotated[int | None, typer.Option(min=1, max=10_000, help="The last lines. Default: 100.")] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="What follows this byte.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")] = False,
) -> None:
    """Print what a job has printed, unaltered; where it lies is said on standard error."""
    if tail is not None and offset is not None:
        raise ended("give --tail or --offset, not both", code=WRONG_CALL)
    with _session(config, namespace) as session:
        piece = session.jobs.logs(job, tail_lines=tail, offset=offset)
        _print(piece)
        while follow and piece.is_more_to_come:
            if piece.next_offset >= piece.size_bytes:
                session.jobs.wait(job, timeout_s=FOLLOW_S)
            piece = session.jobs.logs(job, offset=piece.next_offset)
            _print(piece)
    typer.echo(f"[read on with --offset {piece.next_offset}] [{printable(piece.job.summary)}]", err=True)


@contextmanager
def _session(source: str | None, namespace: str, *, creates: bool = False) -> Iterator[WorkspaceSession]:
    """Open the session of a persistent workspace. Where it has no sandbox, none is made to say so."""
    from langchain_daytona_ws._session.account import AccountSandboxes, persistent_spec
    from langchain_daytona_ws.session import WorkspaceSession

    try:
        config = read_configuration(source)
        if not config.persistent:
            raise ended(
                "jobs need a configuration (--config) with persistent: true; those of an ephemeral sandbox end with "
                "the session that started them",
                code=WRONG_CALL,
            )
        name = persistent_spec(config, namespace).name
        if not creates and AccountSandboxes(config).find(name) is None:
            raise ended(f"the workspace {namespace} has no sandbox now, and so no jobs")
        with cleaning_up(), WorkspaceSession(config, namespace=namespace) as session:
            yield session
    except (ConfigError, CommandRefused) as error:
        raise ended(error.message, code=WRONG_CALL) from None
    except WorkspaceError as error:
        raise ended(error.message, code=FAILED) from None


def _show(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(_told(job))
    else:
        typer.echo(printable(job.text))


def _remark(job: Job) -> None:
    for notice in job.notices:
        typer.echo(f"[{printable(notice)}]", err=True)


def _print(piece: JobLog) -> None:
    typer.echo(piece.output.encode(), nl=False)
    for notice in piece.notices:
        typer.echo(f"[{printable(notice)}]", err=True)


def _told(job: Job) -> dict[str, Any]:
    return asdict(job)


def _row(job: Job) -> tuple[str, ...]:
    started = datetime.datetime.fromtimestamp(job.started_at, datetime.UTC)
    command = " ".join(job.command.split())
    return (
        job.id,
        job.state,
        "" if job.exit_code is None else str(job.exit_code),
        f"{started:%Y-%m-%d %H:%M} UTC",
        f"{job.duration_s:.0f} s",
        f"{job.log_bytes:,} bytes",
        command if len(command) <= COMMAND_SHOWN else command[:COMMAND_SHOWN] + "…",
    )
