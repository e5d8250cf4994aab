"""The key of a run comes from its config: of the thread, of the authenticated user, or of the program's function."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from langgraph.errors import GraphInterrupt

from langchain_daytona_ws import ConfigError, WorkspacePool
from langchain_daytona_ws._pool.run_key import RunKey, key_of

UUID_1 = UUID(int=1)


def run(**settings: Any) -> dict[str, Any]:
    return {"configurable": settings}


@pytest.mark.parametrize(("thread", "key"), [("a b", "a b"), (7, "7"), (UUID_1, str(UUID_1))])
def test_a_thread(thread: object, key: str) -> None:
    assert key_of("thread", run(thread_id=thread)) == key


@pytest.mark.parametrize("thread", ["", None, True, b"a", 1.5, ["a"], {"a": 1}])
def test_no_thread(thread: object) -> None:
    with pytest.raises(ConfigError) as caught:
        key_of("thread", run(thread_id=thread))
    assert caught.value.code == "no_key"


@pytest.mark.parametrize("config", [None, {}, {"configurable": None}, {"metadata": {"thread_id": "a"}}])
def test_a_run_without_settings(config: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ConfigError, match="thread id") as caught:
        key_of("thread", config)
    assert "no thread id" in caplog.text
    assert caught.value.for_model == "This run belongs to no workspace, so nothing ran. Tell the user."


def test_a_user_that_the_server_has_authenticated() -> None:
    user = SimpleNamespace(identity="auth0|1", is_authenticated=True)
    assert key_of("user", run(langgraph_auth_user=user, thread_id="t")) == "auth0|1"
    assert key_of("user", run(langgraph_auth_user=SimpleNamespace(identity="auth0|1"))) == "auth0|1"


@pytest.mark.parametrize(
    "settings",
    [
        {"user_id": "victim", "langgraph_auth_user_id": "victim", "thread_id": "t"},
        {"langgraph_auth_user": {"identity": "victim", "is_authenticated": True}},
        {"langgraph_auth_user": "victim"},
        {"langgraph_auth_user": SimpleNamespace(identity="victim", is_authenticated=False)},
        {"langgraph_auth_user": SimpleNamespace(identity="", is_authenticated=True)},
        {"langgraph_auth_user": SimpleNamespace(identity={"identity": "victim"})},
        {"langgraph_auth_user": None},
    ],
)
def test_what_a_client_says_is_no_user(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="authenticated no user") as caught:
        key_of("user", run(**settings))
    assert "victim" not in caught.value.message


def test_a_function() -> None:
    assert key_of(lambda config: config["configurable"]["org"], run(org="acme")) == "acme"


@pytest.mark.parametrize("answer", ["", None, 7, b"acme"])
def test_a_function_that_returns_no_key(answer: Any) -> None:
    with pytest.raises(ConfigError, match="must return a string") as caught:
        key_of(lambda _: answer, run())
    assert caught.value.code == "no_key"


def test_a_function_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fails(config: Any) -> str:
        raise KeyError("secret")

    with pytest.raises(ConfigError, match="raised KeyError") as caught:
        key_of(fails, run())
    assert "secret" not in caught.value.message
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("control_flow", [KeyboardInterrupt(), GraphInterrupt(())])
def test_control_flow_is_raised(control_flow: BaseException) -> None:
    def interrupts(config: Any) -> str:
        raise control_flow

    with pytest.raises(type(control_flow)):
        key_of(interrupts, run())


class AsyncKey:
    async def __call__(self, config: Any) -> str:
        return "a"


async def async_key(config: Any) -> str:
    return "a"


@pytest.mark.parametrize("key", ["thread_id", None, 7, async_key, AsyncKey()])
def test_other_sources_are_refused(key: Any) -> None:
    with pytest.raises(ConfigError, match='key must be "thread", "user"'):
        WorkspacePool({}, key=key)


@pytest.mark.parametrize("key", ["thread", "user", str, lambda config: "a"])
def test_these_are_accepted(key: RunKey) -> None:
    assert repr(WorkspacePool({}, key=key)) == "WorkspacePool(sessions=0, in_use=0)"
