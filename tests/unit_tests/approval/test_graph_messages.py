"""Find the message of a conversation that made a call, and whether the call is still open."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from langchain_daytona_ws._approval.graph_messages import messages_of, open_message


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
