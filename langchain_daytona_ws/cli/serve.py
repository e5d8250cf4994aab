"""``serve``: the local Daytona, until Ctrl-C."""

from __future__ import annotations

import errno
import json
import shlex
from enum import StrEnum
from pathlib import Path
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

_BUCKET = "agents"
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
    s3: Annotated[
        bool, typer.Option("--s3", help="Serve S3 and STS too, and let sandboxes mount them. Linux only.")
    ] = False,
    mount_s3: Annotated[
        Path | None,
        typer.Option(
            help="With --s3: an original mount-s3 to put into the sandboxes, in place of the local one."
        ),
    ] = None,
    s3_endpoint: Annotated[
        str | None,
        typer.Option(
            help="With --s3: a store with S3 and STS, such as a MinIO, in place of the built-in one."
        ),
    ] = None,
    s3_access_key: Annotated[
        str, typer.Option(envvar="S3_ACCESS_KEY", show_envvar=True, help="Key of the store at --s3-endpoint.")
    ] = "",
    s3_secret_key: Annotated[
        str,
        typer.Option(
            envvar="S3_SECRET_KEY",
            show_envvar=True,
            help="Secret of the store at --s3-endpoint. An argument shows in the process list.",
        ),
    ] = "",
) -> None:
    """Serve a local Daytona that the Daytona SDK works against, without an account.

    Sandboxes are isolated with bubblewrap; they see this machine's programs and network. Ctrl-C deletes them.
    """
    with require_extra("local", "starlette", "uvicorn", "python_multipart", "multipart", "anyio"):
        from langchain_daytona_ws.local import IsolationUnavailable, LocalDaytona, S3Store, S3Unavailable

    store = S3Store(s3_endpoint, s3_access_key, s3_secret_key) if s3_endpoint else None
    try:
        server = LocalDaytona(
            host=host,
            port=port,
            api_key=api_key,
            isolation=isolation.value,
            shell=None if shell is None else shell.value,
            allow_remote=allow_remote,
            daemon=daemon.value,
            s3=s3,
            mount_s3=mount_s3,
            s3_store=store,
        )
    except ValueError as error:
        raise ended(str(error), code=2) from None
    try:
        server.serve_forever(_announce_with_s3 if s3 else _announce)
    except (IsolationUnavailable, S3Unavailable) as error:
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


def _announce_with_s3(server: LocalDaytona) -> None:
    bucket = server.make_bucket(_BUCKET)
    options = json.dumps(
        {"mountAwsS3Buckets": True, "workspaceBucketName": bucket, "s3Endpoint": server.s3_endpoint}
    )
    keys = json.dumps({"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"})
    typer.echo(
        f"S3 and STS are at {server.s3_endpoint} and take any keys. A workspace on S3 has this configuration:\n\n"
        f'{{"options": {options}, "envVars": {keys}}}\n'
    )
    _announce(server)
