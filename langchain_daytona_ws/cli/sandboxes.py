"""``sandboxes``: this library's sandboxes in an account; list them, delete one, delete the old ones."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_daytona_ws._core.housekeeping import age_s, prunable
from langchain_daytona_ws.cli.configuration import ConfigOption, JsonOption, read_configuration
from langchain_daytona_ws.cli.exits import WRONG_CALL, ended
from langchain_daytona_ws.cli.output import print_json, print_table
from langchain_daytona_ws.errors import ConfigError, WorkspaceError

if TYPE_CHECKING:
    from langchain_daytona_ws._core.housekeeping import SandboxSummary
    from langchain_daytona_ws._session.account import AccountSandboxes

COLUMNS = ("name", "namespace", "state", "lifetime", "age", "last used", "auto-stop", "auto-delete")
_SPANS = ((24 * 3600, "d"), (3600, "h"), (60, "min"), (1, "s"))

sandboxes = typer.Typer(
    name="sandboxes",
    no_args_is_help=True,
    help="List and delete this library's sandboxes in the account of DAYTONA_API_KEY, or of --config.",
)

OneNamespaceOption = Annotated[
    str | None, typer.Option("--namespace", help="Only those of this workspace. Default: of all.")
]


@sandboxes.command("list")
def list_sandboxes(
    *,
    namespace: OneNamespaceOption = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", help="Those of all workspaces, as without --namespace.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List this library's sandboxes, oldest first."""
    if namespace is not None and all_namespaces:
        raise ended("give --namespace or --all-namespaces, not both", code=WRONG_CALL)
    with _worded():
        found = _account(config).all(namespace)
    _show(found, as_json=as_json)


@sandboxes.command()
def release(
    name: Annotated[str, typer.Argument(help="Name or id of the sandbox.")],
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete one sandbox, and return when it is gone. What is on its own disk goes with it; files on S3 stay."""
    with _worded():
        account = _account(config)
        found = account.find(name)
        if found is None or found.state == "destroyed":
            raise ended(f"there is no sandbox {name}; see `langchain-daytona-ws sandboxes list`")
        if not found.is_ours:
            raise ended(
                f"the sandbox {found.name} ({found.id}) was not made by this library: it has no label "
                "managed-by=langchain-daytona-ws. Delete it in the Daytona dashboard if it is to go"
            )
        account.remove(found)
    if as_json:
        print_json({"released": _told(found)})
    else:
        typer.echo(f"Deleted {found.name}.")


@sandboxes.command()
def prune(
    *,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Not used for so long: 90s, 30m, 12h, 7d, 2w.")
    ],
    namespace: OneNamespaceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show them, and delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete the sandboxes that have not been used for so long; what is on their own disks goes with them.

    One that runs is left alone until its auto-stop is due, since a background job may be at work in it.
    """
    limit_s = age_s(older_than)
    if limit_s is None:
        raise ended(f"--older-than: {older_than!r} is no age; give one such as 12h or 7d", code=WRONG_CALL)
    if as_json and not (yes or dry_run):
        raise ended("--json asks nothing: give --yes or --dry-run with it", code=WRONG_CALL)
    with _worded():
        account = _account(config)
        old = prunable(account.all(namespace), now=time.time(), older_than_s=limit_s)
    if dry_run or not as_json:
        _show(old, as_json=as_json, dry_run=True)
    if dry_run or (not old and not as_json):
        return
    if not yes and not typer.confirm(f"Delete {len(old)}?", err=True):
        raise ended("nothing was deleted")
    deleted, failures = _removed(account, old, limit_s)
    if as_json:
        failed = [{**_told(one), "error": message} for one, message in failures]
        print_json({"deleted": [_told(one) for one in deleted], "failed": failed})
    else:
        typer.echo(f"Deleted {len(deleted)} of {len(old)}.")
    if failures:
        raise ended("\n".join(message for _, message in failures))


def _removed(
    account: AccountSandboxes, old: Iterable[SandboxSummary], limit_s: float
) -> tuple[list[SandboxSummary], list[tuple[SandboxSummary, str]]]:
    """Delete those that are still old; return the deleted ones, and with why those that could not be."""
    deleted, failures = [], []
    for one in old:
        try:
            # Somebody may have come to use it while the question stood.
            now = account.find(one.id)
            if now is None or not prunable([now], now=time.time(), older_than_s=limit_s):
                continue
            account.remove(now)
            deleted.append(one)
        except WorkspaceError as error:
            failures.append((one, error.message))
    return deleted, failures


def _account(source: str | None) -> AccountSandboxes:
    # Here, for the SDK takes a second to import, which `--help` need not pay.
    from langchain_daytona_ws._session.account import AccountSandboxes

    return AccountSandboxes(read_configuration(source))


@contextmanager
def _worded() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ended(error.message, code=WRONG_CALL) from None
    except WorkspaceError as error:
        raise ended(error.message) from None


def _show(found: list[SandboxSummary], *, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        print_json({"would_delete" if dry_run else "sandboxes": [_told(one) for one in found]})
    elif found:
        now = time.time()
        print_table(COLUMNS, (_row(one, now) for one in found))
    else:
        typer.echo("There are none.")


def _told(one: SandboxSummary) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "namespace": one.labels.get("namespace"),
        "state": one.state,
        "lifetime": one.labels.get("lifetime"),
        "created_at": _stamp(one.created_at),
        "last_activity_at": _stamp(one.last_activity_at),
        "auto_stop_minutes": one.auto_stop_minutes,
        "auto_delete_minutes": one.auto_delete_minutes,
    }


def _row(one: SandboxSummary, now: float) -> tuple[str, ...]:
    return (
        one.name,
        one.labels.get("namespace", ""),
        one.state,
        one.labels.get("lifetime", ""),
        _span(one.created_at, now),
        _span(one.last_activity_at, now, " ago"),
        _interval(one.auto_stop_minutes, off="never", none=0),
        _interval(one.auto_delete_minutes, off="never", none=-1, at_once="when stopped"),
    )


def _stamp(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(moment: float | None, now: float, after: str = "") -> str:
    if moment is None:
        return ""
    passed_s = max(now - moment, 0.0)
    for unit_s, unit in _SPANS:
        if passed_s >= 2 * unit_s or unit == "s":
            return f"{passed_s / unit_s:.0f} {unit}{after}"
    raise AssertionError("the last unit fits always")


def _interval(minutes: float | None, *, off: str, none: int, at_once: str = "") -> str:
    if minutes is None:
        return ""
    if minutes == none or minutes < 0:
        return off
    if minutes == 0:
        return at_once
    return f"{minutes:.0f} min"
