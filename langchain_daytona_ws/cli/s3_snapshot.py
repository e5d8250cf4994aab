"""``s3-snapshot``: build a Daytona snapshot with mount-s3."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from langchain_daytona_ws._core.mount.snapshot import (
    MOUNT_S3_VERSION,
    SKILLS_MOUNT_PATH,
    USER,
    WORKSPACE_ROOT,
    Recipe,
    build_error,
    checked_name,
)
from langchain_daytona_ws._core.ports import PortFault
from langchain_daytona_ws.cli.exits import error_exit
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import ConfigError, ProvisionError

if TYPE_CHECKING:
    from langchain_daytona_ws._adapters.snapshots import SnapshotInfo, Snapshots

BASE_IMAGE = "DAYTONA_S3_SNAPSHOT_BASE_IMAGE"
NAME = "DAYTONA_S3_SNAPSHOT_NAME"

# Terminal escapes in the build's output: colours, cursor movements, window titles.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_SDK_STATE = re.compile(r"SnapshotState\.([A-Z_]+)")


def s3_snapshot(
    *,
    base_image: Annotated[
        str | None,
        typer.Option(
            envvar=BASE_IMAGE,
            show_envvar=True,
            help="Base image: Debian or Ubuntu with bash, Node and Python 3.8 or newer.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(envvar=NAME, show_envvar=True, help="Name of the snapshot.")
    ] = None,
    mount_s3_version: Annotated[
        str, typer.Option("--mount-s3-version", help="Release of mount-s3.")
    ] = MOUNT_S3_VERSION,
    region: Annotated[
        str | None,
        typer.Option(
            help="Pin the snapshot to this Daytona region. Default: no region. DAYTONA_TARGET is ignored."
        ),
    ] = None,
    user: Annotated[
        str,
        typer.Option(
            help="Account that runs the agent's commands; it is created if the base image does not have it. It can "
            "run only the mount helper as root. With `root`, no helper is installed, and the agent can read the S3 "
            "credentials."
        ),
    ] = USER,
    workspace_root: Annotated[
        str, typer.Option(help="Directory for workspaces: options.workspaceRoot of the sessions.")
    ] = WORKSPACE_ROOT,
    skills_mount_path: Annotated[
        str, typer.Option(help="Directory for skills: options.skillsMountPath of the sessions.")
    ] = SKILLS_MOUNT_PATH,
    cpu: Annotated[int | None, typer.Option(min=1, help="CPUs of each sandbox.")] = None,
    memory: Annotated[int | None, typer.Option(min=1, help="GiB of memory of each sandbox.")] = None,
    disk: Annotated[int | None, typer.Option(min=1, help="GiB of disk of each sandbox.")] = None,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds to wait for the build.")] = 3600,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete an existing snapshot of this name before the build.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the Dockerfile; send nothing.")] = False,
) -> None:
    """Build a Daytona snapshot with mount-s3, for workspaces that are mounted from S3.

    Workspaces with `"s3Mode": "sync"` do not need it: they work on Daytona's default snapshot.

    Uses the account of DAYTONA_API_KEY and DAYTONA_API_URL. --replace deletes the old snapshot before the build. If
    the build then fails, the old snapshot is lost; to keep it until the build has succeeded, use a new name.
    """
    try:
        base_image = _required(base_image, "base image", "--base-image", BASE_IMAGE)
        recipe = Recipe(base_image, mount_s3_version, user, workspace_root, skills_mount_path)
        if dry_run:
            typer.echo(recipe.dockerfile(), nl=False)
            return
        name = checked_name(_required(name, "snapshot name", "--name", NAME))
        snapshots = _snapshots(region)
    except ConfigError as error:
        raise error_exit(error.message, code=2) from None
    try:
        _remove_existing(snapshots, name, replace=replace)
        _build(snapshots, name, recipe, (cpu, memory, disk), timeout)
    except PortFault as fault:
        raise error_exit(build_error(fault, name).message) from None
    except ProvisionError as error:
        raise error_exit(error.message) from None
    except KeyboardInterrupt:
        raise error_exit(
            f"interrupted. The build continues at Daytona: delete the snapshot {name} in its dashboard, or run this "
            "again with --replace"
        ) from None
    where = "general" if region is None else f"pinned to {region}"
    typer.echo(f'Snapshot {name} is active ({where}). Use it with {{"options": {{"snapshot": "{name}"}}}}.')


def _required(value: str | None, label: str, flag: str, variable: str) -> str:
    if value:
        return value
    raise ConfigError(
        f"no {label}: pass {flag}, or set the environment variable {variable}",
        code="snapshot_setting",
        op="snapshot",
    )


def _snapshots(region: str | None) -> Snapshots:
    config = SandboxConfig.from_env()
    key = config.require_api_key().get_secret_value()
    # Imported here to keep `--help` fast: the SDK takes a second to import.
    from langchain_daytona_ws._adapters.sdk import Account
    from langchain_daytona_ws._adapters.snapshots import Snapshots

    return Snapshots(Account(api_key=key, api_url=config.options.api_url, target=region))


def _remove_existing(snapshots: Snapshots, name: str, *, replace: bool) -> None:
    existing = snapshots.find(name)
    if existing is None:
        return
    if not replace:
        raise ProvisionError(
            f"The snapshot {name} exists already: {_described(existing)}. Nothing was built. Pass --replace to "
            "delete it and build it again, or another --name.",
            code="name_taken",
            op="snapshot",
        )
    typer.echo(f"Deleting the snapshot {name}: {_described(existing)}.", err=True)
    snapshots.delete(existing)


def _described(snapshot: SnapshotInfo) -> str:
    reason = f", {_clean(snapshot.error_reason)}" if snapshot.error_reason else ""
    return f"{snapshot.state}{reason}, made {snapshot.created_at}"


def _build(
    snapshots: Snapshots,
    name: str,
    recipe: Recipe,
    resources: tuple[int | None, int | None, int | None],
    timeout_s: int,
) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(f"building {name}", total=None)

        def show(chunk: str) -> None:
            if text := _clean(chunk):
                progress.console.print(Text(text), soft_wrap=True)

        snapshots.build(name, recipe.dockerfile(), resources=resources, on_log=show, timeout_s=timeout_s)


def _clean(text: str) -> str:
    """Return printable lines without terminal escapes."""
    plain = _ESCAPES.sub("", _SDK_STATE.sub(lambda state: state[1].lower(), text))
    lines = (line.rstrip() for line in plain.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return "\n".join("".join(c for c in line if c.isprintable() or c == "\t") for line in lines)
