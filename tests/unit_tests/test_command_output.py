"""A command's output while it runs: polling it, with a scripted sandbox, and passing it to the callback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_daytona_ws._adapters import background
from langchain_daytona_ws._adapters.background import AsyncioTask, ThreadTask
from langchain_daytona_ws._core.commands import streaming as live
from langchain_daytona_ws._core.commands.streaming import LiveOutput
from langchain_daytona_ws._core.ports import BackgroundTask, FaultKind, PortFault, SandboxInfo
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._guest import poll_output as guest
from langchain_daytona_ws._guest.output import Output
from langchain_daytona_ws.errors import SandboxError
from tests.unit_tests.daemon import INFO, Workspace


class Watched:
    """A call on this disk, as the guest finds it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guest.dirs, "state_directory", lambda: str(directory))
        self.log = directory / "k.log"
        self.record = directory / "k.call"
        self._lock = -1

    def run(self) -> None:
        self.record.write_bytes(b"started\n1")
        self._lock = os.open(self.record, os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def end(self) -> None:
        os.close(self._lock)

    def probe(self, offset: int = 0, limit: int = 100, wait_s: float = 30.0, linger_s: float = 0.0) -> Any:
        asked = {
            "key": "k", "offset": offset, "limit_bytes": limit, "wait_s": wait_s, "linger_s": linger_s,
        }  # fmt: skip
        answer = guest.main(asked)
        return answer["ended"], base64.b64decode(answer["data"])


class TestPollOutput:
    @pytest.fixture
    def call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
        return Watched(tmp_path, monkeypatch)

    def test_a_poll_returns_the_log_from_its_offset(self, call: Watched) -> None:
        call.run()
        call.log.write_bytes(b"0123456789")
        assert call.probe(offset=4) == (False, b"456789")
        assert call.probe(offset=4, limit=2) == (False, b"45")

    def test_a_poll_waits_for_new_output(self, call: Watched) -> None:
        call.run()
        call.log.write_bytes(b"old")
        writer = threading.Timer(0.1, lambda: call.log.write_bytes(b"oldnew"))
        writer.start()
        assert call.probe(offset=3) == (False, b"new")
        writer.join()

    def test_a_poll_waits_at_most_its_time(self, call: Watched) -> None:
        call.run()
        assert call.probe(wait_s=0.1) == (False, b"")

    def test_a_poll_after_the_end_returns_at_once(self, call: Watched) -> None:
        call.run()
        call.end()
        call.log.write_bytes(b"all of it")
        assert call.probe() == (True, b"")
        assert call.probe(wait_s=0.0, offset=4) == (True, b"of it")

    def test_a_poll_waits_briefly_for_a_call_without_a_record(
        self, call: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guest, "UNRECORDED_WAIT_S", 0.1)
        assert call.probe() == (False, b"")
        call.record.touch()  # made, and not locked yet
        assert call.probe() == (False, b"")

    def test_the_lock_of_another_poll_is_not_taken_for_the_runners(self, call: Watched) -> None:
        call.run()
        call.end()
        with open(call.record, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_SH)
            assert call.probe() == (True, b"")

    @pytest.mark.parametrize("disguise", ["link", "pipe", "directory"])
    def test_only_a_plain_file_is_read(self, call: Watched, tmp_path: Path, disguise: str) -> None:
        call.run()
        secret = tmp_path / "secret"
        secret.write_text("secret")
        if disguise == "link":
            call.log.symlink_to(secret)
        elif disguise == "pipe":
            os.mkfifo(call.log)
        else:
            call.log.mkdir()
        assert call.probe(wait_s=0.1) == (False, b"")


class TestTheLog:
    """The log of a polled call, as `Output` writes it."""

    def test_the_log_of_a_short_output_is_deleted_at_the_end(self, tmp_path: Path) -> None:
        output = Output(10, str(tmp_path / "log"), 1000)
        output.open_log()
        output.feed(b"12345")
        assert (tmp_path / "log").read_bytes() == b"12345"
        output.drop_log()
        assert not (tmp_path / "log").exists()
        assert not output.has_log
        output.drop_log()  # also where there is none any more

    def test_the_log_of_a_long_output_equals_that_without_polling(self, tmp_path: Path) -> None:
        outputs = []
        for name in ("live", "plain"):
            output = Output(10, str(tmp_path / name), 1000)
            if name == "live":
                output.open_log()
            for _ in range(5):
                output.feed(b"12345")
            if name == "live":
                output.drop_log()
            outputs.append((output.head_and_tail(), output.has_log, output.log_bytes, output.log_error))
        assert outputs[0] == outputs[1]
        assert (tmp_path / "live").read_bytes() == (tmp_path / "plain").read_bytes() == b"12345" * 5

    def test_a_log_that_could_not_be_opened_is_opened_when_needed(self, tmp_path: Path) -> None:
        output = Output(10, str(tmp_path / "directory" / "log"), 1000)
        output.open_log()
        assert output.log_error
        output.feed(b"12345678")
        (tmp_path / "directory").mkdir()
        output.feed(b"12345678")
        assert output.log_error == ""
        assert (tmp_path / "directory" / "log").read_bytes() == b"1234567812345678"


class ScriptedClient:
    """Answers looks with what it was given, in the place of a sandbox."""

    def __init__(self, *answers: Any, done: Callable[[], None] = lambda: None, takes_s: float = 0.0) -> None:
        self._answers = list(answers)
        self._done = done
        self._takes_s = takes_s
        self._now = 0.0
        self.offsets: list[Any] = []

    async def poll(self, info: SandboxInfo, entry: str, request: Any, *, within_s: float) -> Any:
        self.offsets.append(request["offset"])
        self._now += self._takes_s
        answer = self._answers.pop(0)
        if not self._answers:
            self._done()
        if isinstance(answer, BaseException):
            raise answer
        ended, data = answer
        return seen(ended, data)

    async def sleep(self, seconds: float) -> None:
        self._now += seconds

    def now(self) -> float:
        return self._now

    def background(self, work: Callable[[BackgroundTask], Any]) -> BackgroundTask:
        return ThreadTask(work)


def seen(ended: bool, data: bytes) -> dict[str, object]:
    return {"outcome": "live", "ended": ended, "data": base64.b64encode(data).decode()}


def answered(head: bytes, tail: bytes = b"", size: int | None = None) -> dict[str, object]:
    """Make the answer of a command."""
    return {
        "head": base64.b64encode(head).decode(),
        "tail": base64.b64encode(tail).decode(),
        "size_bytes": len(head) + len(tail) if size is None else size,
    }


def followed(*polls: Any, output: bytes) -> tuple[list[str], ScriptedClient]:
    """Follow a call whose looks are answered so, and which ends after the last of them."""
    over = threading.Event()
    client = ScriptedClient(*polls, done=over.set)
    texts: list[str] = []
    following = LiveOutput(client, "k", texts.append)  # type: ignore[arg-type]

    async def call() -> tuple[dict[str, object], str]:
        following.start_polling(INFO)
        assert over.wait(90)
        return answered(output), "sb"

    run_sync(following.during(call()))
    return texts, client


class TestPolling:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("FIRST_POLL_S", "FIRST_PAUSE_S", "SILENT_PAUSE_S"):
            monkeypatch.setattr(live, name, 0.0)

    def test_each_poll_continues_where_the_last_one_ended(self) -> None:
        texts, client = followed((False, b"ab"), (False, b""), (False, b"c"), (True, b""), output=b"abcde")
        assert texts == ["ab", "c", "de"]
        assert client.offsets == [0, 2, 2, 3]

    def test_a_failed_poll_repeats_no_output(self) -> None:
        fault = PortFault(FaultKind.DROPPED, "gone")
        texts, client = followed((False, b"ab"), fault, (False, b"c"), (True, b""), output=b"abc")
        assert texts == ["ab", "c"]
        assert client.offsets == [0, 2, 2, 3]

    def test_a_poll_that_returns_too_much_is_ignored(self) -> None:
        forged = (False, b"x" * (live.POLL_LIMIT_BYTES + 1))
        texts, _ = followed(forged, (True, b""), output=b"abc")
        assert texts == ["abc"]

    def test_a_log_that_ran_ahead_of_the_answer_adds_nothing(self) -> None:
        texts, _ = followed((False, b"abcdef"), (True, b""), output=b"abc")
        assert texts == ["abcdef"]

    def test_without_a_thread_the_output_comes_at_the_end(self, caplog: pytest.LogCaptureFixture) -> None:
        def refused(work: Callable[[BackgroundTask], Any]) -> BackgroundTask:
            raise RuntimeError("can't start new thread")

        client = ScriptedClient()
        client.background = refused  # type: ignore[method-assign]
        texts: list[str] = []
        following = LiveOutput(client, "k", texts.append)  # type: ignore[arg-type]

        async def call() -> tuple[dict[str, object], str]:
            following.start_polling(INFO)
            return answered(b"ab"), "sb"

        run_sync(following.during(call()))
        assert texts == ["ab"]
        assert "can't start new thread" in caplog.text

    def test_an_async_callback_gets_the_output_on_a_loop(self) -> None:
        texts: list[str] = []

        async def work() -> None:
            over = asyncio.Event()
            client = ScriptedClient((False, b"a"), (True, b""), done=over.set)
            client.background = AsyncioTask  # type: ignore[method-assign,assignment]

            async def receive(text: str) -> None:
                await asyncio.sleep(0)
                texts.append(text)

            following = LiveOutput(client, "k", receive)  # type: ignore[arg-type]

            async def call() -> tuple[dict[str, object], str]:
                following.start_polling(INFO)
                await over.wait()
                return answered(b"ab"), "sb"

            await following.during(call())
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(work())
        assert texts == ["a", "b"]


class TestTheRest:
    """The rest of the output after a command's end, if the answer has only its beginning and its end."""

    @pytest.fixture(autouse=True)
    def _not_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "FIRST_POLL_S", 600.0)

    def rest(self, answer: dict[str, object], *polls: Any, takes_s: float = 0.0) -> tuple[str, list[int]]:
        client = ScriptedClient(*polls, takes_s=takes_s)
        texts: list[str] = []
        following = LiveOutput(client, "k", texts.append)  # type: ignore[arg-type]

        async def call() -> tuple[dict[str, object], str]:
            following.start_polling(INFO)
            return answer, "sb"

        run_sync(following.during(call()))
        return "".join(texts), client.offsets

    def test_the_middle_of_the_output_comes_from_the_log(self) -> None:
        answer = answered(b"abc", b"xyz", 10)
        assert self.rest(answer, (True, b"defgxyz and what runs on")) == ("abcdefgxyz", [3])

    def test_a_character_across_answer_and_log_is_whole(self) -> None:
        data = "żółw".encode()
        assert self.rest(answered(data[:1], data[4:], len(data)), (True, data[1:4])) == ("żółw", [1])

    def test_a_failed_read_of_the_log_is_repeated(self) -> None:
        fault = PortFault(FaultKind.UNAVAILABLE, "not now")
        polls = [fault] * (live.FAILURES_MAX - 1) + [(True, b"d")]
        text, offsets = self.rest(answered(b"abc", b"xyz", 7), *polls)
        assert (text, len(offsets)) == ("abcdxyz", live.FAILURES_MAX)

    @pytest.mark.parametrize("tail", [b"xyz", b"\x80\x80xyz"])
    def test_an_unreadable_log_is_noted_before_the_tail(self, tail: bytes) -> None:
        polls = [PortFault(FaultKind.UNAVAILABLE, "not now")] * live.FAILURES_MAX
        text, offsets = self.rest(answered(b"ab\xc5", tail, 100), *polls)
        assert text == f"ab\ufffd{live.LOST_NOTE}xyz"
        assert len(offsets) == live.FAILURES_MAX

    def test_a_slow_read_of_the_log_is_not_repeated(self) -> None:
        hung = PortFault(FaultKind.DROPPED, "timed out")
        text, offsets = self.rest(answered(b"abc", b"xyz", 100), hung, takes_s=10.0)
        assert (text, offsets) == (f"abc{live.LOST_NOTE}xyz", [3])

    def test_a_log_that_is_too_short_is_noted(self) -> None:
        # The same for an endless output of one byte at a time.
        text, offsets = self.rest(answered(b"abc", b"xyz", 100), (True, b"d"))
        assert (text, offsets) == (f"abcd{live.LOST_NOTE}xyz", [3])


class HangingClient(ScriptedClient):
    """Answers polls on demand."""

    def __init__(self, late: dict[str, object] | Exception) -> None:
        super().__init__()
        self._late = late
        self.asked = threading.Event()
        self.release = threading.Event()

    async def poll(self, info: SandboxInfo, entry: str, request: Any, *, within_s: float) -> Any:
        self.asked.set()
        assert self.release.wait(90)
        if isinstance(self._late, Exception):
            raise self._late
        return self._late


class TestHangingPoll:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "FIRST_POLL_S", 0.0)
        monkeypatch.setattr(background, "GRACE_S", 0.0)

    @pytest.mark.parametrize("late", [seen(False, b"ab"), PortFault(FaultKind.DROPPED, "timed out")])
    @pytest.mark.parametrize("fails", [False, True], ids=["command returned", "command failed"])
    def test_a_hanging_poll_is_abandoned_and_emits_nothing_later(
        self, late: Any, fails: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = HangingClient(late)
        texts: list[str] = []
        following = LiveOutput(client, "k", texts.append)  # type: ignore[arg-type]
        expected = [] if fails else ["abc"]

        async def call() -> tuple[dict[str, object], str]:
            following.start_polling(INFO)
            assert client.asked.wait(90)
            if fails:
                raise KeyboardInterrupt
            return answered(b"abc"), "sb"

        with pytest.raises(KeyboardInterrupt) if fails else contextlib.nullcontext():
            run_sync(following.during(call()))
        assert texts == expected
        (thread,) = helpers()
        assert thread.daemon  # which the end of the interpreter does not wait for
        client.release.set()
        thread.join(30)
        assert not helpers()
        assert texts == expected
        assert caplog.records == []

    def test_a_hanging_poll_is_cancelled_on_a_loop(self) -> None:
        texts: list[str] = []

        async def work() -> None:
            asked, cancelled = asyncio.Event(), asyncio.Event()
            client = ScriptedClient()
            client.background = AsyncioTask  # type: ignore[method-assign,assignment]

            async def poll(*_: Any, **__: Any) -> Any:
                asked.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()

            client.poll = poll  # type: ignore[method-assign]
            following = LiveOutput(client, "k", texts.append)  # type: ignore[arg-type]

            async def call() -> tuple[dict[str, object], str]:
                following.start_polling(INFO)
                await asked.wait()
                return answered(b"abc"), "sb"

            await following.during(call())
            assert cancelled.is_set()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(work())
        assert texts == ["abc"]

    def test_a_running_callback_is_waited_for(self) -> None:
        made: list[ThreadTask] = []
        texts: list[str] = []
        began = threading.Event()

        def slow(text: str) -> None:
            began.set()
            assert made[0]._stopping.wait(90)  # the call waits for this already
            texts.append(text)

        client = ScriptedClient((False, b"ab"))
        client.background = lambda work: ThreadTask(lambda own: made.append(own) or work(own))  # type: ignore
        following = LiveOutput(client, "k", slow)  # type: ignore[arg-type]

        async def call() -> tuple[dict[str, object], str]:
            following.start_polling(INFO)
            assert began.wait(90)
            return answered(b"abc"), "sb"

        run_sync(following.during(call()))
        assert texts == ["ab", "c"]
        assert not helpers()

    def test_an_awaited_callback_is_waited_for(self) -> None:
        texts: list[str] = []

        async def work() -> None:
            made: list[AsyncioTask] = []
            began = asyncio.Event()

            async def slow(text: str) -> None:
                began.set()
                await made[0]._stopping.wait()
                await asyncio.sleep(0)
                texts.append(text)

            client = ScriptedClient((False, b"ab"))
            client.background = lambda work: AsyncioTask(lambda own: made.append(own) or work(own))  # type: ignore
            following = LiveOutput(client, "k", slow)  # type: ignore[arg-type]

            async def call() -> tuple[dict[str, object], str]:
                following.start_polling(INFO)
                await began.wait()
                return answered(b"abc"), "sb"

            await following.during(call())
            assert client.offsets == [0]  # no poll after the command's end

        asyncio.run(work())
        assert texts == ["ab", "c"]

    def test_a_poll_that_ends_while_it_is_abandoned_emits_nothing(self) -> None:
        client = HangingClient(seen(False, b"ab"))
        texts: list[str] = []
        received = threading.Event()

        class Late(ThreadTask):
            may_be = False

            @property
            def _may_be_abandoned(self) -> bool:
                client.release.set()
                received.wait(0.2)  # the decision must prevent the thread from passing it on
                return self.may_be

            @_may_be_abandoned.setter
            def _may_be_abandoned(self, value: bool) -> None:
                self.may_be = value

        def receive(text: str) -> None:
            texts.append(text)
            received.set()

        client.background = Late  # type: ignore[method-assign,assignment]
        following = LiveOutput(client, "k", receive)  # type: ignore[arg-type]

        async def call() -> tuple[dict[str, object], str]:
            following.start_polling(INFO)
            assert client.asked.wait(90)
            return answered(b"abc"), "sb"

        run_sync(following.during(call()))
        for thread in helpers():
            thread.join(30)
        assert texts == ["abc"]

    def test_all_output_is_emitted_once_whichever_thread_is_first(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        output = bytes(range(97, 117))
        monkeypatch.setattr(live, "SILENT_PAUSE_S", 0.0)
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for round_ in range(200):
                client = ScriptedClient()

                async def poll(*given: Any, within_s: float) -> Any:
                    at = given[2]["offset"]
                    return seen(False, output[at : at + 1])

                client.poll = poll  # type: ignore[method-assign]
                texts: list[str] = []
                enough = threading.Event()
                is_over = False

                def receive(text: str) -> None:
                    texts.append(f"late {text}" if is_over else text)  # noqa: B023
                    if len(texts) > round_ % 10:  # noqa: B023
                        enough.set()  # noqa: B023

                following = LiveOutput(client, "k", receive)  # type: ignore[arg-type]

                async def call() -> tuple[dict[str, object], str]:
                    following.start_polling(INFO)  # noqa: B023
                    assert enough.wait(90)  # noqa: B023
                    return answered(output), "sb"

                run_sync(following.during(call()))
                is_over = True
                for thread in helpers():
                    thread.join(30)
                assert "".join(texts) == output.decode()
        finally:
            sys.setswitchinterval(before)


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "langchain-daytona-ws-background"]


def test_a_failed_call_ends_the_polling(tmp_path: Path) -> None:
    workspace = Workspace("bash", tmp_path)
    workspace.root.parent.mkdir()
    workspace.root.write_text("in the way")
    texts: list[str] = []
    with pytest.raises(SandboxError):
        workspace.run("echo one", on_output=texts.append)
    assert texts == []


@pytest.mark.parametrize("shell", ["zsh", "bash", "dash"])
def test_output_is_streamed_under_every_shell(tmp_path: Path, shell: str) -> None:
    workspace = Workspace(shell, tmp_path)
    texts: list[str] = []

    def receive(text: str) -> None:
        texts.append(text)
        (workspace.root / "go").touch()

    result = workspace.run("echo one; while [ ! -e go ]; do sleep 0.02; done; echo two", on_output=receive)
    assert result.output == "".join(texts) == "one\ntwo\n"
    assert not list(workspace.port.tmp.glob("*/*.log"))
