"""What boto3 raises, as StoreFault: every failure has a kind, and nothing else gets out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from langchain_daytona_ws._core.store import StoreFault, StoreFaultKind

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
    # S3 gave up waiting for the request's body, or turned it away: nothing was done.
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


@contextlib.contextmanager
def translated(*, changes: bool = False) -> Iterator[None]:
    """Raise StoreFault for every failure of boto3 inside.

    Args:
        changes: Whether something may have been changed when no answer came, or none that can be read.
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
    garbled = StoreFaultKind.UNKNOWN if changes else StoreFaultKind.REFUSED
    try:
        yield
    except ClientError as error:
        raise client_fault(error.response, lost=lost) from None
    except ParamValidationError as error:
        raise StoreFault(StoreFaultKind.REFUSED, clean(str(error))) from None
    except (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError) as error:
        raise StoreFault(StoreFaultKind.PASSING, clean(str(error))) from None
    except SSLError as error:
        # A certificate that does not fit will not fit later either; and nothing was sent.
        kind = StoreFaultKind.REFUSED if "CERTIFICATE" in str(error) else lost
        raise StoreFault(kind, clean(str(error)), code="Certificate") from None
    except (HTTPClientError, HTTPError, OSError) as error:
        raise StoreFault(lost, f"the connection failed ({type(error).__name__})") from None
    except (BotoCoreError, ResponseParserError) as error:
        # Among them a checksum that does not fit, and an answer that ends too early.
        raise StoreFault(lost, f"the answer cannot be used ({type(error).__name__})") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        # RuntimeError is botocore's for dates that are too far off, and Python's for what is nested too deeply.
        # By its type only: the text could quote the answer.
        raise StoreFault(garbled, f"the answer cannot be read ({type(error).__name__})") from None


def client_fault(response: Any, *, lost: StoreFaultKind) -> StoreFault:
    """Translate an answer that says why not.

    Args:
        response: As botocore parsed it.
        lost: The kind of an answer that does not say whether anything was done.
    """
    said = response.get("Error", {})
    about = response.get("ResponseMetadata", {})
    code, text = _text(said, "Code"), _text(said, "Message")
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
        clean(f"{label}: {text}" if text else label),
        code=code[:100],
        region=_region(said, about, text),
        status=status,
    )


def _text(said: Any, name: str) -> str:
    """Return a field that may be missing, empty or a structure."""
    value = said.get(name)
    return value if isinstance(value, str) else ""


def _region(said: Any, about: Any, text: str) -> str:
    headers = about.get("HTTPHeaders", {})
    told = str(said.get("Region") or headers.get("x-amz-bucket-region") or "")
    found = _REGION.search(text)
    if not _REGION_NAME.fullmatch(told):
        told = found[1] if found else ""
    redirected = said.get("Code") in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301")
    return told if redirected else ""


def clean(text: str) -> str:
    """One printable line of bounded length: what a server answers may be anything."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MESSAGE_LIMIT]).split())
    return line if len(line) <= MESSAGE_LIMIT else line[:MESSAGE_LIMIT] + "…"
