"""Keys: their two spellings, the nearest known one, and the environment variable behind some."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from functools import cache
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from langchain_daytona_ws.config.problems import Location, path_of, quoted

ENV = "x-env"
"""The JSON Schema keyword (and the field's metadata) that names a setting's environment variable, or several."""


class JsonObject(dict[str, object]):
    """A parsed JSON object that remembers the keys that stood in it more than once."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.repeated = sorted({key for key in keys if keys.count(key) > 1}) if len(keys) > len(self) else []


@cache
def spellings(model: type[BaseModel]) -> dict[str, str]:
    """Map every accepted spelling of a key to the camelCase one."""
    known = {}
    for name, field in model.model_fields.items():
        alias = field.alias or name
        known[alias] = known[name] = alias
    return known


def fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield each camelCase key with its field."""
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def nested(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that holds an object of known keys."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def variables_of(field: FieldInfo) -> tuple[str, ...]:
    """Return the environment variables that stand in for a missing value, the first of them first."""
    extra = field.json_schema_extra
    named = extra.get(ENV) if isinstance(extra, dict) else None
    if isinstance(named, str):
        return (named,)
    return tuple(str(name) for name in named) if isinstance(named, list) else ()


def from_environment(field: FieldInfo) -> tuple[str, str] | None:
    """Read the field's environment variables now, an empty one counts as unset; return (variable, value)."""
    for variable in variables_of(field):
        value = os.environ.get(variable)
        if value:
            return variable, value
    return None


def unknown(root: type[BaseModel], outer: Location, at: Location) -> str:
    """Word an unknown key: the nearest known one, else the list of those that would be known there.

    Args:
        root: The model of the whole document.
        outer: Where that model's own object starts in the document (``("config",)`` in an envelope).
        at: The unknown key.
    """
    near = _nearest(root, at[len(outer) :])
    if near:
        return f"unknown key; did you mean {path_of((*outer, *near))}?"
    siblings = [path[-1] for path in _paths(root) if path[:-1] == at[len(outer) : -1]]
    return f"unknown key; the known ones here are {', '.join(siblings)}"


def _nearest(root: type[BaseModel], at: Location) -> tuple[str, ...] | None:
    wanted = _folded(str(at[-1]))
    paths = _paths(root)
    # The right word in the wrong object comes before a similar word in the right one.
    for path in paths:
        if _folded(path[-1]) == wanted:
            return path
    here = [path for path in paths if path[:-1] == at[:-1]]
    for candidates in (here, paths):
        by_word = {_folded(path[-1]): path for path in reversed(candidates)}
        close = difflib.get_close_matches(wanted, by_word, n=1, cutoff=0.7)
        if close:
            return by_word[close[0]]
    return None


@cache
def _paths(model: type[BaseModel]) -> tuple[tuple[str, ...], ...]:
    found: list[tuple[str, ...]] = []
    for key, field in fields(model):
        found.append((key,))
        inner = nested(field)
        if inner:
            found.extend((key, *path) for path in _paths(inner))
    return tuple(found)


def _folded(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()


def twice(one: str, other: str) -> str:
    """Word a key that is given under both of its spellings, or two times under one."""
    if one == other:
        return "is given more than once; keep one"
    return f"is given twice, as {quoted(one)} and as {quoted(other)}; keep one"
