"""Find a tool call in the messages of the running LangGraph graph, and whether it has a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# LangGraph's private name, unchanged since 1.0; there is no public API to read the graph's state from a task.
_READ = "__pregel_read"


def messages_of(settings: Mapping[str, Any]) -> Sequence[object]:
    """Return the messages in the state of the running graph; empty outside a graph.

    Args:
        settings: The ``configurable`` of the task's config.
    """
    read = settings.get(_READ)
    try:
        messages = read("messages") if callable(read) else None
    except KeyError:  # a state without messages
        messages = None
    return messages if isinstance(messages, (list, tuple)) else ()


def open_message(messages: Sequence[object], tool_call_id: str) -> str | None:
    """Return the id of the model's message that contains a call; None if no message does, or the call has a result.

    Message ids identify a call because a model server may use the same call ids in each turn. Message ids are unique in
    a conversation: LangGraph replaces a message by a later one with the same id. If a human rejects a call or responds
    to it, LangChain's middleware adds a tool message, so the call has a result.
    """
    from langchain_core.messages import AIMessage, ToolMessage

    for message in reversed(messages):
        if isinstance(message, ToolMessage) and message.tool_call_id == tool_call_id:
            return None
        if isinstance(message, AIMessage) and any(call["id"] == tool_call_id for call in message.tool_calls):
            return message.id
    return None


def tool_of(messages: Sequence[object], tool_call_id: str) -> str | None:
    """Return the name of the called tool, from the last message that contains the call; None if there is none."""
    from langchain_core.messages import AIMessage

    for message in reversed(messages):
        for call in message.tool_calls if isinstance(message, AIMessage) else ():
            if call["id"] == tool_call_id:
                return call["name"]
    return None
