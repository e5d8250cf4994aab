"""The name of a call: the same when a graph's node runs again, and another one for any other call."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from langchain_daytona_ws._core.call_key import call_key, step_of


def config(
    ns: str = "work:a1|tools:b2", *, step: int = 2, thread: Any = "one", **metadata: Any
) -> dict[str, Any]:
    return {
        "configurable": {"thread_id": thread, "checkpoint_ns": ns},
        "metadata": {"langgraph_step": step, **metadata},
    }


def key(around: dict[str, Any] | None, call_id: str = "call_1", **changed: Any) -> str:
    given = {"command": "make", **changed.pop("arguments", {})}
    made = call_key(around, call_id, given, **{"namespace": "demo", "session_id": "session-1", **changed})
    assert made is not None
    return made


NAMED = config(lc_agent_name="first")


@pytest.mark.parametrize("metadata", [{}, {"lc_agent_name": "first"}])
@pytest.mark.parametrize("ns", ["work:a1|tools:other", "work:a1|1|tools:other", "work:a1|12|tools:other"])
def test_the_key_is_stable_when_a_node_runs_again(ns: str, metadata: dict[str, Any]) -> None:
    assert key(config(ns, **metadata)) == key(config(**metadata))


@pytest.mark.parametrize(
    "other",
    [
        key(NAMED, "call_2"),
        key(NAMED, arguments={"command": "make all"}),
        key(NAMED, arguments={"timeout": 5.0}),
        key(NAMED, namespace="other"),
        key(config(lc_agent_name="second")),
        key(config()),
        key(config(step=3, lc_agent_name="first")),
        key(config(thread="two", lc_agent_name="first")),
        key(config("work:a2|tools:b2", lc_agent_name="first")),
        key(config("work:a1|others:b2", lc_agent_name="first")),
        key(config("work:a1|agent:c3|tools:b2", lc_agent_name="first")),
        key({}),
        key(None),
    ],
)
def test_another_call_has_another_key(other: str) -> None:
    assert len(other) == 32
    assert other != key(NAMED)


def test_an_empty_id_identifies_a_call_in_a_graph_only() -> None:
    assert key(config(), "") == key(config("work:a1|tools:other"), "") != key(config(step=3), "")
    session = {"namespace": "demo", "session_id": "session-1"}
    assert call_key(config(""), "", {}, **session) is None


def test_a_session_s_id_stands_for_the_thread_where_there_is_none() -> None:
    assert key(None) == key({})
    assert key(None) != key(None, session_id="session-2")
    assert key(NAMED) == key(NAMED, session_id="session-2")


@pytest.mark.parametrize(
    "around", [None, {}, {"configurable": None, "metadata": None}, config("", lc_agent_name="a")]
)
def test_outside_of_a_graph_there_is_no_step(around: Any) -> None:
    assert step_of(around) == ""


@pytest.mark.parametrize("thread", [7, 0, UUID(int=7)])
def test_a_thread_id_of_another_type_is_as_good_as_its_text(thread: Any) -> None:
    assert key(config(thread=thread)) == key(config(thread=str(thread)))
    assert key(config(thread=thread)) != key(config(thread=""))


@pytest.mark.parametrize("name", [5, ["a"], "\ud800", "a|b"])
def test_an_agent_name_may_be_of_any_type(name: Any) -> None:
    assert key(config(lc_agent_name=name)) not in {key(config()), key(NAMED)}
