"""Where a command's output goes while it runs: LangGraph's custom stream, and the tool's own callback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from langchain_daytona_ws._core.commands.streaming import OnOutput

OnChunk: TypeAlias = Callable[[dict[str, Any]], object]

CHUNK_TYPE = "bash_output"
# A graph in a graph wraps the writer of the outer one.
WRAPPERS_MAX = 50


def output_to(
    on_chunk: OnChunk | None, tool_call_id: str | None, sandbox_id: Callable[[], str | None]
) -> OnOutput | None:
    """Return what hands on the output of one call, or None when nobody asked for it.

    Call it in the context of the tool's run, where LangGraph's stream is to be found.

    Args:
        on_chunk: The tool's own callback, given the same dicts as the stream.
        tool_call_id: The model's id of the call.
        sandbox_id: Gives the id of the sandbox, which there may not be yet.
    """
    targets = [target for target in (custom_stream(), on_chunk) if target is not None]
    if not targets:
        return None
    offset = 0

    def tell(text: str) -> object:
        nonlocal offset
        chunk = {
            "type": CHUNK_TYPE,
            "tool_call_id": tool_call_id,
            "sandbox_id": sandbox_id(),
            "offset": offset,
            "text": text,
        }
        offset += len(text)
        # Only the last one may be a coroutine function: LangGraph's writer is none.
        said: object = None
        for target in targets:
            said = target(dict(chunk))
        return said

    return tell


def custom_stream() -> OnChunk | None:
    """Return the writer of LangGraph's custom stream; None outside of a graph, and where nobody listens to it."""
    config = sys.modules.get("langgraph.config")  # no graph runs before it is imported
    if config is None:
        return None
    try:
        writer: OnChunk = config.get_stream_writer()
    except (RuntimeError, KeyError):
        return None  # not in a graph
    return None if _is_deaf(writer) else writer


def _is_deaf(writer: object) -> bool:
    """Tell whether a writer throws away what it is given.

    Without ``stream_mode="custom"`` a graph's writer is an empty function, with others around it (langgraph 1.0 to
    1.2), and nothing else tells. A function that refers to nothing can hand nothing on. One that is not understood is
    taken to listen, which costs a few requests.
    """
    for _ in range(WRAPPERS_MAX):
        code = getattr(writer, "__code__", None)
        if code is None:
            return False
        if "stream_writer" not in code.co_freevars:
            return not code.co_freevars and not code.co_names
        writer = writer.__closure__[code.co_freevars.index("stream_writer")].cell_contents  # type: ignore[attr-defined]
    return False
