"""Questions put to a human through LangGraph, and answers that count for the very call that was asked about.

LangGraph's own ``interrupt()`` gives the n-th call of a task the n-th answer. Tool calls of one node run side by side
in one task and come in any order, so an answer for one could be given to another. Here each question has an id made of
the call, each answer is kept with that id, and an answer without an id (``Command(resume=value)``) counts only for the
one question that the thread's checkpoint says is open.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from langchain_daytona_ws.permissions import (
    AnswerUnusable,
    PermissionDecision,
    PermissionRequest,
    plain_arguments,
)

# LangGraph's names, the same from 1.0 on: it has no public ones for what a task may know of its answers.
_PAD, _SEND, _BY_ID = "__pregel_scratchpad", "__pregel_send", "__pregel_resume_map"
_SAVER, _DURABILITY = "__pregel_checkpointer", "__pregel_durability"
_RESUME, _INTERRUPT = "__resume__", "__interrupt__"
_ABOUT_TASKS = {_RESUME, _INTERRUPT, "__error__", "__error_source_node__"}
_NO_TASK = "00000000-0000-0000-0000-000000000000"

_OURS = "langchain_daytona_ws"
_SAVED_WITHIN_S = 5.0
_PAUSE_S = 0.01

_BY_ID_INSTEAD = "answer by the interrupt's id instead: Command(resume={interrupt.id: answer})"

# By thread: those of one thread must see each other's answers, and others need not wait.
_locks = tuple(threading.Lock() for _ in range(64))
_taken_back: deque[tuple[str, object]] = deque(maxlen=256)


def answer_to(
    request: PermissionRequest, payload: Callable[[], dict[str, Any]], portable: Callable[[object], object]
) -> object:
    """Return the answer that was given for this call, or interrupt the graph with the question.

    Args:
        request: The call.
        payload: Makes the question.
        portable: Makes of an answer what a checkpoint can hold.

    Raises:
        GraphInterrupt: There is no answer yet.
        AnswerUnusable: There can be none here, or it can't be told whose it is.
    """
    task = _Task.current()
    if request.tool_call_id is None:
        raise AnswerUnusable(
            "InterruptApprover was asked about a call without an id, whose answer could not be told from others: "
            "invoke the tool with the model's whole tool call, and not with its arguments only"
        )
    own = task.id_of(request)
    with _locks[hash(task.thread) % len(_locks)]:
        answers = task.answers(portable)
        if own in answers:
            task.count()
            return answers[own]
        task.take_back_plain_answer()
    from langgraph.errors import GraphInterrupt
    from langgraph.types import Interrupt

    raise GraphInterrupt((Interrupt(value=payload(), id=own),))


def may_have_answer(settings: Mapping[str, Any]) -> bool:
    """Say whether the task may have been given an answer to what it asks by ``interrupt()``; else it has none.

    Args:
        settings: The ``configurable`` of the task's config.
    """
    pad = settings.get(_PAD)
    return pad is not None and (bool(pad.resume) or pad.get_null_resume(False) is not None)


class _Task:
    """The LangGraph task that this runs in, and what it knows of answers."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.thread = str(settings["thread_id"])
        self._saver = settings[_SAVER]
        self._step = str(settings["checkpoint_ns"])
        self._pad = settings[_PAD]
        self._send = settings[_SEND]
        self._by_id: Mapping[str, object] = settings.get(_BY_ID) or {}
        self._saves_late = settings.get(_DURABILITY) == "exit"
        checkpoints: Mapping[str, str] = settings["checkpoint_map"]
        root = min(checkpoints, key=len)
        self._checkpoint = checkpoints[root]
        self._root = {
            "configurable": {
                "thread_id": settings["thread_id"],
                "checkpoint_ns": root,
                "checkpoint_id": self._checkpoint,
            }
        }
        self._mark = _digest([self.thread, self._step])[:8]

    @classmethod
    def current(cls) -> _Task:
        try:
            from langgraph.config import get_config

            settings = get_config().get("configurable", {})
        except ImportError:
            raise AnswerUnusable("InterruptApprover needs langgraph: pip install langgraph") from None
        except RuntimeError:
            settings = {}
        if _PAD not in settings:
            raise AnswerUnusable(
                "InterruptApprover was asked outside of a LangGraph graph, where nobody can answer: use the tools in a "
                "graph, or give the session a callback as its approver"
            )
        if not settings.get(_SAVER) or not settings.get("thread_id"):
            raise AnswerUnusable(
                "InterruptApprover needs a graph with a checkpointer, and a thread_id in its config, for the graph to "
                "go on after the answer"
            )
        try:
            return cls(settings)
        except (KeyError, TypeError, ValueError) as error:
            raise AnswerUnusable(
                "InterruptApprover does not know this version of langgraph; use HumanInTheLoopMiddleware with "
                "session.interrupt_on(), or another version"
            ) from error

    def id_of(self, request: PermissionRequest) -> str:
        """Name the question: the same when the task runs again, another one for another call, step or thread."""
        call = [request.tool_call_id, request.namespace, request.tool, request.action]
        return self._mark + _digest([self.thread, self._step, *call, plain_arguments(request.arguments)])[:24]

    def answers(self, portable: Callable[[object], object]) -> dict[str, object]:
        """Return all answers that this task has, by the question's id, and have them kept.

        Whichever of its calls comes first takes them all: the task may end before the others come.
        """
        kept: list[Any] = self._pad.resume
        known = {
            entry[_OURS]: entry["answer"] for entry in kept if isinstance(entry, dict) and _OURS in entry
        }
        new = {key: value for key, value in self._by_id.items() if self._is_mine(key) and key not in known}
        plain = None if self._by_id else self._pad.get_null_resume(False)
        if plain is not None and (asked := self._open_question()) is not None and asked not in known:
            if self._saves_late:
                raise AnswerUnusable(
                    f'with durability="exit" an answer without an id could be taken twice; {_BY_ID_INSTEAD}'
                )
            plain = self._pad.get_null_resume(True)
            new |= {} if plain is None else {asked: plain}
        for key, value in new.items():
            known[key] = portable(value)
            kept.append({_OURS: key, "answer": known[key]})
        if known:
            self._send([(_RESUME, list(kept))])
        return known

    def count(self) -> None:
        """Count an answer as ``interrupt()`` does: one called after this in the same task looks for the next."""
        self._pad.interrupt_counter()

    def _is_mine(self, key: object) -> bool:
        return isinstance(key, str) and len(key) == 32 and key.startswith(self._mark)

    def _open_question(self) -> str | None:
        """Return the question of this task that an answer without an id is for, if it is for one of them."""
        writes = self._saved()
        finished = {task for task, channel, _ in writes if channel not in _ABOUT_TASKS}
        asked = {
            question.id
            for task, channel, value in writes
            if channel == _INTERRUPT and task not in finished
            for question in value
        }
        only = asked.pop() if len(asked) == 1 else None
        return only if self._is_mine(only) else None

    def take_back_plain_answer(self) -> None:
        """See to it that the answer that this run was given is not read again as one to the question now asked.

        LangGraph leaves ``Command(resume=value)`` in the checkpoint; ``invoke(None)`` would find it there.
        """
        plain = self._pad.get_null_resume(False)
        if plain is None or self._saves_late:
            return
        if any(step == self._checkpoint and answer is plain for step, answer in _taken_back):
            return
        until = time.monotonic() + _SAVED_WITHIN_S
        while not self._is_saved(plain):  # LangGraph saves it in the background
            if time.monotonic() > until:
                raise AnswerUnusable(
                    f"the answer that this run was given is not in the checkpoint; {_BY_ID_INSTEAD}"
                )
            time.sleep(_PAUSE_S)
        try:
            self._saver.put_writes(self._root, [(_RESUME, None)], _NO_TASK)
        except Exception as error:
            raise _unreadable(self._saver) from error
        _taken_back.append((self._checkpoint, plain))

    def _is_saved(self, plain: object) -> bool:
        saved = [value for task, channel, value in self._saved() if (task, channel) == (_NO_TASK, _RESUME)]
        if isinstance(plain, PermissionDecision):  # which a checkpoint may give back as something else
            return any(value is not None for value in saved)
        return plain in saved

    def _saved(self) -> list[tuple[str, str, Any]]:
        try:
            found = self._saver.get_tuple(self._root)
        except Exception as error:
            raise _unreadable(self._saver) from error
        return list(found.pending_writes or ()) if found else []


def _unreadable(saver: object) -> AnswerUnusable:
    kind = type(saver).__qualname__
    return AnswerUnusable(f"the checkpoint could not be read or written through {kind}; {_BY_ID_INSTEAD}")


def _digest(parts: list[object]) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
