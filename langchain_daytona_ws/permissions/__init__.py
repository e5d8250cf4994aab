"""Permissions: which actions need approval, the request, the approver's answer, and remembered approvals."""

from langchain_daytona_ws.config import PermissionMode
from langchain_daytona_ws.permissions.decision import AnswerUnusable, Approver, PermissionDecision, Scope
from langchain_daytona_ws.permissions.remembered import RememberedApprovals
from langchain_daytona_ws.permissions.request import (
    CalledTool,
    PermissionRequest,
    argument_text,
    frozen_arguments,
    json_text,
    plain_arguments,
)
from langchain_daytona_ws.permissions.table import ASKS, needs_approval

__all__ = [
    "ASKS",
    "AnswerUnusable",
    "Approver",
    "CalledTool",
    "PermissionDecision",
    "PermissionMode",
    "PermissionRequest",
    "RememberedApprovals",
    "Scope",
    "argument_text",
    "frozen_arguments",
    "json_text",
    "needs_approval",
    "plain_arguments",
]
