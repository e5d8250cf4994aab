"""Transfer the content of one object. Interrupted downloads are resumed; large uploads are sent in parts."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from langchain_daytona_ws._adapters.boto_calls import boto_call
from langchain_daytona_ws._adapters.s3_bucket import (
    Clients,
    condition,
    described,
    described_whole,
    metadata_of,
    required_text,
)
from langchain_daytona_ws._core.ports import OnBytes, UploadSource
from langchain_daytona_ws._core.s3.store import ObjectSink, StoredObject, StoreFault, StoreFaultKind
from langchain_daytona_ws._core.transfers.models import content_of, read_exactly

# A download fails after this number of interruptions (`_Interrupted`), if no further byte arrives between them.
ATTEMPTS = 3
PAUSE_S = 0.2
PIECE_BYTES = 1 << 20
# Larger content is uploaded in parts of at least this size; only the last part may be smaller. S3 accepts at most
# 10,000 parts (S3 API).
PART_BYTES = 16 << 20
MAX_PARTS = 10_000


class _Interrupted(Exception):
    """The content could not be read to its end, or does not have the announced length."""

    def __init__(self, fault: StoreFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class ObjectTransfer:
    """The transfer of one object. The methods block. They raise StoreFault, and errors of source, sink and callbacks.

    ``on_bytes`` is called with the size of each piece. Before an error, and before a download starts again, it is
    called with minus the sum of these sizes.

    Args:
        target: Bucket and key, as fields of each request.
        key: The key relative to the workspace's prefix.
    """

    def __init__(
        self, clients: Clients, target: dict[str, Any], *, key: str, sleep: Callable[[float], None]
    ) -> None:
        self._clients = clients
        self._target = target
        self._key = key
        self._sleep = sleep

    def receive(
        self, sink: ObjectSink, check: Callable[[StoredObject], None], on_bytes: OnBytes
    ) -> StoredObject:
        """Download the object, see `ObjectStorePort.receive`."""
        sink.restart()
        found: StoredObject | None = None
        count = reached = failures = 0
        try:
            while True:
                try:
                    described, body, left = self._open(found, count)
                    with contextlib.closing(body):
                        if found is None:
                            check(described)
                            found = described
                        for piece in self._pieces(body, left):
                            sink.write(piece)
                            count += len(piece)
                            on_bytes(len(piece))
                except _Interrupted as interrupted:
                    failures = failures + 1 if count <= reached else 1
                    if failures >= ATTEMPTS:
                        raise interrupted.fault from None
                    reached = max(reached, count)
                    if found is not None and count == found.info.size_bytes:  # for example a wrong checksum
                        sink.restart()
                        on_bytes(-count)
                        count = 0
                    self._sleep(PAUSE_S * 2**failures)
                else:
                    return found
        except BaseException:
            on_bytes(-count)
            raise

    @boto_call()
    def _open(self, found: StoredObject | None, start: int) -> tuple[StoredObject, Any, int]:
        """Request the content from ``start``. Return the object's description, the content's stream and its length."""
        options: dict[str, Any] = {} if found is None else {"IfMatch": found.info.etag}
        if start:
            options["Range"] = f"bytes={start}-"
        answer = self._clients.reads.get_object(**self._target, **options)
        body = answer["Body"]
        try:
            length, described = _described_rest(self._key, answer, start)
            if found is not None and described.info.size_bytes != found.info.size_bytes:
                raise StoreFault(StoreFaultKind.CHANGED, "the object has another size now")
        except BaseException:
            body.close()
            raise
        return described, body, length

    @staticmethod
    def _pieces(body: Any, length: int) -> Iterator[bytes]:
        while True:
            try:
                # Reading to the end makes botocore verify the checksum, if the answer has one.
                piece = _read(body, min(PIECE_BYTES, length + 1))
            except StoreFault as fault:
                raise _Interrupted(fault) from None
            length -= len(piece)
            if length < 0 or (not piece and length):
                message = "the length of the content differs from the announced length"
                raise _Interrupted(StoreFault(StoreFaultKind.PASSING, message))
            if not piece:
                return
            yield piece

    def send(
        self, source: UploadSource, if_match: str | None, metadata: Mapping[str, str], on_bytes: OnBytes
    ) -> str:
        """Upload the content, see `ObjectStorePort.send`."""
        if source.size_bytes > PART_BYTES:
            return self._send_in_parts(source, if_match, metadata, on_bytes)
        data = content_of(source)
        self._put(data, if_match, metadata)
        on_bytes(len(data))
        return hashlib.sha256(data).hexdigest()

    @boto_call(changes=True)
    def _put(self, data: bytes, if_match: str | None, metadata: Mapping[str, str]) -> None:
        self._clients.changes.put_object(
            **self._target, **condition(if_match), Body=data, Metadata=dict(metadata)
        )

    def _send_in_parts(
        self, source: UploadSource, if_match: str | None, metadata: Mapping[str, str], on_bytes: OnBytes
    ) -> str:
        """Upload in parts. The object appears with the last request, which has the condition of the write."""
        upload = self._begin(metadata)
        digest, count = hashlib.sha256(), 0
        parts: list[Any] = []
        try:
            for data in _parts(source):
                digest.update(data)
                parts.append(self._upload(upload, len(parts) + 1, data))
                count += len(data)
                on_bytes(len(data))
            self._complete(upload, if_match, parts)
        except BaseException:
            # If the abort fails too, a lifecycle rule of the bucket can remove the parts.
            with contextlib.suppress(StoreFault):
                self._abort(upload)
            on_bytes(-count)
            raise
        return digest.hexdigest()

    @boto_call()
    def _begin(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Begin an upload in parts. Return the fields that identify it in requests."""
        created = self._clients.changes.create_multipart_upload(**self._target, Metadata=dict(metadata))
        return {**self._target, "UploadId": required_text(created["UploadId"])}

    @boto_call()
    def _upload(self, upload: Mapping[str, Any], number: int, data: bytes) -> dict[str, Any]:
        """Upload one part. Return its entry for the last request: number, ETag, and checksum if S3 sent one."""
        answer = self._clients.reads.upload_part(**upload, PartNumber=number, Body=data)
        part = {"PartNumber": number, "ETag": required_text(answer["ETag"])}
        checksum = answer.get("ChecksumCRC32")
        return {**part, "ChecksumCRC32": required_text(checksum)} if checksum is not None else part

    @boto_call(changes=True)
    def _complete(self, upload: Mapping[str, Any], if_match: str | None, parts: list[Any]) -> None:
        self._clients.changes.complete_multipart_upload(
            **upload, **condition(if_match), MultipartUpload={"Parts": parts}
        )

    @boto_call()
    def _abort(self, upload: Mapping[str, Any]) -> None:
        self._clients.reads.abort_multipart_upload(**upload)


@boto_call()
def _read(body: Any, size: int) -> bytes:
    data: bytes = body.read(size)
    return data


def _parts(source: UploadSource) -> Iterator[bytes]:
    left = source.size_bytes
    part_bytes = max(PART_BYTES, -(-left // MAX_PARTS))
    with source.open() as file:
        while left:
            data = read_exactly(file, min(part_bytes, left))
            left -= len(data)
            yield data


def _described_rest(key: str, answer: Mapping[str, Any], start: int) -> tuple[int, StoredObject]:
    """Check that an answer has the content from ``start``. Return the content's length and the object's description."""
    if not start:
        stored = described_whole(key, answer)
        return stored.info.size_bytes, stored
    info = described(key, answer, "ContentLength")
    length = info.size_bytes
    if answer["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.PARTIAL_CONTENT or (
        answer.get("ContentRange") != f"bytes {start}-{start + length - 1}/{start + length}"
    ):
        raise ValueError("not the requested part")
    return length, StoredObject(replace(info, size_bytes=start + length), None, metadata_of(answer))
