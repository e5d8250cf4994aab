"""Checks requests against the session policy of AssumeRole."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any


class Policy:
    """A session policy. A request is allowed if a statement allows it and no statement denies it.

    Supports Effect, Action, Resource, and Condition with the operators StringLike, StringEquals, StringNotLike and
    StringNotEquals for the key s3:prefix. All other keys count as missing from the request. A condition on a missing
    key is met only if its operator begins with StringNot. If the key is present, unsupported operators are not met.

    Raises:
        AttributeError: the text is not a JSON object.
        ValueError: the text is not JSON.
    """

    def __init__(self, text: str) -> None:
        statements = json.loads(text).get("Statement", [])
        self._statements: list[dict[str, Any]] = _as_list(statements)

    def allows(self, action: str, resource: str, context: Mapping[str, str]) -> bool:
        effects = {
            statement["Effect"]
            for statement in self._statements
            if _applies(statement, action, resource, context)
        }
        return effects == {"Allow"}


def _applies(statement: dict[str, Any], action: str, resource: str, context: Mapping[str, str]) -> bool:
    if not any(
        _matches(pattern.lower(), action.lower()) for pattern in _as_list(statement.get("Action", []))
    ):
        return False
    if not any(_matches(pattern, resource) for pattern in _as_list(statement.get("Resource", []))):
        return False
    for operator, conditions in statement.get("Condition", {}).items():
        for key, patterns in conditions.items():
            if not _is_met(operator, _as_list(patterns), context.get(key.lower())):
                return False
    return True


def _is_met(operator: str, patterns: Iterable[str], value: str | None) -> bool:
    negated = operator.startswith("StringNot")
    if value is None:
        return negated
    if operator in ("StringLike", "StringNotLike"):
        return any(_matches(pattern, value) for pattern in patterns) != negated
    if operator in ("StringEquals", "StringNotEquals"):
        return (value in patterns) != negated
    return False


def _matches(pattern: str, value: str) -> bool:
    # fnmatch interprets brackets; in policies they are literal.
    escaped = pattern.replace("[", "[[]")
    return re.match(fnmatch.translate(escaped), value) is not None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
