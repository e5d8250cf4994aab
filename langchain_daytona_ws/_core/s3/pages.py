"""List many keys in order, by parallel requests.

S3 lists a prefix page by page. After the first page, the remaining keys are divided into parts. The pages of all parts
are requested in parallel.

If the keys are in several directories, each part begins at a directory. Listings with a delimiter find the directories;
they are requested together with the second page. In a single directory, names are assumed to resemble the names of the
latest page. If they do not, some parts are empty, and each empty part costs a request.
"""

from __future__ import annotations

import string
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from os.path import commonprefix

from langchain_daytona_ws._core.s3.store import KeyPage, ObjectStorePort, PageRequest, StoreFault

PARTS = 8
KEPT_PAGES = 3  # maximum number of pages of a part that have arrived, but were not returned yet
LEVELS = 4  # maximum number of nested directories to list for the beginnings of parts
_CLASSES = (string.digits, string.ascii_uppercase, string.ascii_lowercase)


class _Part:
    """The keys after ``start`` up to ``end``; ``pages`` have arrived, but were not returned yet."""

    def __init__(self, start: str, end: str | None) -> None:
        self.start = start  # the keys after this one have not arrived
        self.end = end
        self.more: str | None = None
        self.pages = deque[KeyPage]()
        self.is_complete = False
        self.names: tuple[str, str] | None = None  # the first and the last name of the latest page

    @property
    def wants_page(self) -> bool:
        return len(self.pages) < KEPT_PAGES and not self.is_complete

    def within(self, names: list[str]) -> list[str]:
        """Return the names after ``start`` and before ``end``; ``names`` must be sorted."""
        last = len(names) if self.end is None else bisect_left(names, self.end)
        return names[bisect_right(names, self.start) : last]

    def receive(self, page: KeyPage) -> None:
        end = self.end
        if end is not None:
            objects = tuple(info for info in page.objects if info.key <= end)
            prefixes = tuple(prefix for prefix in page.prefixes if prefix <= end)
            is_past = len(objects) + len(prefixes) < len(page.objects) + len(page.prefixes)
            page = KeyPage(objects, prefixes, None if is_past else page.more)
        self.pages.append(page)
        self.more, self.is_complete = page.more, page.more is None
        names = [page.objects[at].key for at in (0, -1) if page.objects]
        names += [page.prefixes[at] for at in (0, -1) if page.prefixes]
        if names:
            self.names = min(names), max(names)
            self.start = max(names)


class Pages:
    """The pages of the keys that begin with ``prefix``.

    With ``delimiter``, all keys with the same name up to the next ``/`` are combined to one prefix.
    """

    def __init__(self, port: ObjectStorePort, prefix: str, *, delimiter: bool = False) -> None:
        self._port = port
        self._prefix = prefix
        self._delimiter = delimiter
        self._parts = [_Part("", None)]
        self._directories: list[str] | None = [] if delimiter else None  # in order; None: not listed yet

    async def next(self, start_after: str = "") -> KeyPage:
        """Return the next page; the last page has ``more=None``. Keys up to ``start_after`` may be skipped."""
        if start_after:
            self._skip(start_after)
        part = self._parts[0]
        if not part.pages:
            await self._request()
        page = part.pages.popleft()
        if part.is_complete and not part.pages:
            del self._parts[0]
        return KeyPage(page.objects, page.prefixes, "more" if self._parts else None)

    async def _request(self) -> None:
        """Request the next page of each part that wants a page.

        A failed request for the first part is raised. A failed request for another part is sent again later.
        """
        above = self._unlisted()
        if not above:
            self._divide()
        waiting = [part for part in self._parts if part.wants_page]
        requests = [
            PageRequest(self._prefix, self._delimiter, "" if part.more else part.start, part.more)
            for part in waiting
        ]
        if len(requests) == 1 and not above:
            only = requests[0]
            found = await self._port.list_page(
                only.prefix, delimiter=only.delimiter, start_after=only.start_after, more=only.more
            )
            waiting[0].receive(found)
            return
        listings = [PageRequest(directory, True, self._parts[0].start, None) for directory in above]
        answers = await self._port.list_pages([*requests, *listings])
        for part, page in zip(waiting, answers, strict=False):
            if isinstance(page, KeyPage):
                part.receive(page)
            elif part is self._parts[0]:
                raise page
        if above:
            self._learn(answers[len(requests) :])

    def _unlisted(self) -> list[str]:
        """Return the directories to list: those above the latest key, if no directories were listed yet."""
        first = self._parts[0]
        if self._directories is not None or not first.names:
            return []
        last = first.start
        base = len(self._prefix.rpartition("/")[0])
        inner = [last[: at + 1] for at in range(base + 1, len(last)) if last[at] == "/"]
        return [self._prefix, *inner][:LEVELS] if inner else []

    def _learn(self, listings: Sequence[KeyPage | StoreFault]) -> None:
        """Keep the names of directories. A failed listing is ignored: it would only have saved time."""
        found = {name for page in listings if isinstance(page, KeyPage) for name in page.prefixes}
        self._directories = sorted(found)

    def _skip(self, key: str) -> None:
        """Forget the parts that end at or before ``key``. If no part has pages, continue after ``key``."""
        while len(self._parts) > 1 and (self._parts[0].end or "") <= key:
            del self._parts[0]
        if not any(part.pages for part in self._parts):
            # The caller may skip more directories, so the keys are divided only after the next page.
            self._parts = [_Part(max(key, self._parts[0].start), None)]

    def _divide(self) -> None:
        """Divide the parts that want a page, until `PARTS` parts want one."""
        for part in [part for part in self._parts if part.wants_page and part.names]:
            waiting = [part for part in self._parts if part.wants_page]
            room = PARTS - len(waiting)
            starts = part.within(self._directories or [])
            if not starts and len(waiting) == 1 and part.names:
                starts = part.within(guessed_starts(*part.names, len(self._prefix)))
            starts = _chosen(starts, room)
            if starts:
                at = self._parts.index(part) + 1
                ends = [*starts[1:], part.end]
                self._parts[at:at] = [_Part(start, end) for start, end in zip(starts, ends, strict=True)]
                part.end = starts[0]


def guessed_starts(first: str, last: str, fixed: int) -> list[str]:
    """Guess how the keys after a page begin; return the guessed beginnings in order.

    ``first`` and ``last`` are the first and the last key of the page. All keys share their first ``fixed`` characters.
    """
    found = set[str]()
    differs = len(commonprefix([first, last]))  # noqa: RUF071 - of keys, not of directories
    for at in range(max(differs - 2, fixed), min(differs + 1, len(last))):
        for letters in _CLASSES:
            if last[at] in letters:
                found.update(last[:at] + letter for letter in letters if letter > last[at])
    return sorted(found)


def _chosen(starts: list[str], room: int) -> list[str]:
    """Return up to ``room`` of the starts, evenly distributed."""
    most = min(room, len(starts))
    return [starts[number * len(starts) // most] for number in range(most)]
