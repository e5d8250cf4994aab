"""Files straight on S3: boto3 and a real HTTP server between the operations and the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import re
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config

from langchain_daytona_ws._adapters import s3_bucket
from langchain_daytona_ws._adapters.s3 import AsyncS3Store, S3Store, SyncS3Store
from langchain_daytona_ws._adapters.s3_bucket import KEPT_CLIENTS, Bucket
from langchain_daytona_ws._core.files import rendering as render
from langchain_daytona_ws._core.files.models import EditQuery, NeedsSandbox
from langchain_daytona_ws._core.files.operations import FileOperations
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.files import S3Files
from langchain_daytona_ws._core.s3.policy import session_policy
from langchain_daytona_ws._core.s3.store import Credentials, StoreFault, StoreFaultKind
from langchain_daytona_ws._core.s3.workspace import Mount, S3Workspace
from langchain_daytona_ws.errors import (
    FileError,
    FileMissing,
    FileUnsuitable,
    PathRefused,
    WorkspaceError,
    WriteConflict,
)
from tests.integration_tests import s3
from tests.sample import sample

T = TypeVar("T")
KEYS = Credentials("AKIAWORKSPACE", "a-secret-of-the-workspace")

bucket = s3.bucket


def workspace_of(bucket: s3.Bucket, **more: Any) -> S3Workspace:
    prefix = more.pop("prefix", bucket.key(""))
    settings: dict[str, Any] = {
        "region": "us-east-1",
        "endpoint": bucket.server.s3_endpoint,
        "workspace": Mount(more.pop("name", bucket.name), prefix, "/mnt/ns"),
        "skills": None,
        "kms_key_arn": None,
        "role": None,
        "keys": KEYS,
    }
    return S3Workspace(**{**settings, **more})


class Keys:
    """Returns these credentials in order, and then the last one repeatedly."""

    def __init__(self, *given: Credentials) -> None:
        self.given = list(given) or [KEYS]
        self.refused: list[Credentials] = []

    async def current(self) -> Credentials:
        return self.given[0]

    def expired(self, credentials: Credentials) -> None:
        self.refused.append(credentials)
        if len(self.given) > 1:
            self.given.pop(0)


class Runtime:
    """The sync or async runtime, and its sessions."""

    def __init__(self, kind: type[S3Store], bucket: s3.Bucket) -> None:
        self.outside = bucket
        self.kind = kind
        self._runner = asyncio.Runner() if kind is AsyncS3Store else None
        self._buckets: list[Bucket] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work) if self._runner else run_sync(work)

    def store(self, keys: Keys | None = None, **more: Any) -> S3Store:
        keys = keys or Keys()
        self._buckets.append(Bucket(workspace_of(self.outside, **more)))
        return self.kind(self._buckets[-1], keys.current, keys.expired)

    def ops(self, store: S3Store | None = None) -> FileOperations:
        return FileOperations(S3Files(store or self.store(), where="s3://agents"), root="/mnt/ns")

    def refusal(self, kind: type[WorkspaceError], work: Coroutine[Any, Any, object]) -> WorkspaceError:
        with pytest.raises(kind) as caught:
            self.run(work)
        assert "agents" not in caught.value.for_model
        return caught.value

    def close(self) -> None:
        for item in self._buckets:
            item.close()
        if self._runner:
            self._runner.close()


@pytest.fixture(params=[SyncS3Store, AsyncS3Store], ids=["sync", "async"])
def runtime(request: pytest.FixtureRequest, bucket: s3.Bucket) -> Iterator[Runtime]:
    made = Runtime(request.param, bucket)
    yield made
    made.close()


@pytest.mark.parametrize("forbidding", [False, True])
def test_all_operations_on_a_file(runtime: Runtime, bucket: s3.Bucket, forbidding: bool) -> None:
    bucket.server.s3.head_403 = forbidding
    bucket.server.s3.clear_requests()

    async def day(ops: FileOperations) -> None:
        assert (await ops.write("src/a.py", "x = 1\ny = 2\n")).created
        assert (
            render.file_text(await ops.read("src/a.py", offset=2))
            == "     2\ty = 2\n[Showing lines 2-2 of 2.]"
        )
        assert render.edited(await ops.edit("src/a.py", "y = 2", "y = 3")).startswith(
            "Edited src/a.py: 1 repl"
        )
        assert render.written(await ops.write("src/a.py", "z\n")) == "Wrote src/a.py (2 bytes)."
        assert (
            render.written(await ops.write("src/a.py", "z\n")) == "src/a.py already has exactly this content."
        )
        assert render.listing(await ops.list()) == "src/"
        assert render.listing(await ops.list("src")) == "a.py  2 bytes"
        assert render.globbed(await ops.glob("**/*.py")) == "src/a.py"
        assert render.grepped(await ops.grep("z", output_mode="content")) == "src/a.py:1:z"
        assert render.deleted(await ops.delete("src/a.py")) == "Deleted src/a.py."
        with pytest.raises(FileMissing):
            await ops.read("src/a.py")
        assert render.listing(await ops.list()) == "[The directory is empty.]"

    runtime.run(day(runtime.ops()))
    asked = [item for item in bucket.server.s3.requests if item.access_key == KEYS.access_key_id]
    assert {item.method for item in asked} == {"GET", "PUT", "DELETE"}, "no HEAD"
    assert all(
        item.key.startswith(bucket.key("")) or item.query["prefix"].startswith(bucket.key(""))
        for item in asked
    )


def test_a_read_is_one_request(runtime: Runtime, bucket: s3.Bucket) -> None:
    bucket.put("a", b"x")
    bucket.server.s3.clear_requests()
    runtime.run(runtime.ops().read("a"))
    assert len(bucket.server.s3.requests) == 1


def test_an_edit_is_one_get_and_one_put(runtime: Runtime, bucket: s3.Bucket) -> None:
    bucket.put("src/a", b"one")
    bucket.server.s3.clear_requests()
    runtime.run(runtime.ops().edit("src/a", "one", "two"))
    sent = [(item.method, item.key, item.status) for item in bucket.server.s3.requests]
    assert sent == [("GET", bucket.key("src/a"), 200), ("PUT", bucket.key("src/a"), 200)]


@pytest.mark.parametrize(
    "form", sample({"one directory": "many/{0:03}", "several": "many/{1}/{0}"}, "several")
)
def test_many_objects_are_listed_and_no_page_twice(
    runtime: Runtime, bucket: s3.Bucket, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_bucket, "LONGEST_PAGE", 20)
    for number in range(200):
        bucket.put(form.format(number, number % 10), b"")
    bucket.server.s3.clear_requests()
    assert runtime.run(runtime.ops().glob("**", path="many", limit=1)).total == 200
    queries = [tuple(sorted(item.query.items())) for item in bucket.server.s3.requests]
    assert len(queries) == len(set(queries)) >= 10


class TestConcurrentWriters:
    @pytest.mark.full
    def test_edits_of_two_sessions_are_all_kept(self, bucket: s3.Bucket) -> None:
        """A sync and an async session, and an editor of each in bash's manner of reading between them."""
        bucket.put("counts", b"a=0\nb=0\n")

        async def count(ops: FileOperations, name: str) -> None:
            for n in range(100):
                assert (await ops.edit("counts", f"{name}={n}\n", f"{name}={n + 1}\n")).count == 1

        def work(kind: type[S3Store], name: str) -> None:
            runtime = Runtime(kind, bucket)
            try:
                runtime.run(count(runtime.ops(), name))
            finally:
                runtime.close()

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(work, SyncS3Store, "a"), pool.submit(work, AsyncS3Store, "b")]:
                done.result()
        assert bucket.get("counts") == b"a=100\nb=100\n"

    def test_concurrent_edits_of_one_session_are_all_kept(self, bucket: s3.Bucket) -> None:
        """Ten parallel calls of a tool, as by a model."""
        bucket.put("list", b"".join(b"item%d\n" % n for n in range(10)))
        runtime = Runtime(AsyncS3Store, bucket)
        ops = runtime.ops()

        async def all_of_them() -> None:
            await asyncio.gather(*(ops.edit("list", f"item{n}\n", f"done{n}\n") for n in range(10)))

        runtime.run(all_of_them())
        runtime.close()
        assert bucket.get("list") == b"".join(b"done%d\n" % n for n in range(10))

    def test_one_of_two_creations_of_a_file_succeeds(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        item, other = runtime.ops(), runtime.ops()
        assert runtime.run(item.write("new", "mine")).created
        assert runtime.refusal(WriteConflict, other.write("new", "theirs")).code == "exists_unread"
        assert runtime.run(other.write("new", "mine")).unchanged
        assert bucket.get("new") == b"mine"

    def test_a_write_over_a_changed_file_is_refused(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        bucket.put("a", b"one")
        ops = runtime.ops()
        runtime.run(ops.read("a"))
        bucket.put("a", b"two")
        assert runtime.refusal(WriteConflict, ops.write("a", "three")).code == "changed"
        runtime.run(ops.read("a"))
        runtime.run(ops.write("a", "three"))
        assert bucket.get("a") == b"three"


class TestContents:
    def test_odd_names_and_bytes_are_kept(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        names = [
            "a b",
            "é漢🙂",
            "a+b%20c",
            "x?y#z&w=1",
            "-rf",
            "'\"`$(x)",
            "~",
            "a\\b",
            "x" * 255,
        ]
        ops = runtime.ops()
        for name in names:
            # A new name with a backslash has to be quoted.
            path = f"odd/{name}" if "\\" not in name else rf"$'odd/{name.replace(chr(92), chr(92) * 2)}'"
            assert runtime.run(ops.write(path, name.encode() + b"\r\n")).created
        assert sorted(entry.name for entry in runtime.run(ops.list("odd")).entries) == sorted(names)
        assert sorted(e.name for e in runtime.run(ops.glob("odd/*")).entries) == sorted(
            f"odd/{name}" for name in names
        )
        for name in names:
            runtime.run(ops.read(f"odd/{name}"))
            runtime.run(ops.edit(f"odd/{name}", name, "new"))
            assert bucket.get(f"odd/{name}") == b"new\r\n"
            runtime.run(ops.delete(f"odd/{name}"))
        assert bucket.paths() == []

    @pytest.mark.full
    def test_a_large_and_an_empty_file(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        large = bytes(range(256)) * (100 << 12)
        ops = runtime.ops()
        assert runtime.run(ops.write("large", large)).size_bytes == 100 << 20
        assert bucket.get("large") == large
        assert runtime.refusal(FileUnsuitable, ops.read("large")).code == "too_large"
        assert runtime.run(ops.write("large", "")).size_bytes == 0
        assert render.file_text(runtime.run(ops.read("large"))) == "[The file is empty.]"

    def test_a_file_over_the_limit_is_not_transferred(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        bucket.put("large", b"x" * 1000)
        stored = runtime.run(runtime.store().get("large", max_bytes=999))
        assert (stored.data, stored.info.size_bytes) == (None, 1000)
        assert runtime.run(runtime.store().get("large", max_bytes=1000)).data == b"x" * 1000

    @pytest.mark.full
    def test_many_files_are_listed_and_searched(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: bucket.put(f"m/{n % 7}/f{n:04}", b"hit %d\n" % n), range(1010)))
        ops = runtime.ops()
        assert runtime.run(ops.glob("**", limit=5000)).total == 1010
        assert runtime.run(ops.list("m")).total == 7
        found = runtime.run(ops.grep("hit (1|99)$", path="m/1"))
        assert [row.path for row in found.rows] == ["m/1/f0001", "m/1/f0099"]
        with pytest.raises(NeedsSandbox):
            runtime.run(ops.grep("hit"))

    def test_marks_outlive_the_process(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        bucket.put("a", b"x\n")
        query = EditQuery("x", "x x", replace_all=False, exact=False, max_bytes=100)
        assert runtime.run(S3Files(runtime.store()).edit("a", query, key="call1")).lines == (1,)
        assert runtime.run(S3Files(runtime.store()).edit("a", query, key="call1")).lines == ()
        assert bucket.get("a") == b"x x\n"


class TestRefusals:
    def test_denied_operations_are_errors(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        bucket.put("secret/a", b"x")
        bucket.server.s3.deny = (f"{bucket.name}/{bucket.key('secret/a')}",)
        ops = runtime.ops()
        for work in (
            ops.read("secret/a"),
            ops.edit("secret/a", "x", "y"),
            ops.write("secret/a", "y", overwrite=True),
        ):
            error = runtime.refusal(FileError, work)
            assert (error.code, "s3:GetObject" in error.message) == ("s3_denied", True)
        bucket.server.s3.deny = (f"{bucket.name}/",)
        for work in (ops.list(), ops.glob("*"), ops.grep("x"), ops.delete("a"), ops.write("b", "x")):
            assert runtime.refusal(FileError, work).code == "s3_denied"

    def test_a_wrong_bucket_or_region_is_an_error(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        missing = runtime.ops(runtime.store(name="there-is-no-such-bucket"))
        for work in (missing.read("a"), missing.list(), missing.write("a", "x")):
            assert runtime.refusal(FileError, work).code == "s3_no_bucket"
        elsewhere = bucket.server.make_bucket(f"elsewhere-{bucket.namespace}", "eu-central-1")
        wrong = runtime.ops(runtime.store(name=elsewhere))
        for work in (wrong.read("a"), wrong.list(), wrong.write("a", "x")):
            error = runtime.refusal(FileError, work)
            assert (error.code, "The bucket is in eu-central-1." in error.message) == ("s3_region", True)
        assert runtime.run(
            runtime.ops(runtime.store(name=elsewhere, region="eu-central-1")).write("a", "x")
        ).created

    def test_no_key_leaves_the_prefix(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        store = runtime.store()
        for key in ("../x", "/x", "a/../../x", "a/.", ""):
            for work in (store.get(key, max_bytes=1), store.delete(key)):
                with pytest.raises(StoreFault) as caught:
                    runtime.run(work)
                assert caught.value.kind is StoreFaultKind.REFUSED
        bucket.client.put_object(Bucket=bucket.name, Key=f"sandbox/{bucket.namespace}2/x", Body=b"theirs")
        assert runtime.run(store.list_page("")).objects == ()
        with pytest.raises(ValueError, match="slash"):
            Bucket(workspace_of(bucket, prefix="sandbox/x"))

    def test_a_key_that_is_too_long_is_refused(self, runtime: Runtime) -> None:
        assert (
            runtime.refusal(PathRefused, runtime.ops().write("/".join("d" * 600), "x")).code
            == "path_too_long"
        )


class TestCredentials:
    def test_expired_credentials_are_replaced_once(self, runtime: Runtime, bucket: s3.Bucket) -> None:
        bucket.put("a", b"x\n")
        for call in (
            lambda ops: ops.read("a"),
            lambda ops: ops.edit("a", "x", "x x"),
            lambda ops: ops.grep("x"),
            lambda ops: ops.write("b", "new"),
            lambda ops: ops.delete("b"),
        ):
            keys = Keys(assumed(bucket), assumed(bucket))
            bucket.server.s3.expire_credentials()
            keys.given[1:] = [assumed(bucket)]
            stale = keys.given[0]
            runtime.run(call(runtime.ops(runtime.store(keys))))
            assert keys.refused == [stale]
        assert bucket.get("a") == b"x x\n"

    def test_expired_credentials_without_replacement_are_an_error(
        self, runtime: Runtime, bucket: s3.Bucket
    ) -> None:
        keys = Keys(assumed(bucket))
        bucket.server.s3.expire_credentials()
        error = runtime.refusal(FileError, runtime.ops(runtime.store(keys)).list())
        assert error.code == "s3_credentials"
        assert len(keys.refused) == 1

    def test_this_machines_own_settings_are_not_used(
        self, runtime: Runtime, bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "config").write_text(
            "[default]\nregion = nowhere\nendpoint_url = http://127.0.0.1:9\n[broken\n"
        )
        for name, value in {
            "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "no-such-profile", "AWS_MAX_ATTEMPTS": "1",
            "AWS_ACCESS_KEY_ID": "AKIAHOST", "AWS_SECRET_ACCESS_KEY": "host", "AWS_SESSION_TOKEN": "host",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        bucket.server.s3.clear_requests()
        assert runtime.run(runtime.ops().write("a", "x")).created
        assert {item.access_key for item in bucket.server.s3.requests} == {KEYS.access_key_id}

    def test_no_log_contains_the_credentials(
        self,
        runtime: Runtime,
        bucket: s3.Bucket,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        for name in ("urllib3", "urllib3.connectionpool", "botocore"):  # others may have quietened them
            caplog.set_level(logging.DEBUG, logger=name)
            monkeypatch.setattr(logging.getLogger(name), "disabled", False)
        given = assumed(bucket)
        caplog.clear()
        ops = runtime.ops(runtime.store(Keys(given)))
        runtime.run(ops.write("a", "a text that is no secret"))
        runtime.run(ops.grep("text"))
        runtime.run(ops.list())
        runtime.run(ops.delete("a"))
        assert any(record.name.startswith("urllib3") for record in caplog.records), "something was logged"
        for secret in (given.secret_access_key, given.session_token, "a text that"):
            assert str(secret) not in caplog.text


def assumed(bucket: s3.Bucket) -> Credentials:
    """Get credentials from the local STS, for this prefix only."""
    policy = session_policy(workspace_of(bucket, role=None))
    with contextlib.closing(
        boto3.client(
            "sts", endpoint_url=bucket.server.s3_endpoint, region_name="us-east-1", aws_access_key_id="AKIAHOST",
            aws_secret_access_key="host", config=Config(proxies={}),
        )
    ) as sts:  # fmt: skip
        given = sts.assume_role(RoleArn=s3.ROLE, RoleSessionName="test", Policy=policy)["Credentials"]
    return Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])


class Answers:
    """A scripted HTTP server on its own port."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                head = self._head(connection)
                if not head:
                    return
                self.requests.append(head)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is not None:
                    self._take_body(connection, head)
                    connection.sendall(answer)

    def _head(self, connection: socket.socket) -> bytes:
        got = b""
        while b"\r\n\r\n" not in got and (piece := connection.recv(65536)):
            got += piece
        return got

    def _take_body(self, connection: socket.socket, got: bytes) -> None:
        """Read the whole request: closing a connection with unread data loses the answer."""
        head, _, body = got.partition(b"\r\n\r\n")
        if b"100-continue" in head.lower():
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        left = int(length[1]) - len(body) if length else 0
        while left > 0 and (piece := connection.recv(65536)):
            left -= len(piece)

    def close(self) -> None:
        with socket.create_connection(self._listening.getsockname()):
            pass
        self._thread.join()
        self._listening.close()


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [
        f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if name != "Content_Length"
    ]
    if "Content_Length" in headers:
        lines[2] = f"Content-Length: {headers['Content_Length']}"
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error(status: str, code: str, message: str = "no", more: str = "", **headers: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    return answer(status, body.encode(), Content_Type="application/xml", **headers)


DATE = "Mon, 01 Jan 2024 00:00:00 GMT"
GOOD = answer("200 OK", b"hello", ETag='"e"', Last_Modified=DATE)


# botocore leaves the connection of an answer that it cannot parse to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.sync_and_async
class TestOddAnswers:
    """A server that is no S3, or not today."""

    @pytest.fixture
    def tried(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
        monkeypatch.setattr("time.sleep", lambda _: None)
        servers: list[Answers] = []

        def attempt(call: Callable[[S3Store], Any], *answers: bytes | None) -> tuple[Any, Answers]:
            servers.append(Answers(*answers))
            try:
                return runtime.run(call(runtime.store(endpoint=servers[-1].endpoint))), servers[-1]
            except StoreFault as fault:
                return fault, servers[-1]

        yield attempt
        for server in servers:
            server.close()
        gc.collect()

    # botocore leaves a connection open if it cannot parse an answer's date, which Python 3.14 reports.
    @pytest.mark.filterwarnings(
        "ignore:Exception ignored while finalizing socket:pytest.PytestUnraisableExceptionWarning"
    )
    @pytest.mark.parametrize(
        ("answers", "kind", "code"),
        [
            ([error("404 Not Found", "NoSuchKey")], "MISSING", "NoSuchKey"),
            ([error("404 Not Found", "NoSuchBucket")], "REFUSED", "NoSuchBucket"),
            ([error("403 Forbidden", "AccessDenied")], "DENIED", "AccessDenied"),
            ([error("403 Forbidden", "RequestTimeTooSkewed")], "REFUSED", "RequestTimeTooSkewed"),
            ([error("403 Forbidden", "InvalidAccessKeyId")], "EXPIRED", "InvalidAccessKeyId"),
            ([error("400 Bad Request", "ExpiredToken")], "EXPIRED", "ExpiredToken"),
            ([error("400 Bad Request", "Weird")], "REFUSED", "Weird"),
            ([error("503 Slow Down", "SlowDown")], "PASSING", "SlowDown"),
            ([answer("418 Teapot", b"<html>")], "REFUSED", ""),
            ([answer("200 OK", b"hello")], "REFUSED", ""),
            ([answer("200 OK", b"hello", ETag='"e"', Last_Modified="yesterday")], "REFUSED", ""),
            ([answer("200 OK", b"hel", ETag='"e"', Last_Modified=DATE, Content_Length="5")], "PASSING", ""),
            ([b"SSH-2.0-OpenSSH\r\n"], "PASSING", ""),
            ([None], "PASSING", ""),
        ],
    )  # fmt: skip
    @pytest.mark.one_in(3)
    def test_a_wrong_answer_to_a_read_is_a_fault(
        self, tried: Any, answers: list[bytes | None], kind: str, code: str
    ) -> None:
        fault, _ = tried(lambda store: store.get("a", max_bytes=100), *answers)
        assert isinstance(fault, StoreFault)
        assert (fault.kind.name, fault.code.removesuffix("418")) == (kind, code)
        assert KEYS.secret_access_key not in fault.message

    @pytest.mark.parametrize(
        "first",
        [
            None,
            error("503 Slow Down", "SlowDown"),
            error("500 Internal Server Error", "InternalError"),
            answer("200 OK", b"hel", ETag='"e"', Last_Modified=DATE, Content_Length="5"),
        ],
    )
    @pytest.mark.one_in(3)
    def test_a_read_is_retried(self, tried: Any, first: bytes | None) -> None:
        stored, server = tried(lambda store: store.get("a", max_bytes=100), first, GOOD)
        assert (stored.data, stored.info.etag, len(server.requests)) == (b"hello", '"e"', 2)

    @pytest.mark.parametrize(
        ("given", "kind"),
        [
            (None, "UNKNOWN"),
            (answer("200 OK"), "UNKNOWN"),
            (b"HTTP/1.1 200", "UNKNOWN"),
            (error("500 Internal Server Error", "InternalError"), "UNKNOWN"),
            (answer("502 Bad Gateway", b"<html>"), "UNKNOWN"),
            (answer("504 Gateway Timeout"), "UNKNOWN"),
            (error("503 Slow Down", "SlowDown"), "PASSING"),
            (error("400 Bad Request", "RequestTimeout"), "PASSING"),
            (error("412 Precondition Failed", "PreconditionFailed"), "CHANGED"),
            (error("409 Conflict", "ConditionalRequestConflict"), "CHANGED"),
            (error("404 Not Found", "NoSuchKey"), "MISSING"),
            (error("403 Forbidden", "AccessDenied"), "DENIED"),
            (error("301 Moved", "PermanentRedirect", x_amz_bucket_region="eu-west-1"), "REFUSED"),
        ],
    )
    @pytest.mark.one_in(3)
    def test_a_change_is_sent_once(self, tried: Any, given: bytes | None, kind: str) -> None:
        def put(store: S3Store) -> Any:
            return store.put(
                "a", b"x", if_match='"e"', metadata={"langchain-daytona-ws-calls": "0" * 16 + "c"}
            )

        fault, server = tried(put, given)
        assert (fault.kind.name, len(server.requests)) == (kind, 1)
        sent = server.requests[0].lower()
        assert b'if-match: "e"' in sent
        assert b"x-amz-meta-langchain-daytona-ws-calls: " in sent
        assert fault.region == ("eu-west-1" if fault.code == "PermanentRedirect" else "")

    def test_a_delete_is_sent_once(self, tried: Any) -> None:
        fault, server = tried(lambda store: store.delete("a"), None)
        assert (fault.kind.name, len(server.requests)) == ("UNKNOWN", 1)

    @pytest.mark.parametrize(
        "page",
        [
            "<Contents><Key>elsewhere/x</Key><Size>1</Size><LastModified>2024-01-01T00:00:00Z</LastModified><ETag>e</ETag></Contents>",
            "<Contents><Key>{}x</Key></Contents>",
            "<Contents><Key>{}x</Key><Size>-1</Size><LastModified>2024-01-01T00:00:00Z</LastModified><ETag>e</ETag></Contents>",
            "<Contents><Key>{}x</Key><Size>many</Size></Contents>",
            "<CommonPrefixes><Prefix>elsewhere/</Prefix></CommonPrefixes>",
            "<IsTruncated>true</IsTruncated>",
            "<CommonPrefixes><Prefix>{}d/</Prefix></CommonPrefixes>" * 1001,
        ],
    )  # fmt: skip
    @pytest.mark.one_in(3)
    def test_a_wrong_answer_to_a_listing_is_a_fault(self, tried: Any, bucket: s3.Bucket, page: str) -> None:
        body = f"<ListBucketResult>{page.replace('{}', bucket.key(''))}</ListBucketResult>".encode()
        fault, _ = tried(lambda store: store.list_page(""), answer("200 OK", body))
        assert isinstance(fault, StoreFault)
        assert fault.kind in (StoreFaultKind.REFUSED, StoreFaultKind.PASSING)

    def test_a_refused_connection_is_a_passing_fault(
        self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("time.sleep", lambda _: None)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for work in (
            lambda s: s.get("a", max_bytes=1),
            lambda s: s.put("a", b"", if_match=None, metadata={}),
        ):
            with pytest.raises(StoreFault) as caught:
                runtime.run(work(runtime.store(endpoint=endpoint)))
            assert caught.value.kind is StoreFaultKind.PASSING


def test_the_clients_for_aws_have_their_settings(bucket: s3.Bucket) -> None:
    """Created, but not used: only their settings are checked."""
    made = Bucket(workspace_of(bucket, endpoint=None, region="eu-central-1"))
    clients = made.clients(KEYS)
    assert made.clients(KEYS) is clients
    for client, attempts in ((clients.reads, 4), (clients.changes, 1)):
        assert client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
        config: Any = client.meta.config
        assert config.retries == {"mode": "standard", "total_max_attempts": attempts}
        assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (5, 30, 16)
        assert config.request_checksum_calculation == "when_supported"
        assert config.proxies is None, "the environment's hold"
    fresh = [Credentials(f"AKIA{n}", "x") for n in range(KEPT_CLIENTS)]
    for item in fresh:
        made.clients(item)
    assert made.clients(KEYS) is not clients
    made.close()
    here = Bucket(workspace_of(bucket)).clients(KEYS)
    assert here.reads.meta.config.s3 == {"addressing_style": "path"}  # type: ignore[attr-defined]
    assert here.reads.meta.config.request_checksum_calculation == "when_required"  # type: ignore[attr-defined]
    here.close()
