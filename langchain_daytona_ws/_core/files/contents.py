"""File operations for programs that show files to a model in their own way: lines as they are, and whole contents."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langchain_daytona_ws._core.files.errors import file_error
from langchain_daytona_ws._core.files.models import Reply
from langchain_daytona_ws._core.files.operations import EDIT_BYTES, INLINE_BYTES, FileOps, Guest, Upload
from langchain_daytona_ws._guest.edit import EditError, apply_edit
from langchain_daytona_ws.errors import FileUnsuitable, SandboxError, WriteConflict

Download = Callable[[str, int], Awaitable[bytes]]

LARGEST_BYTES = 128 << 20  # of a file that is fetched whole
VIEWED_BYTES = 32 << 20  # of a text file of which lines are given
FETCH_TRIES = 3
# So much comes in the answer itself when a download was not what the sandbox had: a download of the daemon 0.190 ends
# where a file holds the text that separates its parts. As base64 it is below what an answer may have.
INLINE_AGAIN_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Viewed:
    """Lines of a text file; or, in ``content``, all of a binary one. ``first`` and ``last`` are 1-based, or 0."""

    body: str = ""
    first: int = 0
    last: int = 0
    lines: int = 0
    cut: bool = False  # the one line shown is longer
    more: bool = False  # there was no room for all lines asked for
    content: bytes | None = None


class ContentOps(FileOps):
    """`FileOps`, with views and whole contents.

    Args:
        guest, upload, given: As `FileOps` takes them.
        download: Gets a file from the sandbox by its absolute path, up to a limit in bytes; None when the guest needs
            no such detour.
    """

    def __init__(self, guest: Guest, upload: Upload | None, download: Download | None, **given: Any) -> None:
        super().__init__(guest, upload, **given)
        self._download = download

    async def view(
        self, path: str, *, offset: int, limit: int, limit_bytes: int, binary: bool, binary_bytes: int
    ) -> Viewed:
        """Read lines without numbers, from the 1-based line ``offset``; all of a file that is no text.

        Args:
            path: The file; a text of at most 32 MiB.
            offset: The first line.
            limit: How many lines.
            limit_bytes: Most bytes of them.
            binary: Whether to take it for binary, whatever it holds.
            binary_bytes: Largest binary file.

        Raises:
            FileError: As `read` raises; one past the end gives no lines.
        """
        place = await self._place(path, log=True)
        reply = await self._ask(
            "content",
            "view",
            place,
            offset=offset,
            limit=limit,
            limit_bytes=limit_bytes,
            binary=binary,
            binary_bytes=binary_bytes,
            max_bytes=VIEWED_BYTES,
        )
        self._remember(place, reply, reply.sha256("sha256"))
        if "content" in reply:
            return Viewed(content=reply.content("content", binary_bytes))
        viewed = Viewed(
            body=reply.text("body", limit_bytes),
            first=reply.number("first"),
            last=reply.number("last"),
            lines=reply.number("lines"),
            cut=reply.flag("cut"),
            more=reply.flag("more"),
        )
        if (viewed.first or viewed.last) and not offset == viewed.first <= viewed.last <= viewed.lines:
            raise reply.garbled("first")
        return viewed

    async def fetch(self, path: str, *, max_bytes: int = LARGEST_BYTES) -> bytes:
        """Get all of a file.

        Raises:
            FileError: It is none, or larger; or it changed each time while it came over.
        """
        place = await self._place(path, log=True)
        data, sha256, reply = await self._fetched(place, max_bytes)
        self._remember(place, reply, sha256)
        return data

    async def _fetched(self, place: str, max_bytes: int) -> tuple[bytes, str, Reply]:
        for attempt in range(FETCH_TRIES):
            inline_bytes = INLINE_BYTES if attempt == 0 else INLINE_AGAIN_BYTES
            reply = await self._ask("content", "fetch", place, inline_bytes=inline_bytes, max_bytes=max_bytes)
            sha256, size = reply.sha256("sha256"), reply.number("bytes")
            if "content" in reply or self._download is None:
                data = reply.content("content", max_bytes)
            else:
                at = f"{self._root.rstrip('/')}/{_sendable(reply.raw('path'))}"
                try:
                    data = await self._download(at, size)
                except SandboxError as error:
                    if attempt or error.code != "daytona_refused":
                        raise
                    continue  # the parts may have been garbled by what is in the file
            if len(data) == size and hashlib.sha256(data).hexdigest() == sha256:
                return data, sha256, reply
        raise WriteConflict(
            f"{place} changed while it was read. Try again.", code="busy", op="fetch", retryable=True
        )

    async def replace_text(self, path: str, old: str, new: str, *, replace_all: bool) -> int:
        """Edit as `edit` does, with strings of any size; return how many places were edited.

        Nothing that is only alike is edited, since nothing could be said of it.
        """
        if len(old) + len(new) <= EDIT_BYTES // 4:  # a character has four bytes at most
            return (await self.edit(path, old, new, replace_all=replace_all, exact=True)).count
        place = await self._place(path)
        data, before, _ = await self._fetched(place, self._max_bytes)
        try:
            made = apply_edit(data, old, new, replace_all, self._max_bytes, exact=True)
        except EditError as error:
            raise file_error(place, Reply("edit", {"error": error.code, **error.facts})) from None
        # Only over what was fetched: what another call has changed since must not be lost.
        reply = await self._put(place, made.data, overwrite=False, expected_sha256=before)
        self._remember_edit(place, reply, before, reply.sha256("sha256"))
        return len(made.spots)

    async def create(self, path: str, content: str | bytes) -> None:
        """Write a file that must not be there yet, or with other content; also one that this session has read."""
        self._seen.pop(await self._place(path), None)
        await self.write(path, content)


def _sendable(path: str) -> str:
    """Return a path that a link has led to, if it can be asked for.

    Raises:
        FileUnsuitable: It is not UTF-8, which no request can hold.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise FileUnsuitable(
            "A link leads to a name that is not UTF-8. Rename the file with mv.",
            code="name_not_text",
            op="fetch",
        ) from None
    return path
