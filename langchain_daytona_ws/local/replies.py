"""Reads and writes JSON bodies of requests and answers."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .errors import ApiError


def json_reply(value: Any, status: int = 200) -> Response:
    # ASCII only: a file name may contain a lone surrogate, which UTF-8 cannot encode.
    return Response(json.dumps(value), status, media_type="application/json")


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body; an empty object for an empty body."""
    body = await request.body()
    if not body:
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # RecursionError: a hundred thousand brackets
        raise ApiError(400, "Bad Request: the body is not JSON") from None
    if not isinstance(value, dict):
        raise ApiError(400, "Bad Request: the body must be an object")
    return value
