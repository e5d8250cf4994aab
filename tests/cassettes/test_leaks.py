"""No cassette contains a secret: secrets are removed, and texts that look like secrets are found."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from langchain_daytona_ws._core.guest_rpc.payload import guest_call
from tests.cassettes.leaks import leaks
from tests.cassettes.normalised import Normaliser
from tests.cassettes.record import RECORDED
from tests.cassettes.tape import Leaked, load, save
from tests.cassettes.wire import NoText, answer_of, request_of

# None was ever valid; some are AWS's published examples.
SECRETS = {
    "access key": "AKIAIOSFODNN7EXAMPLE",
    "access key of a role": "ASIAIOSFODNN7EXAMPLE",
    "secret key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "session token": "FwoGZXIvYXdzEBYaDKB0NBZhm6TZGUHiEJ/emS3mXkRrJwzPhz",
    "Daytona key": "dtn_0123456789abcdef0123456789abcdef",
    "header": "Authorization: Bearer abcdefghijkl",
    "bearer": "bearer 0123456789abcdef",
    "web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkdyJ9.c2lnbmF0dXJl",
    "signed URL": "https://agents.s3.test/a?X-Amz-Credential=a&X-Amz-Signature=0123abcd",
    "STS answer": "<SessionToken>something</SessionToken>",
    "credential process": '{"Version": 1, "SecretAccessKey": "something"}',
    "organization": "7d9ee39a-2f14-4ee7-9cfe-031d4bda3683",
    "address": "somebody@example.com",
    "key file": "-----BEGIN RSA PRIVATE KEY-----",
}
WRAPPED: dict[str, Callable[[str], str]] = {
    "plain": str,
    "in JSON": lambda text: json.dumps(json.dumps({"value": text})),
    "quoted": lambda text: quote(text, safe=""),
    "base64": lambda text: base64.b64encode(f"in: {text} :it".encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(f"in: {text} ?>~".encode()).decode(),
    "compressed": lambda text: base64.b64encode(zlib.compress(f"value: {text}".encode())).decode(),
    "zipped": lambda text: base64.b64encode(gzip.compress(f"value: {text}".encode())).decode(),
    "twice": lambda text: base64.b64encode(base64.b64encode(f"value: {text}".encode())).decode(),
}


def _files() -> list[Path]:
    return sorted(RECORDED.iterdir())


@pytest.mark.parametrize("path", _files(), ids=lambda path: path.stem)
def test_no_cassette_contains_a_secret(path: Path) -> None:
    assert leaks(path.read_text()) == []


@pytest.mark.parametrize("path", _files(), ids=lambda path: path.stem)
def test_a_cassette_is_text_that_can_be_read(path: Path) -> None:
    text = path.read_bytes().decode()
    assert "!!" not in text
    # Without programs and other packed data.
    assert max(len(word) for line in text.splitlines() for word in line.split()) < 400


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.one_in(3)
def test_a_planted_secret_is_found_and_not_written(tmp_path: Path, kind: str, wrap: str) -> None:
    cassette = load(RECORDED / "command-sync.yaml")
    save(tmp_path / "good.yaml", cassette, secrets=[])
    cassette["interactions"][1]["response"]["body"]["answer"]["head_text"] = WRAPPED[wrap](SECRETS[kind])
    with pytest.raises(Leaked) as refused:
        save(tmp_path / "bad.yaml", cassette, secrets=[])
    assert SECRETS[kind] not in str(refused.value)
    assert not (tmp_path / "bad.yaml").exists()


def test_secrets_of_the_recorder_are_never_written(tmp_path: Path) -> None:
    cassette = load(RECORDED / "command-sync.yaml")
    with pytest.raises(Leaked):
        save(tmp_path / "bad.yaml", cassette, secrets=["echo one"])


def test_credentials_are_not_recorded() -> None:
    secret = json.dumps({"Version": 1, "AccessKeyId": SECRETS["access key"], "SecretAccessKey": "x" * 40})
    call = guest_call("command", {"command": "ls"}, "0" * 32, secret=secret.encode())
    body = json.dumps({"command": call.script, "envs": {**call.env, "MY_TOKEN": "t0k3n"}, "timeout": 5})
    headers = {
        "Authorization": "Bearer " + SECRETS["Daytona key"],
        "X-Daytona-Organization-ID": SECRETS["organization"],
    }
    assert leaks(body)
    plain, nonce = request_of("POST", "https://daytona.test/toolbox/a/process/execute", headers, body)
    assert plain == {
        "method": "POST",
        "url": "https://daytona.test/toolbox/a/process/execute",
        "body": {
            "guest": "command",
            "carries": "source",
            "timeout": 5,
            "request": {"command": "ls"},
            "secret": ["AccessKeyId", "SecretAccessKey", "Version"],
            "env": ["MY_TOKEN"],
        },
    }
    assert nonce == "0" * 32


def test_an_sts_answer_is_recorded_without_credentials() -> None:
    xml = (
        "<AssumeRoleResponse><AssumeRoleResult><Credentials>"
        f"<AccessKeyId>{SECRETS['access key of a role']}</AccessKeyId>"
        f"<SecretAccessKey>{SECRETS['secret key']}</SecretAccessKey>"
        f"<SessionToken>{SECRETS['session token']}</SessionToken>"
        "<Expiration>2026-01-02T03:04:05Z</Expiration></Credentials>"
        "<AssumedRoleUser><AssumedRoleId>AROA3X42LBCDGV5NHIN5J:demo</AssumedRoleId></AssumedRoleUser>"
        "</AssumeRoleResult></AssumeRoleResponse>"
    )
    assert leaks(xml)
    answer = _answer(xml.encode())
    assert leaks(json.dumps(answer)) == []
    assert "<Expiration>2025-06-15T16:06:40.000Z</Expiration>" in answer["body"]


def test_account_details_of_a_sandbox_are_not_recorded() -> None:
    body = {
        "id": SECRETS["organization"],
        "organizationId": SECRETS["organization"].replace("7", "8"),
        "env": {"KEY": "value"},
        "authToken": "value",
        "buildLogsUrl": SECRETS["signed URL"],
    }
    assert leaks(json.dumps(body))
    plain = _answer(json.dumps(body).encode(), is_json=True)["body"]
    assert plain == {
        "id": "00000000-0000-4000-8000-000000000001",
        "organizationId": "00000000-0000-4000-8000-000000000002",
        "env": {"KEY": "scrubbed"},
        "authToken": "scrubbed",
        "buildLogsUrl": "https://agents.s3.test/a?signed",
    }


def test_binary_bodies_are_not_recorded() -> None:
    with pytest.raises(NoText):
        _answer(b"\x89PNG\r\n")


def _answer(body: bytes, *, is_json: bool = False) -> dict[str, object]:
    headers = {"Date": ["today"], "x-amz-request-id": ["1"]}
    response = {"status": {"code": 200, "message": "OK"}, "headers": headers, "body": {"string": body}}
    return Normaliser()(answer_of(response, is_json=is_json))
