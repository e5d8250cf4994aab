"""The object store port over boto3, for both runtimes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from langchain_daytona_ws._adapters.s3_bucket import CONCURRENCY, LONGEST_PAGE, Bucket
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

if TYPE_CHECKING:
    from langchain_daytona_ws._adapters.s3_transfers import ObjectTransfer

T = TypeVar("T")
Current = Callable[[], Awaitable[Credentials]]
Expired = Callable[[Credentials], None]


class S3Store(ABC):
    """The `ObjectStorePort` of a bucket. Several ports may share one `Bucket`.

    Args:
        current: Returns the current credentials.
        expired: Called with credentials that S3 refuses as expired or invalid. Then ``current`` is called again.
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
        max_keys: int = LONGEST_PAGE,
        start_after: str = "",
        more: str | None = None,
    ) -> KeyPage:
        request = PageRequest(prefix, delimiter, start_after, more)
        return await self._request(lambda credentials: self._bucket.list_page(credentials, request, max_keys))

    async def list_pages(self, requests: Sequence[PageRequest]) -> Sequence[KeyPage | StoreFault]:
        return await self._request(
            lambda credentials: _without_expiry(self._bucket.list_pages(credentials, requests))
        )

    async def get(self, key: str, *, max_bytes: int) -> StoredObject:
        return await self._request(lambda credentials: self._bucket.get(credentials, key, max_bytes))

    async def get_many(
        self, keys: Sequence[str], *, max_bytes: int, within_s: float
    ) -> Sequence[StoredObject | StoreFault | None]:
        until = self.now() + within_s

        def get(credentials: Credentials) -> list[StoredObject | StoreFault | None]:
            left_s = max(until - self.now(), 0.0)
            return _without_expiry(self._bucket.get_many(credentials, keys, max_bytes, left_s))

        return await self._request(get)

    async def put(
        self, key: str, data: bytes, *, if_match: str | None, metadata: Mapping[str, str]
    ) -> ObjectInfo:
        return await self._request(
            lambda credentials: self._bucket.put(credentials, key, data, if_match=if_match, metadata=metadata)
        )

    async def receive(
        self,
        key: str,
        sink: ObjectSink,
        *,
        check: Callable[[StoredObject], None],
        on_bytes: OnBytes | None = None,
    ) -> StoredObject:
        with self._reporting(on_bytes) as report:
            return await self._request(
                lambda credentials: self._transfer(credentials, key).receive(sink, check, report)
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
            return await self._request(
                lambda credentials: self._transfer(credentials, key).send(source, if_match, metadata, report)
            )

    def _transfer(self, credentials: Credentials, key: str) -> ObjectTransfer:
        # Imported here, because most sessions transfer nothing.
        from langchain_daytona_ws._adapters.s3_transfers import ObjectTransfer

        bucket = self._bucket
        return ObjectTransfer(
            bucket.clients(credentials), bucket.target(key), key=key, sleep=bucket.clock.sleep
        )

    @abstractmethod
    def _reporting(self, on_bytes: OnBytes | None) -> contextlib.AbstractContextManager[OnBytes]:
        """Return a context manager that yields a callback for the thread of a request.

        The callback calls ``on_bytes`` in the caller's thread or event loop.
        """

    @abstractmethod
    async def gather(self, works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]: ...

    async def delete(self, key: str) -> None:
        await self._request(lambda credentials: self._bucket.delete(credentials, key))

    async def rename(self, source: str, target: str) -> None:
        """Send RenameObject, as mount-s3 does; see `_core.mount.rename_probe`."""
        await self._request(lambda credentials: self._bucket.rename(credentials, source, target))

    async def _request(self, work: Callable[[Credentials], T]) -> T:
        """Send a request. If S3 refuses the credentials as expired, repeat it once with other credentials, if any."""
        credentials = await self._current()
        try:
            return await self.offload(lambda: work(credentials))
        except StoreFault as fault:
            if fault.kind is not StoreFaultKind.EXPIRED:
                raise
            refused = fault
        self._expired(credentials)
        fresh = await self._current()
        if fresh == credentials:
            raise refused
        return await self.offload(lambda: work(fresh))


class SyncS3Store(S3Store):
    """The port of the sync runtime: its coroutines never suspend."""

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
        with ThreadPoolExecutor(CONCURRENCY, "langchain-daytona-ws-s3") as pool:
            futures = [pool.submit(run_sync, run(work)) for work in works]
            try:
                wait(futures)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]


class AsyncS3Store(S3Store):
    """The port of the async runtime: blocking work runs in threads."""

    async def offload(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    async def sleep(self, seconds: float) -> None:
        await self._clock.asleep(seconds)

    @contextlib.contextmanager
    def _reporting(self, on_bytes: OnBytes | None) -> Iterator[OnBytes]:
        """Call ``on_bytes`` on the running loop. A cancelled request ends at its next piece."""
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
        slots = asyncio.Semaphore(CONCURRENCY)

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


def _without_expiry(got: list[T | StoreFault]) -> list[T | StoreFault]:
    """Return the results unchanged; raise a fault among them that reports expired credentials."""
    for item in got:
        if isinstance(item, StoreFault) and item.kind is StoreFaultKind.EXPIRED:
            raise item
    return got
