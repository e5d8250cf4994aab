"""Walk the keys below a directory in one listing, and jump over directories that nobody wants to see."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from langchain_daytona_ws._core.s3.names import LAST, is_hidden
from langchain_daytona_ws._core.s3.store import ObjectInfo, ObjectStorePort
from langchain_daytona_ws._guest.scan import MAX_ENTRIES

S = TypeVar("S")


class Visitor(Protocol[S]):
    """Whoever wants to see what is there. Paths are from the workspace root."""

    def directory(self, above: S, path: str, name: str) -> S | None:
        """See a directory, once, before what is in it; return what goes with it, or None to leave it out."""
        ...

    def file(self, above: S, path: str, name: str, info: ObjectInfo) -> None:
        """See a file. When a directory of the same path comes later, that hides the file."""
        ...


class Walk(Generic[S]):
    """One walk; ``cut`` when it ended early, at the limit of entries or of time (``timed_out``).

    Args:
        port: The bucket.
        base: What all keys begin with, a directory's with its ``/`` or ``""``.
        visitor: Gets to see everything.
        deadline: When to stop, on the port's clock.
    """

    def __init__(self, port: ObjectStorePort, base: str, visitor: Visitor[S], deadline: float) -> None:
        self.cut = self.timed_out = False
        self.keys = 0  # that were seen, hidden ones too
        self._port = port
        self._base = base
        self._visitor = visitor
        self._deadline = deadline
        self._left_out = (
            ""  # the directory, with its "/", that the latest key lies in and nobody wants to see
        )
        self._above: list[tuple[str, S]] = []  # the directories of the latest key, and what goes with them

    async def run(self, start: S, beginning: str = "") -> None:
        """Walk.

        Args:
            start: What goes with the base.
            beginning: Of the names in the base that are wanted.
        """
        more: str | None = None
        behind = ""
        pages = 0
        while True:
            page = await self._port.list_page(self._base + beginning, start_after=behind, more=more)
            for info in page.objects:
                self._see(info, start)
            pages += 1
            self.keys += len(page.objects)
            if page.more is None:
                return
            self.timed_out = self._port.now() > self._deadline
            self.cut = self.timed_out or max(self.keys, pages) > MAX_ENTRIES
            if self.cut:
                return
            last = page.objects[-1].key if page.objects else ""
            if self._left_out and last.startswith(self._left_out) and last < self._left_out + LAST:
                more, behind = None, self._left_out + LAST
            else:
                more, behind = page.more, ""

    def _see(self, info: ObjectInfo, start: S) -> None:
        if self._left_out:
            if info.key.startswith(self._left_out):
                return
            self._left_out = ""
        *names, last = info.key[len(self._base) :].split("/")
        state = self._enter(names, start)
        if state is not None and not is_hidden(last):
            self._visitor.file(state, info.key, last, info)

    def _enter(self, names: list[str], start: S) -> S | None:
        """Go to a directory, showing those that are new on the way; None when one of them is left out."""
        same = 0
        while same < min(len(names), len(self._above)) and names[same] == self._above[same][0]:
            same += 1
        del self._above[same:]
        state = self._above[-1][1] if self._above else start
        for count in range(same, len(names)):
            path = self._base + "/".join(names[: count + 1])
            below = None if is_hidden(names[count]) else self._visitor.directory(state, path, names[count])
            if below is None:
                self._left_out = path + "/"
                return None
            self._above.append((names[count], below))
            state = below
        return state
