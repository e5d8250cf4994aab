"""The options that select a configuration, and reading it from a file, standard input or the environment."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from langchain_daytona_ws.config import SandboxConfig

NAMESPACE = "default"

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="JSON file of the configuration, - for standard input. Default: environment variables only.",
    ),
]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="Name of the workspace.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print only one JSON document on standard output.")]


def read_configuration(source: str | None) -> SandboxConfig:
    """Read a JSON file, standard input (``-``), or environment variables only (None)."""
    if source is None:
        return SandboxConfig.from_env()
    if source == "-":
        return SandboxConfig.model_validate_json(sys.stdin.buffer.read())
    return SandboxConfig.from_file(source)
