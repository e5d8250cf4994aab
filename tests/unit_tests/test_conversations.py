"""The state of a thread: found again by workspace and thread, new for a new conversation, bounded."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_daytona_ws import SandboxConfig, WorkspaceSession
from langchain_daytona_ws._core.call_key import thread_of
from langchain_daytona_ws._session import conversations
from langchain_daytona_ws._session.conversations import (
    Conversation,
    conversation_of,
    forget_conversations,
)

S3 = {
    "mountAwsS3Buckets": True,
    "workspaceBucketName": "agents",
    "awsRegion": "eu-west-1",
    "mountRoleArn": "arn:aws:iam::123456789012:role/agents",
}


def session(namespace: str = "demo", **settings: Any) -> WorkspaceSession:
    return WorkspaceSession(SandboxConfig.model_validate(settings), namespace=namespace)


def state(thread: str | None = "t", **more: Any) -> Any:
    return session(**more)._state.conversation({"configurable": {"thread_id": thread}})


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
def test_another_thread_or_workspace_has_its_own_state(other: dict[str, Any]) -> None:
    assert state(**other) is not state()


@pytest.mark.parametrize(
    "other",
    [{"workspaceBucketName": "b-2"}, {"workspacePrefix": "x/{namespace}/"}, {"s3Endpoint": "http://s3"}],
)
def test_another_location_on_s3_has_its_own_state(other: dict[str, Any]) -> None:
    assert state(options={**S3, **other}) is not state(options=S3)


def test_names_cannot_be_shifted_between_workspace_and_thread() -> None:
    assert state("a", namespace="b-a") is not state("a-a", namespace="b")
    assert state('t", "x', namespace="demo") is not state("x", namespace="demo")


@pytest.mark.parametrize("config", [None, {}, {"configurable": {}}, {"configurable": {"thread_id": ""}}])
def test_calls_without_a_thread_share_the_sessions_own_state(config: Any) -> None:
    first, other = session(), session()
    assert first._state.conversation(config) is first._state.threadless
    assert first._state.conversation(config) is not other._state.conversation(config)


def test_the_api_key_is_not_in_the_registry() -> None:
    state(options={"apiKey": "dtn_secret"})
    assert "dtn_secret" not in repr(conversations._conversations)


def test_a_thread_id_of_another_type_becomes_a_string() -> None:
    assert thread_of({"configurable": {"thread_id": 7}}) == "7"


def test_a_released_workspace_is_forgotten() -> None:
    own, other = session(), session("other")
    before, kept = state(), state(namespace="other")
    forget_conversations(own._state.identity)
    assert state() is not before
    assert state(namespace="other") is kept
    assert own._state.identity != other._state.identity


def test_the_number_of_threads_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_number_of_hashes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "HASHES_MAX", 2)
    runtime = session()._sync
    found = Conversation()
    found.read_hashes.update({"a": "1", "b": "2"})
    runtime.file_operations(found)
    assert len(found.read_hashes) == 2
    found.read_hashes["c"] = "3"
    runtime.file_operations(found)
    assert found.read_hashes == {}
    found.outside_hashes.update({"a": "1", "b": "2", "c": "3"})
    runtime.file_operations_outside(found, limit_bytes=1000, made=())
    assert found.outside_hashes == {}


def test_a_new_conversation_under_an_old_id_has_a_new_state() -> None:
    first = conversation_of("w", "1", "message-1")
    assert conversation_of("w", "1", "message-1") is first  # a parallel call, or the node runs again
    assert conversation_of("w", "1", None) is first  # a later turn
    second = conversation_of("w", "1", "message-2")
    assert second is not first
    assert conversation_of("w", "1", None) is second
