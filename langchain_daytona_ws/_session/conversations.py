"""The state of each thread of a workspace in this process: its approvals, read files and seen notices.

A thread is a conversation with an agent, as LangGraph names it by ``thread_id``, and not a thread of the process.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from langchain_daytona_ws._core.sandbox.get_or_create import REPLACED_NOTICE
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.permissions import RememberedApprovals

if TYPE_CHECKING:
    from langchain_daytona_ws._core.s3.workspace import S3Workspace

CONVERSATIONS_MAX = 10_000
HASHES_MAX = 5_000
NOTICES_MAX = 200

_LOST = "The machine was replaced: the earlier one is gone, and with it every "
_LOST_BUT_FILES = (
    f"{_LOST}process, installed package and file outside the workspace. The workspace's files are "
)
LOST_NOTICES: Mapping[str | None, str] = {
    None: f"{_LOST}file, installed package and process on it that was not saved elsewhere. What follows ran on a new, "
    "empty one",
    "mount": f"{_LOST_BUT_FILES}unchanged; what follows ran on a new machine",
    "sync": f"{_LOST_BUT_FILES}those that were saved when the last call returned; what follows ran on a new machine",
}
"""Mode of the S3 workspace, or None for a workspace without S3 → the notice for threads whose sandbox was replaced."""


class Conversation:
    """The state of one thread in one workspace. All calls of a session that have no thread share one state.

    Attributes:
        remembered: The approvals of calls that need no further question.
        read_hashes: Path → SHA-256 of the content that this thread last read or wrote there.
        outside_hashes: The same for files outside the workspace.
        sandbox_id: The sandbox of the thread's last result; empty if it is unknown.
        has_begun: Whether the thread has had a result in this process.
        first_turn: Id of the message with the thread's first calls; None if it is unknown.
        lock: Held while the notices for a result are collected: parallel calls must not get the same notices.
    """

    def __init__(self, first_turn: str | None = None) -> None:
        self.first_turn = first_turn
        self.lock = threading.Lock()
        self.remembered = RememberedApprovals()
        self.read_hashes: dict[str, str] = {}
        self.outside_hashes: dict[str, str] = {}
        self.sandbox_id = ""
        self.has_begun = False

    def forget_files(self, *, all_of_them: bool) -> None:
        """Forget the hashes of files that are gone: those outside the workspace, or all."""
        self.outside_hashes.clear()
        if all_of_them:
            self.read_hashes.clear()

    def limit_hashes(self) -> None:
        """Forget the hashes if there are too many; their files must be read again before they are overwritten."""
        for hashes in (self.read_hashes, self.outside_hashes):
            if len(hashes) > HASHES_MAX:
                hashes.clear()


class Notices:
    """The notices of a session about its sandbox; each thread gets each of them once, in its next result.

    A thread that begins later does not get earlier notices. Of the notices that a thread has not seen, the latest
    `NOTICES_MAX` are kept.

    Args:
        lost: The notice for a thread whose sandbox was lost or replaced.
    """

    def __init__(self, lost: str) -> None:
        self.lost = lost
        self._lock = threading.Lock()
        # Each with the thread that must not get it.
        self._kept: deque[tuple[str, Conversation | None]] = deque(maxlen=NOTICES_MAX)
        self._count = 0
        self._positions: WeakKeyDictionary[Conversation, int] = WeakKeyDictionary()

    def add(self, notice: str, *, but: Conversation | None = None) -> None:
        """Add a notice for all threads that use the session.

        Args:
            notice: The text.
            but: The thread that has the same facts in its result. Default: none.
        """
        with self._lock:
            self._kept.append((notice, but))
            self._count += 1

    def join(self, conversation: Conversation) -> None:
        """Record that a thread uses the session: it gets the notices from now on.

        A thread that used the workspace through an earlier session gets all notices of this one.
        """
        with self._lock:
            self._positions.setdefault(conversation, 0 if conversation.has_begun else self._count)

    def conversations(self) -> list[Conversation]:
        """Return the threads that use the session."""
        with self._lock:
            return list(self._positions)

    def drain(self, conversation: Conversation, sandbox: Callable[[], str | None]) -> tuple[str, ...]:
        """Return the notices that a thread has not seen yet, each text once, for its next result.

        They include `lost` if the thread's last result came from another sandbox.

        Args:
            conversation: The thread.
            sandbox: Returns the id of the present sandbox; None if there is none.
        """
        with conversation.lock:
            # In this order: the notice of a loss is added before the next sandbox has an id.
            sandbox_id, notices = sandbox(), self._missed_by(conversation)
            if self.lost in notices:
                conversation.sandbox_id = ""  # `sandbox_id` may be that of the lost one
            elif sandbox_id is not None:
                if conversation.sandbox_id not in ("", sandbox_id):
                    notices = [self.lost, *(notice for notice in notices if notice != REPLACED_NOTICE)]
                conversation.sandbox_id = sandbox_id
            conversation.has_begun = True
            return tuple(notices)

    def _missed_by(self, conversation: Conversation) -> list[str]:
        with self._lock:
            missed = self._count - self._positions.get(conversation, self._count)
            self._positions[conversation] = self._count
            new = list(self._kept)[-missed:] if missed else []
            return list(dict.fromkeys(notice for notice, but in new if but is not conversation))


current: ContextVar[Conversation | None] = ContextVar("langchain_daytona_ws_conversation", default=None)
"""The thread whose call runs in this context; None for a call of the program."""


@contextmanager
def call_of(conversation: Conversation) -> Iterator[None]:
    """Set `current` for the call inside."""
    token = current.set(conversation)
    try:
        yield
    finally:
        current.reset(token)


_lock = threading.Lock()
_conversations: OrderedDict[tuple[str, str], Conversation] = OrderedDict()  # the least recently used first


def conversation_of(workspace: str, thread: str, first_turn: str | None) -> Conversation:
    """Return the state of a thread, which all sessions of the workspace in this process share.

    Programs use one id for several conversations, such as "1" after each start of a notebook. A conversation that
    begins now gets a new state, also if an earlier conversation had the same id.

    Args:
        workspace: The result of `identity_of`.
        thread: The id of the thread.
        first_turn: Id of the message with the present calls, if they are the first calls of the thread; else None.
    """
    # A client may choose the id, of any length.
    key = (workspace, hashlib.sha256(thread.encode("utf-8", "surrogatepass")).hexdigest())
    with _lock:
        conversation = _conversations.pop(key, None)
        if conversation is None or first_turn not in (None, conversation.first_turn):
            conversation = Conversation(first_turn)
        _conversations[key] = conversation
        while len(_conversations) > CONVERSATIONS_MAX:
            _conversations.popitem(last=False)
    conversation.limit_hashes()
    return conversation


def forget_conversations(workspace: str) -> None:
    """Forget the threads of a workspace that is deleted."""
    with _lock:
        for key in [key for key in _conversations if key[0] == workspace]:
            del _conversations[key]


def identity_of(config: SandboxConfig, namespace: str, workspace: S3Workspace | None) -> str:
    """Return a text that is the same for all sessions of one workspace, and differs between workspaces.

    Args:
        config: The configuration.
        namespace: The workspace's name.
        workspace: Its location on S3; None if its files are on the sandbox's own disk.
    """
    options = config.options
    api_key = "" if options.api_key is None else options.api_key.get_secret_value()
    account = hashlib.sha256(api_key.encode()).hexdigest()  # no secret in a registry that tracebacks may show
    parts = [str(options.api_url), account, options.organization_id, namespace, config.persistent]
    if workspace is not None:
        parts += [workspace.endpoint, workspace.workspace.bucket, workspace.workspace.prefix]
    return json.dumps(parts)
