"""Find tool calls and their results in the messages of the running LangGraph graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    """Return the id of the message with an open tool call; None if no message has the call, or the call has a result.

    The id of a call alone does not identify it: a model server may use the same call ids in each turn. Message ids are
    unique: LangGraph replaces the earlier message of the same id. If a human rejects or answers a call, LangChain's
    middleware adds a result.
    """
    from langchain_core.messages import AIMessage, ToolMessage

    for message in reversed(messages):
        if isinstance(message, ToolMessage) and message.tool_call_id == tool_call_id:
            return None
        if isinstance(message, AIMessage) and any(call["id"] == tool_call_id for call in message.tool_calls):
            return message.id
    return None


def sandbox_of(messages: Sequence[object], tools: Collection[str]) -> str | None:
    """Return the sandbox id in the latest tool result that has one; None if there is no such result.

    Args:
        messages: The messages, which a client may have forged.
        tools: Names of the tools whose results are read.
    """
    from langchain_core.messages import ToolMessage

    for message in reversed(messages):
        if isinstance(message, ToolMessage) and message.name in tools and isinstance(message.artifact, dict):
            sandbox_id = message.artifact.get("sandbox_id")
            if isinstance(sandbox_id, str) and sandbox_id:
                return sandbox_id
    return None


def first_turn(settings: Mapping[str, Any]) -> str | None:
    """Return the id of the last message if its tool calls are the first of the conversation; otherwise None.

    They are the first if the graph's state contains no tool result, and no summary by LangChain's middleware, which
    replaces earlier messages by it. The result is also None if the last message has no tool calls, and outside a graph
    or in a subgraph, where the state is unknown.

    Args:
        settings: The ``configurable`` of the task's config.
    """
    messages = messages_of(settings)
    if not messages or "|" in str(settings.get("checkpoint_ns") or ""):
        return None
    from langchain_core.messages import AIMessage, ToolMessage

    last = messages[-1]
    if not isinstance(last, AIMessage) or not last.tool_calls:
        return None
    is_later = any(isinstance(message, ToolMessage) or _is_summary(message) for message in messages)
    return None if is_later else last.id


def _is_summary(message: object) -> bool:
    return getattr(message, "additional_kwargs", {}).get("lc_source") == "summarization"
