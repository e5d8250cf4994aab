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
) -> str | None:
    """Return the idempotency key of a tool call. If a node runs again, its calls have the same keys.

    Return None for an empty id outside of a graph. Some model servers send only empty ids; in a graph, the step and the
    arguments identify such a call.

    The key also depends on the graph's step, because some model servers use the same call ids in every turn. If the
    config has no thread, the key depends on ``session_id`` instead.
    """
    step = step_of(config)
    if not (tool_call_id or step):
        return None
    thread = thread_of(config) or session_id
    where = "/".join(part for part in (namespace, thread, step) if part)
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

    The name stays the same when a node runs again. It consists of the id of the outermost task, the names of the inner
    nodes, the number of the step and the name of the agent. The ids of inner tasks are left out, because they change
    when the node runs again. LangGraph's count of the graphs that a task has run is left out, because it continues when
    the task is retried.

    Two agents without a name (see LangChain's `create_agent`) may make calls with the same ids and arguments in one
    step. Then the second agent receives the recorded result of the first agent with a notice, and may call again.
    Running a command twice would be worse.
    """
    settings = (config or {}).get("configurable") or {}
    outer, *inner = str(settings.get("checkpoint_ns") or "").split("|")
    if not outer:
        return ""
    nodes = [part.partition(":")[0] for part in inner if not part.isdigit()]
    metadata = (config or {}).get("metadata") or {}
    number, agent = metadata.get("langgraph_step", ""), metadata.get("lc_agent_name") or ""
    return "|".join([outer, *nodes, str(number), str(agent)])
