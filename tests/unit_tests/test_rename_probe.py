"""Whether a store may be mounted: asked with a rename that a store with any sense refuses."""

from __future__ import annotations

import pytest

from langchain_daytona_ws._adapters.boto_calls import client_fault
from langchain_daytona_ws._core.mount.rename_probe import (
    PAUSES_S,
    SCRATCH,
    Renames,
    needs_probe,
    probe_renames,
)
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.files import S3_DELAY_S, S3Delay
from langchain_daytona_ws._core.s3.store import StoreFault, StoreFaultKind

KEY = f"{SCRATCH}n"


class Store:
    """Answers renames as its script says, one entry each; None accepts, and writes the empty object."""

    def __init__(self, *script: StoreFault | None, deletes: bool = True) -> None:
        self.script = list(script)
        self.deletes = deletes
        self.objects: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.sleeps: list[float] = []

    async def rename(self, source: str, target: str) -> None:
        self.asked.append((source, target))
        fault = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if fault is None or fault.kind is StoreFaultKind.UNKNOWN:
            self.objects.add(target)
        if fault is not None:
            raise fault

    async def delete(self, key: str) -> None:
        if not self.deletes:
            raise StoreFault(StoreFaultKind.DENIED, "AccessDenied")
        self.objects.discard(key)

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)


def answered(status: int, code: str = "") -> StoreFault:
    """Return the fault for an answer of S3."""
    response = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return client_fault(response, lost=StoreFaultKind.UNKNOWN)


DROPPED = StoreFault(StoreFaultKind.UNKNOWN, "the connection failed")
REFUSED = StoreFault(StoreFaultKind.PASSING, "could not connect")


@pytest.mark.parametrize(
    "fault",
    [
        answered(501, "NotImplemented"),
        answered(400, "InvalidArgument"),
        answered(404, "NoSuchKey"),  # by a store that does rename
        answered(405, "MethodNotAllowed"),
        answered(500, "InternalError"),
        answered(501),
    ],
    ids=lambda fault: fault.message,
)
def test_a_store_that_refuses_is_asked_once_and_keeps_nothing(fault: StoreFault) -> None:
    store = Store(fault)
    assert run_sync(probe_renames(store, "n")).renames is Renames.REFUSED
    assert store.asked == [(f"{KEY}-source", KEY)]


def test_a_store_that_accepts_renames_is_detected_and_cleaned_up() -> None:
    store = Store(None)
    probed = run_sync(probe_renames(store, "n"))
    assert (probed.renames, probed.left, store.objects) == (Renames.ACCEPTED, "", set())


def test_a_remaining_object_is_named() -> None:
    assert run_sync(probe_renames(Store(None, deletes=False), "n")).left == KEY
    assert run_sync(probe_renames(Store(DROPPED, deletes=False), "n")).left == KEY


@pytest.mark.parametrize(
    "fault",
    [
        answered(301, "PermanentRedirect"),
        answered(400, "AuthorizationHeaderMalformed"),
        answered(400, "ExpiredToken"),
        answered(403, "InvalidAccessKeyId"),
        answered(403, "AccessDenied"),
        answered(403, "SignatureDoesNotMatch"),
    ],
    ids=lambda fault: fault.code,
)
def test_errors_that_the_mount_reports_are_left_to_it(fault: StoreFault) -> None:
    assert run_sync(probe_renames(Store(fault), "n")).renames is Renames.NOT_TESTED


def test_a_missing_bucket_is_reported_since_a_mount_may_succeed() -> None:
    store = Store(answered(404, "NoSuchBucket"))
    assert run_sync(probe_renames(store, "n")).renames is Renames.NO_BUCKET
    assert len(store.asked) == 1


@pytest.mark.parametrize(
    "fault",
    [
        DROPPED,
        REFUSED,
        answered(429),
        answered(502),
        answered(503, "SlowDown"),
        answered(504),
        answered(403, "RequestTimeTooSkewed"),
        StoreFault(StoreFaultKind.REFUSED, "not trusted", code="Certificate"),
    ],
    ids=lambda fault: fault.message,
)
def test_an_inconclusive_answer_is_unknown(fault: StoreFault) -> None:
    store = Store(fault)
    assert run_sync(probe_renames(store, "n")).renames is Renames.UNKNOWN
    assert store.sleeps == list(PAUSES_S)
    assert not store.objects


def test_an_object_of_the_first_attempt_is_deleted_after_the_last() -> None:
    store = Store(DROPPED, answered(503, "SlowDown"))
    assert run_sync(probe_renames(store, "n")).renames is Renames.UNKNOWN
    assert not store.objects


def test_a_lost_answer_is_requested_again() -> None:
    assert run_sync(probe_renames(Store(DROPPED, None), "n")).renames is Renames.ACCEPTED
    assert (
        run_sync(probe_renames(Store(REFUSED, answered(503), answered(501)), "n")).renames is Renames.REFUSED
    )


@pytest.mark.parametrize(
    ("endpoint", "needs"),
    [
        (None, False),
        ("https://s3.eu-central-1.amazonaws.com", False),
        ("https://bucket.vpce-1-x.s3.us-east-1.vpce.amazonaws.com", False),
        ("https://s3.cn-north-1.amazonaws.com.cn", False),
        ("https://minio.example.com:9000", True),
        ("http://127.0.0.1:9000", True),
        ("https://amazonaws.com.example.org", True),
        ("https://notamazonaws.com", True),
    ],
)
def test_only_stores_other_than_amazons_are_probed(endpoint: str | None, needs: bool) -> None:
    assert needs_probe(endpoint) is needs


def test_s3_may_lack_what_a_command_has_just_written() -> None:
    now_s, slept = [50.0], list[float]()
    s3_delay = S3Delay(lambda: now_s[0])

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    run_sync(s3_delay.wait(sleep))
    assert slept == []
    s3_delay.command_ended()
    run_sync(s3_delay.wait(sleep))
    assert slept == [pytest.approx(S3_DELAY_S)]
    now_s[0] += S3_DELAY_S * 1.01
    run_sync(s3_delay.wait(sleep))
    assert len(slept) == 1
