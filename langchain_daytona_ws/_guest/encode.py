"""Encode an answer as JSON. Importing ``json`` costs 3 ms a call; the C encoder that it uses costs nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Answer = dict[str, Any]


def encode(value: object) -> str:
    """Return JSON in ASCII, on one line.

    Raises:
        TypeError: A value is not a dict, list, tuple, str, int, float, bool or None.
        ValueError: A number is infinite or not a number.
    """
    try:
        from _json import encode_basestring_ascii, make_encoder

        # As json.JSONEncoder calls it, in Python 3.8 to 3.14.
        encoder = make_encoder(
            None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False
        )  # fmt: skip
    except (ImportError, TypeError):  # another interpreter or version
        import json

        return json.dumps(value, check_circular=False, allow_nan=False)
    return "".join(encoder(value, 0))


def _refuse(value: object) -> None:
    raise TypeError("no JSON for %s" % type(value).__name__)
