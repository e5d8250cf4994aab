"""Assuming the role: real requests of boto3 to the local STS, and to a scripted STS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from langchain_daytona_ws import CredentialsRefused
from langchain_daytona_ws._adapters import aws
from langchain_daytona_ws._adapters.aws import AssumedRole, AsyncAssumedRole, GivenKeys
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._core.s3.workspace import Mount, MountRole, S3Workspace
from langchain_daytona_ws._session.credential_cache import CredentialCache
from langchain_daytona_ws._session.single_flight import once_blocking, once_on_loop
from langchain_daytona_ws.local import LocalDaytona

ROLE = "arn:aws:iam::123456789012:role/sandbox-s3mount"
HOST = {
    "AWS_ACCESS_KEY_ID": "AKIAHOST",
    "AWS_SECRET_ACCESS_KEY": "host+s3cr3t/0f-this/machine",
    "AWS_SESSION_TOKEN": "host+t0ken/0f-this/machine",
}
GIVEN = ("given/secret", "given/token")
SECRETS = (HOST["AWS_SECRET_ACCESS_KEY"], HOST["AWS_SESSION_TOKEN"], *GIVEN)

Fetch = Callable[[S3Workspace], Credentials]


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Credentials of this machine in the environment, and nothing else that boto3 could find."""
    for name, value in HOST.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost,::1")
    for name in (
        "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_STS", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_USE_FIPS_ENDPOINT",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server(s3_server: LocalDaytona) -> LocalDaytona:
    s3_server.make_bucket("skills")
    s3_server.make_bucket("other")
    return s3_server


@pytest.fixture(params=["sync", "async"])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """Fetch with the sync or the async runtime."""

    def by(workspace: S3Workspace) -> Credentials:
        if request.param == "sync":
            return run_sync(AssumedRole(workspace).fetch())
        return asyncio.run(AsyncAssumedRole(workspace).fetch())

    return by


def workspace(endpoint: str | None, namespace: str = "demo", **more: Any) -> S3Workspace:
    external_id = more.pop("external_id", None)
    region = more.pop("sts_region", "us-east-1")
    made: dict[str, Any] = {
        "region": "us-east-1",
        "endpoint": endpoint,
        "workspace": Mount("agents", f"sandbox/{namespace}/", f"/mnt/workspaces/{namespace}"),
        "skills": Mount("skills", "", "/mnt/skills", read_only=True),
        "kms_key_arn": None,
        "role": MountRole(ROLE, external_id, region, endpoint),
        "keys": None,
        **more,
    }
    return S3Workspace(**made)


@contextlib.contextmanager
def s3(server: LocalDaytona, credentials: Credentials | None = None) -> Iterator[Any]:
    keys = credentials or Credentials("AKIAOUTSIDE", "outside")
    client = boto3.client(
        "s3",
        endpoint_url=server.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        # An empty one would let boto3 look for this machine's.
        aws_session_token=keys.session_token or "none",
        config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
    )
    with contextlib.closing(client):
        yield client


def refusal(fetch: Fetch, made: S3Workspace) -> CredentialsRefused:
    """Return the error, which shows no secret in itself, in what it grew from and in our frames' variables."""
    with pytest.raises(CredentialsRefused) as caught:
        fetch(made)
    error = caught.value
    assert error.op == "credentials"
    assert error.__cause__ is None
    assert error.__context__ is None
    frames = [
        frame
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if "langchain_daytona_ws" in frame.f_globals.get("__name__", "")
    ]
    assert frames
    shown = f"{error}{error!r}{vars(error)}{[frame.f_locals for frame in frames]}{error.for_model}"
    for secret in SECRETS:
        assert secret not in shown
    for reported in ("arn:", "agents", "AWS", "http", "127.0.0.1"):
        assert reported not in error.for_model
    assert str(error).isprintable()
    assert len(str(error)) < 1500
    return error


# --- what is given ---------------------------------------------------------------------------------------


def test_they_are_held_to_the_prefix_by_real_requests(server: LocalDaytona, fetch: Fetch) -> None:
    name = f"ns-{secrets.token_hex(4)}"
    before = time.time()
    given = fetch(workspace(server.s3_endpoint, name))
    assert given.session_token
    assert given.expires_at is not None
    assert before + 3590 < given.expires_at < time.time() + 3610
    with s3(server) as outside:
        outside.put_object(Bucket="agents", Key=f"sandbox/{name}2/f", Body=b"x")
        outside.put_object(Bucket="skills", Key="SKILL.md", Body=b"skill")
    own = f"sandbox/{name}/"
    with s3(server, given) as client:
        client.put_object(Bucket="agents", Key=f"{own}dir/f", Body=b"mine")
        assert client.get_object(Bucket="agents", Key=f"{own}dir/f")["Body"].read() == b"mine"
        for prefix in (own, f"{own}dir/", f"{own}dir/f"):
            assert client.list_objects_v2(Bucket="agents", Prefix=prefix)["KeyCount"] == 1
        upload = client.create_multipart_upload(Bucket="agents", Key=f"{own}big")["UploadId"]
        client.upload_part(Bucket="agents", Key=f"{own}big", UploadId=upload, PartNumber=1, Body=b"x")
        client.abort_multipart_upload(Bucket="agents", Key=f"{own}big", UploadId=upload)
        client.delete_object(Bucket="agents", Key=f"{own}dir/f")
        assert client.get_object(Bucket="skills", Key="SKILL.md")["Body"].read() == b"skill"
        assert client.list_objects_v2(Bucket="skills")["KeyCount"] >= 1
        denied: list[Callable[[], Any]] = [
            lambda: client.get_object(Bucket="agents", Key=f"sandbox/{name}2/f"),
            lambda: client.put_object(Bucket="agents", Key=f"sandbox/{name}2/f", Body=b"y"),
            lambda: client.delete_object(Bucket="agents", Key=f"sandbox/{name}2/f"),
            lambda: client.list_objects_v2(Bucket="agents"),
            *(
                lambda prefix=prefix: client.list_objects_v2(Bucket="agents", Prefix=prefix)
                for prefix in ("", "sandbox/", f"sandbox/{name}", f"sandbox/{name}2/")
            ),
            lambda: client.put_object(Bucket="other", Key=f"{own}f", Body=b"y"),
            lambda: client.put_object(Bucket="skills", Key="SKILL.md", Body=b"y"),
            lambda: client.delete_object(Bucket="skills", Key="SKILL.md"),
        ]
        for refused in denied:
            with pytest.raises(ClientError, match="AccessDenied"):
                refused()


def test_two_sessions_do_not_share_credentials(server: LocalDaytona, fetch: Fetch) -> None:
    made = workspace(server.s3_endpoint)
    assert fetch(made).access_key_id != fetch(made).access_key_id


def test_given_keys_are_given(fetch: Fetch) -> None:
    keys = Credentials("AKIAGIVEN", "secret")
    assert run_sync(GivenKeys(keys).fetch()) is keys
    assert asyncio.run(GivenKeys(keys).fetch()) is keys
    with pytest.raises(ValueError, match="no role"):
        fetch(workspace(None, role=None, keys=keys))


def test_the_cache_replaces_expiring_and_refused_credentials(server: LocalDaytona) -> None:
    made = workspace(server.s3_endpoint)
    port, async_port, cache = AssumedRole(made), AsyncAssumedRole(made), CredentialCache()
    try:
        server.s3.credential_lifetime_s = 60
        short = run_sync(cache.get(once_blocking, port, 1200))
        assert 0 < (short.life_s or 0) <= 60
        assert asyncio.run(cache.get(once_on_loop, async_port, 1200)) == short
        later = CredentialCache(now=lambda: time.time() - 3600)
        old = run_sync(later.get(once_blocking, port, 600))
        server.s3.credential_lifetime_s = None
        server.s3.expire_credentials()
        with s3(server, old) as client, pytest.raises(ClientError, match="ExpiredToken"):
            client.list_objects_v2(Bucket="agents", Prefix="sandbox/demo/")
        later.forget(old)
        new = asyncio.run(later.get(once_on_loop, async_port, 600))
        assert new != old
        with s3(server, new) as client:
            client.list_objects_v2(Bucket="agents", Prefix="sandbox/demo/")
    finally:
        server.s3.credential_lifetime_s = None


# --- a scripted STS -----------------------------------------------------------------

EXPIRATION = "2099-01-01T00:00:00Z"
FIELDS = {
    "AccessKeyId": "ASIAGIVEN",
    "SecretAccessKey": "given/secret",
    "SessionToken": "given/token",
    "Expiration": EXPIRATION,
}


def answer(packed: int | str = 12, **fields: str | None) -> str:
    given = {**FIELDS, **fields}
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in given.items() if value is not None)
    return (
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>'
        f"<Credentials>{inner}</Credentials><PackedPolicySize>{packed}</PackedPolicySize>"
        "</AssumeRoleResult></AssumeRoleResponse>"
    )


def error(code: str, message: str = "") -> str:
    return (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{escape(message)}</Message></Error></ErrorResponse>"
    )


class Sts(ThreadingHTTPServer):
    """Answers every request alike, and records the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.answer = answer()
        self.asked: list[dict[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Sts

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.asked.append({name: values[0] for name, values in form.items()})
        if not self.server.status:
            return  # the connection is closed without an answer
        body = self.server.answer.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def sts() -> Iterator[Sts]:
    with Sts() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def test_what_is_asked_for(sts: Sts, fetch: Fetch) -> None:
    given = fetch(workspace(sts.endpoint, external_id="partner:1/x"))
    assert (given.access_key_id, given.secret_access_key, given.session_token) == ("ASIAGIVEN", *GIVEN)
    assert given.expires_at == 4070908800.0
    (asked,) = sts.asked
    assert asked["Action"] == "AssumeRole"
    assert asked["RoleArn"] == ROLE
    assert asked["RoleSessionName"] == "ldw-demo"
    assert asked["ExternalId"] == "partner:1/x"
    assert asked["DurationSeconds"] == "3600"
    assert '"arn:aws:s3:::agents/sandbox/demo/*"' in asked["Policy"]
    sts.asked.clear()
    fetch(workspace(sts.endpoint))
    assert "ExternalId" not in sts.asked[0]


@pytest.mark.parametrize(
    ("code", "message", "expected", "phrase"),
    [
        ("AccessDenied", "User: arn:aws:iam::1:user/x is not authorized", "role_denied", "trust policy"),
        ("AccessDenied", "x", "role_denied", "options.mountRoleExternalId"),
        ("ExpiredToken", "The security token has expired", "host_credentials_expired", "sign in again"),
        ("InvalidClientTokenId", "The token is invalid.", "host_credentials_invalid", "AWS_PROFILE"),
        ("SignatureDoesNotMatch", "no match", "host_credentials_invalid", "clock"),
        ("RegionDisabledException", "STS is not activated", "sts_region_disabled", "set options.stsRegion"),
        ("MalformedPolicyDocument", "Syntax errors in policy.", "policy_malformed", "options.kmsKeyArn"),
        ("ValidationError", "roleArn is invalid", "role_invalid", "Check options.mountRoleArn"),
        ("SomethingNew", "odd\x1b[31m\nline", "role_refused", "SomethingNew"),
        (f"A{'B' * 500}", "x" * 5000, "role_refused", "trust policy"),
    ],
)
@pytest.mark.one_in(3)
def test_each_refusal_has_its_code_and_its_remedy(
    sts: Sts, fetch: Fetch, *, code: str, message: str, expected: str, phrase: str
) -> None:
    # A control character is no XML at all.
    sts.status, sts.answer = 403, error(code, message.replace("\x1b", "\u009b"))
    refused = refusal(fetch, workspace(sts.endpoint))
    assert refused.code == expected
    assert phrase in str(refused)
    assert ROLE in str(refused)
    assert sts.endpoint in str(refused)
    assert not refused.retryable
    assert len(sts.asked) == 1


def test_a_refusal_that_quotes_this_machines_keys_is_not_passed_on(sts: Sts, fetch: Fetch) -> None:
    for secret in (HOST["AWS_SECRET_ACCESS_KEY"], HOST["AWS_SESSION_TOKEN"]):
        sts.status, sts.answer = 403, error("AccessDenied", f"x-amz-security-token:{secret}")
        assert refusal(fetch, workspace(sts.endpoint)).code == "role_denied"


def test_a_service_that_fails_is_asked_again_and_then_later(sts: Sts, fetch: Fetch) -> None:
    for status, code in ((400, "ThrottlingException"), (503, "ServiceUnavailable"), (500, "InternalFailure")):
        sts.asked.clear()
        sts.status, sts.answer = status, error(code)
        refused = refusal(fetch, workspace(sts.endpoint))
        assert refused.code == "sts_unavailable"
        assert refused.retryable
        assert "Try again later" in refused.for_model
        assert len(sts.asked) == aws.ATTEMPTS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "given/secret but no XML",
        "<AssumeRoleResponse>",
        answer(Expiration="given/secret"),
        answer(Expiration=None),
        answer(Expiration="1e300"),
        answer(Expiration="2001-01-01T00:00:00Z"),
        answer(AccessKeyId=None),
        answer(SecretAccessKey=None),
        answer(SecretAccessKey=""),
        answer(SessionToken=None),
        answer(SessionToken="given/secret\n"),
        answer(SessionToken="given/secret é"),
        answer(SessionToken="x" * 20_000),
        answer(packed="given/secret"),
        "<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>",
    ],
    ids=range(16),
)
@pytest.mark.one_in(3)
def test_an_answer_without_usable_credentials_is_refused_and_not_shown(
    sts: Sts, fetch: Fetch, text: str
) -> None:
    sts.answer = text
    refused = refusal(fetch, workspace(sts.endpoint))
    assert refused.code == "sts_unreadable"
    assert "options.stsEndpoint" in str(refused)


@pytest.mark.parametrize(("packed", "warns"), [(90, False), (91, True)])
def test_a_policy_that_almost_fills_the_space_is_warned_of(
    sts: Sts, fetch: Fetch, caplog: pytest.LogCaptureFixture, packed: int, warns: bool
) -> None:
    sts.answer = answer(packed)
    fetch(workspace(sts.endpoint))
    warned = [item.getMessage() for item in caplog.records if item.levelno == logging.WARNING]
    assert [f"takes {packed} %" in item and ROLE in item for item in warned] == [True] * warns


def test_no_log_shows_a_secret(sts: Sts, fetch: Fetch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        fetch(workspace(sts.endpoint))
        logging.getLogger("botocore.parsers").debug("and other threads may log again")
    for secret in SECRETS:
        assert secret not in caplog.text
    assert "and other threads may log again" in caplog.text


# --- who does not answer, and who cannot ask -------------------------------------------------------------


def test_a_policy_that_is_too_large(
    server: LocalDaytona, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def longer(made: S3Workspace) -> str:
        return aws_policy(made).replace('"Statement"', f'"Id":"{"x" * 2500}","Statement"')

    aws_policy = aws.session_policy
    monkeypatch.setattr(aws, "session_policy", longer)
    refused = refusal(fetch, workspace(server.s3_endpoint))
    assert refused.code == "policy_too_large"
    percent = refused.context["packed_policy_percent"]
    assert isinstance(percent, int)
    assert percent > 120
    assert f"PackedPolicySize is {percent} %" in str(refused)
    assert "shorter names" in str(refused)


def test_credentials_that_have_expired_on_arrival(server: LocalDaytona, fetch: Fetch) -> None:
    server.s3.credential_lifetime_s = -10
    try:
        refused = refusal(fetch, workspace(server.s3_endpoint))
    finally:
        server.s3.credential_lifetime_s = None
    assert refused.code == "sts_unreadable"
    assert "is this machine's clock right?" in str(refused)


def test_expired_credentials_of_this_machine(
    server: LocalDaytona, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = fetch(workspace(server.s3_endpoint))
    server.s3.expire_credentials()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", host.access_key_id)
    refused = refusal(fetch, workspace(server.s3_endpoint))
    assert refused.code == "host_credentials_expired"
    assert "have expired" in str(refused)


def test_no_connection(sts: Sts, fetch: Fetch) -> None:
    endpoint = sts.endpoint
    sts.server_close()
    refused = refusal(fetch, workspace(endpoint))
    assert refused.code == "sts_unreachable"
    assert refused.retryable
    assert endpoint in str(refused)
    assert "options.stsRegion (SANDBOX_MOUNT_STS_REGION)" in str(refused)


def test_a_connection_closed_without_an_answer(sts: Sts, fetch: Fetch) -> None:
    sts.status = 0
    refused = refusal(fetch, workspace(sts.endpoint))
    assert (refused.code, refused.retryable) == ("sts_unreachable", True)
    assert "ConnectionClosedError" in str(refused)


def test_a_machine_without_credentials(
    server: LocalDaytona, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in HOST:
        monkeypatch.delenv(name)
    server.s3.clear_requests()
    refused = refusal(fetch, workspace(server.s3_endpoint))
    assert refused.code == "host_credentials_missing"
    for remedy in (
        "AWS_PROFILE",
        "single sign-on",
        "options.mountRoleArn",
        "SANDBOX_MOUNT_ROLE_ARN",
        "in envVars",
    ):
        assert remedy in str(refused)
    assert server.s3.requests == []

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHALF")
    refused = refusal(fetch, workspace(server.s3_endpoint))
    assert refused.code == "host_credentials_missing"
    assert "AWS_SECRET_ACCESS_KEY" in str(refused)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    refused = refusal(fetch, workspace(server.s3_endpoint))
    assert refused.code == "host_credentials_missing"
    assert "nowhere" in str(refused)


@pytest.mark.parametrize("prints", ["exit 1", "echo host+s3cr3t/0f-this/machine"])
def test_a_profile_whose_program_fails(
    server: LocalDaytona, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, prints: str
) -> None:
    for name in HOST:
        monkeypatch.delenv(name)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho host+s3cr3t/0f-this/machine >&2\n{prints}\n")
    program.chmod(0o755)
    (tmp_path / "AWS_CONFIG_FILE").write_text(f"[default]\ncredential_process = {program}\n")
    refused = refusal(fetch, workspace(server.s3_endpoint))
    assert refused.code == "host_credentials_unusable"
    assert "sign in again" in str(refused)


def test_without_an_endpoint_the_regions_own_sts_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.internal:9000")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://sts.internal:9000")
    for region, host in (
        ("us-east-1", "https://sts.us-east-1.amazonaws.com"),
        ("eu-west-1", "https://sts.eu-west-1.amazonaws.com"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
    ):
        with contextlib.closing(aws._client(aws._session(), MountRole(ROLE, None, region, None))) as client:
            assert client.meta.endpoint_url == host


def test_the_adapter_loads_boto3_only_when_it_asks(sts: Sts) -> None:
    program = (
        "import sys, langchain_daytona_ws._session.credential_cache, langchain_daytona_ws._adapters.aws\n"
        "assert not {'boto3', 'botocore', 'daytona'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=180)
