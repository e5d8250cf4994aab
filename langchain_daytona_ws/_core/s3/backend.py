"""Answer file requests from a bucket, like the guest in a sandbox."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import Any

from langchain_daytona_ws._core.s3.errors import store_error
from langchain_daytona_ws._core.s3.files import S3Files
from langchain_daytona_ws._core.s3.search import S3Search
from langchain_daytona_ws._core.s3.store import ObjectStorePort, StoreFault
from langchain_daytona_ws._core.s3.tree import S3Directories
from langchain_daytona_ws._guest.walk import RefusedError

Request = dict[str, Any]
Answer = dict[str, Any]
Answers = OrderedDict[str, Answer]

REMEMBERED_CALLS = 500
_OF_DIRECTORIES = {("tree", "list"), ("tree", "glob"), ("search", "grep")}


class S3Backend:
    """Answers file requests: ``await backend("files", {"op": "read", "path": "a", ...})``.

    A change whose request has a ``key`` is applied once, for any number of attempts. The answer is recorded here, and
    the call in the object's metadata, where other processes find it.

    Args:
        port: The bucket, below the workspace's prefix.
        where: Bucket and prefix for errors; never shown to the model.
        answers: The recorded answers of changes, if several backends share them: key → answer.
    """

    def __init__(self, port: ObjectStorePort, *, where: str = "", answers: Answers | None = None) -> None:
        file, tree, search = S3Files(port), S3Directories(port), S3Search(port)
        self._where = where
        # No lock: only single operations are used, which are atomic in CPython; see FileOps.
        self._answers: Answers = OrderedDict() if answers is None else answers
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
        """Run one request; expected refusals are answers.

        Raises:
            NeedsSandbox: The search must run in the sandbox.
            FileError: S3 failed; nothing was changed.
            OutcomeUnknown: The change may have been applied.
        """
        action = (entry, request["op"])
        key = request.get("key") if action in self._changes else None
        if key is not None and (recorded := self._answers.get(key)) is not None:
            return {**recorded, "from_record": True}
        operation = self._reads.get(action) or self._changes[action]
        try:
            answer = {"ok": True, **await operation(request)}
        except RefusedError as refusal:
            refused = {"ok": False, "error": refusal.error, **refusal.facts}
            # A mount keeps a directory created by bash local until it contains a file (mount-s3).
            return {**refused, "on_s3": True} if action in _OF_DIRECTORIES else refused
        except StoreFault as fault:
            raise store_error(fault, request["op"], self._where) from fault
        if key is not None:
            self._remember(key, answer)
        return answer

    def _remember(self, key: str, answer: Answer) -> None:
        self._answers[key] = answer
        if len(self._answers) > REMEMBERED_CALLS:
            with suppress(KeyError):  # another thread has emptied it
                self._answers.popitem(last=False)
