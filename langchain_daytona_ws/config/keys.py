"""Configuration keys: their spellings, their environment variables, and error texts for unknown and repeated keys."""

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
"""Keyword in the JSON Schema, and so in a field's metadata, for the setting's environment variable or variables."""


class JsonObject(dict[str, object]):
    """A parsed JSON object; ``repeated`` lists the keys that occur more than once in its text."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.repeated = sorted({key for key in keys if keys.count(key) > 1}) if len(keys) > len(self) else []


@cache
def spellings(model: type[BaseModel]) -> dict[str, str]:
    """Return a dictionary from each accepted spelling of a key to its camelCase spelling."""
    known = {}
    for name, field in model.model_fields.items():
        alias = field.alias or name
        known[alias] = known[name] = alias
    return known


def fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def nested(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that contains another model; None for other fields."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def variables_of(field: FieldInfo) -> tuple[str, ...]:
    """Return the environment variables of a field, the preferred variable first."""
    extra = field.json_schema_extra
    named = extra.get(ENV) if isinstance(extra, dict) else None
    if isinstance(named, str):
        return (named,)
    return tuple(str(name) for name in named) if isinstance(named, list) else ()


def from_environment(field: FieldInfo) -> tuple[str, str] | None:
    """Return (variable, value) of the field's first environment variable that is not empty, or None."""
    for variable in variables_of(field):
        value = os.environ.get(variable)
        if value:
            return variable, value
    return None


def unknown_key_text(root: type[BaseModel], outer: Location, at: Location) -> str:
    """Return the problem text for an unknown key. It suggests the most similar key, or lists the object's known keys.

    Args:
        root: The model of the whole document.
        outer: Location of the model's object in the document (``("config",)`` in an envelope).
        at: Location of the unknown key.
    """
    similar = _most_similar(root, at[len(outer) :])
    if similar:
        return f"unknown key; did you mean {path_of((*outer, *similar))}?"
    known = [path[-1] for path in _paths(root) if path[:-1] == at[len(outer) : -1]]
    return f"unknown key; known keys here: {', '.join(known)}"


def _most_similar(root: type[BaseModel], at: Location) -> tuple[str, ...] | None:
    wanted = _folded(str(at[-1]))
    paths = _paths(root)
    # Prefer the same key in another object to a similar key in this object.
    for path in paths:
        if _folded(path[-1]) == wanted:
            return path
    same_object = [path for path in paths if path[:-1] == at[:-1]]
    for candidates in (same_object, paths):
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


def repeated_key_text(first: str, second: str) -> str:
    """Return the problem text for a key that occurs twice, in the same spelling or in two different spellings."""
    if first == second:
        return "occurs more than once; keep one occurrence"
    return f"occurs twice, as {quoted(first)} and as {quoted(second)}; keep one occurrence"
