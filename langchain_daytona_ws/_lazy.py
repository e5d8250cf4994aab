"""Modules that are imported on first use. Annotations that refer to them work with `typing.get_type_hints`."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class LazyModule:
    """A module that is imported when one of its names is first used.

    For type checkers, import the module under the same name in a block ``if TYPE_CHECKING``.

    Args:
        name: Full name of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value
