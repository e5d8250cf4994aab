"""Functions of the local S3 and mount-s3 that need neither a server nor a mount."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_daytona_ws.local.mountpoint import arguments, tree
from langchain_daytona_ws.local.mountpoint.bucket import StoredObject
from langchain_daytona_ws.local.s3.gate import Gate
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


class Objects:
    """A bucket whose object another program can remove."""

    def __init__(self) -> None:
        self.stored: StoredObject | None = StoredObject(1, 0.0, "etag")

    def is_folder(self, path: str) -> bool:
        return False

    def head(self, path: str) -> StoredObject | None:
        return self.stored

    def delete(self, path: str) -> None:
        self.stored = None


@pytest.mark.parametrize("by_the_mount", [False, True])
def test_stat_finds_a_deleted_file_for_a_tenth_of_a_second(
    monkeypatch: pytest.MonkeyPatch, by_the_mount: bool
) -> None:
    now = [100.0]
    monkeypatch.setattr(tree, "time", SimpleNamespace(monotonic=lambda: now[0]))
    objects: Any = Objects()
    made = tree.Tree(objects)
    found = made.lookup("f")
    assert found is objects.stored
    now[0] += 0.09
    if by_the_mount:
        made.remove_file("f")
    else:
        objects.stored = None
    assert made.lookup("f") is (None if by_the_mount else found)
    with pytest.raises(FileNotFoundError):
        made.require("f")
    now[0] += 0.02
    assert made.lookup("f") is None


class Moto:
    """An application with one object, which waits between checking a condition and changing the object."""

    def __init__(self) -> None:
        self.etag = "0"
        self.bodies: list[bytes] = []
        self.looking = threading.Barrier(2, timeout=0.2)

    def __call__(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            code = b"NoSuchBucket" if environ["PATH_INFO"].startswith("/none/") else b"NoSuchKey"
            start("404 Not Found" if environ["PATH_INFO"].endswith("missing") else "200 OK", [])
            return [b"<Error><Code>" + code + b"</Code></Error>"]
        met = environ.get("HTTP_IF_MATCH") == self.etag
        with contextlib.suppress(threading.BrokenBarrierError):
            self.looking.wait()
        self.bodies.append(environ["wsgi.input"].read())
        if met:
            self.etag += "+"
        start("200 OK" if met else "412 Precondition Failed", [])
        return [b""]


def ask(gate: Gate, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[str, bytes]:
    answered: list[str] = []
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)),
        **headers,
    }  # fmt: skip
    text = b"".join(gate(environ, lambda status, *_: answered.append(status)))
    return answered[0], text


def test_of_two_changes_under_the_same_condition_one_is_made() -> None:
    moto = Moto()
    gate = Gate(moto, "/control")
    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(lambda n: ask(gate, "PUT", "/agents/a", b"%d" % n, HTTP_IF_MATCH="0")[0], range(2))
        )
    assert sorted(done) == ["200 OK", "412 Precondition Failed"]
    assert sorted(moto.bodies) == [b"0", b"1"]


def test_a_conditional_listing_permission_hides_missing_keys() -> None:
    gate = Gate(Moto(), "/control")
    assert ask(gate, "GET", "/agents/missing")[0] == "404 Not Found"
    ask(gate, "POST", "/control", json.dumps({"settings": {"head_403": True, "deny": []}}).encode())
    status, text = ask(gate, "GET", "/agents/missing")
    assert (status, b"AccessDenied" in text) == ("403 Forbidden", True)
    assert ask(gate, "HEAD", "/agents/missing") == ("403 Forbidden", b"")
    assert ask(gate, "GET", "/none/missing")[0] == "404 Not Found"
    assert ask(gate, "GET", "/agents/a")[0] == "200 OK"


def test_a_key_has_a_length() -> None:
    gate = Gate(Moto(), "/control")
    assert ask(gate, "GET", "/agents/" + "x" * 1024)[0] == "200 OK"
    status, text = ask(gate, "GET", "/agents/" + "x" * 1025)
    assert (status, b"KeyTooLongError" in text) == ("400 Bad Request", True)
