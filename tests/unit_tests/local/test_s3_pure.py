"""What of the local S3 and of mount-s3 needs neither a server nor a mount."""

from __future__ import annotations

import json
from typing import Any

import pytest

from langchain_daytona_ws.local.mountpoint import arguments
from langchain_daytona_ws.local.s3.policy import Policy

OBJECTS = "arn:aws:s3:::agents/sandbox/demo/*"


def policy(*statements: dict[str, Any]) -> Policy:
    return Policy(json.dumps({"Statement": list(statements)}))


def allow(action: Any, resource: Any, **condition: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **condition}


@pytest.mark.parametrize(
    ("action", "resource", "prefix", "allowed"),
    [
        ("s3:GetObject", "arn:aws:s3:::agents/sandbox/demo/a/b", None, True),
        ("s3:getobject", "arn:aws:s3:::agents/sandbox/demo/a", None, True),
        ("s3:GetObject", "arn:aws:s3:::agents/sandbox/demo2/a", None, False),
        ("s3:GetObject", "arn:aws:s3:::agents/sandbox/demo", None, False),
        ("s3:GetObject", "arn:aws:s3:::other/sandbox/demo/a", None, False),
        ("s3:PutObject", "arn:aws:s3:::agents/sandbox/demo/a", None, False),
        ("s3:ListBucket", "arn:aws:s3:::agents", "sandbox/demo/", True),
        ("s3:ListBucket", "arn:aws:s3:::agents", "sandbox/demo2/", False),
        ("s3:ListBucket", "arn:aws:s3:::agents", "", False),
        ("s3:ListBucket", "arn:aws:s3:::agents", None, False),
    ],
)
def test_a_policy(action: str, resource: str, prefix: str | None, allowed: bool) -> None:
    condition = {"Condition": {"StringLike": {"s3:prefix": ["sandbox/demo/*"]}}}
    made = policy(
        allow(["s3:GetObject"], OBJECTS), allow("s3:ListBucket", "arn:aws:s3:::agents", **condition)
    )
    assert made.allows(action, resource, {} if prefix is None else {"s3:prefix": prefix}) is allowed


def test_a_denial_wins_and_a_condition_that_is_not_understood_is_not_met() -> None:
    denied = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::agents/secret/*"}
    made = policy(allow("s3:*", "*"), denied)
    assert made.allows("s3:GetObject", "arn:aws:s3:::agents/a", {})
    assert not made.allows("s3:GetObject", "arn:aws:s3:::agents/secret/a", {})
    odd = policy(allow("s3:*", "*", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}))
    assert not odd.allows("s3:GetObject", "arn:aws:s3:::agents/a", {})


def test_brackets_are_no_pattern() -> None:
    made = policy(allow("s3:*", "arn:aws:s3:::agents/[a]"))
    assert made.allows("s3:GetObject", "arn:aws:s3:::agents/[a]", {})
    assert not made.allows("s3:GetObject", "arn:aws:s3:::agents/a", {})


def test_the_command_line_that_sessions_use() -> None:
    flags = (
        "--region eu-west-1 --allow-delete --allow-overwrite --allow-other --endpoint-url=http://127.0.0.1:1"
    )
    more = "--force-path-style --upload-checksums off --dir-mode 700 -f"
    options = arguments.parse(f"agents /mnt/w --prefix sandbox/demo/ {flags} {more}".split())
    assert (options.bucket, options.directory, options.prefix) == ("agents", "/mnt/w", "sandbox/demo/")
    assert options.allow_delete
    assert options.foreground
    assert not options.read_only
    assert options.dir_mode == 0o700
    assert options.file_mode == 0o644
    assert arguments.parse(["s3://agents/a/", "/mnt"]).prefix == "a/"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("agents", "required arguments were not provided:\n  <DIRECTORY>"),
        ("agents /mnt extra", "unexpected argument 'extra' found"),
        ("agents /mnt --nope=1", "unexpected argument '--nope' found"),
        ("agents /mnt --allow", "unexpected argument '--allow' found"),
        ("agents /mnt --uid 0", "invalid value '0' for '--uid <UID>': 0 is not in 1..=4294967295"),
        ("agents /mnt --uid x", "invalid digit found in string"),
        ("agents /mnt --file-mode 9", "must be a valid octal number"),
        ("agents /mnt --file-mode 4755", "only user/group/other permissions are supported"),
        ("agents /mnt --upload-checksums md5", "possible values: crc32c, off"),
        ("agents /mnt --allow-root --allow-other", "cannot be used with"),
        ("agents /mnt --prefix a", "prefix must end in '/'"),
        ("s3://agents/a/ /mnt --prefix a/", "explicit prefix option not allowed with S3 URI"),
        ("a /mnt", "the bucket must have a valid name"),
        ("agents /mnt --max-cache-size 5", "--cache <DIRECTORY>"),
    ],
)
def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.parse(line.split())
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith(f"error: {message[:12]}" if message.startswith("invalid value") else "error: ")
    assert error.endswith("For more information, try '--help'.\n")
