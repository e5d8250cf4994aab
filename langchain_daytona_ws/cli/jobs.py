"""``jobs``: start, watch and stop background jobs of a persistent workspace."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_daytona_ws.cli.configuration import (
    NAMESPACE,
    ConfigOption,
    JsonOption,
    NamespaceOption,
    read_configuration,
)
from langchain_daytona_ws.cli.exits import FAILED, LOST, TIMED_OUT, USAGE_ERROR, cleaning_up, error_exit
from langchain_daytona_ws.cli.output import print_json, print_table, printable
from langchain_daytona_ws.errors import CommandRefused, ConfigError, WorkspaceError

if TYPE_CHECKING:
    from langchain_daytona_ws._core.jobs.models import Job, JobLog
    from langchain_daytona_ws.session import WorkspaceSession

COLUMNS = ("job", "state", "exit code", "started", "for", "output", "command")
COMMAND_CHARS = 60

jobs = typer.Typer(
    name="jobs",
    no_args_is_help=True,
    help="Start, watch and stop background jobs in a persistent workspace (--config with persistent: true).",
)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]


# Options after the first word of the shell command belong to it, not to `start`.
@jobs.command(context_settings={"allow_interspersed_args": False})
def start(
    command: Annotated[
        list[str],
        typer.Argument(
            help="After `--`: one argument is passed to bash unchanged; several are the words of one command."
        ),
    ],
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    max_duration: Annotated[
        int | None,
        typer.Option(min=1, max=86_400, help="Seconds after which the job is stopped. Default: 3600."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start a command as a background job and print its id; create the sandbox if the workspace has none."""
    with _session(config, namespace, creates=True) as session:
        text = command[0] if len(command) == 1 else shlex.join(command)
        job = session.jobs.start(text, max_duration_s=max_duration)
    if as_json:
        print_json(asdict(job))
    else:
        _print_notices(job)
        typer.echo(job.id)


@jobs.command("list")
def list_jobs(
    *, config: ConfigOption = None, namespace: NamespaceOption = NAMESPACE, as_json: JsonOption = False
) -> None:
    """List the jobs, newest first."""
    with _session(config, namespace) as session:
        found = session.jobs.list()
    if as_json:
        print_json({"jobs": [asdict(job) for job in found]})
    elif found:
        print_table(COLUMNS, (_row(job) for job in found))
    else:
        typer.echo("There are no jobs.")


@jobs.command()
def status(
    job: JobArgument,
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    as_json: JsonOption = False,
) -> None:
    """Show the state of a job."""
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
    """Stop all processes of a job: SIGTERM, then SIGKILL."""
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
        int | None, typer.Option(min=1, help="Seconds to wait. Default: until the job ends.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until a job ends, and exit with its exit code; with 124 if it still runs, with 125 if it was lost."""
    with _session(config, namespace) as session:
        found = session.jobs.join(job, timeout_s=timeout)
    _show(found, as_json=as_json)
    code = TIMED_OUT if found.is_running else LOST if found.exit_code is None else found.exit_code
    raise typer.Exit(code)


@jobs.command()
def logs(
    job: JobArgument,
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    tail: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Number of last lines. Default: 100.")
    ] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="Position of the first byte to print.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Continue until the job ends.")] = False,
) -> None:
    """Print the output of a job; print the offset and the job's state on standard error."""
    if tail is not None and offset is not None:
        raise error_exit("use --tail or --offset, not both", code=USAGE_ERROR)
    with _session(config, namespace) as session:
        if follow:
            _follow(session, job, tail, offset)
            return
        log = session.jobs.logs(job, tail_lines=tail, offset=offset)
        typer.echo(log.output.encode(), nl=False)
        _print_notices(log)
    typer.echo(f"[read on with --offset {log.next_offset}] [{printable(log.job.summary)}]", err=True)


@contextmanager
def _session(source: str | None, namespace: str, *, creates: bool = False) -> Iterator[WorkspaceSession]:
    """Open the session of a persistent workspace; exit with an error if the configuration is not persistent.

    Without ``creates``, also exit with an error if the workspace has no sandbox. If only the closing of the session
    fails, print a warning: after an error, a script could start its job again.
    """
    from langchain_daytona_ws._session.account import AccountSandboxes, persistent_spec
    from langchain_daytona_ws.session import WorkspaceSession

    is_done = False
    try:
        config = read_configuration(source)
        if not config.persistent:
            raise error_exit(
                "jobs need a configuration (--config) with persistent: true; jobs of an ephemeral sandbox end with "
                "their session",
                code=USAGE_ERROR,
            )
        name = persistent_spec(config, namespace).name
        if not creates and AccountSandboxes(config).find(name) is None:
            raise error_exit(f"the workspace {namespace} has no sandbox now, and therefore no jobs")
        with cleaning_up(), WorkspaceSession(config, namespace=namespace) as session:
            yield session
            is_done = True
    except (ConfigError, CommandRefused) as error:
        raise error_exit(error.message, code=USAGE_ERROR) from None
    except WorkspaceError as error:
        if not is_done:
            raise error_exit(error.message, code=FAILED) from None
        typer.echo(f"Warning: {printable(error.message)}", err=True)


def _show(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(job))
    else:
        typer.echo(printable(job.text))


def _follow(session: WorkspaceSession, job: str, tail: int | None, offset: int | None) -> None:
    """Print each line when it arrives; after Ctrl-C, print the offset after the last printed line."""
    from langchain_daytona_ws._core.jobs.operations import TAIL_LINES

    next_offset = offset or 0
    if tail is None and offset is None:
        tail = TAIL_LINES
    try:
        for line in session.jobs.follow(job, tail_lines=tail, offset=offset):
            next_offset = line.next_offset
            if line.kind == "output":
                typer.echo(line.text.encode(), nl=False)
            elif line.kind == "notice":
                typer.echo(f"[{printable(line.text)}]", err=True)
            else:
                typer.echo(f"[read on with --offset {next_offset}] [{printable(line.text)}]", err=True)
    except KeyboardInterrupt:
        typer.echo(f"[read on with --offset {next_offset}]", err=True)
        raise


def _print_notices(result: Job | JobLog) -> None:
    for notice in result.notices:
        typer.echo(f"[{printable(notice)}]", err=True)


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
        command if len(command) <= COMMAND_CHARS else command[:COMMAND_CHARS] + "…",
    )
