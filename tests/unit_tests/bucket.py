"""A bucket in memory with S3's rules: key order, pages, ETags, conditions; and with scripted failures."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from langchain_daytona_ws._core.ports import OnBytes, UploadSource
from langchain_daytona_ws._core.s3.store import (
    KeyPage,
    ObjectInfo,
    ObjectSink,
    PageRequest,
    StoredObject,
    StoreFault,
    StoreFaultKind,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    data: bytes
    metadata: Mapping[str, str]
    modified_ns: int

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


@dataclass
class MemoryBucket:
    """The port. Time passes only in `sleep`.

    ``script`` says what happens to coming requests of an operation, one entry each: a fault (nothing is done), a pair
    of ``"lost"`` and a fault (it is done, and the answer is lost), a callable (called before it is done), or None.
    """

    objects: dict[str, Kept] = field(default_factory=dict)
    page: int = 1000
    forbidding: bool = False  # GET of a missing key is answered with 403
    requests: list[tuple[str, str]] = field(default_factory=list)
    listed: list[tuple[str, bool, str]] = field(
        default_factory=list
    )  # prefix, delimiter and position of each page
    script: dict[str, list[object]] = field(default_factory=dict)
    clock_s: float = 1000.0
    sleeps: list[float] = field(default_factory=list)
    modified_ns: int = 0  # of the latest change

    def put_by_others(self, key: str, data: bytes | str = b"x") -> None:
        raw = data.encode() if isinstance(data, str) else data
        self.objects[key] = Kept(raw, {}, self._tick())

    def data(self) -> dict[str, bytes]:
        return {key: kept.data for key, kept in self.objects.items()}

    def asked(self, *operations: str) -> list[tuple[str, str]]:
        return [item for item in self.requests if not operations or item[0] in operations]

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: bool = False,
        max_keys: int = 1000,
        start_after: str = "",
        more: str | None = None,
    ) -> KeyPage:
        self._begin("list", prefix)
        self.listed.append((prefix, delimiter, start_after if more is None else more))
        behind = (start_after if more is None else more).encode()
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        last = ""
        for key in sorted(self.objects, key=str.encode):
            if not key.startswith(prefix) or key.encode() <= behind:
                continue
            cut = key.find("/", len(prefix)) if delimiter else -1
            group = key[: cut + 1] if cut >= 0 else ""
            if group and (group in prefixes or behind.startswith(group.encode())):
                last = key
                continue
            if len(objects) + len(prefixes) == min(max_keys, self.page):
                return KeyPage(tuple(objects), tuple(prefixes), last)
            if group:
                prefixes.append(group)
            else:
                objects.append(self._info(key))
            last = key
        return KeyPage(tuple(objects), tuple(prefixes), None)

    async def list_pages(self, requests: Sequence[PageRequest]) -> Sequence[KeyPage | StoreFault]:
        self.requests.append(("list at once", str(len(requests))))
        pages: list[KeyPage | StoreFault] = []
        for request in requests:
            try:
                page = await self.list_page(
                    request.prefix,
                    delimiter=request.delimiter,
                    start_after=request.start_after,
                    more=request.more,
                )
            except StoreFault as fault:
                pages.append(fault)
            else:
                pages.append(page)
        return pages

    async def get(self, key: str, *, max_bytes: int) -> StoredObject:
        self._begin("get", key)
        if key not in self.objects:
            if self.forbidding:
                raise StoreFault(StoreFaultKind.DENIED, "AccessDenied", code="AccessDenied", status=403)
            raise StoreFault(StoreFaultKind.MISSING, "NoSuchKey", code="NoSuchKey", status=404)
        kept = self.objects[key]
        data = kept.data if len(kept.data) <= max_bytes else None
        head = kept.data[:32] if data is None and max_bytes else b""
        sha256 = "" if data is None else hashlib.sha256(data).hexdigest()
        return StoredObject(self._info(key), data, dict(kept.metadata), sha256, head=head)

    async def get_many(
        self, keys: Sequence[str], *, max_bytes: int, within_s: float
    ) -> Sequence[StoredObject | StoreFault | None]:
        got: list[StoredObject | StoreFault | None] = []
        for key in keys:
            try:
                got.append(await self.get(key, max_bytes=max_bytes))
            except StoreFault as fault:
                got.append(fault)
        return got

    async def put(
        self, key: str, data: bytes, *, if_match: str | None, metadata: Mapping[str, str]
    ) -> ObjectInfo:
        lost = self._begin("put", key)
        there = self.objects.get(key)
        if if_match is not None and there is None:
            raise StoreFault(StoreFaultKind.MISSING, "NoSuchKey", code="NoSuchKey", status=404)
        if (there.etag if there else None) != if_match:
            raise StoreFault(
                StoreFaultKind.CHANGED, "PreconditionFailed", code="PreconditionFailed", status=412
            )
        self.objects[key] = Kept(data, dict(metadata), self._tick())
        if lost:
            raise lost
        return self._info(key)

    async def receive(
        self,
        key: str,
        sink: ObjectSink,
        *,
        check: Callable[[StoredObject], None],
        on_bytes: OnBytes | None = None,
    ) -> StoredObject:
        sink.restart()
        stored = await self.get(key, max_bytes=1 << 62)
        check(replace(stored, data=None))
        data = stored.data or b""
        sink.write(data)
        if on_bytes is not None:
            on_bytes(len(data))
        return stored

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
        with source.open() as file:
            data = file.read()
        await self.put(key, data, if_match=if_match, metadata=metadata)
        if on_bytes is not None:
            on_bytes(len(data))
        return hashlib.sha256(data).hexdigest()

    async def gather(self, works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        return [await work() for work in works]

    async def delete(self, key: str) -> None:
        lost = self._begin("delete", key)
        self.objects.pop(key, None)
        if lost:
            raise lost

    async def offload(self, work: Callable[[], T]) -> T:
        return work()

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.clock_s += seconds

    def now(self) -> float:
        return self.clock_s

    def _begin(self, operation: str, key: str) -> StoreFault | None:
        self.requests.append((operation, key))
        coming = self.script.get(operation)
        event = coming.pop(0) if coming else None
        if isinstance(event, StoreFault):
            raise event
        if isinstance(event, tuple):
            fault: StoreFault = event[1]
            return fault
        if callable(event):
            event()
        return None

    def _info(self, key: str) -> ObjectInfo:
        kept = self.objects[key]
        return ObjectInfo(key, len(kept.data), kept.modified_ns, kept.etag)

    def _tick(self) -> int:
        """Return a time behind all earlier ones, in whole seconds as S3's are."""
        self.modified_ns += 1_000_000_000
        return self.modified_ns
