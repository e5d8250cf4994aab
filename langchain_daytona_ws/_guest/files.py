"""Read, write, edit and delete files in the sandbox. This docstring is the contract of all file operations.

There are several entry modules, so that each call loads only the code that it needs: ``files`` (read, write, edit,
delete), ``tree`` (list, glob) and ``search`` (grep). ``content``, ``transfer`` and ``similar_paths`` document their own
operations. ``main({"root": "/mnt/workspaces/ns", "op": ..., "path": ..., ...})`` of an entry module returns one answer,
whose values JSON can represent.

A request that changes files has an idempotency key (``key``): even if the request arrives several times, the change is
made once. Paths are relative to the root; ``"."`` is the root itself. Sizes are in bytes, times in nanoseconds
(``mtime_ns``) or seconds (``timeout_s``). Bytes of names that are not UTF-8 are sent as lone surrogates
(``surrogateescape``) in ASCII-only JSON.

======  ==============================================  ===================================================
op      request (default)                               answer, in addition to ``ok: true``
======  ==============================================  ===================================================
read    offset (1), limit (2000), limit_bytes (65536),  path, body, first, last, lines, cut, lossy, newline,
        max_bytes (10 MiB)                              bom, bytes, mtime_ns, sha256
write   content: bytes, or content_from: path with      path, created, unchanged, bytes, sha256; if any:
        content_sha256, content_bytes; overwrite        kept (`edit.style_to_keep`), gone
        (false),                                        (`edit.style_gone`)
        expected_sha256 (null), max_bytes, as_text
        (false; true: keep the file's line ends and
        byte order mark), executable (false; true: the
        file is made executable)
edit    old, new, replace_all (false), exact (false),   path, count, at: [line], snippet, bytes, sha256,
        expected_sha256 (null), max_bytes               before_sha256; if set: differences: [[line, column,
                                                        text in the file, text in old]], mixed, verbatim (see
                                                        `edit.Edit`)
list    limit, limit_bytes                              path, entries: [[name, kind, bytes, mtime_ns,
                                                        target]], total, more
glob    pattern, limit, limit_bytes, timeout_s          paths: [[path, kind, bytes, mtime_ns]], total, more,
                                                        timed_out, skipped: [path], omitted, reading
grep    pattern, glob (null), mode, before (0),         engine, rows, more, timed_out, skipped: [path],
        after (0), ignore_case (false), limit,          omitted, reading
        limit_bytes, timeout_s, tool_path (PATH)
delete                                                  path, kind, bytes
batch   requests: [request]; also in ``content``,       answers: [answer]
        ``transfer``
======  ==============================================  ===================================================

``kind`` is ``file``, ``dir``, ``link`` or ``other``. ``rows`` of grep: ``[path]`` in mode
``files_with_matches``, ``[path, count]`` in ``count``, ``[path, line, is_match, text]`` in ``content``. If the text of
a matching line was cut, its row also has the column of the match. ``more``: True if there are more results than a limit
allows. ``omitted``: ``{reason: [count, paths]}``, see ``omitted.omitted``. ``reading``: null, or
``[kind, pattern, path]``, see ``match.readings``. If a read or search has ``log: true``, its ``path`` is the absolute
path of a command's log.

A refusal is ``{"ok": false, "error": code, ...facts}``. The codes, with their facts, are ``missing``,
``outside`` (a symlink or ``..`` leaves the workspace), ``loop``, ``is_directory``, ``not_a_directory``,
``not_regular`` (kind), ``binary`` (bytes, what), ``too_large`` (bytes, max_bytes), ``past_end`` (lines),
``exists_unread`` (bytes), ``changed`` (perhaps bytes), ``not_found`` (hint, line, and perhaps differences, count),
``not_unique`` (count, at), ``too_many`` (count), ``identical``, ``empty``, ``not_empty`` (count), ``is_root``,
``bad_path``, ``bad_glob`` (text), ``bad_pattern`` (text), ``no_tool``, ``staging`` (the upload is missing or damaged),
``busy`` (being changed), ``write_failed`` (errno, text, state, bytes), ``os`` (errno, text). ``state`` after a failed
write: ``unchanged`` or ``restored`` (the file has the old content), ``absent``, ``partial`` (the file has ``bytes``
bytes), ``unknown``.
"""

from __future__ import annotations

import os
import time

from langchain_daytona_ws._guest import edit as edits
from langchain_daytona_ws._guest import media, text
from langchain_daytona_ws._guest.operations import run_all
from langchain_daytona_ws._guest.store import MAX_BYTES, Content, Source, create, load, replace
from langchain_daytona_ws._guest.walk import Location, RefusedError, kind_of, locate, need_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Request = dict[str, Any]
    Answer = dict[str, Any]

COUNTED_ENTRIES = 1000  # maximum number of entries of a directory that are counted
# On an S3 mount a directory disappears with its last file. For up to a second it stays visible, but no file can be
# created in it. Retry after these times: then the directory is created again.
VANISHED_WAITS_S = (0.05, 1.2)


def main(request: Request) -> Answer:
    return run_all(_OPS, request)


def read(request: Request) -> Answer:
    max_bytes = request.get("max_bytes", MAX_BYTES)
    with locate(request["root"], request["path"]) as location:
        try:
            content = _load_small(location, max_bytes)
        except RefusedError as refusal:
            kind = _large_media(location) if refusal.error == "too_large" else ""
            if not kind:
                raise
            raise RefusedError("binary", bytes=refusal.facts["bytes"], what=kind) from None
        path = location.path
    kind = media.media_kind(content.data or b"")
    if kind:
        raise RefusedError("binary", bytes=content.size, what=kind)
    data = _text(content)
    offset = request.get("offset", 1)
    page = text.page(data, offset, request.get("limit", text.PAGE_LINES), request.get("limit_bytes", 65536))
    if not page.body and offset > 1:
        raise RefusedError("past_end", lines=page.lines)
    shown = {name: getattr(page, name) for name in text.Page.__slots__}
    return {**shown, "path": path, **_facts(content)}


def write(request: Request) -> Answer:
    upload = (request.get("content_from"), request.get("content_sha256"), request.get("content_bytes"))
    source = Source(request.get("content"), *upload, executable=request.get("executable", False))
    try:
        for wait_s in (*VANISHED_WAITS_S, None):
            try:
                with locate(request["root"], request["path"], make_parents=True) as location:
                    return {**_write(location, source, request), "path": location.path}
            except FileNotFoundError:
                if wait_s is None:
                    raise
                time.sleep(wait_s)
        raise RefusedError("busy")
    finally:
        source.close()


def edit(request: Request) -> Answer:
    max_bytes = request.get("max_bytes", MAX_BYTES)
    with locate(request["root"], request["path"]) as location:
        before = _load_small(location, max_bytes)
        _expect(before, request.get("expected_sha256"))
        try:
            edited = edits.apply_edit(
                _text(before),
                request["old"],
                request["new"],
                request.get("replace_all", False),
                max_bytes,
                exact=request.get("exact", False),
            )
        except edits.EditError as error:
            raise RefusedError(error.code, **error.fields) from None
        source = Source(edited.data, None)
        if load(location, 0).sha256 != before.sha256:
            raise RefusedError("changed")
        replace(location, source.chunks(), before)
        path = location.path
    return {
        "path": path,
        "count": len(edited.ranges),
        "at": edited.lines[: edits.SHOWN_RANGES],
        "snippet": edits.snippet(edited),
        **edited.remarks,
        "bytes": source.size,
        "sha256": source.sha256,
        "before_sha256": before.sha256,
    }


def delete(request: Request) -> Answer:
    """Delete a file, a symlink (not its target) or an empty directory."""
    with locate(request["root"], request["path"], follow=False) as location:
        if location.name == ".":
            raise RefusedError("is_root")
        status = location.status()
        if status is None:
            raise RefusedError("missing")
        kind = kind_of(status)
        if kind == "dir":
            _remove_directory(location)
        else:
            os.unlink(location.name, dir_fd=location.parent)
        return {"path": location.path, "kind": kind, "bytes": status.st_size if kind == "file" else 0}


def _write(location: Location, source: Source, request: Request) -> Answer:
    overwrite, expected = request.get("overwrite", False), request.get("expected_sha256")
    for _ in range(3):
        status = location.status()
        if status is None:
            if create(location, source):
                return _written(source, created=True)
            continue  # another process created it
        if overwrite and not request.get("as_text") and source.move(location, need_file(status)):
            return _written(source)
        try:
            old = _present(location, source.size, request)
        except RefusedError as refusal:
            if refusal.error == "missing":
                continue
            raise
        new, notes = _styled(source, old, request)
        if old.sha256 == new.sha256:
            new.make_executable(location)
            return _written(new, unchanged=True)
        if not overwrite:
            if expected is None:
                raise RefusedError("exists_unread", bytes=old.size)
            _expect(old, expected)
        if not (new is source and source.move(location, need_file(status))):
            replace(location, new.chunks(), old)
            new.make_executable(location)
        return {**_written(new), **notes}
    raise RefusedError("busy")


def _styled(source: Source, old: Content, request: Request) -> tuple[Source, Answer]:
    """Apply the line ends and byte order mark of the old text to the new text, if the request has ``as_text``.

    Return the content to write, and the fields ``kept`` and ``gone`` of the answer.
    """
    if old.data is None or not request.get("as_text"):
        return source, {}
    data = b"".join(source.chunks())
    kept = edits.style_to_keep(old.data, data)
    if kept:
        data = edits.in_style(data, kept)
        source = Source(data, None)
    gone = edits.style_gone(old.data, data)
    return source, {**({"kept": kept} if kept else {}), **({"gone": gone} if gone else {})}


def _written(source: Source, created: bool = False, unchanged: bool = False) -> Answer:
    return {"created": created, "unchanged": unchanged, "bytes": source.size, "sha256": source.sha256}


def _present(location: Location, new_size: int, request: Request) -> Content:
    """Load the file to replace. A file of more than ``max_bytes`` bytes is only hashed.

    Such a file is not even hashed if its hash is not needed: its size differs from the new size, and the request
    expects no hash.
    """
    status = need_file(location.status())
    max_bytes = request.get("max_bytes", MAX_BYTES)
    if status.st_size != new_size and request.get("expected_sha256") is None:
        if not request.get("overwrite", False):
            raise RefusedError("exists_unread", bytes=status.st_size)
        if status.st_size > max_bytes:
            return Content("", status.st_size, status.st_mtime_ns, None)
    return load(location, max_bytes)


def _load_small(location: Location, max_bytes: int) -> Content:
    size = need_file(location.status()).st_size
    if size <= max_bytes:
        content = load(location, max_bytes)
        if content.data is not None:
            return content
        size = content.size
    raise RefusedError("too_large", bytes=size, max_bytes=max_bytes)


def _large_media(location: Location) -> str:
    """Return the kind of an image or a PDF document that is too large to be loaded; ``""`` for any other file."""
    try:
        fd = location.open(os.O_RDONLY)
        try:
            need_file(os.fstat(fd))
            return media.media_kind(os.read(fd, media.HEAD_BYTES))
        finally:
            os.close(fd)
    except OSError:
        return ""


def _text(content: Content) -> bytes:
    data = content.data or b""
    kind = text.binary_kind(data)
    if kind:
        raise RefusedError("binary", bytes=content.size, what=media.media_kind(data) or kind)
    return data


def _expect(present: Content, sha256: str | None) -> None:
    if sha256 is not None and present.sha256 != sha256:
        raise RefusedError("changed", bytes=present.size)


def _facts(content: Content) -> Answer:
    return {"bytes": content.size, "mtime_ns": content.mtime_ns, "sha256": content.sha256}


def _remove_directory(location: Location) -> None:
    try:
        os.rmdir(location.name, dir_fd=location.parent)
    except OSError:
        # An S3 mount answers EPERM if the directory is not empty.
        fd = location.open_dir()
        try:
            with os.scandir(fd) as entries:
                count = 0
                for _ in entries:
                    count += 1
                    if count == COUNTED_ENTRIES:
                        break
        finally:
            os.close(fd)
        if count:
            raise RefusedError("not_empty", count=count) from None
        raise


_OPS: dict[str, Callable[[Request], Answer]] = {
    "read": read,
    "write": write,
    "edit": edit,
    "delete": delete,
}
