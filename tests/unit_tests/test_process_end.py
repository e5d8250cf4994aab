"""The end of a process: parallel deletions in a limited time, and the handler of SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from langchain_daytona_ws import close_on_sigterm
from langchain_daytona_ws._session import process_end
from langchain_daytona_ws.errors import SandboxUnavailable


@dataclass(eq=False)
class Sandbox:
    """A sandbox that is deleted after some time, or fails."""

    name: str = "one"
    takes_s: float = 0.0
    error: Exception | None = None
    is_kept: bool = False
    is_closed: bool = False
    workspace: tuple[str, object] = ("demo", None)
    ended: list[str] = field(default_factory=list)

    async def close_within(self, within_s: float) -> None:
        if self.error is not None:
            raise self.error
        if self.takes_s > within_s:
            await asyncio.sleep(within_s)
            raise SandboxUnavailable(f"no answer within {within_s:.1f} s")
        await asyncio.sleep(self.takes_s)
        assert await asyncio.to_thread(threading.current_thread) is threading.current_thread()
        self.ended.append(self.name)


@pytest.fixture
def opened() -> Iterator[list[Sandbox]]:
    """Return three sandboxes that this process must delete."""
    ended: list[str] = []
    made = [Sandbox(name, ended=ended) for name in ("one", "two", "three")]
    for sandbox in made:
        process_end.add(sandbox)
    yield made
    for sandbox in made:
        process_end.remove(sandbox)


def test_they_are_ended_in_parallel() -> None:
    made = [Sandbox(takes_s=0.5) for _ in range(process_end.PARALLEL_DELETIONS)]
    began = time.monotonic()
    process_end.end_all(made, within_s=60, when="now")
    assert time.monotonic() - began < process_end.PARALLEL_DELETIONS * 0.5 / 2
    assert all(sandbox.ended for sandbox in made)


def test_their_number_and_their_time_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    made = [Sandbox(f"number-{i}", takes_s=3600) for i in range(process_end.PARALLEL_DELETIONS + 1)]
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "langchain_daytona_ws"):
        process_end.end_all(made, within_s=0.2, when="at exit")
    assert time.monotonic() - began < 30
    assert [f"at exit, sandbox {sandbox.name}: no answer" in caplog.text for sandbox in made] == [True] * len(
        made
    )
    assert f"{made[-1].name}: no answer within 0.0 s" in caplog.text


def test_a_failure_does_not_prevent_the_others(caplog: pytest.LogCaptureFixture) -> None:
    made = [
        Sandbox("refused", error=SandboxUnavailable("the key is wrong")),
        Sandbox("broken", error=KeyError("a fault of ours")),
        Sandbox("good"),
    ]
    with caplog.at_level(logging.WARNING, "langchain_daytona_ws"):
        process_end.end_all(made, within_s=60, when="at exit")
    assert [sandbox.ended for sandbox in made] == [[], [], ["good"]]
    assert "at exit, sandbox refused: the key is wrong" in caplog.messages
    assert "at exit, sandbox broken was not deleted" in caplog.messages


def test_a_child_and_a_kept_sandbox_are_left_out(
    opened: list[Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened[0].is_kept = True
    assert process_end.to_delete_here() == opened[1:]
    here = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: here + 1)
    assert process_end.to_delete_here() == []
    process_end.end_unreferenced(opened[1])
    assert process_end._unreferenced.empty()


def test_unreferenced_sandboxes_are_ended_in_threads_that_end(opened: list[Sandbox]) -> None:
    # The collector may run while a thread holds this lock, which each new thread takes.
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        for sandbox in opened:
            process_end.end_unreferenced(sandbox)
    until = time.monotonic() + 60
    while len(opened[0].ended) < len(opened):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
def test_the_earlier_handler_is_called_after_the_deletion(opened: list[Sandbox]) -> None:
    called: list[Any] = []
    signal.signal(signal.SIGTERM, lambda number, frame: called.append((number, list(opened[0].ended))))
    close_on_sigterm()
    signal.raise_signal(signal.SIGTERM)
    assert [(number, sorted(ended)) for number, ended in called] == [(15, ["one", "three", "two"])]
    for sandbox in opened:
        process_end.remove(sandbox)
    signal.raise_signal(signal.SIGTERM)
    assert len(called) == 2, "the program went on, and so does the handler"


@pytest.mark.usefixtures("sigterm")
def test_a_deletion_that_hangs_is_waited_for_a_limited_time(opened: list[Sandbox]) -> None:
    called: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: called.append(number))
    opened[0].takes_s = 3600
    close_on_sigterm(within_s=60)
    close_on_sigterm(within_s=0.1)
    began = time.monotonic()
    signal.raise_signal(signal.SIGTERM)
    assert called == [15]
    assert time.monotonic() - began < 30


@pytest.mark.usefixtures("sigterm")
def test_asyncio_s_own_handler_runs(opened: list[Sandbox]) -> None:
    async def work() -> None:
        came = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, came.set)
        close_on_sigterm()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(came.wait(), 60)

    asyncio.run(work())
    assert len(opened[0].ended) == len(opened)


@pytest.mark.usefixtures("sigterm")
def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    close_on_sigterm()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_another_thread_is_refused() -> None:
    errors: list[RuntimeError] = []

    def work() -> None:
        with pytest.raises(RuntimeError, match="in the main thread") as caught:
            close_on_sigterm()
        errors.append(caught.value)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors


def test_a_handler_of_another_language_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    with pytest.raises(RuntimeError, match="not installed by Python"):
        close_on_sigterm()
