"""Streaming of a command's output to LangGraph's custom stream and to the tool's callback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from langchain_daytona_ws._core.commands.streaming import OnOutput

OnChunk: TypeAlias = Callable[[dict[str, Any]], object]
"""Called with each piece of a bash call's output: ``type``, ``tool_call_id``, ``sandbox_id``, ``offset``, ``text``."""

CHUNK_TYPE = "bash_output"
# A graph in a graph wraps the writer of the outer one.
WRAPPERS_MAX = 50


def output_to(
    on_chunk: OnChunk | None, tool_call_id: str | None, sandbox_id: Callable[[], str | None]
) -> OnOutput | None:
    """Return the function that forwards the output of one call; None if no listener exists.

    Call it in the context of the tool's run, which holds LangGraph's stream.

    Args:
        on_chunk: The tool's callback, which gets the same dicts as the stream.
        tool_call_id: The model's id of the call.
        sandbox_id: Returns the id of the sandbox; None while there is none.
    """
    targets = [target for target in (custom_stream(), on_chunk) if target is not None]
    if not targets:
        return None
    offset = 0

    def emit(text: str) -> object:
        nonlocal offset
        chunk = {
            "type": CHUNK_TYPE,
            "tool_call_id": tool_call_id,
            "sandbox_id": sandbox_id(),
            "offset": offset,
            "text": text,
        }
        offset += len(text)
        # Only the last target may be a coroutine function: LangGraph's writer is a plain function.
        result: object = None
        for target in targets:
            result = target(dict(chunk))
        return result

    return emit


def custom_stream() -> OnChunk | None:
    """Return the writer of LangGraph's custom stream; None outside of a graph, and without a listener."""
    config = sys.modules.get("langgraph.config")  # no graph runs before it is imported
    if config is None:
        return None
    try:
        writer: OnChunk = config.get_stream_writer()
    except (RuntimeError, KeyError):
        return None  # not in a graph
    return None if _has_no_listener(writer) else writer


def _has_no_listener(writer: object) -> bool:
    """Return whether a writer discards its input.

    Without ``stream_mode="custom"``, a graph's writer is an empty function, possibly wrapped (langgraph 1.0 to 1.2);
    LangGraph offers no other sign. A function without references cannot forward anything. A function of unknown form
    counts as a listener, which costs a few requests.
    """
    for _ in range(WRAPPERS_MAX):
        code = getattr(writer, "__code__", None)
        if code is None:
            return False
        if "stream_writer" not in code.co_freevars:
            return not code.co_freevars and not code.co_names
        writer = writer.__closure__[code.co_freevars.index("stream_writer")].cell_contents  # type: ignore[attr-defined]
    return False
