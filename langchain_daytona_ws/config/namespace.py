"""Namespaces: a namespace is the name of a workspace, of its directory, and of its S3 prefix."""

from __future__ import annotations

import hashlib
import re

from langchain_daytona_ws.config.problems import FOR_MODEL, quoted
from langchain_daytona_ws.errors import ConfigError

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# Form of the namespaces that `namespace_of` derives.
_HASHED = re.compile(r".*--[0-9a-f]{40}")
_READABLE_CHARS = 40


def validate_namespace(value: str) -> str:
    """Return a namespace unchanged if it is valid.

    Args:
        value: One path segment: 1 to 128 characters of ``A-Z a-z 0-9 . _ -``, not starting with ``.`` or ``-``.

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


def namespace_of(key: str) -> str:
    """Return the namespace for any string (a key), such as a user's e-mail address.

    Two keys never have the same namespace, even if they differ only in upper and lower case. A key that is a valid
    namespace is returned unchanged, so that ``WorkspaceSession(namespace=key)`` finds the same workspace. Any other key
    is converted to some readable characters of the key (``key`` if there are none), ``--``, and 40 hexadecimal digits
    of the key's SHA-256. A valid namespace of this converted form is converted too.

    Args:
        key: Any string that is not empty.

    Raises:
        ConfigError: The key is empty, or is not a string.
    """
    if not isinstance(key, str) or not key:
        problem = (
            "must not be empty" if key == "" else f"must be a string, and is of type {type(key).__name__}"
        )
        raise ConfigError(
            f"the key of a workspace: {problem}.", code="key", op="validate", for_model=FOR_MODEL
        )
    if _SEGMENT.fullmatch(key) and not _HASHED.fullmatch(key):
        return key
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", key)[:_READABLE_CHARS].strip("-.") or "key"
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]
    return f"{readable}--{digest}"


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
