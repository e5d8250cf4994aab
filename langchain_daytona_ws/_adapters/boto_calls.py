"""Guard each call of boto3: translate its exceptions, and suppress debug records, which have headers and tokens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from langchain_daytona_ws._adapters.s3_answers import clean, client_fault
from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind

T = TypeVar("T")

_thread = threading.local()
_logger_count = 0  # when the filters were last set


def boto_call(work: Callable[[], T], *, changes: bool = False) -> T:
    """Return the result of ``work``; raise StoreFault for every failure of boto3 in it, without its debug records.

    Args:
        work: Calls boto3, and reads the response.
        changes: Whether the request changes something: then a missing or unreadable response is UNKNOWN.
    """
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
        raise StoreFault(StoreFaultKind.REFUSED, clean(str(error))) from None
    except (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError) as error:
        raise StoreFault(StoreFaultKind.PASSING, clean(str(error))) from None
    except SSLError as error:
        # A refused certificate is refused again later; nothing was sent.
        kind = StoreFaultKind.REFUSED if "CERTIFICATE" in str(error) else lost
        raise StoreFault(kind, clean(str(error)), code="Certificate") from None
    except (HTTPClientError, HTTPError, OSError) as error:
        raise StoreFault(lost, f"the connection failed ({type(error).__name__})") from None
    except (BotoCoreError, ResponseParserError) as error:
        # Includes wrong checksums and truncated responses.
        raise StoreFault(lost, f"the answer cannot be used ({type(error).__name__})") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        # botocore raises RuntimeError for dates out of range, Python for too deep nesting.
        # Only the type is reported: the text may quote the response.
        raise StoreFault(unreadable, f"the answer cannot be read ({type(error).__name__})") from None


def without_debug_log(work: Callable[[], T]) -> T:
    """Return the result of ``work``; suppress botocore's debug records of this thread in it."""
    global _logger_count  # noqa: PLW0603
    # A filter does not apply to child loggers, and each imported module adds loggers. Loggers are never removed.
    loggers = logging.root.manager.loggerDict
    if len(loggers) != _logger_count:
        names = list(loggers.copy())
        for name in names:
            if name.partition(".")[0] == "botocore":
                logger = logging.getLogger(name)
                if _passes not in logger.filters:
                    logger.addFilter(_passes)
        _logger_count = len(names)
    before, _thread.suppresses_debug = getattr(_thread, "suppresses_debug", False), True
    try:
        return work()
    finally:
        _thread.suppresses_debug = before


def _passes(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG or not getattr(_thread, "suppresses_debug", False)
