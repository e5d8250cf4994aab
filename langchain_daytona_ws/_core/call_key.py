"""The thread, the step and the idempotency key of a tool call, from the config of its LangGraph run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def call_key(
    config: Mapping[str, Any] | None,
    tool_call_id: str,
    arguments: Mapping[str, object],
    *,
    namespace: str,
    session_id: str,
) -> str:
    """Return the idempotency key of a tool call: a graph node that runs again finds the result of its first run.

    Some model servers repeat the same call ids in every turn, so the key also covers the graph's step.

    Args:
        config: The config of the graph or chain that makes the call.
        tool_call_id: The model's id of the call.
        arguments: The call's arguments.
        namespace: The workspace's name.
        session_id: Scope of the ids if the graph has no thread.
    """
    thread = thread_of(config) or session_id
    where = "/".join(part for part in (namespace, thread, step_of(config)) if part)
    identity = json.dumps([where, tool_call_id, arguments], sort_keys=True, default=str)
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def thread_of(config: Mapping[str, Any] | None) -> str | None:
    """Return the thread id in a run's config; None for a call outside of a thread.

    LangGraph accepts ids of any type, such as numbers and UUIDs, and converts them to strings too.
    """
    thread = ((config or {}).get("configurable") or {}).get("thread_id")
    return None if thread is None or thread == "" else str(thread)


def step_of(config: Mapping[str, Any] | None) -> str:
    """Return a name for the LangGraph step of a call with this config; "" outside of a graph.

    The name stays the same when a node runs again. Of the tasks around the call, only the outermost keeps its id. A
    graph inside it that restarts has new task ids, but runs the same nodes in the same steps. LangGraph also counts the
    graphs that a task has run, and continues that count when the task is retried: the count cannot distinguish a second
    agent of a node from a retry of the first agent. The agent's name can (LangChain's `create_agent`). Agents without
    names share records if their calls have the same ids and arguments in the same step: the second agent receives the
    first one's result with a notice, and may call again. That is better than running a command twice.
    """
    settings = (config or {}).get("configurable") or {}
    outer, *inner = str(settings.get("checkpoint_ns") or "").split("|")
    if not outer:
        return ""
    nodes = [part.partition(":")[0] for part in inner if not part.isdigit()]
    metadata = (config or {}).get("metadata") or {}
    number, agent = metadata.get("langgraph_step", ""), metadata.get("lc_agent_name") or ""
    return "|".join([outer, *nodes, str(number), str(agent)])
