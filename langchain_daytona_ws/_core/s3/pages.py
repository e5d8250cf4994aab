"""List many keys by parallel requests, in their order.

S3 lists a prefix page by page. After the first page, the rest of the keys is divided into parts, whose pages are
requested in parallel. The division assumes that the other names resemble the names of the first page. If they do not,
some parts are empty, which costs a request for each.
"""

from __future__ import annotations

import string
from collections import deque
from os.path import commonprefix

from langchain_daytona_ws._core.s3.store import KeyPage, ObjectStorePort, PageRequest

PARTS = 8
KEPT_PAGES = 3  # of one part
_CLASSES = (string.digits, string.ascii_uppercase, string.ascii_lowercase)


class _Part:
    """Keys after ``start``, up to ``end``, and the pages that have arrived and were not returned yet."""

    def __init__(self, start: str, end: str | None, more: str | None = None) -> None:
        self.start = start
        self.end = end
        self.more = more
        self.pages = deque[KeyPage]()
        self.is_complete = False

    def receive(self, page: KeyPage) -> None:
        end = self.end
        if end is not None:
            objects = tuple(info for info in page.objects if info.key <= end)
            prefixes = tuple(prefix for prefix in page.prefixes if prefix <= end)
            is_past = len(objects) + len(prefixes) < len(page.objects) + len(page.prefixes)
            page = KeyPage(objects, prefixes, None if is_past else page.more)
        self.pages.append(page)
        self.more, self.is_complete = page.more, page.more is None


class Pages:
    """The pages of one prefix.

    Args:
        port: The bucket.
        prefix: The beginning of all keys.
        delimiter: Whether keys with a further ``/`` are combined to prefixes.
    """

    def __init__(self, port: ObjectStorePort, prefix: str, *, delimiter: bool = False) -> None:
        self._port = port
        self._prefix = prefix
        self._delimiter = delimiter
        self._parts = [_Part("", None)]

    async def next(self, start_after: str = "") -> KeyPage:
        """Return the next page, whose ``more`` is None only if it is the last.

        Args:
            start_after: Continue after this key.
        """
        if start_after:
            self._skip(start_after)
        part = self._parts[0]
        if not part.pages:
            await self._request()
        page = part.pages.popleft()
        if part.is_complete and not part.pages:
            del self._parts[0]
        elif len(self._parts) == 1 and not part.pages:
            self._divide(part, page)
        return KeyPage(page.objects, page.prefixes, "more" if self._parts else None)

    async def _request(self) -> None:
        """Request the next page of each part. A failure of a later part is raised when its turn comes."""
        waiting = [part for part in self._parts if len(part.pages) < KEPT_PAGES and not part.is_complete]
        requests = [
            PageRequest(self._prefix, self._delimiter, "" if part.more else part.start, part.more)
            for part in waiting
        ]
        if len(requests) == 1:
            only = requests[0]
            found = await self._port.list_page(
                only.prefix, delimiter=only.delimiter, start_after=only.start_after, more=only.more
            )
            waiting[0].receive(found)
            return
        for part, page in zip(waiting, await self._port.list_pages(requests), strict=True):
            if isinstance(page, KeyPage):
                part.receive(page)
            elif part is self._parts[0]:
                raise page

    def _skip(self, key: str) -> None:
        """Forget the keys up to ``key``."""
        while len(self._parts) > 1 and (self._parts[0].end or "") <= key:
            del self._parts[0]
        if not any(part.pages for part in self._parts):
            # Further directories may be skipped: divide the keys again after the next page.
            self._parts = [_Part(max(key, self._parts[0].start), None)]

    def _divide(self, part: _Part, page: KeyPage) -> None:
        """Divide the rest of the keys after a page."""
        names = [*(info.key for info in page.objects), *page.prefixes]
        if not names:
            return
        ends = _chosen(splits(min(names), max(names), len(self._prefix)))
        if not ends:
            return
        last, part.end = part.end, ends[0]
        bounds = [*ends[1:], last]
        self._parts += [_Part(start, end) for start, end in zip(ends, bounds, strict=True)]


def splits(first: str, last: str, fixed: int) -> list[str]:
    """Return beginnings of keys after ``last``, by the names from ``first`` to ``last``; in order.

    Args:
        first: The first key of a page.
        last: The last key of the page.
        fixed: The number of characters that all keys share.
    """
    found = set[str]()
    differs = len(commonprefix([first, last]))  # noqa: RUF071 - of keys, not of directories
    for at in range(max(differs - 2, fixed), min(differs + 1, len(last))):
        for letters in _CLASSES:
            if last[at] in letters:
                found.update(last[:at] + letter for letter in letters if letter > last[at])
    return sorted(found)


def _chosen(ends: list[str]) -> list[str]:
    """Return up to ``PARTS - 1`` of the ends, at equal distances."""
    most = min(PARTS - 1, len(ends))
    return [ends[number * len(ends) // most] for number in range(most)]
