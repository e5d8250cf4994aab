"""Forged answers of S3 and STS: every call still ends with a result or with an error of this package."""

from __future__ import annotations

import asyncio
import base64
import gc
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import ToolMessage

from langchain_daytona_ws import (
    BashTool,
    FileError,
    TransferProgress,
    WorkspaceError,
    WorkspaceFileTool,
    WorkspaceSession,
)
from langchain_daytona_ws._adapters import s3_bucket, s3_transfers
from langchain_daytona_ws.local import LocalDaytona, LocalS3
from langchain_daytona_ws.tools.base import ERROR_LIMIT
from tests.hostile.forged import InstantClock, answer_of, examples
from tests.hostile.forged_s3 import (
    SECRET_KEY,
    TOKEN,
    Change,
    ElementText,
    Forgery,
    ForgingS3,
    Repeated,
    Replace,
    error_of,
    forgeries,
)
from tests.integration_tests.conftest import config_for
from tests.integration_tests.s3 import ROLE, outsider, s3_options

BUCKET = "bucket-of-ours"
PREFIX = "sandbox/forgeries/"
FILES = {"src/a.py": b"x = 1\n", "src/b.txt": b"y\n", "src/deep/c.py": b"z = 3\n", "empty/": b""}
OUTPUT_LIMIT = 4096
# A listing without an end is limited by time, and each reading of this clock adds 0.05 s.
MOST_REQUESTS = 450
# Texts that the model must not see.
HIDDEN = [SECRET_KEY, TOKEN, "pl4nted", BUCKET, "sandbox/", "127.0.0.1", str(Path.home()), sys.prefix]

CALLS: dict[str, dict[str, Any]] = {
    "read": {"path": "src/a.py"},
    "write": {"path": "src/a.py", "content": "x = 2\n", "overwrite": True},
    "create": {"path": "new/d.py", "content": "x = 2\n"},
    "edit": {"path": "src/a.py", "old_string": "x = 1", "new_string": "x = 2"},
    "list": {"path": "src"},
    "glob": {"pattern": "**/*.py"},
    "grep": {"pattern": "x = ."},
    "delete": {"path": "src/a.py"},
}
CHANGES = {"write": "PUT", "create": "PUT", "edit": "PUT", "delete": "DELETE"}

pytestmark = [
    # botocore does not close the connection of an unparsable answer; the garbage collector does.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]


class TickingClock(InstantClock):
    """A clock that skips waits, and moves forward with each reading."""

    def monotonic(self) -> float:
        self.sleep(0.05)
        return super().monotonic()


class Stage:
    """The local S3, the forging proxy before it, and sessions that use the proxy."""

    def __init__(self, s3: LocalS3, proxy: ForgingS3) -> None:
        self.proxy = proxy
        self._outside = outsider(s3.endpoint)

    def session(self) -> WorkspaceSession:
        options = {
            "apiKey": "dtn_pl4nted",
            "apiUrl": "http://127.0.0.1:9/api",  # a closed port
            "mountAwsS3Buckets": True,
            "workspaceBucketName": BUCKET,
            "s3Endpoint": self.proxy.endpoint,
        }
        keys = {
            "AWS_ACCESS_KEY_ID": "AKIAPL4NTED",
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_SESSION_TOKEN": TOKEN,
        }
        config = {
            "permissionMode": "bypass", "envVars": keys, "outputLimitBytes": OUTPUT_LIMIT, "options": options,
        }  # fmt: skip
        return WorkspaceSession(config, namespace="forgeries", clock=TickingClock())

    def reset(self) -> None:
        """Restore the bucket's first content."""
        wanted = {PREFIX + path: data for path, data in FILES.items()}
        wanted["sandbox/theirs/x"] = b"theirs"
        held = self.held()
        for key in held.keys() - wanted.keys():
            self._outside.delete_object(Bucket=BUCKET, Key=key)
        for key, data in wanted.items():
            if held.get(key) != data:
                self._outside.put_object(Bucket=BUCKET, Key=key, Body=data)

    def held(self) -> dict[str, bytes]:
        listed = self._outside.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        keys = [entry["Key"] for entry in listed]
        return {key: self._outside.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def check(self) -> None:
        """Check the number of requests, and that all were below the prefix."""
        requests = self.proxy.requests
        assert len(requests) <= MOST_REQUESTS
        for request in requests:
            if request.path.strip("/") == BUCKET:
                assert request.method == "GET"
                assert request.query["prefix"].startswith(PREFIX)
            else:
                assert request.path.startswith(f"/{BUCKET}/{PREFIX}")
                assert not {"..", "."} & set(request.path.split("/"))

        assert self._outside.get_object(Bucket=BUCKET, Key="sandbox/theirs/x")["Body"].read() == b"theirs"

    def close(self) -> None:
        self._outside.close()


@pytest.fixture(scope="module")
def stage(s3_server: LocalDaytona) -> Iterator[Stage]:
    s3 = s3_server.s3
    with ForgingS3(s3) as proxy:
        s3.make_bucket(BUCKET)
        with closing(Stage(s3, proxy)) as made:
            made.reset()
            yield made
    gc.collect()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Botocore waits between its attempts with `time.sleep`."""
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))


def check_message(message: ToolMessage, *, is_content: bool) -> None:
    """Check that a message is short, printable unless it is a file's content, and does not show host data."""
    text = message.content
    assert isinstance(text, str)
    assert len(text) <= (ERROR_LIMIT if message.status == "error" else 3 * OUTPUT_LIMIT)
    text.encode("utf-8")
    if not is_content or message.status == "error":
        assert text.replace("\n", " ").isprintable()
        assert not [word for word in HIDDEN if word in text]


def check_error(error: WorkspaceError) -> None:
    assert len(error.message) < 2500
    assert error.message.replace("\n", " ").isprintable()
    shown = repr(error) + repr(error.context) + error.message + repr(error.__cause__)
    assert not [word for word in (SECRET_KEY, TOKEN) if word in shown]
    assert not [word for word in HIDDEN if word in error.for_model]


def check_done(stage: Stage, name: str, *, unchanged: bool) -> None:
    """Check that a successful change was accepted by S3, or is stored."""
    held, key = stage.held(), PREFIX + CALLS[name]["path"]
    is_stored = key not in held if name == "delete" else held.get(key) == b"x = 2\n"
    accepted = [
        request
        for request in stage.proxy.requests
        if request.method == CHANGES[name] and request.status < 300
    ]
    assert is_stored or accepted or unchanged


@contextmanager
def forging(stage: Stage, name: str, forged: list[Forgery]) -> Iterator[None]:
    """Forge answers during a call, and restore the bucket afterwards."""
    stage.proxy.forge(*forged)
    try:
        yield
        stage.check()
    finally:
        stage.proxy.forge()
        if name in CHANGES:
            stage.reset()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", CALLS)
@given(forged=st.lists(forgeries(), min_size=1, max_size=2))
@examples(2)
@pytest.mark.one_in(3)
def test_errors_for_the_model_hold_no_secret(
    stage: Stage, name: str, asynchronous: bool, forged: list[Forgery]
) -> None:
    with forging(stage, name, forged), stage.session() as session:
        tool = WorkspaceFileTool(session=session)
        args = {"action": "write" if name == "create" else name, **CALLS[name]}
        if asynchronous:
            with asyncio.Runner() as runner:
                message = answer_of(tool, args, runner)
        else:
            message = answer_of(tool, args)
        check_message(message, is_content=name in ("read", "edit"))
        if name in CHANGES and message.status == "success":
            check_done(stage, name, unchanged="already has exactly" in message.content)


@pytest.mark.parametrize("name", ["download", *CALLS])
@given(forged=st.lists(forgeries(), min_size=1, max_size=2), asynchronous=st.booleans())
@examples(3)
@pytest.mark.one_in(3)
def test_only_documented_errors_are_raised(
    stage: Stage, name: str, forged: list[Forgery], asynchronous: bool
) -> None:
    method = "write" if name == "create" else name
    given = CALLS.get(name, {"path": "src/a.py"})
    with forging(stage, name, forged), stage.session() as session:
        try:
            if asynchronous:
                result = asyncio.run(getattr(session.files, f"a{method}")(**given))
            else:
                result = getattr(session.files, method)(**given)
        except WorkspaceError as error:
            check_error(error)
        else:
            if name in CHANGES:
                check_done(stage, name, unchanged=getattr(result, "unchanged", False))


# --- cases found by hypothesis ---


def always(*changes: Change, only: str = "GET PUT DELETE", passed_on: bool = True) -> Forgery:
    return Forgery(None, changes, only=only, passed_on=passed_on)


@pytest.fixture
def _verifying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Botocore verifies checksums, as for AWS."""

    def as_for_aws(*given: Any) -> dict[str, Any]:
        return {**settings(*given), "response_checksum_validation": "when_supported"}

    settings = s3_bucket._settings
    monkeypatch.setattr(s3_bucket, "_settings", as_for_aws)


@pytest.mark.usefixtures("_verifying")
def test_a_checksum_that_does_not_fit_is_noticed(stage: Stage) -> None:
    """Botocore verifies the checksum at the end of the body, which was not read."""
    with stage.session() as session:
        right = base64.b64encode(zlib.crc32(FILES["src/a.py"]).to_bytes(4, "big"))
        with forging(stage, "read", [always(Replace(header=("x-amz-checksum-crc32", right)))]):
            assert session.files.download("src/a.py") == FILES["src/a.py"]
        with forging(stage, "read", [always(Replace(header=("x-amz-checksum-crc32", b"AAAAAA==")))]):
            with pytest.raises(FileError, match="FlexibleChecksumError"):
                session.files.download("src/a.py")


@pytest.mark.usefixtures("_verifying")
@pytest.mark.parametrize("times", [s3_transfers.ATTEMPTS - 1, s3_transfers.ATTEMPTS])
def test_a_download_whose_checksum_does_not_fit_starts_again(
    stage: Stage, tmp_path: Path, times: int
) -> None:
    wrong = Replace(header=("x-amz-checksum-crc32", b"AAAAAA=="))
    forged = replace(always(wrong), at=frozenset(range(2, 2 + times)))  # after two listings
    fails = times == s3_transfers.ATTEMPTS
    outcome = pytest.raises(FileError, match="Checksum") if fails else nullcontext()
    reports: list[TransferProgress] = []
    with forging(stage, "read", [forged]), stage.session() as session, outcome:
        session.files.download("src/a.py", tmp_path / "a.py", on_progress=reports.append)
    assert [report.done_bytes for report in reports] == [6, 0, 6, 0, 6, 0][: None if fails else -1]
    assert (tmp_path / "a.py").exists() is not fails


@pytest.mark.parametrize("secret", [SECRET_KEY, TOKEN])
@pytest.mark.parametrize("code", ["InvalidToken", "AccessDenied", "Odd", "{}"])
def test_credentials_that_s3_quotes_are_quoted_no_further(stage: Stage, code: str, secret: str) -> None:
    body = error_of(code.format(secret).encode(), f"not {secret}!".encode())
    with forging(stage, "read", [always(Replace(status=400, body=body))]), stage.session() as session:
        with pytest.raises(FileError, match=r"not \*\*\*!") as caught:
            session.files.read("src/a.py")
    check_error(caught.value)


def test_not_found_is_no_proof_of_a_deletion(stage: Stage) -> None:
    """A proxy may have answered."""
    forged = always(Replace(status=404, body=b"<html>"), only="DELETE", passed_on=False)
    with forging(stage, "delete", [forged]), stage.session() as session:
        with pytest.raises(FileError):
            session.files.delete("src/a.py")
        assert f"{PREFIX}src/a.py" in stage.held()
    with forging(stage, "delete", [replace(forged, passed_on=True)]), stage.session() as session:
        assert session.files.delete("src/a.py").kind == "file"
        assert f"{PREFIX}src/a.py" not in stage.held()


def test_a_truncated_body_is_not_accepted(stage: Stage) -> None:
    """An edit would have removed the rest of the file."""
    part = [Replace(status=206, body=b"x = 1"), Replace(header=("content-range", b"bytes 0-4/6"))]
    with forging(stage, "edit", [always(*part, only="GET")]), stage.session() as session:
        with pytest.raises(FileError):
            session.files.edit("src/a.py", "x = 1", "x = 2")
        assert stage.held()[f"{PREFIX}src/a.py"] == FILES["src/a.py"]


def test_an_error_without_a_code_is_named_by_its_status(stage: Stage) -> None:
    with (
        forging(stage, "read", [always(Replace(status=418, body=error_of(b"", b"tea")))]),
        stage.session() as session,
    ):
        with pytest.raises(FileError, match="HTTP 418: tea"):
            session.files.read("src/a.py")


@pytest.mark.parametrize("date", [b"999999999999999", b"22222222222", b"9999-12-31T23:59:59-12:00"])
def test_an_invalid_date_is_unreadable(stage: Stage, date: bytes) -> None:
    """Botocore raised RuntimeError for the first date; later dates were reported as sandbox faults."""
    with (
        forging(stage, "read", [always(Replace(header=("last-modified", date)))]),
        stage.session() as session,
    ):
        with pytest.raises(FileError, match="the answer cannot be read"):
            session.files.read("src/a.py")


def test_an_error_nested_too_deeply(stage: Stage) -> None:
    deep = Repeated(((b"<Error>", 1), (b"<Message>", 50_000), (b"</Message>", 50_000), (b"</Error>", 1)))
    with forging(stage, "read", [always(Replace(status=400, body=deep))]), stage.session() as session:
        with pytest.raises(FileError):
            session.files.read("src/a.py")


# --- credentials ---


class Mounted:
    """A session on a mount, whose STS is the forging proxy, with the sync or async runtime."""

    def __init__(self, server: LocalDaytona, proxy: ForgingS3, runner: asyncio.Runner | None) -> None:
        options = s3_options(server, BUCKET, mountRoleArn=ROLE, stsEndpoint=proxy.endpoint)
        settings = config_for(server, outputLimitBytes=OUTPUT_LIMIT, options=options)
        self.session = WorkspaceSession(settings, namespace="forgeries", clock=TickingClock())
        self.runner = runner
        self.tools = {"bash": BashTool(session=self.session), "file": WorkspaceFileTool(session=self.session)}
        storage = self.session._state.storage
        assert storage is not None
        self._cache = storage.credentials

    def forget(self) -> None:
        """Drop the credentials, so that the next call fetches new ones."""
        held = self._cache._flight.value
        if held is not None:
            self._cache.forget(held.credentials)


@pytest.fixture(scope="module", params=[False, True], ids=["sync", "async"])
def mounted(request: pytest.FixtureRequest, s3_server: LocalDaytona) -> Iterator[tuple[Mounted, ForgingS3]]:
    with pytest.MonkeyPatch.context() as patch, ForgingS3(s3_server.s3) as proxy:
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAHOST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_SESSION_TOKEN", TOKEN)
        s3_server.make_bucket(BUCKET)
        runner = asyncio.Runner() if request.param else None
        made = Mounted(s3_server, proxy, runner)
        made.session.files.write("a.py", "x = 1\n")
        yield made, proxy
        proxy.forge()
        if runner:
            runner.run(made.session.aclose())
            runner.close()
        made.session.close()


STS_CALLS = {"bash": {"command": "cat a.py"}, "file": {"action": "read", "path": "a.py"}}


@pytest.mark.parametrize("name", STS_CALLS)
@given(forged=st.lists(forgeries(only=st.just("POST"), at=st.none()), min_size=1, max_size=2))
@examples(2)
def test_hostile_answers_of_sts(mounted: tuple[Mounted, ForgingS3], name: str, forged: list[Forgery]) -> None:
    workspace, proxy = mounted
    workspace.forget()
    proxy.forge(*forged)
    message = answer_of(workspace.tools[name], STS_CALLS[name], workspace.runner)
    assert 0 < len(proxy.requests) <= 9
    check_message(message, is_content=name == "file")
    if message.status == "success":
        assert "x = 1" in message.content
    proxy.forge()
    workspace.forget()
    again = answer_of(workspace.tools[name], STS_CALLS[name], workspace.runner)
    assert "x = 1" in again.content


@pytest.mark.parametrize("name", STS_CALLS)
def test_credentials_that_end_after_all_dates(mounted: tuple[Mounted, ForgingS3], name: str) -> None:
    workspace, proxy = mounted
    workspace.forget()
    proxy.forge(always(ElementText(b"Expiration", b"9999-12-31T23:59:59-12:00"), only="POST"))
    assert "x = 1" in answer_of(workspace.tools[name], STS_CALLS[name], workspace.runner).content
    proxy.forge()
