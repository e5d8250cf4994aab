"""Every failure of the SDK becomes one PortFault, by what may be done about it."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import httpx
import pytest
import urllib3.exceptions
from daytona import DaytonaConnectionError, DaytonaError, DaytonaTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._adapters.faults import MESSAGE_LIMIT, translated
from langchain_daytona_ws._core.ports import FaultKind, PortFault
from langchain_daytona_ws._core.sandbox.remedies import remedy_for


def caught(error: BaseException) -> PortFault:
    with pytest.raises(PortFault) as info, translated():
        raise error
    return info.value


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


REFUSED = urllib3.exceptions.NewConnectionError(None, "refused")  # type: ignore[arg-type]
EXPIRED = ssl.SSLCertVerificationError(1, "certificate verify failed")
EXPIRED.verify_message = "certificate has expired"
KINDS = [
    (caused(DaytonaError("x"), urllib3.exceptions.SSLError(EXPIRED)), FaultKind.UNTRUSTED),
    (caused(DaytonaError("x"), caused(httpx.ConnectError("x"), EXPIRED)), FaultKind.UNTRUSTED),
    (caused(DaytonaError("x"), urllib3.exceptions.SSLError("wrong version number")), FaultKind.DROPPED),
    (caused(DaytonaError("x"), aiohttp.ConnectionTimeoutError("x")), FaultKind.NOT_SENT),
    (caused(DaytonaError("x"), urllib3.exceptions.ProxyError("x", OSError("407"))), FaultKind.NOT_SENT),
    (DaytonaError("x", status_code=401), FaultKind.UNAUTHORIZED),
    (DaytonaError("x", status_code=403), FaultKind.FORBIDDEN),
    (DaytonaError("x", status_code=404), FaultKind.NOT_FOUND),
    (DaytonaError("x", status_code=408), FaultKind.DROPPED),
    (DaytonaError("Sandbox with name a already exists", status_code=409), FaultKind.NAME_TAKEN),
    (DaytonaError("Sandbox state change in progress", status_code=409), FaultKind.BUSY),
    (DaytonaError("no IP address found. Is the Sandbox started?", status_code=400), FaultKind.NOT_STARTED),
    (DaytonaError("bad", status_code=400), FaultKind.REFUSED),
    (DaytonaError("bad", status_code=422), FaultKind.REFUSED),
    (DaytonaError("x", status_code=429), FaultKind.THROTTLED),
    (DaytonaError("x", status_code=500), FaultKind.DROPPED),
    (DaytonaError("x", status_code=500, code="FILE_READ_FAILED"), FaultKind.REFUSED),
    (DaytonaError("x", status_code=502), FaultKind.DROPPED),
    (DaytonaError("x", status_code=503), FaultKind.UNAVAILABLE),
    (DaytonaError("x", status_code=504), FaultKind.DROPPED),
    (DaytonaError("x", status_code=599), FaultKind.DROPPED),
    (caused(DaytonaError("x"), urllib3.exceptions.MaxRetryError(None, "u", REFUSED)), FaultKind.NOT_SENT),  # type: ignore[arg-type]
    (caused(DaytonaError("x"), urllib3.exceptions.ProtocolError("x")), FaultKind.DROPPED),
    (caused(DaytonaError("x"), httpx.ConnectError("x")), FaultKind.NOT_SENT),
    (caused(DaytonaError("x"), aiohttp.ServerDisconnectedError()), FaultKind.DROPPED),
    (caused(DaytonaError("x"), ValueError("not JSON")), FaultKind.UNREADABLE),
    (DaytonaConnectionError("x"), FaultKind.DROPPED),
    (DaytonaTimeoutError("x"), FaultKind.DROPPED),
    (DaytonaError("Timeout must be a non-negative number"), FaultKind.REFUSED),
    (httpx.ReadError("x"), FaultKind.DROPPED),
    (TimeoutError("x"), FaultKind.DROPPED),
    (ConnectionResetError("x"), FaultKind.DROPPED),
    (KeyError("id"), FaultKind.UNREADABLE),
]


def test_a_message_has_no_full_stop() -> None:
    error = DaytonaError("Failed to create sandbox: CPU request 9 exceeds maximum (4).", status_code=403)
    assert caught(error).message == "Failed to create sandbox: CPU request 9 exceeds maximum (4)"


def test_an_answer_without_a_body_is_classified_by_its_status() -> None:
    assert caught(DaytonaError("Failed to execute command: ", status_code=502)).message == (
        "Failed to execute command: HTTP 502 without a message"
    )


@pytest.mark.parametrize(("error", "kind"), KINDS)
def test_kinds(error: Exception, kind: FaultKind) -> None:
    assert caught(error).kind is kind


def test_nothing_was_sent_when_the_tls_handshake_failed() -> None:
    incoming = ssl.MemoryBIO()
    incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # from a server of plain http
    with pytest.raises(ssl.SSLError) as handshake:
        ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="x").do_handshake()
    refused = urllib3.exceptions.MaxRetryError(None, "u", urllib3.exceptions.SSLError(handshake.value))  # type: ignore[arg-type]
    assert caught(caused(DaytonaError("x"), refused)).kind is FaultKind.NOT_SENT


def test_a_certificate_that_is_refused_is_told_by_its_reason_only() -> None:
    error = caused(DaytonaError("Failed to create sandbox: key expired"), EXPIRED)
    assert (caught(error).kind, "has expired" in caught(error).message) == (FaultKind.UNTRUSTED, True)
    # Its message must not be mistaken for Daytona's own about an API key.
    assert remedy_for(caught(error))[0] == "certificate"


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()])
def test_control_flow_exceptions_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), translated():
        raise error


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), ("-3", 0.0), ("1e9", 3600.0), ("soon", None), ("", None),
     ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("nan", None), ("inf", 3600.0),
     ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None), ("Fri, 31 Dec 99999 23:59:59 GMT", None)],
)  # fmt: skip
def test_retry_after(value: str, seconds: float | None) -> None:
    error = DaytonaError("x", status_code=429, headers={"Retry-After": value})
    assert caught(error).retry_after_s == seconds


@given(st.text(max_size=3 * MESSAGE_LIMIT))
def test_a_message_is_one_bounded_printable_line(text: str) -> None:
    message = caught(DaytonaError(text, status_code=400)).message
    assert len(message) <= MESSAGE_LIMIT + 1
    assert message.isprintable()


def test_what_the_answer_said_is_not_quoted_when_it_could_not_be_read() -> None:
    assert "secret" not in caught(ValueError("secret")).message
