"""Translate every exception of the SDK into PortFault: by its type and HTTP status, if necessary by its text."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Callable, Coroutine, Iterator
from email.utils import parsedate_to_datetime
from math import isnan
from time import time
from traceback import walk_tb
from typing import Any, ParamSpec, TypeVar

import aiohttp
import httpx
import urllib3.exceptions
from daytona import DaytonaConnectionError, DaytonaError, DaytonaTimeoutError

from langchain_daytona_ws._core.ports import FaultKind, PortFault
from langchain_daytona_ws.errors import ConfigError

P = ParamSpec("P")
T = TypeVar("T")

_NOT_SENT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    # A proxy that refuses a request does not forward it.
    aiohttp.ClientHttpProxyError,
    urllib3.exceptions.ProxyError,
    httpx.ProxyError,
    httpx.ConnectError,
    httpx.ConnectTimeout,
)
# A request is sent after the handshake of TLS. urllib3 raises the same error for a failure before and after it.
_HANDSHAKES = {ssl.SSLSocket.do_handshake.__code__, ssl.SSLObject.do_handshake.__code__}
_TRANSPORT = (urllib3.exceptions.HTTPError, aiohttp.ClientError, httpx.HTTPError, OSError)
_TRANSLATED = (DaytonaError, *_TRANSPORT, ValueError, TypeError, AttributeError, LookupError)
_BY_STATUS = {
    401: FaultKind.UNAUTHORIZED,
    403: FaultKind.FORBIDDEN,
    404: FaultKind.NOT_FOUND,
    408: FaultKind.DROPPED,  # the daemon killed the command and discarded its output
    410: FaultKind.NOT_FOUND,
    429: FaultKind.THROTTLED,
    500: FaultKind.DROPPED,
    502: FaultKind.DROPPED,
    503: FaultKind.UNAVAILABLE,
    504: FaultKind.DROPPED,
}
# The daemon answers 500 for a file that cannot be opened; the same request would fail again.
_FINAL_CODES = {"FILE_READ_FAILED"}
MESSAGE_LIMIT = 500


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise PortFault for every failure of the SDK in the block.

    The SDK's error is not chained: some loggers show the variables of its frames, such as the API key and the request.
    """
    try:
        yield
    except ConfigError:  # also a ValueError, but not the SDK's
        raise
    except _TRANSLATED as error:
        raise _translation(error) from None


def translating(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorate a coroutine function, so that it runs inside `translated`."""

    @functools.wraps(method)
    async def translating_method(*args: P.args, **kwargs: P.kwargs) -> T:
        with translated():
            return await method(*args, **kwargs)

    return translating_method


def _translation(error: Exception) -> PortFault:
    if isinstance(error, DaytonaError):
        return _fault(error)
    if isinstance(error, _TRANSPORT):
        return _transport_fault(error)
    # The SDK's generated models rejected the response (pydantic, JSON). Only the type is reported: the text may quote
    # the response.
    return PortFault(FaultKind.UNREADABLE, f"the SDK could not read the answer ({type(error).__name__})")


def _fault(error: DaytonaError) -> PortFault:
    if error.status_code is None and (refusal := _untrusted(error)) is not None:
        return refusal
    message = _clean(str(error))
    if message.endswith(":") and error.status_code is not None:
        # This is the SDK's own text: the response had no body.
        message += f" HTTP {error.status_code} without a message"
    return PortFault(
        _kind(error, message),
        message,
        status=error.status_code,
        retry_after_s=_retry_after(error),
        sandbox_id=getattr(error, "sandbox_id", None),
    )


def _transport_fault(error: Exception) -> PortFault:
    return _untrusted(error) or PortFault(_transport_kind(error), _clean(str(error)))


def _untrusted(error: Exception) -> PortFault | None:
    """Return the fault if a certificate was refused; None for any other error."""
    # Several causes may match: aiohttp's own error derives from ssl's, and has no text.
    refusals = [cause for cause in _causes(error) if isinstance(cause, ssl.SSLCertVerificationError)]
    if not refusals:
        return None
    why = next(
        (text for refusal in refusals if (text := getattr(refusal, "verify_message", ""))), str(refusals[0])
    )
    return PortFault(
        FaultKind.UNTRUSTED, _clean(f"the certificate of Daytona's address was not accepted ({why})")
    )


def _kind(error: DaytonaError, message: str) -> FaultKind:
    status = error.status_code
    if error.code in _FINAL_CODES:
        return FaultKind.REFUSED
    if status == 409:
        return FaultKind.NAME_TAKEN if "already exists" in message else FaultKind.BUSY
    if status == 400 and ("no IP address" in message or "Is the Sandbox started" in message):
        return FaultKind.NOT_STARTED
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status is not None and status >= 500:
        return FaultKind.DROPPED
    if status is not None and 400 <= status < 500:
        return FaultKind.REFUSED
    return _transport_kind(error)


def _transport_kind(error: BaseException) -> FaultKind:
    causes = list(_causes(error))
    if any(isinstance(cause, _NOT_SENT) or _in_handshake(cause) for cause in causes):
        return FaultKind.NOT_SENT
    if any(isinstance(cause, (*_TRANSPORT, DaytonaTimeoutError, DaytonaConnectionError)) for cause in causes):
        return FaultKind.DROPPED
    if any(isinstance(cause, ValueError) for cause in causes):
        return FaultKind.UNREADABLE
    return FaultKind.REFUSED


def _in_handshake(error: BaseException) -> bool:
    return any(frame.f_code in _HANDSHAKES for frame, _ in walk_tb(error.__traceback__))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        reason = getattr(current, "reason", None)  # urllib3's MaxRetryError has its cause there
        queue += [
            current.__cause__,
            current.__context__,
            reason if isinstance(reason, BaseException) else None,
            *(arg for arg in current.args if isinstance(arg, BaseException)),  # urllib3's SSLError
        ]


def _retry_after(error: DaytonaError) -> float | None:
    headers = {str(name).lower(): value for name, value in (error.headers or {}).items()}
    value = str(headers.get("retry-after", "")).strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, OverflowError):
            return None
    return None if isnan(seconds) else min(max(seconds, 0.0), 3600.0)


def _clean(text: str) -> str:
    """Return the text as one printable line of bounded length, without its full stop: it becomes part of a sentence."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MESSAGE_LIMIT]).split())
    return line.removesuffix(".") if len(line) <= MESSAGE_LIMIT else line[:MESSAGE_LIMIT] + "…"
