"""The state of a thread: found again by workspace and thread, new for a new conversation, bounded."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from langchain_daytona_ws import SandboxConfig, WorkspaceSession
from langchain_daytona_ws._approval.graph_messages import first_turn, sandbox_of
from langchain_daytona_ws._core.call_key import thread_of
from langchain_daytona_ws._session import conversations
from langchain_daytona_ws._session.conversations import (
    Conversation,
    Notices,
    conversation_of,
    forget_conversations,
)
from langchain_daytona_ws.session import SessionInternals

S3 = {
    "mountAwsS3Buckets": True,
    "workspaceBucketName": "agents",
    "awsRegion": "eu-west-1",
    "mountRoleArn": "arn:aws:iam::123456789012:role/agents",
}


def session(namespace: str = "demo", **settings: Any) -> WorkspaceSession:
    return WorkspaceSession(SandboxConfig.model_validate(settings), namespace=namespace)


def state(thread: str | None = "t", **more: Any) -> Any:
    return SessionInternals(session(**more)).conversation({"configurable": {"thread_id": thread}})


def test_sessions_of_a_workspace_share_the_state_of_a_thread() -> None:
    assert state() is state()
    assert state(options=S3) is state(options=S3)


@pytest.mark.parametrize(
    "other",
    [
        {"thread": "T"},
        {"namespace": "Demo"},
        {"persistent": True},
        {"options": {"apiUrl": "https://other.example/api"}},
        {"options": {"apiKey": "another"}},
        {"options": S3},
    ],
)
def test_others_have_their_own(other: dict[str, Any]) -> None:
    assert state(**other) is not state()


@pytest.mark.parametrize(
    "other",
    [{"workspaceBucketName": "b-2"}, {"workspacePrefix": "x/{namespace}/"}, {"s3Endpoint": "http://s3"}],
)
def test_so_have_other_places_on_s3(other: dict[str, Any]) -> None:
    assert state(options={**S3, **other}) is not state(options=S3)


def test_names_cannot_be_shifted_between_workspace_and_thread() -> None:
    assert state("a", namespace="b-a") is not state("a-a", namespace="b")
    assert state('t", "x', namespace="demo") is not state("x", namespace="demo")


@pytest.mark.parametrize("config", [None, {}, {"configurable": {}}, {"configurable": {"thread_id": ""}}])
def test_without_a_thread_it_is_the_sessions_own(config: Any) -> None:
    first, other = session(), session()
    assert SessionInternals(first).conversation(config) is first._state.own
    assert SessionInternals(first).conversation(config) is not SessionInternals(other).conversation(config)


def test_the_api_key_is_not_in_the_registry() -> None:
    state(options={"apiKey": "dtn_secret"})
    assert "dtn_secret" not in repr(conversations._conversations)


def test_ids_of_other_types_are_strings() -> None:
    assert thread_of({"configurable": {"thread_id": 7}}) == "7"


def test_a_released_workspace_is_forgotten() -> None:
    own, other = session(), session("other")
    before, kept = state(), state(namespace="other")
    forget_conversations(own._state.identity)
    assert state() is not before
    assert state(namespace="other") is kept
    assert own._state.identity != other._state.identity


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "CONVERSATIONS_MAX", 2)
    first, second = conversation_of("w", "1", None), conversation_of("w", "2", None)
    assert conversation_of("w", "1", None) is first
    conversation_of("w", "3", None)
    assert conversation_of("w", "1", None) is first
    assert conversation_of("w", "2", None) is not second


def test_a_long_thread_id_is_not_kept() -> None:
    long = "a\ud800" * 500_000
    assert conversation_of("w", long, None) is conversation_of("w", long, None)
    assert conversation_of("w", long, None) is not conversation_of("w", f"{long}b", None)
    assert max(len(thread) for _, thread in conversations._conversations) < 100


def test_so_there_is_for_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "HASHES_MAX", 2)
    found = conversation_of("w", "1", None)
    found.read_hashes.update({"a": "1", "b": "2"})
    assert len(conversation_of("w", "1", None).read_hashes) == 2
    found.read_hashes["c"] = "3"
    assert conversation_of("w", "1", None).read_hashes == {}


def test_a_new_conversation_under_an_old_id_begins_anew() -> None:
    first = conversation_of("w", "1", "message-1")
    assert conversation_of("w", "1", "message-1") is first  # a parallel call, or the node runs again
    assert conversation_of("w", "1", None) is first  # a later turn
    second = conversation_of("w", "1", "message-2")
    assert second is not first
    assert conversation_of("w", "1", None) is second


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


def no_sandbox() -> None:
    pass


def test_each_thread_gets_each_notice_once() -> None:
    notices, early, late = Notices("lost"), Conversation(), Conversation()
    notices.join(early)
    notices.add("one")
    notices.join(late)
    notices.add("two")
    notices.add("two")
    assert notices.drain(early, no_sandbox) == ("one", "two")
    assert notices.drain(late, no_sandbox) == ("two",)
    assert notices.drain(early, no_sandbox) == notices.drain(late, no_sandbox) == ()


def test_a_thread_that_knows_it_does_not_get_it() -> None:
    notices, knows, other = Notices("lost"), Conversation(), Conversation()
    notices.join(knows)
    notices.join(other)
    notices.add("one", but=knows)
    assert notices.drain(knows, no_sandbox) == ()
    assert notices.drain(other, no_sandbox) == ("one",)


def test_a_thread_of_an_earlier_session_gets_all_of_the_new_one() -> None:
    notices, known = Notices("lost"), Conversation()
    known.has_begun = True
    notices.add("one")
    notices.join(known)
    assert notices.drain(known, no_sandbox) == ("one",)


def test_the_latest_notices_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    notices, thread = Notices("lost"), Conversation()
    notices.join(thread)
    for number in range(conversations.NOTICES_MAX + 5):
        notices.add(str(number))
    assert notices.drain(thread, no_sandbox) == tuple(map(str, range(5, conversations.NOTICES_MAX + 5)))


def test_a_loss_that_is_found_meanwhile_is_reported_once() -> None:
    notices, thread = Notices("lost"), Conversation()
    notices.join(thread)
    notices.drain(thread, lambda: "s-1")

    def lost_now() -> str:
        """Another thread finds the loss after the id was read."""
        notices.add("lost")
        return "s-1"

    assert notices.drain(thread, lost_now) == ("lost",)
    assert notices.drain(thread, lambda: "s-2") == ()
    assert notices.drain(thread, lambda: "s-3") == ("lost",), "another process has replaced it"
