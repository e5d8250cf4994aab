"""Encode an answer as JSON. Importing ``json`` takes 3 ms, its C encoder alone 0.3 ms; usual answers need neither."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Answer = dict[str, Any]


def encode(value: object) -> str:
    """Return JSON in ASCII, on one line.

    Raises:
        TypeError: A value is not a dict, list, tuple, str, int, float, bool or None.
        ValueError: A float is infinite or NaN.
    """
    return _flat(value) or _nested(value)


def _flat(value: object) -> str:
    """Return the JSON of a dictionary of simple values, such as the answer of a command; ``""`` for other values."""
    if type(value) is not dict:
        return ""
    fields = []
    for name, field in value.items():
        key, text = _simple(name), _simple(field)
        if type(name) is not str or not key or not text:
            return ""
        fields.append("%s: %s" % (key, text))
    return "{%s}" % ", ".join(fields)


def _simple(value: object) -> str:
    """Return the JSON of a constant, a number, printable ASCII text or a list of integers; ``""`` for other values."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is int or (type(value) is list and all(type(item) is int for item in value)):
        return str(value)
    if type(value) is str and value.isascii() and value.isprintable():
        return '"%s"' % value.replace("\\", "\\\\").replace('"', '\\"')
    if type(value) is float and abs(value) < 1e15:
        return repr(value)
    return ""


def _nested(value: object) -> str:
    try:
        from _json import encode_basestring_ascii, make_encoder

        # The arguments are those of json.JSONEncoder in Python 3.8 to 3.14.
        encoder = make_encoder(
            None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False
        )  # fmt: skip
    except (ImportError, TypeError):  # another interpreter or version
        import json

        return json.dumps(value, check_circular=False, allow_nan=False)
    return "".join(encoder(value, 0))


def _refuse(value: object) -> None:
    raise TypeError("no JSON for %s" % type(value).__name__)
