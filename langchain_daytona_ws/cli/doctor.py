"""``doctor``: check a configuration, from the API key to a file written in a sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from langchain_daytona_ws._core.doctor.finding import CONFIGURATION, Finding, Status, any_failed, from_error
from langchain_daytona_ws.cli.configuration import (
    NAMESPACE,
    ConfigOption,
    JsonOption,
    NamespaceOption,
    read_configuration,
)
from langchain_daytona_ws.cli.exits import FAILED, USAGE_ERROR, cleaning_up
from langchain_daytona_ws.cli.output import print_json, print_table, printable
from langchain_daytona_ws.errors import ConfigError

if TYPE_CHECKING:
    from langchain_daytona_ws.config import SandboxConfig
    from langchain_daytona_ws.session import WorkspaceSession

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red", Status.SKIPPED: "dim"}


def doctor(
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    no_sandbox: Annotated[
        bool, typer.Option("--no-sandbox", help="Create no sandbox; skip the checks that need a sandbox.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a configuration: account, snapshot, S3 and its credentials, and the programs in a sandbox.

    Creates a sandbox and writes a few small objects below the workspace's prefix, then deletes all of them. Exit code:
    0 if no check fails, 1 if a check fails, 2 if the configuration is wrong.
    """
    with cleaning_up():
        findings = list(_with_progress(_findings(config, namespace, with_sandbox=not no_sandbox)))
    if as_json:
        print_json(
            {
                "ok": not any_failed(findings),
                "namespace": namespace,
                "checks": [{**asdict(finding), "status": finding.status.value} for finding in findings],
            }
        )
    else:
        print_table(("check", "", "found"), (_row(finding) for finding in findings))
    if any_failed(findings):
        config_failed = any_failed(finding for finding in findings if finding.check == CONFIGURATION)
        raise typer.Exit(USAGE_ERROR if config_failed else FAILED)


def _findings(source: str | None, namespace: str, *, with_sandbox: bool) -> Iterator[Finding]:
    # Imported here to keep `--help` fast: the SDK takes a second to import.
    from langchain_daytona_ws._session.diagnosis.report import all_skipped, diagnose

    try:
        config = read_configuration(source)
    except ConfigError as error:
        yield from_error(CONFIGURATION, error)
        yield from all_skipped("the configuration is wrong")
        return
    yield from diagnose(config, namespace, with_sandbox=with_sandbox, open_session=_open_session)


def _open_session(config: SandboxConfig, namespace: str) -> WorkspaceSession:
    from langchain_daytona_ws.session import WorkspaceSession

    return WorkspaceSession(config, namespace=namespace)


def _with_progress(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Print each finished check on a terminal, because some checks are slow."""
    console = Console(stderr=True)
    with console.status("checking") if console.is_terminal else console:
        for finding in findings:
            if console.is_terminal:
                console.print(Text(f"{finding.check}: {finding.status.value}", style="dim"))
            yield finding


def _row(finding: Finding) -> tuple[str, Text, Text]:
    details = Text(printable(finding.found))
    if finding.remedy:
        details.append(f"\n{printable(finding.remedy)}", style="dim")
    return finding.check, Text(finding.status.value, style=_STYLES[finding.status]), details
