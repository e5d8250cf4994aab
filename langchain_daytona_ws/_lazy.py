"""Modules that are imported on first use. `typing.get_type_hints` can evaluate annotations that refer to them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class LazyModule:
    """A module that is imported when one of its names is first used.

    For type checkers, also import the module itself under the same name in an ``if TYPE_CHECKING`` block.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value
