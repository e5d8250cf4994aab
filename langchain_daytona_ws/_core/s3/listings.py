"""Remember listed pages during one operation, so that most pages are requested only once."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_daytona_ws._core.s3.store import KeyPage, ObjectStorePort, PageRequest, StoreFault

PAGE_KEYS = 1000
KEPT_KEYS = 20_000


class Listings:
    """An `ObjectStorePort` that remembers listed pages, up to `KEPT_KEYS` keys.

    Use an instance for one operation only. The operation must not change the bucket.
    """

    def __init__(self, port: ObjectStorePort) -> None:
        self._port = port
        self._pages: dict[PageRequest, tuple[KeyPage, int]] = {}  # request → page, and its ``max_keys``
        self._room = KEPT_KEYS
        self.get, self.get_many, self.put, self.delete = port.get, port.get_many, port.put, port.delete
        self.receive, self.send, self.gather = port.receive, port.send, port.gather
        self.offload, self.sleep, self.now = port.offload, port.sleep, port.now

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: bool = False,
        max_keys: int = PAGE_KEYS,
        start_after: str = "",
        more: str | None = None,
    ) -> KeyPage:
        """List keys. If the page is kept already, it may have more than ``max_keys`` keys."""
        request = PageRequest(prefix, delimiter, start_after, more)
        page = self._known(request, max_keys)
        if page is None:
            page = await self._port.list_page(
                prefix, delimiter=delimiter, max_keys=max_keys, start_after=start_after, more=more
            )
            self._keep(request, page, max_keys)
        return page

    async def list_pages(self, requests: Sequence[PageRequest]) -> Sequence[KeyPage | StoreFault]:
        pages: dict[PageRequest, KeyPage | StoreFault | None] = {
            request: self._known(request, PAGE_KEYS) for request in requests
        }
        new = [request for request, page in pages.items() if page is None]
        for request, page in zip(new, await self._port.list_pages(new) if new else [], strict=True):
            pages[request] = page
            if isinstance(page, KeyPage):
                self._keep(request, page, PAGE_KEYS)
        return [found for request in requests if (found := pages[request]) is not None]

    def _known(self, request: PageRequest, max_keys: int) -> KeyPage | None:
        page, requested = self._pages.get(request, (None, 0))
        if page is None or requested < max_keys:
            return None
        # With ``max_keys=1`` the caller asks whether any key exists. A page whose ignored keys were removed
        # (`is_filtered`) cannot answer that.
        return None if page.is_filtered and max_keys == 1 else page

    def _keep(self, request: PageRequest, page: KeyPage, max_keys: int) -> None:
        self._room -= len(page.objects) + len(page.prefixes)
        if self._room >= 0:
            self._pages[request] = page, max_keys
