"""Guard each call of boto3: translate exceptions and S3's error responses, and suppress botocore's debug log records.

These records contain headers and tokens.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind

P = ParamSpec("P")
T = TypeVar("T")

MESSAGE_LIMIT = 500

_BY_CODE = {
    "NoSuchKey": StoreFaultKind.MISSING,
    "NoSuchBucket": StoreFaultKind.REFUSED,
    "PreconditionFailed": StoreFaultKind.CHANGED,
    "ConditionalRequestConflict": StoreFaultKind.CHANGED,
    "AccessDenied": StoreFaultKind.DENIED,
    "AllAccessDisabled": StoreFaultKind.DENIED,
    "AccountProblem": StoreFaultKind.DENIED,
    "ExpiredToken": StoreFaultKind.EXPIRED,
    "InvalidToken": StoreFaultKind.EXPIRED,
    "InvalidAccessKeyId": StoreFaultKind.EXPIRED,
    "TokenRefreshRequired": StoreFaultKind.EXPIRED,
    "RequestTimeTooSkewed": StoreFaultKind.REFUSED,
    "SignatureDoesNotMatch": StoreFaultKind.REFUSED,
    "InvalidObjectState": StoreFaultKind.REFUSED,
    # Nothing was changed: S3 refused the request, or stopped waiting for its body.
    "RequestTimeout": StoreFaultKind.PASSING,
    "SlowDown": StoreFaultKind.PASSING,
    "ServiceUnavailable": StoreFaultKind.PASSING,
    "Throttling": StoreFaultKind.PASSING,
    "ThrottlingException": StoreFaultKind.PASSING,
    "TooManyRequests": StoreFaultKind.PASSING,
    "OperationAborted": StoreFaultKind.CHANGED,
}
_BY_STATUS = {
    403: StoreFaultKind.DENIED,
    404: StoreFaultKind.MISSING,
    409: StoreFaultKind.CHANGED,
    412: StoreFaultKind.CHANGED,
    429: StoreFaultKind.PASSING,
    503: StoreFaultKind.PASSING,
}
_REGION = re.compile(r"expecting '([a-z0-9-]{1,40})'", re.ASCII)
_REGION_NAME = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)
_thread = threading.local()
_logger_count = 0  # the number of loggers when filters were last added


def boto_call(*, changes: bool = False) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator for functions that call boto3 and read the response.

    A decorated function raises StoreFault for every failure of botocore and every malformed response. While it runs,
    botocore writes no debug records.

    Args:
        changes: True if the request changes the bucket. Then the fault's kind is UNKNOWN if the change may have been
            made.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return _guarded(functools.partial(function, *args, **kwargs), changes=changes)

        return call

    return decorate


def _guarded(work: Callable[[], T], *, changes: bool) -> T:
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
        HTTPClientError,
        ParamValidationError,
        ProxyConnectionError,
        SSLError,
    )
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    lost = StoreFaultKind.UNKNOWN if changes else StoreFaultKind.PASSING
    unreadable = StoreFaultKind.UNKNOWN if changes else StoreFaultKind.REFUSED
    try:
        return without_debug_log(work)
    except ClientError as error:
        raise client_fault(error.response, lost=lost) from None
    except ParamValidationError as error:
        raise StoreFault(StoreFaultKind.REFUSED, _clean(str(error))) from None
    except (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError) as error:
        raise StoreFault(StoreFaultKind.PASSING, _clean(str(error))) from None
    except SSLError as error:
        # If the certificate was refused, nothing was sent, and another attempt would fail too.
        kind, code = (StoreFaultKind.REFUSED, "Certificate") if "CERTIFICATE" in str(error) else (lost, "")
        raise StoreFault(kind, _clean(str(error)), code=code) from None
    except (HTTPClientError, HTTPError, OSError) as error:
        raise StoreFault(lost, f"the connection failed ({type(error).__name__})") from None
    except (BotoCoreError, ResponseParserError) as error:
        # For example a wrong checksum or a truncated response.
        raise StoreFault(lost, f"the answer cannot be used ({type(error).__name__})") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        # botocore raises RuntimeError for dates out of range, Python for too deep nesting. Only the type is reported:
        # the text may quote the response.
        raise StoreFault(unreadable, f"the answer cannot be read ({type(error).__name__})") from None


def without_debug_log(work: Callable[[], T]) -> T:
    """Run ``work`` and return its result; meanwhile, suppress botocore's debug records of this thread."""
    _filter_loggers()
    before, _thread.suppresses_debug = getattr(_thread, "suppresses_debug", False), True
    try:
        return work()
    finally:
        _thread.suppresses_debug = before
        # If ``work`` has created the process's first client, botocore's modules have added loggers. Filter these before
        # the first request.
        _filter_loggers()


def _filter_loggers() -> None:
    """Add the filter to all loggers of botocore: a filter does not apply to child loggers."""
    global _logger_count  # noqa: PLW0603
    # Loggers are never removed, so their number shows whether an import has added loggers.
    loggers = logging.root.manager.loggerDict
    if len(loggers) == _logger_count:
        return
    names = list(loggers.copy())
    for name in names:
        if name.partition(".")[0] == "botocore":
            logger = logging.getLogger(name)
            if _passes not in logger.filters:
                logger.addFilter(_passes)
    _logger_count = len(names)


def _passes(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG or not getattr(_thread, "suppresses_debug", False)


def client_fault(response: Any, *, lost: StoreFaultKind) -> StoreFault:
    """Translate an error response that botocore has parsed.

    ``lost`` is the kind for a response that does not show whether the request had an effect.
    """
    details = response.get("Error", {})
    about = response.get("ResponseMetadata", {})
    code, message = _string_or_empty(details, "Code"), _string_or_empty(details, "Message")
    status = about.get("HTTPStatusCode")
    status = status if isinstance(status, int) else None
    kind = _BY_CODE.get(code)
    if kind is None and code.startswith("KMS."):
        kind = StoreFaultKind.REFUSED
    if kind is None:
        kind = _BY_STATUS.get(status or 0)
    if kind is None:
        kind = StoreFaultKind.REFUSED if status is not None and 300 <= status < 500 else lost
    label = code if code and not code.isdigit() else f"HTTP {status}"
    return StoreFault(
        kind,
        _clean(f"{label}: {message}" if message else label),
        code=code[:100],
        region=_region(details, about, message),
        status=status,
    )


def _string_or_empty(details: Any, name: str) -> str:
    value = details.get(name)
    return value if isinstance(value, str) else ""


def _region(details: Any, about: Any, message: str) -> str:
    headers = about.get("HTTPHeaders", {})
    region = str(details.get("Region") or headers.get("x-amz-bucket-region") or "")
    found = _REGION.search(message)
    if not _REGION_NAME.fullmatch(region):
        region = found[1] if found else ""
    redirected = details.get("Code") in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301")
    return region if redirected else ""


def _clean(text: str) -> str:
    """Return the text as one printable line of bounded length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MESSAGE_LIMIT]).split())
    return line if len(line) <= MESSAGE_LIMIT else line[:MESSAGE_LIMIT] + "…"
