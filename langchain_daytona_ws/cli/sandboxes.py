"""``sandboxes``: list and delete the sandboxes of this library in an account, or save their files to S3."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_daytona_ws._core.sandbox.inventory import age_s, never_stopping, prunable
from langchain_daytona_ws.cli.configuration import ConfigOption, JsonOption, read_configuration
from langchain_daytona_ws.cli.exits import USAGE_ERROR, cleaning_up, error_exit
from langchain_daytona_ws.cli.output import print_json, print_table, printable
from langchain_daytona_ws.errors import ConfigError, WorkspaceError

if TYPE_CHECKING:
    from langchain_daytona_ws._core.sandbox.inventory import SandboxSummary
    from langchain_daytona_ws._session.account import AccountSandboxes
    from langchain_daytona_ws.config import SandboxConfig

COLUMNS = (
    "name", "namespace", "state", "lifetime", "age", "last used", "auto-stop", "auto-delete", "size", "user", "labels",
)  # fmt: skip
_UNITS = ((24 * 3600, "d"), (3600, "h"), (60, "min"), (1, "s"))

sandboxes = typer.Typer(
    name="sandboxes",
    no_args_is_help=True,
    help="List and delete this library's sandboxes in the account of DAYTONA_API_KEY or --config.",
)

OptionalNamespaceOption = Annotated[
    str | None, typer.Option("--namespace", help="Only sandboxes of this workspace. Default: all workspaces.")
]


@sandboxes.command("list")
def list_sandboxes(
    *,
    namespace: OptionalNamespaceOption = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", help="Sandboxes of all workspaces, as without --namespace.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List this library's sandboxes, oldest first."""
    if namespace is not None and all_namespaces:
        raise error_exit("use --namespace or --all-namespaces, not both", code=USAGE_ERROR)
    with _errors_as_exits():
        found = _account(read_configuration(config)).all(namespace)
    _show(found, as_json=as_json)


@sandboxes.command()
def release(
    name: Annotated[str, typer.Argument(help="Name or id of the sandbox.")],
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete one sandbox with its disk, and wait until it is deleted; files on S3 are kept."""
    with _errors_as_exits():
        account = _account(read_configuration(config))
        found = _find(account, name)
        account.remove(found)
    if as_json:
        print_json({"released": _as_json(found)})
    else:
        typer.echo(f"Deleted {found.name}.")


@sandboxes.command()
def recover(
    name: Annotated[str, typer.Argument(help="Name or id of the sandbox.")],
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Save to S3 the files that are only on a sandbox's disk (s3Mode: sync); needs the configuration of its session.

    A stopped sandbox is started. An ephemeral sandbox is deleted if all files are in S3 and no session uses it.
    """
    from langchain_daytona_ws._core.ports import SandboxInfo
    from langchain_daytona_ws.session import WorkspaceSession

    with _errors_as_exits():
        settings = read_configuration(config)
        account = _account(settings)
        found = _find(account, name)
        account.check_recoverable(found)
        info = SandboxInfo(found.id, found.name, found.state, found.organization_id, found.labels)
        with cleaning_up(), WorkspaceSession(settings, namespace=found.labels["namespace"]) as session:
            report = session._state.sandboxes.recover(info, deletes=found.is_kept)
    if report is None:
        raise error_exit(f"there is no sandbox {name} any more; see `langchain-daytona-ws sandboxes list`")
    if as_json:
        print_json({"recovered": _as_json(found), "sync": asdict(report), "deleted": found.is_kept})
        return
    for notice in report.notices:
        typer.echo(f"[{printable(notice)}]", err=True)
    typer.echo(f"Saved {report.pushed:,} files of {found.name} in S3, deleted {report.deleted:,} there.")
    if found.is_kept:
        typer.echo(f"Deleted {found.name}.")


@sandboxes.command()
def prune(
    *,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Time without use: 90s, 30m, 12h, 7d, 2w.")
    ],
    namespace: OptionalNamespaceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the sandboxes; delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete sandboxes, with their disks, that were not used for the time --older-than.

    A running sandbox is kept until its auto-stop is due, because a background job may run in it. Without auto-stop, it
    is kept and named; `release` deletes it.
    """
    limit_s = age_s(older_than)
    if limit_s is None:
        raise error_exit(f"--older-than: {older_than!r} is not a time; example: 12h or 7d", code=USAGE_ERROR)
    if as_json and not (yes or dry_run):
        raise error_exit("--json can't ask: add --yes or --dry-run", code=USAGE_ERROR)
    with _errors_as_exits():
        account = _account(read_configuration(config))
        found = account.all(namespace)
    now = time.time()
    old = prunable(found, now=now, older_than_s=limit_s)
    if kept := never_stopping(found, now=now, older_than_s=limit_s):
        names = ", ".join(sandbox.name for sandbox in kept)
        typer.echo(
            f"Kept, because they run without auto-stop and may be in use: {names}. Each can be deleted with "
            "`langchain-daytona-ws sandboxes release NAME`.",
            err=True,
        )
    if dry_run or not as_json:
        _show(old, as_json=as_json, dry_run=True)
    if dry_run or (not old and not as_json):
        return
    if not yes and not typer.confirm(f"Delete {len(old)}?", err=True):
        raise error_exit("nothing was deleted")
    deleted, failures = _remove(account, old, limit_s)
    if as_json:
        failed = [{**_as_json(sandbox), "error": message} for sandbox, message in failures]
        print_json({"deleted": [_as_json(sandbox) for sandbox in deleted], "failed": failed})
    else:
        typer.echo(f"Deleted {len(deleted)} of {len(old)}.")
    if failures:
        raise error_exit("\n".join(message for _, message in failures))


def _remove(
    account: AccountSandboxes, old: Iterable[SandboxSummary], limit_s: float
) -> tuple[list[SandboxSummary], list[tuple[SandboxSummary, str]]]:
    """Delete the sandboxes that are still unused; return the deleted sandboxes, and the failed ones with the error."""
    deleted, failures = [], []
    for sandbox in old:
        try:
            # A session may have used the sandbox during the confirmation.
            current = account.find(sandbox.id)
            if current is None or not prunable([current], now=time.time(), older_than_s=limit_s):
                continue
            account.remove(current)
            deleted.append(sandbox)
        except WorkspaceError as error:
            failures.append((sandbox, error.message))
    return deleted, failures


def _account(config: SandboxConfig) -> AccountSandboxes:
    # Imported here to keep `--help` fast: the SDK takes a second to import.
    from langchain_daytona_ws._session.account import AccountSandboxes

    return AccountSandboxes(config)


def _find(account: AccountSandboxes, name: str) -> SandboxSummary:
    """Return a sandbox that this library created; exit with an error if there is no such sandbox."""
    found = account.find(name)
    if found is None or found.state == "destroyed":
        raise error_exit(f"there is no sandbox {name}; see `langchain-daytona-ws sandboxes list`")
    if not found.is_ours:
        raise error_exit(
            f"the sandbox {found.name} ({found.id}) was not made by this library: it has no label "
            "managed-by=langchain-daytona-ws. Use the Daytona dashboard for it"
        )
    return found


@contextmanager
def _errors_as_exits() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise error_exit(error.message, code=USAGE_ERROR) from None
    except WorkspaceError as error:
        raise error_exit(error.message) from None


def _show(found: list[SandboxSummary], *, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        print_json({"would_delete" if dry_run else "sandboxes": [_as_json(sandbox) for sandbox in found]})
    elif found:
        now = time.time()
        print_table(COLUMNS, (_row(sandbox, now) for sandbox in found))
    else:
        typer.echo("There are no sandboxes.")


def _as_json(sandbox: SandboxSummary) -> dict[str, Any]:
    return {
        "id": sandbox.id,
        "name": sandbox.name,
        "namespace": sandbox.labels.get("namespace"),
        "state": sandbox.state,
        "lifetime": sandbox.labels.get("lifetime"),
        "created_at": _timestamp(sandbox.created_at),
        "last_activity_at": _timestamp(sandbox.last_activity_at),
        "auto_stop_minutes": sandbox.auto_stop_minutes,
        "auto_delete_minutes": sandbox.auto_delete_minutes,
        "cpu": sandbox.cpu,
        "memory_gib": sandbox.memory_gib,
        "disk_gib": sandbox.disk_gib,
        "user": sandbox.user,
        "labels": sandbox.own_labels,
    }


def _row(sandbox: SandboxSummary, now: float) -> tuple[str, ...]:
    return (
        sandbox.name,
        sandbox.labels.get("namespace", ""),
        sandbox.state,
        sandbox.labels.get("lifetime", ""),
        _age(sandbox.created_at, now),
        _age(sandbox.last_activity_at, now, " ago"),
        _interval(sandbox.auto_stop_minutes, never=0),
        _interval(sandbox.auto_delete_minutes, never=-1, at_once="when stopped"),
        _size(sandbox),
        sandbox.user,
        ", ".join(f"{name}={value}" for name, value in sorted(sandbox.own_labels.items())),
    )


def _size(sandbox: SandboxSummary) -> str:
    """Return CPU cores, memory and disk, such as ``1 CPU, 1+3 GiB``."""
    if sandbox.cpu is None or sandbox.memory_gib is None or sandbox.disk_gib is None:
        return ""
    return f"{sandbox.cpu:g} CPU, {sandbox.memory_gib:g}+{sandbox.disk_gib:g} GiB"


def _timestamp(time_s: float | None) -> str | None:
    if time_s is None:
        return None
    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _age(time_s: float | None, now: float, suffix: str = "") -> str:
    if time_s is None:
        return ""
    age_in_s = max(now - time_s, 0.0)
    for unit_s, unit in _UNITS:
        if age_in_s >= 2 * unit_s or unit == "s":
            return f"{age_in_s / unit_s:.0f} {unit}{suffix}"
    raise AssertionError("seconds match every age")


def _interval(minutes: float | None, *, never: int, at_once: str = "") -> str:
    if minutes is None:
        return ""
    if minutes == never or minutes < 0:
        return "never"
    if minutes == 0:
        return at_once
    return f"{minutes:.0f} min"
