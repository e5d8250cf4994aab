"""Find in a graph's messages: the message of a call, the first turn, the sandbox of the last result."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from langchain_daytona_ws._session.graph_messages import first_turn, messages_of, open_message, sandbox_of


def calling(message_id: str | None, *call_ids: str | None) -> AIMessage:
    return AIMessage(
        "", id=message_id, tool_calls=[{"name": "bash", "args": {}, "id": call_id} for call_id in call_ids]
    )


def answer(call_id: str) -> ToolMessage:
    return ToolMessage("", tool_call_id=call_id)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([calling("m1", "c1")], "m1"),
        ([calling("m1", "c1", "c2"), answer("c2")], "m1"),
        ([calling("m1", "c1"), HumanMessage("hurry"), calling("m2", "c2")], "m1"),
        ([calling("m1", "c1"), answer("c1"), calling("m2", "c1")], "m2"),
        ([calling("m1", "c1"), calling("m2", "c1")], "m2"),
        ([calling("m1", "c1"), answer("c1")], None),
        ([calling("m1", "c1"), answer("c1"), HumanMessage("again"), calling("m2", "c2")], None),
        ([calling("m1", "c2")], None),
        ([calling("m1", None)], None),
        ([calling(None, "c1")], None),
        ([HumanMessage("c1")], None),
        ([], None),
    ],
)
def test_a_call_stands_in_the_last_message_that_makes_it_unless_it_is_answered(
    messages: list[AnyMessage], expected: str | None
) -> None:
    assert open_message(messages, "c1") == expected


@pytest.mark.parametrize("messages", [None, "text", {"a": 1}, 5])
def test_a_graph_whose_messages_are_no_list_has_none(messages: Any) -> None:
    assert messages_of({"__pregel_read": lambda name: messages}) == ()


def test_the_messages_of_the_graph_are_read() -> None:
    state = {"messages": [calling("m1", "c1")]}
    assert messages_of({"__pregel_read": state.__getitem__}) == state["messages"]
    assert (
        messages_of({"__pregel_read": {}.__getitem__})
        == messages_of({"__pregel_read": None})
        == messages_of({})
        == ()
    )


def in_graph(*messages: AnyMessage, step: str = "tools:1") -> dict[str, Any]:
    return {"__pregel_read": lambda name: [*messages], "checkpoint_ns": step}


CALLING = AIMessage("", id="ai-1", tool_calls=[{"name": "bash", "args": {}, "id": "c"}])
RESULT = ToolMessage("1", tool_call_id="c", name="bash", artifact={"sandbox_id": "s-1"})


def test_the_first_turn() -> None:
    assert first_turn(in_graph(HumanMessage("hi"), CALLING)) == "ai-1"
    assert (
        first_turn(in_graph(HumanMessage("hi"), AIMessage("yes?"), HumanMessage("do it"), CALLING)) == "ai-1"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        in_graph(),
        in_graph(HumanMessage("hi")),
        in_graph(HumanMessage("hi"), AIMessage("yes?")),
        in_graph(HumanMessage("hi"), CALLING, RESULT),
        in_graph(HumanMessage("hi"), CALLING, RESULT, CALLING),
        in_graph(CALLING, step="task:1|tools:2"),
        in_graph(HumanMessage("so far", additional_kwargs={"lc_source": "summarization"}), CALLING),
    ],
)
def test_no_first_turn(settings: dict[str, Any]) -> None:
    assert first_turn(settings) is None


def test_the_sandbox_of_the_last_result() -> None:
    later = ToolMessage("2", tool_call_id="d", name="bash_job", artifact={"sandbox_id": "s-2"})
    others = [
        ToolMessage("3", tool_call_id="e", name="bash_b", artifact={"sandbox_id": "s-3"}),
        ToolMessage("4", tool_call_id="f", name="bash", artifact={"sandbox_id": ""}),
        ToolMessage("5", tool_call_id="g", name="bash", artifact={"sandbox_id": ["s-4"]}),
        ToolMessage("6", tool_call_id="h", name="bash", artifact="s-5"),
        ToolMessage("7", tool_call_id="i", name="bash"),
    ]
    assert sandbox_of([RESULT, later, *others], {"bash", "bash_job"}) == "s-2"
    assert sandbox_of([RESULT, later, *others], {"bash_b"}) == "s-3"
    assert sandbox_of(others[1:], {"bash", "bash_job"}) is None
