"""The notices of a session: each thread gets each of them once."""

from __future__ import annotations

import pytest

from langchain_daytona_ws._session import state
from langchain_daytona_ws._session.conversations import Conversation
from langchain_daytona_ws._session.state import Notices


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


def test_a_thread_that_has_the_facts_gets_no_notice() -> None:
    notices, knows, other = Notices("lost"), Conversation(), Conversation()
    notices.join(knows)
    notices.join(other)
    notices.add("one", except_for=knows)
    assert notices.drain(knows, no_sandbox) == ()
    assert notices.drain(other, no_sandbox) == ("one",)


def test_a_thread_of_an_earlier_session_gets_all_notices_of_the_new_session() -> None:
    notices, known = Notices("lost"), Conversation()
    known.has_begun = True
    notices.add("one")
    notices.join(known)
    assert notices.drain(known, no_sandbox) == ("one",)


def test_the_latest_notices_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    notices, thread = Notices("lost"), Conversation()
    notices.join(thread)
    for number in range(state.NOTICES_MAX + 5):
        notices.add(str(number))
    assert notices.drain(thread, no_sandbox) == tuple(map(str, range(5, state.NOTICES_MAX + 5)))


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


def test_parallel_calls_of_a_thread_read_the_sandbox_one_after_the_other() -> None:
    notices, thread = Notices("lost"), Conversation()

    def sandbox() -> str:
        assert thread.lock.locked()
        return "s-1"

    notices.join(thread)
    assert notices.drain(thread, sandbox) == ()
    assert thread.sandbox_id == "s-1"
