"""Requests through one attachment, whose answers the test scripts, and the workspace of such an attachment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.guest_rpc.attachments import Attachment, GuestRequest
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.workspace import Mount, S3Workspace


def exchange(
    attachment: Attachment, request: GuestRequest, *answers: Mapping[str, object]
) -> tuple[Answer, list[GuestRequest]]:
    """Send a request through an attachment.

    Args:
        attachment: The attachment.
        request: The request without its part.
        answers: The guest's answers to the sent requests; the last answer is repeated. Default: an empty answer.

    Returns:
        The answer that the attachment returns, and the requests that it has sent.
    """
    left, sent = list(answers or [{}]), list[GuestRequest]()

    async def send(complete: GuestRequest) -> Answer:
        sent.append(complete)
        return dict(left.pop(0) if len(left) > 1 else left[0])

    return run_sync(attachment.send(send, request)), sent


def workspace_of(mode: Literal["mount", "sync"]) -> S3Workspace:
    """Return a workspace on Amazon S3 without skills, a role or keys."""
    return S3Workspace(
        region="us-east-1",
        endpoint=None,
        workspace=Mount("bucket", "ns/", "/mnt/workspaces/ns"),
        skills=None,
        kms_key_arn=None,
        role=None,
        keys=None,
        mode=mode,
    )
