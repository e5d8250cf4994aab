"""``serve``: the local Daytona, until Ctrl-C."""

from __future__ import annotations

import errno
import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_daytona_ws.cli.exits import ended
from langchain_daytona_ws.cli.extras import require_extra

if TYPE_CHECKING:
    from langchain_daytona_ws.local import LocalDaytona

_TRY_ME = """\
python -c 'from langchain_daytona_ws import WorkspaceSession
with WorkspaceSession({}, namespace="try") as session:
    print(session.run("pwd; python3 --version").text)'"""

_REMEDIES = {
    errno.EADDRINUSE: "another program listens there; choose another --port, or 0 for a free one",
    errno.EADDRNOTAVAIL: "this machine has no such address; leave out --host for 127.0.0.1",
    errno.EACCES: "ports below 1024 need root; choose a higher --port, or 0 for a free one",
}


class Isolation(StrEnum):
    """How sandboxes are kept apart from the machine."""

    bubblewrap = "bubblewrap"
    none = "none"


class Shell(StrEnum):
    """The shells that the server knows."""

    zsh = "zsh"
    bash = "bash"
    dash = "dash"
    sh = "sh"


class DaemonKind(StrEnum):
    """The daemons that the server knows."""

    measured = "0.190"
    newer = "0.226"


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    isolation: Annotated[
        Isolation,
        typer.Option(help="`none` runs commands on the bare machine, as its user: for trusted code only."),
    ] = Isolation.bubblewrap,
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote",
            help="Allow a --host that is not loopback. Whoever reaches it and holds the key runs commands here.",
        ),
    ] = False,
    shell: Annotated[
        Shell | None,
        typer.Option(help="Shell that scripts are fed to. Default: the first there is of zsh, bash and sh."),
    ] = None,
    daemon: Annotated[
        DaemonKind,
        typer.Option(
            help="Daytona's daemon to imitate: 0.190, as measured, or a newer one, as SDK 0.226 expects it."
        ),
    ] = DaemonKind.measured,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="LOCAL_DAYTONA_API_KEY",
            show_envvar=True,
            help="Key that clients must send. Default: a new random one. An argument shows in the process list.",
        ),
    ] = None,
) -> None:
    """Serve a local Daytona that the Daytona SDK works against, without an account.

    Sandboxes are isolated with bubblewrap; they see this machine's programs and network. Ctrl-C deletes them.
    """
    with require_extra("local", "starlette", "uvicorn", "python_multipart", "multipart", "anyio"):
        from langchain_daytona_ws.local import IsolationUnavailable, LocalDaytona

    try:
        server = LocalDaytona(
            host=host,
            port=port,
            api_key=api_key,
            isolation=isolation.value,
            shell=None if shell is None else shell.value,
            allow_remote=allow_remote,
            daemon=daemon.value,
        )
    except ValueError as error:
        raise ended(str(error), code=2) from None
    try:
        server.serve_forever(_announce)
    except IsolationUnavailable as error:
        raise ended(str(error)) from None
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        text = f"can't serve on {host}:{port}: {error.strerror or error}"
        raise ended(f"{text}; {remedy}" if remedy else text) from None
    typer.echo("Stopped; its sandboxes are deleted.", err=True)


def _announce(server: LocalDaytona) -> None:
    # Without rich: it would wrap lines that are there to be copied.
    typer.echo(
        f"A local Daytona is serving. In another terminal:\n\n"
        f"export DAYTONA_API_URL={shlex.quote(server.api_url)}\n"
        f"export DAYTONA_API_KEY={shlex.quote(server.api_key)}\n\n"
        f"and, to try it:\n\n{_TRY_ME}\n\n"
        "Ctrl-C stops it."
    )
