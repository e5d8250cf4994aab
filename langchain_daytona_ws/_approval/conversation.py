"""The conversation of the agent around a tool call: which of its messages made the call, and is it still open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# LangGraph's name, the same from 1.0 on: it has no public one for what a task may read of its graph's state.
_READ = "__pregel_read"


def around(settings: Mapping[str, Any]) -> Sequence[object]:
    """Return the messages of the graph that a task runs in; none where there are none.

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
    """Return the id of the model's message that a call stands in; None once it is answered, or if there is none.

    A server may give the calls of each turn the same ids; no two messages of a conversation have the same, as LangGraph
    puts the second in the place of the first. What a human refuses, or answers in place of the tool, LangChain's
    middleware answers with a tool message.
    """
    from langchain_core.messages import AIMessage, ToolMessage

    for message in reversed(messages):
        if isinstance(message, ToolMessage) and message.tool_call_id == tool_call_id:
            return None
        if isinstance(message, AIMessage) and any(call["id"] == tool_call_id for call in message.tool_calls):
            return message.id
    return None


def tool_of(messages: Sequence[object], tool_call_id: str) -> str | None:
    """Return the name of the tool that the model called, in the last message with that call."""
    from langchain_core.messages import AIMessage

    for message in reversed(messages):
        for call in message.tool_calls if isinstance(message, AIMessage) else ():
            if call["id"] == tool_call_id:
                return call["name"]
    return None
