"""``run``: one command in a workspace, for scripts."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from langchain_daytona_ws.cli.configuration import (
    NAMESPACE,
    ConfigOption,
    NamespaceOption,
    read_configuration,
)
from langchain_daytona_ws.cli.exits import NOT_RUN, OUTCOME_UNKNOWN, TIMED_OUT, cleaning_up, ended
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import OutcomeUnknown, WorkspaceError

# What a result may hold at most (SandboxConfig.output_limit_bytes): a script wants all of it.
OUTPUT_LIMIT_BYTES = 262_144


def run(
    command: Annotated[
        list[str],
        typer.Argument(
            help="Behind `--`: one argument is given to bash as it is; several are one command's words."
        ),
    ],
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    timeout: Annotated[
        int | None,
        typer.Option(
            min=1, max=600, help="Seconds until it is killed. Default: the configuration's timeout."
        ),
    ] = None,
) -> None:
    """Run a command in a workspace, print what it prints, and exit with its exit code.

    124: its time was up; with onTimeout background in a persistent workspace it goes on as a job. 125: it did not run,
    the message says why. 123: it may have run, nobody can tell. The sandbox is deleted afterwards, unless the
    configuration says persistent.
    """
    with cleaning_up():
        code = _ran(command[0] if len(command) == 1 else shlex.join(command), config, namespace, timeout)
    raise typer.Exit(code)


def _ran(command: str, source: str | None, namespace: str, timeout_s: int | None) -> int:
    # Here, for the session takes a second to import, which `--help` need not pay.
    from langchain_daytona_ws.session import WorkspaceSession

    code = None
    try:
        settings = _for_a_script(read_configuration(source))
        with WorkspaceSession(settings, namespace=namespace) as session:
            result = session.run(command, timeout_s=timeout_s)
            code = result.exit_code if result.job_id is None else TIMED_OUT
            typer.echo(result.output.encode(), nl=False)  # as it is, whatever the terminal's encoding
            for notice in (*result.notices, *([result.hint] if result.hint else [])):
                typer.echo(f"[{notice}]", err=True)
    except OutcomeUnknown as error:
        raise ended(error.message, code=OUTCOME_UNKNOWN) from None
    except WorkspaceError as error:
        if code is None:
            raise ended(error.message, code=NOT_RUN) from None
        typer.echo(f"Warning: {error.message}", err=True)  # of the end of the session: the command has run
    return code


def _for_a_script(config: SandboxConfig) -> SandboxConfig:
    """Return all that a command prints; and let none go on in a sandbox that is about to be deleted."""
    changes: dict[str, object] = {}
    if "output_limit_bytes" not in config.model_fields_set:
        changes["output_limit_bytes"] = OUTPUT_LIMIT_BYTES
    if not config.persistent:
        changes["on_timeout"] = "kill"
    return config.model_copy(update=changes)
