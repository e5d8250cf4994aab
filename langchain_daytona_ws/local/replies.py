"""Reads and writes JSON bodies."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .errors import ApiError


def json_reply(value: Any, status: int = 200) -> Response:
    # ASCII only: a lone surrogate, which a file name may hold, has no UTF-8 form.
    return Response(json.dumps(value), status, media_type="application/json")


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body, empty when there is none."""
    body = await request.body()
    if not body:
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # the latter for a hundred thousand brackets
        raise ApiError(400, "Bad Request: the body is not JSON") from None
    if not isinstance(value, dict):
        raise ApiError(400, "Bad Request: the body must be an object")
    return value
