"""Calls that only synchronise: the rest of a long push, and the last push before a sandbox is deleted."""

from __future__ import annotations

from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.sync.report import SyncReport, read_report

CALL_S = 30.0
PUSH_LIMIT_S = 900.0


async def push(client: GuestClient, root: str) -> SyncReport:
    """Pull and push; wait until all files are in S3, for at most 15 minutes.

    Raises:
        WorkspaceError: As `GuestClient.call` raises.
    """
    return await finish_push(client, root, SyncReport(failure="pending"))


async def finish_push(client: GuestClient, root: str, report: SyncReport) -> SyncReport:
    """Wait for the end of a push that takes longer than a call; return the reports as one."""
    until = client.now() + PUSH_LIMIT_S
    while report.is_pending and client.now() < until:
        answer = await client.call("sync", {"root": root}, timeout_s=CALL_S)
        report = report.merged(read_report(answer) or SyncReport())
    return report
