"""Walk the keys below a directory in one listing, and skip unwanted directories."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from langchain_daytona_ws._core.s3.names import LAST, is_hidden
from langchain_daytona_ws._core.s3.store import ObjectInfo, ObjectStorePort
from langchain_daytona_ws._guest.scan import MAX_ENTRIES

S = TypeVar("S")


class Visitor(Protocol[S]):
    """Receives the entries of a walk. Paths are relative to the workspace root."""

    def directory(self, above: S, path: str, name: str) -> S | None:
        """Handle a directory once, before its entries; return its state, or None to skip it."""
        ...

    def file(self, above: S, path: str, name: str, info: ObjectInfo) -> None:
        """Handle a file. A later directory of the same path hides the file."""
        ...


class Walk(Generic[S]):
    """One walk; ``cut`` if it ended early, at the limit of entries or of time (``timed_out``).

    Args:
        port: The bucket.
        base: The prefix of all keys: a directory with its ``/``, or ``""``.
        visitor: Receives the entries.
        deadline: End of the walk, on the port's clock.
    """

    def __init__(self, port: ObjectStorePort, base: str, visitor: Visitor[S], deadline: float) -> None:
        self.cut = self.timed_out = False
        self.keys = 0  # number of listed keys, with hidden ones
        self._port = port
        self._base = base
        self._visitor = visitor
        self._deadline = deadline
        self._skipped = ""  # the latest skipped directory, with its "/"
        self._above: list[tuple[str, S]] = []  # the directories of the latest key, with their states

    async def run(self, start: S, first_prefix: str = "") -> None:
        """Walk.

        Args:
            start: The state of the base.
            first_prefix: The beginning of the wanted names in the base.
        """
        more: str | None = None
        start_after = ""
        pages = 0
        while True:
            page = await self._port.list_page(self._base + first_prefix, start_after=start_after, more=more)
            for info in page.objects:
                self._visit(info, start)
            pages += 1
            self.keys += len(page.objects)
            if page.more is None:
                return
            self.timed_out = self._port.now() > self._deadline
            self.cut = self.timed_out or max(self.keys, pages) > MAX_ENTRIES
            if self.cut:
                return
            last = page.objects[-1].key if page.objects else ""
            if self._skipped and last.startswith(self._skipped) and last < self._skipped + LAST:
                more, start_after = None, self._skipped + LAST
            else:
                more, start_after = page.more, ""

    def _visit(self, info: ObjectInfo, start: S) -> None:
        if self._skipped:
            if info.key.startswith(self._skipped):
                return
            self._skipped = ""
        *names, last = info.key[len(self._base) :].split("/")
        state = self._enter(names, start)
        if state is not None and not is_hidden(last):
            self._visitor.file(state, info.key, last, info)

    def _enter(self, names: list[str], start: S) -> S | None:
        """Enter a directory and report new directories above it; return its state, or None if one is skipped."""
        common = 0
        while common < min(len(names), len(self._above)) and names[common] == self._above[common][0]:
            common += 1
        del self._above[common:]
        state = self._above[-1][1] if self._above else start
        for count in range(common, len(names)):
            path = self._base + "/".join(names[: count + 1])
            below = None if is_hidden(names[count]) else self._visitor.directory(state, path, names[count])
            if below is None:
                self._skipped = path + "/"
                return None
            self._above.append((names[count], below))
            state = below
        return state
