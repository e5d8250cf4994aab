"""``run``: run one command in a workspace, for scripts."""

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
from langchain_daytona_ws.cli.exits import NOT_RUN, OUTCOME_UNKNOWN, TIMED_OUT, cleaning_up, error_exit
from langchain_daytona_ws.cli.output import printable
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import OutcomeUnknown, WorkspaceError

# The maximum of SandboxConfig.output_limit_bytes, because a script needs as much output as possible.
OUTPUT_LIMIT_BYTES = 262_144


def run(
    command: Annotated[
        list[str],
        typer.Argument(
            help="After `--`: one argument is passed to bash unchanged; several are the words of one command."
        ),
    ],
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    timeout: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=600,
            help="Seconds after which the command is killed. Default: the configuration's timeout.",
        ),
    ] = None,
) -> None:
    """Run a command in a workspace, print its output, and exit with its exit code.

    Other exit codes: 124 = time-out; 125 = the command did not run, for the reason in the message; 123 = it is unknown
    whether the command ran. With onTimeout background in a persistent workspace, a command continues as a job at its
    time-out. The sandbox is deleted afterwards, unless the configuration has persistent: true.
    """
    with cleaning_up():
        code = _run_command(
            command[0] if len(command) == 1 else shlex.join(command), config, namespace, timeout
        )
    raise typer.Exit(code)


def _run_command(command: str, source: str | None, namespace: str, timeout_s: int | None) -> int:
    # Imported here to keep `--help` fast: the session takes a second to import.
    from langchain_daytona_ws.session import WorkspaceSession

    code = None
    try:
        settings = _for_script(read_configuration(source))
        with WorkspaceSession(settings, namespace=namespace) as session:
            result = session.run(command, timeout_s=timeout_s)
            code = result.exit_code if result.job_id is None else TIMED_OUT
            typer.echo(result.output.encode(), nl=False)  # bytes: unchanged in any encoding
            for notice in (*result.notices, *([result.hint] if result.hint else [])):
                typer.echo(f"[{printable(notice)}]", err=True)
    except OutcomeUnknown as error:
        raise error_exit(error.message, code=OUTCOME_UNKNOWN) from None
    except WorkspaceError as error:
        if code is None:
            raise error_exit(error.message, code=NOT_RUN) from None
        # Closing the session failed; the command has run.
        typer.echo(f"Warning: {printable(error.message)}", err=True)
    return code


def _for_script(config: SandboxConfig) -> SandboxConfig:
    """Set a missing output limit to its maximum; in an ephemeral sandbox, kill commands at their time-out."""
    changes: dict[str, object] = {}
    if "output_limit_bytes" not in config.model_fields_set:
        changes["output_limit_bytes"] = OUTPUT_LIMIT_BYTES
    if not config.persistent:
        changes["on_timeout"] = "kill"
    return config.model_copy(update=changes)
