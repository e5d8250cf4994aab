"""``cp``: copy files between this machine and a workspace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from langchain_daytona_ws.cli.configuration import (
    NAMESPACE,
    ConfigOption,
    JsonOption,
    NamespaceOption,
    read_configuration,
)
from langchain_daytona_ws.cli.exits import USAGE_ERROR, cleaning_up, error_exit
from langchain_daytona_ws.cli.output import print_json
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import ConfigError, WorkspaceError

if TYPE_CHECKING:
    from langchain_daytona_ws._core.transfers.models import OnProgress, TransferProgress, Transferred

WORKSPACE = "ws:"
NAME_CHARS = 40


def cp(
    source: Annotated[str, typer.Argument(help="File or directory, or ws:PATH in the workspace.")],
    target: Annotated[
        str,
        typer.Argument(
            help="The copy, ws:PATH or local. A path that ends with / is a directory to copy into."
        ),
    ],
    *,
    config: ConfigOption = None,
    namespace: NamespaceOption = NAMESPACE,
    as_json: JsonOption = False,
) -> None:
    """Copy a file or directory to a workspace, or from it: one of the two paths begins with `ws:`.

    An existing file is replaced only when its copy is complete; other files in an existing directory are kept. A
    symbolic link is copied as a file if it leads to a file inside the copied directory (in a workspace: inside the
    workspace). Other links and special files are skipped, and listed on standard error.
    """
    if source.startswith(WORKSPACE) == target.startswith(WORKSPACE):
        raise error_exit(
            "One of the two paths must begin with ws:, the workspace. A local file of such a name is ./ws:…",
            code=USAGE_ERROR,
        )
    try:
        settings = read_configuration(config)
        _need_kept_files(settings, to_workspace=target.startswith(WORKSPACE))
    except ConfigError as error:
        raise error_exit(error.message, code=USAGE_ERROR) from None
    with cleaning_up():
        try:
            copied = _copy(settings, namespace, source, target, is_silent=as_json)
        except WorkspaceError as error:
            raise error_exit(error.message) from None
    _report(copied, as_json=as_json)


def _need_kept_files(settings: SandboxConfig, *, to_workspace: bool) -> None:
    """Refuse a workspace whose files are deleted when this command ends."""
    if settings.persistent or settings.options.mount_aws_s3_buckets:
        return
    direction = "to" if to_workspace else "from"
    raise ConfigError(
        f"Nothing can be copied {direction} an ephemeral workspace: its sandbox is deleted when this command ends. Set "
        "persistent: true in the configuration, or use a workspace on S3.",
        code="ephemeral",
    )


def _copy(
    settings: SandboxConfig, namespace: str, source: str, target: str, *, is_silent: bool
) -> Transferred:
    # Imported here to keep `--help` fast: the session takes a second to import.
    from langchain_daytona_ws.session import WorkspaceSession

    with WorkspaceSession(settings, namespace=namespace) as session, _progress_bar(is_silent) as report:
        if target.startswith(WORKSPACE):
            return session.files.upload(source, target[len(WORKSPACE) :], on_progress=report)
        # If the target is an existing directory, copy into it, as `cp` does.
        into = f"{target}/" if os.path.isdir(target) and not target.endswith(("/", os.sep)) else target
        return session.files.download(source[len(WORKSPACE) :] or ".", into, on_progress=report)


@contextmanager
def _progress_bar(is_silent: bool) -> Iterator[OnProgress | None]:
    """Show a progress bar on standard error if it is a terminal."""
    console = Console(stderr=True)
    if is_silent or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(progress: TransferProgress) -> None:
            bar.update(
                task,
                description=_shown(progress.name),
                completed=progress.done_bytes,
                total=progress.total_bytes,
            )

        yield report


def _shown(name: str) -> str:
    """Return a name from a sandbox as short printable text without markup."""
    from rich.markup import escape

    from langchain_daytona_ws._core.paths import shown_name

    text = shown_name(name)
    return escape(text if len(text) <= NAME_CHARS else f"…{text[-NAME_CHARS:]}")


def _report(copied: Transferred, *, as_json: bool) -> None:
    from langchain_daytona_ws._core.paths import shown

    if as_json:
        files = [
            {"path": shown(file.path), "size_bytes": file.size_bytes, "sha256": file.sha256}
            for file in copied.files
        ]
        skipped = [{"path": shown(entry.path), "reason": entry.reason} for entry in copied.skipped]
        print_json({"files": files, "skipped": skipped})
        return
    for entry in copied.skipped:
        typer.echo(f"Left out ({entry.reason}): {shown(entry.path)}", err=True)
    typer.echo(f"{_counted(len(copied.files), 'file')}, {_counted(copied.size_bytes, 'byte')}")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
