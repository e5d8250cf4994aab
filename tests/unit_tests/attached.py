"""Requests through one attachment, whose answers the test scripts."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.guest_rpc.attachments import Attachment, GuestRequest
from langchain_daytona_ws._core.run_sync import run_sync


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
