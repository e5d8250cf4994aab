"""``doctor``: whether a configuration works, from the API key to a file written in a sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from langchain_daytona_ws._core.doctor.finding import Finding, Status, any_failed, refused
from langchain_daytona_ws._core.doctor.settings import CONFIGURATION
from langchain_daytona_ws.cli.configuration import (
    NAMESPACE,
    ConfigOption,
    JsonOption,
    NamespaceOption,
    read_configuration,
)
from langchain_daytona_ws.cli.exits import FAILED, WRONG_CALL, cleaning_up
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
        bool, typer.Option("--no-sandbox", help="Create no sandbox, and check only what can be without one.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a configuration: account, snapshot, S3 and its credentials, a sandbox and what is in it.

    Creates a sandbox and writes a few small objects below the workspace's prefix, and deletes them all again. Exits
    with 0 when nothing failed, 1 when something did, 2 when the configuration is wrong.
    """
    with cleaning_up():
        findings = list(_shown(_findings(config, namespace, with_sandbox=not no_sandbox)))
    if as_json:
        print_json(
            {
                "ok": not any_failed(findings),
                "namespace": namespace,
                "checks": [{**asdict(one), "status": one.status.value} for one in findings],
            }
        )
    else:
        print_table(("check", "", "found"), (_row(one) for one in findings))
    if any_failed(findings):
        wrong = any_failed(one for one in findings if one.check == CONFIGURATION)
        raise typer.Exit(WRONG_CALL if wrong else FAILED)


def _findings(source: str | None, namespace: str, *, with_sandbox: bool) -> Iterator[Finding]:
    # Here, for the SDK takes a second to import, which `--help` need not pay.
    from langchain_daytona_ws._session.diagnosis.report import diagnose, not_looked_at

    try:
        config = read_configuration(source)
    except ConfigError as error:
        yield refused(CONFIGURATION, error)
        yield from not_looked_at("the configuration is wrong")
        return
    yield from diagnose(config, namespace, with_sandbox=with_sandbox, open_session=_open_session)


def _open_session(config: SandboxConfig, namespace: str) -> WorkspaceSession:
    from langchain_daytona_ws.session import WorkspaceSession

    return WorkspaceSession(config, namespace=namespace)


def _shown(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Say on a terminal what was found last, since some checks take their time."""
    console = Console(stderr=True)
    with console.status("checking") if console.is_terminal else console:
        for finding in findings:
            if console.is_terminal:
                console.print(Text(f"{finding.check}: {finding.status.value}", style="dim"))
            yield finding


def _row(finding: Finding) -> tuple[str, Text, Text]:
    said = Text(printable(finding.found))
    if finding.remedy:
        said.append(f"\n{printable(finding.remedy)}", style="dim")
    return finding.check, Text(finding.status.value, style=_STYLES[finding.status]), said
