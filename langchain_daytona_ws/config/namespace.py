"""Validate the namespace: the name of a workspace's directory and S3 prefix."""

from __future__ import annotations

import re

from langchain_daytona_ws.config.problems import FOR_MODEL, quoted
from langchain_daytona_ws.errors import ConfigError

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def validate_namespace(value: str) -> str:
    """Return a valid namespace unchanged.

    Args:
        value: One path segment: 1 to 128 of ``A-Z a-z 0-9 . _ -``, not starting with ``.`` or ``-``.

    Raises:
        ConfigError: The value is invalid, or is not a string.
    """
    # fullmatch: "$" also matches before a final newline.
    if isinstance(value, str) and _SEGMENT.fullmatch(value):
        return value
    raise ConfigError(
        f"namespace: {_problem(value)}. Use one segment of 1 to 128 letters, digits, '.', '_' and '-', "
        'not starting with "." or "-", such as "team-a_project.1".',
        code="namespace",
        op="validate",
        for_model=FOR_MODEL,
    )


def _problem(value: object) -> str:
    if not isinstance(value, str):
        return f"must be a string, and is of type {type(value).__name__}"
    if not value:
        return "must not be empty"
    if "/" in value:
        return (
            f'{quoted(value)} contains "/", which is refused because credentials for a parent prefix would also allow '
            "access to the workspaces below it"
        )
    if value[0] in ".-":
        return f'{quoted(value)} starts with "{value[0]}"'
    if len(value) > 128:
        return f"is {len(value)} characters long"
    return f"{quoted(value)} contains a character that is not allowed"
