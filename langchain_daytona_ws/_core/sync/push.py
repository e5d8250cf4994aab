"""Pushes outside of a command: to finish a long push, to repeat a failed push, and before a sandbox is deleted."""

from __future__ import annotations

from dataclasses import replace

from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.guest_rpc.errors import LOST_WHILE_RUNNING
from langchain_daytona_ws._core.ports import SandboxInfo
from langchain_daytona_ws._core.sync.report import (
    LOST,
    NO_ANSWER,
    PENDING,
    SyncReport,
    read_report,
    read_time,
)
from langchain_daytona_ws.errors import SandboxUnavailable, UnpushedFiles, WorkspaceError

CALL_S = 30.0
PUSH_LIMIT_S = 900.0
# Failures after which a new resident with new credentials may succeed at once.
_REPEATED = ("absent", "unreadable", "expired", "denied", "signature")


async def push(client: GuestClient, root: str, *, limit_s: float = PUSH_LIMIT_S) -> SyncReport:
    """Push all changed files to S3 without a pull. Wait up to ``limit_s`` seconds for the end, and return the report.

    A failure is not raised: it is in the report.
    """
    return await finish_push(client, root, SyncReport(failure=PENDING, unpushed_count=-1), limit_s=limit_s)


async def finish_push(
    client: GuestClient,
    root: str,
    report: SyncReport,
    *,
    asked: float = 0.0,
    limit_s: float = PUSH_LIMIT_S,
) -> SyncReport:
    """Wait for the end of a push that continues after its call. If the push fails, repeat it once if that may help.

    A failure is not raised, because the call itself has run: the failure is in the report.

    Args:
        client: Sends to the sandbox.
        root: The workspace directory.
        report: The report in the call's answer.
        asked: The call's ``asked`` in the same answer, see `read_time`.
        limit_s: Maximum wait, in seconds.

    Returns:
        The call's ``report``, merged with the later reports. If the push has not ended after ``limit_s`` seconds, the
        failure in the report is ``"pending"``.
    """
    until, may_repeat = client.now() + limit_s, True
    while client.now() < until:
        if not report.is_pending:
            if not (may_repeat and report.failure in _REPEATED):
                break
            may_repeat = False
        try:
            fields: dict[str, object] = {"root": root, "pulls": False}
            # Wait for the push of the pending report: a new push might not end within a request either.
            if report.is_pending and asked:
                fields["asked"] = asked
            answer, _ = await client.call("sync", fields, timeout_s=CALL_S, within_s=until - client.now())
        except WorkspaceError as error:
            return _failed(report, error)
        report, asked = report.merged(read_report(answer.get("sync"))), read_time(answer.get("asked"))
    return report


def _failed(report: SyncReport, error: WorkspaceError) -> SyncReport:
    if error.code == LOST_WHILE_RUNNING:
        failure = LOST
    else:
        failure = error.code.removeprefix("sync_") if error.code.startswith("sync_") else NO_ANSWER
    count = report.unpushed_count or -1
    return replace(report, failure=failure, detail=error.message, unpushed_count=count)


def unpushed_error(info: SandboxInfo, report: SyncReport, *, fate: str, for_model: str) -> UnpushedFiles:
    """Return the error for a sandbox that was not deleted, because some of its files are not in S3.

    ``fate`` is a sentence that explains when the sandbox will stop or be deleted.
    """
    command = f"langchain-daytona-ws sandboxes recover {info.name}"
    return UnpushedFiles(
        f"The sandbox {info.name} ({info.id}) was not deleted, since {report.unpushed_text} only on its disk, and not "
        f"in S3: {report.cause}{f' ({report.detail})' if report.detail else ''}. {fate} To save the files, close the "
        f"session again, or run `{command}` with this configuration (--config). To delete the sandbox with these "
        "files, pass discard_unpushed=True.",
        op="close",
        retryable=True,
        context={
            "sandbox_id": info.id,
            "sandbox_name": info.name,
            "files": list(report.unpushed),
            "count": report.unpushed_count,
            "cause": report.failure,
        },
        for_model=for_model,
    )


class OneSandbox:
    """The `SandboxRecord` of a client that uses one existing sandbox, and never creates or replaces a sandbox.

    ``is_persistent``: the sandbox still exists, with its disk, after a stop.
    """

    starts = 0  # restarts are not counted

    def __init__(self, info: SandboxInfo, *, is_persistent: bool) -> None:
        self.is_persistent = is_persistent
        self._info = info
        self._error: WorkspaceError | None = None

    async def acquire(self) -> SandboxInfo:
        """Return the sandbox; raise `SandboxUnavailable` if it is gone or does not run."""
        if self._error is not None:
            raise self._error
        return self._info

    def record_loss(self, info: SandboxInfo) -> None:
        self._error = SandboxUnavailable(f"The sandbox {info.id} is gone.", code=LOST_WHILE_RUNNING)

    def record_failure(self, info: SandboxInfo) -> None:
        self._error = SandboxUnavailable(f"The sandbox {info.id} exists, but does not run.", code="unusable")

    def record_restart(self, since: int) -> None:
        """Do nothing."""
