"""Raise `PermissionDenied`, with one text for the engineer and one for the model."""

from __future__ import annotations

import logging
from typing import NoReturn

from langchain_daytona_ws.errors import PermissionDenied
from langchain_daytona_ws.permissions import PermissionRequest, legible

_log = logging.getLogger("langchain_daytona_ws")

_DO_NOT_RETRY = "Do not retry it; ask the user or continue without it."


def deny(
    request: PermissionRequest,
    code: str,
    message: str,
    for_model: str,
    *,
    cause: BaseException | None = None,
) -> NoReturn:
    """Deny a call.

    Args:
        request: The call.
        code: Code of the error.
        message: Reason and remedies, for the engineer.
        for_model: Reason, for the model; "do not retry" is added.
        cause: The exception that caused the denial, if any.

    Raises:
        PermissionDenied: Always.
    """
    action = f"{request.tool} {legible.one_line(request.action, 60)}"
    raise PermissionDenied(
        f"{action}: {message}",
        code=code,
        op="approve",
        context={
            "tool": request.tool,
            "action": request.action,
            "namespace": request.namespace,
            "tool_call_id": request.tool_call_id,
        },
        for_model=f"{for_model} {_DO_NOT_RETRY}",
    ) from cause


def deny_malformed(
    request: PermissionRequest,
    message: str,
    for_model: str = "The user's approval could not be asked for, so it was not done.",
    *,
    cause: BaseException | None = None,
) -> NoReturn:
    """Log why the approver's answer can't be used, and deny the call; the model does not get the reason."""
    _log.warning("%s: denied", message)
    deny(request, "malformed_answer", message, for_model, cause=cause)
