"""The guest that needs no sandbox: carries out file requests on a bucket and answers as the one in the sandbox does."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import Any

from langchain_daytona_ws._core.s3.errors import store_error
from langchain_daytona_ws._core.s3.files import ObjectFile
from langchain_daytona_ws._core.s3.search import ObjectSearch
from langchain_daytona_ws._core.s3.store import ObjectStorePort, StoreFault
from langchain_daytona_ws._core.s3.tree import ObjectTree
from langchain_daytona_ws._guest.walk import RefusedError

Request = dict[str, Any]
Answer = dict[str, Any]
Made = OrderedDict[str, Answer]

REMEMBERED_CALLS = 500
_OF_DIRECTORIES = {("tree", "list"), ("tree", "glob"), ("search", "grep")}


class S3Backend:
    """Answer file requests: ``await object_files("files", {"op": "read", "path": "a", ...})``.

    A change whose request has a ``key`` is made once, however often it is sent. The answer is remembered here; the
    object itself remembers that the call was made, also for other processes.

    Args:
        port: The bucket, below the workspace's prefix.
        where: Which bucket and prefix, for errors; the model never sees it.
        made: Where to remember the answers of changes, when several share it: key → answer.
    """

    def __init__(self, port: ObjectStorePort, *, where: str = "", made: Made | None = None) -> None:
        file, tree, search = ObjectFile(port), ObjectTree(port), ObjectSearch(port)
        self._where = where
        # Only single operations are used, each of them atomic in CPython; see FileOps.
        self._made: Made = OrderedDict() if made is None else made
        self._reads = {
            ("files", "read"): file.read,
            ("near", "near"): file.near,
            ("near", "exists"): file.exists,
            ("content", "view"): file.view,
            ("content", "fetch"): file.fetch,
            ("tree", "list"): tree.list_directory,
            ("tree", "glob"): tree.glob,
            ("search", "grep"): search.grep,
        }
        self._changes = {
            ("files", "write"): file.write,
            ("files", "edit"): file.edit,
            ("files", "delete"): file.delete,
        }

    async def __call__(self, entry: str, request: Request) -> Answer:
        """Carry out one request; expected refusals are answers.

        Raises:
            BeyondBounds: A search that is to be sent to the sandbox.
            FileError: S3 did not carry it out; nothing was changed.
            OutcomeUnknown: A change may or may not have been made.
        """
        what = (entry, request["op"])
        key = request.get("key") if what in self._changes else None
        if key is not None and (known := self._made.get(key)) is not None:
            return {**known, "replayed": True}
        operation = self._reads.get(what) or self._changes[what]
        try:
            answer = {"ok": True, **await operation(request)}
        except RefusedError as refusal:
            refused = {"ok": False, "error": refusal.error, **refusal.facts}
            # A mount keeps a directory that bash has made to itself until a file is in it.
            return {**refused, "on_s3": True} if what in _OF_DIRECTORIES else refused
        except StoreFault as fault:
            raise store_error(fault, request["op"], self._where) from fault
        if key is not None:
            self._remember(key, answer)
        return answer

    def _remember(self, key: str, answer: Answer) -> None:
        self._made[key] = answer
        if len(self._made) > REMEMBERED_CALLS:
            with suppress(KeyError):  # another thread emptied it
                self._made.popitem(last=False)
