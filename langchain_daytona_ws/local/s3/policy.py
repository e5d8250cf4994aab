"""Session policies: whether the one that came with AssumeRole allows a request."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any


class Policy:
    """A session policy. What it does not allow is denied, and so is what it denies.

    Read are Effect, Action, Resource, and in Condition the operators StringLike and StringEquals (also negated)
    for the key s3:prefix. A condition that is none of these is not met.
    """

    def __init__(self, text: str) -> None:
        statements = json.loads(text).get("Statement", [])
        self._statements: list[dict[str, Any]] = _listed(statements)

    def allows(self, action: str, resource: str, context: Mapping[str, str]) -> bool:
        matching = {one["Effect"] for one in self._statements if _applies(one, action, resource, context)}
        return matching == {"Allow"}


def _applies(statement: dict[str, Any], action: str, resource: str, context: Mapping[str, str]) -> bool:
    if not any(_like(one.lower(), action.lower()) for one in _listed(statement.get("Action", []))):
        return False
    if not any(_like(one, resource) for one in _listed(statement.get("Resource", []))):
        return False
    for operator, wanted in statement.get("Condition", {}).items():
        for key, patterns in wanted.items():
            if not _met(operator, _listed(patterns), context.get(key.lower())):
                return False
    return True


def _met(operator: str, patterns: Iterable[str], value: str | None) -> bool:
    negated = operator.startswith("StringNot")
    if value is None:
        return negated
    if operator in ("StringLike", "StringNotLike"):
        return any(_like(pattern, value) for pattern in patterns) != negated
    if operator in ("StringEquals", "StringNotEquals"):
        return (value in patterns) != negated
    return False


def _like(pattern: str, value: str) -> bool:
    # fnmatch also reads brackets, which policies take as they stand.
    escaped = pattern.replace("[", "[[]")
    return re.match(fnmatch.translate(escaped), value) is not None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
