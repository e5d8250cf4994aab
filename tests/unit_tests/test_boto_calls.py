"""Calls of boto3: each exception becomes one StoreFault."""

from __future__ import annotations

import pytest
from botocore.exceptions import SSLError

from langchain_daytona_ws._adapters.boto_calls import boto_call
from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "Certificate"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", ""),
        ("EOF occurred in violation of protocol", ""),
    ],
)
def test_only_a_refused_certificate_has_the_code_of_one(text: str, code: str, changes: bool) -> None:
    @boto_call(changes=changes)
    def call() -> None:
        raise SSLError(endpoint_url="https://s3", error=OSError(text))

    with pytest.raises(StoreFault, match="SSL validation failed") as caught:
        call()
    lost = StoreFaultKind.UNKNOWN if changes else StoreFaultKind.PASSING
    assert (caught.value.code, caught.value.kind) == (code, StoreFaultKind.REFUSED if code else lost)
