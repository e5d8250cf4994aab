"""Choose the parameters that ``make test`` runs, and mark all other parameters of a test as `full`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest


def sample(parameters: Iterable[Any], *kept: Any) -> list[Any]:
    """Return the parameters for `pytest.mark.parametrize`, marked `full` unless they are in `kept`.

    Args:
        parameters: The values of one argument, or a mapping from the id of a parameter to its value. A tuple has the
            values of several arguments; a value that is itself a tuple must be in a tuple of one.
        kept: The values, or the ids, that ``make test`` runs.
    """
    by_id = (
        parameters.items() if isinstance(parameters, Mapping) else [(value, value) for value in parameters]
    )
    ids = {key for key, _ in by_id}
    assert set(kept) <= ids, set(kept) - ids
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            id=key if isinstance(key, str) else None,
            marks=() if key in kept else pytest.mark.full,
        )
        for key, value in by_id
    ]
