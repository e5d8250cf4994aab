"""The S3 in memory answers like the local S3 wherever both implement a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.sync_engine.memory_s3 import MemoryS3
from tests.sync_engine.world import client

BUCKET, PREFIX = "agents", "compare/"


@pytest.fixture(scope="module", params=["memory", "local"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "local":
        yield request.getfixturevalue("s3_server").s3_endpoint
    else:
        with MemoryS3() as running:
            yield running.endpoint


def _code(call: Callable[[], Any]) -> int:
    try:
        return int(call()["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as failure:
        return int(failure.response["ResponseMetadata"]["HTTPStatusCode"])


def test_conditions(endpoint: str) -> None:
    s3, key = client(endpoint), {"Bucket": BUCKET, "Key": PREFIX + "conditions"}
    s3.delete_object(**key)
    assert _code(lambda: s3.put_object(**key, Body=b"1", IfMatch='"0"')) == 404
    etag = s3.put_object(**key, Body=b"1", IfNoneMatch="*")["ETag"]
    assert etag == '"c4ca4238a0b923820dcc509a6f75849b"'
    assert _code(lambda: s3.put_object(**key, Body=b"2", IfNoneMatch="*")) == 412
    assert _code(lambda: s3.put_object(**key, Body=b"2", IfMatch='"0"')) == 412
    assert _code(lambda: s3.get_object(**key, IfMatch='"0"')) == 412
    assert _code(lambda: s3.delete_object(**key, IfMatch='"0"')) == 412
    assert _code(lambda: s3.put_object(**key, Body=b"2", IfMatch=etag)) == 200
    etag = s3.head_object(**key)["ETag"]
    assert _code(lambda: s3.delete_object(**key, IfMatch=etag)) == 204
    assert _code(lambda: s3.head_object(**key)) == 404
    assert _code(lambda: s3.get_object(**key)) == 404
    assert _code(lambda: s3.delete_object(**key)) == 204


def test_metadata_and_ranges(endpoint: str) -> None:
    s3, key = client(endpoint), {"Bucket": BUCKET, "Key": PREFIX + "d/é +%&?=#~"}
    s3.put_object(**key, Body=b"0123456789", Metadata={"file-permissions": "0100755", "file-mtime": "1ns"})
    found = s3.head_object(**key)
    assert found["Metadata"] == {"file-permissions": "0100755", "file-mtime": "1ns"}
    assert found["ContentLength"] == 10
    part = s3.get_object(**key, Range="bytes=2-4", IfMatch=found["ETag"])
    assert (part["Body"].read(), part["ContentRange"]) == (b"234", "bytes 2-4/10")
    assert part["LastModified"] == found["LastModified"]


def test_listings(endpoint: str) -> None:
    s3 = client(endpoint)
    names = sorted(
        PREFIX + "list/" + name for name in ("", "a", "a/b", "a b", "a+b", "a%b", "b/", "é", "z&<", "-", "~")
    )
    for key in names:
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    query: dict[str, Any] = {"Bucket": BUCKET, "Prefix": PREFIX + "list/"}
    for encoding in ({}, {"EncodingType": "url"}):
        found = s3.list_objects_v2(**query, **encoding)
        assert [item["Size"] for item in found["Contents"]] == [len(key.encode()) for key in names]
        assert (found["KeyCount"], found["IsTruncated"]) == (len(names), False)
        if not encoding:
            assert [item["Key"] for item in found["Contents"]] == names
    page = s3.list_objects_v2(**query, MaxKeys=3, StartAfter=names[1])
    assert [item["Key"] for item in page["Contents"]] == names[2:5]
    assert page["IsTruncated"] is True
    rest = s3.list_objects_v2(**query, StartAfter=names[4] + "\0")
    assert [item["Key"] for item in rest["Contents"]] == names[5:]
    head = s3.head_object(Bucket=BUCKET, Key=names[5])
    assert (rest["Contents"][0]["ETag"], rest["Contents"][0]["LastModified"]) == (
        head["ETag"],
        head["LastModified"],
    )
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=PREFIX + "none/")


def test_uploads_in_parts(endpoint: str) -> None:
    s3, key = client(endpoint), {"Bucket": BUCKET, "Key": PREFIX + "parts"}
    s3.delete_object(**key)
    pieces = [b"1" * 5 * 1024 * 1024, b"2"]

    def upload(**condition: str) -> Any:
        started = s3.create_multipart_upload(**key, Metadata={"file-permissions": "0100644"})["UploadId"]
        etags = [
            s3.upload_part(**key, UploadId=started, PartNumber=number, Body=piece)["ETag"]
            for number, piece in enumerate(pieces, 1)
        ]
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        try:
            return s3.complete_multipart_upload(
                **key, UploadId=started, MultipartUpload={"Parts": parts}, **condition
            )
        except ClientError:
            s3.abort_multipart_upload(**key, UploadId=started)  # other tests use the same server
            raise

    assert upload(IfNoneMatch="*")["ETag"] == s3.head_object(**key)["ETag"]
    assert s3.head_object(**key)["ETag"].endswith('-2"')
    assert s3.head_object(**key)["Metadata"] == {"file-permissions": "0100644"}
    assert s3.get_object(**key)["Body"].read() == b"".join(pieces)
    assert _code(lambda: upload(IfNoneMatch="*")) == 412
    started = s3.create_multipart_upload(**key)["UploadId"]
    assert _code(lambda: s3.abort_multipart_upload(**key, UploadId=started)) == 204


def test_a_request_that_is_cut_stores_nothing(s3: MemoryS3) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", int(s3.endpoint.rpartition(":")[2]))) as connection:
        connection.sendall(b"PUT /agents/cut HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert s3.objects == {}
