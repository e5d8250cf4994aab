"""The object store port over boto3, for both runtimes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_daytona_ws._adapters import s3_answers as answers
from langchain_daytona_ws._adapters.boto_calls import boto_call
from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._core.id_factory import Clock
from langchain_daytona_ws._core.ports import OnBytes, UploadSource
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.store import (
    Credentials,
    KeyPage,
    ObjectInfo,
    ObjectSink,
    PageRequest,
    StoredObject,
    StoreFault,
    StoreFaultKind,
)
from langchain_daytona_ws._core.s3.workspace import S3Workspace
from langchain_daytona_ws._guest.media import HEAD_BYTES

if TYPE_CHECKING:
    from langchain_daytona_ws._adapters.s3_clients import Clients, ClientSets
    from langchain_daytona_ws._adapters.s3_transfers import ObjectTransfer

T = TypeVar("T")
Current = Callable[[], Awaitable[Credentials]]
Expired = Callable[[Credentials], None]

# A connection may close within a body; boto3 does not retry that.
BODY_ATTEMPTS = 3
BODY_PAUSE_S = 0.2
AT_A_TIME = 8
PIECE_BYTES = 256 << 10


class _BodyLost(Exception):
    """The connection was closed before the end of the body."""

    def __init__(self, fault: StoreFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Bucket:
    """One workspace's prefix of a bucket, thread-safe. Every method blocks and raises only StoreFault.

    Args:
        workspace: The workspace. All requests stay below its prefix.
        clock: The clock for pauses between attempts.
    """

    def __init__(self, workspace: S3Workspace, clock: Clock = SYSTEM_CLOCK) -> None:
        self._workspace = workspace
        self.clock = clock
        self._bucket = workspace.workspace.bucket
        self._prefix = workspace.workspace.prefix
        if not self._prefix.endswith("/"):
            raise ValueError("the prefix of a workspace ends with a slash")
        self._lock = threading.Lock()
        self._sets: ClientSets | None = None

    def clients(self, credentials: Credentials) -> Clients:
        """Return clients; the first call imports boto3, which takes a third of a second."""
        from langchain_daytona_ws._adapters.s3_clients import ClientSets

        with self._lock:
            if self._sets is None:
                self._sets = ClientSets(self._workspace)
            sets = self._sets
        return sets.using(credentials)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            sets = self._sets
        if sets is not None:
            sets.close()

    def list_page(
        self,
        clients: Clients,
        prefix: str,
        *,
        delimiter: bool,
        max_keys: int,
        start_after: str,
        more: str | None,
    ) -> KeyPage:
        request: dict[str, Any] = {
            "Bucket": self._bucket, "Prefix": self._prefix + prefix, "MaxKeys": min(max_keys, answers.LONGEST_PAGE),
        }  # fmt: skip
        if delimiter:
            request["Delimiter"] = "/"
        if more is not None:
            request["ContinuationToken"] = more
        elif start_after:
            request["StartAfter"] = self._prefix + start_after
        with boto_call():
            answer = clients.reads.list_objects_v2(**request)
            return answers.page(answer, self._prefix + prefix, self._prefix)

    def list_pages(self, clients: Clients, requests: Sequence[PageRequest]) -> list[KeyPage | StoreFault]:
        def page_or_fault(request: PageRequest) -> KeyPage | StoreFault:
            try:
                return self.list_page(
                    clients,
                    request.prefix,
                    delimiter=request.delimiter,
                    max_keys=answers.LONGEST_PAGE,
                    start_after=request.start_after,
                    more=request.more,
                )
            except StoreFault as fault:
                return fault

        with ThreadPoolExecutor(min(AT_A_TIME, max(len(requests), 1)), "langchain-daytona-ws-s3") as pool:
            return list(pool.map(page_or_fault, requests))

    def get(self, clients: Clients, key: str, max_bytes: int) -> StoredObject:
        for attempt in range(BODY_ATTEMPTS):
            try:
                return self._get_once(clients, key, max_bytes)
            except _BodyLost as lost:
                fault = lost.fault
            self.clock.sleep(BODY_PAUSE_S * 2**attempt)
        raise fault

    def get_many(
        self, clients: Clients, keys: Sequence[str], max_bytes: int, within_s: float
    ) -> list[StoredObject | StoreFault | None]:
        def get_or_fault(key: str) -> StoredObject | StoreFault:
            try:
                return self.get(clients, key, max_bytes)
            except StoreFault as fault:
                return fault

        pool = ThreadPoolExecutor(min(AT_A_TIME, max(len(keys), 1)), "langchain-daytona-ws-s3")
        try:
            futures = [pool.submit(get_or_fault, key) for key in keys]
            wait(futures, timeout=within_s)
            return [future.result() if future.done() else None for future in futures]
        finally:
            # Requests already sent end by their own time-outs.
            pool.shutdown(wait=False, cancel_futures=True)

    def put(
        self, clients: Clients, key: str, data: bytes, if_match: str | None, metadata: Mapping[str, str]
    ) -> ObjectInfo:
        condition = {"IfNoneMatch": "*"} if if_match is None else {"IfMatch": if_match}
        request: dict[str, Any] = {"Bucket": self._bucket, "Key": self._full(key), **condition}
        with boto_call(changes=True):
            answer = clients.changes.put_object(**request, Body=data, Metadata=dict(metadata))
            return ObjectInfo(key, len(data), 0, answers.text(answer["ETag"]))

    def transfer(self, clients: Clients, key: str) -> ObjectTransfer:
        """Return the transfer of one object's content in pieces."""
        from langchain_daytona_ws._adapters.s3_transfers import ObjectTransfer

        return ObjectTransfer(clients, self._bucket, self._full(key), key=key, sleep=self.clock.sleep)

    def delete(self, clients: Clients, key: str) -> None:
        with boto_call(changes=True):
            clients.changes.delete_object(Bucket=self._bucket, Key=self._full(key))

    def rename(self, clients: Clients, source: str, target: str) -> None:
        from langchain_daytona_ws._adapters.s3_clients import rename_source

        token = rename_source.set(self._full(source))
        try:
            with boto_call(changes=True):
                clients.changes.put_object(Bucket=self._bucket, Key=self._full(target), Body=b"")
        finally:
            rename_source.reset(token)

    def _get_once(self, clients: Clients, key: str, max_bytes: int) -> StoredObject:
        with boto_call():
            answer = clients.reads.get_object(Bucket=self._bucket, Key=self._full(key))
            body = answer["Body"]
            try:
                if answer["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.OK:
                    raise ValueError("not the whole object")
                info = answers.described(key, answer, "ContentLength")
                if info.size_bytes > max_bytes:
                    head = body.read(HEAD_BYTES) if max_bytes else b""  # 0: only the description is wanted
                    return StoredObject(info, None, answers.metadata(answer), head=head)
                data, sha256, newlines = self._body(body, info.size_bytes)
                return StoredObject(info, data, answers.metadata(answer), sha256, newlines)
            finally:
                body.close()

    def _body(self, body: Any, size: int) -> tuple[bytes, str, int]:
        """Read a content; hash its pieces and count their line feeds while the next pieces arrive."""
        digest, pieces, count, newlines = hashlib.sha256(), list[bytes](), 0, 0
        try:
            with boto_call():
                # Reading to the end makes botocore verify the checksum, if the response has one.
                while count <= size and (piece := body.read(min(PIECE_BYTES, size - count + 1))):
                    digest.update(piece)
                    newlines += piece.count(b"\n")
                    pieces.append(piece)
                    count += len(piece)
        except StoreFault as fault:
            raise _BodyLost(fault) from None
        if count != size:
            message = f"the answer ended after {count} of {size} bytes"
            raise _BodyLost(StoreFault(StoreFaultKind.PASSING, message))
        return b"".join(pieces), digest.hexdigest(), newlines

    def _full(self, key: str) -> str:
        """Return a key with the workspace's prefix; refuse keys that a proxy could resolve to another prefix."""
        if not key or key.startswith("/") or {".", ".."} & set(key.split("/")):
            raise StoreFault(StoreFaultKind.REFUSED, "the key could lead out of the workspace")
        return self._prefix + key


def _raise_if_expired(got: Sequence[object]) -> None:
    for item in got:
        if isinstance(item, StoreFault) and item.kind is StoreFaultKind.EXPIRED:
            raise item


class S3Store(ABC):
    """The port, over one bucket that several ports may share.

    Args:
        bucket: The bucket.
        current: Returns the current credentials.
        expired: Called with credentials that S3 refuses as expired; then `current` is called again.
    """

    def __init__(self, bucket: Bucket, current: Current, expired: Expired) -> None:
        self._bucket = bucket
        self._current = current
        self._expired = expired
        self._clock = bucket.clock
        self.now = bucket.clock.monotonic

    @abstractmethod
    async def offload(self, work: Callable[[], T]) -> T: ...

    @abstractmethod
    async def sleep(self, seconds: float) -> None: ...

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: bool = False,
        max_keys: int = answers.LONGEST_PAGE,
        start_after: str = "",
        more: str | None = None,
    ) -> KeyPage:
        return await self._do(
            lambda clients: self._bucket.list_page(
                clients, prefix, delimiter=delimiter, max_keys=max_keys, start_after=start_after, more=more
            )
        )

    async def list_pages(self, requests: Sequence[PageRequest]) -> Sequence[KeyPage | StoreFault]:
        def pages(clients: Clients) -> list[KeyPage | StoreFault]:
            got = self._bucket.list_pages(clients, requests)
            _raise_if_expired(got)
            return got

        return await self._do(pages)

    async def get(self, key: str, *, max_bytes: int) -> StoredObject:
        return await self._do(lambda clients: self._bucket.get(clients, key, max_bytes))

    async def get_many(
        self, keys: Sequence[str], *, max_bytes: int, within_s: float
    ) -> Sequence[StoredObject | StoreFault | None]:
        until = self.now() + within_s

        def get(clients: Clients) -> list[StoredObject | StoreFault | None]:
            got = self._bucket.get_many(clients, keys, max_bytes, max(until - self.now(), 0.0))
            _raise_if_expired(got)
            return got

        return await self._do(get)

    async def put(
        self, key: str, data: bytes, *, if_match: str | None, metadata: Mapping[str, str]
    ) -> ObjectInfo:
        return await self._do(lambda clients: self._bucket.put(clients, key, data, if_match, metadata))

    async def receive(
        self,
        key: str,
        sink: ObjectSink,
        *,
        check: Callable[[StoredObject], None],
        on_bytes: OnBytes | None = None,
    ) -> StoredObject:
        with self._reporting(on_bytes) as report:
            return await self._do(
                lambda clients: self._bucket.transfer(clients, key).receive(sink, check, report)
            )

    async def send(
        self,
        key: str,
        source: UploadSource,
        *,
        if_match: str | None,
        metadata: Mapping[str, str],
        is_executable: bool = False,
        on_bytes: OnBytes | None = None,
    ) -> str:
        with self._reporting(on_bytes) as report:
            return await self._do(
                lambda clients: self._bucket.transfer(clients, key).send(source, if_match, metadata, report)
            )

    @abstractmethod
    def _reporting(self, on_bytes: OnBytes | None) -> contextlib.AbstractContextManager[OnBytes]:
        """Return a function for the thread of a request, which calls ``on_bytes`` where the caller wants it."""

    @abstractmethod
    async def gather(self, works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]: ...

    async def delete(self, key: str) -> None:
        await self._do(lambda clients: self._bucket.delete(clients, key))

    async def rename(self, source: str, target: str) -> None:
        """Send the request by which mount-s3 renames an object; see `_core.mount.rename_probe`."""
        await self._do(lambda clients: self._bucket.rename(clients, source, target))

    async def _do(self, work: Callable[[Clients], T]) -> T:
        """Send one request; if S3 refuses the credentials as expired, send it once more with fresh ones."""
        credentials = await self._current()
        try:
            return await self.offload(lambda: work(self._bucket.clients(credentials)))
        except StoreFault as fault:
            if fault.kind is not StoreFaultKind.EXPIRED:
                raise
            refused = fault
        self._expired(credentials)
        fresh = await self._current()
        if fresh == credentials:
            raise refused
        return await self.offload(lambda: work(self._bucket.clients(fresh)))


class SyncS3Store(S3Store):
    """The object store port of the sync runtime: its coroutines never suspend."""

    async def offload(self, work: Callable[[], T]) -> T:
        return work()

    async def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    @contextlib.contextmanager
    def _reporting(self, on_bytes: OnBytes | None) -> Iterator[OnBytes]:
        yield on_bytes or _ignore

    async def gather(self, works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        async def run(work: Callable[[], Awaitable[T]]) -> T:
            return await work()

        if len(works) == 1:
            return [await works[0]()]
        with ThreadPoolExecutor(AT_A_TIME, "langchain-daytona-ws-s3") as pool:
            futures = [pool.submit(run_sync, run(work)) for work in works]
            try:
                wait(futures)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]


class AsyncS3Store(S3Store):
    """The object store port of the async runtime: blocking work runs in threads of the running loop."""

    async def offload(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    async def sleep(self, seconds: float) -> None:
        await self._clock.asleep(seconds)

    @contextlib.contextmanager
    def _reporting(self, on_bytes: OnBytes | None) -> Iterator[OnBytes]:
        """Report on the running loop; a cancelled request ends at its next piece."""
        loop, is_over = asyncio.get_running_loop(), threading.Event()

        def report(count: int) -> None:
            if is_over.is_set():
                raise StoreFault(StoreFaultKind.REFUSED, "the transfer was cancelled")
            if on_bytes is not None:
                loop.call_soon_threadsafe(on_bytes, count)

        try:
            yield report
        finally:
            is_over.set()

    async def gather(self, works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        slots = asyncio.Semaphore(AT_A_TIME)

        async def run(work: Callable[[], Awaitable[T]]) -> T:
            async with slots:
                return await work()

        found = await asyncio.gather(*map(run, works), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return [each for each in found if not isinstance(each, BaseException)]


def _ignore(count: int) -> None:
    pass
