"""Answers to interrupts, without a graph."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from langchain_daytona_ws._approval import interrupts


def test_another_thread_may_discard_an_answer_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    class Meanwhile(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            discarded.append(("of another thread", object()))
            return str.__eq__(self, other)

    answer = object()
    discarded = interrupts._discarded_answers.copy()
    discarded.extend([("earlier", object()), ("now", answer)])
    monkeypatch.setattr(interrupts, "_discarded_answers", discarded)
    task: Any = object.__new__(interrupts._Task)
    task._scratchpad = SimpleNamespace(get_null_resume=lambda _: answer)
    task._saves_at_exit = False
    task._checkpoint_id = Meanwhile("now")
    task.discard_plain_answer()  # it is discarded already: the checkpoint is not needed
    assert discarded[-1][0] == "of another thread"
