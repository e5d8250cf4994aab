"""Ask a human through a LangGraph interrupt, and match each answer to its tool call.

LangGraph's ``interrupt()`` returns the n-th answer to the n-th ``interrupt()`` of a task. The tool calls of one node
run concurrently in one task, in any order, so a tool call could receive the answer to another tool call. This module
derives an interrupt id from each tool call, and stores each answer with its interrupt id. An answer without an id
(``Command(resume=value)``) applies only if the checkpoint has exactly one open interrupt.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from langchain_daytona_ws._core.call_key import thread_of
from langchain_daytona_ws.permissions import (
    AnswerUnusable,
    PermissionDecision,
    PermissionRequest,
    plain_arguments,
)

# LangGraph's private names, unchanged since 1.0; there is no public API to read a task's answers.
_SCRATCHPAD, _SEND, _BY_ID = "__pregel_scratchpad", "__pregel_send", "__pregel_resume_map"
_SAVER, _DURABILITY = "__pregel_checkpointer", "__pregel_durability"
_RESUME, _INTERRUPT = "__resume__", "__interrupt__"
_TASK_CHANNELS = {_RESUME, _INTERRUPT, "__error__", "__error_source_node__"}
_NO_TASK = "00000000-0000-0000-0000-000000000000"

_ID_KEY = "langchain_daytona_ws"
_SAVE_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.01

_ANSWER_BY_ID = "answer by the interrupt's id instead: Command(resume={interrupt.id: answer})"

# The calls of one LangGraph thread share their answers, and hold one lock while they read them. The thread's hash
# selects the lock.
_locks = tuple(threading.Lock() for _ in range(64))
# (checkpoint id, answer)
_discarded_answers: deque[tuple[str, object]] = deque(maxlen=256)


def answer_to(
    request: PermissionRequest,
    payload: Callable[[], dict[str, Any]],
    serializable: Callable[[object], object],
) -> object:
    """Return the answer to this call, or interrupt the graph.

    Args:
        request: The call.
        payload: Returns the value of the interrupt.
        serializable: Converts an answer to plain data that a checkpoint can hold.

    Raises:
        GraphInterrupt: There is no answer yet.
        AnswerUnusable: The graph can't be interrupted here, the answer can't be matched to a call, or the checkpoint
            can't be read or written.
    """
    task = _Task.current()
    if request.tool_call_id is None:
        raise AnswerUnusable(
            "InterruptApprover was asked about a call without an id, so an answer could not be matched to it: "
            "invoke the tool with the model's whole tool call instead of the arguments only"
        )
    interrupt_id = task.id_of(request)
    with _locks[hash(task.thread) % len(_locks)]:
        answers = task.store_answers(serializable)
        if interrupt_id in answers:
            task.advance()
            return answers[interrupt_id]
        task.discard_plain_answer()
    from langgraph.errors import GraphInterrupt
    from langgraph.types import Interrupt

    raise GraphInterrupt((Interrupt(value=payload(), id=interrupt_id),))


def may_have_answer(settings: Mapping[str, Any]) -> bool:
    """Return whether the graph was resumed with an answer that may be for the task with this ``configurable``."""
    scratchpad = settings.get(_SCRATCHPAD)
    return scratchpad is not None and (
        bool(scratchpad.resume) or scratchpad.get_null_resume(False) is not None
    )


class _Task:
    """The running LangGraph task and the answers that it has received."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.thread = str(settings["thread_id"])
        self._saver = settings[_SAVER]
        self._step = str(settings["checkpoint_ns"])
        self._scratchpad = settings[_SCRATCHPAD]
        self._send = settings[_SEND]
        self._by_id: Mapping[str, object] = settings.get(_BY_ID) or {}
        self._saves_at_exit = settings.get(_DURABILITY) == "exit"
        checkpoints: Mapping[str, str] = settings["checkpoint_map"]
        root = min(checkpoints, key=len)  # the graph that contains all other graphs
        self._checkpoint_id = checkpoints[root]
        self._checkpoint_config = {
            "configurable": {
                "thread_id": settings["thread_id"],
                "checkpoint_ns": root,
                "checkpoint_id": self._checkpoint_id,
            }
        }
        self._id_prefix = _digest([self.thread, self._step])[:8]

    @classmethod
    def current(cls) -> _Task:
        try:
            from langgraph.config import get_config

            settings = get_config().get("configurable", {})
        except ImportError:
            raise AnswerUnusable(
                "InterruptApprover needs langgraph: pip install 'langchain-daytona-ws[langgraph]'"
            ) from None
        except RuntimeError:
            settings = {}
        if _SCRATCHPAD not in settings:
            raise AnswerUnusable(
                "InterruptApprover was asked outside of a LangGraph graph and can't interrupt it: use the tools in "
                "a graph, or give the session a callback as its approver"
            )
        if not settings.get(_SAVER) or thread_of({"configurable": settings}) is None:
            raise AnswerUnusable(
                "InterruptApprover needs a graph with a checkpointer and a thread_id in its config, so that the graph "
                "can be resumed with the answer"
            )
        try:
            return cls(settings)
        except (KeyError, TypeError, ValueError) as error:
            raise AnswerUnusable(
                "InterruptApprover does not support this version of langgraph; install another version, or use "
                "HumanInTheLoopMiddleware with session.interrupt_on()"
            ) from error

    def id_of(self, request: PermissionRequest) -> str:
        """Return the interrupt id: stable when the task runs again, different for each call, step and thread."""
        call = [request.tool_call_id, request.namespace, request.tool, request.action]
        return (
            self._id_prefix
            + _digest([self.thread, self._step, *call, plain_arguments(request.arguments)])[:24]
        )

    def store_answers(self, serializable: Callable[[object], object]) -> dict[str, object]:
        """Store and return all answers of this task, by interrupt id.

        The first call stores the answers of all calls, because the task may end before the other calls run.
        """
        stored: list[Any] = self._scratchpad.resume
        answers = {
            entry[_ID_KEY]: entry["answer"]
            for entry in stored
            if isinstance(entry, dict) and _ID_KEY in entry
        }
        new = {key: value for key, value in self._by_id.items() if self._is_own(key) and key not in answers}
        plain = None if self._by_id else self._scratchpad.get_null_resume(False)
        if plain is not None and (open_id := self._only_open_id()) is not None and open_id not in answers:
            if self._saves_at_exit:
                raise AnswerUnusable(
                    f'with durability="exit" an answer without an id could be used twice; {_ANSWER_BY_ID}'
                )
            plain = self._scratchpad.get_null_resume(True)
            new |= {} if plain is None else {open_id: plain}
        for key, value in new.items():
            answers[key] = serializable(value)
            stored.append({_ID_KEY: key, "answer": answers[key]})
        if answers:
            self._send([(_RESUME, list(stored))])
        return answers

    def advance(self) -> None:
        """Count an answer as used, so that a later ``interrupt()`` in this task reads the next answer."""
        self._scratchpad.interrupt_counter()

    def _is_own(self, key: object) -> bool:
        return isinstance(key, str) and len(key) == 32 and key.startswith(self._id_prefix)

    def _only_open_id(self) -> str | None:
        """Return the id of the only open interrupt of the graph, if it belongs to this task; else None."""
        writes = self._pending_writes()
        finished = {task for task, channel, _ in writes if channel not in _TASK_CHANNELS}
        open_ids = {
            interrupt.id
            for task, channel, value in writes
            if channel == _INTERRUPT and task not in finished
            for interrupt in value
        }
        only = open_ids.pop() if len(open_ids) == 1 else None
        return only if self._is_own(only) else None

    def discard_plain_answer(self) -> None:
        """Remove the answer without an id from the checkpoint, so that it can't answer the next interrupt.

        LangGraph leaves ``Command(resume=value)`` in the checkpoint, where ``invoke(None)`` would find it. With
        ``durability="exit"`` nothing is removed.
        """
        plain = self._scratchpad.get_null_resume(False)
        if plain is None or self._saves_at_exit:
            return
        discarded = tuple(_discarded_answers)  # a copy: other threads append to it
        if any(known == self._checkpoint_id and answer is plain for known, answer in discarded):
            return
        deadline = time.monotonic() + _SAVE_TIMEOUT_S
        while not self._is_saved(plain):  # LangGraph saves the answer in the background
            if time.monotonic() > deadline:
                raise AnswerUnusable(f"the answer of this run is not in the checkpoint; {_ANSWER_BY_ID}")
            time.sleep(_POLL_INTERVAL_S)
        try:
            self._saver.put_writes(self._checkpoint_config, [(_RESUME, None)], _NO_TASK)
        except Exception as error:
            raise _checkpoint_failed(self._saver) from error
        _discarded_answers.append((self._checkpoint_id, plain))

    def _is_saved(self, plain: object) -> bool:
        saved = [
            value for task, channel, value in self._pending_writes() if (task, channel) == (_NO_TASK, _RESUME)
        ]
        if isinstance(plain, PermissionDecision):  # a checkpoint may return it as another type
            return any(value is not None for value in saved)
        return plain in saved

    def _pending_writes(self) -> list[tuple[str, str, Any]]:
        try:
            checkpoint = self._saver.get_tuple(self._checkpoint_config)
        except Exception as error:
            raise _checkpoint_failed(self._saver) from error
        return list(checkpoint.pending_writes or ()) if checkpoint else []


def _checkpoint_failed(saver: object) -> AnswerUnusable:
    kind = type(saver).__qualname__
    return AnswerUnusable(f"the checkpoint could not be read or written through {kind}; {_ANSWER_BY_ID}")


def _digest(parts: list[object]) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
