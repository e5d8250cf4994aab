"""The command ``langchain-daytona-ws`` (extra `cli`)."""

from __future__ import annotations

from langchain_daytona_ws.cli.extras import require_extra


def main() -> None:
    """Run the command line; load typer and rich only now."""
    with require_extra("cli", "typer", "rich"):
        from langchain_daytona_ws.cli.app import app
    app()
