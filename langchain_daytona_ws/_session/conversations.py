"""The state of each thread of a workspace in this process: its approvals, read files and last sandbox.

Here a thread is a conversation with an agent (LangGraph's ``thread_id``), not a thread of the process.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from langchain_daytona_ws._session import graph_messages
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.permissions import RememberedApprovals

if TYPE_CHECKING:
    from langchain_daytona_ws._core.s3.workspace import S3Workspace

CONVERSATIONS_MAX = 10_000
HASHES_MAX = 5_000


class Conversation:
    """The state of one thread in one workspace. The calls of a session that belong to no thread share one state.

    Attributes:
        remembered: Approvals that also apply to later calls.
        read_hashes: Path → SHA-256 of the content that this thread last read from the file or wrote to it.
        outside_hashes: As `read_hashes`, for files outside the workspace.
        sandbox_id: The sandbox of the thread's last result; empty if it is unknown.
        has_begun: Whether the thread has had a result in this process.
        first_turn: Id of the message with the thread's first tool calls; None if it is unknown.
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

    def recall_sandbox(self, run: Mapping[str, Any], tools: Collection[str]) -> None:
        """After a restart of the process: set `sandbox_id` from the graph's messages.

        Args:
            run: The config of the run.
            tools: Names of the tools that use the session.
        """
        messages = graph_messages.messages_of(run.get("configurable") or {})
        sandbox_id = graph_messages.sandbox_of(messages, tools)
        with self.lock:
            if not (self.has_begun or self.sandbox_id):
                self.sandbox_id = sandbox_id or ""

    def forget_files(self, *, in_workspace: bool) -> None:
        """Forget the hashes of files outside the workspace and, if ``in_workspace``, also of the files in it."""
        self.outside_hashes.clear()
        if in_workspace:
            self.read_hashes.clear()

    def limit_hashes(self) -> None:
        """Forget the hashes if there are too many. Then a file must be read again before it is overwritten."""
        for hashes in (self.read_hashes, self.outside_hashes):
            if len(hashes) > HASHES_MAX:
                hashes.clear()


current_conversation: ContextVar[Conversation | None] = ContextVar(
    "langchain_daytona_ws_conversation", default=None
)
"""The thread whose call runs in this context; None for a call of the program."""


@contextmanager
def as_current(conversation: Conversation) -> Iterator[None]:
    token = current_conversation.set(conversation)
    try:
        yield
    finally:
        current_conversation.reset(token)


_lock = threading.Lock()
_conversations: OrderedDict[tuple[str, str], Conversation] = OrderedDict()  # the least recently used first


def conversation_of(workspace: str, thread: str, first_turn: str | None) -> Conversation:
    """Return the state of a thread, which all sessions of the workspace in this process share.

    A thread whose first calls are made now gets a new state, even if an earlier thread had the same id: programs use
    one id for several conversations, such as "1" after each start of a notebook.

    Args:
        workspace: The result of `identity_of`.
        thread: The id of the thread.
        first_turn: The result of `graph_messages.first_turn`.
    """
    # Hashed, because a client may choose an id of any length.
    key = (workspace, hashlib.sha256(thread.encode("utf-8", "surrogatepass")).hexdigest())
    with _lock:
        conversation = _conversations.pop(key, None)
        if conversation is None or first_turn not in (None, conversation.first_turn):
            conversation = Conversation(first_turn)
        _conversations[key] = conversation
        while len(_conversations) > CONVERSATIONS_MAX:
            _conversations.popitem(last=False)
    return conversation


def forget_conversations(workspace: str) -> None:
    with _lock:
        for key in [key for key in _conversations if key[0] == workspace]:
            del _conversations[key]


def identity_of(config: SandboxConfig, namespace: str, workspace: S3Workspace | None) -> str:
    """Return a text that identifies a workspace: all its sessions have the same text."""
    options = config.options
    api_key = "" if options.api_key is None else options.api_key.get_secret_value()
    account = hashlib.sha256(api_key.encode()).hexdigest()  # hashed: tracebacks may show the identity
    parts = [str(options.api_url), account, options.organization_id, namespace, config.persistent]
    if workspace is not None:
        parts += [workspace.endpoint, workspace.workspace.bucket, workspace.workspace.prefix]
    return json.dumps(parts)
