"""File operations by the guest, this package's code in the sandbox. Answers may be forged: each field is checked."""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from langchain_daytona_ws._core.answer import MAX_NUMBER, MAX_PATH, Answer, Reply, encodable
from langchain_daytona_ws._core.files import models
from langchain_daytona_ws._core.files.errors import REFUSALS, file_error
from langchain_daytona_ws._core.files.received import Received, TooLongError
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.paths import is_log
from langchain_daytona_ws._core.ports import BytesSource
from langchain_daytona_ws._core.sync.push import finish_push
from langchain_daytona_ws._core.sync.report import SyncReport, read_report, read_time
from langchain_daytona_ws._guest.dirs import UPLOADS
from langchain_daytona_ws._guest.match import READINGS
from langchain_daytona_ws._guest.omitted import NAMED, REASONS
from langchain_daytona_ws.errors import FileUnsuitable, WorkspaceError, WriteConflict

CALL_TIMEOUT_S = 30.0
# Maximum size of all content of writes inside one request; further content is uploaded. Also the maximum size of one
# file's content inside an answer: a larger file is downloaded. For `view` the caller sets the limit.
INLINE_BYTES = 256 << 10
FETCH_TRIES = 3
BATCH_FILES = 64  # maximum number of files in one request
BATCH_INLINE_BYTES = 4 << 20  # maximum size of all content in the answer to a batch
KINDS = ("file", "dir", "link", "other")


class GuestFiles:
    """The `FileBackend` of a sandbox.

    Args:
        client: Returns the client that calls the guest; may create the sandbox first.
        root: The workspace directory in the sandbox, as ``pwd`` prints it.
        base: The directory that paths are relative to. Default: ``root``.
        made: Absolute paths of directories that are created, with sudo if necessary, before a file is written below
            them. Used only with the ``base`` ``"/"``.
        staging_dir: Directory in the sandbox for uploads of large content; the guest deletes an upload after use.
        is_provisioned: Returns whether the session has a sandbox. If not, `exists` returns no paths, and creates no
            sandbox.
        may_exist: Returns whether a sandbox of this or an earlier session may exist. If not, there are no command logs.
        on_report: Receives the report of the synchronisation with S3 after a change.
    """

    def __init__(
        self,
        client: Callable[[], Awaitable[GuestClient]],
        *,
        root: str,
        base: str | None = None,
        made: Collection[str] = (),
        staging_dir: str = UPLOADS,
        is_provisioned: Callable[[], bool] = lambda: True,
        may_exist: Callable[[], bool] = lambda: True,
        on_report: Callable[[SyncReport], None] = lambda report: None,
    ) -> None:
        self.client = client
        self._root = root
        self._base = base
        self._made = made
        self.staging_dir = staging_dir
        self._is_provisioned = is_provisioned
        self._may_exist = may_exist
        self._on_report = on_report

    async def read(
        self, path: str, *, offset: int, limit: int, limit_bytes: int, max_bytes: int
    ) -> models.FileText:
        reply = await self.call(
            "files", "read", path, offset=offset, limit=limit, limit_bytes=limit_bytes, max_bytes=max_bytes
        )
        return models.FileText(
            path=reply.raw("path"),
            body=reply.text("body", 2 * limit_bytes + 4096),
            first=reply.number("first"),
            last=reply.number("last"),
            lines=reply.number("lines"),
            cut_lines=reply.number("cut"),
            lossy=reply.flag("lossy"),
            newline=reply.text("newline", 16),
            bom=reply.flag("bom"),
            size_bytes=reply.number("bytes"),
            mtime_ns=reply.number("mtime_ns", least=-MAX_NUMBER),
            sha256=reply.sha256("sha256"),
        )

    async def view(self, path: str, query: models.ViewQuery) -> models.FileView:
        reply = await self.call("content", "view", path, **asdict(query))
        real_path, sha256 = reply.raw("path"), reply.sha256("sha256")
        if "content" in reply:
            return models.FileView(real_path, sha256, content=reply.content("content", query.binary_bytes))
        first, last, lines = reply.number("first"), reply.number("last"), reply.number("lines")
        if (first or last) and not query.offset == first <= last <= lines:
            raise reply.malformed("first")
        body = reply.text("body", query.limit_bytes)
        return models.FileView(
            real_path, sha256, body, first, last, lines, cut=reply.flag("cut"), more=reply.flag("more")
        )

    async def fetch(self, path: str, *, max_bytes: int) -> models.FileContent:
        reply = await self.call("content", "fetch", path, inline_bytes=INLINE_BYTES, max_bytes=max_bytes)
        return await self._received(path, reply, max_bytes)

    async def fetch_many(
        self, paths: Sequence[str], *, max_bytes: int
    ) -> Sequence[models.FileContent | WorkspaceError]:
        results: list[models.FileContent | WorkspaceError] = []
        for start in range(0, len(paths), BATCH_FILES):
            part = paths[start : start + BATCH_FILES]
            inline_bytes = min(INLINE_BYTES, BATCH_INLINE_BYTES // len(part))
            fields = {"inline_bytes": inline_bytes, "max_bytes": max_bytes}
            replies = await self.batch("content", [self.request("fetch", path, **fields) for path in part])
            for path, reply in zip(part, replies, strict=True):
                try:
                    results.append(await self._received(path, unless_refused(path, reply), max_bytes))
                except WorkspaceError as error:
                    results.append(error)
        return results

    async def _received(self, path: str, reply: FileReply, max_bytes: int) -> models.FileContent:
        """Return the content of a file. If the answer has no content, download the file, at most three times."""
        for turn in range(FETCH_TRIES):
            if turn:
                reply = await self.call(
                    "content", "fetch", path, inline_bytes=INLINE_BYTES, max_bytes=max_bytes
                )
            real_path, size = reply.raw("path"), reply.number("bytes")
            if "content" in reply:
                data = reply.content("content", max_bytes)
                if len(data) != size:
                    raise reply.malformed("content")
                return models.FileContent(real_path, data, hashlib.sha256(data).hexdigest())
            if size > max_bytes:  # the guest has refused larger files: this answer is forged
                raise reply.malformed("bytes")
            received = Received(size)
            try:
                is_steady = await (await self.client()).download(self.absolute(real_path), received)
            except TooLongError:
                continue
            if is_steady and received.size == size:
                return models.FileContent(real_path, received.data, received.sha256)
        raise WriteConflict(
            f"{path} changed while it was read. Try again.", code="busy", op="fetch", retryable=True
        )

    def absolute(self, path: str) -> str:
        """Return the absolute path, for a request to Daytona's daemon; refuse a path that is not UTF-8."""
        return f"{(self._base or self._root).rstrip('/')}/{_encodable_path(path)}"

    async def write(self, path: str, query: models.WriteQuery, *, key: str) -> models.FileWritten:
        fields = await self._write_fields([query], INLINE_BYTES)
        return written(await self.call("files", "write", path, key=key, **fields[0]))

    async def write_many(
        self, writes: Sequence[tuple[str, models.WriteQuery]], *, new_key: Callable[[], str]
    ) -> Sequence[models.FileWritten | WorkspaceError]:
        results: list[models.FileWritten | WorkspaceError] = []
        for start in range(0, len(writes), BATCH_FILES):
            part = writes[start : start + BATCH_FILES]
            try:
                replies = await self._write_batch(part, new_key())
            except WorkspaceError as error:
                return [*results, *[error] * (len(writes) - start)]
            for (path, _), reply in zip(part, replies, strict=True):
                try:
                    results.append(written(unless_refused(path, reply)))
                except WorkspaceError as error:
                    results.append(error)
        return results

    async def _write_batch(
        self, writes: Sequence[tuple[str, models.WriteQuery]], key: str
    ) -> Sequence[FileReply]:
        fields = await self._write_fields([query for _, query in writes], INLINE_BYTES)
        requests = [
            self.request("write", path, **each) for (path, _), each in zip(writes, fields, strict=True)
        ]
        return await self.batch("files", requests, key=key)

    async def _write_fields(
        self, queries: Sequence[models.WriteQuery], inline_bytes: int
    ) -> list[dict[str, Any]]:
        """Return the fields of each write. They contain the contents that fit into ``inline_bytes`` together.

        The other contents are uploaded in one request.
        """
        found: list[dict[str, Any]] = []
        large: list[tuple[dict[str, Any], bytes]] = []
        for query in queries:
            fields: dict[str, Any] = {"overwrite": query.overwrite, "max_bytes": query.max_bytes}
            if query.as_text:
                fields["as_text"] = True
            if not query.overwrite:
                fields["expected_sha256"] = query.expected_sha256
            if len(query.content) <= inline_bytes:
                fields["content"] = query.content
                inline_bytes -= len(query.content)
            else:
                large.append((fields, query.content))
            found.append(fields)
        if large:
            contents = [BytesSource(data) for _, data in large]
            uploads = await (await self.client()).upload(self.staging_dir, contents)
            for (fields, data), (path, sha256) in zip(large, uploads, strict=True):
                fields |= {"content_from": path, "content_sha256": sha256, "content_bytes": len(data)}
        return found

    async def edit(self, path: str, query: models.EditQuery, *, key: str) -> models.FileEdited:
        fields = {name: value for name, value in asdict(query).items() if name != "exact" or value}
        reply = await self.call("files", "edit", path, key=key, **fields)
        return models.FileEdited(
            path=reply.raw("path"),
            count=reply.number("count"),
            lines=reply.numbers("at"),
            snippet=reply.text("snippet", 65536),
            size_bytes=reply.number("bytes"),
            sha256=reply.sha256("sha256"),
            from_record=reply.is_from_record,
            differences=reply.differences("differences"),
            mixed="mixed" in reply,
            verbatim="verbatim" in reply,
            before_sha256=reply.sha256("before_sha256"),
        )

    async def delete(self, path: str, *, key: str) -> models.FileDeleted:
        reply = await self.call("files", "delete", path, key=key)
        return models.FileDeleted(path, reply.raw("kind", 16), reply.is_from_record)

    async def list(self, path: str, *, limit: int, limit_bytes: int) -> models.Listing:
        reply = await self.call("tree", "list", path, limit=limit, limit_bytes=limit_bytes)
        return models.Listing(path, reply.entries("entries"), reply.number("total"), reply.flag("more"))

    async def glob(
        self, path: str, query: models.GlobQuery
    ) -> tuple[models.GlobResult, models.GlobReading | None]:
        reply = await self.call("tree", "glob", path, **asdict(query))
        result = models.GlobResult(
            pattern=query.pattern,
            entries=reply.entries("paths"),
            total=reply.number("total"),
            more=reply.flag("more"),
            timed_out=reply.flag("timed_out"),
            skipped=reply.names("skipped"),
            omitted=reply.omitted("omitted"),
        )
        return result, reply.reading("reading")

    async def grep(
        self, path: str, query: models.GrepQuery
    ) -> tuple[models.GrepResult, models.GlobReading | None]:
        reply = await self.call("search", "grep", path, **asdict(query))
        rows = reply.grep_rows("rows", query.mode)
        result = models.GrepResult(
            pattern=query.pattern,
            mode=query.mode,
            rows=tuple(replace(row, path=path) for row in rows) if is_log(path) else rows,
            more=reply.flag("more"),
            timed_out=reply.flag("timed_out"),
            skipped=reply.names("skipped"),
            omitted=reply.omitted("omitted"),
        )
        return result, reply.reading("reading")

    async def similar(self, path: str) -> Sequence[str]:
        return (await self.call("similar_paths", "similar", path)).names("found")

    async def exists(self, paths: Sequence[str]) -> Sequence[str]:
        if not self._is_provisioned():
            return ()
        return (await self.call("similar_paths", "exists", ".", paths=list(paths))).names("found")

    async def call(
        self,
        entry: str,
        op: str,
        path: str,
        *,
        key: str | None = None,
        call_s: float = CALL_TIMEOUT_S,
        **fields: object,
    ) -> FileReply:
        """Send the request of one operation; return its answer, or raise the error of a refusal."""
        return unless_refused(
            path, await self._send(entry, op, self.request(op, path, **fields), key, call_s)
        )

    async def batch(
        self,
        entry: str,
        requests: Sequence[Answer],
        *,
        key: str | None = None,
        call_s: float = CALL_TIMEOUT_S,
    ) -> Sequence[FileReply]:
        """Send several requests as one; return the answer to each, which may be a refusal."""
        request: Answer = {"root": self._root, "op": "batch", "requests": list(requests)}
        reply = await self._send(entry, "batch", request, key, call_s)
        return reply.answers([str(each["op"]) for each in requests])

    def request(self, op: str, path: str, **fields: object) -> Answer:
        request: Answer = {"root": self._root, "op": op, "path": path, **fields}
        if is_log(path):
            if not self._may_exist():
                raise file_error(path, op, "missing", {})
            request["log"] = True
        if self._base is not None:
            # ``root`` is sent too: the guest enters it first, which mounts the workspace; ``path`` may be in the mount.
            below = [made for made in self._made if op == "write" and f"/{path}".startswith(f"{made}/")]
            request |= {"base": self._base, "made": below}
        return request

    async def _send(self, entry: str, op: str, request: Answer, key: str | None, call_s: float) -> FileReply:
        """Send a request, and report the synchronisation after it. The guest applies a change once for each ``key``."""
        if key is not None:
            request["key"] = key
        client = await self.client()
        answer, sandbox_id = await client.call(entry, request, timeout_s=call_s)
        reply = FileReply(op, answer)  # raises an error if the answer is not an object
        if answer.get("sync") is not None:
            first, asked = read_report(answer["sync"]), read_time(answer.get("asked"))
            only = client.only_for(sandbox_id)
            self._on_report(await finish_push(only, self._root, first, asked=asked))
        return reply


class FileReply(Reply):
    """The answer to a file request."""

    def answers(self, ops: Sequence[str]) -> Sequence[FileReply]:
        found = self._list("answers")
        if len(found) != len(ops):
            raise self.malformed("answers")
        return [FileReply(op, each) for op, each in zip(ops, found, strict=True)]

    def content(self, name: str, max_bytes: int) -> bytes:
        """Return the bytes of a field with base64."""
        try:
            value = binascii.a2b_base64(self.raw(name, 2 * max_bytes + 4), strict_mode=True)
        except ValueError:
            raise self.malformed(name) from None
        if len(value) > max_bytes:
            raise self.malformed(name)
        return value

    def omitted(self, name: str) -> tuple[models.Omitted, ...]:
        value = self._answer.get(name)
        if not isinstance(value, Mapping):
            raise self.malformed(name)
        return tuple(self._omitted(value[reason], reason, name) for reason in REASONS if reason in value)

    def reading(self, name: str) -> models.GlobReading | None:
        value = self._answer.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 3:
            raise self.malformed(name)
        kinds: tuple[models.ReadingKind, ...] = READINGS
        kind = next((kind for kind in kinds if kind == value[0]), None)
        if kind is None:
            raise self.malformed(name)
        return models.GlobReading(
            kind, self._raw(value[1], name, MAX_PATH), self._raw(value[2], name, MAX_PATH)
        )

    def styles(self, name: str) -> tuple[str, ...]:
        """Return the names of styles (byte order mark, line ends); an empty tuple if the field is missing."""
        found = self.names(name) if name in self else ()
        if not set(found) <= {"bom", "crlf", "bytes"}:
            raise self.malformed(name)
        return found

    def differences(self, name: str) -> tuple[models.Difference, ...]:
        return tuple(self._difference(row, name) for row in self._list(name)) if name in self else ()

    def entries(self, name: str) -> tuple[models.Entry, ...]:
        return tuple(self._entry(row, name) for row in self._list(name))

    def grep_rows(self, name: str, mode: models.OutputMode) -> tuple[models.GrepRow, ...]:
        return tuple(self._grep_row(row, name, mode) for row in self._list(name))

    def _omitted(self, value: object, reason: models.OmittedReason, where: str) -> models.Omitted:
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
            raise self.malformed(where)
        count, paths = self._number(value[0], where), value[1]
        if not 0 < len(paths) <= min(count, NAMED):
            raise self.malformed(where)
        return models.Omitted(reason, count, tuple(self._raw(path, where, MAX_PATH) for path in paths))

    def _difference(self, row: object, where: str) -> models.Difference:
        if not isinstance(row, list) or len(row) != 4:
            raise self.malformed(where)
        line, column = self._number(row[0], where), self._number(row[1], where)
        return models.Difference(line, column, self._raw(row[2], where, 64), self._raw(row[3], where, 64))

    def _entry(self, row: object, where: str) -> models.Entry:
        if not isinstance(row, list) or len(row) not in (4, 5) or row[1] not in KINDS:
            raise self.malformed(where)
        target = row[4] if len(row) == 5 and row[4] is not None else None
        return models.Entry(
            name=self._raw(row[0], where, MAX_PATH),
            kind=str(row[1]),
            size_bytes=self._number(row[2], where),
            mtime_ns=self._number(row[3], where, least=-MAX_NUMBER),
            target=None if target is None else self._raw(target, where, MAX_PATH),
        )

    def _grep_row(self, row: object, where: str, mode: models.OutputMode) -> models.GrepRow:
        sizes = {"files_with_matches": (1,), "count": (2,), "content": (4, 5)}[mode]
        if not isinstance(row, list) or len(row) not in sizes:
            raise self.malformed(where)
        path = self._raw(row[0], where, MAX_PATH)
        if mode == "files_with_matches":
            return models.GrepRow(path)
        number = self._number(row[1], where)
        if mode == "count":
            return models.GrepRow(path, count=number)
        text = encodable(self._raw(row[3], where, 65536))
        is_match, column = self._flag(row[2], where), self._number(row[4], where) if len(row) == 5 else 0
        return models.GrepRow(path, line=number, is_match=is_match, text=text, column=column)


def _refusal(path: str, reply: FileReply) -> WorkspaceError:
    code = reply.raw("error", 64)
    if code not in REFUSALS:
        return reply.malformed("error")
    try:
        facts = {name: _FACTS[name](reply, name) for name in REFUSALS[code].facts if name in reply}
        return file_error(path, reply.op, code, facts)
    except KeyError as missing:
        return reply.malformed(str(missing.args[0]))


_FACTS: Mapping[str, Callable[[FileReply, str], object]] = {
    **dict.fromkeys(("bytes", "max_bytes", "lines", "line", "count"), Reply.number),
    **dict.fromkeys(("what", "kind", "hint", "text", "errno"), Reply.maybe),
    "at": Reply.numbers,
    "differences": FileReply.differences,
    "state": lambda reply, name: reply.raw(name, 32),
    "on_s3": lambda _reply, _name: True,
}
"""Name of a fact of a refusal → the function that reads and checks it."""


def unless_refused(path: str, reply: FileReply) -> FileReply:
    """Return the answer; if it is a refusal, raise the error."""
    if not reply.flag("ok"):
        raise _refusal(path, reply)
    return reply


def written(reply: FileReply) -> models.FileWritten:
    return models.FileWritten(
        path=reply.raw("path"),
        created=reply.flag("created"),
        unchanged=reply.flag("unchanged"),
        size_bytes=reply.number("bytes"),
        sha256=reply.sha256("sha256"),
        from_record=reply.is_from_record,
        kept=reply.styles("kept"),
        gone=reply.styles("gone"),
    )


def _encodable_path(path: str) -> str:
    """Return ``path``. Refuse it if it is not UTF-8: a symlink may lead to such a name."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise FileUnsuitable(
            "A link leads to a name that is not UTF-8. Rename the file with mv.",
            code="name_not_text",
            op="fetch",
        ) from None
    return path
