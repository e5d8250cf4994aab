"""``serve``: run the local Daytona server until Ctrl-C."""

from __future__ import annotations

import errno
import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_daytona_ws.cli.exits import error_exit
from langchain_daytona_ws.cli.extras import require_extra

if TYPE_CHECKING:
    from langchain_daytona_ws.local import LocalDaytona

_EXAMPLE = """\
python -c 'from langchain_daytona_ws import WorkspaceSession
with WorkspaceSession({}, namespace="try") as session:
    print(session.run("pwd; python3 --version").text)'"""

_BUCKET = "agents"
_REMEDIES = {
    errno.EADDRINUSE: "another program uses this port; choose another --port, or 0 for a free port",
    errno.EADDRNOTAVAIL: "this machine does not have this address; leave out --host for 127.0.0.1",
    errno.EACCES: "ports below 1024 need root; choose a higher --port, or 0 for a free port",
}


class Isolation(StrEnum):
    bubblewrap = "bubblewrap"
    none = "none"


class Shell(StrEnum):
    zsh = "zsh"
    bash = "bash"
    dash = "dash"
    sh = "sh"


class DaemonKind(StrEnum):
    """The versions of Daytona's daemon that the server imitates."""

    measured = "0.190"
    newer = "0.226"


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 selects a free port.")] = 0,
    isolation: Annotated[
        Isolation,
        typer.Option(
            help="`none` runs commands without isolation, as the current user: for trusted code only."
        ),
    ] = Isolation.bubblewrap,
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote",
            help="Allow a --host that is not loopback. Anyone who can reach it and has the key can run commands here.",
        ),
    ] = False,
    shell: Annotated[
        Shell | None,
        typer.Option(
            help="Shell that runs scripts. Default: zsh or bash if /etc/shells lists it, else $SHELL or sh."
        ),
    ] = None,
    daemon: Annotated[
        DaemonKind,
        typer.Option(
            help="Version of Daytona's daemon: 0.190, as measured, or 0.226, as the SDK 0.226 expects it."
        ),
    ] = DaemonKind.measured,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="LOCAL_DAYTONA_API_KEY",
            show_envvar=True,
            help="Key that clients must send. Default: a new random key. Arguments are visible in the process list.",
        ),
    ] = None,
    s3: Annotated[
        bool, typer.Option("--s3", help="Serve S3 and STS too; sandboxes can use buckets. Linux only.")
    ] = False,
    mount_s3: Annotated[
        Path | None,
        typer.Option(
            help="With --s3: path of the original mount-s3, used in the sandboxes instead of the local imitation."
        ),
    ] = None,
    s3_endpoint: Annotated[
        str | None,
        typer.Option(
            help="With --s3: URL of a store with S3 and STS, such as MinIO, instead of the built-in store."
        ),
    ] = None,
    s3_access_key: Annotated[
        str,
        typer.Option(
            envvar="S3_ACCESS_KEY", show_envvar=True, help="Access key of the store at --s3-endpoint."
        ),
    ] = "",
    s3_secret_key: Annotated[
        str,
        typer.Option(
            envvar="S3_SECRET_KEY",
            show_envvar=True,
            help="Secret key of the store at --s3-endpoint. Arguments are visible in the process list.",
        ),
    ] = "",
) -> None:
    """Serve a local imitation of Daytona for the Daytona SDK, without an account.

    Sandboxes are isolated with bubblewrap; they can use this machine's programs and network. Ctrl-C deletes them.
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
        raise error_exit(str(error), code=2) from None
    try:
        server.serve_forever(_announce_with_s3 if s3 else _announce)
    except (IsolationUnavailable, S3Unavailable) as error:
        raise error_exit(str(error)) from None
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        text = f"can't serve on {host}:{port}: {error.strerror or error}"
        raise error_exit(f"{text}; {remedy}" if remedy else text) from None
    typer.echo("Stopped; its sandboxes are deleted.", err=True)


def _announce(server: LocalDaytona) -> None:
    # Not printed with rich, which would wrap lines that users copy.
    typer.echo(
        f"The local Daytona is running. In another terminal:\n\n"
        f"export DAYTONA_API_URL={shlex.quote(server.api_url)}\n"
        f"export DAYTONA_API_KEY={shlex.quote(server.api_key)}\n\n"
        f"To try it:\n\n{_EXAMPLE}\n\n"
        "Ctrl-C stops it."
    )


def _announce_with_s3(server: LocalDaytona) -> None:
    bucket = server.make_bucket(_BUCKET)
    options = {
        "mountAwsS3Buckets": True,
        "s3Mode": "sync",
        "workspaceBucketName": bucket,
        "s3Endpoint": server.s3_endpoint,
    }
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    typer.echo(
        f"S3 and STS are at {server.s3_endpoint} and accept any keys. Configuration of a workspace on S3 "
        f'("s3Mode": "mount" mounts the bucket instead):\n\n'
        f"{json.dumps({'options': options, 'envVars': keys})}\n"
    )
    _announce(server)
