"""Read, write, edit and delete objects, with the guest's contract in ``_guest.files``."""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from langchain_daytona_ws._core.s3.errors import LARGEST_PUT_BYTES, too_large
from langchain_daytona_ws._core.s3.idempotency import CREATED, EDITED, REPLACED, Mark, mark_of, short
from langchain_daytona_ws._core.s3.lookup import Lookup
from langchain_daytona_ws._core.s3.names import below, is_hidden, key_of
from langchain_daytona_ws._core.s3.store import ObjectStorePort, StoredObject
from langchain_daytona_ws._core.s3.writer import ConditionalWriter, Conflict
from langchain_daytona_ws._guest import edit as edits
from langchain_daytona_ws._guest import text
from langchain_daytona_ws._guest.content import viewed
from langchain_daytona_ws._guest.files import COUNTED_ENTRIES
from langchain_daytona_ws._guest.store import MAX_BYTES
from langchain_daytona_ws._guest.walk import RefusedError

T = TypeVar("T")
Request = dict[str, Any]
Answer = dict[str, Any]

# After a conflict, an edit reads the object again. Each conflict means that another writer succeeded.
EDIT_TRIES = 40
EDIT_WITHIN_S = 45.0
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
WRITE_TRIES = 3
# Larger content is hashed and searched outside the event loop.
OFFLOAD_BYTES = 1 << 20
# A larger file is not loaded to compare it with the content that was read.
LARGEST_COMPARED_BYTES = 256 << 20


class S3Files:
    """The operations on one file.

    Args:
        port: The bucket.
    """

    def __init__(self, port: ObjectStorePort) -> None:
        self._port = port
        self._lookup = Lookup(port)
        self._writer = ConditionalWriter(port, self._lookup)

    async def read(self, request: Request) -> Answer:
        max_bytes = request.get("max_bytes", MAX_BYTES)
        key = key_of(request["path"])
        stored = await self._lookup.load(key, max_bytes=max_bytes)
        data = _text(stored, max_bytes)
        offset = request.get("offset", 1)
        limit, limit_bytes = request.get("limit", text.PAGE_LINES), request.get("limit_bytes", 65536)
        page, sha256 = await self._compute(
            len(data), lambda: (text.page(data, offset, limit, limit_bytes), _sha256(data))
        )
        if not page.body and offset > 1:
            raise RefusedError("past_end", lines=page.lines)
        shown = {name: getattr(page, name) for name in text.Page.__slots__}
        facts = {"bytes": len(data), "mtime_ns": stored.info.modified_ns, "sha256": sha256}
        return {**shown, "path": key, **facts}

    async def view(self, request: Request) -> Answer:
        most = request["binary_bytes"] if request["binary"] else request["max_bytes"]
        key, data = await self._content(request, most)
        shown, sha256 = await self._compute(len(data), lambda: (viewed(data, request), _sha256(data)))
        return {**shown, "path": key, "bytes": len(data), "sha256": sha256}

    async def fetch(self, request: Request) -> Answer:
        key, data = await self._content(request, request["max_bytes"])
        sha256 = await self._compute(len(data), lambda: _sha256(data))
        return {"content": data, "path": key, "bytes": len(data), "sha256": sha256}

    async def _content(self, request: Request, max_bytes: int) -> tuple[str, bytes]:
        key = key_of(request["path"])
        stored = await self._lookup.load(key, max_bytes=max_bytes)
        if stored.data is None:
            raise RefusedError("too_large", bytes=stored.info.size_bytes, max_bytes=max_bytes)
        return key, stored.data

    async def write(self, request: Request) -> Answer:
        key, data = key_of(request["path"]), bytes(request["content"])
        if len(data) > LARGEST_PUT_BYTES:
            raise too_large(len(data))
        call = _call(request)
        for _ in range(WRITE_TRIES):
            try:
                done = await self._write(key, data, request, call)
            except Conflict:
                if request.get("overwrite", False):  # a retry would overwrite the other change unnoticed
                    raise RefusedError("changed") from None
                continue
            sha256 = await self._compute(len(done.data), partial(_sha256, done.data))
            return {**done.answer, "path": key, "bytes": len(done.data), "sha256": sha256}
        raise RefusedError("busy")

    async def edit(self, request: Request) -> Answer:
        key, call = key_of(request["path"]), _call(request)
        until = self._port.now() + EDIT_WITHIN_S
        for turn in range(EDIT_TRIES):
            try:
                return await self._edit(key, request, call)
            except Conflict:
                if self._port.now() >= until:
                    break
                longest = min(FIRST_PAUSE_S * 2.0 ** min(turn, 10), LONGEST_PAUSE_S)
                await self._port.sleep(random.uniform(0, longest))  # noqa: S311 - spreads the retries of colliding writers
        raise RefusedError("changed")

    async def exists(self, request: Request) -> Answer:
        return {"found": [path for path in request["paths"] if await self._lookup.exists(key_of(path))]}

    async def near(self, request: Request) -> Answer:
        return {"found": await self._lookup.near(key_of(request["path"]))}

    async def delete(self, request: Request) -> Answer:
        """Delete a file, or the marker of an empty directory."""
        key = key_of(request["path"])
        if not key:
            raise RefusedError("is_root")
        prefix = below(key)
        page = await self._port.list_page(prefix, delimiter=True, max_keys=COUNTED_ENTRIES + 1)
        markers = [info for info in page.objects if info.key == prefix]
        within = [
            name[len(prefix) :].rstrip("/") for name in (*page.prefixes, *(o.key for o in page.objects))
        ]
        if count := len(within) - len(markers):
            visible = sum(not is_hidden(name) for name in set(within))
            raise RefusedError("not_empty", count=min(visible or count, COUNTED_ENTRIES))
        info = markers[0] if markers else await self._lookup.file_at(key)
        if info is None:
            raise await self._lookup.not_found(key)
        await self._writer.delete(info)
        return {"path": key, "kind": "dir" if markers else "file", "bytes": 0 if markers else info.size_bytes}

    # --- write ---

    async def _write(self, key: str, data: bytes, request: Request, call: str) -> _Written:
        overwrite, expected = request.get("overwrite", False), request.get("expected_sha256")
        max_bytes = request.get("max_bytes", MAX_BYTES)
        if not overwrite and expected is None:
            # Usually a new file: existing content is read only after a conflict.
            await self._lookup.require_free(key)
            try:
                return _Written(await self._writer.put(key, data, None, call=call, action=CREATED), data)
            except Conflict:
                return _Written(await self._conflicting_mark(key, data, call), data)
        as_text = request.get("as_text", False)
        most = len(data) if expected is None and not as_text else max(len(data), max_bytes)
        old = await self._lookup.find(key, max_bytes=most)
        if old is None:
            return _Written(await self._writer.put(key, data, None, call=call, action=CREATED), data)
        mark = mark_of(old.metadata, call)
        if mark is not None:
            return _Written(mark, data)
        before, kept, gone = old.data, list[str](), list[str]()
        if before is not None and as_text:
            kept, gone = await self._compute(len(before), partial(_styles, before, data))
        data = edits.in_style(data, kept)
        if before is not None and before == data:
            return _Written(None, data)
        if not overwrite:
            await self._require_unchanged(key, old, expected)
        action = REPLACED + "".join(name[0] for name in kept)
        mark = await self._writer.put(key, data, old, call=call, action=action)
        return _Written(mark, data, gone, is_styled=True)

    async def _require_unchanged(self, key: str, old: StoredObject, expected: str | None) -> None:
        """Refuse the write if the file has changed since it was read."""
        data, size = old.data, old.info.size_bytes
        if data is None and size <= LARGEST_COMPARED_BYTES:
            again = await self._lookup.load(key, max_bytes=size)
            data = again.data if again.info.etag == old.info.etag else None
        if data is None or await self._compute(size, lambda: _sha256(data)) != expected:
            raise RefusedError("changed")

    async def _conflicting_mark(self, key: str, data: bytes, call: str) -> Mark | None:
        """Return the mark of this call in the conflicting file; None if its content is the same; else refuse."""
        current = await self._lookup.find(key, max_bytes=len(data))
        if current is None:
            raise Conflict  # it was deleted
        mark = mark_of(current.metadata, call)
        if mark is None and current.data != data:
            raise RefusedError("exists_unread", bytes=current.info.size_bytes)
        return mark

    # --- edit ---

    async def _edit(self, key: str, request: Request, call: str) -> Answer:
        max_bytes = request.get("max_bytes", MAX_BYTES)
        old = await self._lookup.load(key, max_bytes=max_bytes)
        mark = mark_of(old.metadata, call)
        if mark is not None:
            return await self._recorded_edit(key, mark, old)
        data = _text(old, max_bytes)
        change = _Change(data, request, max_bytes)
        answer = await self._compute(len(data), change.make)
        mark = await self._writer.put(key, change.after, old, call=call, action=f"{EDITED}{answer['count']}")
        return {**answer, "path": key, "count": mark.count}

    async def _recorded_edit(self, key: str, mark: Mark, now: StoredObject) -> Answer:
        """Return the answer for an edit by an earlier attempt of this call, without its positions."""
        data = now.data
        if data is None:  # another program made it too large to edit
            raise RefusedError("changed")
        sha256 = await self._compute(len(data), lambda: _sha256(data))
        facts = {"bytes": now.info.size_bytes, "sha256": sha256, "before_sha256": sha256}
        return {"path": key, "count": mark.count, "at": [], "snippet": "", **facts}

    async def _compute(self, size: int, work: Callable[[], T]) -> T:
        """Run CPU-bound work on content of ``size`` bytes; large content outside the event loop."""
        return await self._port.offload(work) if size > OFFLOAD_BYTES else work()


class _Written:
    """A finished write.

    Args:
        mark: The mark of this call, maybe of an earlier attempt; None if the file already had the content.
        data: The content of the request; with ``is_styled``, the written content.
        gone: The known styles of the old content that are gone.
        is_styled: Whether ``data`` already has the kept style.
    """

    def __init__(
        self, mark: Mark | None, data: bytes, gone: Sequence[str] = (), *, is_styled: bool = False
    ) -> None:
        kept = mark.kept if mark else []
        self.data = data if is_styled else edits.in_style(data, kept)
        self.answer: Answer = {
            "created": mark is not None and mark.action == CREATED,
            "unchanged": mark is None,
            **({"kept": kept} if kept else {}),
            **({"gone": list(gone)} if gone else {}),
        }


class _Change:
    """Computes an edit of a content."""

    def __init__(self, before: bytes, request: Request, max_bytes: int) -> None:
        self.before = before
        self.after = b""
        self._request = request
        self._max_bytes = max_bytes

    def make(self) -> Answer:
        sha256, request = _sha256(self.before), self._request
        if request.get("expected_sha256") not in (None, sha256):
            raise RefusedError("changed")
        try:
            edited = edits.apply_edit(
                self.before,
                request["old"],
                request["new"],
                request.get("replace_all", False),
                self._max_bytes,
                exact=request.get("exact", False),
            )
        except edits.EditError as error:
            raise RefusedError(error.code, **error.facts) from None
        self.after = edited.data
        return {
            "count": len(edited.ranges),
            "at": edited.lines[: edits.SHOWN_RANGES],
            "snippet": edits.snippet(edited),
            **edited.remarks,
            "bytes": len(edited.data),
            "sha256": _sha256(edited.data),
            "before_sha256": sha256,
        }


def _text(stored: StoredObject, max_bytes: int) -> bytes:
    if stored.data is None:
        raise RefusedError("too_large", bytes=stored.info.size_bytes, max_bytes=max_bytes)
    kind = text.binary_kind(stored.data)
    if kind:
        raise RefusedError("binary", bytes=len(stored.data), what=kind)
    return stored.data


def _styles(old: bytes, new: bytes) -> tuple[list[str], list[str]]:
    """Return the styles of a file that the new text keeps, and the styles that are gone."""
    kept = edits.style_to_keep(old, new)
    return kept, edits.style_gone(old, edits.in_style(new, kept))


def _call(request: Request) -> str:
    return short(request.get("key") or secrets.token_hex(16))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
